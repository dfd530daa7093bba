"""What a run lets one say, its JSON and tables for spreadsheets, its tables for a terminal, and how time is thinned."""

from __future__ import annotations

import csv
import io
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_runs import Engine, Made, made_campaign, made_run
from rich.console import Console

from loadtests.cells import Run, TimelinePoint
from loadtests.exports import TABLES, UnreadableRun, read_run, run_json, table_csv
from loadtests.readings import failures, frontier, is_beyond, latency, objectives, plotted, rate, rests_on_invalid
from loadtests.report import Distribution, distribution_of
from loadtests.report.buckets import MOST_DRAWN, bucket_width, buckets
from loadtests.report.charts import scale_of
from loadtests.view import render_run, render_runs


@cache
def run() -> Run:
    return made_run(is_small=True)[0]


def changed(struct: Any, /, **more: Any) -> Any:
    return msgspec.structs.replace(struct, **more)


# --- JSON ---------------------------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was_and_is_written_the_same() -> None:
    content = run_json(run())
    assert read_run(content) == run()
    assert run_json(read_run(content)) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"v": 2}', "this load run is of version 2, and this Simsa reads version 1 only"),
        (b"{}", "this is no load run: Object missing required field `v`"),
        (b"no json", "this is no load run: "),
        (b"\xff\xfe", "this is no load run: "),
        (b"", "this is no load run: "),
        (b'{"v": 1, "id": "x"}', "this load run is damaged: Object missing required field"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(UnreadableRun) as caught:
        read_run(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    with pytest.raises(UnreadableRun):
        read_run(content)


# --- spreadsheets -------------------------------------------------------------------------------------------


def read_table(name: str, of: Run) -> list[dict[str, str]]:
    content = table_csv(of, name)
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert len({len(row) for row in rows}) == 1
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_each_repeat_is_a_line_with_every_figure() -> None:
    rows = read_table("repeats", run())
    assert len(rows) == sum(len(cell.repeats) for cell in run().cells)
    first, cell = rows[0], run().cells[0]
    figure = cell.repeats[0].latencies.ttft_s
    assert float(first["ttft_s_p95"]) == figure.p95
    assert float(first["ttft_s_p95_high"]) == figure.p95_high
    assert first["ttft_s_p99"] == ""
    assert int(first["outcome_ok"]) == cell.repeats[0].outcomes["ok"]
    assert int(first["outcome_cut"]) == 0
    assert float(first["output_tokens_per_s"]) == cell.repeats[0].rates.output_tokens_per_s
    assert first["cost_per_mtok_out"] == cell.repeats[0].cost_per_mtok_out


def test_invalid_cells_are_in_the_tables_with_the_reason_and_without_figures() -> None:
    cells = {(row["cell"], row["door"]): row for row in read_table("cells", run())}
    assert cells["users-160", "gateway"]["is_valid"] == "false"
    assert "client_cpu: 87 % in worker 0" in cells["users-160", "gateway"]["why_invalid"]
    for row in read_table("repeats", run()):
        if row["cell"] == "users-160":
            assert not [name for name, value in row.items() if value and name.startswith(("ttft", "outcome", "output"))]
    for name in ("objectives", "timeline"):
        assert "users-160" not in {row["cell"] for row in read_table(name, run())}
    claims = {row["claim"]: row for row in read_table("claims", run())}
    assert (claims["busy"]["verdict"], claims["busy"]["margin"]) == ("invalid", "")


@pytest.mark.parametrize("name", TABLES)
def test_no_text_becomes_a_formula(name: str) -> None:
    cells = [changed(cell, id=f"={cell.id}", load="=1+1") for cell in run().cells]
    for row in read_table(name, changed(run(), cells=cells, model="=x")):
        assert not [value for value in row.values() if value.startswith("=")]


# --- the terminal -------------------------------------------------------------------------------------------


def printed(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(renderable)
    return console.export_text()


def test_the_terminal_shows_caveats_before_figures_and_no_figure_of_an_invalid_cell() -> None:
    text = printed(render_run(run()))
    assert text.index("Simulated: proves and refutes nothing") < text.index("Cells:")
    assert text.index("invalid: users-160 (gateway): client_cpu 87 %") < text.index("Claims")
    line = next(line for line in text.splitlines() if line.lstrip().startswith("users-160"))
    assert line.split("invalid")[1].split("]")[1].split() == ["–"] * 9
    assert "all cells that it rests on are invalid: users-160" in text
    assert "31.0 %" not in text


def test_the_terminal_shows_no_table_without_rows_and_says_that_no_claim_is_answered() -> None:
    text = printed(render_run(changed(run(), verdicts=[], searches=[], doors=[])))
    assert "This run answers no claim." in text
    assert not [title for title in ("Claims", "Highest load", "What the gateway adds") if title in text]


def test_the_terminal_shows_the_middle_of_repeats_in_milliseconds() -> None:
    text = printed(render_run(run()))
    values = sorted(repeat.latencies.ttft_s.p50 or 0.0 for repeat in run().cells[0].repeats)
    line = next(line for line in text.splitlines() if "claim-ttft" in line and "40 users" in line)
    assert f" {1000 * values[1]:.0f} " in line
    assert "unknown" in line  # its p99: too few values
    assert "p99 takes 500 values in every repeat" in text


def test_nothing_that_steers_a_terminal_is_printed() -> None:
    hostile = "\x1b[31mred\u202e"
    cells = [changed(cell, id=hostile, load=hostile) for cell in run().cells]
    text = printed(render_run(changed(run(), name=hostile, notes=[hostile], cells=cells)))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_list_has_a_line_a_run_with_what_became_of_its_claims() -> None:
    text = printed(render_runs(made_campaign(is_small=True)[0]))
    lines = {
        name: next(line for line in text.splitlines() if f"run-{name}" in line)
        for name in ("sim-dense-32b", "sim-dense-70b", "sim-moe-200b")
    }
    assert "1 plausible, 2 unanswered" in lines["sim-dense-32b"]
    assert "1 not met, 2 unanswered" in lines["sim-dense-70b"]
    assert "1 refuted, 1 unanswered" in lines["sim-moe-200b"]
    assert all("simulated" in line and "complete" in line for line in lines.values())


# --- readings -----------------------------------------------------------------------------------------------


def test_a_statistic_that_one_repeat_lacks_is_not_told_of_all() -> None:
    cell = run().cells[0]
    first = cell.repeats[0]
    assert latency(cell, "ttft_s", "p50") is not None
    assert latency(cell, "ttft_s", "p99") is None
    lacking = changed(first, latencies=changed(first.latencies, ttft_s=changed(first.latencies.ttft_s, p50=None)))
    assert latency(changed(cell, repeats=[lacking, *cell.repeats[1:]]), "ttft_s", "p50") is None
    without = changed(first, rates=changed(first.rates, output_tokens_per_s=None))
    assert rate(changed(cell, repeats=[without, *cell.repeats[1:]]), "output_tokens_per_s") is None


def test_bounds_reach_over_the_intervals_of_all_repeats() -> None:
    cell = run().cells[0]
    found = latency(cell, "ttft_s", "p95")
    assert found is not None
    figures = [repeat.latencies.ttft_s for repeat in cell.repeats]
    assert found.low == min(figure.p95_low for figure in figures if figure.p95_low is not None)
    assert found.high == max(figure.p95_high for figure in figures if figure.p95_high is not None)
    assert found.value == sorted(figure.p95 or 0.0 for figure in figures)[1]


def test_only_valid_steady_cells_are_drawn_against_the_load() -> None:
    ids = [cell.id for cell in plotted(run())]
    assert "users-160" not in ids
    assert "ramp" not in ids
    levels = [cell.level or 0.0 for cell in plotted(run())]
    assert levels == sorted(levels)


def test_each_objective_is_told_once() -> None:
    assert [(one.metric, one.statistic) for one in objectives(run())] == [("ttft_s", "p95"), ("tpot_s", "p95")]


def test_a_verdict_from_arithmetic_rests_on_no_cell() -> None:
    busy = next(one for one in run().verdicts if one.claim == "busy")
    assert rests_on_invalid(run(), busy)
    assert not rests_on_invalid(run(), changed(busy, verdict="refuted (arithmetic)"))
    assert not rests_on_invalid(run(), changed(busy, cells=["users-160", "claim-ttft"]))


def test_a_cell_without_repeats_is_invalid_without_a_failed_check() -> None:
    empty = changed(run().cells[0], repeats=[])
    assert not empty.is_valid
    assert failures(empty) == []
    assert "no repeat was measured" in printed(render_run(changed(run(), cells=[empty])))


def test_on_the_frontier_no_other_cell_is_better_in_both() -> None:
    cells = [cell for cell in plotted(run()) if cell.kind == "closed"]
    spots = frontier(cells, "ttft_s", "p95", "output_tokens_per_s")
    assert sum(spot.is_frontier for spot in spots) > 0
    for spot in spots:
        others = [o for o in spots if o.throughput >= spot.throughput and o.latency <= spot.latency and o != spot]
        assert spot.is_frontier == (not others)


def test_one_knee_is_beyond_another_only_without_overlap() -> None:
    search = run().searches[0]
    high = changed(search, highest_met=4.0, lowest_failed=4.4)
    low = changed(search, highest_met=2.0, lowest_failed=4.0)
    assert is_beyond(high, low)
    assert not is_beyond(low, high)
    assert not is_beyond(high, changed(low, lowest_failed=4.2))
    assert not is_beyond(high, changed(low, over="users"))
    assert not is_beyond(high, changed(low, ended="stopped"))


# --- distributions, buckets, scales -------------------------------------------------------------------------


def test_a_distribution_is_101_finite_ascending_quantiles() -> None:
    found = distribution_of("r", "c", "gateway", "ttft_s", [3.0, 1.0, 2.0])
    assert (found.n, found.quantiles[0], found.quantiles[50], found.quantiles[100]) == (3, 1.0, 2.0, 3.0)
    for n, quantiles in ((1, (1.0,)), (1, tuple(range(100, -1, -1))), (1, (float("nan"),) * 101), (0, (1.0,) * 101)):
        with pytest.raises(ValueError, match="distribution of ttft_s of cell c"):
            Distribution("r", "c", "gateway", "ttft_s", n, quantiles)
    with pytest.raises(ValueError, match="got none"):
        distribution_of("r", "c", "gateway", "ttft_s", [])


def point(second: int, sent: int, in_flight: int, waiting: int | None) -> TimelinePoint:
    return TimelinePoint(
        at_s=float(second), sent=sent, ended=0, failed=0, in_flight=in_flight, output_tokens=10 * sent,
        ttft_p50_s=None, engine_waiting=waiting,
    )  # fmt: skip


points = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 500), st.none() | st.integers(0, 90)), min_size=1, max_size=900
).map(lambda found: [point(second, *values) for second, values in enumerate(found)])


