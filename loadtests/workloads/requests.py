"""Requests of a workload, one after the other, from a seed: what one worker of a load run sends.

Two requests are never the same, byte for byte: each carries a reference of its own, at its beginning, or behind the
part that it shares with others. The same seed gives the same requests; requests of another seed begin otherwise, so a
cache that is warm from an earlier run helps nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import TypeVar

import numpy as np

from loadtests.plan import Lengths, Route, WorkKind, Workload
from loadtests.workloads import Text, languages_of, passages, texts_of
from loadtests.workloads.bodies import (
    Body,
    Message,
    answer_message,
    answer_place,
    check_body,
    make_body,
    picture_message,
    user_message,
)
from loadtests.workloads.fitting import DEFAULT_FERTILITY, Fertility, Supply, fit_prompt
from loadtests.workloads.groups import Group, make_groups
from loadtests.workloads.lengths import check_lengths, draw_lengths
from loadtests.workloads.pictures import data_uri, draw
from loadtests.workloads.references import References
from loadtests.workloads.words import BREAK

JSON_CHARACTERS_PER_TOKEN = 3.0
"""Of the tools in a prompt, roughly: chat templates write them as JSON."""
T = TypeVar("T")
_PURPOSE = 3
"""Tells these draws from all others of the same seed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent. The body is the caller's own, what lies deeper in it is not: add fields, change none."""

    item: str
    """Which text, and of a document which question, from 1."""
    turn: int
    body: Body
    """Without `model` (of a comparison, `models`) and without stream fields."""
    asked_input_tokens: int | None
    """About so many were aimed at. None = as the text is; so too after a conversation's first turn."""
    asked_output_tokens: int | None
    """The answer is forced to have so many. None = its length is free; a limit stands in the body."""


class Conversation:
    """The user's side of a conversation. All that chance decides is drawn before it begins, so it depends on no
    other conversation that goes on at the same time."""

    def __init__(
        self,
        workload: Workload,
        route: Route,
        text: Text,
        item: str,
        says: Sequence[Message],
        output_tokens: Sequence[int | None],
        asked_input_tokens: int | None,
    ) -> None:
        self._workload, self._route, self._text, self._item = workload, route, text, item
        self._says, self._output_tokens = says, output_tokens
        self._asked_input_tokens = asked_input_tokens
        self._messages: list[Message] = [says[0]]

    def __len__(self) -> int:
        """How many requests it is made of."""
        return len(self._says)

    def first(self) -> Ask:
        """Begins it, or begins it again."""
        self._messages = [self._says[0]]
        return self._ask(0)

    def next(self, answer_text: str) -> Ask | None:
        """The next turn, after the model's answer to the one before; None when the user has nothing more to say."""
        turn = len(self._messages) // 2 + 1
        if turn >= len(self._says):
            return None
        self._messages += [answer_message(answer_text), self._says[turn]]
        return self._ask(turn)

    def _ask(self, turn: int) -> Ask:
        wanted = self._output_tokens[turn]
        return Ask(
            item=self._item,
            turn=turn,
            body=make_body(self._workload, self._route, self._text, self._messages, wanted),
            asked_input_tokens=None if turn else self._asked_input_tokens,
            asked_output_tokens=wanted if self._workload.is_pinned else None,
        )


