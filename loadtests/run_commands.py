"""`simsa loadtest check|run|worker`: from a plan to its verdicts, with a line or a bar for where it is.

What only a run needs is imported when one begins; Locust is imported in the workers alone.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.console import printable
from gateway.errors import SimsaError, StartRefused
from gateway.gateway_client import GatewayDoor, GatewayUnreachable, admin_door, own_door
from gateway.registry import load_registry
from gateway.settings import Settings
from loadtests.command_parts import (
    JsonFlag,
    RunName,
    directory_of,
    is_json,
    print_json,
    read_file,
    refuse,
    refuse_all,
    show_run,
)
from loadtests.load_words import load_in_words, planned_s, time_in_words

if TYPE_CHECKING:
    from loadtests.campaign import Step
    from loadtests.cells import Run
    from loadtests.hosts import Address
    from loadtests.outset import Wishes


def check(plan: Annotated[Path, typer.Argument(help="The plan's YAML file.")], json: JsonFlag = False) -> None:
    """Read a plan and say what it would run; every mistake with its line. Sends nothing."""
    from loadtests.plan_file import PlanInvalid, parse_plan

    try:
        found = parse_plan(read_file(plan), path=plan.name, registry=load_registry(Settings().registry))
    except PlanInvalid as error:
        refuse_all(error.problems, error.path)
    cells: list[dict[str, Any]] = [
        {"cell": cell.id, "load": load_in_words(cell.load), "claim": cell.claim} for cell in found.cells
    ]
    searches: list[dict[str, Any]] = [
        {"search": one.id, "over": one.over, "from": one.begin, "most": one.most} for one in found.searches
    ]
    if is_json(json):
        through, workers = found.target.through.value, found.workers
        told = {"name": found.name, "through": through, "workers": workers, "repeats": found.repeats}
        print_json({**told, "planned_s": planned_s(found), "cells": cells, "searches": searches})
        return
    for entry in (*cells, *searches):
        print(", ".join(f"{name}: {value}" for name, value in entry.items() if value is not None))  # noqa: T201
    print(  # noqa: T201
        f"each {found.repeats} times, {found.target.through.value}, {found.workers} worker(s); "
        f"loads of about {time_in_words(planned_s(found))} in all"
    )


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
        refuse("expected either a plan or --resume RUN")
    settings = Settings()
    before = None if resume is None else directory_of(resume, settings)
    at = _address(listen)
    wishes = Wishes(
        workers=workers,
        web_port=web_port,
        resume=before,
        calibrated=None if calibrated is None else directory_of(calibrated, settings),
        hosts=hosts,
        listen=at,
        wait_s=wait_s,
    )
    found, gateway = asyncio.run(_run(plan or Path("plan.yaml"), settings, wishes, as_json=is_json(json)))
    if keep and gateway is not None:
        _keep_or_say(found.id, settings, gateway)
    show_run(found, as_json=is_json(json), directory=directory_of(found.id, settings))
    raise typer.Exit(0 if _is_well(found) else 1)


def worker(
    master: Annotated[str, typer.Argument(metavar="ADDRESS:PORT", help="Where `simsa loadtest run --hosts` listens.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that send, as the run says.")] = 1,
    wait_s: Annotated[float, typer.Option(min=1, help="How long the next cell is waited for.")] = 300,
    key_variable: Annotated[
        list[str] | None,
        typer.Option(help="A variable besides SIMSA_KEY and SIMSA_ADMIN_KEY whose key the run may send; repeatable."),
    ] = None,
) -> None:
    """Be one host of a run of several: send what the host that leads orders, until it says that the run is over.

    Keys come from this host's own environment. Ctrl-C stops what is being sent.
    """
    from loadtests.hosts import HostRefused, follow

    at = _address(master)

    async def go() -> None:
        stopping = _stopped_by_signals()
        await follow(
            at, workers=workers, wait_s=wait_s, key_variables=key_variable or (), stopping=stopping, say=_say_plainly
        )

    try:
        asyncio.run(go())
    except HostRefused as error:
        refuse(str(error))


def keep_run(
    name: RunName,
    gateway: Annotated[
        str | None, typer.Option("--gateway", "--url", help="Its address; the settings' one if not given.")
    ] = None,
) -> None:
    """Hand a run in to a gateway, which lists it, compares it, and lets it speak to claims. Takes an operator's key."""
    settings = Settings()
    door = admin_door(settings, gateway)
    failure = _hand_in(directory_of(name, settings), door)
    if failure is not None:
        refuse(failure, code=1)
    print(f"{name} is kept at {door.address}")  # noqa: T201


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
    registry = load_registry(settings.registry, replicas_file=settings.replicas_file)
    with _Board(as_json=as_json) as board:
        try:
            campaign = await prepare(
                plan, registry, settings, wishes, stopping=stopping, on_step=board.step, say=board.say
            )
        except PlanInvalid as error:
            refuse_all(error.problems, error.path)
        except (OutsetRefused, TargetUnknown, TargetSilent, RunUnreadable, GatewayUnreachable, StartRefused) as error:
            refuse(str(error))
        except CalibrationFailed as error:
            refuse(f"the client could not be calibrated: {error}")
        except SimsaError as error:
            refuse(error.message)
        except OSError as error:
            refuse(f"the run cannot be kept: {error}")
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
            refuse(failure, code=1)
        return found, next((door.address for door in campaign.doors if door.door == "gateway"), None)


def _keep_or_say(run_id: str, settings: Settings, gateway: str) -> None:
    """A run that the gateway cannot take is no lost run: it lies here, and can be handed in later."""
    failure = _hand_in(directory_of(run_id, settings), own_door(settings, gateway))
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
        refuse(str(error))


def _is_well(found: Run) -> bool:
    refuted = any("refuted" in one.verdict for one in found.verdicts)
    return found.state == "complete" and not refuted and all(cell.is_valid for cell in found.cells)