@given(points)
def test_thinning_keeps_peaks_and_sums(timeline: list[TimelinePoint]) -> None:
    width = bucket_width([timeline], MOST_DRAWN)
    found = buckets(timeline, width)
    assert len(found) <= MOST_DRAWN
    assert max(bucket.in_flight for bucket in found) == max(one.in_flight for one in timeline)
    waiting = [one.engine_waiting for one in timeline if one.engine_waiting is not None]
    assert max((bucket.engine_waiting for bucket in found if bucket.engine_waiting is not None), default=None) == max(
        waiting, default=None
    )
    sent = sum(bucket.sent_per_s * (bucket.end_s - bucket.begin_s) for bucket in found)
    assert sent == pytest.approx(sum(one.sent for one in timeline))


def test_seconds_that_are_missing_are_no_buckets() -> None:
    timeline = [point(0, 1, 1, None), point(100, 1, 1, None)]
    assert [bucket.begin_s for bucket in buckets(timeline, 10)] == [0, 100]


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=20), st.booleans(), st.sampled_from([3, 6])
)
def test_a_scale_holds_every_value_between_ticks_that_ascend(values: list[float], may_be_log: bool, most: int) -> None:
    scale = scale_of(values, may_be_log=may_be_log, most=most)
    for value in values:
        assert scale.low <= value * (1 + 1e-9)
        assert value <= scale.high * (1 + 1e-9)
        assert 0 <= scale.share(value) <= 1
    ticks = [tick.value for tick in scale.ticks]
    assert all(before < after for before, after in pairwise(ticks))
    assert len(ticks) <= (most + 2 if not scale.is_log else 40)


def test_a_wide_scale_is_logarithmic_and_a_narrow_one_is_not() -> None:
    assert scale_of([0.1, 10], may_be_log=True).is_log
    assert not scale_of([1, 10], may_be_log=True).is_log
    assert not scale_of([0.0, 10], may_be_log=True).is_log
    assert [tick.text for tick in scale_of([0.1, 10], may_be_log=True).ticks] == [
        "0.1",
        "0.2",
        "0.5",
        "1",
        "2",
        "5",
        "10",
    ]


def test_the_builder_tells_a_plausible_story() -> None:
    runs, spreads = made_campaign(is_small=True)
    assert [run.searches[0].ended for run in runs] == ["found"] * 3
    words = [run.verdicts[0].verdict for run in runs]
    assert words == ["plausible (simulated)", "not met (simulated)", "refuted (arithmetic)"]
    assert {one.run for one in spreads} == {run.id for run in runs}
    assert not any(one.cell == "users-160" for one in spreads)
    assert Made(Engine(), requests=20, seconds=5).cell("x") == Made(Engine(), requests=20, seconds=5).cell("x")
