"""The clockwork of a simulated engine: it steps the scheduler and sleeps as long as each step would take.

One task owns the scheduler's steps; requests come and go between them. Tokens are handed to their answers at the
end of the step that computed them. What is said and how it is sent belongs elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.engine_model import EngineLimits, Scheduler
from gateway.domain.roofline import Roofline
from gateway.simulator.answers import Answer
from gateway.simulator.metrics import EngineMetrics

MAX_LATENESS_S = 0.25
"""A machine too slow for the simulated time runs steps back to back to catch up, but never with more than this."""


@dataclass(slots=True)
class _Running:
    answer: Answer
    submitted: float
    first_token: float | None = None
    last_token: float | None = None
    admitted: bool = False


class Engine:
    """One engine in simulated time. `speed` 2 halves every step; `clock` is monotonic seconds."""

    def __init__(
        self,
        roofline: Roofline,
        limits: EngineLimits,
        *,
        served_name: str,
        speed: float,
        clock: Callable[[], float],
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, got {speed}")
        self.limits = limits
        self._scheduler = Scheduler(limits, roofline)
        self.metrics = EngineMetrics(served_name, self._scheduler)
        self.metrics.describe_cache(limits, roofline.kv)
        self._speed = speed
        self._clock = clock
        self._requests: dict[str, _Running] = {}
        self._work = asyncio.Event()
        self.is_alive = False
        """Whether `run` is running; without it no request gets on."""

    def submit(self, answer: Answer) -> None:
        """Queue the request; its tokens come through `answer.take`."""
        self._scheduler.add(answer.id, answer.prompt_tokens)
        self._requests[answer.id] = _Running(answer, self._clock())
        self._work.set()

    def leave(self, answer: Answer) -> None:
        """The client is gone: free what the request holds. Nothing happens when it has ended by itself."""
        if answer.id in self._requests:
            answer.abort()
            self._forget(answer)

    async def run(self) -> None:
        """Step until cancelled."""
        self.is_alive = True
        try:
            await self._step_forever()
        finally:
            self.is_alive = False

    async def _step_forever(self) -> None:
        deadline = self._clock()
        while True:
            if not self._scheduler.has_work:
                self._work.clear()
                await self._work.wait()
                deadline = self._clock()
            step = self._scheduler.begin_step()
            self.metrics.preemptions.inc(len(step.preempted))
            self._note_admitted(step.admitted)
            deadline = await self._sleep_until(deadline + step.duration_s / self._speed)
            self.metrics.step_tokens.observe(step.tokens)
            self._hand_out(self._scheduler.end_step())

    async def _sleep_until(self, deadline: float) -> float:
        """Sleep to `deadline`; from it the next one counts, so that late timers do not add up."""
        remaining = deadline - self._clock()
        await asyncio.sleep(max(0.0, remaining))
        lateness = self._clock() - deadline
        if lateness > MAX_LATENESS_S:
            self.metrics.late.inc(lateness - MAX_LATENESS_S)
            return deadline + lateness - MAX_LATENESS_S
        return deadline

    def _note_admitted(self, request_ids: tuple[str, ...]) -> None:
        now = self._clock()
        for request_id in request_ids:
            request = self._requests[request_id]
            if not request.admitted:
                request.admitted = True
                self.metrics.queued.observe(now - request.submitted)

    def _hand_out(self, request_ids: tuple[str, ...]) -> None:
        now = self._clock()
        self.metrics.generation_tokens.inc(len(request_ids))
        for request_id in request_ids:
            request = self._requests[request_id]
            self._note_token(request, now)
            request.answer.take()
            if request.answer.finish_reason is not None:
                self._note_end(request, now)
                self._forget(request.answer)

    def _note_token(self, request: _Running, now: float) -> None:
        if request.first_token is None or request.last_token is None:
            request.first_token = now
            self.metrics.prompt_tokens.inc(request.answer.prompt_tokens)
            self.metrics.first_token.observe(now - request.submitted)
        else:
            self.metrics.between_tokens.observe(now - request.last_token)
        request.last_token = now

    def _note_end(self, request: _Running, now: float) -> None:
        self.metrics.end_to_end.observe(now - request.submitted)
        if request.first_token is not None and request.answer.tokens > 1:
            self.metrics.per_token.observe((now - request.first_token) / (request.answer.tokens - 1))

    def _forget(self, answer: Answer) -> None:
        self._scheduler.finish(answer.id)
        del self._requests[answer.id]
        self.metrics.finished(answer.finish_reason or "abort")
