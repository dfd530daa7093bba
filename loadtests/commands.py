"""`simsa loadtest`: run a plan, look at what it showed, report it, compare two runs, plan for a crowd.

Arguments in, the part that does the work called, what came of it shown. What only a run needs is imported when one
begins; Locust is imported in the workers alone.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.console import printable, wants_json
from gateway.errors import SimsaError, StartRefused
from gateway.gateway_client import GatewayDoor, GatewayUnreachable, admin_door
from gateway.registry import load_registry
from gateway.settings import Settings
from loadtests.load_words import load_in_words, planned_s, time_in_words

if TYPE_CHECKING:
    from loadtests.campaign import Step
    from loadtests.cells import Run
    from loadtests.hosts import Address
    from loadtests.outset import Wishes

loadtest_app = typer.Typer(help="Load tests: whether a serving plan is real.", no_args_is_help=True)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its directory; see `simsa loadtest list`.")]
Out = Annotated[Path | None, typer.Option(help="Write to this directory instead of the run's own.")]


@loadtest_app.command("check")
def check(plan: Annotated[Path, typer.Argument(help="The plan's YAML file.")], json: JsonFlag = False) -> None:
    """Read a plan and say what it would run; every mistake with its line. Sends nothing."""
    from loadtests.plan_file import PlanInvalid, parse_plan

    try:
        found = parse_plan(_read(plan), path=plan.name, registry=load_registry(Settings().registry))
    except PlanInvalid as error:
        _refuse_all(error.problems, error.path)
    cells: list[dict[str, Any]] = [
        {"cell": cell.id, "load": load_in_words(cell.load), "claim": cell.claim} for cell in found.cells
    ]
    searches: list[dict[str, Any]] = [
        {"search": one.id, "over": one.over, "from": one.begin, "most": one.most} for one in found.searches
    ]
    if _json(json):
        through, workers = found.target.through.value, found.workers
        told = {"name": found.name, "through": through, "workers": workers, "repeats": found.repeats}
        _print_json({**told, "planned_s": planned_s(found), "cells": cells, "searches": searches})
        return
    for entry in (*cells, *searches):
        print(", ".join(f"{name}: {value}" for name, value in entry.items() if value is not None))  # noqa: T201
    print(  # noqa: T201
        f"each {found.repeats} times, {found.target.through.value}, {found.workers} worker(s); "
        f"loads of about {time_in_words(planned_s(found))} in all"
    )


@loadtest_app.command("run")
def run(
    plan: Annotated[Path | None, typer.Argument(help="The plan's YAML file.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run instead: its id or directory.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes that send; as the plan says if not given.")
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help="Locust's page here, on loopback, while a cell runs: of the first worker, or of all hosts.",
        ),
    ] = None,
    hosts: Annotated[
        int | None, typer.Option(min=1, max=256, help="So many other hosts send, each with the plan's workers.")
    ] = None,
    listen: Annotated[str, typer.Option(help="Where they find this one: ADDRESS:PORT.")] = "127.0.0.1:5557",
    wait_s: Annotated[float, typer.Option(min=1, help="How long hosts are waited for, before each repeat.")] = 300,
    keep: Annotated[
        bool, typer.Option(help="Hand the run in to the gateway that it went through, so that it speaks to claims.")
    ] = True,
    calibrated: Annotated[
        str | None, typer.Option(metavar="RUN", help="A run of the last hour that calibrated this client.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run a plan to its verdicts. Ctrl-C stops it and keeps what was measured; --resume goes on.

    Exit code 0 when the plan ran to its end with every cell valid and no claim refuted, 1 otherwise.
    """
    from loadtests.outset import Wishes

    if (plan is None) == (resume is None):
        _refuse("expected either a plan or --resume RUN")
    settings = Settings()
    before = None if resume is None else _directory(resume, settings)
    at = _address(listen)
    wishes = Wishes(
        workers=workers,
        web_port=web_port,
        resume=before,
        calibrated=None if calibrated is None else _directory(calibrated, settings),
        hosts=hosts,
        listen=at,
        wait_s=wait_s,
    )
    found, gateway = asyncio.run(_run(plan or Path("plan.yaml"), settings, wishes, as_json=_json(json)))
    if keep and gateway is not None:
        _keep_or_say(found.id, settings, gateway)
    _show(found, as_json=_json(json), directory=_directory(found.id, settings))
    raise typer.Exit(0 if _is_well(found) else 1)


