"""The whole analysis: one document from one plan, the same for the same votes, and honest about what it cannot say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from ranked_votes import CRITERIA, MODELS, connected, vote_rows, votes_of

from bench.ranking import drawn_votes
from gateway.domain.ranking.analysis import Analysis, Plan, Primary, analyse
from gateway.domain.ranking.document import as_document
from gateway.domain.ranking.estimates import Estimate
from gateway.domain.ranking.reasons import Caution, Reason
from gateway.domain.ranking.vote_rows import VoteRow
from gateway.domain.records import Provenance

REAL = dict.fromkeys(MODELS, Provenance.REAL)
WEIGHTS = {"performance": 0.4, "infrastructure": 0.35, "industry": 0.25}


def plan(**changes: object) -> Plan:
    return Plan(**{"provenance": REAL, "weights": WEIGHTS, "keep": 2, **changes})  # type: ignore[arg-type]


def written(analysis: Analysis) -> str:
    return json.dumps(as_document(analysis), ensure_ascii=False, allow_nan=False)


@settings(max_examples=40)
@given(vote_rows(most=80))
def test_any_votes_give_a_document_whose_counts_add_up(rows: list[VoteRow]) -> None:
    document = json.loads(written(analyse(votes_of(rows), plan())))
    counted = document["votes"]
    assert counted.pop("votes") == len(rows) == sum(counted.values())
    assert document["overall"]["n"] == counted["counted"]
    assert sum(pair["n"] for pair in document["pairs"]) == counted["counted"]
    assert document["overall"]["is_comparable"] == (
        document["overall"]["reason"] in (None, "too_few_clusters", "degenerate")
    )


@settings(max_examples=20)
@given(vote_rows(least=40))
def test_the_order_of_votes_does_not_change_the_document(rows: list[VoteRow]) -> None:
    assert written(analyse(votes_of(connected(rows)), plan())) == written(
        analyse(votes_of(connected(rows)[::-1]), plan())
    )


def test_a_round_says_everything_with_its_n() -> None:
    votes = drawn_votes(6000, reviewers=40, prompts=120)
    provenance = dict.fromkeys(votes.models, Provenance.REAL)
    analysis = analyse(votes, Plan(provenance=provenance, weights=WEIGHTS, keep=5))
    document = json.loads(written(analysis))
    assert document["is_ranking"]
    assert document["cautions"] == []
    overall = document["overall"]
    assert (overall["reviewers"], overall["prompts"], overall["degrees"]) == (40, 120, 39)
    strengths = [model["strength"] for model in overall["models"]]
    assert strengths == sorted(strengths, reverse=True)
    for model in overall["models"]:
        for figure in ("strength", "win_rate", "rating"):
            low, high = model[f"{figure}_interval"]
            assert low < model[figure] < high
        assert 1 <= model["best_rank"] <= model["worst_rank"] <= 10
        assert (
            model["leave_one_reviewer_out"]["lowest"] <= model["strength"] <= model["leave_one_reviewer_out"]["highest"]
        )
    assert set(document["criteria"]) == set(CRITERIA)
    assert all(document["criteria"][name]["n"] > 5000 for name in CRITERIA)
    assert document["composite"]["line"]["keep"] == 5
    assert all("line" not in found and found["is_descriptive"] for found in document["industries"].values())
    assert all("best_rank" not in model for found in document["industries"].values() for model in found["models"])
    assert document["style_controlled"]["effects"].keys() == set(votes.features)
    assert document["fragility"]["votes"]["at_most"] >= 1
    assert document["acceptability"]["tie_parameter"] > 1


def test_a_composite_is_the_weighted_sum_of_its_criteria() -> None:
    votes = drawn_votes(4000, reviewers=40, prompts=120)
    analysis = analyse(votes, Plan(provenance=dict.fromkeys(votes.models, Provenance.REAL), weights=WEIGHTS))
    assert isinstance(analysis.composite, Estimate)
    expected = sum(
        WEIGHTS[name] * found.strengths for name, found in analysis.by_criterion.items() if isinstance(found, Estimate)
    )
    assert analysis.composite.strengths == pytest.approx(expected, abs=1e-12)
    assert analysis.composite.uncertainty is not None


@pytest.mark.parametrize("kind", [kind for kind in Provenance if kind is not Provenance.REAL])
def test_one_model_whose_answers_are_not_real_makes_it_no_ranking(kind: Provenance) -> None:
    analysis = analyse(votes_of(connected([])), plan(provenance={**REAL, MODELS[2]: kind}))
    assert not analysis.is_ranking
    assert analysis.cautions[0] is Caution.NOT_REAL
    assert as_document(analysis)["plan"]["provenance"][MODELS[2]] == kind.value


def test_a_slice_that_is_not_connected_has_components_and_no_ranks() -> None:
    rows = [*connected([]), VoteRow("r1", "p1", MODELS[0], MODELS[1], "tie", industry="금융")]
    document = as_document(analyse(votes_of(rows), plan()))
    assert document["overall"]["is_comparable"]
    slice_ = document["industries"]["금융"]
    assert slice_["reason"] == Reason.NOT_CONNECTED
    assert slice_["components"] == [[MODELS[0], MODELS[1]], [MODELS[2]], [MODELS[3]]]
    assert "models" not in slice_


def test_the_result_is_the_estimate_that_was_named_beforehand() -> None:
    votes = drawn_votes(3000, reviewers=40, prompts=120)
    provenance = dict.fromkeys(votes.models, Provenance.REAL)
    raw, controlled = (analyse(votes, Plan(provenance=provenance, primary=primary)) for primary in Primary)
    assert raw.result is raw.overall
    assert controlled.result is not controlled.overall
    assert isinstance(controlled.result, Estimate)
    assert len(controlled.result.coefficients) == len(votes.features)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"provenance": {}}, "provenance: expected one for every model"),
        ({"weights": {"performance": 1.0}}, "weights: expected one for each of performance, infrastructure, industry"),
        ({"keep": 4}, "keep: expected 1 to 3 models above the line, got 4"),
        ({"confidence": 1.0}, "confidence: expected a share"),
    ],
)
def test_a_plan_that_does_not_fit_the_votes_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        analyse(votes_of(connected([])), plan(**changes))
