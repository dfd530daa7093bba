"""Remembers which replica keeps which reply, so that what continues one or asks for it again goes where it is.

Engines keep replies in their own memory, under ids that they make up. A reply belongs to the caller that asked for it:
for anybody else it does not exist. What was forgotten is not found either. Several gateways tell each other, and know
of each other's replies for a day; nothing else here outlives the process.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from gateway.admission import HOME_GONE
from gateway.dispatch import CallContext
from gateway.domain.accounts import Caller
from gateway.domain.dialects.responses import PREVIOUS
from gateway.domain.records import EngineAddress
from gateway.errors import ResponseNotFound
from gateway.redis_link import LinkDown, RedisLink
from gateway.replica_state import ReplicaState
from gateway.request_body import RequestBody

ID = r"[A-Za-z0-9_.-]{1,200}"
"""What an id may be to be asked for by its path; a reply with another is not remembered."""
_IS_ID = re.compile(ID + r"\Z").match
SHARED_FOR_S = 86_400
"""How long other gateways can find a reply."""


class Home(NamedTuple):
    """Where a reply is kept."""

    model_id: str
    engine: EngineAddress

    def among(self, states: Sequence[ReplicaState], *, param: str) -> ReplicaState:
        """The replica that keeps it, of its model's. Raises ResponseNotFound when that is gone from the registry."""
        for state in states:
            if state.replica.address == self.engine:
                return state
        raise ResponseNotFound(HOME_GONE, param=param)


class _Claim(NamedTuple):
    """What gateways tell each other of a reply."""

    owner: str
    home: Home


_CLAIM = msgspec.json.Decoder(_Claim)


def _read_claim(raw: bytes) -> _Claim | None:
    """None for what another version wrote in another way."""
    with suppress(msgspec.DecodeError):
        return _CLAIM.decode(raw)
    return None


class ReplyHomes:
    """The homes of each caller's newest replies, `limit` a caller."""

    def __init__(self, limit: int, link: RedisLink | None = None) -> None:
        """`link`: to other gateways, where there are some."""
        self._limit = limit
        self._link = link
        self._homes: dict[str, OrderedDict[str, Home]] = {}
        self._owners: dict[str, str] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def keep(self, owner: str, reply_id: str, home: Home) -> None:
        """Remember a reply. An id that is another caller's stays theirs: some clients may choose ids."""
        if not _IS_ID(reply_id):
            return
        self._keep_here(owner, reply_id, home)
        if self._link is not None:
            task = asyncio.create_task(self._tell_others(self._link, owner, reply_id, home))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell_others(self, link: RedisLink, owner: str, reply_id: str, home: Home) -> None:
        kept = claim = msgspec.json.encode(_Claim(owner, home))
        with suppress(LinkDown):
            kept = await link.claim(f"reply:{reply_id}", claim, for_s=SHARED_FOR_S)
        told = _read_claim(kept)
        if (told is None or told.owner != owner) and self._owners.get(reply_id) == owner:
            self._homes[owner].pop(reply_id, None)
            del self._owners[reply_id]

    def _keep_here(self, owner: str, reply_id: str, home: Home) -> None:
        if self._owners.setdefault(reply_id, owner) != owner:
            return
        homes = self._homes.setdefault(owner, OrderedDict())
        homes[reply_id] = home
        homes.move_to_end(reply_id)
        if len(homes) > self._limit:
            forgotten, _ = homes.popitem(last=False)
            del self._owners[forgotten]

    async def find(self, owner: str, reply_id: str, *, param: str) -> Home:
        """Raises ResponseNotFound, with the same words whether the reply is another's, forgotten or never was."""
        home = self._homes[owner].get(reply_id) if owner in self._homes else None
        if home is None and self._link is not None and _IS_ID(reply_id):
            home = await self._found_elsewhere(self._link, owner, reply_id)
        if home is None:
            raise ResponseNotFound(
                f"No response '{reply_id[:128]}' of this key is known: the engine that made one keeps it, and the "
                f"gateway remembers which that was for the newest {self._limit} of a key, until it is restarted.",
                param=param,
            )
        return home

    async def _found_elsewhere(self, link: RedisLink, owner: str, reply_id: str) -> Home | None:
        with suppress(LinkDown):
            kept = await link.recall(f"reply:{reply_id}")
            if kept is not None and (claim := _read_claim(kept)) is not None and claim.owner == owner:
                return claim.home
        return None

    async def placed(
        self, context: CallContext, body: RequestBody, model_id: str, owner: str, states: Sequence[ReplicaState]
    ) -> CallContext:
        """The context of a call whose reply may be kept, bound to the engine that keeps what it continues.

        `states`: the model's replicas. Raises InvalidRequest for an id that is none, ResponseNotFound for one that is
        not there, or whose engine is not.
        """
        home: EngineAddress | None = None
        previous = body.value(PREVIOUS, str, "a string")
        if previous is not None:
            kept = await self.find(owner, previous, param=PREVIOUS)
            if kept.model_id != model_id:
                raise ResponseNotFound(
                    f"The response '{previous}' was made by '{kept.model_id}', and only that model can continue it.",
                    param=PREVIOUS,
                )
            home = kept.among(states, param=PREVIOUS).replica.address
        if body.value("store", bool, "true or false") is False:
            return context._replace(home=home)
        return context._replace(
            home=home,
            keep=lambda engine, reply_id: self.keep(owner, reply_id, Home(model_id, engine)),
        )


def owner_of(caller: Caller) -> str:
    """Whose a reply is: a key's, or the operator's."""
    return caller.key or ""
