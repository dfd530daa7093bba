"""Every group of parameters of a language model, by the name under which a checkpoint has it, counted from its config.

The sum over the parts is what transformers counts for the same configuration (tests/vllm/test_real_parameters.py).
Encoders of images, draft layers and buffers are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from gateway.domain.model_config.families import Family, Moe, QkNorm, Sparse
from gateway.domain.model_config.fields import Fields, NotSaid
from gateway.domain.model_config.layers import Kind, Layers

EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
SHARED_EXPERTS = ("n_shared_experts", "num_shared_experts")


class Role(Enum):
    EMBEDDING = "input embedding"
    HEAD = "output head"
    MATRIX = "projection"
    """What quantisation changes, routed experts included."""
    OTHER = "norms, biases, routers, convolutions"
    """What it leaves alone."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    params: int
    role: Role = Role.MATRIX
    experts: int = 1
    """Experts over which `params` are spread; only some of them are read for a token."""


def parts_of(fields: Fields, family: Family, layers: Layers) -> Iterator[Part]:
    """Raises NotSaid for a family that cannot be counted and for a field that is missing."""
    if not family.countable:
        named = fields.get("model_type") or "unknown"
        raise NotSaid(f"the parameters of model_type {named} are not counted from a configuration here")
    hidden, vocab = fields.need("hidden_size"), fields.need("vocab_size")
    yield Part("model.embed_tokens", vocab * hidden, Role.EMBEDDING)
    sparse = sparse_layers(fields, family, len(layers.kinds))
    for n, kind in enumerate(layers.kinds):
        at = f"model.layers.{n}"
        yield from _mixer(f"{at}.linear_attn" if kind is Kind.LINEAR else f"{at}.self_attn", fields, family, kind)
        if n in sparse and family.moe is not None:
            yield from _experts(f"{at}.mlp", fields, family.moe)
        else:
            yield from _dense(f"{at}.mlp", fields, family)
        yield Part(f"{at}.norms", _norms(fields, family, is_sparse=n in sparse), Role.OTHER)
    yield Part("model.norm", hidden * (2 if family.norm_bias else 1), Role.OTHER)
    if not is_tied(fields):
        yield Part("lm_head", vocab * hidden, Role.HEAD)


def is_tied(fields: Fields) -> bool:
    if fields.get("tie_word_embeddings") is None:
        raise NotSaid(f"{fields.where} says no tie_word_embeddings, and its class's default is not known here")
    return fields.flag("tie_word_embeddings")


def head_size(fields: Fields) -> int:
    """Size of a head: its field, else hidden size over heads."""
    if (size := fields.count("head_dim")) is not None:
        return size
    hidden, heads = fields.need("hidden_size"), fields.need("num_attention_heads")
    if hidden % heads:
        raise fields.complaint(
            "num_attention_heads", f"a divisor of hidden_size ({hidden}), or a head_dim beside it", heads
        )
    return hidden // heads


def kv_heads(fields: Fields) -> int:
    """Key-value heads, as many as heads where the file does not say."""
    heads = fields.need("num_attention_heads")
    found = fields.count("num_key_value_heads")
    if found is not None and found > heads:
        raise fields.complaint("num_key_value_heads", f"at most num_attention_heads ({heads})", found)
    if found is not None and heads % found:
        raise fields.complaint("num_key_value_heads", f"a divisor of num_attention_heads ({heads})", found)
    return heads if found is None else found


def sparse_layers(fields: Fields, family: Family, number: int) -> frozenset[int]:
    """The layers with experts."""
    if family.moe is None or fields.count(*EXPERTS) is None:
        return frozenset()
    everything = frozenset(range(number))
    match family.moe.sparse:
        case Sparse.ALL:
            return everything
        case Sparse.STEP:
            step, dense = fields.count("decoder_sparse_step") or 1, fields.items("mlp_only_layers", int) or []
            return frozenset(n for n in everything if (n + 1) % step == 0) - set(dense)
        case Sparse.INTERLEAVED:
            step = fields.count("interleave_moe_layer_step") or 1
            listed = fields.items("moe_layers", int)
            return frozenset(range(step - 1, number, step) if listed is None else listed) & everything
    if (types := fields.items("mlp_layer_types", str)) is not None:
        if len(types) != number:
            expected = f"one type for each of {number} layers (num_hidden_layers)"
            raise fields.complaint("mlp_layer_types", expected, f"{len(types)} types")
        return frozenset(n for n, name in enumerate(types) if name == "sparse")
    first = fields.need("first_k_dense_replace", least=0)
    if first > number:
        raise fields.complaint("first_k_dense_replace", f"at most num_hidden_layers ({number})", first)
    step = fields.count("moe_layer_freq") or 1
    return frozenset(n for n in range(first, number) if n % step == 0)


# --- attention ----------------------------------------------------------------------------------------------


def _mixer(at: str, fields: Fields, family: Family, kind: Kind) -> Iterator[Part]:
    if kind is Kind.LINEAR:
        return _delta_net(at, fields)
    return _latent(at, fields, family) if family.mla else _grouped(at, fields, family)


def _grouped(at: str, fields: Fields, family: Family) -> Iterator[Part]:
    hidden, heads, size = fields.need("hidden_size"), fields.need("num_attention_heads"), head_size(fields)
    query, key = heads * size, kv_heads(fields) * size
    asked = query * (2 if family.query_gate else 1)
    for name, width in (("q_proj", asked), ("k_proj", key), ("v_proj", key)):
        yield Part(f"{at}.{name}", width * hidden)
    yield Part(f"{at}.o_proj", query * hidden)
    other = (asked + 2 * key) * _has(fields, family.qkv_bias) + hidden * _has(fields, family.output_bias)
    if family.qk_norm is QkNorm.HEAD and (family.qk_norm_switch is None or fields.flag(family.qk_norm_switch)):
        other += 2 * size
    if family.qk_norm is QkNorm.WIDE:
        other += query + key
    if family.sinks:
        other += heads
    if family.differential:  # four vectors that weigh the two halves, a norm over two heads
        other += 4 * size + 2 * size
    yield Part(f"{at}.other", other, Role.OTHER)


