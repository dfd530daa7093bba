"""A plan's YAML in, the plan as frozen values out; every mistake is told at once, with its line.

What may stand in the file is `plan_schema`; here entries become cells, and what they mean together is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain.claim_terms import METRICS
from gateway.domain.records import Registry
from gateway.registry.complaints import validated
from gateway.registry.text import Document, Loc, did_you_mean, read_document, shown
from loadtests.plan import (
    RECORDS,
    Arrivals,
    Cell,
    Closed,
    Lengths,
    Load,
    Objective,
    Open,
    Plan,
    Rate,
    Route,
    Search,
    Shape,
    Target,
    Through,
    Users,
    WorkKind,
    Workload,
    exactly,
)
from loadtests.plan_schema import LengthsBlock, LoadBlock, ObjectiveBlock, PlanBlock, TargetBlock, WorkloadBlock
from loadtests.presets import PRESETS

DEFAULT_FOR_S = 60.0
MOST_WARM_UP_S = 10.0
PATTERNS = ("rate_per_s", "users", "sweep", "ramp", "steps", "burst", "trace", "search")
MOST_CELLS = 200


class PlanInvalid(Exception):
    """A plan cannot be used; `problems` has one line a mistake."""

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: {len(problems)} problem(s)\n" + "\n".join(problems))
        self.path = path
        self.problems = problems


def parse_plan(data: bytes, *, path: str, registry: Registry | None = None) -> Plan:
    """The plan in `data`. `path` only names it in complaints; names are held against `registry` where there is one.

    Raises PlanInvalid with every problem.
    """
    if not data.strip():
        raise PlanInvalid(path, [f"{path}: the file is empty; expected at least name, target and load"])
    document = read_document(data, path=path)
    block = None if document.problems() else validated(document, PlanBlock, document.value, ())
    plan = None if block is None or document.problems() else _Reader(document, registry).plan(block)
    problems = document.problems()
    if problems or plan is None:
        raise PlanInvalid(path, problems)
    return plan


@dataclass(slots=True)
class _Reader:
    document: Document
    registry: Registry | None

    def plan(self, block: PlanBlock) -> Plan:
        target = self._target(block.target)
        cells: list[Cell] = []
        searches: list[Search] = []
        for n, entry in enumerate(block.load):
            self._entry(("load", n), entry, cells, searches)
        if not block.load:
            self._complain(("load",), "expected at least one entry")
        if len(cells) > MOST_CELLS:
            self._complain(("load",), f"expected at most {MOST_CELLS} cells, got {len(cells)}")
        self._check_ids(block)
        objectives = self._objectives(block)
        if searches and not objectives:
            self._complain(("load",), "a search looks for the load that meets objectives; expected some, or a preset")
        self._check_names(block)
        return Plan(
            name=block.name,
            target=target,
            workload=self._workload(block.workload, target),
            cells=tuple(cells),
            searches=tuple(searches),
            objectives=objectives,
            preset=block.preset,
            claims=tuple(block.claims),
            gpu=block.gpu,
            gpus=block.gpus,
            repeats=block.repeats,
            seed=block.seed,
            drain_s=block.drain_s,
            timeout_s=block.timeout_s,
            workers=block.workers,
            calibrates=block.calibrate,
        )

    def _complain(self, loc: Loc, message: str) -> None:
        self.document.complain(loc, message)

    # --- target and names -----------------------------------------------------------------------------------

    def _target(self, block: TargetBlock) -> Target:
        loc: Loc = ("target",)
        route, through = Route(block.route), Through(block.through)
        models = tuple(block.models) or ((block.model,) if block.model else ())
        if not models:
            self._complain((*loc, "model"), "missing; expected the gateway's id of the model")
        if route is Route.COMPARISON and not 2 <= len(set(models)) <= 8:
            self._complain((*loc, "models"), f"a comparison asks two to eight different models, got {len(set(models))}")
        if route is not Route.COMPARISON and block.models:
            self._complain((*loc, "models"), "only a comparison asks several models; expected `model`")
        if route is Route.COMPARISON and through is not Through.GATEWAY:
            self._complain((*loc, "through"), "comparisons are the gateway's own; expected gateway")
        if through is Through.GATEWAY and block.engine is not None:
            self._complain(
                (*loc, "engine"), "requests go through the gateway only; leave it out, or say `through: both`"
            )
        return Target(
            model=models[0] if models else "",
            through=through,
            route=route,
            gateway=_without_slash(block.gateway),
            engine=_without_slash(block.engine),
            engine_model=block.engine_model,
            models=models if route is Route.COMPARISON else (),
            metrics=tuple(filter(None, map(_without_slash, block.metrics))),
        )

    def _check_names(self, block: PlanBlock) -> None:
        registry = self.registry
        if registry is None:
            return
        named = block.target.models or ([block.target.model] if block.target.model else [])
        for name in named:
            if name not in registry.models:
                hint = did_you_mean(name, registry.models)
                self._complain(("target", "model"), f"there is no model {shown(name)} in the registry{hint}")
        if block.gpu is not None and block.gpu not in registry.gpus:
            known = did_you_mean(block.gpu, registry.gpus) or f"; known are {', '.join(sorted(registry.gpus))}"
            self._complain(("gpu",), f"there is no GPU {shown(block.gpu)} in the registry{known}")
        model = registry.models.get(named[0]) if named else None
        ids = {claim.id for claim in model.claims} if model is not None else set()
        wanted: list[tuple[Loc, str]] = [(("claims", n), name) for n, name in enumerate(block.claims)]
        wanted += [(("load", n, "claim"), entry.claim) for n, entry in enumerate(block.load) if entry.claim]
        for loc, name in wanted:
            if model is not None and name not in ids:
                known = ", ".join(sorted(ids)) or "none"
                self._complain(
                    loc, f"{model.id} has no claim {shown(name)}{did_you_mean(name, ids) or f'; it has {known}'}"
                )

    # --- workload -------------------------------------------------------------------------------------------

    def _workload(self, block: WorkloadBlock, target: Target) -> Workload:
        loc: Loc = ("workload",)
        kind = WorkKind(block.kind)
        inputs = self._lengths((*loc, "input_tokens"), block.input_tokens)
        turns = self._lengths((*loc, "turns"), block.turns)
        if kind is WorkKind.MULTI_TURN and turns is None:
            turns = Lengths(Shape.UNIFORM, 3, 6, 4)
        if kind is not WorkKind.MULTI_TURN and turns is not None and turns.most > 1:
            self._complain((*loc, "turns"), "only multi_turn has several turns; expected `kind: multi_turn`")
        if block.shared_prefix_tokens and inputs is not None and block.shared_prefix_tokens >= inputs.least:
            self._complain(
                (*loc, "shared_prefix_tokens"),
                f"expected fewer tokens than the shortest prompt has ({inputs.least:,}), "
                f"got {block.shared_prefix_tokens:,}",
            )
        if target.route is Route.COMPLETIONS and kind in (WorkKind.MULTI_TURN, WorkKind.TOOLS, WorkKind.IMAGE):
            self._complain((*loc, "kind"), f"{kind.value} needs messages; expected `route: chat`")
        return Workload(
            kind=kind,
            language=block.language,
            industries=tuple(block.industries),
            input_tokens=inputs,
            output_tokens=self._lengths((*loc, "output_tokens"), block.output_tokens),
            is_pinned=block.pinned,
            max_output_tokens=block.max_output_tokens,
            shared_prefix_tokens=block.shared_prefix_tokens,
            prefix_groups=block.prefix_groups,
            turns=turns or exactly(1),
            temperature=block.temperature,
            extra=block.extra,
        )

    def _lengths(self, loc: Loc, block: LengthsBlock | None) -> Lengths | None:
        if block is None:
            return None
        if (block.uniform is None) == (block.lognormal is None):
            self._complain(loc, "expected a number, or either uniform or lognormal")
            return None
        if block.uniform is not None:
            least, most = block.uniform.least, block.uniform.most
            median, sigma = (least + most) // 2, 0.0
        else:
            assert block.lognormal is not None
            least, most = block.lognormal.least, block.lognormal.most
            median, sigma = block.lognormal.median, block.lognormal.sigma
        if not least <= median <= most:
            self._complain(loc, f"expected least ≤ median ≤ most, got {least:,}, {median:,}, {most:,}")
            return None
        if least == most:
            return exactly(least)
        return Lengths(Shape.LOGNORMAL if block.lognormal else Shape.UNIFORM, least, most, median, sigma)

    # --- load -----------------------------------------------------------------------------------------------

    def _entry(self, loc: Loc, entry: LoadBlock, cells: list[Cell], searches: list[Search]) -> None:
        given = [name for name in PATTERNS if getattr(entry, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            self._complain(loc, f"expected exactly one of {', '.join(PATTERNS)}; got {got}")
            return
        for_s = entry.for_s or DEFAULT_FOR_S
        warm_up = min(MOST_WARM_UP_S, for_s / 4) if entry.warm_up_s is None else entry.warm_up_s
        if warm_up >= for_s and entry.steps is None and entry.trace is None:
            self._complain((*loc, "warm_up_s"), f"expected less than the load's {for_s:g} s, got {warm_up:g}")
            return
        if entry.search is not None:
            self._search(loc, entry, for_s, warm_up, searches)
            return
        for name, load, is_steady in _LOADS[given[0]](self, (*loc, given[0]), entry, for_s):
            cells.append(Cell(name, load, warm_up if is_steady else 0.0, is_steady, entry.claim))

    def _search(self, loc: Loc, entry: LoadBlock, for_s: float, warm_up: float, searches: list[Search]) -> None:
        block = entry.search
        assert block is not None
        begin, most = float(block.begin), float(block.most)
        if begin > most:
            self._complain((*loc, "search", "begin"), f"expected at most `most` ({most:g}), got {begin:g}")
        if block.over == "users" and (begin < 1 or begin != int(begin) or most != int(most)):
            self._complain((*loc, "search"), f"users are whole numbers from 1, got {begin:g} and {most:g}")
        searches.append(
            Search(
                id=entry.id,
                over=block.over,
                begin=begin,
                most=most,
                arrivals=Arrivals(entry.arrivals),
                think_s=entry.think_s,
                tolerance=block.tolerance,
                for_s=for_s,
                warm_up_s=warm_up,
            )
        )

    def _levels(self, loc: Loc, rates: list[float], users: list[int], *, exactly_two: bool = False) -> bool:
        """Whether one of two lists is given, with as many levels as it takes; complains if not."""
        if bool(rates) == bool(users):
            self._complain(loc, "expected either rate_per_s or users")
            return False
        n = len(rates or users)
        if exactly_two and n != 2:
            self._complain(loc, f"expected two levels, from and to; got {n}")
            return False
        return True

    def _check_ids(self, block: PlanBlock) -> None:
        seen: dict[str, int] = {}
        for n, entry in enumerate(block.load):
            first = seen.setdefault(entry.id, n)
            if first != n:
                self._complain(("load", n, "id"), f"expected an id of its own; load[{first}] has {entry.id!r} already")

    # --- objectives -----------------------------------------------------------------------------------------

    def _objectives(self, block: PlanBlock) -> tuple[Objective, ...]:
        if block.preset is not None:
            if block.objectives:
                self._complain(("preset",), "expected either a preset or objectives, got both")
            if block.preset not in PRESETS:
                known = did_you_mean(block.preset, PRESETS) or f"; known are {', '.join(PRESETS)}"
                self._complain(("preset",), f"there is no preset {shown(block.preset)}{known}")
            return PRESETS.get(block.preset, ())
        found = [self._objective(("objectives", n), one) for n, one in enumerate(block.objectives)]
        return tuple(one for one in found if one is not None)

    def _objective(self, loc: Loc, block: ObjectiveBlock) -> Objective | None:
        known = METRICS[block.metric].statistics
        if block.statistic not in known:
            self._complain((*loc, "statistic"), f"{block.metric} has {', '.join(known)}; got {block.statistic}")
            return None
        if (block.statistic == "attainment") != (block.attainment_percent is not None):
            message = "the statistic attainment needs its share, such as attainment_percent: 99; no other has one"
            self._complain((*loc, "attainment_percent"), message)
            return None
        if block.limit <= 0:
            self._complain((*loc, "limit"), f"expected a number above 0, got {block.limit}")
            return None
        share = block.attainment_percent
        if share is not None and not 0 < share <= 100:
            self._complain((*loc, "attainment_percent"), f"expected a share above 0, up to 100; got {share}")
            return None
        return Objective(block.metric, block.statistic, Decimal(block.limit), share)


Loads = list[tuple[str, Load, bool]]
"""Id, load, and whether it is steady."""


def _steady_rate(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    assert entry.rate_per_s is not None
    return [(entry.id, _open(entry, entry.rate_per_s, entry.rate_per_s, for_s), True)]


def _steady_users(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    assert entry.users is not None
    return [(entry.id, _closed(entry, entry.users, entry.users, for_s), True)]


def _sweep(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    block = entry.sweep
    assert block is not None
    if not reader._levels(loc, block.rate_per_s, block.users):
        return []
    rates: Loads = [(f"{entry.id}-{rate:g}", _open(entry, rate, rate, for_s), True) for rate in block.rate_per_s]
    users: Loads = [(f"{entry.id}-{n}", _closed(entry, n, n, for_s), True) for n in block.users]
    if len({name for name, *_ in rates + users}) < len(rates + users):
        reader._complain(loc, "expected different levels")
    return rates + users


def _ramp(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    block = entry.ramp
    assert block is not None
    if not reader._levels(loc, block.rate_per_s, block.users, exactly_two=True):
        return []
    if block.rate_per_s:
        return [(entry.id, _open(entry, block.rate_per_s[0], block.rate_per_s[1], for_s), False)]
    return [(entry.id, _closed(entry, block.users[0], block.users[1], for_s), False)]


def _steps(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    block = entry.steps
    assert block is not None
    if not reader._levels(loc, block.rate_per_s, block.users):
        return []
    if block.rate_per_s:
        spans = tuple(Rate(rate, rate, block.each_s) for rate in block.rate_per_s)
        return [(entry.id, Open(Arrivals(entry.arrivals), spans), False)]
    return [(entry.id, Closed(tuple(Users(n, n, block.each_s) for n in block.users), entry.think_s), False)]


def _burst(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    block = entry.burst
    assert block is not None
    if block.peak_s >= block.every_s:
        reader._complain((*loc, "peak_s"), f"expected less than every_s ({block.every_s:g}), got {block.peak_s:g}")
        return []
    spans: list[Rate] = []
    left = for_s
    while left > 0:
        for rate, span in ((block.base_per_s, block.every_s - block.peak_s), (block.peak_per_s, block.peak_s)):
            if left > 0:
                spans.append(Rate(rate, rate, min(span, left)))
                left -= span
    return [(entry.id, Open(Arrivals(entry.arrivals), tuple(spans)), False)]


def _trace(reader: _Reader, loc: Loc, entry: LoadBlock, for_s: float) -> Loads:
    block = entry.trace
    assert block is not None
    if (block.file is None) == (block.records is None):
        reader._complain(loc, "expected either file or records")
        return []
    source = block.file or RECORDS + str(block.records)
    return [(entry.id, Open(Arrivals.TRACE, trace=source, speed=block.speed), False)]


_LOADS: dict[str, Callable[[_Reader, Loc, LoadBlock, float], Loads]] = {
    "rate_per_s": _steady_rate,
    "users": _steady_users,
    "sweep": _sweep,
    "ramp": _ramp,
    "steps": _steps,
    "burst": _burst,
    "trace": _trace,
}


def _open(entry: LoadBlock, begin: float, end: float, for_s: float) -> Open:
    return Open(Arrivals(entry.arrivals), (Rate(begin, end, for_s),))


def _closed(entry: LoadBlock, begin: int, end: int, for_s: float) -> Closed:
    return Closed((Users(begin, end, for_s),), entry.think_s)


def _without_slash(address: str | None) -> str | None:
    return None if address is None else address.rstrip("/")
