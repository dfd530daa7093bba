"""What is on its way from a gateway to the books in Redis: holds that ended, records that were written, corrections.

In batches with a number, which count once however often they are sent. What Redis will not be told, the database is
asked about again (`doubt`). What the entries mean there is lua/settle.lua's; who makes them is `shared_books`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from gateway.books import Price
from gateway.counted import clamped, nano
from gateway.redis_link import LinkDown, RedisLink, ScriptFailed

ENTRIES_AT_ONCE = 250
MOST_UNSENT = 200_000
"""Beyond it the oldest are given up, and the database is asked about their keys."""


@dataclass(frozen=True, slots=True)
class Places:
    """The keys in Redis of one API key at one moment."""

    window: str
    holds: str
    unwritten: str
    day: str
    month: str

    @property
    def of_hold(self) -> tuple[str, str, str, str]:
        return self.window, self.holds, self.day, self.month


@dataclass(slots=True)
class Entry:
    """What became of a hold or of a record; see lua/settle.lua. `written` without a call: ask the database again."""

    what: str
    """spent | written | corrected."""
    places: Places
    hold: int = 0
    """Its number; 0 = without one."""
    second: str = ""
    held_tokens: int = 0
    call: str = ""
    tokens: int = 0
    price: Price | None = None
    unpriced: int = 0

    @property
    def says_something(self) -> bool:
        """Whether Redis may lack a sum without it."""
        return bool(self.call) or self.what != "spent"

    def arguments(self, gateway: str) -> list[str | int]:
        places = self.places
        return [
            self.what,
            *(places.window, places.holds, places.unwritten, places.day, places.month),
            f"{gateway}.{self.hold}" if self.hold else "",
            self.second,
            clamped(self.held_tokens),
            self.call,
            clamped(self.tokens),
            self.unpriced,
            "" if self.price is None else self.price[0],
            0 if self.price is None else nano(self.price[1]),
        ]


class HandingIn:
    """`note` what happened; `send_some` when there is `some`, until it is sent."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self.some = asyncio.Event()
        """Something waits."""
        self.last_hold = 0
        self._open: dict[str, set[int]] = {}
        """Numbers of holds that Redis may have and is to keep, by where they are kept."""
        self._unsent: deque[Entry] = deque()
        self._doubts: dict[Places, None] = {}
        """Of keys of which the database knows more than Redis will be told."""
        self._batch = 0
        self._sent: list[Entry] = []
        """The batch of that number, until Redis has said that it has it."""
        self._spent: dict[str, Entry] = {}
        """By call, those of both that are spent."""
        self._sending = asyncio.Lock()
        self._log = structlog.get_logger("simsa.limits")

    # --- holds that Redis is to keep ------------------------------------------------------------------------

    def begin_hold(self, places: Places) -> int:
        """A number for a hold that is about to be asked for."""
        self.last_hold += 1
        self._open.setdefault(places.holds, set()).add(self.last_hold)
        return self.last_hold

    def end_hold(self, places: Places, number: int) -> None:
        """It is not there, or no longer."""
        numbers = self._open.get(places.holds)
        if numbers is not None:
            numbers.discard(number)
            if not numbers:
                del self._open[places.holds]

    def open_holds(self, holds: str) -> Iterable[int]:
        return self._open.get(holds, ())

    # --- what waits -----------------------------------------------------------------------------------------

    def note(self, entry: Entry) -> None:
        if entry.what == "spent" and entry.call:
            self._spent[entry.call] = entry
        self._unsent.append(entry)
        if len(self._unsent) > MOST_UNSENT:
            self._give_up([self._unsent.popleft()])
        self.some.set()

    def note_written(self, places: Places, call: str) -> None:
        """A record is in the database, and ledgers may be seeded with it: what is not sent yet counts no more."""
        entry = self._spent.pop(call, None)
        if entry is not None:
            entry.call = ""
        self.note(Entry("written", places, call=call))

    def doubt(self, places: Places) -> None:
        """Have the database asked again before the key's next call."""
        self._doubts[places] = None
        self.some.set()

    def doubt_corrections(self) -> None:
        """They cannot be sent at once: once they could, ledgers may have been seeded with them."""
        for entry in (*self._sent, *self._unsent):
            if entry.what == "corrected":
                entry.what = "written"

    # --- sending --------------------------------------------------------------------------------------------

    async def flush(self) -> bool:
        """Send what is left; False where Redis does not answer."""
        try:
            while self._sent or self._unsent or self._doubts:
                await self.send_some()
        except LinkDown as error:
            self._log.error("what was spent last is not in Redis; the database has it", why=str(error))
            return False
        return True

    async def send_some(self) -> None:
        """One batch. What is in it is fixed with its number: sent again, it counts once, and nothing comes along.

        Raises LinkDown.
        """
        async with self._sending:
            if not self._sent and (self._unsent or self._doubts):
                self._batch += 1
                if self._doubts:  # by themselves: they are the last resort of all others
                    self._sent = [Entry("written", places) for places in list(self._doubts)[:ENTRIES_AT_ONCE]]
                    for entry in self._sent:
                        del self._doubts[entry.places]
                else:
                    self._sent = [self._unsent.popleft() for _ in range(min(ENTRIES_AT_ONCE, len(self._unsent)))]
            if self._sent:
                await self._send()
                self._sent = []
            if not self._unsent and not self._doubts:
                self.some.clear()

    async def _send(self) -> None:
        arguments: list[str | int] = [self._batch]
        for entry in self._sent:
            arguments += entry.arguments(self._link.id)
        try:
            await self._link.evaluate("settle", [f"{self._link.prefix}:settled:{self._link.id}"], arguments)
        except ScriptFailed as error:
            self._log.error("a batch of what was spent is given up; the database is asked instead", why=str(error))
            if any(entry.call or entry.what != "written" for entry in self._sent):
                self._give_up(self._sent)  # else they were doubts, and what is wrong with them would be wrong again
        else:
            for entry in self._sent:
                self._forget(entry)

    def _give_up(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._forget(entry)
            if entry.says_something:
                self.doubt(entry.places)

    def _forget(self, entry: Entry) -> None:
        """Redis has it, or will never have it."""
        if entry.what == "spent":
            self.end_hold(entry.places, entry.hold)
            if self._spent.get(entry.call) is entry:
                del self._spent[entry.call]
