"""A plan's YAML: what it means, and that every mistake is told with its line and what would be right."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry import load_registry
from loadtests.load_words import SEARCH_LEVELS, planned_s, repeats_in, time_in_words
from loadtests.plan import Arrivals, Closed, Open, Plan, Rate, Route, Shape, Through, Users, WorkKind
from loadtests.plan_file import PlanInvalid, parse_plan
from loadtests.presets import PRESETS

REGISTRY = load_registry(Path(__file__).parent.parent / "model_registry.yaml")
LEAST = "name: one\ntarget: {model: EXAONE-4.0-32B}\nload:\n  - {id: a, users: 4}\n"


def plan_of(text: str) -> Plan:
    return parse_plan(text.encode(), path="plan.yaml", registry=REGISTRY)


def problems_of(text: str) -> list[str]:
    with pytest.raises(PlanInvalid) as refused:
        plan_of(text)
    return refused.value.problems


def with_load(*entries: str, more: str = "") -> str:
    return f"name: one\ntarget: {{model: EXAONE-4.0-32B}}\n{more}load:\n" + "".join(f"  - {e}\n" for e in entries)


def test_the_least_plan_has_safe_defaults() -> None:
    plan = plan_of(LEAST)
    assert plan.target.through is Through.GATEWAY
    assert plan.target.route is Route.CHAT
    assert (plan.repeats, plan.workers, plan.calibrates) == (3, 1, True)
    assert plan.workload.is_pinned
    (cell,) = plan.cells
    assert cell.load == Closed((Users(4, 4, 60.0),), 0.0)
    assert (cell.warm_up_s, cell.is_steady) == (10.0, True)


def test_every_pattern_becomes_its_cells() -> None:
    plan = plan_of(
        with_load(
            "{id: steady, rate_per_s: 2.5, arrivals: constant, for_s: 30}",
            "{id: sweep, sweep: {rate_per_s: [1, 2]}}",
            "{id: crowd, sweep: {users: [1, 8]}, think_s: 2}",
            "{id: ramp, ramp: {rate_per_s: [0, 8]}, for_s: 40}",
            "{id: steps, steps: {users: [1, 2], each_s: 15}}",
            "{id: burst, burst: {base_per_s: 1, peak_per_s: 9, every_s: 10, peak_s: 2}, for_s: 25}",
            "{id: trace, trace: {records: EXAONE-4.0-32B, speed: 2}}",
            "{id: knee, search: {over: users, begin: 2, most: 64}}",
            more="preset: llama2-70b\n",
        )
    )
    loads = {cell.id: cell.load for cell in plan.cells}
    assert loads["steady"] == Open(Arrivals.CONSTANT, (Rate(2.5, 2.5, 30.0),))
    assert loads["sweep-2"] == Open(Arrivals.POISSON, (Rate(2.0, 2.0, 60.0),))
    assert loads["crowd-8"] == Closed((Users(8, 8, 60.0),), 2.0)
    assert loads["ramp"] == Open(Arrivals.POISSON, (Rate(0.0, 8.0, 40.0),))
    assert loads["steps"] == Closed((Users(1, 1, 15.0), Users(2, 2, 15.0)), 0.0)
    assert loads["burst"] == Open(
        Arrivals.POISSON,
        (Rate(1, 1, 8), Rate(9, 9, 2), Rate(1, 1, 8), Rate(9, 9, 2), Rate(1, 1, 5)),
    )
    assert loads["trace"] == Open(Arrivals.TRACE, trace="records:EXAONE-4.0-32B", speed=2.0)
    assert {cell.id for cell in plan.cells if not cell.is_steady} == {"ramp", "steps", "burst", "trace"}
    (search,) = plan.searches
    assert (search.over, search.begin, search.most, search.tolerance) == ("users", 2.0, 64.0, 0.1)
    assert plan.objectives == PRESETS["llama2-70b"]


def test_lengths_are_a_number_or_a_distribution() -> None:
    workload = plan_of(
        LEAST
        + "workload:\n  kind: multi_turn\n  input_tokens: 512\n"
        + "  output_tokens: {lognormal: {median: 200, sigma: 0.6, most: 1000}}\n"
        + "  turns: {uniform: {least: 2, most: 4}}\n"
    ).workload
    assert workload.kind is WorkKind.MULTI_TURN
    assert workload.input_tokens is not None
    assert (workload.input_tokens.shape, workload.input_tokens.least) == (Shape.FIXED, 512)
    assert workload.output_tokens is not None
    assert (workload.output_tokens.shape, workload.output_tokens.sigma) == (Shape.LOGNORMAL, 0.6)
    assert (workload.turns.least, workload.turns.most) == (2, 4)


def test_objectives_are_exact_decimals_and_name_their_statistic() -> None:
    plan = plan_of(
        LEAST
        + "objectives:\n  - {metric: ttft_s, statistic: p95, limit: 0.1}\n"
        + "  - {metric: tpot_s, statistic: attainment, limit: 0.04, attainment_percent: 99}\n"
    )
    assert plan.objectives[0].limit == Decimal("0.1")
    assert plan.objectives[1].attainment_percent == 99


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty; expected at least name, target and load"),
        ("name: [\n", "not valid YAML"),
        (
            LEAST.replace("users: 4", "users: 0"),
            "load[0] (a).users: expected a whole number of users from 1 to 100,000, got 0 (line 4)",
        ),
        (LEAST.replace("users: 4", "users: 4, rate_per_s: 1"), "expected exactly one of"),
        (
            LEAST.replace("EXAONE-4.0-32B", "EXAONE-4.0-32"),
            "there is no model 'EXAONE-4.0-32' in the registry, did you mean",
        ),
        (LEAST + "preset: llama2-70\n", "preset: there is no preset 'llama2-70', did you mean 'llama2-70b'? (line 5)"),
        (LEAST + "gpu: h100\n", "gpu: there is no GPU 'h100' in the registry, did you mean"),
        (LEAST + "claims: [nothing]\n", "claims[0]: EXAONE-4.0-32B has no claim 'nothing'"),
        (LEAST + "repeat: 3\n", "repeat: unknown field, did you mean 'repeats'? (line 5)"),
        (
            LEAST + "  - {id: a, users: 5}\n",
            "load[1] (a).id: expected an id of its own; load[0] has 'a' already (line 5)",
        ),
        (LEAST + "  - {id: k, search: {begin: 1, most: 9}}\n", "a search looks for the load that meets objectives"),
        (LEAST + "objectives: [{metric: ttft_s, statistic: p50, limit: 0}]\n", "expected a number above 0, got 0"),
        (
            LEAST + "objectives: [{metric: requests_per_s, statistic: p95, limit: 1}]\n",
            "requests_per_s has mean; got p95",
        ),
        (LEAST + "objectives: [{metric: ttft_s, statistic: attainment, limit: 1}]\n", "needs its share"),
        (
            LEAST + "workload: {input_tokens: 100, shared_prefix_tokens: 100}\n",
            "expected fewer tokens than the shortest prompt",
        ),
        (LEAST + "workload: {output_tokens: {uniform: {least: 9, most: 3}}}\n", "expected least ≤ median ≤ most"),
        (LEAST.replace("users: 4", "users: 4, for_s: 5, warm_up_s: 5"), "expected less than the load's 5 s, got 5"),
        (LEAST.replace("users: 4", "ramp: {users: [1, 2, 3]}"), "expected two levels, from and to; got 3"),
        (
            LEAST.replace("users: 4", "burst: {base_per_s: 1, peak_per_s: 2, every_s: 5, peak_s: 5}"),
            "expected less than every_s",
        ),
        (
            LEAST.replace("model: EXAONE-4.0-32B", "model: EXAONE-4.0-32B, engine: 'http://u:p@x'"),
            "without credentials",
        ),
        (
            LEAST.replace("{model: EXAONE-4.0-32B}", "{models: [EXAONE-4.0-32B], route: comparison}"),
            "two to eight different models, got 1",
        ),
        (
            LEAST.replace("{model: EXAONE-4.0-32B}", "{}"),
            "target.model: missing; expected the gateway's id of the model",
        ),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(text: str, problem: str) -> None:
    found = problems_of(text)
    assert any(problem in line for line in found), found


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems_of(LEAST.replace("users: 4", "users: none") + "repeats: 0\nseed: -1\n")
    assert [line.rsplit("(", 1)[1] for line in found] == ["line 4)", "line 5)", "line 6)"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "target", "load", "id", "users", "search", "workload"]) | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_whatever_stands_there_it_is_a_plan_or_a_list_of_problems(value: object) -> None:
    problems: list[str] | None = None
    try:
        parse_plan(yaml.safe_dump(value).encode(), path="plan.yaml", registry=REGISTRY)
    except PlanInvalid as refused:
        problems = refused.problems
    assert problems is None or problems
    assert all(line.startswith("plan.yaml") and "\n" not in line for line in problems or ())


PAGE = (Path(__file__).parent.parent / "docs" / "loadtests.md").read_text()


def test_the_plans_of_the_page_are_plans() -> None:
    whole, patterns = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    plan = plan_of(whole)
    assert [cell.id for cell in plan.cells] == ["claimed", "sweep-1", "sweep-2", "sweep-4", "ramp"]
    assert [search.id for search in plan.searches] == ["knee"]
    others = plan_of("name: one\ntarget: {model: EXAONE-4.0-32B}\n" + patterns)
    assert [cell.id for cell in others.cells] == ["stairs", "waves", "replay", "soak"]
    (first,) = re.findall(r"<<'END'\n(.*?)END\n", PAGE, re.DOTALL)
    assert plan_of(first).name == "first"


def test_how_long_a_plan_takes_counts_repeats_doors_and_a_searchs_levels() -> None:
    assert planned_s(plan_of(LEAST)) == 180
    both = LEAST.replace("{model: EXAONE-4.0-32B}", "{model: EXAONE-4.0-32B, through: both}")
    searching = both + "  - {id: k, search: {begin: 1, most: 9}, for_s: 30}\npreset: llama2-70b\n"
    assert planned_s(plan_of(searching)) == 3 * 2 * (60 + SEARCH_LEVELS * 30)
    assert repeats_in(plan_of(searching)) == 3 * 2 * (1 + SEARCH_LEVELS)
    assert [time_in_words(seconds) for seconds in (45, 720, 5400)] == ["45 s", "12 min", "1.5 h"]
