"""`simsa claims check`: the verdict on every claim of the registry, or on those that an assessor wrote into a file.

The registry's facts, the claims and arithmetic are enough; what engines showed is read from the database where there
is one, or a running gateway is asked for all of it. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console, Group
from rich.text import Text

from gateway.claim_checks import check_claims, claim_object, registry_claims, shown_by
from gateway.console import Column, Figure, printable, render_table, wants_json
from gateway.domain.claims import REFUTED, CheckedClaim, ClaimVerdict
from gateway.domain.engine_evidence import SeenEngine, speaks_to
from gateway.domain.records import Claim, Confidence, Registry, Sourced
from gateway.errors import RegistryInvalid, SimsaError, StartRefused, Unavailable
from gateway.gateway_client import GatewayUnreachable, ask_gateway, own_door
from gateway.registry import load_registry
from gateway.registry.claims_file import StatedClaim, parse_claims
from gateway.registry.text import did_you_mean, read_document
from gateway.settings import Settings
from loadtests.cells import Run
from loadtests.run_evidence import is_tested

claims_app = typer.Typer(help="What is claimed of the candidates, and what is known about it.", no_args_is_help=True)

_STYLES = {
    ClaimVerdict.HOLDS: "green",
    ClaimVerdict.PLAUSIBLE: "green",
    ClaimVerdict.NOT_MET: "yellow",
    ClaimVerdict.REFUTED_ARITHMETIC: "bold red",
    ClaimVerdict.REFUTED_MEASURED: "bold red",
}


@claims_app.callback()
def claims() -> None:
    """What is claimed of the candidates, and what is known about it."""


@claims_app.command("check")
def check(
    about: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models or consortia; all if none is given.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A YAML file of claims to check instead of the registry's.")] = None,
    gpu: Annotated[str | None, typer.Option(help="The GPU to take where a claim names none.")] = None,
    database: Annotated[
        str | None,
        typer.Option(help="The database with what engines showed; if not given, the settings' one where it exists."),
    ] = None,
    gateway: Annotated[
        str | None, typer.Option("--gateway", "--url", help="Ask the gateway at this address instead.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Answer every claim with a verdict and its reasons. Exit code 1 when one is refuted."""
    if gateway is not None:
        if database is not None:
            _refuse("--database and --gateway exclude each other: the gateway reads its own database")
        _show(_asked_of(gateway, set(about or ()), file, gpu), json=json, in_full=bool(about) or file is not None)
    settings = Settings()
    registry = load_registry(settings.registry)
    wanted = set(about or ())
    for name in sorted(wanted):
        if name not in registry.models and name not in registry.consortia:
            hint = did_you_mean(name, [*registry.models, *registry.consortia]) or "; see `simsa registry check`"
            _refuse(f"there is no model or consortium '{printable(name)}' in the registry{hint}")
    if gpu is not None and gpu not in registry.gpus:
        hint = did_you_mean(gpu, registry.gpus) or f"; known are {', '.join(sorted(registry.gpus))}"
        _refuse(f"there is no GPU '{printable(gpu)}' in the registry{hint}")
    stated = _stated(registry, wanted, file)
    shown = shown_by(*_stored_evidence(stated, registry, settings, database))
    found = check_claims(stated, registry, gpu=gpu, evidence_of=shown)
    told = [(one, claim_object(one, registry)) for one in found]
    _show(told, json=json, in_full=bool(wanted) or file is not None)


def _show(told: Sequence[tuple[CheckedClaim, dict[str, Any]]], *, json: bool, in_full: bool) -> NoReturn:
    """Print each verdict, as a table's line or as the JSON beside it, and end with the exit code."""
    if json or wants_json(sys.stdout):
        _print_json([data for _, data in told])
    else:
        Console().print(render_claims([one for one, _ in told], in_full=in_full))
    sys.exit(1 if any(one.verdict in REFUTED for one, _ in told) else 0)


def render_claims(found: Sequence[CheckedClaim], *, in_full: bool) -> Group:
    """A table with a line a claim; `in_full`: below it the reasons and the derivation of each that can be tested."""
    parts: list[Any] = [render_table(found, _COLUMNS, title="Claims and what is known about them")]
    testable = [one for one in found if one.verdict is not ClaimVerdict.NOT_TESTABLE]
    for one in testable if in_full else ():
        parts += [Text(""), *_full_lines(one)]
    return Group(*parts, Text(""), Text(_counts(found)))


def _full_lines(one: CheckedClaim) -> Iterable[Text]:
    yield Text(printable(f"{one.about} · {one.claim.id}: {one.verdict.value}"), style=_STYLES.get(one.verdict, "bold"))
    for reason in one.reasons:
        yield Text(printable(f"  {reason}"))
    for left in one.left_open:
        yield Text(printable(f"  Left open: {left}"), style="yellow")
    for line in one.derivation:
        yield Text(printable(f"    {line}"), style="dim")


