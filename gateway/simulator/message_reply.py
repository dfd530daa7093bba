"""The bodies and events of a simulated /v1/messages, field by field as vLLM 0.32 writes them.

An answer is a row of content blocks (thinking, text, the use of a tool); each starts, grows by deltas and stops.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from gateway.simulator.answers import Piece
from gateway.simulator.replies import Json, Reply, named_event

_FIELDS = {"content": ("text", "text"), "reasoning": ("thinking", "thinking"), "tool": ("input_json", "partial_json")}
"""A delta's type, and its field that holds the text."""


@dataclass(slots=True)
class MessageReply(Reply):
    """Events and bodies of /v1/messages."""

    terminator: ClassVar[bytes] = b""
    _blocks: list[tuple[str, list[str]]] = field(default_factory=list)
    """Kind and texts of each block."""

    def frame(self, event: Json) -> bytes:
        return named_event(event)

    def opening(self) -> list[Json]:
        usage = {"input_tokens": self.usage()["prompt_tokens"], "output_tokens": 0}
        return [
            {"type": "message_start", "message": {**self._message([], None), "stop_sequence": None, "usage": usage}}
        ]

    def chunks(self, index: int, pieces: list[Piece], *, started: int, is_last: bool) -> list[Json]:
        events: list[Json] = []
        for piece in pieces:
            if piece.kind not in _FIELDS:
                continue
            if not self._blocks or self._blocks[-1][0] != piece.kind:
                events += self._stopped() + self._started(piece.kind)
            self._blocks[-1][1].append(piece.text)
            kind, name = _FIELDS[piece.kind]
            events.append(self._delta({"type": f"{kind}_delta", name: piece.text}))
        if is_last:
            events += self._stopped()
        return events

    def ending(self) -> list[Json]:
        reason, sequence = self._stop()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return [{"type": "message_delta", "delta": delta, "usage": self._usage()}, {"type": "message_stop"}]

    def body(self) -> Json:
        self.chunks(0, self.answers[0].drain(), started=0, is_last=True)
        content = [self._block(kind, "".join(texts)) for kind, texts in self._blocks]
        reason, sequence = self._stop()
        message = self._message(content or [{"type": "text", "text": ""}], reason)
        return {**message, **({"stop_sequence": sequence} if sequence else {}), "usage": self._usage()}

    def _stop(self) -> tuple[str | None, str | None]:
        """Why it ended, and the stop sequence where that is why."""
        answer = self.answers[0]
        if answer.finish_reason == "length":
            return "max_tokens", None
        if answer.finish_reason != "stop":
            return None, None
        if self.ask.form.kind == "tool":
            return "tool_use", None
        return ("stop_sequence", answer.stop_reason) if answer.stop_reason is not None else ("end_turn", None)

    def _message(self, content: list[Json], reason: str | None) -> Json:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.model,
            "stop_reason": reason,
        }

    def _usage(self) -> Json:
        counted = self.usage()
        return {"input_tokens": counted["prompt_tokens"], "output_tokens": counted["completion_tokens"]}

    def _started(self, kind: str) -> list[Json]:
        self._blocks.append((kind, []))
        block = self._block(kind, "")
        return [{"type": "content_block_start", "content_block": block, "index": len(self._blocks) - 1}]

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "delta": delta, "index": len(self._blocks) - 1}

    def _stopped(self) -> list[Json]:
        """The events that end the last block; reasoning is signed."""
        if not self._blocks:
            return []
        stop: Json = {"type": "content_block_stop", "index": len(self._blocks) - 1}
        if self._blocks[-1][0] != "reasoning":
            return [stop]
        return [self._delta({"type": "signature_delta", "signature": self._digest("signature")}), stop]

    def _block(self, kind: str, text: str) -> Json:
        match kind:
            case "reasoning":
                return {"type": "thinking", "thinking": text} | (
                    {"signature": self._digest("signature")} if text else {}
                )
            case "tool":
                call = {"type": "tool_use", "id": f"chatcmpl-tool-{self._digest('tool')}", "name": self.ask.form.tool}
                return {**call, "input": _parsed(text)}
        return {"type": "text", "text": text}

    def _digest(self, what: str) -> str:
        return hashlib.sha256(f"{self.id}/{what}".encode()).hexdigest()[:32]


def _parsed(text: str) -> Json:
    """A call's input; what was cut is no JSON and gives none."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
