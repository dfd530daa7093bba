"""A bundle as whoever verifies it finds it: files read back into documents, and every fault with its place.

Nothing here trusts what it reads, and nothing here decides whether a round holds: that is `verify`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain.canonical_json import read_canonical
from gateway.rounds.archive import MANIFEST
from gateway.rounds.bundle import (
    ABOUT,
    ANALYSIS,
    FINDINGS,
    FORMAT,
    LANGUAGES,
    LOCK,
    VOTES,
    BundleKind,
    report_name,
)
from gateway.rounds.closing import RECORDS
from gateway.rounds.sealed import PARTS

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError)
"""What reading a document that is not shaped as it should be raises."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not hold, and where."""

    file: str
    place: str
    """A line, an entry's number or a field; "" for the whole file."""
    message: str
    """What was expected and what was found."""

    def document(self) -> dict[str, str]:
        return {"file": self.file, "place": self.place, "message": self.message}


@dataclass(slots=True)
class BundleView:
    """What could be read. What could not is in `faults`, and absent from everything else."""

    files: Mapping[str, bytes]
    about: Mapping[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    records: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """By kind: answers, exclusions, access, reviewers, votes."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_revealed(self) -> bool:
        return bool(self.about["is_revealed"])

    def has(self, *names: str) -> bool:
        """Whether all of these could be read: parts by their names, records as name.jsonl."""
        known = {*self.parts, *(f"{name}.jsonl" for name in self.records)}
        return known.issuperset(names)


def read_bundle(files: Mapping[str, bytes]) -> BundleView:
    view = BundleView(files)
    about = _document(view, ABOUT)
    if isinstance(about, Mapping) and about.get("format") == FORMAT:
        view.about = about
    elif about is not None:
        view.faults.append(Fault(ABOUT, "format", f"expected an object of the format {FORMAT}"))
    for name in PARTS:
        if f"parts/{name}.json" in files:
            part = _document(view, f"parts/{name}.json")
            if part is not None:
                view.parts[name] = part
    for name in (*RECORDS, VOTES):
        lines = _read_lines(view, f"{name}.jsonl")
        if lines is not None:
            view.records[name] = lines
    return view


def stray_faults(view: BundleView) -> list[Fault]:
    """Files that no bundle of this kind has: nobody checks what they say."""
    known = {
        *(MANIFEST, ABOUT, LOCK, ANALYSIS, "design.csv", "votes.csv"),
        *(f"parts/{name}.json" for name in PARTS),
        *(f"{name}.jsonl" for name in (*RECORDS, VOTES)),
        *map(report_name, LANGUAGES),
    }
    faults = []
    if view.about.get("bundle") == BundleKind.PUBLIC.value:
        known.add(FINDINGS)
        if FINDINGS not in view.files:
            faults.append(Fault(FINDINGS, "", "expected this file, found none"))
    return faults + [
        Fault(name, "", "a bundle of this kind has no such file") for name in sorted(set(view.files) - known)
    ]


def listed(faults: Iterable[Fault], most: int = 100) -> list[Fault]:
    """Faults, and a word on how many more there are where they are very many."""
    found = list(faults)
    if len(found) <= most:
        return found
    return [*found[:most], Fault(found[most].file, "", f"and {len(found) - most} more of this kind")]


def difference(expected: Any, found: Any, place: str = "") -> str | None:
    """The first place where two documents differ, in words."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if set(expected) != set(found):
            odd = sorted(set(expected) ^ set(found))[0]
            return f"{_at(place)}field {odd!r} stands in one of the two only"
        each = ((expected[name], found[name], f"{place}.{name}") for name in expected)
    elif _is_list(expected) and _is_list(found):
        if len(expected) != len(found):
            return f"{_at(place)}expected {len(expected)} entries, found {len(found)}"
        each = ((one, other, f"{place}[{at}]") for at, (one, other) in enumerate(zip(expected, found, strict=True)))
    else:
        return None if _alike(expected, found) else f"{_at(place)}expected {_short(expected)}, found {_short(found)}"
    return next((words for one, other, deeper in each if (words := difference(one, other, deeper))), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


_TOLERANCE = 1e-6
"""Relative: processors differ in a figure's last digits, nobody's rank hangs on them."""


def _alike(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) or isinstance(found, float):
        if isinstance(expected, int | float) and isinstance(found, int | float):
            return abs(expected - found) <= _TOLERANCE * max(1.0, abs(expected))
        return False
    return type(expected) is type(found) and bool(expected == found)


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:77]}…"


def _at(place: str) -> str:
    return f"{place.lstrip('.')}: " if place else ""


def _document(view: BundleView, name: str) -> Any:
    """The document of a file; None, with a fault, for one that is not there or not canonical."""
    content = view.files.get(name)
    if content is None:
        view.faults.append(Fault(name, "", "expected this file, found none"))
        return None
    try:
        return read_canonical(content)
    except MALFORMED as error:
        view.faults.append(Fault(name, "", f"cannot be read: {error}"))
        return None


def _read_lines(view: BundleView, name: str) -> list[Mapping[str, Any]] | None:
    """The lines that are documents. One that is none leaves the file unread, for all others would move up."""
    content = view.files.get(name)
    if content is None:
        view.faults.append(Fault(name, "", "expected this file, found none"))
        return None
    before = len(view.faults)
    *lines, rest = content.split(b"\n")
    if rest:
        view.faults.append(Fault(name, f"line {len(lines) + 1}", "the last line has no end"))
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            one = read_canonical(line)
        except MALFORMED as error:
            view.faults.append(Fault(name, f"line {number}", f"cannot be read: {error}"))
            continue
        if isinstance(one, Mapping):
            found.append(one)
        else:
            view.faults.append(Fault(name, f"line {number}", "expected an object"))
    return found if len(view.faults) == before else None
