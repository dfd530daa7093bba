"""Puts one streamed chat answer together again: its text, its reasoning, its tool calls.

For those who read an answer themselves instead of passing its bytes on. Sans-I/O: the bytes that a call forwards go in,
what was added by them comes out. When tokens came and how the answer ended is the meter's subject.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.sse import SseError, SseParser
from gateway.errors import UpstreamTruncated

DONE = b"[DONE]"
_JSON = msgspec.json.Decoder()


class AnswerText:
    """Collects the first choice of a streamed chat answer; `limit` is the most bytes it takes."""

    def __init__(self, limit: int) -> None:
        self._parser = SseParser()
        self._left = limit
        self._limit = limit
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}

    def feed(self, chunk: bytes) -> dict[str, Any]:
        """Take bytes of the stream; return what they add: content, reasoning, tool_calls, only where there is any.

        Raises UpstreamTruncated for a stream that cannot be read or is longer than the limit.
        """
        self._left -= len(chunk)
        if self._left < 0:
            raise UpstreamTruncated(f"The answer was cut: it is longer than {self._limit} bytes.")
        try:
            events = self._parser.feed(chunk)
            deltas = [_delta_in(event.data) for event in events if event.data is not None and event.data != DONE]
        except (SseError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamTruncated(f"The answer was cut: the engine's stream cannot be read ({error}).") from error
        return self._add([delta for delta in deltas if delta])

    def output(self) -> dict[str, Any]:
        """All that came so far; null where nothing of that kind did."""
        return {
            "content": "".join(self._content) if self._content else None,
            "reasoning": "".join(self._reasoning) if self._reasoning else None,
            "tool_calls": [call for _, call in sorted(self._tool_calls.items())] or None,
        }

    def _add(self, deltas: list[dict[str, Any]]) -> dict[str, Any]:
        content = _texts(deltas, "content") + _texts(deltas, "refusal")
        # Engines that send reasoning under both names send the same twice.
        reasoning = [_text(delta, "reasoning") or _text(delta, "reasoning_content") or "" for delta in deltas]
        tool_calls = [call for delta in deltas for call in _objects(delta.get("tool_calls"))]
        self._content += content
        self._reasoning += filter(None, reasoning)
        for call in tool_calls:
            self._merge(call)
        added = {"content": "".join(content), "reasoning": "".join(reasoning), "tool_calls": tool_calls}
        return {name: value for name, value in added.items() if value}

    def _merge(self, part: dict[str, Any]) -> None:
        """Join one part of a tool call to the call with the same index: arguments come in pieces."""
        index = part.get("index")
        function = part["function"] if isinstance(part.get("function"), dict) else {}
        whole = self._tool_calls.setdefault(
            index if isinstance(index, int) else len(self._tool_calls),
            {"id": None, "type": "function", "function": {"name": None, "arguments": ""}},
        )
        whole["id"] = whole["id"] or _text(part, "id")
        whole["type"] = _text(part, "type") or whole["type"]
        whole["function"]["name"] = whole["function"]["name"] or _text(function, "name")
        whole["function"]["arguments"] += _text(function, "arguments") or ""


def _delta_in(data: bytes) -> dict[str, Any]:
    """The first choice's delta, empty where the event has none."""
    body = _JSON.decode(data)
    for choice in _objects(body.get("choices") if isinstance(body, dict) else None):
        if choice.get("index", 0) == 0 and isinstance(choice.get("delta"), dict):
            delta: dict[str, Any] = choice["delta"]
            return delta
    return {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _texts(deltas: list[dict[str, Any]], name: str) -> list[str]:
    return [text for delta in deltas if (text := _text(delta, name)) is not None]
