"""One answer in the making: which token comes next, what of it may be shown yet, and how it ends.

Holds the rules on tokens that a caller sets (length, stop strings, minimum) and nothing about time or the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from typing import NamedTuple

from gateway.simulator.json_values import compose_json
from gateway.simulator.requests import Ask, Prompt
from gateway.simulator.text import answer_length, choices, paragraphs, reasoning, split_tokens, topics_of


class Piece(NamedTuple):
    """Text of one token or of several in a row."""

    kind: str
    """content | reasoning | tool | mark (a token without text, such as the end of the reasoning)"""
    text: str
    tokens: int
    """Tokens of the answer up to and including this piece."""


class Answer:
    """One choice of one request. `take` adds a token, `drain` hands out what may be shown.

    `finish_reason` is None until the last token: then stop, length, or abort. `on_news` is called when there is
    something to drain.
    """

    def __init__(
        self,
        answer_id: str,
        ask: Ask,
        prompt: Prompt,
        *,
        max_tokens: int,
        parts: Iterator[tuple[str, str]],
        on_news: Callable[[], None],
    ) -> None:
        self.id = answer_id
        self.prompt_tokens = prompt.tokens
        self.max_tokens = max_tokens
        self.tokens = 0
        self.reasoning_tokens = 0
        self.token_texts: list[str] = []
        self.finish_reason: str | None = None
        self.stop_reason: str | None = None
        self._ask = ask
        self._parts = parts
        self._on_news = on_news
        self._ready: list[Piece] = []
        self._held = ""
        self._hold = max((len(stop) for stop in ask.stop), default=1) - 1

    def take(self) -> None:
        """One more token has been computed."""
        self.tokens += 1
        kind, text = next(self._parts, ("end", ""))
        self.token_texts.append(text)
        self.reasoning_tokens += kind == "reasoning"
        if kind == "content":
            self._release(text)
        elif kind != "end":
            self._ready.append(Piece(kind, text, self.tokens))
        if self.finish_reason is None and kind == "end":
            self._end("stop")
        elif self.finish_reason is None and self.tokens >= self.max_tokens:
            self._end("length")
        self._on_news()

    def abort(self) -> None:
        if self.finish_reason is None:
            self._end("abort")
            self._on_news()

    def drain(self) -> list[Piece]:
        """What has become visible since the last call, neighbours of one kind joined."""
        joined: list[Piece] = []
        for piece in self._ready:
            if joined and joined[-1].kind == piece.kind:
                joined[-1] = Piece(piece.kind, joined[-1].text + piece.text, piece.tokens)
            else:
                joined.append(piece)
        self._ready.clear()
        return joined

    def _release(self, text: str) -> None:
        """Show `text` but for an ending that may turn out to be the beginning of a stop string."""
        self._held += text
        if self.tokens >= self._ask.min_tokens:
            found = [(at, stop) for stop in self._ask.stop if (at := self._held.find(stop)) >= 0]
            if found:
                at, stop = min(found)
                self._held = self._held[: at + len(stop) if self._ask.include_stop else at]
                self.stop_reason = stop
                self._end("stop")
                return
        shown = max(0, len(self._held) - self._hold)
        self._show(shown)

    def _show(self, length: int) -> None:
        if length:
            self._ready.append(Piece("content", self._held[:length], self.tokens))
            self._held = self._held[length:]

    def _end(self, reason: str) -> None:
        self.finish_reason = reason
        self._show(len(self._held))


def answer_parts(ask: Ask, prompt: Prompt, *, model_id: str, index: int) -> Iterator[tuple[str, str]]:
    """Kind and text of each token of an answer; it ends where the model would end, unless that is forbidden.

    Raises SchemaRefused, at once, when the schema asked for is not understood.
    """
    draw = choices(model_id, prompt.text, ask.seed, index)
    shortest = max(ask.max_tokens) if ask.ignore_eos else ask.min_tokens
    match ask.form.kind:
        case "text":
            thought = split_tokens(reasoning(prompt.question, draw)) if ask.reasoning else []
            texts = paragraphs(model_id, prompt.question, draw)
            return chain(_thought(thought), _prose(texts, answer_length(model_id), shortest))
        case "choice":
            return _fixed("content", draw.choice(ask.form.options), shortest)
        case kind:
            text = compose_json(ask.form.schema, topics_of(prompt.question), draw)
            return _fixed("tool" if kind == "tool" else "content", text, shortest)


def _thought(tokens: list[str]) -> Iterator[tuple[str, str]]:
    yield from (("reasoning", token) for token in tokens)
    if tokens:
        yield "mark", ""


def _prose(texts: Iterator[str], complete: int, shortest: int) -> Iterator[tuple[str, str]]:
    given = 0
    for number in count(1):
        for token in split_tokens(next(texts)):
            given += 1
            yield "content", token
        if number >= complete and given >= shortest:
            return


def _fixed(kind: str, text: str, shortest: int) -> Iterator[tuple[str, str]]:
    """A text that has one form; the blanks behind it keep JSON valid where a length is demanded."""
    tokens = split_tokens(text)
    yield from ((kind, token) for token in tokens)
    yield from repeat((kind, " "), max(0, shortest - len(tokens)))
