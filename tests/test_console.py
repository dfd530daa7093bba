"""What stands on the screen: aligned, complete, honest about the unknown, and safe to print."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from gateway.comparison_view import ComparisonView
from gateway.console import (
    Column,
    Figure,
    printable,
    render_estimates,
    render_models,
    render_problems,
    render_table,
    significant,
    wants_json,
)
from gateway.domain.feasibility import estimate
from gateway.domain.records import (
    Confidence,
    Gpu,
    Licence,
    Model,
    ModelShape,
    Serving,
    ServingKind,
    Sourced,
    Weights,
)

Facts = dict[str, Any]


def answered(model: str = "exaone", content: str = "네, 맞습니다.", **changes: Any) -> Facts:
    """The side object of a call that went well."""
    side: Facts = {
        "model": model,
        "status": "ok",
        "output": {"content": content, "reasoning": None, "tool_calls": None},
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": 31,
            "completion_tokens": 120,
            "cached_tokens": None,
            "reasoning_tokens": None,
            "source": "engine",
        },
        "timing": {"queue_s": 0.0, "ttft_s": 0.0843, "ttfot_s": 0.0843, "tpot_s": 0.0125, "e2e_s": 1.523},
        "cost": {"amount": "0.0000123", "currency": "USD", "basis": "api_price", "reason": None},
        "feasibility": {"verdict": "fits", "gpu": "h100-sxm", "reasons": ["Fits one H100 SXM."]},
        "provenance": "real",
        "error": None,
    }
    return side | changes


def failed(model: str = "kanana", **changes: Any) -> Facts:
    """The side object of a call whose engine went away after its first byte."""
    side: Facts = {
        "model": model,
        "status": "error",
        "output": None,
        "finish_reason": None,
        "usage": {"prompt_tokens": None, "completion_tokens": None, "source": "unknown"},
        "timing": {"queue_s": None, "ttft_s": None, "tpot_s": None, "e2e_s": None},
        "cost": {"amount": None, "currency": None, "basis": "unknown", "reason": None},
        "feasibility": {"verdict": "unknown", "gpu": None, "reasons": ["Unknown: no shape in the registry."]},
        "provenance": None,
        "error": {"message": "the engine closed the stream", "code": "upstream_truncated"},
    }
    return side | changes


def compared(*sides: Facts, comparable: bool | None = True, reason: str = "one replica each") -> Facts:
    return {"id": "c1", "sides": list(sides), "timing_comparable": comparable, "timing_reason": reason}


def drawn(what: RenderableType, *, width: int = 100) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(what)
    return console.export_text()


def row(text: str, label: str) -> list[str]:
    """The figures that stand beside `label`; cells stand at least two blanks apart."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    (cells,) = [line[1:] for line in lines if line[:1] == [label]]
    return cells


# --- answers side by side -----------------------------------------------------------------------------------


def test_answers_stand_side_by_side_where_there_is_room() -> None:
    top = drawn(ComparisonView.of(compared(answered("one"), answered("two")))).splitlines()[0]
    assert "one" in top
    assert "two" in top


def test_a_narrow_terminal_stacks_the_answers() -> None:
    lines = drawn(ComparisonView.of(compared(answered("one"), answered("two"))), width=60).splitlines()
    assert "two" not in lines[0]
    assert [line.split()[1] for line in lines if line.startswith("╭")] == ["one", "two"]


def test_eight_models_are_all_shown_with_all_figures_at_any_width() -> None:
    models = [f"model-{n}" for n in range(8)]
    for width in (30, 80, 200):
        text = drawn(ComparisonView.of(compared(*(answered(m) for m in models))), width=width)
        assert all(text.count(model) >= 2 for model in models)


@given(st.text("가힣漢ア😀a Z.\n", max_size=200), st.integers(40, 120))
def test_borders_align_whatever_the_width_of_the_characters(content: str, width: int) -> None:
    text = drawn(ComparisonView.of(compared(answered("하나", content), answered("둘", "짧은 답"))), width=width)
    assert {cell_len(line) for line in text.splitlines() if line[:1] in ("╭", "│", "╰")} == {width}


