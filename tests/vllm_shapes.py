"""Bodies and stream events in the shape that vLLM 0.32 gives them, for scripted engines.

Plain functions from values to JSON values or event bytes. Nothing here knows about sockets; engines.py sends them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

CREATED = 1767225600
DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def chat_chunk(
    content: str | None = None,
    *,
    role: str | None = None,
    reasoning: str | None = None,
    tool_calls: list[Json] | None = None,
    finish_reason: str | None = None,
    index: int = 0,
    model: str = "m",
    usage: Json | None = None,
) -> bytes:
    """One event of a streamed chat; `usage` stands in it only where `continuous_usage_stats` was asked for."""
    named = {"role": role, "content": content, "reasoning": reasoning, "tool_calls": tool_calls}
    delta = {name: value for name, value in named.items() if value is not None}
    choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    if finish_reason is not None:
        choice["stop_reason"] = None
    return event(_chunk("chat.completion.chunk", model, [choice], usage))


def text_chunk(
    text: str, *, finish_reason: str | None = None, index: int = 0, model: str = "m", usage: Json | None = None
) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
    return event(_chunk("text_completion", model, [choice], usage))


def usage_chunk(
    prompt_tokens: int, completion_tokens: int, *, model: str = "m", kind: str = "chat.completion.chunk"
) -> bytes:
    """The last event before [DONE] where `include_usage` was asked for."""
    return event(_chunk(kind, model, [], usage_body(prompt_tokens, completion_tokens)))


def error_event(message: str, *, type_: str = "InternalServerError", code: int = 500) -> bytes:
    """What a stream that fails on the way sends, under status 200."""
    return event(error_body(message, type_=type_, code=code))


def error_body(message: str, *, type_: str, code: int, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def usage_body(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def chat_answer(content: str, *, usage: Json, finish_reason: str = "stop", model: str = "m", n: int = 1) -> Json:
    """A whole chat answer."""
    message: Json = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
    }
    choices = [
        {"index": i, "message": message, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        for i in range(n)
    ]
    return {
        **_chunk("chat.completion", model, choices, usage),
        "service_tier": None,
        "system_fingerprint": None,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def text_answer(text: str, *, usage: Json, finish_reason: str = "stop", model: str = "m", n: int = 1) -> Json:
    """A whole completion."""
    choices = [
        {"index": i, "text": text, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        for i in range(n)
    ]
    return {**_chunk("text_completion", model, choices, usage), "service_tier": None, "kv_transfer_params": None}


def chat_events(words: Sequence[str], *, finish_reason: str, model: str, n: int) -> Iterator[bytes]:
    """The role event, one event a word, the finishing event; for each of `n` choices in turn."""
    for index in range(n):
        yield chat_chunk("", role="assistant", index=index, model=model)
    for word in words:
        for index in range(n):
            yield chat_chunk(word, index=index, model=model)
    for index in range(n):
        yield chat_chunk("", finish_reason=finish_reason, index=index, model=model)


def text_events(words: Sequence[str], *, finish_reason: str, model: str, n: int) -> Iterator[bytes]:
    """One event a word; the last word's event carries the finish reason."""
    for position, word in enumerate(words):
        reason = finish_reason if position == len(words) - 1 else None
        for index in range(n):
            yield text_chunk(word, finish_reason=reason, index=index, model=model)


def models_body(models: Sequence[str], *, owned_by: str, root: str | None, max_model_len: int | None) -> Json:
    """The answer to /v1/models; `root` is each model's own id where it is None."""
    cards: list[Json] = [
        {
            "id": model,
            "object": "model",
            "created": CREATED,
            "owned_by": owned_by,
            "root": model if root is None else root,
            "parent": None,
            "max_model_len": max_model_len,
            "permission": [],
        }
        for model in models
    ]
    return {"object": "list", "data": cards}


def metrics_text(models: Sequence[str], *, running: int) -> str:
    """A few of the V1 engine's series, one engine a model."""
    lines = []
    for name, kind, value in (
        ("vllm:num_requests_running", "gauge", float(running)),
        ("vllm:num_requests_waiting", "gauge", 0.0),
        ("vllm:kv_cache_usage_perc", "gauge", 0.0),
        ("vllm:prompt_tokens_total", "counter", 0.0),
        ("vllm:generation_tokens_total", "counter", 0.0),
    ):
        lines += [f"# HELP {name} As vLLM says it.", f"# TYPE {name} {kind}"]
        lines += [f'{name}{{engine="0",model_name="{model}"}} {value}' for model in models]
    lines += [
        "# TYPE vllm:cache_config_info gauge",
        'vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="1024"} 1.0',
    ]
    return "\n".join(lines) + "\n"


def _chunk(kind: str, model: str, choices: list[Json], usage: Json | None) -> Json:
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    body: Json = {
        "id": f"{prefix}-0123456789abcdef0123456789abcdef",
        "object": kind,
        "created": CREATED,
        "model": model,
        "choices": choices,
    }
    if usage is not None:
        body["usage"] = usage
    return body
