"""A checkpoint's config.json -> the shape that all arithmetic works with, and how its weights are stored.

What the file does not say is None, with the reason in `facts`; what contradicts itself is a ValueError that names the
field and what would be right. Defaults of transformers' classes stand in only where they are known, and are marked.
Reading files belongs to `checkpoint_facts`; what the weights' own headers say, to `safetensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.domain.model_config.families import Family, family_named
from gateway.domain.model_config.fields import Fields, NotSaid
from gateway.domain.model_config.formats import WeightFormat, read_format, unquantised_params
from gateway.domain.model_config.layers import Kind, Layers, read_layers, read_linear
from gateway.domain.model_config.parts import (
    EXPERTS,
    EXPERTS_PER_TOKEN,
    SHARED_EXPERTS,
    Part,
    head_size,
    is_tied,
    kv_heads,
    parts_of,
    sparse_layers,
)
from gateway.domain.records import (
    Confidence,
    MlaShape,
    ModelShape,
    MoeShape,
    Sourced,
    VisionShape,
    Weights,
)

__all__ = ["ParamCount", "architecture_of", "count_params", "read_weights", "shape_of_config"]

T = TypeVar("T")
CONFIG = "config.json"
_TEXT_BLOCKS = ("text_config", "language_config", "llm_config")
_VISION_BLOCKS = ("vision_config", "vision_tower_config")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "seq_len")
_ALREADY_SCALED = frozenset({"default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "mrope"})
"""Rotary types whose configuration gives the longest context as it is, by vLLM 0.32."""
_SHARED_BY_ALL = ("tie_word_embeddings", "quantization_config", "compression_config", "torch_dtype", "dtype")


@dataclass(frozen=True, slots=True)
class ParamCount:
    """What follows from a configuration, without image encoder and draft layers."""

    total: int
    active: int
    """Parameters read per token: all but the experts that a token leaves out."""
    embedding: int


def shape_of_config(config: Mapping[str, Any], *, source: str = CONFIG) -> ModelShape:
    """The shape that a config.json describes. `source` names the file in facts and complaints.

    Raises ValueError for a value that cannot be, and for values that contradict each other.
    """
    return _Reading(config, source).shape()


def read_weights(config: Mapping[str, Any], *, source: str = CONFIG) -> Weights:
    """Architecture, number format, group size and what keeps 16 bits. Raises ValueError like `shape_of_config`."""
    reading = _Reading(config, source)
    stored = reading.format
    kept, note = None, None
    try:
        kept = unquantised_params(stored, reading.parts())
    except NotSaid as reason:
        note = str(reason)
    if stored.method is not None:
        note = "; ".join(filter(None, (f"Quantised by {stored.method}", note))) + "."
    return Weights(
        architecture=architecture_of(config),
        dtype=stored.dtype,
        group_size=stored.group_size,
        unquantised_params=kept,
        sourced=Sourced(source, Confidence.HIGH, note),
    )


def count_params(config: Mapping[str, Any], *, source: str = CONFIG) -> ParamCount | None:
    """Parameters of the language model; None where they do not follow from the configuration."""
    try:
        return _Reading(config, source).params()
    except NotSaid:
        return None


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """The first of `architectures`."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) else None


