"""What a worker owed that was lost or stopped on the way while the others went on: it was offered still.

Of an open loop every request is known from the order alone. Of a closed loop it is not known what its users would have
asked, so nothing is added there.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from loadtests.answers import Due, unsent
from loadtests.arrivals import TracePoint, moments, share
from loadtests.asks import Ask
from loadtests.cell_order import CellOrder, header_of
from loadtests.plan import Open
from loadtests.records import FOOTER_MARK, RequestRecord

UNKNOWN_ITEM = "unknown"
LOST = "the worker was lost before it wrote what became of this request"
STOPPED = "the worker had stopped when this was due"


class _Numbered(msgspec.Struct):
    """Of a record what tells it from the others."""

    n: int
    side: str | None = None


_NUMBERED = msgspec.json.Decoder(_Numbered)


def settle_file(
    path: Path, order: CellOrder, *, until_s: float, began_at: datetime, trace: Sequence[TracePoint] = ()
) -> int:
    """Make the file of a worker that did not come to its load's end whole; how many requests it owed. Raises OSError.

    A line that breaks off is taken out, as its request is among those owed. `began_at`: for the header, where the
    worker was lost before it wrote one. A footer stays the last line; who was lost has none.
    """
    with path.open("r+b" if path.exists() else "w+b") as file:
        whole_bytes, kept, footer = _whole_lines(file)
        file.truncate(whole_bytes)
        file.seek(whole_bytes)
        if not whole_bytes:
            file.write(msgspec.json.encode(header_of(order, began_at.isoformat())) + b"\n")
        owed = owed_records(order, kept, until_s=until_s, trace=trace, why=STOPPED if footer else LOST)
        file.writelines(msgspec.json.encode(record) + b"\n" for record in owed)
        file.write(footer)
        file.flush()
        os.fsync(file.fileno())
    return len(owed)


def owed_records(
    order: CellOrder,
    kept: Container[tuple[int, str | None]],
    *,
    until_s: float,
    trace: Sequence[TracePoint] = (),
    why: str = LOST,
) -> list[RequestRecord]:
    """UNSENT records for all that was due by `until_s` and is not among `kept`, by number and side what has a line.

    They stand for requests that were under way too, of which nobody can say any more what became of them.
    """
    load = order.load
    if not isinstance(load, Open):
        return []
    owed = share(moments(load, order.seed, trace), order.worker, order.workers)
    return [
        record
        for n, at_s in zip(owed.numbers.tolist(), owed.moments.tolist(), strict=True)
        if at_s <= until_s
        for record in unsent(
            Due(n=n, worker=order.worker, scheduled_s=at_s, ask=Ask(UNKNOWN_ITEM, 0, {})),
            why,
            order.models,
        )
        if (n, record.side) not in kept
    ]


def _whole_lines(file: BinaryIO) -> tuple[int, set[tuple[int, str | None]], bytes]:
    """How many bytes header and records take that are whole, which requests they are, and the footer after them."""
    whole_bytes = 0
    kept: set[tuple[int, str | None]] = set()
    for place, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        if FOOTER_MARK in line:
            return whole_bytes, kept, line
        whole_bytes += len(line)
        if place:
            one = _NUMBERED.decode(line)
            kept.add((one.n, one.side))
    return whole_bytes, kept, b""