@loadtest_app.command("worker")
def worker(
    master: Annotated[str, typer.Argument(metavar="ADDRESS:PORT", help="Where `simsa loadtest run --hosts` listens.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that send, as the run says.")] = 1,
    wait_s: Annotated[float, typer.Option(min=1, help="How long the next cell is waited for.")] = 300,
) -> None:
    """Be one host of a run of several: send what the host that leads orders, until it says that the run is over.

    Keys come from this host's own environment. Ctrl-C stops what is being sent.
    """
    from loadtests.hosts import HostRefused, follow

    at = _address(master)

    async def go() -> None:
        stopping = _stopped_by_signals()
        await follow(at, workers=workers, wait_s=wait_s, stopping=stopping, say=_say_plainly)

    try:
        asyncio.run(go())
    except HostRefused as error:
        _refuse(str(error))


@loadtest_app.command("list")
def list_runs(json: JsonFlag = False) -> None:
    """The runs that are kept here, newest first."""
    from loadtests.campaign import runs_directory
    from loadtests.journal import Journal, RunUnreadable
    from loadtests.view import render_runs

    found = []
    for directory in sorted(runs_directory(Settings().data_dir).glob("lr-*"), reverse=True):
        try:
            found.append(Journal(directory).run())
        except RunUnreadable:
            continue  # begun, and nothing measured yet
    if _json(json):
        fields = ("id", "name", "state", "began_at", "ended_at", "model", "gpu", "provenance")
        _print_json([{name: getattr(one, name) for name in fields} for one in found])
    else:
        Console().print(render_runs(found))


@loadtest_app.command("show")
def show(name: RunName, json: JsonFlag = False) -> None:
    """What a run showed."""
    _show(_load(name), as_json=_json(json))


@loadtest_app.command("report")
def report(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run, or several candidates' side by side.")],
    out: Out = None,
) -> None:
    """Write a run's report: HTML in Korean and English, JSON, and tables as CSV."""
    from loadtests.written import write_report

    settings = Settings()
    directories = [_directory(name, settings) for name in names]
    for path in write_report(directories, out or directories[0] / "report"):
        print(path)  # noqa: T201


@loadtest_app.command("keep")
def keep_run(
    name: RunName,
    gateway: Annotated[
        str | None, typer.Option("--gateway", "--url", help="Its address; the settings' one if not given.")
    ] = None,
) -> None:
    """Hand a run in to a gateway, which lists it, compares it, and lets it speak to claims. Takes an operator's key."""
    settings = Settings()
    door = admin_door(settings, gateway)
    failure = _hand_in(_directory(name, settings), door)
    if failure is not None:
        _refuse(failure, code=1)
    print(f"{name} is kept at {door.address}")  # noqa: T201