def test_the_whole_answer_is_printed_at_the_end() -> None:
    content = " ".join(f"낱말{n}" for n in range(2000))
    text = drawn(ComparisonView.of(compared(answered(content=content), answered("b"))))
    assert all(f"낱말{n}" in text for n in range(2000))


def test_a_failure_does_not_hide_the_other_answer() -> None:
    text = drawn(ComparisonView.of(compared(failed(), answered(content="답은 이렇습니다."))))
    assert "답은 이렇습니다." in text
    assert "failed: the engine closed the stream" in text
    assert row(text, "Status") == ["error [1]", "ok (stop)"]


def test_what_came_before_a_failure_stays_on_the_screen() -> None:
    view = ComparisonView(["a", "b"])
    view.feed("side.delta", {"side": 0, "content": "전입신고는"})
    view.feed("side.finished", {"side": 0, **failed("a")})
    text = drawn(view)
    assert "전입신고는" in text
    assert "failed: " in text


def test_a_skipped_side_is_called_skipped() -> None:
    side = failed(status="skipped", error={"message": "time was up", "code": None})
    text = drawn(ComparisonView.of(compared(answered(), side)))
    assert "skipped: time was up" in text


def test_an_empty_answer_is_said_to_be_empty() -> None:
    assert "(an empty answer)" in drawn(ComparisonView.of(compared(answered(content=""), answered("b"))))


def test_tool_calls_are_shown() -> None:
    call = {"function": {"name": "get_weather", "arguments": '{"city": "서울"}'}}
    side = answered(output={"content": None, "reasoning": None, "tool_calls": [call]})
    assert 'tool call: get_weather({"city": "서울"})' in drawn(ComparisonView.of(compared(side, answered("b"))))


def test_reasoning_is_dim_and_the_answer_is_not() -> None:
    side = answered(output={"content": "답", "reasoning": "생각", "tool_calls": None})
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system="standard")
    styles = {s.text.strip(): s.style for s in console.render(ComparisonView.of(compared(side))) if s.style}
    assert styles["생각"].dim
    assert not (styles.get("답") and styles["답"].dim)


def test_markup_in_an_answer_is_text() -> None:
    text = drawn(ComparisonView.of(compared(answered(content="[bold]x[/bold] [/no] [link=u]"), answered("b"))))
    assert "[bold]x[/bold] [/no] [link=u]" in text


@given(st.text(max_size=60))
def test_no_text_of_a_model_or_an_engine_steers_the_terminal(text: str) -> None:
    side = failed(error={"message": text, "code": text}) | {"output": {"content": text, "reasoning": text}}
    shown = drawn(ComparisonView.of(compared(side, answered(text, finish_reason=text), reason=text)))
    assert printable(shown) == shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x9b2J", "\r", "\x07", "\u202e", "\u2066", "\ud800", "\x7f"])
def test_what_steers_is_removed_wherever_a_stream_cuts_it(bad: str) -> None:
    assert printable("a" + bad) + printable("b") == printable("a" + bad + "b")
    assert not set(bad) & set(printable(bad)) - set("[2J")


# --- provenance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "mark"), [("simulated", "simulated"), ("stand_in", "stand-in")])
def test_what_is_not_real_says_so_in_the_title_and_below(word: str, mark: str) -> None:
    text = drawn(ComparisonView.of(compared(answered("a", provenance=word), answered("b"))))
    assert f"a · {mark}" in text.splitlines()[0]
    assert row(text, "Provenance") == [mark, "real"]
    assert f"{mark}: " in text


def test_real_carries_no_mark() -> None:
    text = drawn(ComparisonView.of(compared(answered("a"), answered("b"))))
    assert "·" not in text.splitlines()[0]


def test_a_long_name_does_not_push_the_mark_away() -> None:
    side = answered("a-model-with-" + "very-" * 20 + "long-name", provenance="simulated")
    top = drawn(ComparisonView.of(compared(side, answered("b"))), width=80).splitlines()[0]
    assert "… · simulated" in top


