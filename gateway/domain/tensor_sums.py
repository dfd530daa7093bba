"""A checkpoint's tensors summed up: bytes as they lie in the files, parameters as the model has them.

Packed formats are unpacked on paper: eight 4-bit weights in an I32, two in a U8, their scales, zero points and group
indices beside them, which take bytes and are no parameters. Draft layers behind the model's own (multi-token
prediction) and copies of tied embeddings are counted apart, as engines leave them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.domain.safetensors import Tensor

PLAIN: Mapping[str, str] = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
VISION_PREFIXES = (
    "visual.",
    "model.visual.",
    "vision_model.",
    "model.vision_model.",
    "vision_tower.",
    "model.vision_tower.",
    "vision_embed_tokens.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
    "abstractor.",
    "model.abstractor.",
    "mm_projector.",
    "model.mm_projector.",
    "vision_projector.",
    "image_newline",
)
HEADS = ("lm_head.weight", "model.lm_head.weight", "language_model.lm_head.weight", "output.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "embeddings.weight")
LAYERS_OF_TEXT = frozenset({"model", "language_model", "language_model.model", "model.language_model", "backbone"})
"""What stands before `.layers.` in the names of the language model's own layers."""
DRAFT_PREFIXES = ("mtp.", "model.mtp.", "mtp_")
_AUXILIARY = (
    "inv_freq",
    "e_score_correction_bias",
    "expert_bias",
    "input_scale",
    "input_scale_inv",
    "output_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "kv_scale",
    "prob_scale",
    "input_global_scale",
    "input_zero_point",
    "g_idx",
    "weight_g_idx",
    "weight_shape",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_zero_point",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "SCB",
)
"""Last parts of the names of tensors that are no parameters, whatever stands beside them."""


@dataclass(frozen=True, slots=True)
class TensorSums:
    """Bytes and parameters of a model's tensors, without draft layers and copies."""

    total_bytes: int
    """What an engine keeps of the files: scales, zero points and buffers included."""
    bytes_by_dtype: Mapping[str, int]
    """By the format that the files name, e.g. I32 for packed 4-bit weights."""
    params: int
    params_by_format: Mapping[str, int]
    """By number format: bfloat16, fp8, int4, nvfp4, ..."""
    group_size: int | None = None
    """Weights that share a scale in the packed format with most weights; None where nothing is packed."""
    vision_params: int = 0
    draft_params: int = 0
    draft_bytes: int = 0
    tied_bytes: int = 0
    """Bytes of an output head that is stored although it is the embedding."""
    has_head: bool = False
    embedding_params: int = 0
    unknown: tuple[str, ...] = ()
    """Tensors of whole numbers that are in no format known here: no parameters were counted for them."""

    @property
    def dtype(self) -> str | None:
        """The format of most weights, None without any."""
        formats = sorted(self.params_by_format.items(), key=lambda item: (-item[1], item[0]))
        return formats[0][0] if formats else None

    @property
    def unquantised_params(self) -> int | None:
        """Parameters in 16 or 32 bits beside quantised ones; None where nothing is quantised."""
        plain = sum(self.params_by_format.get(name, 0) for name in PLAIN.values())
        return None if plain == self.params else plain


@dataclass(frozen=True, slots=True)
class _Weight:
    """One logical weight: its parameters, and in what format and groups."""

    params: int
    format: str
    group: int | None = None


@dataclass(slots=True)
class _Sums:
    """What is being added up."""

    bytes_by_dtype: Counter[str] = field(default_factory=Counter)
    params_by_format: Counter[str] = field(default_factory=Counter)
    groups: Counter[int] = field(default_factory=Counter)
    vision: int = 0
    draft_params: int = 0
    draft_bytes: int = 0
    tied_bytes: int = 0
    embedding: int = 0
    has_head: bool = False
    unknown: list[str] = field(default_factory=list)


