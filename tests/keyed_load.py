"""Callers with keys who ask without pause, and their own account of what they got, to be held against the database.

A caller sends its next request when it has the whole answer to the last one; streams and whole answers take turns. The
names of calls are their request ids. It starts no server: see test_outages.py, and bench/faults.py for the drill.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

from clients import Answer, RawClient, Truncated
from guards import HANG_S

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"


class Bearer(NamedTuple):
    """Whose a key is, the key's id, and its secret."""

    organisation: str
    key: str
    secret: str


class Answered(NamedTuple):
    """A whole answer as its caller has it."""

    bearer: Bearer
    tokens: int
    """Prompt and answer, by the usage that the caller was told."""
    sent_s: float
    ended_s: float


@dataclass
class KeyedLoad:
    """What the callers sent and got so far. `ask` is what every request has beyond its own fields."""

    url: str
    bearers: Sequence[Bearer]
    ask: Mapping[str, Any]
    name: str = "call"
    """What the names of its calls begin with: two loads on one database have different ones."""
    sent: dict[str, Bearer] = field(default_factory=dict)
    answered: dict[str, Answered] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    """Answers that were not whole, or none, by what they were instead."""
    is_over: bool = False
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self, callers: int) -> AsyncIterator[None]:
        """So many callers ask until the block ends; each then takes its last answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self._keep_asking(number))
            try:
                yield
            finally:
                self.is_over = True

    async def until_more(self, answers: int) -> None:
        """Wait for so many further answers, or for the first failure."""
        enough, failures = len(self.answered) + answers, self.failed.total()
        async with asyncio.timeout(HANG_S):
            while len(self.answered) < enough and self.failed.total() == failures:
                self._came.clear()
                await self._came.wait()

    async def _keep_asking(self, caller: int) -> None:
        """Ends when all are told to, or when the gateway is gone."""
        bearer = self.bearers[caller % len(self.bearers)]
        turn = 0
        try:
            async with RawClient(self.url, key=bearer.secret) as client:
                while not self.is_over:
                    await self._ask(client, bearer, f"{self.name}-{caller}-{turn}", turn)
                    turn += 1
        except (Truncated, OSError, TimeoutError) as error:
            self._fail(type(error).__name__)

    async def _ask(self, client: RawClient, bearer: Bearer, name: str, turn: int) -> None:
        length = self.ask["max_tokens"] - turn % 4  # so that no two calls in a row cost the same
        body = {**self.ask, "max_tokens": length}
        if turn % 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        self.sent[name] = bearer
        sent_s = perf_counter()
        answer = await client.request("POST", CHAT, body=body, headers=[("x-request-id", name)])
        tokens = told_tokens(answer, streamed=bool(turn % 2))
        if answer.status != 200 or tokens is None:
            self._fail(f"status {answer.status}" if answer.status != 200 else "not whole")
        else:
            self.answered[name] = Answered(bearer, tokens, sent_s, perf_counter())
            self._came.set()

    def _fail(self, what: str) -> None:
        self.failed[what] += 1
        self._came.set()


def told_tokens(answer: Answer, *, streamed: bool) -> int | None:
    """What a whole answer says that it cost; None where it is not whole."""
    if not streamed:
        body = answer.json()
        is_whole = bool(body.get("choices")) and body["choices"][0]["finish_reason"] is not None
        return int(body["usage"]["total_tokens"]) if is_whole else None
    if not answer.body.endswith(DONE) or b'"error"' in answer.body:
        return None
    *_, last = answer.body.removesuffix(DONE).strip().split(b"\n\n")
    return int(json.loads(last.removeprefix(b"data: "))["usage"]["total_tokens"])


async def make_bearers(url: str, admin_key: str, organisations: Iterable[str], **terms: Any) -> list[Bearer]:
    """A key for each organisation, made as an operator makes them."""
    bearers = []
    async with RawClient(url, key=admin_key) as admin:
        for name in organisations:
            await admin.request("POST", "/api/admin/orgs", body={"id": name, "name": name})
            wanted = {"organisation": name, "name": "load", **terms}
            made = (await admin.request("POST", "/api/admin/keys", body=wanted)).json()
            bearers.append(Bearer(name, made["id"], made["secret"]))
    return bearers


@dataclass
class Reckoning:
    """The callers' account beside the database's. All is well when `faults` is empty."""

    ok: int = 0
    interrupted: int = 0
    charged: Counter[str] = field(default_factory=Counter)
    """Tokens by key."""
    faults: Counter[str] = field(default_factory=Counter)
    """What does not agree: `lost`, `twice`, `not ours`, `status`, `owner`, `charge`."""


def reckon(load: KeyedLoad, rows: Iterable[Mapping[str, Any]]) -> Reckoning:
    """Hold every row of `calls` against what its caller saw, and every answer against its row."""
    found = Reckoning()
    seen: Counter[str] = Counter()
    for row in rows:
        name = row["request_id"]
        seen[name] += 1
        bearer, answered = load.sent.get(name), load.answered.get(name)
        found.charged[row["key"]] += row["charged_tokens"] or 0
        if bearer is None:
            found.faults["not ours"] += 1
            continue
        if (row["organisation"], row["key"]) != (bearer.organisation, bearer.key):
            found.faults["owner"] += 1
        if row["status"] == "ok":  # its end may have been written though its caller was cut off before the last byte
            found.ok += 1
            expected = answered.tokens if answered else row["prompt_tokens"] + row["completion_tokens"]
        elif row["status"] == "interrupted" and answered is None:
            found.interrupted += 1
            expected = row["prompt_estimate"]
        else:
            found.faults["status"] += 1
            continue
        if row["charged_tokens"] != expected:
            found.faults["charge"] += 1
    found.faults["twice"] = sum(count > 1 for count in seen.values())
    found.faults["lost"] = len(load.answered.keys() - seen.keys())
    found.faults = +found.faults
    return found
