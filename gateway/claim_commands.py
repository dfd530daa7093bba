"""`simsa claims check`: the verdict on every claim of the registry, or on those that an assessor wrote into a file.

Nothing is asked of a gateway and nothing is stored: the registry's facts, the claims and arithmetic are enough.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console, Group
from rich.text import Text

from gateway.claim_checks import check_claims, claim_object, registry_claims
from gateway.console import Column, Figure, printable, render_table, wants_json
from gateway.domain.claims import REFUTED, CheckedClaim, ClaimVerdict
from gateway.domain.records import Registry
from gateway.registry import load_registry
from gateway.registry.claims_file import StatedClaim, parse_claims
from gateway.registry.text import did_you_mean
from gateway.settings import Settings

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
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
) -> None:
    """Answer every claim with a verdict and its reasons. Exit code 1 when one is refuted."""
    registry = load_registry(Settings().registry)
    wanted = set(about or ())
    for name in sorted(wanted):
        if name not in registry.models and name not in registry.consortia:
            hint = did_you_mean(name, [*registry.models, *registry.consortia]) or "; see `simsa registry check`"
            _refuse(f"there is no model or consortium '{printable(name)}' in the registry{hint}")
    if gpu is not None and gpu not in registry.gpus:
        hint = did_you_mean(gpu, registry.gpus) or f"; known are {', '.join(sorted(registry.gpus))}"
        _refuse(f"there is no GPU '{printable(gpu)}' in the registry{hint}")
    stated = _stated(registry, wanted, file)
    found = check_claims(stated, registry, gpu=gpu)
    if json or wants_json(sys.stdout):
        _print_json([claim_object(one, registry) for one in found])
    else:
        Console().print(render_claims(found, in_full=bool(wanted) or file is not None))
    sys.exit(1 if any(one.verdict in REFUTED for one in found) else 0)


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
    try:
        data = file.read_bytes()
    except OSError as error:
        _refuse(f"--file: {file} cannot be read: {error.strerror or type(error).__name__}")
    stated = parse_claims(data, path=str(file), registry=registry)
    return [one for one in stated if not wanted or one.about in wanted]


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
