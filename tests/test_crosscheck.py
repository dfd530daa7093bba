"""The cross-check with other tools: its arithmetic, their result files as they really are, and the page made of both.

The samples in crosscheck_results/ are cut from real runs; what a tool renames or moves is refused, never guessed.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from load_records import answered

from bench.crosscheck.page import BEGIN, END, Machine, Measured, Outcome, block, from_json, put_into, to_json
from bench.crosscheck.ratios import Answered, Figures, Ratio, figures_of, ratio_of
from bench.crosscheck.results import GUIDELLM, OURS, READERS, TOOLS, VLLM, ResultUnreadable, Shot
from bench.crosscheck.tools import Settings
from loadtests.columns import columns_of
from loadtests.figures import Window, latencies, rates
from loadtests.records import RequestRecord

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "crosscheck_results"
FILES = {OURS: "simsa.json", VLLM: "vllm_bench_serve.json", GUIDELLM: "guidellm.json"}


def sample(tool: str) -> Any:
    return json.loads((RESULTS / FILES[tool]).read_text())


def read(tool: str, told: Any, warm_up_s: float = 0.0) -> Shot:
    return READERS[tool](json.dumps(told).encode(), warm_up_s=warm_up_s)


# --- arithmetic ---------------------------------------------------------------------------------------------


def test_figures_are_those_of_a_known_schedule() -> None:
    """Two at a time, each 0.1 s to its first token and ten gaps of 0.02 s: 22 tokens every 0.3 s."""
    answers = [Answered(n * 0.3, n * 0.3 + 0.1, n * 0.3 + 0.3, 11) for n in range(100) for _ in range(2)]
    found = figures_of(answers, warm_up_s=3.0)
    assert found.ttft_p50_s == pytest.approx(0.1)
    assert found.tpot_p50_s == pytest.approx(0.02)
    assert found.output_tokens_per_s == pytest.approx(22 / 0.3)


def test_the_warm_up_and_the_end_that_runs_dry_count_for_nothing() -> None:
    steady = [Answered(float(n), n + 0.1, n + 0.9, 9) for n in range(100)]
    slow_start = [one._replace(first_s=one.sent_s + 0.8) if one.sent_s < 10 else one for one in steady]
    assert figures_of(slow_start, warm_up_s=10.0) == figures_of(steady, warm_up_s=10.0)


def test_what_was_sent_in_the_warm_up_only_is_refused() -> None:
    with pytest.raises(ValueError, match="later than the warm-up of 5 s"):
        figures_of([Answered(0.0, 0.1, 0.2, 5), Answered(1.0, 1.1, 1.2, 5)], warm_up_s=5.0)


@pytest.mark.parametrize("seed", range(5))
def test_these_few_lines_say_of_a_closed_loop_what_the_load_tests_say(seed: int) -> None:
    """The same raw times by both: the other tools' files are read by an arithmetic that ours agrees with."""
    draw = random.Random(seed)
    records: list[RequestRecord] = []
    for _ in range(4):
        ready_s = 0.0
        while ready_s < 30:
            ttft_s, gap_s = draw.uniform(0.05, 0.2), draw.uniform(0.005, 0.02)
            records.append(answered(len(records), ready_s, tokens=64, ttft_s=ttft_s, gap_s=gap_s))
            ready_s = (records[-1].ended_s or 0.0) + 0.001
    rows = [Answered(one.sent_s or 0.0, one.first_s or 0.0, one.last_s or 0.0, 64) for one in records]
    window = Window(4.0, max(one.sent_s for one in rows) + 1e-9)
    columns = columns_of(records)
    theirs = figures_of(rows, warm_up_s=4.0)
    ours = latencies(columns, window)
    assert theirs.ttft_p50_s == pytest.approx(ours.ttft_s.p50, rel=1e-6)
    assert theirs.tpot_p50_s == pytest.approx(ours.tpot_s.p50, rel=1e-4)  # gaps are kept in whole microseconds
    assert theirs.output_tokens_per_s == pytest.approx(
        rates(columns, window, met=None, gpus=None).output_tokens_per_s, rel=0.003
    )