def test_an_engine_that_did_not_say_what_it_is_is_marked() -> None:
    text = drawn(ComparisonView.of(compared(answered("a", provenance=None), answered("b"))))
    assert "a · provenance unknown" in text.splitlines()[0]


def test_what_was_not_sent_to_a_side_is_told() -> None:
    text = drawn(ComparisonView.of(compared({**answered("a"), "dropped": ["seed", "user"]}, answered("b"))))
    assert "a: its API does not know seed, user, so it was not sent" in text


# --- figures ------------------------------------------------------------------------------------------------


def test_every_figure_has_its_unit() -> None:
    text = drawn(ComparisonView.of(compared(answered())))
    assert row(text, "TTFT (ms)") == ["84.3"]
    assert row(text, "TPOT (ms)") == ["12.5"]
    assert row(text, "Tokens/s (1 ÷ TPOT)") == ["80.0"]
    assert row(text, "E2E (s)") == ["1.52"]
    assert row(text, "Tokens in") == ["31"]
    assert row(text, "Tokens out") == ["120"]
    assert row(text, "Cost") == ["0.0000123 USD"]
    assert row(text, "Cost basis") == ["API price"]
    assert row(text, "One GPU (predicted)") == ["fits · h100-sxm [1]"]
    assert "[1] Fits one H100 SXM." in text


def test_what_a_failed_side_lacks_is_unknown_and_says_why() -> None:
    text = drawn(ComparisonView.of(compared(failed())))
    for label in ("TTFT (ms)", "TPOT (ms)", "E2E (s)", "Tokens in", "Tokens out", "Cost", "Cost basis", "Provenance"):
        assert row(text, label) == ["unknown [1]"], label
    assert "[1] kanana: the engine closed the stream (upstream_truncated)" in text
    assert row(text, "One GPU (predicted)") == ["unknown [2]"]
    assert "[2] Unknown: no shape in the registry." in text


@pytest.mark.parametrize(
    ("changes", "label", "why"),
    [
        ({"usage": {"source": "unknown"}}, "Tokens in", "no count (usage source: unknown)"),
        ({"usage": {}, "timing": {"tpot_s": None}}, "TPOT (ms)", "needs a token count, and there is none"),
        ({"timing": {"tpot_s": None}}, "TPOT (ms)", "needs at least one token after the first event"),
        ({"timing": {"tpot_s": 0.0}}, "Tokens/s (1 ÷ TPOT)", "all tokens came at one moment"),
        ({"timing": {}}, "TTFT (ms)", "not measured for this call"),
        ({"cost": {"amount": None, "basis": "unknown", "reason": "no price"}}, "Cost", "no price"),
        ({"cost": {"amount": None, "basis": "unknown", "reason": "no price"}}, "Cost basis", "no price"),
        ({"cost": None}, "Cost", "no price is known for this call"),
        ({"feasibility": None}, "One GPU (predicted)", "no verdict was given"),
        ({"provenance": "unknown"}, "Provenance", "nothing proves what stands behind the engine"),
    ],
)
def test_unknown_says_unknown_and_why(changes: Mapping[str, Any], label: str, why: str) -> None:
    text = drawn(ComparisonView.of(compared(answered(**changes))))
    (cell,) = row(text, label)
    word, number = cell.split(" ")
    assert word == "unknown"
    assert f"{number} {why}" in text


def test_a_cost_of_zero_is_not_unknown() -> None:
    cost = {"amount": Decimal(0), "currency": "KRW", "basis": "api_price"}
    assert row(drawn(ComparisonView.of(compared(answered(cost=cost)))), "Cost") == ["0 KRW"]


def test_an_assumption_behind_a_cost_is_a_footnote() -> None:
    cost = {"amount": "1.5", "currency": "KRW", "basis": "api_price", "reason": "no cached price is known"}
    text = drawn(ComparisonView.of(compared(answered(cost=cost))))
    assert row(text, "Cost") == ["1.50 KRW [1]"]
    assert "[1] no cached price is known" in text