def _counts(found: Sequence[CheckedClaim]) -> str:
    counted = ((verdict, sum(one.verdict is verdict for one in found)) for verdict in ClaimVerdict)
    return ", ".join(f"{count} {verdict.value}" for verdict, count in counted if count) or "there are no claims"


def _margin(one: CheckedClaim) -> Figure:
    return Figure("–" if one.margin is None else f"{one.margin:+.0%}")


_COLUMNS: tuple[Column[CheckedClaim], ...] = (
    Column("About", lambda one: Figure(one.about)),
    Column("Claim", lambda one: Figure(one.claim.text)),
    Column("Verdict", lambda one: Figure(one.verdict.value, one.reasons[0] if one.reasons else None)),
    Column("Margin", _margin, is_number=True),
    Column("Confidence", lambda one: Figure("–" if one.confidence is None else one.confidence.value)),
    Column("Source", lambda one: Figure(one.claim.sourced.source)),
)


def _stated(registry: Registry, wanted: set[str], file: Path | None) -> list[StatedClaim]:
    if file is None:
        return registry_claims(registry, about=wanted or None)
    stated = parse_claims(_read(file), path=str(file), registry=registry)
    return [one for one in stated if not wanted or one.about in wanted]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        _refuse(f"--file: {file} cannot be read: {error.strerror or type(error).__name__}")


# --- what engines showed ------------------------------------------------------------------------------------


Shown = tuple[Mapping[str, Sequence[SeenEngine]], Mapping[str, Sequence[Run]]]
"""Engines and load runs, by model."""


def _stored_evidence(
    stated: Iterable[StatedClaim], registry: Registry, settings: Settings, database: str | None
) -> Shown:
    """Of the claims' models as stored. Without --database a default that is not there says nothing."""
    models = {one.about for one in stated if speaks_to(one.claim) or is_tested(one.claim)} & registry.models.keys()
    if not models or (database is None and settings.has_no_database):
        return {}, {}
    try:
        return asyncio.run(_read_evidence(models, registry, database or settings.database, settings))
    except (StartRefused, Unavailable) as error:
        why = f"what engines and load runs showed cannot be read: {error}"
        if database is not None:
            _refuse(why)
        print(f"simsa: {why}; the verdicts are without it", file=sys.stderr)  # noqa: T201
        return {}, {}


async def _read_evidence(models: set[str], registry: Registry, database: str, settings: Settings) -> Shown:
    # Imported here, as the database costs every other command more than all the rest of its start.
    from gateway.engine_records import EngineRecords
    from gateway.engine_sightings import stored_engines
    from gateway.load_runs import LoadRuns
    from gateway.store import Store

    store = await Store.open_for_reading(database, settings.database_limits)
    try:
        engines = await stored_engines(models, registry, EngineRecords(store))
        return engines, await LoadRuns(store).findings_of({name: registry.models[name].weights.repo for name in models})
    finally:
        await store.close()


def _asked_of(
    address: str, wanted: set[str], file: Path | None, gpu: str | None
) -> list[tuple[CheckedClaim, dict[str, Any]]]:
    """The gateway's verdicts, by its own registry and with what its engines show now."""
    door = own_door(Settings(), address)
    method, path, body = "GET", "/api/claims" + (f"?{urlencode({'gpu': gpu})}" if gpu else ""), None
    if file is not None:
        method, path, body = "POST", "/api/claims", {"claims": _claims_in(file), **({"gpu": gpu} if gpu else {})}
    try:
        found: list[dict[str, Any]] = asyncio.run(ask_gateway(door, method, path, body))["data"]
    except (SimsaError, GatewayUnreachable) as error:
        _refuse(str(error))
    for name in sorted(wanted):
        if not any(name in (one["model"], one["consortium"]) for one in found):
            _refuse(f"the gateway knows no claim about '{printable(name)}'")
    chosen = [one for one in found if not wanted or not wanted.isdisjoint({one["model"], one["consortium"]})]
    return [(_as_far_as_shown(one), one) for one in chosen]


def _claims_in(file: Path) -> Any:
    document = read_document(_read(file), path=str(file))
    if problems := document.problems():
        raise RegistryInvalid(str(file), problems)
    return document.value.get("claims") if isinstance(document.value, dict) else document.value


def _as_far_as_shown(one: dict[str, Any]) -> CheckedClaim:
    """A gateway's verdict, with what the table shows of it."""
    said, level = one["claim"], one["confidence"]
    sourced = Sourced(said["source"], Confidence(said["source_confidence"]), said["note"])
    return CheckedClaim(
        claim=Claim(said["id"], said["text"], said["metric"], None, said["unit"], None, None, sourced),
        about=one["model"] or one["consortium"],
        verdict=ClaimVerdict(one["verdict"]),
        reasons=tuple(one["reasons"]),
        margin=one["margin"],
        holds_for=one["holds_for"],
        left_open=tuple(one["left_open"]),
        derivation=tuple(one["derivation"]),
        confidence=None if level is None else Confidence(level),
    )


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
