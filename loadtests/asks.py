"""What is asked next, as the client needs it; the texts themselves are `workloads`' subject.

A question of its own is a conversation of one turn here, so that whoever sends knows conversations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class AskLike(Protocol):
    """One request to be sent."""

    @property
    def item(self) -> str:
        """Which text of the workload."""

    @property
    def turn(self) -> int:
        """Of a conversation, from 0."""

    @property
    def body(self) -> Mapping[str, Any]:
        """An OpenAI body (or a comparison's) without the model's name and without what makes it a stream."""

    @property
    def asked_input_tokens(self) -> int | None: ...

    @property
    def asked_output_tokens(self) -> int | None: ...


class Conversation(Protocol):
    """Turns that follow one another, each with all that was said before."""

    def first(self) -> AskLike: ...

    def next(self, answer_text: str) -> AskLike | None:
        """The next turn after this answer; None where the conversation is over."""


class WorkSource(Protocol):
    """Where a worker takes its requests from."""

    def next(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> AskLike:
        """A question that stands alone; of these lengths where they are given, else as the workload draws them."""

    def conversation(self) -> Conversation: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent. See `AskLike`."""

    item: str
    turn: int
    body: Mapping[str, Any]
    asked_input_tokens: int | None = None
    asked_output_tokens: int | None = None


class SingleTurn:
    """A question that stands alone, as a conversation. See `WorkSource.next`."""

    def __init__(
        self, source: WorkSource, *, input_tokens: int | None = None, output_tokens: int | None = None
    ) -> None:
        self._source = source
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens

    def first(self) -> AskLike:
        return self._source.next(input_tokens=self._input_tokens, output_tokens=self._output_tokens)

    def next(self, answer_text: str) -> AskLike | None:
        return None


class FixedSource:
    """The same body again and again, `turns` times a conversation: for calibration and tests.

    Of lengths that are asked for it can give those of the output.
    """

    def __init__(self, body: Mapping[str, Any], *, output_tokens: int | None, turns: int = 1) -> None:
        self._body = body
        self._output_tokens = output_tokens
        self._turns = turns

    def next(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> AskLike:
        if output_tokens is None:
            return Ask("fixed", 0, self._body, input_tokens, self._output_tokens)
        return Ask("fixed", 0, {**self._body, "max_tokens": output_tokens}, input_tokens, output_tokens)

    def conversation(self) -> Conversation:
        return _FixedConversation(self._body, self._output_tokens, self._turns)


class _FixedConversation:
    def __init__(self, body: Mapping[str, Any], output_tokens: int | None, turns: int) -> None:
        self._body = body
        self._messages = list(body.get("messages", ()))
        self._question = self._messages[-1:]
        self._output_tokens = output_tokens
        self._turns = turns
        self._turn = 0

    def first(self) -> AskLike:
        return self._ask()

    def next(self, answer_text: str) -> AskLike | None:
        self._turn += 1
        if self._turn >= self._turns:
            return None
        self._messages = [*self._messages, {"role": "assistant", "content": answer_text}, *self._question]
        return self._ask()

    def _ask(self) -> AskLike:
        body = {**self._body, "messages": self._messages}
        return Ask("fixed", self._turn, body, asked_output_tokens=self._output_tokens)