def sum_tensors(
    tensors: Iterable[Tensor], *, layers: int | None = None, tied: bool | None = None, packed_bits: int | None = None
) -> TensorSums:
    """Add up a checkpoint's tensors.

    `layers`: of the model; what is numbered beyond is a draft layer. `tied`: whether the configuration ties the
    embeddings; a stored head is then a copy. `packed_bits`: bits of a weight packed into I32 where the tensors alone
    do not tell; 4 if not given. Raises ValueError for packed tensors that do not fit each other.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    sums = _Sums()
    for tensor in by_name.values():
        weight = _weight(tensor, by_name, packed_bits or 4)
        if _is_draft(tensor.name, layers):
            sums.draft_bytes += tensor.size_bytes
            sums.draft_params += weight.params if weight else 0
        elif tied and tensor.name in HEADS:
            sums.tied_bytes += tensor.size_bytes
        else:
            _add(sums, tensor, weight)
    return TensorSums(
        total_bytes=sum(sums.bytes_by_dtype.values()),
        bytes_by_dtype=dict(sorted(sums.bytes_by_dtype.items())),
        params=sum(sums.params_by_format.values()),
        params_by_format=dict(sorted(sums.params_by_format.items())),
        group_size=sums.groups.most_common(1)[0][0] if sums.groups else None,
        vision_params=sums.vision,
        draft_params=sums.draft_params,
        draft_bytes=sums.draft_bytes,
        tied_bytes=sums.tied_bytes,
        has_head=sums.has_head,
        embedding_params=sums.embedding,
        unknown=tuple(sums.unknown),
    )


def _add(sums: _Sums, tensor: Tensor, weight: _Weight | None) -> None:
    sums.bytes_by_dtype[tensor.dtype] += tensor.size_bytes
    if weight is None:
        return
    if weight.format == "":
        sums.unknown.append(tensor.name)
        return
    sums.params_by_format[weight.format] += weight.params
    if weight.group is not None:
        sums.groups[weight.group] += weight.params
    if tensor.name.startswith(VISION_PREFIXES):
        sums.vision += weight.params
    elif tensor.name.endswith(EMBEDDINGS) and not sums.embedding:
        sums.embedding = weight.params
    if tensor.name.removesuffix("qweight").removesuffix("weight_packed") + "weight" in HEADS or tensor.name in HEADS:
        sums.has_head = True


def _is_draft(name: str, layers: int | None) -> bool:
    if name.startswith(DRAFT_PREFIXES):
        return True
    before, _, after = name.partition(".layers.")
    if layers is None or before not in LAYERS_OF_TEXT:
        return False
    number = after.partition(".")[0]
    return number.isdecimal() and len(number) < 10 and int(number) >= layers


# --- one tensor ---------------------------------------------------------------------------------------------


def _weight(tensor: Tensor, by_name: Mapping[str, Tensor], packed_bits: int) -> _Weight | None:
    """The logical weight that a tensor stands for; None for one that only helps to read another."""
    module, _, last = tensor.name.rpartition(".")
    beside = _Beside(f"{module}." if module else "", by_name)
    if last in ("scales", "qzeros") and beside.get("qweight") is not None:
        return None
    if tensor.name.endswith(_AUXILIARY) and _is_last(tensor.name):
        return None
    for suffix, unpack in _PACKED.items():
        if tensor.name.endswith(suffix):
            return unpack(tensor, _Beside(tensor.name.removesuffix(suffix), by_name), packed_bits)
    if tensor.name.endswith("_scales") and tensor.name.removesuffix("_scales") + "_blocks" in by_name:
        return None
    if tensor.dtype in PLAIN:
        return _Weight(tensor.elements, PLAIN[tensor.dtype])
    if tensor.dtype in FLOAT8:
        return _Weight(tensor.elements, "fp8")
    if tensor.dtype == "I8":
        return _Weight(tensor.elements, "int8")
    if tensor.dtype == "U8" and last == "weight":
        return _packed_bytes(tensor, beside)
    if tensor.dtype == "F4":
        return _Weight(tensor.elements, "nvfp4" if beside.get("weight_scale") else "mxfp4")
    return _Weight(0, "")


@dataclass(frozen=True, slots=True)
class _Beside:
    """The tensors of the same module."""

    prefix: str
    by_name: Mapping[str, Tensor]

    def get(self, last: str) -> Tensor | None:
        return self.by_name.get(self.prefix + last)


def _is_last(name: str) -> bool:
    """Whether the auxiliary ending is whole parts of the name, e.g. not `my_inv_freq`."""
    return any(name == ending or name.endswith("." + ending) for ending in _AUXILIARY)


def _qweight(tensor: Tensor, beside: _Beside, packed_bits: int) -> _Weight:
    """GPTQ packs rows, AWQ columns; both have a scale a group and column, and zero points packed along columns."""
    scales, zeros = beside.get("scales"), beside.get("qzeros")
    if len(tensor.shape) != 2 or scales is None or len(scales.shape) != 2:
        return _Weight(0, "")
    groups, columns = scales.shape
    bits = packed_bits
    if zeros is not None and len(zeros.shape) == 2 and columns and not 32 * zeros.shape[1] % columns:
        bits = 32 * zeros.shape[1] // columns
    params = tensor.elements * 32 // bits if bits else 0
    if not columns or params % columns or not groups:
        raise ValueError(
            f"{tensor.name}: expected {bits}-bit weights of {columns} columns (scales), got {list(tensor.shape)}"
        )
    rows = params // columns
    return _Weight(params, f"int{bits}", rows // groups if groups > 1 else None)


def _weight_packed(tensor: Tensor, beside: _Beside, packed_bits: int) -> _Weight:
    """compressed-tensors: whole numbers in I32, 4-bit floats in U8 with their scales in 8 bits."""
    scale = beside.get("weight_scale")
    if tensor.dtype == "U8":
        return _packed_bytes(tensor, beside)
    params = tensor.elements * 32 // packed_bits
    return _Weight(params, f"int{packed_bits}", _shared_by(params, scale))


def _packed_bytes(tensor: Tensor, beside: _Beside) -> _Weight:
    """Two 4-bit numbers a byte: NVFP4 with a scale in F8 for 16, MXFP4 in U8 or E8M0 for 32, else bitsandbytes."""
    scale, params = beside.get("weight_scale"), tensor.elements * 2
    if scale is not None and scale.dtype in FLOAT8:
        return _Weight(params, "nvfp4", _shared_by(params, scale))
    if scale is not None and scale.dtype in ("U8", "F8_E8M0"):
        return _Weight(params, "mxfp4", _shared_by(params, scale))
    if (absmax := beside.get("weight.absmax")) is not None:
        return _Weight(params, "int4", _shared_by(params, absmax))
    return _Weight(0, "")


def _blocks(tensor: Tensor, beside: _Beside, packed_bits: int) -> _Weight:
    """MXFP4 as gpt-oss stores it: 16 bytes a block of 32, and a scale a block."""
    scale = beside.get("_scales")
    if tensor.dtype != "U8" or scale is None:
        return _Weight(0, "")
    return _Weight(tensor.elements * 2, "mxfp4", _shared_by(tensor.elements * 2, scale))


def _shared_by(params: int, scale: Tensor | None) -> int | None:
    """Weights to a scale; None where a scale is for a whole row or tensor of uneven size."""
    if scale is None or scale.elements < 2 or params % scale.elements:
        return None
    return params // scale.elements


_PACKED: Mapping[str, Callable[[Tensor, _Beside, int], _Weight]] = {
    "qweight": _qweight,
    "weight_packed": _weight_packed,
    "_blocks": _blocks,
}
