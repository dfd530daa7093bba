"""The demonstration of load tests: its plans and claims are of the shipped registry, and what it wrote keeps its word.

The demonstration itself is not run here: `make loadtest-demo` does, in about nine minutes.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from browsers import running_browser
from page_inspector import SIDEWAYS, UNFOLD

from bench.loadtest_demo import CANDIDATES, CLAIMS, EXAMPLES, GPU, Candidate, demo_registry, disappointments, gravest
from gateway.domain.claims import ClaimVerdict
from gateway.domain.records import Registry
from gateway.registry import parse_registry
from loadtests.cells import Run
from loadtests.exports import read_run
from loadtests.plan import Plan, Through
from loadtests.plan_file import parse_plan

ROOT = Path(__file__).parent.parent
SHIPPED = (ROOT / "model_registry.yaml").read_bytes()
MOST_BYTES = 1_600_000
candidates = pytest.mark.parametrize("candidate", CANDIDATES, ids=[one.name for one in CANDIDATES])


@cache
def registry() -> Registry:
    return parse_registry(demo_registry(SHIPPED, CLAIMS.read_bytes()), path="the demonstration's registry")


@cache
def plan_of(candidate: Candidate) -> Plan:
    return parse_plan(candidate.plan.read_bytes(), path=candidate.plan.name, registry=registry())


@cache
def run_of(candidate: Candidate) -> Run:
    return read_run((EXAMPLES / f"{candidate.name}.run.json").read_bytes())


@candidates
def test_a_plan_is_of_a_shipped_candidate_and_answers_every_claim_stated_of_it(candidate: Candidate) -> None:
    plan = plan_of(candidate)
    shipped = parse_registry(SHIPPED, path="model_registry.yaml")
    model = registry().models[candidate.model]
    stated = [claim for claim in model.claims if claim not in shipped.models[candidate.model].claims]
    assert (plan.target.model, plan.gpu, plan.calibrates) == (candidate.model, GPU, True)
    assert list(plan.claims) == [claim.id for claim in stated] != []
    assert all(claim.gpu == GPU and "demonstration" in claim.sourced.source for claim in stated)
    assert plan.repeats == 3


def test_the_plans_ask_the_same_of_each_and_show_the_gateways_share() -> None:
    plans = [plan_of(candidate) for candidate in CANDIDATES]
    assert len({(str(plan.workload), plan.objectives) for plan in plans}) == 1, "else nothing may be compared"
    assert plans[0].workload.language == "mixed"
    assert Through.BOTH in {plan.target.through for plan in plans}
    assert {type(cell.load).__name__ for plan in plans for cell in plan.cells} == {"Open", "Closed"}


def test_the_shipped_registry_has_none_of_the_demonstrations_claims() -> None:
    assert b"demo-" not in SHIPPED


def test_the_three_verdicts_are_those_that_the_demonstration_promises() -> None:
    assert [candidate.promised for candidate in CANDIDATES] == [
        ClaimVerdict.PLAUSIBLE,
        ClaimVerdict.NOT_MET,
        ClaimVerdict.REFUTED_ARITHMETIC,
    ]
    assert [gravest(run_of(candidate)) for candidate in CANDIDATES] == [one.promised for one in CANDIDATES]
    assert disappointments([run_of(candidate) for candidate in CANDIDATES]) == []


@candidates
def test_a_committed_run_is_of_the_committed_plan_and_simulated_throughout(candidate: Candidate) -> None:
    run = run_of(candidate)
    assert (run.state, run.provenance, run.gpu, run.model) == ("complete", "simulated", GPU, candidate.model)
    assert run.plan.encode() == candidate.plan.read_bytes(), "run `make loadtest-demo` again"
    assert {engine.provenance for engine in run.engines} == {"simulated"}
    assert all(cell.is_valid for cell in run.cells)
    assert {repeat.provenance for cell in run.cells for repeat in cell.repeats} == {"simulated"}
    assert all(cell.repeats[0].cost_per_mtok_out is not None for cell in run.cells)


def test_what_it_wrote_is_small_and_names_no_place_of_the_machine_that_made_it() -> None:
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text()), path.name


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_committed_pages_are_of_the_committed_runs(language: str) -> None:
    page = (EXAMPLES / f"report.{language}.html").read_text()
    for candidate in CANDIDATES:
        assert run_of(candidate).id in page


@pytest.mark.parametrize("language", ["ko", "en"])
async def test_the_committed_pages_fit_a_phone(language: str) -> None:
    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": 390, "height": 844})
        await page.goto((EXAMPLES / f"report.{language}.html").as_uri())
        await page.evaluate(UNFOLD)
        assert await page.evaluate(SIDEWAYS) <= 0
        assert await page.locator("h2 .stands").count() >= 8, "every section of figures says that they are simulated"
