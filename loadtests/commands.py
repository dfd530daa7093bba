"""`simsa loadtest`: run a plan, look at what it showed, report it, compare two runs, plan for a crowd.

Arguments in, the part that does the work called, what came of it shown. Running is `run_commands`' subject.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.settings import Settings
from loadtests.command_parts import JsonFlag, RunName, directory_of, is_json, load_run, print_json, refuse, show_run
from loadtests.run_commands import check, keep_run, run, worker

loadtest_app = typer.Typer(help="Load tests: whether a serving plan is real.", no_args_is_help=True)
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
Out = Annotated[Path | None, typer.Option(help="Write to this directory instead of the run's own.")]

loadtest_app.command("check")(check)
loadtest_app.command("run")(run)
loadtest_app.command("worker")(worker)
loadtest_app.command("keep")(keep_run)


@loadtest_app.command("list")
def list_runs(json: JsonFlag = False) -> None:
    """The runs that are kept here, newest first."""
    from loadtests.journal import Journal, RunUnreadable, runs_directory
    from loadtests.view import render_runs

    found = []
    for directory in sorted(runs_directory(Settings().data_dir).glob("lr-*"), reverse=True):
        try:
            found.append(Journal(directory).run())
        except RunUnreadable:
            continue  # begun, and nothing measured yet
    if is_json(json):
        fields = ("id", "name", "state", "began_at", "ended_at", "model", "gpu", "provenance")
        print_json([{name: getattr(one, name) for name in fields} for one in found])
    else:
        Console().print(render_runs(found))


@loadtest_app.command("show")
def show(name: RunName, json: JsonFlag = False) -> None:
    """What a run showed."""
    show_run(load_run(name), as_json=is_json(json))


@loadtest_app.command("report")
def report(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run, or several candidates' side by side.")],
    out: Out = None,
) -> None:
    """Write a run's report: HTML in Korean and English, JSON, and tables as CSV."""
    from loadtests.written import write_report

    settings = Settings()
    directories = [directory_of(name, settings) for name in names]
    for path in write_report(directories, out or directories[0] / "report"):
        print(path)  # noqa: T201


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
        refuse(str(error), code=1)
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

    found, refused = compare_runs(load_run(before), load_run(after))
    if is_json(json):
        print_json({"differences": [one._asdict() for one in found], "not_compared": [r._asdict() for r in refused]})
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
        refuse("expected either --users or --rate")
    over, wanted = ("users", float(users)) if users is not None else ("rate", rate or 0.0)
    found = load_run(name)
    holds = what_holds(found, over)
    if holds is None:
        kind = "closed loops (users)" if over == "users" else "open loops (rates)"
        refuse(f"{found.id} has no valid steady cell or search over {kind} that meets its objectives", code=1)
    try:
        answer = plan_capacity(found, wanted, holds, spares=spares, use=use)
    except ValueError as error:
        refuse(str(error))
    if is_json(json):
        print_json(asdict(answer))
    else:
        Console().print(render_capacity(answer))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
