"""The dialect of /v1/responses: named events, usage inside the last one, replies that the engine may keep.

The type in an event's data is the truth; the `event:` line only repeats it. Engines write the type of a delta first or
last among its fields, and there it needs no parsing: an object that is nested, such as the client's metadata, can stand
in neither place.
"""

from __future__ import annotations

from typing import Any

from gateway.domain.dialects import NOTABLE, OUTPUT, REASONING, Notice, WholeAnswer, count, inside, mapping, text
from gateway.domain.engine_errors import error_kind
from gateway.domain.records import Usage

PREVIOUS = "previous_response_id"
"""The field of a request that names the response to continue."""
_OUTPUT_DELTAS = (
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
    "response.mcp_call_arguments.delta",
    "response.code_interpreter_call_code.delta",
)
_REASONING_DELTAS = (
    "response.reasoning_text.delta",
    "response.reasoning_summary_text.delta",
    "response.reasoning.delta",
    "response.reasoning_summary.delta",
)
_ENDS = frozenset({"response.completed", "response.incomplete"})
_KINDS = {**dict.fromkeys(_OUTPUT_DELTAS, OUTPUT), **dict.fromkeys(_REASONING_DELTAS, REASONING)}
_OUTPUT_AT_END = tuple(b'"type":"%b"}' % name.encode() for name in _OUTPUT_DELTAS)
_REASONING_AT_END = tuple(b'"type":"%b"}' % name.encode() for name in _REASONING_DELTAS)
_OUTPUT_AT_START = tuple(b'{"type":"%b"' % name.encode() for name in _OUTPUT_DELTAS)
_REASONING_AT_START = tuple(b'{"type":"%b"' % name.encode() for name in _REASONING_DELTAS)
_EMPTY = b'"delta":""'
_UNFINISHED = frozenset({"failed", "cancelled"})


class ResponsesDialect:
    done = None
    model_path = ("response", "model")

    def look(self, data: bytes) -> int:
        if data.endswith(_OUTPUT_AT_END) or data.startswith(_OUTPUT_AT_START):
            return 0 if _EMPTY in data else OUTPUT
        if data.endswith(_REASONING_AT_END) or data.startswith(_REASONING_AT_START):
            return 0 if _EMPTY in data else REASONING
        return NOTABLE

    def read(self, body: dict[str, Any]) -> Notice:
        kind = body.get("type")
        if body.get("error") is not None or kind == "error":
            return Notice(failure=f"the engine reported an error mid-stream{error_kind(body)}")
        if isinstance(kind, str) and kind in _KINDS:
            return Notice(tokens=_KINDS[kind] if text(body.get("delta")) else 0)
        response = mapping(body.get("response"))
        answer = self.read_whole(response)
        usage = answer.usage if answer.usage.source == "engine" else None
        is_end = kind in _ENDS
        if kind == "response.failed" or (is_end and response.get("status") in _UNFINISHED):
            kinds = error_kind({"error": response.get("error")})
            return Notice(usage=usage, is_final_usage=True, failure=f"the engine failed on the way{kinds}")
        finished = {0: answer.finish_reason} if is_end and answer.finish_reason is not None else None
        return Notice(finished, usage, is_final_usage=is_end, is_end=is_end, reply_id=answer.reply_id)

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer:
        """Finish reason: why it is incomplete, else its status (which is `queued` for work in the background)."""
        status = text(body.get("status"))
        reason = text(inside(body, "incomplete_details", "reason")) or status
        failure = None
        if status is None or status in _UNFINISHED:
            failure = f"The engine gave no finished answer (status {status})."
        usage = body.get("usage")
        read = _read_usage(usage) if isinstance(usage, dict) else Usage()
        return WholeAnswer(read, reason, failure, text(body.get("id")))

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        logprobs = body.get("logprobs")
        if isinstance(logprobs, list) and logprobs:
            return len(logprobs), "logprobs"
        return 1, "assumed"


RESPONSES = ResponsesDialect()


def _read_usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=count(usage.get("input_tokens")),
        completion_tokens=count(usage.get("output_tokens")),
        cached_tokens=count(mapping(usage.get("input_tokens_details")).get("cached_tokens")),
        reasoning_tokens=count(mapping(usage.get("output_tokens_details")).get("reasoning_tokens")),
        source="engine",
    )
