"""Remembers which replica keeps which reply, so that what continues one or asks for it again goes where it is.

Engines keep replies in their own memory, under ids that they make up. A reply belongs to the caller that asked for it:
for anybody else it does not exist. What was forgotten is not found either; nothing here outlives the process.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from gateway.dispatch import CallContext
from gateway.domain.accounts import Caller
from gateway.errors import NotFound
from gateway.request_body import RequestBody

PREVIOUS = "previous_response_id"


class Home(NamedTuple):
    """Where a reply is kept."""

    model_id: str
    replica_id: str


class ReplyHomes:
    """The homes of each caller's newest replies, `limit` a caller."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._homes: dict[str, OrderedDict[str, Home]] = {}
        self._owners: dict[str, str] = {}

    def keep(self, owner: str, reply_id: str, home: Home) -> None:
        """Remember a reply. An id that is another caller's stays theirs: clients may choose ids."""
        if self._owners.setdefault(reply_id, owner) != owner:
            return
        homes = self._homes.setdefault(owner, OrderedDict())
        homes[reply_id] = home
        homes.move_to_end(reply_id)
        if len(homes) > self._limit:
            forgotten, _ = homes.popitem(last=False)
            del self._owners[forgotten]

    def find(self, owner: str, reply_id: str, *, param: str) -> Home:
        """Raises NotFound, with the same words whether the reply is another's, forgotten or never was."""
        home = self._homes[owner].get(reply_id) if owner in self._homes else None
        if home is None:
            raise NotFound(
                f"No response '{reply_id[:128]}' of this key is known: the engine that made one keeps it, and the "
                f"gateway remembers which that was for the newest {self._limit} of a key, until it is restarted.",
                param=param,
                code="response_not_found",
            )
        return home

    def placed(self, context: CallContext, body: RequestBody, model_id: str, owner: str) -> CallContext:
        """The context of a call whose reply may be kept, bound to the replica that keeps what it continues.

        Raises InvalidRequest for an id that is none, NotFound for one that is not there.
        """
        home: str | None = None
        previous = body.value(PREVIOUS, str, "a string")
        if previous is not None:
            kept = self.find(owner, previous, param=PREVIOUS)
            if kept.model_id != model_id:
                raise NotFound(
                    f"The response '{previous}' was made by '{kept.model_id}', and only that model can continue it.",
                    param=PREVIOUS,
                    code="response_not_found",
                )
            home = kept.replica_id
        if body.value("store", bool, "true or false") is False:
            return context._replace(home=home)
        return context._replace(
            home=home,
            keep=lambda replica_id, reply_id: self.keep(owner, reply_id, Home(model_id, replica_id)),
        )


def owner_of(caller: Caller) -> str:
    """Whose a reply is: a key's, or the operator's."""
    return caller.key or ""
