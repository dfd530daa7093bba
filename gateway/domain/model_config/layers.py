"""What each layer of a model keeps of the past: everything, a window, a chunk, or a state of constant size.

Read from `layer_types` where the configuration has them, else by the rule of its family. Sizes in bytes of a state
belong here too; those of a KV cache belong to `memory`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gateway.domain.model_config.families import Family, Locals
from gateway.domain.model_config.fields import Fields, NotSaid
from gateway.domain.records import LinearShape

MOST_LAYERS = 10_000
STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


_Rule = Callable[[int], bool]
"""Whether the n-th layer, from 0, is local."""


class Kind(Enum):
    FULL = "full attention"
    WINDOW = "sliding window"
    CHUNK = "chunked attention"
    LINEAR = "state"


_KINDS = {
    "attention": Kind.FULL,
    "full_attention": Kind.FULL,
    "indexed_attention": Kind.FULL,
    "sliding_attention": Kind.WINDOW,
    "chunked_attention": Kind.CHUNK,
    "linear_attention": Kind.LINEAR,
    "mamba": Kind.LINEAR,
    "mamba2": Kind.LINEAR,
}


@dataclass(frozen=True, slots=True)
class Layers:
    """The kind of every layer, in order, and what the local ones see."""

    kinds: tuple[Kind, ...]
    window: int | None = None
    chunk: int | None = None

    def number_of(self, kind: Kind) -> int:
        return Counter(self.kinds)[kind]


def read_layers(fields: Fields, family: Family) -> Layers:
    """Raises NotSaid where the configuration does not tell, ValueError where it contradicts itself."""
    number = fields.count("num_hidden_layers", most=MOST_LAYERS)
    if number is None:
        raise NotSaid(f"{fields.where} says no num_hidden_layers")
    listed = fields.items("layer_types", str)
    kinds = _listed(fields, listed, number) if listed is not None else _by_rule(fields, family, number)
    window = chunk = None
    if Kind.WINDOW in kinds:
        window = fields.count("sliding_window")
        if window is None:
            raise fields.complaint("sliding_window", "the window of the layers whose type is sliding_attention", None)
    if Kind.CHUNK in kinds:
        chunk = fields.count("attention_chunk_size")
        if chunk is None:
            raise fields.complaint(
                "attention_chunk_size", "the chunk of the layers whose type is chunked_attention", None
            )
    return Layers(kinds, window, chunk)


def _listed(fields: Fields, listed: list[str], number: int) -> tuple[Kind, ...]:
    if len(listed) != number:
        raise fields.complaint(
            "layer_types", f"one type for each of {number} layers (num_hidden_layers)", f"{len(listed)} types"
        )
    unknown = sorted(set(listed) - _KINDS.keys())
    if unknown:
        raise NotSaid(f"{fields.where} has layers of type {', '.join(unknown)}, which are not known here")
    return tuple(_KINDS[name] for name in listed)


def _by_rule(fields: Fields, family: Family, number: int) -> tuple[Kind, ...]:
    if not family.countable and fields.get("layers_block_type", "hybrid_override_pattern", "attn_layer_indices"):
        return _hybrid(fields, number)
    match family.local:
        case Locals.CHUNKED:
            return _chunked(fields, family, number)
        case Locals.LINEAR:
            interval = fields.count("full_attention_interval") or family.pattern
            return tuple(Kind.LINEAR if (n + 1) % interval else Kind.FULL for n in range(number))
    is_local = _window_rule(fields, family, number)
    return tuple(Kind.WINDOW if is_local(n) else Kind.FULL for n in range(number))


def _window_rule(fields: Fields, family: Family, number: int) -> _Rule:
    is_on = fields.count("sliding_window") is not None if fields.get("sliding_window") else False
    match family.local:
        case _ if not is_on:
            return lambda n: False
        case Locals.ALL:
            is_used = fields.flag("use_sliding_window", default=True)
            return lambda n: is_used
        case Locals.SWITCHED:
            is_used = fields.flag("use_sliding_window")
            return lambda n: is_used
        case Locals.UPPER | Locals.ODD if not fields.flag("use_sliding_window"):
            return lambda n: False
        case Locals.UPPER:
            first = fields.need("max_window_layers", least=0)
            return lambda n: n >= first
        case Locals.ODD:
            end = fields.need("max_window_layers", least=0)
            return lambda n: n % 2 == 0 and n < end
        case Locals.EXAONE | Locals.PATTERN:
            return _pattern(fields, family, number)
    return lambda n: False


def _pattern(fields: Fields, family: Family, number: int) -> _Rule:
    pattern = fields.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(pattern, str) and family.local is Locals.EXAONE:
        if not pattern or set(pattern) - {"L", "G"}:
            raise fields.complaint("sliding_window_pattern", "a number, or letters L and G such as LLLG", pattern)
        letters = pattern
        return lambda n: n != number - 1 and letters[n % len(letters)] == "L"
    every = fields.count("sliding_window_pattern", "_sliding_window_pattern") or family.pattern
    return lambda n: (n + 1) % every != 0


def _chunked(fields: Fields, family: Family, number: int) -> tuple[Kind, ...]:
    with_rope = fields.items("no_rope_layers", int)
    if not with_rope:
        interval = fields.count("no_rope_layer_interval") or family.pattern
        with_rope = [int((n + 1) % interval != 0) for n in range(number)]
    if len(with_rope) != number:
        expected = f"one entry for each of {number} layers (num_hidden_layers)"
        raise fields.complaint("no_rope_layers", expected, f"{len(with_rope)} entries")
    return tuple(Kind.CHUNK if has_rope else Kind.FULL for has_rope in with_rope)


def _hybrid(fields: Fields, number: int) -> tuple[Kind, ...]:
    """The ways in which hybrids of attention and state layers wrote their layers before `layer_types`."""
    if (types := fields.items("layers_block_type", str)) is not None:
        return _listed(fields, types, number)
    if (indices := fields.items("attn_layer_indices", int)) is not None:
        return tuple(Kind.FULL if n in set(indices) else Kind.LINEAR for n in range(number))
    raise NotSaid(f"{fields.where} has layers without attention and without a state, which are not known here")


# --- states of constant size --------------------------------------------------------------------------------


def read_linear(fields: Fields, layers: Layers, dtype: str) -> LinearShape | None:
    """The state of the layers without a KV cache, counted as vLLM allocates it: convolution and recurrence."""
    number = layers.number_of(Kind.LINEAR)
    if not number:
        return None
    try:
        return LinearShape(number, _state_bytes(fields, dtype))
    except NotSaid:
        return LinearShape(number)


def _state_bytes(fields: Fields, dtype: str) -> int:
    if fields.get("linear_num_value_heads") is not None:
        key_heads, key = fields.need("linear_num_key_heads"), fields.need("linear_key_head_dim")
        heads, value = fields.need("linear_num_value_heads"), fields.need("linear_value_head_dim")
        convolved, kernel = 2 * key_heads * key + heads * value, fields.need("linear_conv_kernel_dim")
        state = heads * value * key
    else:
        heads, size = fields.need("mamba_n_heads", "mamba_num_heads"), fields.need("mamba_d_head", "mamba_head_dim")
        groups, depth = fields.need("mamba_n_groups", "n_groups"), fields.need("mamba_d_state", "ssm_state_size")
        convolved = heads * size + 2 * groups * depth
        kernel, state = fields.need("mamba_d_conv", "conv_kernel"), heads * size * depth
    stored = fields.text("mamba_ssm_cache_dtype") or fields.text("mamba_ssm_dtype") or dtype
    if dtype not in STATE_BYTES or stored not in STATE_BYTES:
        raise NotSaid(f"{fields.where} keeps states as {stored}, whose size is not known here")
    return convolved * (kernel - 1) * STATE_BYTES[dtype] + state * STATE_BYTES[stored]
