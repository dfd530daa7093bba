"""The rules of `serving.adapter`: from the file's block to the record, and the complaints that need several rules.

A rule about a field that no request has would never act, and nobody would notice; so names that are nearly those of
a known field are refused. Applying the rules to a request belongs in `gateway.request_adapter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.domain.records import Adapter, Sourced, StreamUsage
from gateway.registry.schema import AdapterBlock
from gateway.registry.text import Document, Loc, did_you_mean, shown

_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
NEEDED = frozenset({"model", "messages", "prompt", "stream"})
"""Fields that the gateway itself reads or writes: no rule may touch them."""
VLLM_FIELDS = frozenset(
    (
        *("add_generation_prompt", "allowed_token_ids", "bad_words", "cache_salt", "chat_template"),
        *("chat_template_kwargs", "continue_final_message", "documents", "guided_choice", "guided_grammar"),
        *("guided_json", "guided_regex", "ignore_eos", "include_stop_str_in_output", "kv_transfer_params"),
        *("length_penalty", "logits_processors", "min_p", "min_tokens", "mm_processor_kwargs", "priority"),
        *("prompt_logprobs", "repetition_penalty", "request_id", "return_token_ids", "return_tokens_as_token_ids"),
        *("skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids", "structured_outputs", "top_k"),
        *("truncate_prompt_tokens", "use_beam_search", "vllm_xargs"),
    )
)
"""What vLLM's chat completions take beyond OpenAI's: no other API can be expected to, and some ignore it in silence."""
STANDARD_FIELDS = VLLM_FIELDS | frozenset(
    (
        *("audio", "echo", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed"),
        *("service_tier", "stop", "store", "stream_options", "suffix", "temperature", "tool_choice", "tools"),
        *("top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    )
)
"""Fields of OpenAI's chat and text completions, and vLLM's."""


def read_adapter(document: Document, loc: Loc, block: AdapterBlock, sourced: Sourced | None) -> Adapter:
    """The record of the rules at `loc`; complains of rules that are pointless or contradict each other."""
    for at, message in _faults(block):
        document.complain((*loc, *at), message)
    return Adapter(
        drop=frozenset(block.drop),
        refuse=dict(block.refuse),
        rename=dict(block.rename),
        limits=dict(block.limits),
        stream_usage=StreamUsage(block.stream_usage),
        lists_models=block.models_route == "present",
        health_path=block.health_path,
        requests_per_min=block.requests_per_min,
        tokens_per_min=block.tokens_per_min,
        sourced=sourced,
    )


def _faults(block: AdapterBlock) -> Iterator[tuple[Loc, str]]:
    seen: dict[str, str] = {}
    for at, rule, name in _named(block):
        if not _FIELD.fullmatch(name):
            yield at, f"expected the name of a request field such as logprobs, got {shown(name)}"
        elif name in NEEDED:
            yield at, f"expected a field that the gateway does not need itself, got {name!r}"
        elif name == "stream_options" and rule != "limits":
            yield at, "the gateway sends stream_options itself; say stream_usage: always or never instead"
        elif name not in STANDARD_FIELDS and (hint := did_you_mean(name, STANDARD_FIELDS)):
            yield at, f"{name!r} is no field of a request{hint}"
        elif rule != "limits" and name in seen:
            yield at, f"{name!r} has a rule under {seen[name]} already; expected one of drop, refuse and rename"
        seen.setdefault(name, rule)
    yield from _rename_faults(block)


def _named(block: AdapterBlock) -> Iterator[tuple[Loc, str, str]]:
    """Every rule's place, its kind and the field it is about."""
    for n, name in enumerate(block.drop):
        yield ("drop", n), "drop", name
    for rule in ("refuse", "rename", "limits"):
        for name in getattr(block, rule):
            yield (rule, name), rule, name


def _rename_faults(block: AdapterBlock) -> Iterator[tuple[Loc, str]]:
    targets: dict[str, str] = {}
    for name, target in block.rename.items():
        at = ("rename", name)
        if not _FIELD.fullmatch(target):
            yield at, f"expected the name of a request field such as max_tokens, got {shown(target)}"
        elif target in NEEDED:
            yield at, f"expected a name that the gateway does not need itself, got {target!r}"
        elif target in block.rename:
            yield at, f"{target!r} is renamed itself; expected the name that the API knows in the end"
        elif target in block.drop or target in block.refuse:
            yield at, f"{target!r} is dropped or refused; expected a field that the API knows"
        elif target in targets:
            yield at, f"{targets[target]!r} becomes {target!r} already; expected another name"
        targets.setdefault(target, name)
    for name in block.limits:
        if name in block.rename:
            yield ("limits", name), f"expected the API's own name of it, {block.rename[name]!r}"
