"""Asks for the addresses behind the registry's names, again and again, in the background and never for a call.

What an answer means is `domain.discovery`'s subject, what follows from other addresses is told by a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

import structlog

from gateway.background import end_all, keep_running
from gateway.domain.discovery import Addresses, Answer, Found, NoneThere, Question, Standing, Unanswered, problem_of
from gateway.telemetry import Telemetry

SHORTEST_TTL_S = 1.0
"""Records that last for less are asked for no sooner."""
_OUTCOMES: dict[type[Answer], str] = {Found: "found", NoneThere: "none_there", Unanswered: "unanswered"}


class NameWatch:
    """One watching task for each question. `want` says which there are, `stop` ends them all."""

    def __init__(
        self,
        *,
        ask: Callable[[Question], Awaitable[Answer]],
        refresh_s: float,
        telemetry: Telemetry,
        on_change: Callable[[Addresses], None],
    ) -> None:
        self._ask = ask
        self._refresh_s = refresh_s
        self._telemetry = telemetry
        self._on_change = on_change
        self._standings: dict[Question, Standing] = {}
        self._watchers: dict[Question, asyncio.Task[None]] = {}
        self._told: Addresses = {}
        self._log = structlog.get_logger("simsa.names")

    @property
    def addresses(self) -> Addresses:
        return {question: standing.addresses for question, standing in self._standings.items()}

    def addresses_of(self, name: str) -> tuple[str, ...]:
        return tuple(address for one in self._standings_of(name) for address in one.addresses)

    def problem_of(self, name: str) -> str | None:
        """What is wrong with a name, None where it has addresses by its last answer."""
        return problem_of(name, self._standings_of(name))

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong with each name with which something is."""
        names = sorted({question.name for question in self._standings})
        return {name: problem for name in names if (problem := self.problem_of(name)) is not None}

    @property
    def was_seen_through(self) -> bool:
        """Every name was answered once, whatever the answer was."""
        return all(standing.was_answered for standing in self._standings.values())

    def want(self, questions: AbstractSet[Question]) -> None:
        """Watch these from now on, and no others. What is known of those that stay, stays."""
        for gone in self._standings.keys() - questions:
            self._forget(gone)
        for question in sorted(questions - self._standings.keys()):
            self._standings[question] = Standing()
            watch = keep_running("name watch", self._watch_of(question), self._telemetry.count_background_failure)
            self._watchers[question] = asyncio.create_task(watch, name=f"watch {question.name}")

    async def stop(self) -> None:
        watchers = list(self._watchers.values())
        self._watchers.clear()
        await end_all(watchers)

    def _standings_of(self, name: str) -> list[Standing]:
        return [standing for question, standing in self._standings.items() if question.name == name]

    def _watch_of(self, question: Question) -> Callable[[], Awaitable[None]]:
        return lambda: self._watch(question)

    async def _watch(self, question: Question) -> None:
        while True:
            answer = await self._ask(question)
            self._take(question, answer)
            await asyncio.sleep(self._pause_after(answer))

    def _pause_after(self, answer: Answer) -> float:
        match answer:
            case Found(ttl_s=ttl_s):
                return min(max(ttl_s, SHORTEST_TTL_S), self._refresh_s)
            case _:
                return self._refresh_s

    def _take(self, question: Question, answer: Answer) -> None:
        self._telemetry.name_lookups.at(_OUTCOMES[type(answer)]).value += 1
        before = self._standings[question]
        after = self._standings[question] = before.after(answer)
        self._telemetry.name_failing.labels(question.name).set(
            any(standing.is_failing for standing in self._standings_of(question.name))
        )
        self._tell_log(question, before, after)
        if self.addresses != self._told:
            self._on_change(self.addresses)
            self._told = self.addresses  # what could not be taken over is told again after the next answer

    def _tell_log(self, question: Question, before: Standing, after: Standing) -> None:
        log = self._log.bind(name=question.name, record_type=question.record_type.value)
        if after.is_failing and not before.is_failing:
            log.warning("name cannot be resolved", reason=after.why, kept=len(after.addresses))
        elif before.is_failing and not after.is_failing:
            log.info("name resolved again")
        if after.addresses != before.addresses:
            came, gone = set(after.addresses) - set(before.addresses), set(before.addresses) - set(after.addresses)
            log.info("addresses changed", came=sorted(came), gone=sorted(gone), reason=after.why)

    def _forget(self, question: Question) -> None:
        del self._standings[question]
        self._watchers.pop(question).cancel()
        if not self._standings_of(question.name):
            self._telemetry.forget_name(question.name)
