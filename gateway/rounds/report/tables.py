"""The numbers behind a report's drawings, as tables: one set for the page and for spreadsheets.

A column says of what kind its values are; a page formats them in its language, a CSV has them as they are, with
intervals in two columns and the code beside the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.rounds.conclusions import Json, label_of, model_order, primary_estimate, primary_pairs
from gateway.spreadsheet import BOM, Cell, table_rows

Value = str | int | float | bool | Sequence[float] | Sequence[int] | None


class Kind(StrEnum):
    MODEL = "model"
    """A code; its name stands beside or in place of it once it is known."""
    TEXT = "text"
    WORD = "word"
    """A code of our own, which the page puts into words."""
    COUNT = "count"
    SHARE = "share"
    NUMBER = "number"
    SHARE_SPAN = "share_span"
    NUMBER_SPAN = "number_span"
    RANKS = "ranks"
    YES = "yes"
    BOUND = "bound"
    """From a least to a most, both exact."""


_SPANS = {
    Kind.SHARE_SPAN: ("low", "high"),
    Kind.NUMBER_SPAN: ("low", "high"),
    Kind.RANKS: ("best", "worst"),
    Kind.BOUND: ("low", "high"),
}


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]


def result_table(result: Json, name: str) -> Table:
    """A table of a result by its name among `TABLES`; without rows where there is nothing of the kind."""
    columns, rows = TABLES[name]
    return Table(name, columns, tuple(rows(result)))


def table_csv(result: Json, name: str) -> bytes:
    """The same for spreadsheets: UTF-8 with a byte order mark, plain numbers, a column for each end of an interval."""
    table = result_table(result, name)
    head = [key for column in table.columns for key in _heads(column)]
    rows = (
        [cell for column, value in zip(table.columns, row, strict=True) for cell in _cells(result, column, value)]
        for row in table.rows
    )
    return BOM + table_rows([head, *rows])


def _heads(column: Column) -> tuple[str, ...]:
    if column.kind is Kind.MODEL:
        return (column.key, f"{column.key}_name")
    ends = _SPANS.get(column.kind)
    return (column.key,) if ends is None else tuple(f"{column.key}_{end}" for end in ends)


def _cells(result: Json, column: Column, value: Any) -> tuple[Cell, ...]:
    if column.kind is Kind.MODEL:
        name = label_of(result, value)
        return value, name if name != value else None
    if column.kind in _SPANS:
        return (None, None) if value is None else tuple(value)
    return (str(value).lower() if isinstance(value, bool) else value,)


# --- what stands in them ------------------------------------------------------------------------------------


Rows = Iterator[tuple[Value, ...]]


def _estimate_rows(found: Json) -> Rows:
    for one in found.get("models", ()):
        ranks = None if one.get("best_rank") is None else (one["best_rank"], one["worst_rank"])
        yield (
            one["model"],
            ranks,
            one["win_rate"],
            one["win_rate_interval"],
            one["strength"],
            one["strength_interval"],
            one["rating"],
            one["rating_interval"],
            found["n"],
        )


def _standing(result: Json) -> Rows:
    return _estimate_rows(primary_estimate(result["analysis"]))


def _pairs(result: Json) -> Rows:
    for one in primary_pairs(result["analysis"]):
        yield (
            one["first"],
            one["second"],
            one["n"],
            one["points_of_first"],
            one["difference"],
            one["simultaneous_interval"],
            one["is_distinguishable"],
        )


def _line(result: Json) -> Rows:
    line = primary_estimate(result["analysis"]).get("line")
    for one in line["pairs"] if line is not None else ():
        yield one["above"], one["below"], one["difference"], one["holm_p_value"], one["is_separated"]


def _slices(found: Mapping[str, Json]) -> Rows:
    for name, estimate in found.items():
        for one in estimate.get("models", ()):
            yield name, one["model"], one["win_rate"], one["win_rate_interval"], estimate["n"]


def _acceptability(result: Json) -> Rows:
    found = result["analysis"]["acceptability"]
    for one in found.get("models", ()):
        yield one["model"], one["acceptable"], one["acceptable_interval"], one["line"], found["n"]


def _style(result: Json) -> Rows:
    found = result["analysis"]["style_controlled"]
    raw = {one["model"]: one for one in result["analysis"]["overall"].get("models", ())}
    for one in found.get("models", ()):
        before = raw.get(one["model"], {})
        yield (
            one["model"],
            before.get("win_rate"),
            before.get("win_rate_interval"),
            one["win_rate"],
            one["win_rate_interval"],
            found["n"],
        )


def _effects(result: Json) -> Rows:
    found = result["analysis"]["style_controlled"]
    for name, effect in found.get("effects", {}).items():
        yield name, effect["coefficient"], effect["interval"], found["n"]


def _position(result: Json) -> Rows:
    found = result["analysis"]["position"]
    for code in model_order(result["analysis"]) if found["is_comparable"] else ():
        yield code, found["shown_first"][code], found["shown_second"][code]


def _agreement(result: Json) -> Rows:
    analysis = result["analysis"]
    found = analysis["agreement"]
    figures = {
        "alpha": found["alpha"],
        **{f"alpha:{name}": figure for name, figure in found["alpha_by_criterion"].items()},
        "kappa": found["kappa"],
        "consistent": found["consistent"],
        "reversed": found["reversed"],
        "attention": analysis["attention"],
        "all_alike": found["all_alike"],
        **{f"halo:{'+'.join(figure['criteria'])}": figure for figure in found["halo"]},
    }
    for name, figure in figures.items():
        yield name, figure["value"], figure["interval"], figure["n"]


def _blinding(result: Json) -> Rows:
    found = result["analysis"]["blinding"]["bang"]
    for code in model_order(result["analysis"]):
        figure = found[code]
        yield code, figure["value"], figure["interval"], figure["n"]


def _reliability(result: Json) -> Rows:
    found = {one["model"]: one for one in result["analysis"]["reliability"]}
    for code in model_order(result["analysis"]):
        one = found[code]
        yield code, one["asked"], one["failed"], one["votes_put_aside"]


def _exclusions(result: Json) -> Rows:
    for one in result["analysis"]["ballots"]["excluded"]:
        yield one["rule"], one["kind"], one["items"], one["votes"], one["reviewers"]


def _places(result: Json) -> Rows:
    yield from result["analysis"]["ballots"]["places"].items()


def _design(result: Json) -> Rows:
    for check in result["analysis"]["design"]["checks"]:
        yield check["name"], check["found"], (check["low"], check["high"]), check["is_kept"]


def _columns(**kinds: Kind) -> tuple[Column, ...]:
    return tuple(Column(key, kind) for key, kind in kinds.items())


_SLICE = _columns(model=Kind.MODEL, win_rate=Kind.SHARE, win_rate_interval=Kind.SHARE_SPAN, n=Kind.COUNT)
TABLES: Mapping[str, tuple[tuple[Column, ...], Callable[[Json], Rows]]] = {
    "standing": (
        _columns(
            model=Kind.MODEL,
            rank=Kind.RANKS,
            win_rate=Kind.SHARE,
            win_rate_interval=Kind.SHARE_SPAN,
            strength=Kind.NUMBER,
            strength_interval=Kind.NUMBER_SPAN,
            rating=Kind.COUNT,
            rating_interval=Kind.NUMBER_SPAN,
            n=Kind.COUNT,
        ),
        _standing,
    ),
    "pairs": (
        _columns(
            first=Kind.MODEL,
            second=Kind.MODEL,
            n=Kind.COUNT,
            points_of_first=Kind.NUMBER,
            difference=Kind.NUMBER,
            simultaneous_interval=Kind.NUMBER_SPAN,
            is_distinguishable=Kind.YES,
        ),
        _pairs,
    ),
    "line": (
        _columns(
            above=Kind.MODEL,
            below=Kind.MODEL,
            difference=Kind.NUMBER,
            holm_p_value=Kind.NUMBER,
            is_separated=Kind.YES,
        ),
        _line,
    ),
    "criteria": (
        (Column("criterion", Kind.WORD), *_SLICE),
        lambda result: _slices(result["analysis"]["criteria"]),
    ),
    "industries": (
        (Column("industry", Kind.TEXT), *_SLICE),
        lambda result: _slices(result["analysis"]["industries"]),
    ),
    "acceptability": (
        _columns(
            model=Kind.MODEL,
            acceptable=Kind.SHARE,
            acceptable_interval=Kind.SHARE_SPAN,
            line=Kind.WORD,
            n=Kind.COUNT,
        ),
        _acceptability,
    ),
    "style": (
        _columns(
            model=Kind.MODEL,
            raw=Kind.SHARE,
            raw_interval=Kind.SHARE_SPAN,
            controlled=Kind.SHARE,
            controlled_interval=Kind.SHARE_SPAN,
            n=Kind.COUNT,
        ),
        _style,
    ),
    "effects": (
        _columns(feature=Kind.WORD, coefficient=Kind.NUMBER, interval=Kind.NUMBER_SPAN, n=Kind.COUNT),
        _effects,
    ),
    "position": (_columns(model=Kind.MODEL, shown_first=Kind.COUNT, shown_second=Kind.COUNT), _position),
    "agreement": (
        _columns(figure=Kind.WORD, value=Kind.NUMBER, interval=Kind.NUMBER_SPAN, n=Kind.COUNT),
        _agreement,
    ),
    "blinding": (
        _columns(model=Kind.MODEL, bang=Kind.NUMBER, interval=Kind.NUMBER_SPAN, n=Kind.COUNT),
        _blinding,
    ),
    "reliability": (
        _columns(model=Kind.MODEL, asked=Kind.COUNT, failed=Kind.COUNT, votes_put_aside=Kind.COUNT),
        _reliability,
    ),
    "places": (_columns(place=Kind.WORD, items=Kind.COUNT), _places),
    "exclusions": (
        _columns(rule=Kind.WORD, kind=Kind.WORD, items=Kind.COUNT, votes=Kind.COUNT, reviewers=Kind.COUNT),
        _exclusions,
    ),
    "design": (
        _columns(check=Kind.WORD, found=Kind.NUMBER, bound=Kind.BOUND, is_kept=Kind.YES),
        _design,
    ),
}
"""By name: columns, and what makes the rows of a result."""