@loadtest_app.command("trace")
def trace(
    model: Annotated[str, typer.Argument(help="A model's id.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    since: Annotated[datetime | None, typer.Option(formats=MOMENTS, help="From this moment (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=MOMENTS, help="Up to before this moment (UTC).")] = None,
) -> None:
    """Write when the gateway's recorded calls of a model came and how long they were, for a plan to replay."""
    from loadtests.traces import TraceRefused, trace_lines, trace_of_records

    settings = Settings()
    span = {"since": _utc(since), "until": _utc(until)}
    try:
        points = asyncio.run(trace_of_records(settings.database, settings.database_limits, model, **span))
    except TraceRefused as error:
        _refuse(str(error), code=1)
    out.write_bytes(trace_lines(points))
    print(f"{out}: {len(points):,} calls in {points[-1].at_s:,.0f} s")  # noqa: T201


@loadtest_app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="A run's id or directory.")],
    after: Annotated[str, typer.Argument(help="Another's.")],
    json: JsonFlag = False,
) -> None:
    """Two runs compared, cell by cell, with what may be said of the difference."""
    from loadtests.difference_view import render_differences
    from loadtests.differences import compare_runs

    found, refused = compare_runs(_load(before), _load(after))
    if _json(json):
        _print_json({"differences": [one._asdict() for one in found], "not_compared": [r._asdict() for r in refused]})
    else:
        Console().print(render_differences(found, refused))


@loadtest_app.command("capacity")
def capacity(
    name: RunName,
    users: Annotated[int | None, typer.Option(min=1, help="So many users at once.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or so many requests a second.")] = None,
    spares: Annotated[int, typer.Option(min=0, help="Replicas more than needed: 1 is N+1.")] = 1,
    use: Annotated[float, typer.Option(help="Share of a replica's highest load that is planned with.")] = 0.8,
    json: JsonFlag = False,
) -> None:
    """How many GPUs it takes, from what one replica was seen to hold, with every assumption."""
    from dataclasses import asdict

    from loadtests.capacity import plan_capacity, what_holds
    from loadtests.difference_view import render_capacity

    if (users is None) == (rate is None):
        _refuse("expected either --users or --rate")
    over, wanted = ("users", float(users)) if users is not None else ("rate", rate or 0.0)
    found = _load(name)
    holds = what_holds(found, over)
    if holds is None:
        kind = "closed loops (users)" if over == "users" else "open loops (rates)"
        _refuse(f"{found.id} has no valid steady cell or search over {kind} that meets its objectives", code=1)
    try:
        answer = plan_capacity(found, wanted, holds, spares=spares, use=use)
    except ValueError as error:
        _refuse(str(error))
    if _json(json):
        _print_json(asdict(answer))
    else:
        Console().print(render_capacity(answer))


# --- running ------------------------------------------------------------------------------------------------


async def _run(plan: Path, settings: Settings, wishes: Wishes, *, as_json: bool) -> tuple[Run, str | None]:
    """The run, and the address of the gateway that it went through."""
    from loadtests.calibration import CalibrationFailed
    from loadtests.doorways import TargetUnknown
    from loadtests.hosts import dismiss
    from loadtests.journal import RunUnreadable
    from loadtests.outset import OutsetRefused, prepare
    from loadtests.plan_file import PlanInvalid
    from loadtests.sighting import TargetSilent

    stopping = _stopped_by_signals()
    registry = load_registry(settings.registry)
    with _Board(as_json=as_json) as board:
        try:
            campaign = await prepare(
                plan, registry, settings, wishes, stopping=stopping, on_step=board.step, say=board.say
            )
        except PlanInvalid as error:
            _refuse_all(error.problems, error.path)
        except (OutsetRefused, TargetUnknown, TargetSilent, RunUnreadable, GatewayUnreachable, StartRefused) as error:
            _refuse(str(error))
        except CalibrationFailed as error:
            _refuse(f"the client could not be calibrated: {error}")
        except SimsaError as error:
            _refuse(error.message)
        except OSError as error:
            _refuse(f"the run cannot be kept: {error}")
        board.say(f"run {campaign.id}: {campaign.journal.directory}")
        if campaign.hosts is not None:
            board.say(campaign.hosts.words)
        found, failure = None, ""
        try:
            found = await campaign.run()
        except* OSError as errors:
            why = "; ".join(map(str, errors.exceptions))
            failure = f"{why}; what was measured is kept: mend it, then `simsa loadtest run --resume {campaign.id}`"
        if campaign.hosts is not None:
            await dismiss(campaign.hosts, campaign.journal.directory / "farewell.log")
        if found is None:
            _refuse(failure, code=1)
        return found, next((door.address for door in campaign.doors if door.door == "gateway"), None)


