"""Where a replica's energy counters stand, from its block in the file, with what would make their figures wrong.

A counter that two replicas name would be counted twice, and counters of some of its GPUs would pass for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.domain.records import DCGM_ENERGY, EnergyMeter
from gateway.registry.schema import ReplicaBlock
from gateway.registry.text import Document, Loc


class EnergyMeters:
    """Reads the blocks of all replicas of a file, one after the other."""

    def __init__(self, document: Document, *, others: Iterable[EnergyMeter] = ()) -> None:
        """`others`: meters of another file, whose counters count as named before."""
        self._document = document
        self._first: dict[tuple[str, str], Loc] = {}
        """The replica that names a GPU of an exporter first, by whatever metric: each is the whole card's energy."""
        self._naming: dict[str, tuple[bool, Loc]] = {}
        """Whether an exporter's GPUs are named by UUID, and where first."""
        for meter in others:
            self._first.update({(meter.url, gpu): () for gpu in meter.gpus})
            self._naming.setdefault(meter.url, (not meter.gpus[0].isdigit(), ()))

    def read(self, loc: Loc, replica: ReplicaBlock, *, is_remote: bool) -> EnergyMeter | None:
        """The meter of one replica; complains of what does not hold together."""
        if (block := replica.energy) is None:
            return None
        if is_remote:
            self._document.complain(loc, "expected none: the GPUs behind a hosted API are not seen from here")
        if not block.gpus:
            self._document.complain((*loc, "gpus"), "expected at least one GPU's index or UUID")
        elif len(set(block.gpus)) != len(block.gpus):
            self._document.complain((*loc, "gpus"), "expected each GPU once")
        elif len(block.gpus) != replica.gpus:
            self._document.complain(
                (*loc, "gpus"),
                f"expected as many as the replica's gpus ({replica.gpus}), got {len(block.gpus)}: "
                "the energy of some would pass for that of all",
            )
        metric = block.metric or DCGM_ENERGY
        if metric != DCGM_ENERGY and block.unit is None:
            self._document.complain((*loc, "unit"), f"missing; expected mJ or J, the unit of {metric}")
        if metric == DCGM_ENERGY and block.unit == "J":
            self._document.complain((*loc, "unit"), f"expected mJ, in which {DCGM_ENERGY} counts, or nothing")
        self._refuse_mixed(loc, block.url, block.gpus)
        self._refuse_second(loc, block.url, block.gpus)
        return EnergyMeter(block.url, tuple(block.gpus), metric, 1000 if block.unit == "J" else 1)

    def _refuse_mixed(self, loc: Loc, url: str, gpus: list[str]) -> None:
        """An index and a UUID at one exporter may be one card, which only its page could tell."""
        kinds = {not gpu.isdigit() for gpu in gpus}
        if not kinds:
            return
        reason = "an index and a UUID may name one card, which would be counted twice"
        if len(kinds) > 1:
            self._document.complain((*loc, "gpus"), f"expected indexes alone or UUIDs alone: {reason}")
            return
        by_uuid, first = self._naming.setdefault(url, (kinds.pop(), loc))
        if by_uuid != (not gpus[0].isdigit()):
            one, other = ("UUIDs", "indexes") if by_uuid else ("indexes", "UUIDs")
            self._document.complain(
                (*loc, "gpus"), f"expected {one}, as {self._place(first)}, or {other} in both places: {reason}"
            )

    def _refuse_second(self, loc: Loc, url: str, gpus: list[str]) -> None:
        for gpu in dict.fromkeys(gpus):
            first = self._first.setdefault((url, gpu), loc)
            if first != loc:
                self._document.complain(
                    (*loc, "gpus"),
                    f"the counter of GPU {gpu} at {url} belongs to the replica {self._place(first)} already and would "
                    "be counted twice; leave energy out here",
                )

    def _place(self, loc: Loc) -> str:
        line = self._document.lines.get(loc) if loc else None
        return f"on line {line}" if line else "in an earlier entry"
