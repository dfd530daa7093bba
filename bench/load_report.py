"""What an hour's load run costs to work out: `python -m bench.load_report` prints seconds, and the most memory held.

The records of one repeat of an hour are written first, as a worker leaves them. Then a process of its own reads them,
works out every figure, check and curve, and writes the report in both languages: that process is what is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from gateway.domain.records import Provenance
from loadtests.agreement import check_cell
from loadtests.cell_order import FixedWork
from loadtests.cells import VERSION as RUN_VERSION
from loadtests.cells import CellSeen, Repeat, Run
from loadtests.doorways import Doorway
from loadtests.engine_view import EngineWatch
from loadtests.journal import Journal
from loadtests.measured import Context, measure, spreads_of
from loadtests.plan import Open, Plan
from loadtests.plan_file import parse_plan
from loadtests.records import VERSION, CellFooter, CellHeader, Outcome, RequestRecord
from loadtests.repeat_run import RepeatOrder, RepeatRun
from loadtests.written import write_report

HOUR_S = 3600.0
TOKENS = 100
GAP_S = 0.02
FIRST_S = 0.2
SECONDS_MOST, MIB_MOST = 20.0, 500.0
"""The targets."""


PLAN = """
name: hour
target: {{model: m, through: direct, engine: 'http://127.0.0.1:9'}}
workload: {{kind: chat, language: ko, output_tokens: {tokens}}}
load: [{{id: soak, rate_per_s: {rate}, arrivals: constant, for_s: 3600}}]
objectives:
  - {{metric: ttft_s, statistic: p95, limit: 2}}
  - {{metric: tpot_s, statistic: p95, limit: 0.05}}
  - {{metric: itl_s, statistic: p95, limit: 0.1}}
  - {{metric: output_tokens_per_s, statistic: mean, limit: 1}}
repeats: 1
"""


def plan_of(events_per_s: float) -> Plan:
    """An hour of one rate, with objectives as an assessor states them."""
    return parse_plan(PLAN.format(tokens=TOKENS, rate=events_per_s / TOKENS).encode(), path="hour.yaml")


def order_of(plan: Plan, directory: Path) -> RepeatOrder:
    doorway = Doorway("direct", "http://127.0.0.1:9", "m", None)
    return RepeatOrder(plan.cells[0], 1, doorway, "bench", 1, FixedWork({}, output_tokens=TOKENS), directory)


def write_records(path: Path, plan: Plan) -> int:
    """A worker's file: requests at equal gaps, each token an event, gaps drawn with a seed; how many events."""
    load = plan.cells[0].load
    assert isinstance(load, Open)
    requests = round(load.rates[0].begin_per_s * HOUR_S)
    rng = np.random.default_rng(1)
    began = datetime(2026, 3, 2, tzinfo=UTC).isoformat()
    with path.open("wb") as file:
        header = CellHeader(
            v=VERSION, cell="soak", repeat=1, door="direct", run_id="bench", worker=0, workers=1, seed=1, began_at=began
        )
        file.write(msgspec.json.encode(header) + b"\n")
        for number in range(requests):
            at_s = number / load.rates[0].begin_per_s
            gaps = (rng.gamma(20, GAP_S / 20, TOKENS - 1) * 1e6).astype(int).tolist()
            first = at_s + float(rng.gamma(10, FIRST_S / 10))
            last = first + sum(gaps) / 1e6
            record = RequestRecord(
                v=VERSION,
                n=number,
                item="text",
                scheduled_s=at_s,
                sent_s=at_s,
                first_s=first,
                first_output_s=first,
                last_s=last,
                ended_s=last,
                outcome=Outcome.OK,
                status=200,
                asked_output_tokens=TOKENS,
                prompt_tokens=500,
                completion_tokens=TOKENS,
                cached_tokens=0,
                usage_source="engine",
                finish_reason="length",
                token_events=TOKENS,
                first_event_tokens=1,
                first_event_source="assumed",
                gaps_us=gaps,
                characters=2 * TOKENS,
            )
            file.write(msgspec.json.encode(record) + b"\n")
        footer = CellFooter(
            v=VERSION,
            footer=True,
            ended_s=HOUR_S + 5,
            cpu_s=900.0,
            window_s=HOUR_S,
            wall_minus_monotonic_s=0.0,
            stopped=None,
        )
        file.write(msgspec.json.encode(footer) + b"\n")
    return requests * TOKENS


def work_out(directory: Path, events_per_s: float) -> None:
    """From the records to the report, as a campaign does it after a repeat and `simsa loadtest report` at the end."""
    plan = plan_of(events_per_s)
    journal = Journal(directory)
    order = order_of(plan, journal.records / "soak")
    files = journal.record_files("soak", order.name)
    watch = EngineWatch(())
    found = measure(order, RepeatRun(tuple(files), ()), Context(plan, (), 1, 1, None), watch, ["simulated"] * 2)
    journal.keep(run_with(plan, cell_with(found.repeat)), {"soak/direct": spreads_of([found.values])})
    write_report([directory], directory / "report")


def cell_with(repeat: Repeat) -> CellSeen:
    return CellSeen(
        id="soak",
        door="direct",
        load="constant",
        kind="open",
        level=repeat.rates.offered_per_s,
        is_steady=True,
        claim=None,
        repeats=[repeat],
        checks=check_cell([repeat], wanted=1),
    )


def run_with(plan: Plan, cell: CellSeen) -> Run:
    return Run(
        v=RUN_VERSION,
        id="lr-hour",
        name=plan.name,
        state="complete",
        began_at=datetime(2026, 3, 2, tzinfo=UTC).isoformat(),
        ended_at=datetime(2026, 3, 2, 1, tzinfo=UTC).isoformat(),
        plan="",
        plan_sha256="",
        workload_sha256="",
        seed=1,
        model="m",
        gpu=None,
        gpus=1,
        provenance=Provenance.SIMULATED.value,
        versions={},
        gateway={},
        engines=[],
        calibration=None,
        cells=[cell],
        searches=[],
        doors=[],
        verdicts=[],
        notes=[],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events-per-s", type=float, default=4000.0)
    parser.add_argument("--work-out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work_out is not None:
        work_out(asked.work_out, asked.events_per_s)
        return
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        journal = Journal(directory)
        journal.begin(b"")
        plan = plan_of(asked.events_per_s)
        order = order_of(plan, journal.records / "soak")
        order.directory.mkdir()
        path = order.directory / f"{order.name}-w0.jsonl"
        events = write_records(path, plan)
        print(f"{events:,} events of an hour, {path.stat().st_size / 2**20:,.0f} MiB of records")  # noqa: T201
        command = [sys.executable, "-m", "bench.load_report", "--work-out", place]
        begin = time.perf_counter()
        subprocess.run([*command, "--events-per-s", str(asked.events_per_s)], check=True)
        took = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    mib = used.ru_maxrss / 1024
    print(f"records to report: {took:.1f} s of at most {SECONDS_MOST:g} s (CPU {used.ru_utime + used.ru_stime:.1f} s)")  # noqa: T201
    print(f"most memory:       {mib:,.0f} MiB of at most {MIB_MOST:g} MiB")  # noqa: T201


if __name__ == "__main__":
    main()