class _Reading:
    """One configuration being read: its fields, its family, and where each fact of the shape comes from."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        text = _text_config(config, source)
        self.source = source
        self.architecture = architecture_of(config)
        named = text.get("model_type")
        self.family: Family = family_named(named if isinstance(named, str) else None, self.architecture)
        self.fields = Fields(text, defaults=self.family.defaults, where=source)
        self.vision = next((config[name] for name in _VISION_BLOCKS if isinstance(config.get(name), Mapping)), None)
        self.config = config
        self.facts: dict[str, Sourced] = {}
        self._layers: Layers | None = None

    @property
    def format(self) -> WeightFormat:
        return read_format(self.fields, where=self.source)

    def layers(self) -> Layers:
        if self._layers is None:
            self._layers = read_layers(self.fields, self.family)
        return self._layers

    def parts(self) -> list[Part]:
        return list(parts_of(self.fields, self.family, self.layers()))

    def params(self) -> ParamCount:
        total = active = 0
        chosen = self.fields.count(*EXPERTS_PER_TOKEN)
        parts = self.parts()
        for part in parts:
            total += part.params
            if part.experts == 1:
                active += part.params
            elif chosen is None:
                raise NotSaid(f"{self.source} says no {EXPERTS_PER_TOKEN[0]}")
            else:
                active += part.params // part.experts * chosen
        return ParamCount(total, active, parts[0].params)

    def shape(self) -> ModelShape:
        fields, is_latent = self.fields, self._is_latent()
        self._require_positive()
        shape = ModelShape(
            layers=self._said("layers", "num_hidden_layers", lambda: fields.need("num_hidden_layers")),
            hidden=self._said("hidden", "hidden_size", lambda: fields.need("hidden_size")),
            ffn=self._said("ffn", "intermediate_size", lambda: fields.need("intermediate_size")),
            heads=self._said("heads", "num_attention_heads", lambda: fields.need("num_attention_heads")),
            kv_heads=self._said("kv_heads", "num_key_value_heads", lambda: kv_heads(fields)),
            head_dim=self._latent_key() if is_latent else self._said("head_dim", "head_dim", lambda: head_size(fields)),
            v_head_dim=self._said("v_head_dim", "v_head_dim", lambda: fields.need("v_head_dim")) if is_latent else None,
            vocab=self._said("vocab", "vocab_size", lambda: fields.need("vocab_size")),
            tied_embeddings=self._said("tied_embeddings", "tie_word_embeddings", lambda: is_tied(fields)),
            context=self._found("context", self._context),
            mla=self._found("mla", self._mla) if is_latent else None,
            moe=self._moe(),
            vision=self._vision(),
            dtype=fields.text("dtype") or fields.text("torch_dtype") or "bfloat16",
        )
        return replace(self._with_params(self._with_layers(shape)), facts=self.facts)

    # Facts, each with its source or the reason why it is missing.

    def _found(self, name: str, read: Callable[[], T], sourced: Sourced | None = None) -> T | None:
        try:
            value = read()
        except NotSaid as reason:
            self.facts[name] = Sourced(self.source, Confidence.HIGH, f"Not known: {reason}.")
            return None
        self.facts[name] = sourced or Sourced(self.source, Confidence.HIGH)
        return value

    def _said(self, name: str, field: str, read: Callable[[], T]) -> T | None:
        """A value under its own field; marked where the class's default or arithmetic stands in for it."""
        value = self._found(name, read)
        if value is None:
            return None
        if field in self.fields.defaulted:
            kind = self.fields.get("model_type") or self.architecture
            self.facts[name] = Sourced("transformers 5.19", Confidence.MEDIUM, f"The default of {kind}'s class.")
        elif self.fields.get(field) is None:
            self.facts[name] = Sourced("arithmetic", Confidence.HIGH, f"{self.source} has no {field}.")
        return value

    def _require_positive(self) -> None:
        """Sizes that nothing else looks at are still not allowed to be nonsense."""
        for name in ("hidden_size", "intermediate_size", "vocab_size", "moe_intermediate_size", *_LENGTHS):
            self.fields.count(name)

    def _is_latent(self) -> bool:
        return self.fields.get("kv_lora_rank") is not None

    def _mla(self) -> MlaShape:
        fields = self.fields
        return MlaShape(
            kv_lora_rank=fields.need("kv_lora_rank"),
            qk_rope_head_dim=fields.need("qk_rope_head_dim", least=0),
            q_lora_rank=fields.count("q_lora_rank"),
            index_head_dim=fields.count("index_head_dim"),
        )

    def _latent_key(self) -> int | None:
        """Size of a key before it is compressed: the rotary part and the plain part."""
        fields = self.fields
        return self._found(
            "head_dim",
            lambda: fields.need("qk_nope_head_dim") + fields.need("qk_rope_head_dim", least=0),
            Sourced("arithmetic", Confidence.HIGH, "qk_nope_head_dim + qk_rope_head_dim."),
        )

    def _context(self) -> int:
        said = [length for name in _LENGTHS if (length := self.fields.count(name)) is not None]
        if not said:
            raise NotSaid(f"{self.source} says no {_LENGTHS[0]}")
        return int(min(said) * _rope_factor(self.fields))

    def _moe(self) -> MoeShape | None:
        fields = self.fields
        experts, chosen = fields.count(*EXPERTS), fields.count(*EXPERTS_PER_TOKEN)
        if experts is None:
            return None
        if chosen is not None and chosen > experts:
            raise fields.complaint(EXPERTS_PER_TOKEN[0], f"at most the number of experts ({experts})", chosen)
        return self._found("moe", lambda: self._mixture(experts))

    def _mixture(self, experts: int) -> MoeShape:
        fields, moe = self.fields, self.family.moe
        chosen, number = fields.need(*EXPERTS_PER_TOKEN), fields.count("num_hidden_layers") or 0
        shared = moe.always_shared if moe and moe.always_shared else fields.count(*SHARED_EXPERTS, least=0) or 0
        inner = fields.count(moe.ffn if moe else "moe_intermediate_size")
        if moe is None:
            dense = fields.count("first_k_dense_replace", least=0) or 0
        else:
            dense = number - len(sparse_layers(fields, self.family, number))
        return MoeShape(experts, chosen, shared, inner, dense)

    def _vision(self) -> VisionShape | None:
        if self.vision is None:
            return None
        fields = Fields(self.vision, defaults={}, where=f"{self.source}: vision_config")
        self.facts["vision"] = Sourced(
            self.source, Confidence.HIGH, "Its parameters do not follow from the configuration here."
        )
        return VisionShape(
            layers=fields.count("depth", "num_hidden_layers"),
            hidden=fields.count("embed_dim", "hidden_size"),
            image_tokens=Fields(self.config, defaults={}, where=self.source).count("mm_tokens_per_image"),
        )

    def _with_layers(self, shape: ModelShape) -> ModelShape:
        layers = self._found("global_layers", self.layers)
        if layers is None:
            return shape
        fact = Sourced(self.source if self.fields.get("layer_types") else "arithmetic", Confidence.HIGH)
        self.facts["global_layers"] = fact
        for name, value in (("sliding_window", layers.window), ("attention_chunk", layers.chunk)):
            if value is not None:
                self.facts[name] = Sourced(self.source, Confidence.HIGH)
        linear = read_linear(self.fields, layers, shape.dtype)
        if linear is not None:
            note = None if linear.state_bytes else "The size of a state does not follow from the configuration."
            self.facts["linear"] = Sourced("arithmetic", Confidence.HIGH, note)
        return replace(
            shape,
            global_layers=layers.number_of(Kind.FULL),
            sliding_window=layers.window,
            attention_chunk=layers.chunk,
            linear=linear,
        )

    def _with_params(self, shape: ModelShape) -> ModelShape:
        fact = Sourced("arithmetic", Confidence.HIGH, f"Counted from {self.source}.")
        if self.family.differential:
            fact = Sourced("arithmetic", Confidence.MEDIUM, f"Counted from {self.source}, as vLLM 0.10.2 built it.")
        counted = self._found("params", self.params, fact)
        if counted is None:
            self.facts["active_params"] = self.facts["params"]
            return shape
        if self.vision is not None:
            note = f"Not known: the image encoder's parameters; the language model has {counted.total:,}."
            self.facts["params"] = self.facts["active_params"] = Sourced(self.source, Confidence.HIGH, note)
            return shape
        self.facts["active_params"] = fact
        return replace(shape, params=counted.total, active_params=counted.active)


def _text_config(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The language model's part of a configuration, with what stands beside it for the whole model."""
    for name in _TEXT_BLOCKS:
        if (block := config.get(name)) is not None:
            if not isinstance(block, Mapping):
                raise ValueError(f"{source}: {name}: expected a mapping, got {type(block).__name__}")
            shared = {key: config[key] for key in _SHARED_BY_ALL if config.get(key) is not None}
            return {**shared, **block}
    return config


def _rope_factor(fields: Fields) -> float:
    """By how much the rotary embedding stretches the context beyond what the configuration gives."""
    block = fields.block("rope_parameters") or fields.block("rope_scaling")
    if block is None or "gemma3" in str(fields.get("model_type")):
        return 1.0
    by_layer_type = [inner for inner in block.values() if isinstance(inner, Mapping)]
    factor = 1.0
    for rope in by_layer_type or [block]:
        if (rope.get("rope_type") or rope.get("type") or "default") in _ALREADY_SCALED:
            continue
        found = rope.get("factor", 1.0)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not 1 <= found <= 10_000:
            raise fields.complaint("rope_scaling.factor", "a number from 1 to 10,000", found)
        factor = float(found)
    return factor
