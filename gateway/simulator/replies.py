"""The bodies and stream chunks of a simulated engine, field by field as vLLM 0.32 writes them.

Pure shapes: from an answer and its pieces to JSON values. Sending and waiting belong to the simulator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec

from gateway.simulator.answers import Answer, Piece
from gateway.simulator.requests import Ask

Json = dict[str, Any]


class StreamedReply(Protocol):
    """What a reply of any dialect gives to be sent. For a stream: `opening`, `chunks` as they come, `ending`."""

    ask: Ask
    answers: list[Answer]
    terminator: ClassVar[bytes]
    """The stream's last bytes, where events alone do not end it."""

    @property
    def is_finished(self) -> bool: ...

    def opening(self) -> list[Json]:
        """The events that come with the first token, before it."""

    def chunks(self, index: int, pieces: list[Piece], *, started: int, is_last: bool) -> list[Json]:
        """The events for what became visible of one answer; `started` tokens of it had been sent before."""

    def ending(self) -> list[Json]:
        """The events after the last token."""

    def body(self) -> Json:
        """The whole answer."""

    def frame(self, event: Json) -> bytes:
        """One event as it goes over the wire."""


@dataclass(slots=True)
class Reply:
    """One request's reply: its identity on the wire, and its answers in order of their index."""

    terminator: ClassVar[bytes] = b"data: [DONE]\n\n"

    id: str
    created: int
    model: str
    ask: Ask
    answers: list[Answer]
    counts_reasoning: bool
    """Whether usage tells reasoning tokens, as vLLM does where a reasoning parser is set."""

    @property
    def is_finished(self) -> bool:
        return all(answer.finish_reason is not None for answer in self.answers)

    def usage(self, answers: Sequence[Answer] | None = None) -> Json:
        """Tokens of the whole reply, prompts counted once however many answers they got."""
        counted = self.answers if answers is None else answers
        prompt = sum(each.tokens for each in self.ask.prompts)
        completion = sum(answer.tokens for answer in counted)
        usage: Json = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
        }
        if self.counts_reasoning:
            reasoning = sum(answer.reasoning_tokens for answer in counted)
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return usage

    def frame(self, event: Json) -> bytes:
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    def _running_usage(self, tokens: int) -> Json:
        prompt = sum(each.tokens for each in self.ask.prompts)
        return {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def named_event(event: Json) -> bytes:
    """An event of the dialects that name their events: by its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


@dataclass(slots=True)
class ChatReply(Reply):
    """Chunks and bodies of /v1/chat/completions."""

    def opening(self) -> list[Json]:
        """The chunks before the first token: the role, once for each answer."""
        chunks = []
        for index in range(len(self.answers)):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            chunk = self._envelope("chat.completion.chunk", [choice])
            if self.ask.continuous_usage:
                chunk["usage"] = self._running_usage(0)
            chunks.append(chunk)
        return chunks

    def chunks(self, index: int, pieces: list[Piece], *, started: int, is_last: bool) -> list[Json]:
        """The chunks for what became visible of one answer; `started` tokens of it had been sent before."""
        answer, chunks = self.answers[index], []
        deltas = [
            pair
            for number, piece in enumerate(pieces)
            for pair in self._deltas(index, piece, is_first=started == 0 and number == 0)
        ]
        if is_last and (not deltas or deltas[-1][1] < answer.tokens):
            deltas.append(({} if self.ask.form.kind == "tool" else {"content": ""}, answer.tokens))
        for number, (delta, tokens) in enumerate(deltas, 1):
            choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            if self.ask.top_logprobs is not None:
                choice["logprobs"] = self._logprobs(answer.token_texts[started:tokens])
            if is_last and number == len(deltas):
                choice |= {"finish_reason": self._finish_reason(answer), "stop_reason": answer.stop_reason}
            chunk = self._envelope("chat.completion.chunk", [choice])
            if self.ask.continuous_usage:
                chunk["usage"] = self._running_usage(tokens)
            chunks.append(chunk)
            started = tokens
        return chunks

    def ending(self) -> list[Json]:
        usage = self._envelope("chat.completion.chunk", []) | {"usage": self.usage()}
        return [usage] if self.ask.include_usage else []

    def body(self) -> Json:
        """The whole answer."""
        envelope = self._envelope("chat.completion", [self._choice(i) for i in range(len(self.answers))])
        usage = {"prompt_tokens_details": None} | self.usage()
        return envelope | {
            "service_tier": None,
            "system_fingerprint": None,
            "usage": usage,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "kv_transfer_params": None,
        }

    def _choice(self, index: int) -> Json:
        answer = self.answers[index]
        texts = {"content": "", "reasoning": "", "tool": ""}
        for piece in answer.drain():
            texts[piece.kind] = texts.get(piece.kind, "") + piece.text
        calls = [self._call(index, texts["tool"])] if self.ask.form.kind == "tool" else []
        message = {
            "role": "assistant",
            "content": texts["content"],
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": calls,
            "reasoning": texts["reasoning"] or None if self.ask.show_reasoning else None,
        }
        logprobs = None if self.ask.top_logprobs is None else self._logprobs(answer.token_texts)
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._finish_reason(answer),
            "stop_reason": answer.stop_reason,
            "token_ids": None,
        }

    def _deltas(self, index: int, piece: Piece, *, is_first: bool) -> list[tuple[Json, int]]:
        match piece.kind:
            case "content":
                return [({"content": piece.text}, piece.tokens)]
            case "reasoning" if self.ask.show_reasoning:
                return [({"reasoning": piece.text}, piece.tokens)]
            case "tool":
                part = {"index": 0, "function": {"arguments": piece.text}}
                if is_first:
                    call = self._call(index, "") | {"index": 0}
                    return [({"tool_calls": [call]}, 0), ({"tool_calls": [part]}, piece.tokens)]
                return [({"tool_calls": [part]}, piece.tokens)]
        return []

    def _call(self, index: int, arguments: str) -> Json:
        digest = hashlib.sha256(f"{self.id}/{index}".encode()).hexdigest()[:32]
        function = {"name": self.ask.form.tool, "arguments": arguments}
        return {"id": f"chatcmpl-tool-{digest}", "type": "function", "function": function}

    def _finish_reason(self, answer: Answer) -> str | None:
        """A call that was not demanded by name ends with `tool_calls`, unless it was cut."""
        if self.ask.form.kind == "tool" and not self.ask.form.named and answer.finish_reason == "stop":
            return "tool_calls"
        return answer.finish_reason

    def _logprobs(self, texts: Sequence[str]) -> Json:
        return {"content": [self._logprob(text) for text in texts]}

    def _logprob(self, text: str) -> Json:
        entry = {"token": text, "logprob": logprob(text), "bytes": list(text.encode())}
        others = [f" {number}" for number in range(1, self.ask.top_logprobs or 0)]
        top = [entry, *({"token": o, "logprob": logprob(text) - 2.0 - n, "bytes": None} for n, o in enumerate(others))]
        return {**entry, "top_logprobs": top if self.ask.top_logprobs else []}


@dataclass(slots=True)
class CompletionReply(Reply):
    """Chunks and bodies of /v1/completions."""

    def opening(self) -> list[Json]:
        return []

    def chunks(self, index: int, pieces: list[Piece], *, started: int, is_last: bool) -> list[Json]:
        answer = self.answers[index]
        if not pieces and not is_last:
            return []
        text = "".join(piece.text for piece in pieces)
        if self.ask.echo and started == 0:
            text = self._prompt_text(index) + text
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(answer.token_texts[started : answer.tokens]),
            "finish_reason": answer.finish_reason if is_last else None,
            "stop_reason": answer.stop_reason if is_last else None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        chunk = self._envelope("text_completion", [choice])
        if self.ask.continuous_usage:
            chunk["usage"] = self._running_usage(answer.tokens)
        return [chunk]

    def ending(self) -> list[Json]:
        usage = self._envelope("text_completion", []) | {"usage": self.usage()}
        return [usage] if self.ask.include_usage else []

    def body(self) -> Json:
        envelope = self._envelope("text_completion", [self._choice(i) for i in range(len(self.answers))])
        usage = {"prompt_tokens_details": None} | self.usage()
        return envelope | {
            "service_tier": None,
            "system_fingerprint": None,
            "usage": usage,
            "kv_transfer_params": None,
        }

    def _choice(self, index: int) -> Json:
        answer = self.answers[index]
        text = "".join(piece.text for piece in answer.drain())
        return {
            "index": index,
            "text": self._prompt_text(index) + text if self.ask.echo else text,
            "logprobs": self._logprobs(answer.token_texts),
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
        }

    def _prompt_text(self, index: int) -> str:
        return self.ask.prompts[index // self.ask.n].text

    def _logprobs(self, texts: Sequence[str]) -> Json | None:
        if self.ask.top_logprobs is None:
            return None
        offsets, at = [], 0
        for text in texts:
            offsets.append(at)
            at += len(text)
        values = [logprob(text) for text in texts]
        return {
            "text_offset": offsets,
            "token_logprobs": values,
            "tokens": list(texts),
            "top_logprobs": [{text: value} for text, value in zip(texts, values, strict=True)],
        }


def logprob(text: str) -> float:
    """A plausible figure, the same for the same token: between -2.5 and 0, mostly near 0. It measures nothing."""
    share = hashlib.sha256(text.encode()).digest()[0] / 256
    return round(-2.5 * share**4 - 0.001, 6)
