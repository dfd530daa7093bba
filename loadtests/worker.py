"""`python -m loadtests.worker CELL.json`: run one cell in this process, with Locust as a library.

Exit code 0 when the cell ran to its end, 1 when it did not (one line on stderr says why; what was measured is kept),
2 for an order that cannot be run. SIGINT and SIGTERM stop sending and wait for what is under way, up to the drain's
end; a second one gives that up too. Across hosts see `distributed`.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from time import perf_counter

import gevent  # type: ignore[import-untyped]
import msgspec
from locust.env import Environment  # the first import that matters: it patches the standard library
from locust.stats import stats_history

from loadtests.cell_order import CellOrder, OrderRefused, begin_moment, read_order
from loadtests.cell_run import LEAD_S, READY_S, CellRun, Clocks
from loadtests.distributed import GRACE_S, PORT, Master, run_for_master
from loadtests.record_file import LineFile
from loadtests.sending import Sending


def stop_on_signals(sending: Sending) -> None:
    """The first signal stops sending, the second one what is under way too."""

    def stop(number: signal.Signals) -> None:
        if sending.stopping.is_set():
            sending.abandon(f"stopped by a second {number.name}")
        else:
            sending.stop(f"stopped by {number.name}")

    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop, number)


def run_here(order: CellOrder, ready_s: float) -> str | None:
    """Run the cell in this process alone; why it ended early, where it did. Raises OrderRefused, OSError."""
    environment = Environment()
    cell = CellRun(order, LineFile(Path(order.out)), environment)
    runner = environment.create_local_runner()
    if order.web_port is not None:
        environment.create_web_ui("127.0.0.1", order.web_port)
        gevent.spawn(stats_history, runner)
    stop_on_signals(cell.sending)
    environment.events.test_stopping.add_listener(  # type: ignore[no-untyped-call]
        lambda **_: cell.sending.stop("stopped on Locust's page")
    )
    if cell.users:
        runner.start(cell.users, spawn_rate=cell.users)
    cell.prepare(runner, ready_s)
    clocks = Clocks()
    moment = begin_moment(order)
    zero_s = perf_counter() + LEAD_S if moment is None else clocks.monotonic_at(moment)
    stopped = cell.run(zero_s, clocks)
    runner.quit()
    if environment.web_ui is not None:
        environment.web_ui.stop()  # type: ignore[no-untyped-call]
    return stopped


def lead(order: CellOrder, bind_host: str, port: int, *, ready_s: float, grace_s: float) -> str | None:
    """Run the cell on workers that connect; why it ended early, where it did. Raises OrderRefused, OSError."""
    master = Master(order, bind_host=bind_host, port=port, ready_s=ready_s, grace_s=grace_s)
    if order.web_port is not None:
        master.environment.create_web_ui("127.0.0.1", order.web_port)
        gevent.spawn(stats_history, master.runner)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, master.stop, f"stopped by {number.name}")
    return master.run()


def raise_file_limit() -> None:
    """Every request under way is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.worker", description="Run one cell of a load test.")
    parser.add_argument("order", type=Path, nargs="?", help="CELL.json; of a worker on another host none")
    parser.add_argument("--master-host", help="be a worker of the master there, which has the order")
    parser.add_argument("--master-port", type=int, default=PORT)
    parser.add_argument("--expect-workers", type=int, help="be the master of so many workers")
    parser.add_argument(
        "--bind-host",
        default="127.0.0.1",
        help="where the master listens, 127.0.0.1 unless given; nobody is asked for a password there: whoever reaches "
        "the port can take part, so open it to the workers' network alone",
    )
    parser.add_argument(
        "--ready-s",
        type=float,
        default=READY_S,
        help="how long workers may take to connect and to get ready; to be said to the master and to each worker",
    )
    parser.add_argument(
        "--grace-s",
        type=float,
        default=GRACE_S,
        help="how long after load and drain the master waits for a worker's end before it counts as lost",
    )
    parser.add_argument("--cpu", type=int, help="core to stay on")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    logging.getLogger("locust").setLevel(logging.ERROR)
    raise_file_limit()
    if (options.order is None) == (options.master_host is None):
        parser.error("expected either CELL.json or --master-host")
    named = options.order or f"the order of {options.master_host}"
    try:
        stopped = _run(options)
    except (OrderRefused, OSError) as error:
        sys.stderr.write(f"{named}: {error}\n")
        return 2
    if stopped is not None:
        sys.stderr.write(f"{named}: {stopped}\n")
        return 1
    return 0


def _run(options: argparse.Namespace) -> str | None:
    if options.master_host is not None:
        return run_for_master(options.master_host, options.master_port, stop_on_signals, options.ready_s)
    order = read_order(options.order.read_bytes())
    if options.expect_workers is None:
        return run_here(order, options.ready_s)
    order = msgspec.structs.replace(order, worker=0, workers=options.expect_workers)
    return lead(order, options.bind_host, options.master_port, ready_s=options.ready_s, grace_s=options.grace_s)


if __name__ == "__main__":
    sys.exit(main())
