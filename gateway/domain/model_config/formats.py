"""How a checkpoint's numbers are stored, by what its `quantization_config` says: format, group, what is left alone.

Names of modules come from strangers, so patterns in them are matched by hand: a regular expression could be made to
run for hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.model_config.fields import Fields, NotSaid
from gateway.domain.model_config.parts import Part, Role

_INTEGER = {4: "int4", 8: "int8"}
_IGNORED_LISTS = ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """The number format of most weights."""

    dtype: str
    group_size: int | None = None
    method: str | None = None
    """`quant_method`, None where nothing is quantised."""
    ignored: tuple[str, ...] = ()
    """Modules that keep 16 bits, as the configuration names them."""
    has_quantised_head: bool = False


def read_format(fields: Fields, *, where: str) -> WeightFormat:
    """Raises ValueError for values that cannot be. A method that is not known here becomes the dtype's name."""
    plain = fields.text("dtype") or fields.text("torch_dtype") or "bfloat16"
    block = fields.block("quantization_config") or fields.block("compression_config")
    if block is None:
        return WeightFormat(plain)
    said = Fields(block, defaults={}, where=f"{where}: quantization_config")
    method = (said.text("quant_method") or _guessed_method(said)).replace("_", "-")
    ignored = tuple(str(name) for key in _IGNORED_LISTS for name in (said.items(key, str) or []))
    dtype, group = _stored(said, method)
    return WeightFormat(dtype, group, method, ignored, has_quantised_head=said.get("lm_head") is True)


def _guessed_method(said: Fields) -> str:
    if said.get("quant_algo") or said.get("quantization"):
        return "modelopt"
    if said.get("load_in_4bit") or said.get("load_in_8bit"):
        return "bitsandbytes"
    return "unknown"


def _stored(said: Fields, method: str) -> tuple[str, int | None]:
    match method:
        case "gptq" | "gptq-marlin" | "awq" | "awq-marlin" | "auto-round":
            return _integer(said, said.count("bits", "w_bit"), said.get("group_size", "q_group_size"))
        case "fp8" | "fbgemm-fp8":
            return "fp8", None
        case "mxfp4" | "gpt-oss-mxfp4":
            return "mxfp4", 32
        case "compressed-tensors":
            return _compressed(said)
        case "modelopt" | "modelopt-fp4" | "modelopt-mixed":
            return _modelopt(said)
        case "bitsandbytes":
            return ("int4", 64) if said.get("load_in_4bit") else ("int8", None)
    return method, None


def _integer(said: Fields, bits: int | None, group: Any) -> tuple[str, int | None]:
    if bits is None:
        raise said.complaint("bits", "the bits of a weight, such as 4", None)
    if group is not None and (isinstance(group, bool) or not isinstance(group, int) or (group < 1 and group != -1)):
        raise said.complaint("group_size", "a whole number, 1 or more, or -1 for whole columns", group)
    return _INTEGER.get(bits, f"int{bits}"), None if group in (None, -1) else group


def _modelopt(said: Fields) -> tuple[str, int | None]:
    inner = Fields(said.block("quantization") or {}, defaults={}, where=said.where)
    algorithm = (said.text("quant_algo") or inner.text("quant_algo") or "unknown").upper()
    if "NVFP4" in algorithm:
        return "nvfp4", 16
    return ("fp8", None) if algorithm.startswith("FP8") else (algorithm.lower(), None)


def _compressed(said: Fields) -> tuple[str, int | None]:
    """llm-compressor's groups of modules; where they differ, the format of the first that has weights."""
    groups = said.block("config_groups") or {}
    schemes = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
    scheme = next((scheme for scheme in schemes if isinstance(scheme, Mapping)), None)
    name = said.text("format") or ""
    if scheme is None:
        raise said.complaint("config_groups", "a group with `weights`", groups)
    weights = Fields(scheme, defaults={}, where=said.where)
    bits, group = weights.count("num_bits"), weights.get("group_size")
    if weights.text("type") == "float":
        if bits == 4:
            return ("mxfp4", 32) if "mxfp4" in name or group == 32 else ("nvfp4", 16)
        return "fp8", None
    return _integer(weights, bits, group)


# --- what is left alone -------------------------------------------------------------------------------------


def unquantised_params(format: WeightFormat, parts: Iterable[Part]) -> int | None:  # noqa: A002
    """Parameters that keep 16 bits; None where nothing is quantised.

    Norms, biases, routers and the embedding always do, the head unless the configuration says otherwise, and what
    it names. Raises NotSaid for a pattern of names that is not understood here.
    """
    if format.method is None:
        return None
    patterns = [_Pattern.read(name) for name in format.ignored]
    kept = 0
    for part in parts:
        is_kept = part.role in (Role.EMBEDDING, Role.OTHER) or (
            part.role is Role.HEAD and not format.has_quantised_head
        )
        if is_kept or any(pattern.matches(part.name) for pattern in patterns):
            kept += part.params
    return kept


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Pieces of a name with anything between them."""

    pieces: tuple[str, ...]
    is_whole: bool
    """Whether it stands for the whole name; else for a run of its dotted parts."""

    @classmethod
    def read(cls, text: str) -> _Pattern:
        if not text.startswith("re:"):
            return cls(tuple(text.split("*")), is_whole="*" in text)
        plain = text.removeprefix("re:").removeprefix("^").removesuffix("$").replace(".*", "*").replace(r"\.", ".")
        if not plain.replace("*", "").replace(".", "").replace("_", "").isalnum():
            raise NotSaid(f"which weights keep 16 bits is not known: the pattern {text[:60]!r} is not understood here")
        return cls(tuple(plain.split("*")), is_whole=True)

    def matches(self, name: str) -> bool:
        if not self.is_whole:
            return f".{self.pieces[0].strip('.')}." in f".{name}."
        return _matches(self.pieces, name) or any(
            _matches(self.pieces, name[:end]) for end, sign in enumerate(name) if sign == "."
        )


def _matches(pieces: Sequence[str], name: str) -> bool:
    """Whether `name` is these pieces with anything between them."""
    if len(pieces) == 1:
        return name == pieces[0]
    first, *middle, last = pieces
    if not name.startswith(first) or not name[len(first) :].endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
