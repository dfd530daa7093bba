"""Whoever runs a round, over HTTP alone: from the plan to the open names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from clients import Answer, RawClient

ROUNDS = "/api/rounds"
ANSWERED_WITHIN_S = 60.0
"""How long all answers of a small round may take. A guard, not a timing."""


@dataclass(frozen=True)
class RoundOperator:
    """`key` opens the routes of rounds; a client is made for each request, so that a gateway may start anew between."""

    url: str
    key: str

    async def answer(self, method: str, path: str, body: Any = b"") -> Answer:
        async with RawClient(self.url, key=self.key) as client:
            return await client.request(method, f"{ROUNDS}{path}", body=body)

    async def ask(self, method: str, path: str, body: Any = b"", *, status: int = 200) -> Any:
        answer = await self.answer(method, path, body)
        assert answer.status == status, answer.body
        return answer.json() if answer.body else None

    async def step(self, round_id: str, step: str) -> Any:
        return await self.ask("POST", f"/{round_id}/{step}")

    async def draft(self, plan: Any) -> str:
        """The id of a new round."""
        made: str = (await self.ask("POST", "", plan, status=201))["id"]
        return made

    async def answers(self, round_id: str) -> Any:
        """Have them made, and keep what came."""
        await self.step(round_id, "answers")
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            while not (await self.ask("GET", f"/{round_id}/answers"))["is_over"]:
                await asyncio.sleep(0.02)  # nothing announces it
        return await self.step(round_id, "answers/collect")

    async def invite(self, round_id: str, count: int, *, english: int = 0) -> list[str]:
        """The links' secret parts. The last `english` of them get pages in English."""
        people = [
            {
                "label": f"심사위원 {n + 1}",
                "stratum": "expert" if n % 2 else "user",
                "language": "en" if n >= count - english else "ko",
            }
            for n in range(count)
        ]
        made = await self.ask("POST", f"/{round_id}/reviewers", {"reviewers": people}, status=201)
        return [one["link"].partition("#")[2] for one in made["data"]]

    async def seal(self, round_id: str) -> Any:
        """After a dry run, which must pass."""
        rehearsed = await self.step(round_id, "dry-run")
        assert rehearsed["dry_run"]["passed"], rehearsed["dry_run"]
        return await self.step(round_id, "seal")
