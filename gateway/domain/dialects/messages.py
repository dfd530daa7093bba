"""The dialect of /v1/messages: content blocks in deltas, usage at the beginning and the end, `message_stop`.

The prompt's tokens are told apart by what the cache did with them; here they are one sum again, as in the other
dialects.
"""

from __future__ import annotations

from typing import Any

from gateway.domain.dialects import NOTABLE, OUTPUT, REASONING, Notice, WholeAnswer, count, inside, mapping, text
from gateway.domain.engine_errors import error_kind
from gateway.domain.records import Usage

# `type` is the first field of an event or, where engines put it there, the last: a nested object is in neither place.
_DELTA_AT_START = b'{"type":"content_block_delta"'
_DELTA_AT_END = b'"type":"content_block_delta"}'
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Which field of a delta holds its text; a signature is no text."""
_EMPTY = tuple(b'"%b":""' % name.encode() for name in _TEXTS.values())


class MessagesDialect:
    done = None
    model_path = ("message", "model")

    def look(self, data: bytes) -> int:
        if not data.startswith(_DELTA_AT_START) and not data.endswith(_DELTA_AT_END):
            return NOTABLE
        if any(empty in data for empty in _EMPTY):
            return 0
        if b'"type":"text_delta"' in data or b'"type":"input_json_delta"' in data:
            return OUTPUT
        if b'"type":"thinking_delta"' in data:
            return REASONING
        return 0 if b'"type":"signature_delta"' in data else NOTABLE

    def read(self, body: dict[str, Any]) -> Notice:
        match body.get("type"):
            case "error":
                return Notice(failure=f"the engine reported an error mid-stream{error_kind(body)}")
            case "content_block_delta":
                return Notice(tokens=_tokens_in(mapping(body.get("delta"))))
            case "message_start":
                return Notice(usage=_usage_at_start(mapping(body.get("message"))))
            case "message_delta":
                reason = text(inside(body, "delta", "stop_reason"))
                finished = {0: reason} if reason is not None else None
                return Notice(finished, _read_usage(body), is_final_usage=True)
            case "message_stop":
                return Notice(is_end=True)
        if body.get("error") is not None:
            return Notice(failure=f"the engine reported an error mid-stream{error_kind(body)}")
        return Notice()

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer:
        reason = text(body.get("stop_reason"))
        failure = None if reason is not None else "The engine gave no finished answer (stop_reason None)."
        return WholeAnswer(_read_usage(body) or Usage(), reason, failure)

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        return 1, "assumed"


MESSAGES = MessagesDialect()


def _tokens_in(delta: dict[str, Any]) -> int:
    kind = delta.get("type")
    if not isinstance(kind, str) or not text(delta.get(_TEXTS.get(kind, ""))):
        return 0
    return REASONING if kind == "thinking_delta" else OUTPUT


def _usage_at_start(message: dict[str, Any]) -> Usage | None:
    """The prompt's tokens. Engines that do not know them yet write 0."""
    usage = _read_usage(message)
    if usage is None or not usage.prompt_tokens:
        return None
    return Usage(usage.prompt_tokens, None, usage.cached_tokens, source="engine")


def _read_usage(holder: dict[str, Any]) -> Usage | None:
    usage = holder.get("usage")
    if not isinstance(usage, dict):
        return None
    cached = count(usage.get("cache_read_input_tokens"))
    fresh = count(usage.get("input_tokens"))
    prompt = None
    if fresh is not None:
        prompt = fresh + (cached or 0) + (count(usage.get("cache_creation_input_tokens")) or 0)
    return Usage(prompt, count(usage.get("output_tokens")), cached, source="engine")
