"""What a million tokens cost at a load: by hand, by proportion, and unknown where it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.cost import convert, cost_per_mtok, is_stale, price_in_force
from gateway.domain.records import Confidence, CurrencyRate, Gpu, GpuPrice, Sourced
from gateway.domain.token_cost import (
    Load,
    cost_per_million,
    cost_per_thousand_characters,
    energy_per_token,
    sensitivity,
)

D = Decimal
SOURCED = Sourced("LISTS", Confidence.MEDIUM)
FULL = Load("at_full", D(2500), D(7500), D(9))
POSITIVE = st.decimals(D("0.01"), D(10_000), places=2)


def amounts(load: Load) -> dict[str, Decimal | None]:
    return {figure.name: figure.amount for figure in cost_per_million(load)}


def test_a_gpu_hour_of_nine_dollars_at_2500_tokens_a_second() -> None:
    """9 million output and 27 million input tokens an hour; an output token is 9 / (9 + 27 / 4) of a millionth."""
    found = amounts(FULL)
    assert found["output"] == 1
    assert found["input_and_output"] == D("0.25")
    assert found["blended_3_to_1"] == pytest.approx(D(9) / D("15.75") * D("1.75") / 4)


def test_idle_time_is_in_the_price_of_a_token() -> None:
    assert amounts(replace(FULL, utilisation=D("0.25")))["output"] == 4


@given(POSITIVE, POSITIVE, st.integers(1, 16), st.integers(1, 100))
def test_the_output_figure_is_the_formula(rate: Decimal, price: Decimal, gpus: int, percent: int) -> None:
    load = Load("claimed", rate, D(0), price, gpus, D(percent) / 100)
    expected = cost_per_mtok(price, gpus, float(rate), percent / 100)
    assert amounts(load)["output"] == pytest.approx(expected, rel=D("1e-9"))


@given(POSITIVE, POSITIVE, POSITIVE, st.decimals(0, 4, places=3))
def test_input_and_output_at_their_blended_prices_cost_all_the_money(
    outward: Decimal, inward: Decimal, price: Decimal, weight: Decimal
) -> None:
    load = Load("seen", outward, inward, price, weight=weight)
    blended = amounts(load)["blended_3_to_1"]
    assert blended is not None
    output_price = blended * 4 / (3 * weight + 1)
    assert (output_price * outward + output_price * weight * inward) / 10**6 * 3600 == pytest.approx(price)


def test_where_tokens_come_in_the_blends_own_ratio_its_price_depends_on_no_weight() -> None:
    for weight in ("0", "0.1", "1"):
        assert amounts(replace(FULL, weight=D(weight)))["blended_3_to_1"] == pytest.approx(D("0.25"))


def test_no_tokens_make_no_price_and_a_reason() -> None:
    for figure in cost_per_million(Load("seen", D(0), D(0), D(9))):
        assert (figure.amount, figure.reason) == (None, "there were no such tokens")


def test_a_thousand_korean_characters() -> None:
    """Half a token a character at one dollar a million tokens."""
    output = cost_per_million(FULL)[0]
    assert cost_per_thousand_characters(output, 2000, 1000).amount == D("0.0005")
    unknown = cost_per_thousand_characters(output, None, None)
    assert unknown.amount is None
    assert unknown.reason is not None
    assert "no answers" in unknown.reason


def test_energy_is_of_counters_or_unknown() -> None:
    assert energy_per_token(D(700), 1400).amount == D("0.5")
    assert energy_per_token(None, 5).reason == "no NVML or DCGM energy counter was read"
    assert energy_per_token(D(700), 0).amount is None
    with pytest.raises(ValueError, match="joules"):
        energy_per_token(D(-1), 5)


def test_sensitivity_says_what_changes_the_result_by_how_much() -> None:
    load = replace(FULL, input_tokens_per_s=D(2500), utilisation=D("0.5"))
    rows = {row.changed: row for row in sensitivity(load, prices=[D(18)])}
    assert rows["price +20%"].changes["output"] == D("0.2")
    assert rows["price 18"].changes["output"] == 1
    assert rows["utilisation -20%"].changes["output"] == D("0.25")
    assert rows["utilisation +20%"].amounts["output"] == pytest.approx(D(2) / D("1.2"))
    assert rows["weight × 2"].changes["output"] == 0
    assert rows["weight × 2"].changes["blended_3_to_1"] != 0
    at_full = {row.changed: row for row in sensitivity(FULL)}
    assert at_full["utilisation +20%"].changes["output"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"per_hour": D(-1)},
        {"per_hour": D("NaN")},
        {"output_tokens_per_s": D(-1)},
        {"gpus": 0},
        {"utilisation": D(0)},
        {"utilisation": D("1.1")},
        {"weight": D(-1)},
    ],
)
def test_senseless_loads_are_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        cost_per_million(replace(FULL, **changes))  # type: ignore[arg-type]


# --- prices and rates ---------------------------------------------------------------------------------------


def gpu(*prices: GpuPrice) -> Gpu:
    return Gpu("h100-sxm", "H100", 80, 3.35e12, None, None, None, SOURCED, prices)


def price(per_hour: str, on: date, tier: str = "list_median", currency: str = "USD") -> GpuPrice:
    return GpuPrice(D(per_hour), currency, tier, "public lists", on, SOURCED)


SPRING, SUMMER, AUTUMN = date(2026, 3, 1), date(2026, 7, 1), date(2026, 10, 1)


def test_the_price_in_force_is_the_last_of_its_list_up_to_the_day() -> None:
    device = gpu(price("3", SUMMER), price("2", SPRING), price("1", SPRING, "list_low"))
    for on, expected in (
        (SPRING, "2"),
        (date(2026, 6, 30), "2"),
        (SUMMER, "3"),
        (AUTUMN, "3"),
        (date(2025, 1, 1), "2"),
    ):
        found = price_in_force(device, on).price
        assert found is not None
        assert found.per_hour == D(expected)
    of_tier = price_in_force(device, AUTUMN, tier="list_low").price
    assert of_tier is not None
    assert of_tier.per_hour == 1


def test_no_price_is_unknown_with_what_is_missing() -> None:
    assert price_in_force(None, SPRING).reason == "the registry does not know the GPU that the replica runs on"
    assert price_in_force(gpu(), SPRING).reason == "the registry has no hourly price for h100-sxm"
    spot = price_in_force(gpu(price("3", SPRING)), SPRING, tier="spot")
    assert spot.reason == "the registry has no hourly price of tier spot for h100-sxm"


def test_a_price_of_more_than_ninety_days_ago_is_stale() -> None:
    assert not is_stale(SPRING, date(2026, 5, 30))
    assert is_stale(SPRING, date(2026, 5, 31))
    assert is_stale(None, SPRING)


def test_currencies_are_converted_by_a_dated_rate_only() -> None:
    rates = [
        CurrencyRate("USD", "KRW", D(1400), SPRING, SOURCED),
        CurrencyRate("USD", "KRW", D(1500), SUMMER, SOURCED),
    ]
    there = convert(D(2), "USD", "KRW", rates, date(2026, 4, 1))
    assert there.amount == 2800
    assert there.reason == "at 1400 KRW a USD of 2026-03-01 (LISTS)"
    back = convert(D(3000), "KRW", "USD", rates, date(2026, 12, 1))
    assert back.amount == 2
    assert back.reason is not None
    assert back.reason.endswith("more than 90 days old")
    unknown = convert(D(2), "USD", "EUR", rates, SUMMER)
    assert (unknown.amount, unknown.basis) == (None, "unknown")
    assert unknown.reason is not None
    assert "no rate between USD and EUR" in unknown.reason
    assert convert(D(2), "USD", "KRW", rates, date(2026, 2, 1)).amount is None
    with pytest.raises(ValueError, match="rate"):
        convert(D(2), "USD", "KRW", [replace(rates[0], rate=D(0))], SPRING)
