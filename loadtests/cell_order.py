"""CELL.json: everything a worker needs to run one cell once, and where it writes what came of it.

Whoever runs a campaign writes one such file a worker; `worker` reads it. No key ever stands in it: it names the
variable of the environment that has the key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadtests.arrivals import TracePoint, read_trace
from loadtests.asks import FixedSource, WorkSource
from loadtests.plan import Arrivals, Closed, Open, Route, WorkKind, Workload
from loadtests.records import VERSION as RECORDS_VERSION
from loadtests.records import CellHeader
from loadtests.workloads.fitting import DEFAULT_FERTILITY, Fertility
from loadtests.workloads.requests import WorkSource as DrawnSource

VERSION = 1
PATHS = {
    Route.CHAT: "/v1/chat/completions",
    Route.COMPLETIONS: "/v1/completions",
    Route.COMPARISON: "/api/comparisons",
}
RUN_HEADER, PRIORITY_HEADER = "x-simsa-run-id", "x-simsa-priority"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_SECRET = ("authorization", "x-api-key", "proxy-authorization", "cookie")
_OURS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding")


class OrderRefused(ValueError):
    """CELL.json is not what a worker can run; the message names the field and what would be right."""


class DrawnWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="drawn"):
    """Requests as the workload's texts and lengths give them."""

    workload: Workload
    fertility: Fertility = DEFAULT_FERTILITY
    """How long texts are to the model; learnt from its engine."""


class FixedWork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fixed"):
    """The same body in every request: for calibration and tests."""

    body: dict[str, Any]
    output_tokens: int | None = None
    turns: int = 1


class CellOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One cell, one repeat, one door, one worker."""

    v: int
    cell: str
    repeat: int
    door: str
    """gateway | direct. Only through the gateway do requests carry the run's id and the class `load_test`."""
    run_id: str
    address: str
    """http:// or https://, with the base path if there is one, without the route's own path."""
    route: Route
    model: str
    """As the target calls it."""
    models: tuple[str, ...] = ()
    """Of a comparison: all its models."""
    headers: dict[str, str] = {}
    """Sent with every request; none that holds a secret."""
    key_variable: str | None = None
    """The variable of the environment that has the key; None: no key is sent."""
    open: Open | None = None
    closed: Closed | None = None
    """One of the two is the load."""
    trace_file: str | None = None
    """Of an open loop from a trace: its file."""
    work: DrawnWork | FixedWork
    seed: int
    worker: int = 0
    workers: int = 1
    timeout_s: float = 600.0
    """How long one answer may take."""
    drain_s: float = 60.0
    """After the load's last moment, how long answers may take before they are given up."""
    out: str
    """The file of records, begun anew."""
    begin_s: float | None = None
    """What the monotonic clock of this machine, which all its processes share, says at second 0: a wall clock that is
    set meanwhile moves no begin. None: as soon as the worker is ready."""
    web_port: int | None = None
    """Where Locust's own page listens on loopback; None: nowhere."""

    @property
    def load(self) -> Open | Closed:
        """Raises OrderRefused unless there is exactly one."""
        load = self.open or self.closed
        if load is None or (self.open is not None and self.closed is not None):
            raise OrderRefused("expected one of open and closed")
        return load

    @property
    def is_multi_turn(self) -> bool:
        if isinstance(self.work, FixedWork):
            return self.work.turns > 1
        return self.work.workload.kind is WorkKind.MULTI_TURN


class HostClock(msgspec.Struct, frozen=True):
    """A host beside others, and how its clocks stand to those of the one that leads. See `CellHeader`."""

    name: str
    wall_offset_s: float
    begin_within_s: float