def test_the_interval_is_students_on_the_logarithms_of_the_pairs() -> None:
    """By hand: logarithms of mean 0 and standard deviation sqrt(0.00025), t(0.975, 4) = 2.776."""
    pairs = [(math.exp(one), 1.0) for one in (-0.02, -0.01, 0.0, 0.01, 0.02)]
    found = ratio_of(pairs)
    half = 2.7764451 * math.sqrt(0.00025) / math.sqrt(5)
    assert found.pairs == 5
    assert [found.mean, found.low, found.high] == pytest.approx([1.0, math.exp(-half), math.exp(half)])


def test_the_ratio_turned_round_is_its_reciprocal() -> None:
    pairs = [(310.0, 300.0), (305.0, 311.0), (299.0, 290.0)]
    one, other = ratio_of(pairs), ratio_of([(b, a) for a, b in pairs])
    assert one.mean == pytest.approx(1 / other.mean)
    assert one.low == pytest.approx(1 / other.high)


@pytest.mark.parametrize("pairs", [[(1.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)], [(-1.0, 1.0), (1.0, 1.0)]])
def test_pairs_that_make_no_ratio_are_refused(pairs: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="two pairs of values above 0"):
        ratio_of(pairs)


@pytest.mark.parametrize(
    ("low", "high", "pairs", "verdict"),
    [
        (0.97, 1.03, 5, "agrees"),
        (0.99, 1.031, 5, "inconclusive"),
        (1.031, 1.2, 5, "differs"),
        (0.5, 0.969, 5, "differs"),
        (1.02, 1.04, 5, "inconclusive"),
        (0.5, 2.0, 5, "inconclusive"),
        (0.99, 1.01, 4, "inconclusive"),
    ],
)
def test_a_figure_agrees_only_where_its_whole_interval_does(low: float, high: float, pairs: int, verdict: str) -> None:
    assert Ratio(pairs, (low * high) ** 0.5, low, high).verdict == verdict


# --- the tools' files ---------------------------------------------------------------------------------------


def test_ours_is_read_as_the_report_prints_it() -> None:
    told = sample(OURS)
    shot = read(OURS, told)
    (repeat,) = told["cells"][0]["repeats"]
    assert shot.figures == shot.printed
    assert shot.figures.ttft_p50_s == repeat["latencies"]["ttft_s"]["p50"]
    assert (shot.answered, shot.failed, shot.completion_tokens, shot.remarks) == (40, 0, 64, ())


def test_a_check_of_ours_that_failed_is_remarked() -> None:
    told = sample(OURS)
    told["cells"][0]["repeats"][0]["checks"] = [{"name": "client_cpu", "passed": False, "limit": "", "seen": "87 %"}]
    assert read(OURS, told).remarks == ("client_cpu: 87 %",)


def test_vllms_raw_times_are_seconds_from_the_start_of_each_request() -> None:
    told = sample(VLLM)
    shot = read(VLLM, told)
    tpots = [
        (latency - ttft) / (tokens - 1)
        for latency, ttft, tokens in zip(told["latencies"], told["ttfts"], told["output_lens"], strict=True)
    ]
    assert min(tpots) <= shot.figures.tpot_p50_s <= max(tpots)
    assert min(told["ttfts"]) <= shot.figures.ttft_p50_s <= max(told["ttfts"])
    assert shot.printed.ttft_p50_s == pytest.approx(told["median_ttft_ms"] / 1000)
    assert (shot.answered, shot.failed, shot.completion_tokens) == (54, 0, 64)


def test_guidellms_inter_token_latency_is_tpot_and_its_tpot_has_the_first_token_in_it() -> None:
    told = sample(GUIDELLM)
    for one in told["benchmarks"][0]["requests"]["successful"]:
        timings = one["info"]["timings"]
        span_ms = 1000 * (timings["last_token_iteration"] - timings["first_token_iteration"])
        whole_ms = 1000 * (timings["last_token_iteration"] - timings["request_start"])
        assert one["inter_token_latency_ms"] == pytest.approx(span_ms / 63)
        assert one["time_per_output_token_ms"] == pytest.approx(whole_ms / 64)
    shot = read(GUIDELLM, told)
    metrics = told["benchmarks"][0]["metrics"]
    assert shot.printed.tpot_p50_s == metrics["inter_token_latency_ms"]["successful"]["median"] / 1000
    assert (shot.answered, shot.failed, shot.completion_tokens) == (8, 0, 64)


