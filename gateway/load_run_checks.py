"""What the gateway takes of a load run that is handed in, and what its own records say of it.

A run comes whole from whoever measured it. What the gateway can check of it, it checks then: requests that a run counts
as answered through the gateway must stand in the gateway's records, of the run's model and with its provenance. Only
such cells speak to claims here; what went past the gateway it cannot bear out. Storing runs is `load_runs`' part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

import msgspec

from gateway.domain.records import Provenance
from loadtests.cells import VERSION, CellSeen, Check, Repeat, Run, common_provenance
from loadtests.records import Outcome
from loadtests.report import Distribution, distributions_of

Spreads = dict[str, dict[str, tuple[float, ...]]]
"""By "cell/door" and metric: the quantiles 0 to 100 %, for drawing."""
CHECK = "gateway_records"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DOORS = ("gateway", "direct")
CLOCKS_APART = timedelta(minutes=5)
_ENDED = ("complete", "stopped", "failed")


class Document(msgspec.Struct, frozen=True):
    """A run whole, as it was handed in."""

    run: Run
    spreads: Spreads = {}

    @property
    def distributions(self) -> list[Distribution]:
        return distributions_of(self.run, self.spreads)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What a list tells of a run; the rest is in its document."""

    id: str
    sha256: str
    """Of the run as JSON, which is the file `run.json` of its report."""
    name: str
    state: str
    model: str
    provenance: str
    gpu: str | None
    gpus: int | None
    began_at: datetime
    ended_at: datetime | None
    kept_at: datetime
    kept_by: str | None
    """The key that handed it in; None for the admin key."""
    organisation: str | None
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_why: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedCalls:
    """Calls of one run and provenance in the gateway's records."""

    provenance: str | None
    n: int
    ok: int


def why_not_kept(document: Document, now: datetime) -> str | None:
    """What is wrong with a run that is handed in; None where nothing is."""
    run = document.run
    repeats = [(cell, repeat) for cell in run.cells for repeat in cell.repeats]
    if run.v != VERSION:
        return f"it is of version {run.v}, and this Simsa keeps version {VERSION}"
    if not _ID.fullmatch(run.id):
        return "its id must be of letters, digits, '-', '_' and '.', 64 at most"
    if run.state not in _ENDED:
        return f"its state is '{run.state[:32]}': only one that has ended is kept"
    if any(cell.door not in DOORS or repeat.door != cell.door for cell, repeat in repeats):
        return f"a cell's door must be one of {', '.join(DOORS)}, and that of its repeats"
    ids = [repeat.run_id for _, repeat in repeats]
    if len(set(ids)) < len(ids) or not all(name.startswith(f"{run.id}.") for name in ids):
        return f"the run ids of its repeats must begin with '{run.id}.' and differ"
    if run.provenance != common_provenance(run.cells, run.provenance):
        return f"its provenance is '{run.provenance[:32]}', its repeats' another"
    try:
        moments = [run.began_at, *filter(None, (run.ended_at, *(one.began_at for _, one in repeats)))]
        read = [datetime.fromisoformat(moment) for moment in moments]
        if any(moment.tzinfo is None for moment in read):
            return "its moments need their offset, e.g. 2026-11-28T09:00:00+00:00"
        if any(moment > now + CLOCKS_APART for moment in read):
            return "it lies in the future by the gateway's clock"
        for _, repeat in repeats:
            Provenance(repeat.provenance)
            _read_amounts(repeat)
        distributions_of(run, document.spreads)
    except ValueError as error:
        return str(error)
    return None


def _read_amounts(repeat: Repeat) -> None:
    """Raises ValueError for text that is no number."""
    texts = [repeat.cost_per_mtok_out, *(one.limit for one in (*repeat.objectives, *repeat.claimed.values()))]
    for text in filter(None, texts):
        try:
            is_number = Decimal(text).is_finite()
        except InvalidOperation:
            is_number = False
        if not is_number:
            raise ValueError(f"'{text[:32]}' is no number")


def run_ids_through_gateway(run: Run) -> list[str]:
    """Under which the gateway recorded the repeats that went through it."""
    return [repeat.run_id for cell in run.cells if cell.door == "gateway" for repeat in cell.repeats]


