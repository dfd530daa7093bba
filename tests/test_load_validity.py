"""What makes a repeat or a cell invalid, and what does not: an engine's failures are results, not faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from load_records import WINDOW, answered, failed, files_of, footer, repeat_with, steadily

from loadtests.agreement import check_cell
from loadtests.cells import Check, Repeat
from loadtests.columns import RepeatFiles
from loadtests.figures import rates
from loadtests.objectives import see_objectives
from loadtests.plan import Objective
from loadtests.records import Outcome
from loadtests.validity import EngineWindow, Intended, Look, check_repeat

OPEN = Intended(
    is_open=True,
    is_steady=True,
    scheduled=100,
    asks_for_lengths=True,
    is_pinned=True,
    has_shared_prefix=False,
    workers=1,
)
QUIET = EngineWindow(running_and_waiting=12.0, prefix_hit_share=0.0, restarts=0)


def checks_of(
    files: RepeatFiles,
    *,
    intended: Intended = OPEN,
    engines: EngineWindow = QUIET,
    objectives: Sequence[Objective] = (),
    looks: Sequence[Look] = (Look("real"),),
) -> dict[str, Check]:
    window_rates = rates(files.columns, WINDOW, met=None, gpus=None)
    seen = see_objectives(files.columns, WINDOW, window_rates, objectives, is_open=intended.is_open)
    return {one.name: one for one in check_repeat(files, WINDOW, intended, engines, seen, looks)}


def failing(checks: dict[str, Check]) -> list[str]:
    return [name for name, one in checks.items() if one.passed is False]


def test_a_clean_repeat_passes_every_check() -> None:
    checks = checks_of(files_of(steadily(100)))
    assert {name: one.passed for name, one in checks.items() if one.passed is not True} == {}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("client_cpu", {"files": files_of(steadily(100), footers=[footer(cpu_s=6.5)])}),
        ("records_complete", {"files": files_of(steadily(100), footers=[])}),
        ("records_complete", {"files": files_of(steadily(99))}),
        ("records_complete", {"files": files_of(steadily(100), footers=[footer(stopped="no space left on device")])}),
        ("clock", {"files": files_of(steadily(100), footers=[footer(wall_minus_monotonic_s=-3600.0)])}),
        (
            "schedule_lag",
            {"files": files_of([answered(n, n / 10, sent_s=n / 10 + (0.02 if n > 80 else 0)) for n in range(100)])},
        ),
        (
            "achieved_rate",
            {
                "files": files_of(
                    [*steadily(97), *(failed(n, n / 10, Outcome.UNSENT, sent_s=None) for n in range(97, 100))]
                )
            },
        ),
        ("token_source", {"files": files_of([answered(n, n / 10, usage_source="counted") for n in range(100)])}),
        ("lengths", {"files": files_of([answered(n, n / 10, prompt_tokens=120) for n in range(100)])}),
        (
            "lengths",
            {"files": files_of([answered(n, n / 10, completion_tokens=49 if n == 50 else 50) for n in range(100)])},
        ),
        ("cache_hits", {"files": files_of([answered(n, n / 10, cached_tokens=50) for n in range(100)])}),
        ("running", {"engines": QUIET._replace(running_and_waiting=40.0)}),
        ("engine_restart", {"engines": QUIET._replace(restarts=1)}),
        ("engine_restart", {"engines": QUIET._replace(gone=1)}),
        ("provenance", {"looks": (Look("real"), Look("simulated"))}),
        ("same_engines", {"looks": (Look("real"), Look("real", "http://10.0.0.3:8000 came"))}),
        ("same_engines", {"looks": (Look("real", "http://10.0.0.2:8000 went"), Look("real", None))}),
        ("steady_state", {"files": files_of([answered(n, n / 10, ttft_s=0.2 if n < 55 else 0.5) for n in range(100)])}),
    ],
)
def test_each_fault_fails_its_own_check(name: str, change: dict[str, Any]) -> None:
    change.setdefault("files", files_of(steadily(100)))
    checks = checks_of(**change)
    assert checks[name].passed is False
    assert set(failing(checks)) <= {name, "running", "records_complete"}


def test_what_nobody_tells_is_unknown_and_not_invalid() -> None:
    untold = [answered(n, n / 10, cached_tokens=None) for n in range(100)]
    checks = checks_of(files_of(untold), engines=EngineWindow(None, None, 0), looks=())
    unknown = {name for name, one in checks.items() if one.passed is None}
    assert unknown == {"cache_hits", "running", "provenance", "same_engines"}
    assert failing(checks) == []


def test_shared_prefixes_may_be_cached() -> None:
    warm = files_of([answered(n, n / 10, cached_tokens=80) for n in range(100)])
    assert failing(checks_of(warm, intended=replace(OPEN, has_shared_prefix=True))) == []


def test_an_engine_that_fails_is_a_result() -> None:
    records = [*steadily(60), *(failed(n, n / 10) for n in range(60, 100))]
    engines = QUIET._replace(running_and_waiting=12.0)
    assert failing(checks_of(files_of(records), engines=engines)) == []


def overloaded() -> RepeatFiles:
    """Every request waits longer than the one before."""
    return files_of([answered(n, n / 10, ttft_s=0.2 + n / 10) for n in range(100)])


def test_overload_that_misses_its_objective_is_a_valid_finding() -> None:
    objective = Objective("ttft_s", "p95", Decimal(1))
    check = checks_of(overloaded(), objectives=[objective], engines=EngineWindow(None, None, 0))["steady_state"]
    assert check.passed is True
    assert "overloaded" in check.seen


def test_overload_whose_figures_still_look_good_is_invalid() -> None:
    objective = Objective("ttft_s", "p95", Decimal(60))
    check = checks_of(overloaded(), objectives=[objective], engines=EngineWindow(None, None, 0))["steady_state"]
    assert check.passed is False


def test_buffered_answers_are_no_stream() -> None:
    lump = [answered(n, n / 10, tokens=1, completion_tokens=50, asked_output_tokens=50) for n in range(100)]
    check = checks_of(files_of(lump), engines=EngineWindow(None, None, None))["stream"]
    assert (check.passed, check.seen) == (False, "0 of 90")


def test_a_closed_loop_that_does_not_keep_its_users_busy_is_invalid() -> None:
    crowd = replace(OPEN, is_open=False, scheduled=None, users=12)
    assert failing(checks_of(files_of(steadily(100)), intended=crowd)) == []
    assert "in_flight" in failing(checks_of(files_of(steadily(100)), intended=replace(crowd, users=64)))


def test_more_than_the_client_was_shown_to_read_is_invalid() -> None:
    assert checks_of(files_of(steadily(100)), intended=replace(OPEN, calibrated_events_per_s=1000.0))[
        "calibration"
    ].passed
    slow = checks_of(files_of(steadily(100)), intended=replace(OPEN, calibrated_events_per_s=100.0))
    assert slow["calibration"].passed is False


def test_one_answers_word_does_not_outweigh_the_engines_counters() -> None:
    told = files_of([answered(n, n / 10, cached_tokens=0 if n == 50 else None) for n in range(100)])
    check = checks_of(told, engines=QUIET._replace(prefix_hit_share=0.86))["cache_hits"]
    assert (check.passed, check.seen) == (False, "86.0% by the engines' counters")


def test_engines_that_nobody_read_did_not_show_that_they_kept_running() -> None:
    assert checks_of(files_of(steadily(100)), engines=EngineWindow(None, None, None))["engine_restart"].passed is None


def test_name_servers_that_say_nothing_once_are_no_sign_of_other_engines() -> None:
    check = checks_of(files_of(steadily(100)), looks=(Look("real"), Look("real", None)))["same_engines"]
    assert (check.passed, check.seen) == (None, "name servers did not say")


def test_ramps_are_not_asked_to_be_steady() -> None:
    assert "steady_state" not in checks_of(overloaded(), intended=replace(OPEN, is_steady=False))


# --- repeats ------------------------------------------------------------------------------------------------


def passed(repeats: list[Repeat]) -> dict[str, bool | None]:
    return {check.name: check.passed for check in check_cell(repeats)}


def test_fewer_than_three_repeats_are_not_enough() -> None:
    assert passed([repeat_with(1, 0.2), repeat_with(2, 0.2)]) == {
        "repeats": False,
        "spread": True,
        "provenance": True,
    }
    assert passed([repeat_with(1, 0.2)]) == {"repeats": False}


def test_repeats_far_apart_near_the_limit_settle_nothing() -> None:
    assert passed([repeat_with(n, ttft) for n, ttft in enumerate((1.2, 1.6, 1.9))])["spread"] is False


def test_repeats_far_apart_but_far_from_the_limit_agree() -> None:
    assert passed([repeat_with(n, ttft) for n, ttft in enumerate((0.1, 0.2, 0.3))])["spread"] is True


def test_repeats_of_different_provenance_make_no_cell() -> None:
    mixed = [repeat_with(n, provenance=kind) for n, kind in enumerate(("simulated", "simulated", "real"))]
    assert passed(mixed)["provenance"] is False


def test_a_wider_demand_of_the_plan_counts() -> None:
    three = [repeat_with(n, 0.2) for n in range(3)]
    assert check_cell(three, wanted=5)[0].passed is False
