"""`simsa round`: blind review rounds of a running gateway, from the plan to the verified bundle.

The gateway does the work, so that a command works the same beside it and from afar; only `verify` works alone, on a
bundle and nothing else. The gateway's key is taken from SIMSA_ADMIN_KEY, or from SIMSA_KEY for a person's own.
"""

from __future__ import annotations

import asyncio
import csv
import json as json_module
import os
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.console import Column, Figure, printable, render_table, wants_json
from gateway.errors import SimsaError
from gateway.gateway_client import GatewayDoor, ask_gateway, download
from gateway.prompts import PromptsInvalid, read_prompts
from gateway.round_comment_commands import clear, comments
from gateway.round_door import PATH, ask, door, found_round, print_json, refuse
from gateway.round_verify_command import verify
from gateway.rounds.archive import MANIFEST, ArchiveUnreadable, read_manifest, unpack
from gateway.spreadsheet import BOM, table_rows

round_app = typer.Typer(help="Blind review rounds.", no_args_is_help=True)
round_app.command("verify")(verify)
round_app.command("comments")(comments)
round_app.command("clear")(clear)

LOOK_S = 0.5
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="The gateway's address.")]
RoundArgument = Annotated[str, typer.Argument(help="A round's id or name.")]


@round_app.command("create")
def create_round(
    plan: Annotated[Path, typer.Argument(help="The plan: YAML or JSON; see docs/guides/chairs.ko.md.")],
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Draft a round from a plan."""
    _show(ask("POST", PATH, _read_plan(plan), url), json)


@round_app.command("list")
def list_rounds(url: UrlOption = None, json: JsonFlag = False) -> None:
    """Show the newest rounds."""
    rows = ask("GET", f"{PATH}?limit=100", None, url)["data"]
    if json or wants_json(sys.stdout):
        print_json(rows)
    else:
        Console().print(render_table(rows, _COLUMNS))


@round_app.command("show")
def show_round(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Show how a round stands."""
    _show(found_round(name, url), json)


@round_app.command("invite")
def invite(
    name: RoundArgument,
    reviewers: Annotated[Path, typer.Argument(help="CSV with a head: label, and stratum, language where known.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the links to this CSV file: they can be read only once.")
    ] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Invite reviewers; each gets a link of their own."""
    found = found_round(name, url)
    made = ask("POST", f"{PATH}/{found['id']}/reviewers", {"reviewers": _read_reviewers(reviewers)}, url)["data"]
    if out is not None:
        _write_links(out, made)
    if json or wants_json(sys.stdout):
        print_json(made)
    elif out is not None:
        print(f"{len(made)} links written to {out}, valid until {made[0]['expires_at']}")  # noqa: T201
    else:
        Console().print(render_table(made, _LINK_COLUMNS))


@round_app.command("link")
def renew_link(
    name: RoundArgument,
    reviewer: Annotated[str, typer.Argument(help="The reviewer's pseudonym, r-…")],
    url: UrlOption = None,
) -> None:
    """Make a reviewer a new link; all older ones are void from then on."""
    found = found_round(name, url)
    print_json(ask("POST", f"{PATH}/{found['id']}/reviewers/{quote(reviewer, safe='')}/link", None, url))


@round_app.command("generate")
def generate(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Have every model answer every prompt, then redact and keep the answers. Again: goes on with what there is."""
    found = found_round(name, url)
    try:
        progress = asyncio.run(_generate(door(url), found["id"], is_drawn=not (json or wants_json(sys.stdout))))
    except SimsaError as error:
        refuse(error.message)
    except KeyboardInterrupt:
        print("simsa: the answers go on in the gateway: the same command follows them again", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    kept = progress["kept"]
    if json or wants_json(sys.stdout):
        print_json(progress)
    else:
        words = f"{kept['answers']} answers kept: {kept['redacted']} redacted, {kept['failed']} missing"
        Console().print(words)
        if progress["failures"]:
            Console().print(render_table(progress["failures"], _FAILURE_COLUMNS))
    sys.exit(1 if kept["failed"] else 0)


@round_app.command("dry-run")
def dry_run(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Rehearse a draft with made-up votes: export, import, verify. Exit code 1 where that fails."""
    shown = _step(name, "dry-run", url)
    _show(shown, json)
    sys.exit(0 if (shown["dry_run"] or {}).get("passed") else 1)


@round_app.command("seal")
def seal(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Fix everything and print the root: publish it where it cannot be changed afterwards."""
    _show(_step(name, "seal", url), json)


@round_app.command("open")
def open_round(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Let reviewers judge, also after a pause."""
    _show(_step(name, "open", url), json)


@round_app.command("pause")
def pause(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Take no votes for a while; what is saved stays."""
    _show(_step(name, "pause", url), json)


@round_app.command("close")
def close(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Take no votes any more and print the chain's head and the closing root: publish both like the root."""
    _show(_step(name, "close", url), json)


@round_app.command("reveal")
def reveal(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Approve that the names are opened: a chair and an operator do, each with their own key. 1: one is missing."""
    answer = _step(name, "reveal", url)
    _show(answer["round"], json)
    if answer["missing"]:
        print(f"simsa: still missing: the approval of {' and '.join(answer['missing'])}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


@round_app.command("archive")
def archive(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Put a revealed round away, to be read only."""
    _show(_step(name, "archive", url), json)


@round_app.command("progress")
def progress(name: RoundArgument, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Show how far the reviewers are."""
    shown = ask("GET", f"{PATH}/{found_round(name, url)['id']}/progress", None, url)
    if json or wants_json(sys.stdout):
        print_json(shown)
    else:
        Console().print(render_table(shown["reviewers"], _REVIEWER_COLUMNS))
        Console().print(render_table(shown["strata"], _STRATUM_COLUMNS))


@round_app.command("results")
def results(name: RoundArgument, url: UrlOption = None) -> None:
    """Print a closed round's result as JSON; with names once it is revealed."""
    print_json(ask("GET", f"{PATH}/{found_round(name, url)['id']}/results", None, url))


@round_app.command("export")
def export(
    name: RoundArgument,
    out: Annotated[Path, typer.Option(help="The file to write: a ZIP archive.")],
    kind: Annotated[
        str, typer.Option(help="audit (everything) or public (no identities, no free text but what was cleared).")
    ] = "audit",
    url: UrlOption = None,
) -> None:
    """Write a closed round's bundle and print its root: whoever gets the bundle can hold it against that."""
    if kind not in ("audit", "public"):
        refuse(f"--kind: expected audit or public, got '{kind}'")
    path = f"{PATH}/{found_round(name, url)['id']}/export?kind={kind}"
    try:
        asyncio.run(_download(door(url), path, out))
        root = read_manifest(unpack(out.read_bytes()).files[MANIFEST])["root"]
    except SimsaError as error:
        refuse(error.message)
    except (ArchiveUnreadable, KeyError, ValueError) as error:
        refuse(f"{out}: what the gateway sent is no bundle: {error}")
    print_json({"file": str(out), "kind": kind, "bundle_root": root})


# --- the gateway --------------------------------------------------------------------------------------------


def _step(name: str, step: str, url: str | None) -> dict[str, Any]:
    found: dict[str, Any] = ask("POST", f"{PATH}/{found_round(name, url)['id']}/{step}", None, url)
    return found


async def _generate(gateway: GatewayDoor, round_id: str, *, is_drawn: bool) -> dict[str, Any]:
    path = f"{PATH}/{round_id}/answers"
    progress: dict[str, Any] = await ask_gateway(gateway, "POST", path)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not is_drawn) as drawn:
        task = drawn.add_task("answers", total=progress["asked"]["total"])
        while not progress["is_over"]:
            asked, waits = progress["asked"], progress["waiting_for"]
            words = f"answers, waiting: {waits}" if waits else "answers"
            drawn.update(task, completed=asked["done"] + asked["failed"], description=printable(words))
            await asyncio.sleep(LOOK_S)
            progress = await ask_gateway(gateway, "GET", path)
        drawn.update(task, completed=progress["asked"]["total"])
    collected: dict[str, Any] = await ask_gateway(gateway, "POST", f"{path}/collect")
    return collected


async def _download(gateway: GatewayDoor, path: str, out: Path) -> None:
    """The whole file under its name, or what was there before."""
    beside = out.with_name(f".{out.name}.part")
    try:
        with beside.open("wb") as file:
            async for piece in download(gateway, path):
                file.write(piece)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


# --- files --------------------------------------------------------------------------------------------------


def _read_plan(path: Path) -> dict[str, Any]:
    """A plan; `prompts` may name a JSONL file beside it instead of listing them."""
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{path}: cannot be read: {error}")
    except yaml.YAMLError as error:
        refuse(f"{path}: no YAML: {' '.join(str(error).split())}")
    if not isinstance(plan, dict):
        refuse(f"{path}: expected a plan with fields such as name, title, models and design")
    if isinstance(prompts := plan.get("prompts"), str):
        plan["prompts"] = _read_prompt_file(path.parent / prompts)
    found: dict[str, Any] = json_module.loads(json_module.dumps(plan, default=str))
    return found


def _read_prompt_file(path: Path) -> list[dict[str, Any]]:
    try:
        prompts = read_prompts(path)
    except PromptsInvalid as error:
        for line in error.problems:
            print(line, file=sys.stderr)  # noqa: T201
        refuse(f"{error.path} has {len(error.problems)} problem(s); mend them and try again")
    return [
        {"id": p.id, "text": p.text, "language": p.language or "ko", "stratum": p.industry or "general"}
        for p in prompts
    ]


def _read_reviewers(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        refuse(f"{path}: cannot be read: {error}")
    if not rows or "label" not in rows[0]:
        refuse(f"{path}: expected CSV with a first line such as label,stratum,language and a line for each reviewer")
    wanted = ("label", "stratum", "language")
    return [{name: value.strip() for name in wanted if (value := row.get(name))} for row in rows]


def _write_links(path: Path, made: list[dict[str, Any]]) -> None:
    """For whoever sends the invitations; readable by its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(BOM)
        names = ("label", "stratum", "link", "expires_at", "id")
        file.write(table_rows([names, *([row[name] for name in names] for row in made)]))


# --- shown ----------------------------------------------------------------------------------------------------


def _text(name: str, title: str | None = None) -> Column[dict[str, Any]]:
    def shown(row: dict[str, Any]) -> Figure:
        return Figure(None, "not yet") if row[name] is None else Figure(str(row[name]))

    return Column(title or name.replace("_", " ").capitalize(), shown)


_COLUMNS = (
    _text("name"),
    _text("status"),
    _text("models"),
    _text("prompts"),
    _text("reviewers"),
    _text("votes", "Votes with revisions"),
    _text("provenance"),
    _text("root", "Sealed root"),
)
_LINK_COLUMNS = (_text("id"), _text("label"), _text("stratum"), _text("link"), _text("expires_at"))
_FAILURE_COLUMNS = (_text("model"), _text("code"), _text("count"))
_REVIEWER_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    _text("id"),
    _text("label"),
    _text("stratum"),
    _text("state"),
    Column("Judged", lambda row: Figure(f"{row['judged']}/{row['items']}")),
    _text("last_seen"),
    Column("Stuck", lambda row: Figure("yes" if row["is_stuck"] else "")),
)
_STRATUM_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    _text("stratum"),
    _text("reviewers"),
    _text("submitted"),
    Column("Judged", lambda row: Figure(f"{row['judged']}/{row['items']}")),
)


def _show(one: dict[str, Any], as_json: bool) -> None:
    if as_json or wants_json(sys.stdout):
        print_json(one)
        return
    Console().print(render_table([one], _COLUMNS))
    for name in ("root", "head", "closing"):
        if one.get(name) is not None:
            Console().print(f"{name}: {one[name]}", markup=False, highlight=False, soft_wrap=True)