def _keep_or_say(run_id: str, settings: Settings, gateway: str) -> None:
    """A run that the gateway cannot take is no lost run: it lies here, and can be handed in later."""
    failure = _hand_in(_directory(run_id, settings), admin_door(settings, gateway))
    if failure is not None:
        print(f"not kept in the gateway: {failure} (`simsa loadtest keep {run_id}` tries again)", file=sys.stderr)  # noqa: T201


def _hand_in(directory: Path, door: GatewayDoor) -> str | None:
    """Why it was not taken; None where it was."""
    from loadtests.journal import Journal, RunUnreadable
    from loadtests.keeping import hand_in

    try:
        asyncio.run(hand_in(Journal(directory), door))
    except (GatewayUnreachable, RunUnreadable) as error:
        return str(error)
    except SimsaError as error:
        return error.message
    return None


def _stopped_by_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping


class _Board:
    """Where a run is: a bar on a terminal, a line a step elsewhere; always on standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = Console(stderr=True)
        self._progress = None
        if self._console.is_terminal and not as_json:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} · {task.fields[left]} left"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task("preparing", total=1, left="?")

    def __enter__(self) -> _Board:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, words: str) -> None:
        self._console.print(printable(words), markup=False, highlight=False)

    def step(self, step: Step) -> None:
        left = time_in_words(step.left_s)
        if self._progress is None:
            self.say(f"[{step.number}/{step.of}] {step.words}, {step.span_s:g} s; about {left} left")
            if step.page is not None:
                self.say(f"Locust's page meanwhile: {step.page}")
        else:
            words = escape(printable(step.words))
            if step.page is not None:
                words += f" · [link={step.page}]{step.page}[/link]"
            self._progress.update(self._task, description=words, completed=step.number - 1, total=step.of, left=left)


def _say_plainly(words: str) -> None:
    print(printable(words), file=sys.stderr, flush=True)  # noqa: T201


def _address(text: str) -> Address:
    from loadtests.hosts import parse_address

    try:
        return parse_address(text)
    except ValueError as error:
        _refuse(str(error))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _is_well(found: Run) -> bool:
    refuted = any("refuted" in one.verdict for one in found.verdicts)
    return found.state == "complete" and not refuted and all(cell.is_valid for cell in found.cells)


# --- small parts --------------------------------------------------------------------------------------------


def _show(found: Run, *, as_json: bool, directory: Path | None = None) -> None:
    from loadtests.exports import run_json
    from loadtests.view import render_run

    if as_json:
        sys.stdout.buffer.write(run_json(found) + b"\n")
        return
    console = Console()
    console.print(render_run(found))
    if directory is not None:
        console.print(f"simsa loadtest report {found.id} writes the report into {directory}", markup=False)


def _load(name: str) -> Run:
    from loadtests.journal import Journal, RunUnreadable

    try:
        return Journal(_directory(name, Settings())).run()
    except RunUnreadable as error:
        _refuse(str(error))


def _directory(name: str, settings: Settings) -> Path:
    from loadtests.campaign import runs_directory
    from loadtests.journal import PLAN

    place = Path(name) if (Path(name) / PLAN).is_file() else runs_directory(settings.data_dir) / name
    if not (place / PLAN).is_file():
        _refuse(f"there is no run {printable(name)!r}; see `simsa loadtest list`")
    return place


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _refuse(f"{path}: cannot be read: {error.strerror or error}")


def _json(asked: bool) -> bool:
    return asked or wants_json(sys.stdout)


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2) + b"\n")


def _refuse_all(problems: list[str], path: str) -> NoReturn:
    for line in problems:
        print(line, file=sys.stderr)  # noqa: T201
    _refuse(f"{path} has {len(problems)} problem(s); mend them and try again")


def _refuse(message: str, *, code: int = 2) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)