def test_counts_that_are_not_the_engines_say_so() -> None:
    side = answered(usage={"prompt_tokens": 5, "completion_tokens": 7, "source": "counted"})
    text = drawn(ComparisonView.of(compared(side)))
    assert row(text, "Tokens out") == ["7 [1]"]
    assert "[1] usage source: counted" in text


def test_reasoning_and_cached_tokens_are_shown_as_parts() -> None:
    usage = {
        "prompt_tokens": 2000,
        "cached_tokens": 1500,
        "completion_tokens": 90,
        "reasoning_tokens": 60,
        "source": "engine",
    }
    text = drawn(ComparisonView.of(compared(answered(usage=usage))))
    assert row(text, "Tokens in") == ["2,000 (1,500 cached)"]
    assert row(text, "Tokens out") == ["90 (60 reasoning)"]


@pytest.mark.parametrize(("comparable", "word"), [(True, "yes"), (False, "no"), (None, "unknown")])
def test_it_says_whether_timings_compare_and_why(comparable: bool | None, word: str) -> None:
    text = drawn(ComparisonView.of(compared(answered(), comparable=comparable, reason="they shared a GPU")))
    assert f"Timings comparable: {word} (they shared a GPU)" in text


@given(st.floats(1e-12, 1e12))
def test_a_figure_keeps_three_digits_and_is_never_rounded_to_nothing(value: float) -> None:
    shown = significant(value)
    assert "e" not in shown.lower()
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.0051)


# --- live ---------------------------------------------------------------------------------------------------


def live_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=20, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_the_newest_lines_while_they_come_and_all_at_the_end() -> None:
    console = live_console()
    with ComparisonView(["a", "b"], console=console) as view:
        view.feed("side.started", {"side": 0, "model": "a", "provenance": "simulated"})
        for number in range(100):
            view.feed("side.delta", {"side": 0, "content": f"line {number}\n"})
        assert view._live is not None
        view._live.refresh()
        so_far = written(console)
    assert "a · simulated" in so_far
    assert "line 99" in so_far
    assert "line 9 " not in so_far
    assert "line 9 " in written(console)[len(so_far) :]


def test_a_pipe_gets_the_final_form_once() -> None:
    console = Console(file=io.StringIO(), width=100)
    with ComparisonView(["a", "b"], console=console) as view:
        view.feed("side.delta", {"side": 1, "content": "안녕"})
        assert written(console) == ""
        view.feed("comparison.finished", compared(answered("a"), answered("b", "안녕하세요")))
    assert written(console).count("안녕하세요") == 1


