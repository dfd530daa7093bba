"""What a worker owed that was lost on the way: its file has no footer, and what it had not written was offered still.

Of an open loop every request is known from the order alone. Of a closed loop it is not known what its users would have
asked, so nothing is added there.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loadtests.answers import Due, unsent
from loadtests.arrivals import TracePoint, moments, share
from loadtests.asks import Ask
from loadtests.cell_order import CellOrder
from loadtests.plan import Open
from loadtests.records import RequestRecord

UNKNOWN_ITEM = "unknown"
_RECORD = msgspec.json.Decoder(RequestRecord)


def owed_records(
    order: CellOrder, written: bytes, *, until_s: float, trace: Sequence[TracePoint] = ()
) -> list[RequestRecord]:
    """UNSENT records for all that was due by `until_s` and has no line in `written`, the file of the lost worker.

    They stand for requests that were under way too, of which nobody can say any more what became of them.
    """
    load = order.load
    if not isinstance(load, Open):
        return []
    kept = _numbers_in(written)
    owed = share(moments(load, order.seed, trace), order.worker, order.workers)
    return [
        record
        for n, at_s in zip(owed.numbers.tolist(), owed.moments.tolist(), strict=True)
        if at_s <= until_s and n not in kept
        for record in unsent(
            Due(n=n, worker=order.worker, scheduled_s=at_s, ask=Ask(UNKNOWN_ITEM, 0, {})),
            "the worker was lost before it wrote what became of this request",
            order.models,
        )
    ]


def _numbers_in(written: bytes) -> set[int]:
    """Of the requests that have a line; the first line is the header, and the last may be half of one."""
    kept = set()
    for line in written.splitlines()[1:]:
        try:
            kept.add(_RECORD.decode(line).n)
        except msgspec.DecodeError:
            continue
    return kept
