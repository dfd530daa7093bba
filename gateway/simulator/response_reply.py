"""The bodies and events of a simulated /v1/responses, field by field as vLLM 0.32 writes them.

An answer is a row of items (reasoning, a message, a call); each opens, grows by deltas and closes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from gateway.simulator.answers import Piece
from gateway.simulator.bodies import ResponsesBody
from gateway.simulator.replies import Json, Reply, named_event

_PREFIXES = {"content": "msg", "reasoning": "rs", "tool": "fc"}
_DELTAS = {
    "content": "response.output_text.delta",
    "reasoning": "response.reasoning_text.delta",
    "tool": "response.function_call_arguments.delta",
}


@dataclass(slots=True)
class _Item:
    """One item of the output in the making."""

    id: str
    kind: str
    """content | reasoning | tool"""
    index: int
    text: str = ""


@dataclass(slots=True)
class ResponseReply(Reply):
    """Events and bodies of /v1/responses."""

    asked: ResponsesBody
    terminator: ClassVar[bytes] = b""
    _items: list[_Item] = field(default_factory=list)
    _sent: int = 0

    def frame(self, event: Json) -> bytes:
        return named_event(event)

    def opening(self) -> list[Json]:
        begun = self._response("in_progress", with_usage=False)
        return self._numbered([{"response": begun, "type": f"response.{name}"} for name in ("created", "in_progress")])

    def chunks(self, index: int, pieces: list[Piece], *, started: int, is_last: bool) -> list[Json]:
        events: list[Json] = []
        for piece in pieces:
            if piece.kind not in _PREFIXES or (piece.kind == "reasoning" and not self.ask.show_reasoning):
                continue
            if not self._items or self._items[-1].kind != piece.kind:
                events += self._closed() + self._opened(piece.kind)
            item = self._items[-1]
            item.text += piece.text
            events.append(self._delta(item, piece.text))
        if is_last:
            events += self._closed()
        return self._numbered(events)

    def ending(self) -> list[Json]:
        """`completed` even where the status is `incomplete`: so does vLLM."""
        return self._numbered([{"response": self._response(self._status()), "type": "response.completed"}])

    def body(self) -> Json:
        self.chunks(0, self.answers[0].drain(), started=0, is_last=True)
        return self._response(self._status())

    def _status(self) -> str:
        return "incomplete" if self.answers[0].finish_reason == "length" else "completed"

    def _numbered(self, events: list[Json]) -> list[Json]:
        """The events with their number, and with the type behind it, where vLLM has them."""
        numbered = []
        for event in events:
            kind = event.pop("type")
            numbered.append({**event, "sequence_number": self._sent, "type": kind})
            self._sent += 1
        return numbered

    def _opened(self, kind: str) -> list[Json]:
        index = len(self._items)
        item = _Item(f"{_PREFIXES[kind]}_{self._digest(index)}", kind, index)
        self._items.append(item)
        events: list[Json] = [
            {"item": self._shown(item, "in_progress"), "output_index": index, "type": "response.output_item.added"}
        ]
        if kind != "tool":
            events.append({**self._place(item), "part": _part(item), "type": "response.content_part.added"})
        return events

    def _delta(self, item: _Item, text: str) -> Json:
        if item.kind == "tool":
            return {"delta": text, "item_id": item.id, "output_index": item.index, "type": _DELTAS["tool"]}
        extra: Json = {"logprobs": []} if item.kind == "content" else {}
        return {**self._place(item), "delta": text, **extra, "type": _DELTAS[item.kind]}

    def _closed(self) -> list[Json]:
        """The events that end the last item."""
        if not self._items:
            return []
        item = self._items[-1]
        done: Json = {"item": self._shown(item), "output_index": item.index, "type": "response.output_item.done"}
        if item.kind == "tool":
            kind = "response.function_call_arguments.done"
            call = {"arguments": item.text, "item_id": item.id, "output_index": item.index, "name": self.ask.form.tool}
            return [{**call, "type": kind}, done]
        kind = "response.output_text.done" if item.kind == "content" else "response.reasoning_text.done"
        return [
            {**self._place(item), "text": item.text, "type": kind},
            {**self._place(item), "part": _part(item), "type": "response.content_part.done"},
            done,
        ]

    def _place(self, item: _Item) -> Json:
        return {"content_index": 0, "item_id": item.id, "output_index": item.index}

    def _shown(self, item: _Item, status: str = "completed") -> Json:
        match item.kind:
            case "content":
                content = [_part(item)] if item.text else []
                return {"id": item.id, "content": content, "role": "assistant", "status": status, "type": "message"}
            case "reasoning":
                reasoning: Json = {"id": item.id, "summary": [], "type": "reasoning", "status": status}
                return {**reasoning, "content": [_part(item)] if item.text else None}
        return {
            "arguments": item.text,
            "call_id": f"chatcmpl-tool-{self._digest(item.index + 1000)}",
            "name": self.ask.form.tool,
            "type": "function_call",
            "id": item.id,
            "status": status,
        }

    def _response(self, status: str, *, with_usage: bool = True) -> Json:
        asked = self.asked
        return {
            "id": self.id,
            "created_at": self.created,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "metadata": asked.metadata,
            "model": self.model,
            "object": "response",
            "output": [self._shown(item) for item in self._items],
            "parallel_tool_calls": True,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "tool_choice": asked.tool_choice if asked.tools else "none",
            "tools": asked.tools,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "background": False,
            "max_output_tokens": self.ask.max_tokens[0],
            "previous_response_id": None,
            "reasoning": asked.reasoning,
            "service_tier": "auto",
            "status": status,
            "text": asked.text,
            "truncation": "disabled",
            "usage": self._usage() if with_usage else None,
            "user": None,
        }

    def _usage(self) -> Json:
        counted = self.usage()
        return {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": self.answers[0].reasoning_tokens, "tool_output_tokens": 0},
            "total_tokens": counted["total_tokens"],
        }

    def _digest(self, number: int) -> str:
        return hashlib.sha256(f"{self.id}/{number}".encode()).hexdigest()[:16]


def _part(item: _Item) -> Json:
    if item.kind == "reasoning":
        return {"text": item.text, "type": "reasoning_text"}
    return {"annotations": [], "text": item.text, "type": "output_text", "logprobs": None}
