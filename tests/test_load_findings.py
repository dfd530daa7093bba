"""What a run says in the end: verdicts on claims, differences between runs, GPUs for a crowd, the gateway's share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_records import cell_with, repeat_with
from load_runs import made_run

from gateway.domain.engine_facts import EngineGlance
from gateway.domain.records import Claim, Confidence, Sourced
from gateway.registry import load_registry
from loadtests.capacity import Holds, plan_capacity, what_holds
from loadtests.cells import CellSeen, Check, Run, SearchSeen
from loadtests.differences import compare_runs, ratio_interval
from loadtests.doors import door_shares
from loadtests.engine_view import Reading, join_timeline, restarts_in, restarts_of_each, window_of
from loadtests.figures import Window
from loadtests.run_evidence import claimed_objective, evidence_for, evidence_of, verdicts, why_invalid

REGISTRY = load_registry(Path(__file__).parent.parent / "model_registry.yaml")
MODEL = REGISTRY.models["EXAONE-4.0-32B"]
CLAIM = Claim(
    id="ttft",
    text="first token within 2 s",
    metric="ttft_s",
    value=Decimal(2),
    unit="s",
    gpu="h100-sxm",
    gpus=1,
    sourced=Sourced("stated", Confidence.LOW),
    statistic="p95",
    concurrency=40,
    context_tokens=150,
    input_tokens=100,
    output_tokens=50,
)


def replace_in(one: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(one, **changes)


def verdict_on(claim: Claim, cells: Sequence[CellSeen]) -> str:
    evidence = evidence_for(
        claim, cells, run_id="r", gpu="h100-sxm", gpus=1, weights=None, kv_dtype=None, timeout_s=600.0
    )
    (found,) = verdicts(MODEL, REGISTRY, [claim], {claim.id: evidence}, gpu="h100-sxm")
    return found.verdict


def three(ttft_s: float = 0.2, **over: Any) -> CellSeen:
    return cell_with([repeat_with(n, ttft_s, **over) for n in (1, 2, 3)])


def test_a_claim_holds_when_every_repeat_of_a_valid_real_cell_meets_it() -> None:
    assert verdict_on(CLAIM, [three()]) == "holds"


def test_a_claim_that_every_repeat_misses_is_refuted_by_measurement() -> None:
    assert verdict_on(CLAIM, [three(2.5)]) == "refuted (measured)"


def test_what_a_claim_leaves_open_is_not_held_against_it() -> None:
    vague = replace(CLAIM, input_tokens=None, output_tokens=None, context_tokens=None)
    assert verdict_on(vague, [three(2.5)]) == "open"


def test_simulated_cells_make_it_plausible_at_best() -> None:
    assert verdict_on(CLAIM, [three(provenance="simulated")]) == "plausible (simulated)"
    assert verdict_on(CLAIM, [three(2.5, provenance="simulated")]) == "not met (simulated)"


def test_an_invalid_cell_settles_nothing() -> None:
    hot = Check(name="client_cpu", passed=False, limit="each worker under 60% of one core", seen="the busiest took 80%")
    cell = cell_with([repeat_with(n, 2.5, checks=[hot]) for n in (1, 2, 3)])
    assert why_invalid(cell) == "; ".join(f"repeat {n} client_cpu: the busiest took 80%" for n in (1, 2, 3))
    assert verdict_on(CLAIM, [cell]) not in ("holds", "refuted (measured)")


@pytest.mark.parametrize("over", [{"level": 20.0}, {"kind": "open", "level": 40.0}, {"is_steady": False}])
def test_a_cell_of_another_load_does_not_speak_to_the_claim(over: dict[str, Any]) -> None:
    other = cell_with([repeat_with(n, 2.5) for n in (1, 2, 3)], **over)
    assert verdict_on(CLAIM, [other]) not in ("holds", "refuted (measured)")


def test_a_cell_made_for_a_claim_speaks_to_it_alone() -> None:
    own, other = three(), cell_with([repeat_with(n, 2.5) for n in (1, 2, 3)], id="d")
    assert verdict_on(CLAIM, [cell_with(own.repeats, claim="ttft"), other]) == "holds"


def test_requests_that_failed_count_as_never_answered() -> None:
    def endless(number: int) -> Any:
        one = repeat_with(number)
        seen = one.claimed["ttft"]
        missed = type(seen)(
            **{name: getattr(seen, name) for name in seen.__struct_fields__ if name not in ("value", "met", "why")},
            value=None,
            met=False,
            why="20 of 90 requests failed",
        )
        return repeat_with(number, claimed={"ttft": missed})

    assert verdict_on(CLAIM, [cell_with([endless(n) for n in (1, 2, 3)])]) == "refuted (measured)"


def test_a_failure_never_makes_a_latency_claim_hold_however_short_the_plans_patience() -> None:
    slow = replace(CLAIM, value=Decimal(60))
    missed = replace_in(repeat_with(1).claimed["ttft"], value=None, met=False, limit="60", why="20 of 90 failed")
    cell = cell_with([repeat_with(n, claimed={"ttft": missed}) for n in (1, 2, 3)])
    evidence = evidence_for(
        slow, [cell], run_id="r", gpu="h100-sxm", gpus=1, weights=None, kv_dtype=None, timeout_s=30.0
    )
    (found,) = verdicts(MODEL, REGISTRY, [slow], {"ttft": evidence}, gpu="h100-sxm")
    assert found.verdict == "refuted (measured)"


def test_what_was_measured_for_another_claim_of_the_same_name_speaks_to_none() -> None:
    cells = [three()]
    assert verdict_on(replace(CLAIM, statistic="p50"), cells) not in ("holds", "refuted (measured)")
    assert verdict_on(replace(CLAIM, metric="tpot_s"), cells) not in ("holds", "refuted (measured)")
    assert verdict_on(replace(CLAIM, value=Decimal("0.1")), cells) == "refuted (measured)", "the figure is the same"


@pytest.mark.parametrize(("weights", "says"), [("bf16", "holds"), ("fp8", "open"), (None, "open")])
def test_a_claim_about_a_number_format_is_held_against_the_weights_that_were_served(
    weights: str | None, says: str
) -> None:
    run, _ = made_run(is_small=True)
    run = replace_in(run, cells=[three()], gpu="h100-sxm", gpus=1, weights=weights)
    claim = replace(CLAIM, quantisation="bf16")
    (found,) = verdicts(MODEL, REGISTRY, [claim], {"ttft": evidence_of(run, claim)}, gpu="h100-sxm")
    assert found.verdict == says


def test_a_mean_beside_failures_is_the_survivors_and_never_meets_a_claim() -> None:
    claim = replace(CLAIM, statistic="mean")
    seen = replace_in(
        repeat_with(1).claimed["ttft"],
        statistic="mean",
        value=0.3,
        met=False,
        why="20 requests failed and are not in it",
    )
    cell = cell_with([repeat_with(n, claimed={"ttft": seen}) for n in (1, 2, 3)])
    assert verdict_on(claim, [cell]) == "refuted (measured)"


def test_a_percentile_without_end_meets_no_claim_however_it_is_stated_later() -> None:
    missed = replace_in(repeat_with(1).claimed["ttft"], value=None, met=False, limit="5", why="20 of 90 failed")
    cell = cell_with([repeat_with(n, claimed={"ttft": missed}) for n in (1, 2, 3)])
    (found,) = evidence_for(
        replace(CLAIM, value=Decimal(30)),
        [cell],
        run_id="r",
        gpu="h100-sxm",
        gpus=1,
        weights=None,
        kv_dtype=None,
        timeout_s=20.0,
    )
    assert found.values == (Decimal(60),) * 3


@pytest.mark.parametrize(("currency", "n"), [("USD", 3), ("KRW", 0)])
def test_a_price_is_compared_in_its_own_currency(currency: str, n: int) -> None:
    claim = replace(CLAIM, metric="price_per_mtok_out", statistic=None, value=Decimal(2000), unit="USD")
    cell = cell_with([repeat_with(n, cost_per_mtok_out="1.5", currency=currency) for n in (1, 2, 3)])
    (found,) = evidence_for(
        claim, [cell], run_id="r", gpu="h100-sxm", gpus=1, weights=None, kv_dtype=None, timeout_s=600.0
    )
    assert len(found.values) == n


def test_fewer_than_three_repeats_of_a_cell_settle_no_claim() -> None:
    early = cell_with([repeat_with(1, 2.5)], checks=[])
    assert early.is_valid
    assert verdict_on(CLAIM, [early]) not in ("holds", "refuted (measured)")


def test_users_who_think_are_no_concurrency() -> None:
    assert verdict_on(CLAIM, [cell_with(three().repeats, think_s=120.0)]) not in ("holds", "refuted (measured)")


def test_an_unknown_number_of_gpus_speaks_to_no_claim() -> None:
    evidence = evidence_for(
        CLAIM, [three()], run_id="r", gpu="h100-sxm", gpus=None, weights=None, kv_dtype=None, timeout_s=600.0
    )
    (found,) = verdicts(MODEL, REGISTRY, [CLAIM], {"ttft": evidence}, gpu="h100-sxm")
    assert found.verdict not in ("holds", "refuted (measured)")


def test_an_overloaded_cell_speaks_against_a_claim_only() -> None:
    assert verdict_on(CLAIM, [three(is_overloaded=True)]) != "holds"
    assert verdict_on(CLAIM, [three(2.5, is_overloaded=True)]) == "refuted (measured)"


def test_claims_that_no_run_can_test_are_none_of_its_business() -> None:
    assert claimed_objective(replace(CLAIM, metric="params")) is None
    assert claimed_objective(replace(CLAIM, metric="rank")) is None
    found = claimed_objective(replace(CLAIM, metric="output_tokens_per_s", statistic=None))
    assert found is not None
    assert found.statistic == "mean"


# --- two runs -----------------------------------------------------------------------------------------------


def run_with(cells: Sequence[CellSeen], **over: Any) -> Run:
    fields: dict[str, Any] = {
        "v": 1,
        "id": "r",
        "name": "one",
        "state": "complete",
        "began_at": "2026-11-28T00:00:00Z",
        "ended_at": "2026-11-28T01:00:00Z",
        "plan": "",
        "plan_sha256": "p",
        "workload_sha256": "w" * 64,
        "seed": 1,
        "model": "EXAONE-4.0-32B",
        "gpu": "h100-sxm",
        "gpus": 2,
        "replicas": 1,
        "provenance": "real",
        "versions": {},
        "gateway": {},
        "engines": [],
        "calibration": None,
        "cells": list(cells),
        "searches": [],
        "doors": [],
        "verdicts": [],
        "notes": [],
    }
    return Run(**fields | over)


def spread_out(*ttfts: float) -> CellSeen:
    return cell_with([repeat_with(n, ttft) for n, ttft in enumerate(ttfts, start=1)])


def test_a_clear_difference_is_said_and_a_small_one_is_not() -> None:
    found, refused = compare_runs(run_with([spread_out(0.20, 0.21, 0.19)]), run_with([spread_out(0.30, 0.31, 0.29)]))
    by_metric = {one.metric: one for one in found}
    assert refused == []
    assert by_metric["ttft_p50_s"].says == "higher"
    assert by_metric["ttft_p50_s"].ratio == pytest.approx(1.5, rel=0.02)
    assert by_metric["tpot_p50_s"].says == "not_distinguishable"
    assert "cost_per_mtok_out" not in by_metric


def test_one_repeat_a_side_gives_a_ratio_and_no_statement() -> None:
    found, _ = compare_runs(run_with([spread_out(0.2)]), run_with([spread_out(0.4)]))
    assert {(one.says, one.low) for one in found} == {("too_few_repeats", None)}


@pytest.mark.parametrize(
    ("over", "why"),
    [({"workload_sha256": "x" * 64}, "workloads differ"), ({"provenance": "simulated"}, "do not compare")],
)
def test_runs_that_do_not_compare_say_why(over: dict[str, Any], why: str) -> None:
    found, refused = compare_runs(run_with([three()]), run_with([three()], **over))
    assert found == []
    assert why in refused[0].why


def test_a_figure_that_falls_to_nothing_is_told() -> None:
    def with_goodput(value: float) -> CellSeen:
        repeats = [repeat_with(n, rates=replace_in(repeat_with(n).rates, goodput_per_s=value)) for n in (1, 2, 3)]
        return cell_with(repeats)

    found, _ = compare_runs(run_with([with_goodput(10.0)]), run_with([with_goodput(0.0)]))
    assert {one.metric: one.says for one in found}["goodput_per_s"] == "fell_to_0"


def test_other_gpus_money_and_objectives_are_not_compared() -> None:
    found, refused = compare_runs(run_with([three()]), run_with([three()], gpus=8))
    assert (found, refused[0].why) == ([], "one ran on 2 × h100-sxm, the other on 8 × h100-sxm")
    won = three(cost_per_mtok_out="1400", currency="KRW")
    dollars = three(cost_per_mtok_out="1", currency="USD")
    assert "cost_per_mtok_out" not in {one.metric for one in compare_runs(run_with([won]), run_with([dollars]))[0]}
    strict = cell_with([repeat_with(n, limit="0.1") for n in (1, 2, 3)])
    assert "attainment_percent" not in {one.metric for one in compare_runs(run_with([three()]), run_with([strict]))[0]}


def test_cells_that_only_one_run_has_are_named() -> None:
    _, refused = compare_runs(run_with([three()]), run_with([cell_with(three().repeats, id="d")]))
    assert {(one.cell, one.why) for one in refused} == {
        ("c", "only the first run has it"),
        ("d", "only the second run has it"),
    }


def test_the_interval_of_a_ratio_covers_it() -> None:
    draws = np.random.default_rng(7)
    hits = 0
    for _ in range(2000):
        _, low, high = ratio_interval(np.exp(draws.normal(0, 0.1, 3)), np.exp(draws.normal(0.3, 0.1, 4)))
        hits += low is not None and high is not None and low <= np.exp(0.3) <= high
    assert 0.93 <= hits / 2000 <= 0.98


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.lists(st.floats(0.1, 10), min_size=2, max_size=5))
def test_swapping_the_runs_inverts_the_ratio(before: list[float], after: list[float]) -> None:
    ratio, low, high = ratio_interval(before, after)
    back, back_low, back_high = ratio_interval(after, before)
    assert ratio == pytest.approx(1 / back)
    assert (low, high) == (pytest.approx(1 / (back_high or 1)), pytest.approx(1 / (back_low or 1)))


# --- capacity -----------------------------------------------------------------------------------------------


def test_gpus_for_a_crowd_with_a_spare() -> None:
    found = plan_capacity(run_with([]), 100, Holds("users", 40, 44, "search knee"), spares=1, use=1.0)
    assert (found.replicas, found.spares, found.gpus) == (3, 1, 8)
    assert (found.gpus_low, found.gpus_high) == (8, 8)
    assert any("spare" in words for words in found.assumptions)


def test_several_replicas_hold_together_what_one_holds_a_share_of() -> None:
    four = run_with([], gpus=4, replicas=4)
    found = plan_capacity(four, 80, Holds("users", 40, 44, "search knee"), spares=0, use=1.0)
    assert (found.replicas, found.gpus) == (8, 8)


def test_without_knowing_the_gpus_nothing_is_planned() -> None:
    with pytest.raises(ValueError, match="is not known: say `gpus` in the plan"):
        plan_capacity(run_with([], gpus=None), 80, Holds("users", 40, 44, "search knee"))


def test_a_wide_search_gives_a_wide_interval() -> None:
    found = plan_capacity(run_with([]), 100, Holds("users", 25, 60, "search knee"), spares=0, use=1.0)
    assert (found.gpus_low, found.gpus, found.gpus_high) == (4, 8, 8)


def test_what_holds_is_the_searchs_or_the_best_cells() -> None:
    cells = [cell_with(three().repeats, id="a", level=20.0), cell_with(three(2.5).repeats, id="b", level=40.0)]
    held = what_holds(run_with(cells), "users")
    assert held is not None
    assert (held.highest_met, held.lowest_failed) == (20, 40)
    assert what_holds(run_with(cells), "rate") is None
    search = SearchSeen(id="k", door="gateway", over="users", tried=[], highest_met=30, lowest_failed=32, ended="found")
    held = what_holds(run_with(cells, searches=[search]), "users")
    assert held is not None
    assert held.highest_met == 30


@given(st.floats(1, 1e5), st.floats(0.5, 500), st.floats(0.1, 1.0), st.integers(0, 3))
def test_the_planned_replicas_hold_what_is_wanted(wanted: float, each: float, use: float, spares: int) -> None:
    found = plan_capacity(run_with([]), wanted, Holds("rate", each, None, "s"), spares=spares, use=use)
    assert found.replicas * each * use >= wanted * (1 - 1e-6)
    assert (found.replicas - 1) * each * use < wanted or found.replicas == 1


# --- doors and engines --------------------------------------------------------------------------------------


def test_what_the_gateway_adds_is_told_with_its_interval() -> None:
    direct = cell_with([repeat_with(n, 0.200 + n / 1000, door="direct") for n in (1, 2, 3)])
    through = cell_with([repeat_with(n, 0.201 + n / 1000) for n in (1, 2, 3)])
    shares = {one.metric: one for one in door_shares([direct, through])}
    assert shares["ttft_s"].added_s == pytest.approx(0.001, abs=1e-6)
    assert shares["ttft_s"].pairs == 3
    assert door_shares([through]) == []


def glance(**over: Any) -> EngineGlance:
    fields: dict[str, Any] = {
        "running": 3,
        "waiting": 1,
        "kv_usage": 0.5,
        "generation_tokens": 100,
        "started_at_s": 5.0,
    }
    return EngineGlance(**fields | over)


def test_engines_are_laid_beside_the_clients_seconds() -> None:
    readings = [
        Reading(100.2, (glance(), glance(running=1, kv_usage=0.9))),
        Reading(101.2, (glance(generation_tokens=150), glance(running=1, kv_usage=0.7, generation_tokens=120))),
    ]
    points = join_timeline(repeat_with(1, timeline=[]).timeline or timeline_of(3), readings, 100.0)
    assert [point.engine_running for point in points] == [4, 4, 4]
    assert [point.engine_kv_usage for point in points] == [0.9, 0.7, 0.7]
    assert [point.engine_generation_tokens for point in points] == [0, 70, 70]
    assert window_of(readings, 100.0, Window(0, 2)).running_and_waiting == 6.0


def timeline_of(seconds: int) -> list[Any]:
    from loadtests.cells import TimelinePoint

    return [
        TimelinePoint(at_s=float(n), sent=0, ended=0, failed=0, in_flight=0, output_tokens=0, ttft_p50_s=None)
        for n in range(seconds)
    ]


def test_an_engine_that_does_not_say_leaves_the_sum_unknown() -> None:
    readings = [Reading(100.2, (glance(), None))]
    (point,) = join_timeline(timeline_of(1), readings, 100.0)
    assert (point.engine_running, point.engine_kv_usage) == (None, 0.5)
    assert window_of(readings, 100.0, Window(0, 1)).running_and_waiting is None


def test_old_readings_are_not_carried_on() -> None:
    points = join_timeline(timeline_of(10), [Reading(100.2, (glance(),))], 100.0)
    assert [point.engine_running is not None for point in points] == [True] * 5 + [False] * 5


@pytest.mark.parametrize(
    ("after", "restarts"),
    [
        (glance(started_at_s=60.0), 1),
        (glance(started_at_s=None, generation_tokens=3), 1),
        (glance(generation_tokens=300), 0),
    ],
)
def test_a_restart_is_seen_by_start_time_or_by_counters(after: EngineGlance, restarts: int) -> None:
    assert restarts_in([Reading(1, (glance(),)), Reading(2, (None,)), Reading(3, (after,))]) == restarts


def test_restarts_are_told_of_each_engine_apart() -> None:
    anew = glance(started_at_s=60.0)
    readings = [Reading(1, (glance(), glance())), Reading(2, (glance(), anew)), Reading(3, (glance(), anew))]
    assert restarts_of_each(readings) == [0, 1]


@pytest.mark.parametrize(
    ("answers", "gone"),
    [
        ((True, True, False, False), 1),
        ((True, True, True, False), 0),  # one reading may have come too late
        ((True, False, False, True), 0),
        ((False, False, False, False), 0),  # whoever never answers tells nothing
    ],
)
def test_an_engine_that_stops_answering_for_good_is_gone(answers: tuple[bool, ...], gone: int) -> None:
    readings = [Reading(100.0 + at, (glance() if is_there else None, glance())) for at, is_there in enumerate(answers)]
    assert window_of(readings, 100.0, Window(0, 4)).gone == gone
