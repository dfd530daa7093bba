"""Streams and bodies of /v1/responses and /v1/messages in the shape that vLLM 0.32 gives them, for scripted engines.

The chat's shapes stand in vllm_shapes.py. Plain functions from values to JSON values or event bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
REPLY_ID = "resp_0123456789abcdef"


def named(data: Json) -> bytes:
    """One event whose name is its data's type."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {data['type']}\ndata: {text}\n\n".encode()


# --- /v1/responses ------------------------------------------------------------------------------------------


def response_body(
    text: str = "",
    *,
    status: str = "completed",
    usage: Json | None = None,
    model: str = "m",
    metadata: Json | None = None,
    reply_id: str = REPLY_ID,
    error: Json | None = None,
) -> Json:
    content = [{"annotations": [], "text": text, "type": "output_text", "logprobs": None}]
    message = {"id": "msg_1", "content": content, "role": "assistant", "status": "completed", "type": "message"}
    body: Json = {
        "id": reply_id,
        "created_at": 1767225600,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": metadata,
        "model": model,
        "object": "response",
        "output": [message] if text else [],
        "status": status,
        "usage": usage,
    }
    return body | ({"error": error} if error else {})


def response_usage(prompt: int, completion: int) -> Json:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 2, "tool_output_tokens": 0},
        "total_tokens": prompt + completion,
    }


def response_delta(text: str, *, kind: str = "output_text", number: int = 4) -> bytes:
    fields = {"content_index": 0, "delta": text, "item_id": "msg_1", "logprobs": [], "output_index": 0}
    return named({**fields, "sequence_number": number, "type": f"response.{kind}.delta"})


def response_opening(**body: Any) -> tuple[bytes, ...]:
    """What comes before the first delta."""
    begun = response_body(status="in_progress", **body)
    item = {"id": "msg_1", "content": [], "role": "assistant", "status": "in_progress", "type": "message"}
    part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
    return (
        named({"response": begun, "sequence_number": 0, "type": "response.created"}),
        named({"response": begun, "sequence_number": 1, "type": "response.in_progress"}),
        named({"item": item, "output_index": 0, "sequence_number": 2, "type": "response.output_item.added"}),
        named({"content_index": 0, "part": part, "sequence_number": 3, "type": "response.content_part.added"}),
    )


def response_end(text: str, *, kind: str = "completed", **body: Any) -> tuple[bytes, ...]:
    """What comes after the last delta; vLLM says `completed` where the status is `incomplete`, too."""
    done = {"content_index": 0, "item_id": "msg_1", "text": text, "type": "response.output_text.done"}
    whole = response_body(text, **{"usage": response_usage(21, 4), **body})
    return named(done), named({"response": whole, "sequence_number": 9, "type": f"response.{kind}"})


def response_stream(words: Sequence[str], **body: Any) -> tuple[bytes, ...]:
    deltas = [response_delta(word) for word in words]
    return (*response_opening(**body), *deltas, *response_end("".join(words), **body))


# --- /v1/messages -------------------------------------------------------------------------------------------


def message_body(
    text: str, *, stop_reason: str | None = "end_turn", model: str = "m", usage: Json | None = None
) -> Json:
    return {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "model": model,
        "stop_reason": stop_reason,
        "usage": usage or {"input_tokens": 18, "output_tokens": 4, "cache_read_input_tokens": 3},
    }


def message_start(*, model: str = "m", input_tokens: int = 21) -> bytes:
    message = message_body("", stop_reason=None, model=model) | {"content": [], "stop_sequence": None}
    message["usage"] = {"input_tokens": input_tokens, "output_tokens": 0}
    return named({"type": "message_start", "message": message})


def block_delta(text: str, *, kind: str = "text") -> bytes:
    field = {"text": "text", "thinking": "thinking", "input_json": "partial_json", "signature": "signature"}[kind]
    return named({"type": "content_block_delta", "delta": {"type": f"{kind}_delta", field: text}, "index": 0})


def block_start(block: Json | None = None) -> bytes:
    content_block = block or {"type": "text", "text": ""}
    return named({"type": "content_block_start", "content_block": content_block, "index": 0})


def message_delta(*, stop_reason: str | None = "end_turn", usage: Json | None = None) -> bytes:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return named({"type": "message_delta", "delta": delta, "usage": usage or {"input_tokens": 21, "output_tokens": 4}})


BLOCK_STOP = named({"type": "content_block_stop", "index": 0})
MESSAGE_STOP = named({"type": "message_stop"})


def message_stream(words: Sequence[str], *, model: str = "m") -> tuple[bytes, ...]:
    deltas = [block_delta(word) for word in words]
    return (message_start(model=model), block_start(), *deltas, BLOCK_STOP, message_delta(), MESSAGE_STOP)


# --- whole answers ------------------------------------------------------------------------------------------


def embedding_body(*, model: str = "m") -> Json:
    return {
        "id": "embd-1",
        "object": "list",
        "created": 1767225600,
        "model": model,
        "data": [{"index": 0, "object": "embedding", "embedding": [0.5, -0.25]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2, "completion_tokens": 0, "prompt_tokens_details": None},
    }


def rerank_body(*, model: str = "m") -> Json:
    document = {"text": "a", "multi_modal": None}
    return {
        "id": "score-1",
        "model": model,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
        "results": [{"index": 0, "document": document, "relevance_score": 0.25}],
    }


def score_body(*, model: str = "m") -> Json:
    return {
        "id": "embd-2",
        "object": "list",
        "created": 1767225600,
        "model": model,
        "data": [{"index": 0, "object": "score", "score": 0.25}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0},
    }