def _without_times(told: Any) -> None:
    del told["start_times"]


def _of_other_length(told: Any) -> None:
    told["output_lens"][0] = 63


def _uneven(told: Any) -> None:
    told["ttfts"].pop()


@pytest.mark.parametrize("spoil", [_without_times, _of_other_length, _uneven])
def test_a_file_of_another_shape_is_refused_by_the_tools_name(spoil: Callable[[Any], None]) -> None:
    told = sample(VLLM)
    spoil(told)
    with pytest.raises(ResultUnreadable, match="vllm bench serve: its result is not as expected"):
        read(VLLM, told)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_no_json_is_refused(tool: str) -> None:
    with pytest.raises(ResultUnreadable, match=tool):
        READERS[tool](b"Traceback", warm_up_s=0.0)


# --- the page -----------------------------------------------------------------------------------------------


def outcome_of(rounds: int = 5) -> Outcome:
    shots = {tool: read(tool, sample(tool)) for tool in TOOLS}
    same = Figures(300.0, 0.15, 0.011)
    off = {OURS: 1.0, VLLM: 1.001, GUIDELLM: 2.0}
    runs = [
        Measured(
            round=number,
            place=place,
            shot=replace(shots[tool], figures=Figures(*(value * off[tool] * (1 + number / 1e4) for value in same))),
            cached_share=0.0,
            load_before=1.5,
        )
        for number in range(1, rounds + 1)
        for place, tool in enumerate(TOOLS)
    ]
    machine = Machine(cores=2, began_at="2026-11-28T12:00:00+00:00", versions={"guidellm": "0.8.1"})
    settings = {"users": 4, "rate_per_s": None, "input_tokens": 192, "output_tokens": 64, "warm_up_s": 4.0}
    return Outcome(machine=machine, settings=settings, requests=200, runs=runs)


def test_the_table_says_of_each_figure_what_the_pairs_say() -> None:
    lines = block(outcome_of()).splitlines()
    rows = [line for line in lines if line.startswith(("| output", "| median"))]
    assert ["agrees" in row for row in rows] == [True] * 3 + [False] * 3
    assert all("differs" in row for row in rows[3:])
    assert "guidellm 0.8.1" in lines[0]
    assert "2 cores" in lines[0]


def test_what_is_inconclusive_is_shown_with_its_width() -> None:
    rows = [line for line in block(outcome_of(rounds=3)).splitlines() if line.startswith("| output")]
    assert all("inconclusive, " in row and " wide" in row for row in rows)


def test_the_record_reads_back_and_the_blocks_stand_between_their_marks() -> None:
    closed = outcome_of()
    open_loop = replace(closed, settings={**closed.settings, "rate_per_s": 2.0})
    both = [closed, open_loop]
    assert from_json(to_json(both)) == both
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    written = put_into(page, both)
    assert written == f"before\n{BEGIN}\n{block(closed)}\n\n{block(open_loop)}\n{END}\nafter\n"
    assert "**4 users who ask again at once.**" in block(closed)
    assert "**2 requests/s at equal distances.**" in block(open_loop)
    assert put_into(written, both) == written
    with pytest.raises(ValueError, match="expected the marks"):
        put_into("no marks", both)


@pytest.mark.parametrize(
    ("settings", "load"),
    [
        (Settings(users=3, for_s=20.0), {"users": 3}),
        (Settings(rate_per_s=2.0, for_s=20.0), {"rate_per_s": 2.0, "arrivals": "constant"}),
    ],
)
def test_a_rate_makes_an_open_loop_and_users_a_closed_one(settings: Settings, load: dict[str, object]) -> None:
    assert settings.load == {"id": "c", **load, "for_s": 20.0, "warm_up_s": 4.0}


def test_the_page_shows_the_record_that_is_kept() -> None:
    page = (ROOT / "docs" / "loadtests.md").read_text()
    assert put_into(page, from_json((ROOT / "docs" / "loadtest-crosscheck.json").read_text())) == page