def read_order(text: bytes) -> CellOrder:
    """Raises OrderRefused."""
    try:
        order = msgspec.json.decode(text, type=CellOrder)
    except msgspec.DecodeError as error:
        raise OrderRefused(str(error)) from error
    if order.v != VERSION:
        raise OrderRefused(f"v: expected {VERSION}, got {order.v}")
    _check_load(order)
    if not 0 <= order.worker < order.workers:
        raise OrderRefused(f"worker: expected 0 to {order.workers - 1}, got {order.worker}")
    if order.seed < 0:
        raise OrderRefused(f"seed: expected 0 or more, got {order.seed}")
    if not order.address.startswith(("http://", "https://")):
        raise OrderRefused(f"address: expected http:// or https://, got '{order.address}'")
    if order.route is Route.COMPARISON and not order.models:
        raise OrderRefused("models: expected the models that a comparison asks")
    for name, value in order.headers.items():
        _check_header(name, value)
    return order


def _check_load(order: CellOrder) -> None:
    load = order.load
    if isinstance(load, Closed):
        spans = [(users.for_s, float(min(users.begin, users.end))) for users in load.users]
    elif load.arrivals is Arrivals.TRACE:
        if order.trace_file is None:
            raise OrderRefused("trace_file: expected the file of the trace")
        if load.speed <= 0:
            raise OrderRefused(f"open.speed: expected more than 0, got {load.speed:g}")
        return
    else:
        spans = [(rate.for_s, min(rate.begin_per_s, rate.end_per_s)) for rate in load.rates]
    if not spans or any(for_s <= 0 or least < 0 for for_s, least in spans):
        raise OrderRefused("the load: expected at least one span, each longer than 0 s, none with a load below 0")


def _check_header(name: str, value: str) -> None:
    if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise OrderRefused(f"headers: '{name[:80]}' or its value cannot be sent")
    if name.lower() in _SECRET:
        raise OrderRefused(f"headers: '{name}' holds a secret: name its variable as key_variable instead")
    if name.lower() in _OURS:
        raise OrderRefused(f"headers: '{name}' is the client's own to set")


def header_of(order: CellOrder, began_at: str, host: HostClock | None = None) -> CellHeader:
    """The first line of the worker's file. `began_at`: ISO 8601, UTC, at second 0."""
    return CellHeader(
        v=RECORDS_VERSION,
        cell=order.cell,
        repeat=order.repeat,
        door=order.door,
        run_id=order.run_id,
        worker=order.worker,
        workers=order.workers,
        seed=order.seed,
        began_at=began_at,
        host=None if host is None else host.name,
        wall_offset_s=None if host is None else host.wall_offset_s,
        begin_within_s=None if host is None else host.begin_within_s,
    )


def headers_of(order: CellOrder, key: str | None) -> list[tuple[str, str]]:
    """What every request carries, the key included. Raises OrderRefused for a key that cannot be sent."""
    headers = list(order.headers.items())
    if order.door == "gateway":
        headers += [(RUN_HEADER, order.run_id), (PRIORITY_HEADER, "load_test")]
    if key is not None:
        if _VALUE.fullmatch(key) is None:
            raise OrderRefused(f"{order.key_variable}: the key has characters that no header can hold")
        headers.append(("authorization", f"Bearer {key}"))
    return headers


def trace_of(order: CellOrder) -> Sequence[TracePoint]:
    """The trace's requests, none where the load is of another kind. Raises OrderRefused."""
    if order.trace_file is None:
        return ()
    try:
        return read_trace(Path(order.trace_file).read_bytes())
    except (OSError, ValueError) as error:
        raise OrderRefused(f"trace_file: {error}") from error


def source_of(order: CellOrder) -> WorkSource:
    """Where this worker's requests come from; the workers' sources of one seed are disjoint."""
    if isinstance(order.work, FixedWork):
        return FixedSource(order.work.body, output_tokens=order.work.output_tokens, turns=order.work.turns)
    work = order.work
    try:
        return DrawnSource(
            work.workload, order.route, order.seed, order.worker, order.workers, fertility=work.fertility
        )
    except ValueError as error:
        raise OrderRefused(f"work: {error}") from error
