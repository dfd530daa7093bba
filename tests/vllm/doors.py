"""A client at a gateway's door, and what it reads there: whole answers, streams, what the gateway recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from clients import Answer, RawClient
from gateways import RunningGateway

from gateway.domain.records import Call

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass
class Door:
    """A gateway in front of real engines, and a client at it."""

    gateway: RunningGateway
    client: RawClient

    async def ask(self, body: dict[str, Any], path: str = CHAT) -> Answer:
        return await self.client.request("POST", path, body=body)

    async def answered(self, body: dict[str, Any], path: str = CHAT) -> Any:
        answer = await self.ask(body, path)
        assert answer.status == 200, answer.body
        return answer.json()

    async def streamed(self, body: dict[str, Any], path: str = CHAT) -> list[dict[str, Any]]:
        """The JSON of every event; the stream must end with [DONE]."""
        answer = await self.ask(body, path)
        assert answer.status == 200, answer.body
        *events, done, rest = answer.body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    async def call(self) -> Call:
        return await self.gateway.call()


def text_of(events: list[dict[str, Any]], field: str = "content") -> str:
    """All that a stream says in one field of its deltas."""
    return "".join(choice["delta"].get(field) or "" for event in events for choice in event["choices"])