def _latent(at: str, fields: Fields, family: Family) -> Iterator[Part]:
    hidden, heads = fields.need("hidden_size"), fields.need("num_attention_heads")
    latent, rope = fields.need("kv_lora_rank"), fields.need("qk_rope_head_dim", least=0)
    plain, value = fields.need("qk_nope_head_dim"), fields.need("v_head_dim")
    query_rank = fields.count("q_lora_rank")
    asked = heads * (plain + rope)
    bias = _has(fields, family.qkv_bias)
    other = latent + (latent + rope + hidden) * bias
    if query_rank is None:
        yield Part(f"{at}.q_proj", asked * hidden)
    else:
        yield Part(f"{at}.q_a_proj", query_rank * hidden)
        if family.query_gate:  # queries and their gate, from the compressed query before and after its norm
            yield Part(f"{at}.q_gate_proj", (asked + heads * value) * 2 * query_rank)
        else:
            yield Part(f"{at}.q_b_proj", asked * query_rank)
        other += query_rank + query_rank * bias
    yield Part(f"{at}.kv_a_proj_with_mqa", (latent + rope) * hidden)
    yield Part(f"{at}.kv_b_proj", heads * (plain + value) * latent)
    yield Part(f"{at}.o_proj", heads * value * hidden)
    if family.indexer:
        index_heads, size = fields.need("index_n_heads"), fields.need("index_head_dim")
        if query_rank is None:
            raise NotSaid(f"{fields.where} says no q_lora_rank, from which its indexer reads")
        yield Part(f"{at}.indexer.wq_b", index_heads * size * query_rank)
        yield Part(f"{at}.indexer.wk", size * hidden)
        yield Part(f"{at}.indexer.weights_proj", index_heads * hidden, Role.OTHER)
        other += 2 * size
    yield Part(f"{at}.other", other, Role.OTHER)


def _delta_net(at: str, fields: Fields) -> Iterator[Part]:
    hidden = fields.need("hidden_size")
    key = fields.need("linear_num_key_heads") * fields.need("linear_key_head_dim")
    heads, size = fields.need("linear_num_value_heads"), fields.need("linear_value_head_dim")
    value, kernel = heads * size, fields.need("linear_conv_kernel_dim")
    yield Part(f"{at}.in_proj_qkvz", (2 * key + 2 * value) * hidden)
    yield Part(f"{at}.in_proj_ba", 2 * heads * hidden)
    yield Part(f"{at}.out_proj", value * hidden)
    yield Part(f"{at}.other", (2 * key + value) * kernel + 2 * heads + size, Role.OTHER)


# --- feed-forward -------------------------------------------------------------------------------------------


def _dense(at: str, fields: Fields, family: Family) -> Iterator[Part]:
    inner = fields.need(family.moe.dense_ffn if family.moe else "intermediate_size")
    yield from _feed_forward(at, fields, inner, matrices=family.matrices)
    other = 0
    if _has(fields, family.mlp_bias):
        other += inner * (family.matrices - 1) + fields.need("hidden_size")
    if family.differential:  # PolyNorm: three weights and a bias
        other += 4
    yield Part(f"{at}.other", other, Role.OTHER)


def _experts(at: str, fields: Fields, moe: Moe) -> Iterator[Part]:
    hidden, inner, experts = fields.need("hidden_size"), fields.need(moe.ffn), fields.need(*EXPERTS)
    yield Part(f"{at}.experts", experts * 3 * hidden * inner, experts=experts)
    if moe.expert_bias:
        yield Part(f"{at}.experts.bias", experts * (2 * inner + hidden), Role.OTHER, experts=experts)
    other = experts * hidden + (experts if moe.router_bias else 0)
    if shared := shared_ffn(fields, moe):
        yield from _feed_forward(f"{at}.shared_experts", fields, shared, matrices=3)
        other += hidden if moe.shared_gate else 0
    if moe.norm_after:
        other += hidden
    yield Part(f"{at}.gate", other, Role.OTHER)


def shared_ffn(fields: Fields, moe: Moe) -> int:
    """Inner size of the part of a sparse layer that every token uses; 0 without one."""
    if moe.shared_ffn is not None:
        return fields.count(moe.shared_ffn, least=0) or 0
    shared = moe.always_shared or fields.count(*SHARED_EXPERTS, least=0) or 0
    return shared * fields.need(moe.ffn)


def _feed_forward(at: str, fields: Fields, inner: int, *, matrices: int) -> Iterator[Part]:
    names = ("gate_proj", "up_proj", "down_proj")[3 - matrices :]
    for name in names:
        yield Part(f"{at}.{name}", inner * fields.need("hidden_size"))


def _norms(fields: Fields, family: Family, *, is_sparse: bool) -> int:
    hidden, norms = fields.need("hidden_size"), family.norms
    if family.post_norms is not None and fields.flag(family.post_norms, default=True):
        norms += 2
    gates = 2 * hidden * fields.need("gated_norm_rank") * (2 if is_sparse else 1) if family.gated_norms else 0
    return norms * hidden * (2 if family.norm_bias else 1) + gates


def _has(fields: Fields, bias: str | bool) -> int:
    return int(fields.flag(bias) if isinstance(bias, str) else bias)
