"""`python -m loadtests.worker CELL.json`: run one cell in this process, with Locust as a library.

The exit code is one of `endings`; where it is not 0, one line on stderr says why, and what was measured is kept. SIGINT
and SIGTERM stop sending and wait for what is under way, up to the drain's end; a second one gives that up too. Across
hosts see `distributed`.
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

from loadtests.cell_order import CellOrder, OrderRefused, read_order
from loadtests.cell_run import LEAD_S, READY_S, CellRun, Clocks
from loadtests.distributed import Missing, RunOver
from loadtests.doorways import ADMIN_KEY, OWN_KEY
from loadtests.endings import Ending
from loadtests.following import run_for_master
from loadtests.hosts import LOOPBACK, PORT
from loadtests.leading import GRACE_S, Master, dismiss, listening
from loadtests.record_file import LineFile, RecordsNotKept
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
        environment.create_web_ui(LOOPBACK, order.web_port)
        gevent.spawn(stats_history, runner)
    stop_on_signals(cell.sending)
    environment.events.test_stopping.add_listener(  # type: ignore[no-untyped-call]
        lambda **_: cell.sending.stop("stopped on Locust's page")
    )
    if cell.users:
        runner.start(cell.users, spawn_rate=cell.users)
    cell.prepare(runner, ready_s)
    zero_s = perf_counter() + LEAD_S if order.begin_s is None else order.begin_s
    stopped = cell.run(zero_s, Clocks())
    runner.quit()
    if environment.web_ui is not None:
        environment.web_ui.stop()  # type: ignore[no-untyped-call]
    return stopped


def lead(order: CellOrder, bind_host: str, port: int, *, ready_s: float, grace_s: float) -> str | None:
    """Run the cell on workers that connect; why it ended early, where it did.

    Raises OrderRefused, OSError, Missing where not all of them come, RecordsNotKept.
    """
    with listening(bind_host, port) as environment:
        master = Master(order, environment, ready_s=ready_s, grace_s=grace_s)
        if order.web_port is not None:
            environment.create_web_ui(LOOPBACK, order.web_port)
            gevent.spawn(stats_history, environment.runner)
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, master.stop, f"stopped by {number.name}")
        environment.events.test_stopping.add_listener(master.stop_from_page)  # type: ignore[no-untyped-call]
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
        default=LOOPBACK,
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
    parser.add_argument("--dismiss", type=int, help="tell so many workers, as they come, that the run is over")
    parser.add_argument(
        "--key-variable",
        action="append",
        default=[],
        help="of a worker on another host: a variable besides SIMSA_KEY and SIMSA_ADMIN_KEY that an order may name",
    )
    parser.add_argument("--cpu", type=int, help="core to stay on")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    logging.getLogger("locust").setLevel(logging.ERROR)
    raise_file_limit()
    if sum(one is not None for one in (options.order, options.master_host, options.dismiss)) != 1:
        parser.error("expected one of CELL.json, --master-host and --dismiss")
    named = options.order or f"the order of {options.master_host or options.bind_host}"
    try:
        stopped = _run(options)
    except RecordsNotKept as error:
        return _told(named, str(error), Ending.NOT_KEPT)
    except Missing as error:
        return _told(named, str(error), Ending.MISSING)
    except RunOver as error:
        return _told(named, str(error), Ending.OVER)
    except (OrderRefused, OSError) as error:
        return _told(named, str(error), Ending.REFUSED)
    return Ending.RAN if stopped is None else _told(named, stopped, Ending.EARLY)


def _told(named: str, why: str, ending: Ending) -> Ending:
    sys.stderr.write(f"{named}: {why}\n")
    return ending


def _run(options: argparse.Namespace) -> str | None:
    if options.master_host is not None:
        return run_for_master(
            options.master_host,
            options.master_port,
            stop_on_signals,
            options.ready_s,
            key_variables=(OWN_KEY, ADMIN_KEY, *options.key_variable),
        )
    if options.dismiss is not None:
        with listening(options.bind_host, options.master_port) as environment:
            dismiss(environment, options.dismiss, options.ready_s)
        return None
    order = read_order(options.order.read_bytes())
    if options.expect_workers is None:
        return run_here(order, options.ready_s)
    order = msgspec.structs.replace(order, worker=0, workers=options.expect_workers)
    return lead(order, options.bind_host, options.master_port, ready_s=options.ready_s, grace_s=options.grace_s)


if __name__ == "__main__":
    sys.exit(main())
