"""A repeat's figures from its records: exact, by definition, and the same whatever order or file they came in."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_records import GAP_S, TTFT_S, answered, columns, failed, footer, header, steadily

from loadtests.columns import columns_of, read_repeat
from loadtests.figures import Window, in_flight_at, latencies, outcomes, quantiles, rates, timeline
from loadtests.objectives import met_by_each, see_objectives
from loadtests.plan import Objective
from loadtests.records import Outcome, RequestRecord

WINDOW = Window(1.0, 9.0)


def objective(metric: str, statistic: str, limit: str, share: str | None = None) -> Objective:
    return Objective(metric, statistic, Decimal(limit), None if share is None else Decimal(share))


def test_latencies_are_those_of_the_schedule() -> None:
    found = latencies(columns(steadily(100)), WINDOW)
    assert found.ttft_s.n == 80
    assert found.ttft_s.p50 == pytest.approx(TTFT_S)
    assert found.tpot_s.p95 == pytest.approx(GAP_S)
    assert found.itl_s.n == 80 * 49
    assert found.itl_s.p50 == pytest.approx(GAP_S)
    assert found.e2e_s.mean == pytest.approx(TTFT_S + 49 * GAP_S)
    assert found.output_tokens_per_s_per_user.p50 == pytest.approx(1 / GAP_S)
    assert found.tokens_per_event == 1
    assert found.ttft_s.p99 is None, "p99 takes 500 values"


def test_a_late_send_counts_from_when_it_was_due() -> None:
    late = [answered(n, n * 0.1, sent_s=n * 0.1 + 0.05) for n in range(100)]
    found = latencies(columns(late), WINDOW)
    assert found.ttft_s.p50 == pytest.approx(TTFT_S - 0.05)
    assert found.scheduled_ttft_s.p50 == pytest.approx(TTFT_S)


def test_several_tokens_an_event_make_tpot_smaller_than_the_gap() -> None:
    spoken = [answered(n, n * 0.1, completion_tokens=99, first_event_tokens=1) for n in range(100)]
    found = latencies(columns(spoken), WINDOW)
    assert found.tpot_s.p50 == pytest.approx(49 * GAP_S / 98)
    assert found.tokens_per_event == pytest.approx(99 / 50)


def test_throughput_counts_tokens_when_they_come() -> None:
    found = rates(columns(steadily(100)), WINDOW, met=None, gpus=2)
    assert found.offered == 80
    assert found.output_tokens_per_s == pytest.approx(500, rel=0.03)
    assert found.output_tokens_per_s_per_gpu == pytest.approx((found.output_tokens_per_s or 0) / 2)
    assert found.goodput_per_s is None


@given(st.floats(0, 5), st.floats(0.5, 5))
def test_tokens_of_windows_that_follow_each_other_add_up(begin: float, span: float) -> None:
    all_of = columns(steadily(40, tokens=20))
    halves = (Window(begin, begin + span), Window(begin + span, begin + 2 * span))
    parts = sum((rates(all_of, half, met=None, gpus=None).output_tokens_per_s or 0) * span for half in halves)
    whole = rates(all_of, Window(begin, begin + 2 * span), met=None, gpus=None)
    assert parts == pytest.approx((whole.output_tokens_per_s or 0) * 2 * span, abs=1e-6)


def test_unknown_token_counts_make_throughput_unknown_and_not_0() -> None:
    records = [*steadily(50), answered(50, 5.0, completion_tokens=None)]
    assert rates(columns(records), WINDOW, met=None, gpus=1).output_tokens_per_s is None


def test_failures_count_as_offered_and_by_kind() -> None:
    records = [
        *steadily(60),
        *(failed(60 + n, 6 + n / 10, kind) for n, kind in enumerate(Outcome) if kind is not Outcome.OK),
    ]
    assert outcomes(columns(records), WINDOW) == {
        "ok": 50,
        **{kind.value: 1 for kind in Outcome if kind is not Outcome.OK},
    }


def test_goodput_is_the_share_of_offered_requests_that_meet_everything() -> None:
    slow = [answered(n, n * 0.1, ttft_s=3.0 if n % 4 == 0 else TTFT_S) for n in range(90)]
    all_of = columns([*slow, *(failed(90 + n, 1.05 + n / 10) for n in range(10))])
    met = met_by_each(all_of, [objective("ttft_s", "p95", "2"), objective("tpot_s", "p50", "0.03")], is_open=True)
    found = rates(all_of, WINDOW, met=met, gpus=None)
    assert found.offered == 90
    assert found.attainment_percent == pytest.approx(100 * 60 / 90)
    assert found.goodput_per_s == pytest.approx(60 / 8)


def test_failed_requests_are_worse_than_any_answer_in_a_percentile() -> None:
    all_of = columns([*steadily(100), *(failed(100 + n, 5 + n / 100) for n in range(10))])
    window_rates = rates(all_of, WINDOW, met=None, gpus=None)
    p50, p95, share, mean = see_objectives(
        all_of,
        WINDOW,
        window_rates,
        [
            objective("ttft_s", "p50", "1"),
            objective("ttft_s", "p95", "1"),
            objective("ttft_s", "attainment", "1", "85"),
            objective("ttft_s", "mean", "1"),
        ],
        is_open=True,
    )
    assert p50.met is True
    assert (p95.met, p95.value) == (False, None)
    assert "10 of 90 requests failed" in (p95.why or "")
    assert (share.met, share.value) == (True, pytest.approx(100 * 80 / 90))
    assert mean.met is False


def test_an_answer_in_one_event_has_no_pace_and_meets_none() -> None:
    lump = columns([answered(n, n * 0.1, tokens=1, completion_tokens=1000) for n in range(100)])
    assert latencies(lump, WINDOW).tpot_s.n == 0
    pace = objective("output_tokens_per_s_per_user", "p50", "20")
    met = met_by_each(lump, [objective("tpot_s", "p95", "0.05"), pace], is_open=True)
    assert met is not None
    assert not met.any()


def test_an_engine_that_answers_nothing_misses_every_objective() -> None:
    refused = columns([failed(n, n * 0.1, Outcome.TOO_MANY) for n in range(100)])
    wanted = [objective("ttft_s", "p95", "1"), objective("tpot_s", "mean", "1"), objective("itl_s", "p50", "1")]
    seen = see_objectives(refused, WINDOW, rates(refused, WINDOW, met=None, gpus=None), wanted, is_open=True)
    assert [one.met for one in seen] == [False, False, False]


def test_what_was_cut_is_no_throughput_and_its_gaps_are_not_good() -> None:
    cut = [answered(n, n * 0.1, outcome=Outcome.CUT if n % 10 else Outcome.OK) for n in range(100)]
    all_of = columns(cut)
    whole = rates(columns(steadily(100)), WINDOW, met=None, gpus=None).output_tokens_per_s or 0
    found = rates(all_of, WINDOW, met=None, gpus=None)
    assert found.output_tokens_per_s == pytest.approx(whole / 10, rel=0.2)
    (itl,) = see_objectives(all_of, WINDOW, found, [objective("itl_s", "p95", "1")], is_open=True)
    assert (itl.met, itl.value) == (False, None)


def test_an_exact_share_is_met() -> None:
    all_of = columns([*steadily(9999, every_s=0.0007), failed(9999, 2.0)])
    window = Window(0.0, 8.0)
    (seen,) = see_objectives(
        all_of,
        window,
        rates(all_of, window, met=None, gpus=None),
        [objective("ttft_s", "attainment", "1", "99.99")],
        is_open=True,
    )
    assert seen.met is True


def test_p99_below_500_values_is_neither_met_nor_missed() -> None:
    all_of = columns(steadily(100))
    (seen,) = see_objectives(
        all_of, WINDOW, rates(all_of, WINDOW, met=None, gpus=None), [objective("ttft_s", "p99", "1")], is_open=True
    )
    assert (seen.met, seen.value, seen.why) == (None, None, "p99 of 80 values; it takes 500")


def test_a_closed_loop_is_judged_from_sending_an_open_one_from_being_due() -> None:
    late = columns([answered(n, n * 0.1, sent_s=n * 0.1 + 0.15) for n in range(100)])
    wanted = [objective("ttft_s", "p50", "0.1")]
    window_rates = rates(late, WINDOW, met=None, gpus=None)
    assert see_objectives(late, WINDOW, window_rates, wanted, is_open=True)[0].met is False
    assert see_objectives(late, WINDOW, window_rates, wanted, is_open=False)[0].met is True


def test_what_an_answer_cannot_have_it_cannot_miss() -> None:
    single = columns([answered(n, n * 0.1, tokens=1) for n in range(100)])
    met = met_by_each(single, [objective("tpot_s", "p95", "0.01")], is_open=True)
    assert met is not None
    assert met.all()


def test_in_flight_and_timeline_add_up() -> None:
    records = [*steadily(100), failed(100, 5.0)]
    all_of = columns(records)
    points = timeline(all_of, 12.0)
    assert sum(point.sent for point in points) == 101
    assert sum(point.ended for point in points) == 101
    assert sum(point.failed for point in points) == 1
    assert sum(point.output_tokens for point in points) == 100 * 50
    assert points[-1].in_flight == 0
    assert in_flight_at(all_of, np.array([5.05]))[0] == pytest.approx(TTFT_S / 0.1 + 49 * GAP_S / 0.1 + 1, abs=2)
    assert points[3].ttft_p50_s == pytest.approx(TTFT_S)


def test_quantiles_run_from_least_to_most() -> None:
    found = quantiles(np.array([3.0, 1.0, np.nan, 2.0]))
    assert (len(found), found[0], found[50], found[100]) == (101, 1.0, 2.0, 3.0)
    assert quantiles(np.array([np.nan])) == ()


# --- files --------------------------------------------------------------------------------------------------


def written(path: Path, *lines: msgspec.Struct | bytes) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def test_workers_files_are_read_together(tmp_path: Path) -> None:
    records = steadily(10)
    first = written(tmp_path / "w0.jsonl", header(0, 2), *records[::2], footer())
    second = written(tmp_path / "w1.jsonl", header(1, 2), *records[1::2], footer())
    files = read_repeat([first, second])
    assert (len(files.headers), len(files.footers), files.torn_lines) == (2, 2, 0)
    assert sorted(files.columns.scheduled_s) == sorted(columns_of(records).scheduled_s)
    assert files.columns.gaps_us.sum() == columns_of(records).gaps_us.sum()


def test_a_killed_workers_torn_line_is_counted_and_the_rest_kept(tmp_path: Path) -> None:
    whole = msgspec.json.encode(answered(1, 0.1))
    files = read_repeat([written(tmp_path / "w0.jsonl", header(), answered(0, 0.0), whole[: len(whole) // 2])])
    assert (files.columns.n, files.torn_lines, files.footers) == (1, 1, ())


@pytest.mark.parametrize(
    "line",
    [b'{"v":2}\n', b"[]\n", b"nothing\n", msgspec.json.encode(answered(0, 0.0)).replace(b'"v":1', b'"v":9') + b"\n"],
)
def test_a_line_of_another_kind_is_refused_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "w0.jsonl", header(), answered(0, 0.0), line)
    with pytest.raises(ValueError, match=r"w0\.jsonl: line 3: expected a record of version 1"):
        read_repeat([path])


def test_only_one_side_of_a_comparison_is_read(tmp_path: Path) -> None:
    both = [answered(n, n * 0.1, side=side) for n in range(5) for side in ("a", "b")]
    path = written(tmp_path / "w0.jsonl", header(), *both, footer())
    assert read_repeat([path], side="a").columns.n == 5


@given(st.lists(st.lists(st.integers(0, 10**6), max_size=5), max_size=8))
def test_event_times_are_first_plus_the_sum_of_gaps(gaps: list[list[int]]) -> None:
    records = [
        RequestRecord(v=1, n=n, item="t", scheduled_s=0.0, first_s=float(n), gaps_us=one, outcome=Outcome.OK)
        for n, one in enumerate(gaps)
    ]
    expected = [n + sum(one[: k + 1]) / 1e6 for n, one in enumerate(gaps) for k in range(len(one))]
    assert columns_of(records).event_times().tolist() == pytest.approx(expected)


@given(st.lists(st.lists(st.integers(0, 50_000), max_size=6), max_size=12), st.integers(1, 20))
def test_parts_of_any_size_hold_every_event_once(gaps: list[list[int]], most: int) -> None:
    rows = columns_of(
        [
            answered(n, float(n), tokens=len(each) + 1, gaps_us=each, token_events=len(each) + 1)
            for n, each in enumerate(gaps)
        ]
    )
    parts = list(rows.parts(most))
    assert [row for part, _ in parts for row in range(part.start, part.stop)] == list(range(rows.n))
    assert all(part.stop - part.start == 1 or of.gaps_us.size <= most for part, of in parts)
    times = np.concatenate([np.zeros(0), *(of.event_times() for _, of in parts)])
    assert times == pytest.approx(rows.event_times(), abs=1e-9)
