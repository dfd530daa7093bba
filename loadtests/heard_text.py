"""What the events with tokens say, for those who count characters or need the answer to go on with a conversation.

It hears events through the route's dialect, as the meter sees them, so both always speak of the same ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain.dialects import OUTPUT, REASONING, Dialect, Notice, WholeAnswer

_TOKENS = OUTPUT | REASONING


class ToolFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolPart(msgspec.Struct):
    function: ToolFunction | None = None


class Delta(msgspec.Struct):
    """What one event adds to an answer."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolPart] | None = None

    def output(self) -> str:
        """Text only: what a further turn of the conversation repeats."""
        return (self.content or "") + (self.refusal or "")

    def characters(self) -> int:
        # Engines that send reasoning under both names send the same twice.
        count = len(self.output()) + len(self.reasoning or self.reasoning_content or "")
        for part in self.tool_calls or ():
            if part.function is not None:
                count += len(part.function.name or "") + len(part.function.arguments or "")
        return count


class _Choice(msgspec.Struct):
    delta: Delta | None = None
    text: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []


_EVENT = msgspec.json.Decoder(_Event)


class HeardText:
    """`dialect` is the route's own, and what it sees of events with tokens is counted; texts are kept if asked for."""

    def __init__(self, dialect: Dialect, *, keeps_text: bool) -> None:
        self.dialect: Dialect = _Listening(dialect, self)
        self.characters: int | None = 0
        """As Unicode code points; None where an event's text is of a form that we do not know."""
        self._texts: list[str] | None = [] if keeps_text else None

    @property
    def text(self) -> str:
        """The output, without reasoning and tool calls."""
        return "".join(self._texts or ())

    def hear(self, data: bytes) -> None:
        try:
            choices = _EVENT.decode(data).choices
        except msgspec.DecodeError:
            self.characters = None
            return
        for choice in choices[:1]:
            delta = choice.delta or Delta(content=choice.text)
            if self.characters is not None:
                self.characters += delta.characters()
            if self._texts is not None:
                self._texts.append(delta.output())


class _Listening:
    """The dialect, with somebody who hears each event that has tokens."""

    def __init__(self, dialect: Dialect, heard: HeardText) -> None:
        self._dialect = dialect
        self._look = dialect.look
        self._heard = heard

    @property
    def done(self) -> bytes | None:
        return self._dialect.done

    @property
    def model_path(self) -> tuple[str, ...] | None:
        return self._dialect.model_path

    def look(self, data: bytes) -> int:
        seen = self._look(data)
        if seen & _TOKENS:
            self._heard.hear(data)
        return seen

    def read(self, body: dict[str, Any]) -> Notice:
        return self._dialect.read(body)

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer:
        return self._dialect.read_whole(body)

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        return self._dialect.first_tokens(body)
