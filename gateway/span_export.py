"""Sends spans to a collector, by OTLP over HTTP, in the background: calls never wait for it and it never holds much.

What is finished lies in a bounded queue until its spans are made, a few at a time, and go out in batches. A collector
that is away, slow or refuses costs spans, which are counted, and nothing else.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import structlog

from gateway import __version__
from gateway.call_spans import SpanSource
from gateway.domain.otlp import Attributes, encode_batch, encode_span, read_rejected
from gateway.errors import UpstreamError
from gateway.series import Numbers
from gateway.upstream import Headers, Upstream, parse_origin, request_head

PATH = b"/v1/traces"
BATCH_SPANS = 512
TRIES = 5
"""Times that a batch is offered before it is given up."""
_MADE_AT_ONCE = 8
"""Calls whose spans are made before the loop serves others: about half a millisecond."""
_CONNECT_S, _ANSWER_S = 3.0, 10.0
_LONGEST_PAUSE_S = 30.0
_LONGEST_ANSWER = 64 * 1024
_AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP has a batch offered again."""


class Fate(StrEnum):
    """What became of a span: the values of the metric's label."""

    EXPORTED = "exported"
    REJECTED = "rejected"
    """The collector refused it."""
    QUEUE_FULL = "queue_full"
    """The collector had not taken enough of those before it."""
    GIVEN_UP = "given_up"
    """The collector could not be reached, or was too busy, each time it was tried."""


@dataclass(frozen=True, slots=True)
class _Batch:
    body: bytes
    spans: int


class _Unsent(Exception):
    """The collector did not take a batch now, and may later."""

    def __init__(self, why: str, pause_s: float = 0.0) -> None:
        """`pause_s`: how long the collector asked to be left alone."""
        super().__init__(why)
        self.pause_s = pause_s


class SpanExport:
    """`put` what is finished; `run` sends it until cancelled, `flush` the rest."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        endpoint: str,
        headers: Headers,
        service: str,
        queue_limit: int,
        flush_s: float,
        counts: Numbers,
    ) -> None:
        """`endpoint`: the collector's address, without the path of traces. `counts`: spans by their `Fate`."""
        self._upstream = upstream
        self._origin = parse_origin(endpoint)
        named = [(b"content-type", b"application/x-protobuf"), *headers]
        self._head = request_head(self._origin, b"POST", PATH, named)
        self._resource: Attributes = {
            "service.name": service,
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
        }
        self._limit = queue_limit
        self._flush_s = flush_s
        self._counts = counts
        for fate in Fate:
            counts.at(fate)
        self._queue: deque[SpanSource] = deque()
        self._made: list[bytes] = []
        """Spans of the next batch, while they are made."""
        self._batch: _Batch | None = None
        """The one that is being sent."""
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._is_failing = False
        self._log = structlog.get_logger("simsa.span_export")

    def put(self, source: SpanSource) -> None:
        """Have its spans made and sent, unless too many wait."""
        if len(self._queue) >= self._limit:
            self._count(Fate.QUEUE_FULL, source.count)
            return
        self._queue.append(source)
        if not self._some.is_set():
            self._some.set()
        if len(self._queue) >= BATCH_SPANS and not self._enough.is_set():
            self._enough.set()

    async def run(self) -> None:
        """Send what is there once `flush_s` has passed, or sooner where it is a batch."""
        while True:
            if self._batch is None:
                await self._some.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._flush_s):
                        await self._enough.wait()
                self._batch = await self._make()
            await self._deliver(self._batch)
            self._batch = None

    async def flush(self, within_s: float) -> None:
        """After `run` has ended: offer everything once more. What is not taken by then is counted and gone."""
        try:
            async with asyncio.timeout(within_s):
                while self._batch is not None or self._queue or self._made:
                    self._batch = self._batch or await self._make()
                    await self._offer(self._batch)
                    self._batch = None
        except (TimeoutError, _Unsent) as reason:
            left = sum(source.count for source in self._queue) + len(self._made)
            left += self._batch.spans if self._batch is not None else 0
            self._count(Fate.GIVEN_UP, left)
            self._log.warning("spans are lost at the end", spans=left, why=str(reason) or "no time was left")

    async def _make(self) -> _Batch:
        """The next batch, out of the queue. Nothing is lost where it is cancelled: another call goes on with it."""
        calls = 0
        while self._queue and len(self._made) < BATCH_SPANS:
            self._made += [encode_span(span) for span in self._queue.popleft().spans()]
            calls += 1
            if calls % _MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
        if not self._queue:
            self._some.clear()
        if len(self._queue) < BATCH_SPANS:
            self._enough.clear()
        made, self._made = self._made, []
        return _Batch(encode_batch(made, resource=self._resource, scope="simsa", version=__version__), len(made))

    async def _deliver(self, batch: _Batch) -> None:
        """Offer a batch until it is taken, refused, or was offered often enough."""
        pause_s = self._flush_s
        for left in reversed(range(TRIES)):
            try:
                await self._offer(batch)
            except _Unsent as reason:
                self._note_failure(str(reason))
                if not left:
                    self._count(Fate.GIVEN_UP, batch.spans)
                    return
                await asyncio.sleep(min(_LONGEST_PAUSE_S, max(pause_s, reason.pause_s)))
                pause_s *= 2
            else:
                return

    async def _offer(self, batch: _Batch) -> None:
        """Send a batch once and count what became of it. Raises _Unsent where it is worth another try."""
        try:
            status, retry_after, answer = await self._post(batch.body)
        except UpstreamError as error:
            raise _Unsent(error.message.replace("the engine", "the collector")) from error
        if status in _AGAIN:
            asked_s = int(retry_after) if retry_after is not None and retry_after.isdigit() else 0
            raise _Unsent(f"the collector answered {status}", asked_s)
        if 200 <= status < 300:
            rejected = min(read_rejected(answer), batch.spans)
            self._count(Fate.EXPORTED, batch.spans - rejected)
            self._count(Fate.REJECTED, rejected)
            self._note_success()
        else:
            self._count(Fate.REJECTED, batch.spans)
            self._note_failure(f"the collector answered {status}")

    async def _post(self, body: bytes) -> tuple[int, bytes | None, bytes]:
        """Status, Retry-After and body of the collector's answer. Raises UpstreamError."""
        reply = await self._upstream.open(
            self._origin,
            head=self._head,
            body=body,
            connect_s=_CONNECT_S,
            due=asyncio.get_running_loop().time() + _ANSWER_S,
            due_what=f"no answer within {_ANSWER_S:g} s",
        )
        try:
            return reply.status, reply.header(b"retry-after"), await reply.read_all(_LONGEST_ANSWER)
        finally:
            reply.release()

    def _count(self, fate: Fate, spans: int) -> None:
        self._counts.at(fate).value += spans

    def _note_failure(self, why: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._log.warning("the collector does not take spans; calls go on, spans may be lost", why=why)

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            self._log.info("the collector takes spans again")