def test_an_interruption_loses_nothing_that_has_arrived() -> None:
    console = live_console()

    def interrupted() -> None:
        with ComparisonView(["a", "b"], console=console) as view:
            view.feed("side.delta", {"side": 0, "reasoning": "음", "content": "반쯤"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "반쯤" in written(console)
    assert "Timings comparable: unknown (the comparison did not finish)" in written(console)
    assert row(written(console), "Status") == ["not finished", "not finished"]


@given(st.lists(st.text("가나 ab\n", max_size=8), max_size=20))
def test_the_stream_and_the_whole_object_show_the_same(deltas: list[str]) -> None:
    whole = compared(answered("a", "".join(deltas)), failed("b"))
    view = ComparisonView(["a", "b"])
    for delta in deltas:
        view.feed("side.delta", {"side": 0, "content": delta})
    for number, side in enumerate(whole["sides"]):
        view.feed("side.finished", {"side": number, **side})
    view.feed("comparison.finished", whole)
    assert drawn(view) == drawn(ComparisonView.of(whole))
    assert view.comparison == whole


def test_events_of_a_later_version_are_passed_over() -> None:
    view = ComparisonView(["a"])
    view.feed("side.usage", {"anything": 1})
    assert "waiting" in drawn(view)


@pytest.mark.parametrize("number", [-1, 2])
def test_an_event_for_a_side_nobody_asked_for_is_refused(number: int) -> None:
    with pytest.raises(IndexError, match="expected 0 to 1"):
        ComparisonView(["a", "b"]).feed("side.delta", {"side": number, "content": "x"})


# --- tables -------------------------------------------------------------------------------------------------

SOURCE = Sourced("data sheet", Confidence.HIGH)
H100 = Gpu("h100-sxm", "H100 SXM", 81_559 * 2**20, 3.35e12, 989e12, 1978e12, 700, SOURCE)
BARE = Model("bare", Serving(ServingKind.VLLM, "bare"))
KNOWN = replace(
    BARE,
    id="known",
    consortium_id="naver",
    weights=Weights(repo="org/known"),
    shape=ModelShape(
        params=8_030_261_248,
        active_params=8_030_261_248,
        layers=32,
        hidden=4096,
        ffn=14336,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab=128256,
        context=131_072,
        global_layers=32,
    ),
    licence=Licence("apache-2.0", commercial=True),
)


def test_a_table_gives_each_reason_one_footnote() -> None:
    columns = (Column[str]("Name", Figure), Column[str]("Size", lambda _: Figure(None, "nobody measured it")))
    lines = drawn(render_table(["하나", "둘"], columns)).splitlines()
    assert [line.split() for line in lines if "unknown" in line] == [
        ["하나", "unknown", "[1]"],
        ["둘", "unknown", "[1]"],
    ]
    assert lines[-1] == "[1] nobody measured it"


def test_unknown_without_a_reason_says_that_none_was_given() -> None:
    text = drawn(render_table(["a"], (Column[str]("x", lambda _: Figure(None)),)))
    assert "[1] no reason was given" in text


def test_what_people_copy_stays_on_one_line() -> None:
    words = tuple(Column[str](f"Column {number}", lambda _: Figure("some long words")) for number in range(8))
    id_ = Column[str]("Id", Figure, is_copied=True)
    assert "key-a6eaa77a66be" in drawn(render_table(["key-a6eaa77a66be"], (id_, *words)), width=80)
    long = "an-organisation-whose-id-is-as-long-as-an-id-may-be-or-longer"
    assert long in "".join(drawn(render_table([long], (id_,)), width=40).split()), "folded, and nothing is cut"


def test_the_model_list_never_leaves_a_cell_empty() -> None:
    text = drawn(render_models([KNOWN, BARE]), width=120)
    known, bare = (line.split() for line in text.splitlines() if line.split()[:1] in (["known"], ["bare"]))
    assert known == ["known", "naver", "vllm", "8.03", "131,072", "yes", "0"]
    assert bare.count("unknown") == 4


def test_a_model_that_nothing_serves_shows_the_reason() -> None:
    model = replace(BARE, serving=Serving(ServingKind.NONE, "bare", reason="no published weights"))
    assert "[2] no published weights" in drawn(render_models([model]), width=120)


def test_estimates_show_verdict_and_reason() -> None:
    estimates = [(model.id, estimate(model, H100, context=8192)) for model in (KNOWN, BARE)]
    text = drawn(render_estimates(estimates), width=160)
    assert "fits · h100-sxm [1]" in text
    assert "a guess" in text
    assert "unknown [2]" in text
    assert f"[2] {estimates[1][1].reasons[0]}" in text


def test_problems_are_numbered_and_counted() -> None:
    text = drawn(render_problems("model_registry.yaml", ["models[0].id: missing", "gpus[1]: [red]odd[/red]"]))
    assert text.splitlines() == [
        "model_registry.yaml: 2 problems",
        "  1. models[0].id: missing",
        "  2. gpus[1]: [red]odd[/red]",
    ]
    assert drawn(render_problems("r.yaml", [])) == "r.yaml: no problems\n"


def test_json_is_for_pipes_and_files_and_tables_for_terminals(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        assert wants_json(file)
    assert wants_json(io.StringIO())
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0), os.fdopen(theirs, "w") as terminal:
        assert not wants_json(terminal)