def checked(run: Run, recorded: Mapping[str, Sequence[RecordedCalls]]) -> Run:
    """A run without timelines, each repeat through the gateway with one more check: whether the records agree.

    A repeat that the records do not bear out is invalid here, and settles nothing.
    """
    cells = [
        msgspec.structs.replace(cell, repeats=[_checked(cell, repeat, recorded) for repeat in cell.repeats])
        for cell in run.cells
    ]
    return msgspec.structs.replace(run, cells=cells)


def _checked(cell: CellSeen, repeat: Repeat, recorded: Mapping[str, Sequence[RecordedCalls]]) -> Repeat:
    checks = [one for one in repeat.checks if one.name != CHECK]
    if cell.door == "gateway":
        checks.append(_records_agree(repeat, recorded.get(repeat.run_id, ())))
    return msgspec.structs.replace(repeat, timeline=[], checks=checks)


def _records_agree(repeat: Repeat, recorded: Sequence[RecordedCalls]) -> Check:
    """Calls of the warm-up stand in the records too, so there may be more than the window's answers, never fewer."""
    answered = repeat.outcomes.get(Outcome.OK, 0)
    alike = sum(one.ok for one in recorded if one.provenance == repeat.provenance)
    others = {one.provenance or "unknown": one.n for one in recorded if one.provenance != repeat.provenance and one.ok}
    seen = f"{alike} answered calls of this repeat are recorded as {repeat.provenance}"
    if others:
        seen += "".join(f", {n} as {name}" for name, n in sorted(others.items()))
    return Check(
        name=CHECK,
        passed=0 < answered <= alike and not others,
        limit=f"each of {answered} answered requests in the gateway's records, with the run's provenance",
        seen=seen,
    )


def borne_out(findings: Run) -> int:
    """How many repeats the records agree with."""
    repeats = (repeat for cell in findings.cells for repeat in cell.repeats)
    return sum(one.name == CHECK and one.passed is True for repeat in repeats for one in repeat.checks)


def for_claims(findings: Run, todays_weights: str | None) -> Run:
    """What may speak to claims: cells through the gateway, which its records bear out or not.

    `todays_weights`: the repository that the registry names by now; what others showed settles nothing of them.
    """
    cells = [cell for cell in findings.cells if cell.door == "gateway"]
    if findings.weights_repo is not None and todays_weights not in (None, findings.weights_repo):
        other = Check(
            name="weights",
            passed=False,
            limit="the weights that the registry names",
            seen=f"it served {findings.weights_repo}, and the registry names {todays_weights} by now",
        )
        cells = [msgspec.structs.replace(cell, checks=[*cell.checks, other]) for cell in cells]
    return msgspec.structs.replace(findings, cells=cells)


def as_checked(document: Document, findings: Run, kept: KeptRun) -> Document:
    """The document to be shown: with what the gateway found of each repeat, and whether it was withdrawn.

    Its verdicts are left out: those of `GET /api/claims` are the gateway's own.
    """
    checks = {repeat.run_id: repeat.checks for cell in findings.cells for repeat in cell.repeats}
    cells = [
        msgspec.structs.replace(
            cell, repeats=[msgspec.structs.replace(one, checks=checks[one.run_id]) for one in cell.repeats]
        )
        for cell in document.run.cells
    ]
    notes = [*document.run.notes]
    if kept.withdrawn_at is not None:
        notes.insert(0, f"Withdrawn {kept.withdrawn_at:%Y-%m-%d %H:%M} UTC: {kept.withdrawn_why}")
    run = msgspec.structs.replace(document.run, cells=cells, notes=notes, verdicts=[])
    return msgspec.structs.replace(document, run=run)


def span_of(run: Run) -> tuple[datetime, datetime] | None:
    """From the first repeat's second 0 to the last moment of the last one's load; None where there is no repeat."""
    repeats = [repeat for cell in run.cells for repeat in cell.repeats if repeat.began_at]
    if not repeats:
        return None
    spans = [(datetime.fromisoformat(one.began_at), one.load_s or one.rates.window_s) for one in repeats]
    return min(begin for begin, _ in spans), max(begin + timedelta(seconds=load_s) for begin, load_s in spans)