class WorkSource:
    """The endless stream of one worker's requests. Workers of one seed share groups and nothing else."""

    def __init__(
        self,
        workload: Workload,
        route: Route,
        seed: int,
        worker: int = 0,
        workers: int = 1,
        *,
        fertility: Fertility = DEFAULT_FERTILITY,
    ) -> None:
        """Raises ValueError where no request can be made: names that do not exist, lengths that contradict each other,
        a kind that the route cannot carry, a negative seed, a worker that is not below `workers`."""
        _check(workload, route, worker, workers)
        self._workload, self._route, self._fertility = workload, route, fertility
        self._languages = languages_of(workload)
        self._supplies = {language: Supply(passages(language)) for language in self._languages}
        self._texts = {
            language: [text for text in texts_of(workload) if text.language == language] for language in self._languages
        }
        self._references = References(seed)
        sizes = {language: len(supply) for language, supply in self._supplies.items()}
        groups = make_groups(workload, seed, self._references, sizes)
        self._groups = {
            language: [each for each in groups if each.language == language] or groups for language in self._languages
        }
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PURPOSE, worker)))
        self._numbers = iter(range(worker, 2**63, workers))
        self._turn_of_language = worker
        self._canvases = {text.id: draw(text.picture) for text in texts_of(workload) if text.picture is not None}

    def next(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> Ask:
        """The next request; of MULTI_TURN the first of a new conversation.

        Lengths that are given, as by a trace, take the place of those that would be drawn.
        """
        return self._begin(input_tokens, output_tokens).first()

    def conversation(self) -> Conversation:
        """The next conversation; of kinds other than MULTI_TURN it has one turn."""
        return self._begin(None, None)

    def _begin(self, input_tokens: int | None, output_tokens: int | None) -> Conversation:
        workload, number = self._workload, next(self._numbers)
        group, language = self._choose_group()
        text = group.text if group and group.text else self._pick(self._texts[language])
        at = int(self._rng.integers(len(text.questions))) if workload.kind is WorkKind.DOCUMENT_QA else 0
        start = int(self._rng.integers(len(self._supplies[language])))
        wanted_input = self._draw(workload.input_tokens) if input_tokens is None else input_tokens
        is_talk = workload.kind is WorkKind.MULTI_TURN
        turns = int(draw_lengths(workload.turns, self._rng, 1)[0]) if is_talk else 1
        outputs = [self._draw(workload.output_tokens) if output_tokens is None else output_tokens for _ in range(turns)]
        opening = self._opening(group, text, text.questions[at], number, start, wanted_input)
        says = [opening, *map(user_message, islice(self._sayings(text), 1, turns))]
        item = f"{text.id}.{at + 1}" if len(text.questions) > 1 and not is_talk else text.id
        return Conversation(workload, self._route, text, item, says, outputs, wanted_input)

    def _choose_group(self) -> tuple[Group | None, str]:
        """Languages take turns; a group of the language whose turn it is, if there is one."""
        language = self._languages[self._turn_of_language % len(self._languages)]
        self._turn_of_language += 1
        if not self._groups[language]:
            return None, language
        group = self._pick(self._groups[language])
        return group, group.language if group.text else language

    def _opening(
        self, group: Group | None, text: Text, question: str, number: int, start: int, input_tokens: int | None
    ) -> Message:
        """The first message: the shared part, the reference, material of the text's own and more, the question."""
        language, supply = text.language, self._supplies[text.language]
        characters = None if input_tokens is None else self._room(text, input_tokens)
        reference = self._references.request_line(language, number)
        own = BREAK.join(text.paragraphs) if group is None or group.text is None else ""
        head = reference
        if group is not None:
            shared_characters = self._shared_characters(group, characters, f"{reference}{question}")
            head = group.shared_part(self._supplies[group.language], shared_characters) + BREAK + reference
        fills = characters is not None and (group is None or self._workload.shared_prefix_tokens > 0)
        passage = supply.extend(own, start, characters or 0) if fills else own
        if text.picture is None:
            prompt = fit_prompt(language, head=head, passage=passage, question=question, characters=characters)
            return user_message(prompt)
        room = None if characters is None else characters - len(question) - 1
        before = fit_prompt(language, head=head, passage="", question=passage, characters=room)
        return picture_message(before, data_uri(self._canvases[text.id], self._references.digits(number)), question)

    def _room(self, text: Text, input_tokens: int) -> int:
        """How many characters the prompt itself may have, so that all that is sent makes about so many tokens."""
        tools = len(json.dumps(text.tools, ensure_ascii=False)) / JSON_CHARACTERS_PER_TOKEN if text.tools else 0
        characters = self._fertility.characters(text.language, input_tokens - tools)
        return characters - len(answer_place(text.language)) * (self._route is Route.COMPLETIONS)

    def _shared_characters(self, group: Group, characters: int | None, rest: str) -> int | None:
        if self._workload.shared_prefix_tokens > 0:
            return self._fertility.text_characters(group.language, self._workload.shared_prefix_tokens)
        return None if characters is None else characters - len(rest) - 2 * len(BREAK)

    def _sayings(self, text: Text) -> Iterator[str]:
        """What the user says: the text's own turns, then those of others of its industry and language, in a circle."""
        others = [other for other in self._texts[text.language] if other is not text]
        others.sort(key=lambda other: other.industry != text.industry)
        return cycle(chain.from_iterable(each.questions for each in (text, *others)))

    def _draw(self, lengths: Lengths | None) -> int | None:
        return None if lengths is None else int(draw_lengths(lengths, self._rng, 1)[0])

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.integers(len(choices)))]


def _check(workload: Workload, route: Route, worker: int, workers: int) -> None:
    check_body(workload, route)
    for lengths in (workload.input_tokens, workload.output_tokens, workload.turns):
        if lengths is not None:
            check_lengths(lengths)
    if not 0 <= worker < workers:
        raise ValueError(f"worker: expected 0 to {workers - 1}, got {worker}")
    shared = workload.shared_prefix_tokens
    if shared < 0 or workload.prefix_groups < 1:
        raise ValueError("workload: expected shared_prefix_tokens of 0 or more and at least one of prefix_groups")
    if workload.input_tokens is not None and workload.input_tokens.least <= shared:
        raise ValueError(
            f"workload: a prompt of {workload.input_tokens.least} tokens has no room for {shared} shared ones and a "
            "question; expected input_tokens to begin above shared_prefix_tokens"
        )
