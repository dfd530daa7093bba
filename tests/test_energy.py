"""Energy from counters: exact over minutes, never negative, unknown where one began anew; as exporters write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from energy_exporter import GPU_0, GPU_1, counter_lines
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.energy import BEGAN_ANEW, MINUTE, MOST_GAP, NO_PAIR, NO_READING, EnergyReading, Metered, metered
from gateway.domain.records import DCGM_ENERGY, EnergyMeter
from gateway.energy_reports import read_energy

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
COUNTERS = st.integers(0, 2**53)


def reading(seconds: float, *millijoules: int, tokens: int | None = None, started: float | None = 1.0) -> EnergyReading:
    at = NOON + timedelta(seconds=seconds)
    return EnergyReading(at, millijoules or None, tokens, started, None if millijoules else "gone")


def whole(before: EnergyReading | None, now: EnergyReading) -> Metered:
    return sum((part for _, part in metered(before, now)), Metered())


# --- arithmetic ---------------------------------------------------------------------------------------------


def test_energy_between_two_readings_is_the_rise_of_all_gpus_counters() -> None:
    found = whole(reading(0, 1_000, 5_000, tokens=100), reading(30, 22_000, 20_000, tokens=700))
    assert (found.joules, found.covered_us, found.coverage) == (Decimal("36.000"), 30_000_000, 1.0)
    assert found.kwh == Decimal("0.00001")
    assert found.joules_per_output_token == Decimal("0.06")
    assert found.wh_per_thousand_output_tokens == Decimal("60") / 3600
    assert (found.readings, found.output_tokens, found.resets, found.why_unknown) == (1, 600, 0, None)


@given(
    start=st.floats(0, 600),
    seconds=st.floats(0.001, MOST_GAP.total_seconds()),
    counters=st.tuples(COUNTERS, COUNTERS),
    rises=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    tokens=st.integers(0, 10**6),
)
def test_the_shares_of_minutes_add_up_to_the_whole_exactly(
    start: float, seconds: float, counters: tuple[int, int], rises: tuple[int, int], tokens: int
) -> None:
    before = reading(start, *counters, tokens=7)
    after = [old + rise for old, rise in zip(counters, rises, strict=True)]
    now = reading(start + seconds, *after, tokens=7 + tokens)
    parts = list(metered(before, now))
    found = sum((part for _, part in parts), Metered())
    elapsed_us = (now.at - before.at) // timedelta(microseconds=1)
    assert (found.millijoules, found.output_tokens, found.readings) == (sum(rises), tokens, 1)
    assert found.up_us == found.covered_us == elapsed_us
    for minute, part in parts:
        assert minute == minute.replace(second=0, microsecond=0)
        assert part.millijoules >= 0
        assert part.up_us <= MINUTE // timedelta(microseconds=1)


@given(before=st.lists(COUNTERS, min_size=1, max_size=4), after=st.lists(COUNTERS, min_size=1, max_size=4))
def test_energy_is_never_negative_and_a_drop_of_one_counter_makes_the_span_unknown(
    before: list[int], after: list[int]
) -> None:
    found = whole(reading(0, *before), reading(10, *after))
    drops = len(before) != len(after) or any(new < old for old, new in zip(before, after, strict=True))
    assert found.millijoules >= 0
    assert (found.resets, found.covered_us == 0) == (int(drops), drops)
    assert (found.joules is None) is drops
    assert found.up_us == 10_000_000


def test_after_a_reset_only_what_comes_later_is_known_and_the_coverage_says_so() -> None:
    steps = [reading(0, 9_000), reading(10, 12_000), reading(20, 500), reading(30, 2_500)]
    found = sum((whole(a, b) for a, b in pairwise(steps)), whole(None, steps[0]))
    assert (found.joules, found.resets, found.reason) == (Decimal("5.000"), 1, BEGAN_ANEW)
    assert found.coverage == pytest.approx(2 / 3)
    assert found.readings == 4


def test_a_reading_that_failed_leaves_the_time_around_it_uncovered_with_its_reason() -> None:
    steps = [reading(0, 1_000), reading(10), reading(20, 9_000), reading(30, 10_000)]
    found = sum((whole(a, b) for a, b in pairwise(steps)), whole(None, steps[0]))
    assert (found.joules, found.reason, found.readings) == (Decimal("1.000"), "gone", 3)
    assert found.coverage == pytest.approx(1 / 3)


@pytest.mark.parametrize("seconds", [0, -5, MOST_GAP.total_seconds() + 1])
def test_a_clock_set_back_or_a_long_silence_covers_nothing(seconds: float) -> None:
    found = whole(reading(0, 1_000), reading(seconds, 2_000))
    assert (found.up_us, found.covered_us, found.joules, found.readings) == (0, 0, None, 1)


def test_tokens_of_an_engine_that_began_anew_divide_nothing_and_its_energy_still_counts() -> None:
    known = whole(reading(0, 0, tokens=0), reading(10, 4_000, tokens=100))
    restarted = whole(reading(10, 4_000, tokens=100), reading(20, 8_000, tokens=150, started=2.0))
    silent = whole(reading(20, 8_000), reading(30, 12_000))
    found = known + restarted + silent
    assert found.joules == Decimal("12.000")
    assert found.joules_per_output_token == Decimal("0.04")


def test_what_is_unknown_says_why() -> None:
    assert Metered().why_unknown == NO_READING
    assert whole(None, reading(0, 5)).why_unknown == NO_PAIR
    assert whole(reading(0), reading(5)).why_unknown == "gone"
    assert Metered().coverage is Metered().wh_per_thousand_output_tokens is Metered().kwh is None


# --- what exporters write -----------------------------------------------------------------------------------

BY_INDEX = EnergyMeter("http://node:9400/metrics", ("0",))
BY_UUID = EnergyMeter("http://node:9400/metrics", (GPU_1, "0"))


def test_counters_are_found_by_index_or_uuid_in_the_order_asked_for() -> None:
    page = counter_lines({0: 5_551_899_580, 1: 955_287_014})
    assert tuple(read_energy(page, BY_INDEX).values()) == (5_551_899_580,)
    assert tuple(read_energy(page, BY_UUID).values()) == (955_287_014, 5_551_899_580)


def test_one_card_that_several_pods_are_told_of_counts_once() -> None:
    page = counter_lines({0: 7}, more='pod="a"') + counter_lines({0: 7}, more='pod="b"')
    assert tuple(read_energy(page, BY_INDEX).values()) == (7,)


def test_an_index_and_a_uuid_of_one_card_are_no_two_counters() -> None:
    with pytest.raises(ValueError, match="names one card by two names") as refused:
        read_energy(counter_lines({0: 1_000, 1: 5_000}), EnergyMeter("http://node:9400/metrics", ("0", GPU_0)))
    assert str(refused.value).startswith(f"the GPU {GPU_0} is the GPU 0")


def test_cards_of_one_index_on_a_page_of_several_machines_are_unknown_even_when_they_counted_the_same() -> None:
    page = counter_lines({0: 7}) + counter_lines({0: 7}).replace(GPU_0.encode(), GPU_1.encode())
    with pytest.raises(ValueError, match="different counters of the GPU 0; it may be of several machines"):
        read_energy(page, BY_INDEX)


def test_a_card_is_known_by_its_uuid_and_else_by_its_place() -> None:
    page = counter_lines({0: 7})
    elsewhere = EnergyMeter("http://localhost:9400/metrics", ("0",))
    assert list(read_energy(page, BY_INDEX)) == list(read_energy(page, elsewhere)) == [GPU_0]
    bare = f'{DCGM_ENERGY}{{gpu="0"}} 7\n'.encode()
    assert read_energy(bare, BY_INDEX).keys().isdisjoint(read_energy(bare, elsewhere))


def test_another_metric_in_joules_is_read_in_its_unit() -> None:
    meter = EnergyMeter("http://node/metrics", (GPU_0,), metric="nvidia_smi_energy_joules_total", millijoules_each=1000)
    page = f'nvidia_smi_energy_joules_total{{uuid="{GPU_0}"}} 5.5518995801e+06\n'.encode()
    assert tuple(read_energy(page, meter).values()) == (5_551_899_580,)


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (b"", "the exporter shows no DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        (b'DCGM_FI_DEV_POWER_USAGE{gpu="0"} 250.5\n', "the exporter shows no DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        (counter_lines({1: 5}), "the exporter shows no counter of the GPU 0"),
        (counter_lines({0: 5}, more='GPU_I_ID="3"'), "the GPU 0 is divided (MIG): its counter is the whole card's"),
        (counter_lines({0: 5}) + counter_lines({0: 6}), "the exporter shows different counters of the GPU 0"),
        (counter_lines({0: 9_223_372_036_854_775_794}), "the counter of the GPU 0 is no quantity"),
        (counter_lines({0: -1}), "the counter of the GPU 0 is no quantity"),
        (f'{DCGM_ENERGY}{{gpu="0"}} NaN\n'.encode(), "the counter of the GPU 0 is no quantity"),
        (f'{DCGM_ENERGY}{{gpu="0"}} much\n'.encode(), "the counter of the GPU 0 is no quantity"),
    ],
)
def test_a_counter_that_is_not_there_or_no_quantity_is_unknown_with_the_reason(page: bytes, why: str) -> None:
    with pytest.raises(ValueError, match="the") as refused:
        read_energy(page, BY_INDEX)
    assert str(refused.value).startswith(why)


@given(st.binary(max_size=300))
def test_no_page_makes_the_reader_fail_otherwise(noise: bytes) -> None:
    for page in (noise, DCGM_ENERGY.encode() + noise, f'{DCGM_ENERGY}{{gpu="0"}} '.encode() + noise):
        try:
            (found,) = read_energy(page, BY_INDEX).values()
        except ValueError:
            continue
        assert 0 <= found <= 2**53
