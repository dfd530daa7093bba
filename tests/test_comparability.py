"""When timings may be compared, which side is called fastest or cheapest, and what a streamed answer says."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer_text import AnswerText
from gateway.comparison_export import csv_head, csv_rows
from gateway.domain.comparability import Finished, judge_timing, summarise
from gateway.domain.records import Cost, Provenance, Timing, Usage
from gateway.errors import UpstreamTruncated
from gateway.evidence import feasibility_summary


def finished(model: str = "a", **changes: Any) -> Finished:
    side = Finished(
        model=model,
        is_ok=True,
        provenance=Provenance.REAL,
        usage=Usage(10, 20, 0, None, "engine"),
        timing=Timing(queue_s=0.0, ttft_s=0.2, tpot_s=0.01, e2e_s=0.4),
        cost=Cost(Decimal("0.5"), "USD", "api_price"),
        host=f"host-{model}",
        span_s=(0.0, 1.0),
    )
    return replace(side, **changes)


def facts(*sides: Finished) -> dict[str, Any]:
    return summarise(sides, judge_timing(sides))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_ok": False}, "b gave no complete answer"),
        ({"host": "host-a"}, "a and b shared the host host-a at the same time"),
        ({"usage": Usage(10, 20, 5)}, "cached prompt tokens: a 0, b 5"),
        ({"provenance": Provenance.SIMULATED}, "provenance differs (a real, b simulated)"),
        ({"attempts": 2}, "b was tried on 2 replicas"),
        ({"was_held_back": True}, "b had to wait for a slow reader"),
        ({"timing": Timing(queue_s=0.25, ttft_s=0.4)}, "b waited 0.250 s for an engine"),
    ],
)
def test_each_obstacle_makes_timings_incomparable_and_is_named(changes: dict[str, Any], words: str) -> None:
    judgement = judge_timing([finished("a"), finished("b", **changes)])
    assert not judgement.comparable
    assert words in judgement.reason


def test_simulated_hosts_are_never_called_hosts() -> None:
    simulated = [finished(model, provenance=Provenance.SIMULATED) for model in "ab"]
    assert "separate simulated hosts" in judge_timing(simulated).reason
    assert "separate hosts" in judge_timing([finished("a"), finished("b")]).reason


def test_one_host_one_after_the_other_is_comparable() -> None:
    judgement = judge_timing([finished("a"), finished("b", host="host-a", span_s=(1.0, 2.0))])
    assert judgement.comparable
    assert judgement.reason == "asked one after the other"


def test_a_warm_cache_beside_an_unknown_one_is_an_obstacle() -> None:
    sides = [finished("a", usage=Usage(10, 20, 8)), finished("b", usage=Usage(10, 20))]
    assert "a 8, b unknown" in judge_timing(sides).reason


def test_unknown_caches_are_assumed_equal_and_said_so() -> None:
    judgement = judge_timing([finished("a"), finished("b", usage=Usage(10, 20))])
    assert judgement.comparable
    assert "b did not report cached tokens" in judgement.reason


@given(st.permutations(range(4)))
def test_the_fastest_does_not_depend_on_the_order(order: list[int]) -> None:
    sides = [finished(f"m{n}", timing=Timing(ttft_s=0.1 + n)) for n in order]
    assert facts(*sides)["fastest_first_token"] == {"model": "m0", "ttft_s": 0.1, "reason": None}


def test_a_tie_names_nobody() -> None:
    summary = facts(finished("a"), finished("b"))
    assert summary["fastest_first_token"]["model"] is None
    assert "more than one" in summary["fastest_first_token"]["reason"]
    assert "more than one" in summary["cheapest"]["reason"]


def test_an_unknown_first_token_time_names_nobody() -> None:
    fastest = facts(finished("a"), finished("b", timing=Timing()))["fastest_first_token"]
    assert fastest == {"model": None, "ttft_s": None, "reason": "the first-token time of b is unknown"}


def test_the_cheapest_is_named_where_costs_rest_on_the_same_things() -> None:
    cheapest = facts(finished("a"), finished("b", cost=Cost(Decimal("0.000001"), "USD", "api_price")))["cheapest"]
    assert cheapest == {
        "model": "b",
        "amount": "0.000001",
        "currency": "USD",
        "basis": "api_price",
        "reason": None,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost": Cost(Decimal(1), "KRW", "api_price")}, "a USD by api_price, b KRW by api_price"),
        ({"cost": Cost(Decimal("0.1"), "USD", "gpu_time_provisional")}, "b USD by gpu_time_provisional"),
        ({"cost": Cost(None, None, "unknown", "no price")}, "the cost of b is unknown"),
        ({"is_ok": False, "cost": Cost(Decimal("0.1"), "USD", "api_price")}, "b gave no complete answer"),
    ],
)
def test_the_cheapest_is_unknown_where_costs_are_unlike(changes: dict[str, Any], words: str) -> None:
    cheapest = facts(finished("a"), finished("b", **changes))["cheapest"]
    assert cheapest["model"] is None
    assert words in cheapest["reason"]


def test_gpu_time_is_no_cheaper_when_timings_are_not_comparable() -> None:
    sides = [
        finished(m, host="one", cost=Cost(Decimal(c), "USD", "gpu_time_provisional")) for m, c in (("a", 1), ("b", 2))
    ]
    assert "shared the host one" in facts(*sides)["cheapest"]["reason"]


def test_a_summary_says_when_answers_are_not_real() -> None:
    assert facts(finished("a"), finished("b"))["provenance"] == {"value": "real", "reason": None}
    mixed = facts(finished("a"), finished("b", provenance=Provenance.STAND_IN))["provenance"]
    assert mixed["value"] is None
    assert "b is stand_in" in mixed["reason"]


# --- the text of an answer ----------------------------------------------------------------------------------


def sse(delta: Any, *, index: int = 0) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": index, "delta": delta}]}, ensure_ascii=False).encode() + b"\n\n"
    )


WORDS = ("국가 ", "초거대 ", "모델 😀")
STREAM = b"".join(
    [
        sse({"role": "assistant", "content": ""}),
        sse({"reasoning": "생각"}),
        sse({"reasoning_content": "한다"}),
        *(sse({"content": word}) for word in WORDS),
        sse({"content": "다른 선택"}, index=1),
        sse({"tool_calls": [{"index": 1, "id": "t1", "function": {"name": "g", "arguments": "{}"}}]}),
        sse({"tool_calls": [{"index": 0, "id": "t0", "function": {"name": "f", "arguments": '{"a"'}}]}),
        sse({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
        b"data: [DONE]\n\n",
    ]
)
OUTPUT = {
    "content": "".join(WORDS),
    "reasoning": "생각한다",
    "tool_calls": [
        {"id": "t0", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "t1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ],
}


@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_an_answer_is_the_same_however_its_bytes_are_split(cuts: list[int]) -> None:
    answer = AnswerText(1_000_000)
    edges = [0, *cuts, len(STREAM)]
    added = [answer.feed(STREAM[start:end]) for start, end in pairwise(edges)]
    assert answer.output() == OUTPUT
    assert "".join(delta.get("content", "") for delta in added) == OUTPUT["content"]
    assert "".join(delta.get("reasoning", "") for delta in added) == OUTPUT["reasoning"]


def test_nothing_said_is_null_and_an_empty_text_is_empty() -> None:
    answer = AnswerText(1000)
    assert answer.output() == {"content": None, "reasoning": None, "tool_calls": None}
    assert answer.feed(sse({"content": ""})) == {}
    assert answer.output()["content"] == ""


def test_an_answer_over_the_limit_is_cut() -> None:
    with pytest.raises(UpstreamTruncated, match="longer than 10 bytes"):
        AnswerText(10).feed(b"data: 01234567\n\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["index", "id", "type", "function", "name", "arguments", "content", "tool_calls"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_odd_deltas_never_break_an_answer(delta: Any) -> None:
    answer = AnswerText(1_000_000)
    answer.feed(sse(delta) + sse({"tool_calls": delta}) + sse({"tool_calls": [delta]}))
    output = answer.output()
    assert isinstance(output["content"], str | None)
    for call in output["tool_calls"] or ():
        assert isinstance(call["function"]["arguments"], str)


# --- exported cells -----------------------------------------------------------------------------------------


@given(st.text(max_size=20) | st.text("=+-@＝\t\r\n 1A", max_size=5))
def test_no_exported_text_can_become_a_formula(text: str) -> None:
    names = ("model", "status", "provenance", "finish_reason", "call_id", "usage", "timing", "cost", "feasibility")
    side = {**dict.fromkeys((*names, "error")), "output": {"content": text, "reasoning": None, "tool_calls": None}}
    whole = {
        **dict.fromkeys(
            ("id", "created_at", "schedule", "params", "messages", "timing_comparable", "timing_reason", "batch")
        ),
        "sides": [side],
    }
    (row,) = csv.DictReader(io.StringIO((csv_head() + csv_rows(whole)).decode("utf-8-sig"), newline=""))
    cell = row["content"]
    assert cell in (text, "'" + text)
    assert not cell.strip().startswith(("=", "+", "-", "@", "＝"))


def test_an_unknown_gpu_is_an_unknown_verdict_with_its_reason() -> None:
    summary = feasibility_summary(None, gpu_id="b300")
    assert (summary["verdict"], summary["gpu"]) == ("unknown", "b300")
    assert summary["reasons"] == ["Unknown: the registry has no GPU 'b300'."]
    assert summary["headroom_gib"] is None
