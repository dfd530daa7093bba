"""What becomes of a request: bytes of an answer in, records out; and the file that keeps them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engines import DONE, chat_chunk, error_event, text_chunk, usage_chunk
from hypothesis import given
from hypothesis import strategies as st
from load_workers import WORK, constant, order, read_file, steady
from test_sse import split
from vllm_shapes import event

from gateway.domain.dialects.choices import CHAT, COMPLETIONS
from loadtests import comparison_answers
from loadtests.answers import Due, End, Exchange, StreamedAnswer, gaps_us, unsent
from loadtests.asks import Ask, FixedSource, SingleTurn
from loadtests.cell_order import CellOrder, DrawnWork, OrderRefused, headers_of, read_order, source_of, trace_of
from loadtests.comparison_answers import ComparisonAnswer
from loadtests.host_clocks import Answered, clock_of
from loadtests.lost_worker import STOPPED, owed_records, settle_file
from loadtests.plan import Route, WorkKind, Workload
from loadtests.record_file import PIECE_BYTES, LineFile, RecordFile, pieces_of
from loadtests.records import CellFooter, CellHeader, Outcome, RequestRecord

DUE = Due(n=4, worker=1, scheduled_s=2.0, ask=Ask("item-1", 0, {}, 30, 3), user=None)
SEEN = Exchange(sent_s=2.001, ended_s=9.0, has_begun=True, status=200, request_id="r-1", replica="m-0")
FINISH = chat_chunk(finish_reason="stop")


def answered(*chunks: bytes, dialect: Any = CHAT, keeps_text: bool = False) -> StreamedAnswer:
    """Chunk i comes at second i + 3; then the server ends the stream."""
    answer = StreamedAnswer(dialect, keeps_text=keeps_text)
    for place, chunk in enumerate(chunks):
        answer.feed(chunk, place + 3.0)
    answer.end_of_stream()
    return answer


def record(*chunks: bytes, **how: Any) -> RequestRecord:
    (found,) = answered(*chunks, **how).records(DUE, SEEN)
    return found


# --- one answer ---------------------------------------------------------------------------------------------


def test_a_good_answer_has_all_its_moments_and_counts() -> None:
    found = record(
        chat_chunk("", role="assistant"),
        chat_chunk(reasoning="음"),
        chat_chunk("안녕") + chat_chunk("하세요"),
        FINISH,
        usage_chunk(30, 4),
        DONE,
    )
    assert found == RequestRecord(
        v=1,
        n=4,
        worker=1,
        item="item-1",
        scheduled_s=2.0,
        sent_s=2.001,
        first_s=4.0,
        first_output_s=5.0,
        last_s=5.0,
        ended_s=9.0,
        outcome=Outcome.OK,
        status=200,
        asked_input_tokens=30,
        asked_output_tokens=3,
        prompt_tokens=30,
        completion_tokens=4,
        usage_source="engine",
        finish_reason="stop",
        token_events=3,
        first_event_tokens=1,
        first_event_source="assumed",
        gaps_us=[1_000_000, 0],
        characters=6,
        request_id="r-1",
        replica="m-0",
    )


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_any_split_of_the_bytes_counts_the_same(cuts: list[int]) -> None:
    stream = chat_chunk("가") + chat_chunk("나\n\n") + chat_chunk("", finish_reason="stop") + usage_chunk(5, 2) + DONE
    found = record(*split(stream, cuts))
    assert (found.outcome, found.token_events, found.completion_tokens, found.characters) == (Outcome.OK, 2, 2, 4)


def test_an_answer_of_reasoning_alone_is_no_output_but_no_failure() -> None:
    found = record(chat_chunk(reasoning="음"), FINISH, usage_chunk(5, 1), DONE)
    assert (found.outcome, found.first_s, found.first_output_s, found.characters) == (Outcome.OK, 3.0, None, 1)


def test_completions_are_read_in_their_own_dialect() -> None:
    found = record(text_chunk("하나"), text_chunk("둘", finish_reason="length"), DONE, dialect=COMPLETIONS)
    assert (found.outcome, found.token_events, found.characters, found.usage_source) == (Outcome.OK, 2, 3, "counted")


def test_tool_calls_are_characters_but_no_text_of_the_answer() -> None:
    call = {"index": 0, "function": {"name": "find", "arguments": '{"q":1}'}}
    answer = answered(chat_chunk("네"), chat_chunk(tool_calls=[call]), FINISH, DONE, keeps_text=True)
    assert answer.text == "네"
    assert answer.records(DUE, SEEN)[0].characters == 1 + 4 + 7


def test_text_of_an_unknown_form_has_no_count_of_characters_rather_than_a_wrong_one() -> None:
    odd = event({"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": {"no": "list"}}}]})
    found = record(odd, FINISH, DONE)
    assert (found.outcome, found.token_events, found.characters) == (Outcome.OK, 1, None)


@pytest.mark.parametrize(
    ("chunks", "outcome", "words"),
    [
        ([chat_chunk("a")], Outcome.CUT, "closed the stream before its end"),
        ([chat_chunk("a"), DONE], Outcome.CUT, "without a finish_reason"),
        ([chat_chunk("a"), error_event("boom")], Outcome.FAILED, "reported an error mid-stream"),
        ([chat_chunk("a"), chat_chunk(finish_reason="abort"), DONE], Outcome.FAILED, "gave up"),
        ([chat_chunk("a"), b"data: nonsense\n\n"], Outcome.MALFORMED, "no JSON object"),
        ([FINISH, usage_chunk(5, 0), DONE], Outcome.EMPTY, "no token came"),
    ],
)
def test_whatever_is_wrong_with_a_stream_has_its_outcome(chunks: list[bytes], outcome: Outcome, words: str) -> None:
    found = record(*chunks)
    assert found.outcome is outcome
    assert words in (found.error or "")
    assert "boom" not in (found.error or ""), "what an engine writes may quote a prompt"


def test_what_happened_on_the_way_tells_where_the_stream_says_nothing() -> None:
    answer = StreamedAnswer(CHAT)
    answer.feed(chat_chunk("가"), 3.0)
    exchange = Exchange(sent_s=2.0, ended_s=5.0, status=200, end=End(Outcome.TIMEOUT, "x" * 400))
    (found,) = answer.records(DUE, exchange)
    assert (found.outcome, found.token_events, found.first_s, found.last_s) == (Outcome.TIMEOUT, 1, 3.0, 3.0)
    assert len(found.error or "") == 300


def test_rounded_gaps_add_up_to_the_whole() -> None:
    stamps = [0.1 + place * 0.0001234567 for place in range(1000)]
    gaps = gaps_us(stamps)
    assert sum(gaps) == round(stamps[-1] * 1e6) - round(stamps[0] * 1e6)
    assert len(gaps) == 999


def test_what_was_never_sent_is_offered_still() -> None:
    (found,) = unsent(DUE, "the client was 1.2 s late")
    assert (found.outcome, found.n, found.scheduled_s, found.sent_s) == (Outcome.UNSENT, 4, 2.0, None)
    assert [one.side for one in unsent(DUE, "late", ("a", "b"))] == ["a", "b"]


# --- a comparison -------------------------------------------------------------------------------------------


def side_event(name: str, **data: Any) -> bytes:
    return f"event: {name}\n".encode() + event(data)


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 2,
    "cached_tokens": None,
    "reasoning_tokens": None,
    "source": "engine",
}
TIMING = {"first_event_tokens": 1, "first_event_source": "assumed"}
SIDE_OK = {"status": "ok", "finish_reason": "stop", "usage": USAGE, "timing": TIMING, "error": None}


def compared(*chunks: bytes) -> list[RequestRecord]:
    answer = ComparisonAnswer(["a", "b"])
    for place, chunk in enumerate(chunks):
        answer.feed(chunk, place + 3.0)
    answer.end_of_stream()
    return answer.records(DUE, SEEN)


def test_a_comparison_is_a_record_a_side() -> None:
    failed = {"message": "The queue is full.", "code": "rate_limit_exceeded", "status": 429}
    a, b = compared(
        side_event("side.started", side=0, model="a") + side_event("side.started", side=1, model="b"),
        side_event("side.delta", side=0, reasoning="음"),
        side_event("side.delta", side=0, content="안녕"),
        side_event("side.finished", side=1, model="b", status="error", error=failed),
        side_event("side.finished", side=0, model="a", **SIDE_OK),
        side_event("comparison.finished", id="x"),
    )
    assert (a.side, a.outcome, a.first_s, a.first_output_s, a.last_s, a.ended_s) == ("a", "ok", 4.0, 5.0, 5.0, 7.0)
    assert (a.gaps_us, a.characters, a.completion_tokens, a.usage_source, a.request_id) == (
        [1_000_000],
        3,
        2,
        "engine",
        "r-1-0",
    )
    assert (b.side, b.outcome, b.error, b.n) == ("b", "too_many", "rate_limit_exceeded: The queue is full.", a.n)


@pytest.mark.parametrize(
    ("chunks", "outcomes"),
    [
        ([side_event("side.delta", side=0, content="a")], ["cut", "cut"]),
        ([b"data: nonsense\n\n", b"event: side.delta\ndata: nonsense\n\n"], ["malformed", "malformed"]),
        ([side_event("side.delta", side=7, content="a")], ["malformed", "malformed"]),
        ([side_event("side.finished", side=0, **SIDE_OK)], ["empty", "cut"]),
        (
            [
                side_event("side.delta", side=0, content="a"),
                side_event(
                    "side.finished", side=0, status="error", error={"code": "upstream_truncated", "status": 502}
                ),
                side_event("side.finished", side=1, status="error", error={"code": "upstream_error", "status": 502}),
                side_event("comparison.finished"),
            ],
            ["cut", "refused"],
        ),
        (
            [
                side_event("side.delta", side=0, content="a"),
                side_event("side.finished", side=0, status="error", error=None),
                side_event("side.finished", side=1, status="skipped", error={"code": "skipped", "status": None}),
            ],
            ["failed", "refused"],
        ),
    ],
)
def test_every_side_of_a_comparison_has_its_own_outcome(chunks: list[bytes], outcomes: list[str]) -> None:
    assert [found.outcome.value for found in compared(*chunks)] == outcomes


def test_a_comparison_that_was_refused_whole_is_refused_on_every_side() -> None:
    refused = Exchange(sent_s=2.0, ended_s=2.1, status=404, end=End(Outcome.REFUSED, "status 404"))
    assert [found.outcome for found in ComparisonAnswer(["a", "b"]).records(DUE, refused)] == [Outcome.REFUSED] * 2


def test_names_of_events_are_the_gateways_own() -> None:
    from gateway import comparison, comparison_object

    for name in ("SIDE_DELTA", "SIDE_FINISHED", "COMPARISON_FINISHED"):
        assert getattr(comparison_answers, name) == getattr(comparison, name)
    assert comparison_answers.OK == comparison_object.OK


# --- the file -----------------------------------------------------------------------------------------------

HEADER = CellHeader(
    v=1,
    cell="c",
    repeat=1,
    door="direct",
    run_id="r",
    worker=0,
    workers=1,
    seed=1,
    began_at="2026-01-01T00:00:00+00:00",
)
FOOTER = CellFooter(v=1, footer=True, ended_s=2.0, cpu_s=0.1, window_s=1.0, wall_minus_monotonic_s=0.0, stopped=None)


def test_a_file_is_header_records_footer(tmp_path: Path) -> None:
    file = RecordFile(LineFile(tmp_path / "out.jsonl"))
    file.begin(HEADER)
    records = [record(chat_chunk("가"), FINISH, DONE)]
    file.add(records)
    assert read_file(tmp_path / "out.jsonl").records == [], "it waits in memory"
    file.flush()
    assert read_file(tmp_path / "out.jsonl") == (HEADER, records, None), "no footer: a worker that is lost now"
    file.end(FOOTER)
    assert read_file(tmp_path / "out.jsonl") == (HEADER, records, FOOTER)


def test_a_full_disk_is_said_once_and_what_follows_is_counted() -> None:
    file = RecordFile(LineFile(Path("/dev/full")))
    file.begin(HEADER)
    assert file.failure == "the records cannot be written: No space left on device"
    file.add(unsent(DUE, "late"))
    file.flush()
    assert file.lost == 1
    file.end(FOOTER)


def test_what_a_lost_worker_owed_is_unsent(tmp_path: Path) -> None:
    ordered = order(tmp_path, "http://127.0.0.1:9", worker=1, workers=2, open=constant(10, 2.0))
    kept = [record for n in (1, 3) for record in unsent(Due(n=n, worker=1, scheduled_s=0.1 * n, ask=DUE.ask), "x")]
    path = tmp_path / "lost.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (HEADER, *kept)) + b'{"v":1,"n":5,"it')
    assert settle_file(path, ordered, until_s=1.0, began_at=datetime.now(UTC)) == 3
    file = read_file(path)
    assert (file.header, file.footer) == (HEADER, None)
    assert [found.n for found in file.records] == [1, 3, 5, 7, 9], "what broke off is owed too"
    assert {found.outcome for found in file.records} == {Outcome.UNSENT}
    assert owed_records(order(tmp_path, "http://x", closed=steady(3, 1.0)), (), until_s=1.0) == []


@given(st.lists(st.integers(0, 400_000), max_size=6))
def test_lines_go_in_bounded_pieces_of_whole_lines(lengths: list[int]) -> None:
    lines = b"".join(b"x" * length + b"\n" for length in lengths)
    pieces = list(pieces_of(lines))
    assert b"".join(pieces) == lines
    for piece in pieces:
        assert piece.endswith(b"\n")
        assert len(piece) <= PIECE_BYTES or piece.count(b"\n") == 1


def test_the_quickest_answer_says_best_how_another_hosts_clocks_stand() -> None:
    slow = Answered(asked_s=10.0, came_s=11.0, wall_s=1000.0, their_monotonic_s=60.9, their_wall_s=1003.0)
    quick = Answered(asked_s=20.0, came_s=20.002, wall_s=1010.0, their_monotonic_s=70.001, their_wall_s=1012.499)
    seen = clock_of([slow, quick])
    assert seen is not None
    assert seen.monotonic_ahead_s == pytest.approx(50.0)
    assert seen.wall_ahead_s == pytest.approx(2.5)
    assert seen.within_s == pytest.approx(0.001)
    assert clock_of([]) is None


def test_a_worker_that_was_lost_before_it_wrote_anything_owed_all_and_has_a_header(tmp_path: Path) -> None:
    path, at = tmp_path / "lost.jsonl", datetime(2026, 11, 28, 10, tzinfo=UTC)
    both = order(tmp_path, "http://x", route=Route.COMPARISON, models=("a", "b"), open=constant(10, 0.2))
    assert settle_file(path, both, until_s=1.0, began_at=at) == 4
    file = read_file(path)
    assert file.header.began_at == "2026-11-28T10:00:00+00:00"
    assert [(one.n, one.side) for one in file.records] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_worker_that_stopped_while_the_others_went_on_keeps_its_footer_and_owed_the_rest(tmp_path: Path) -> None:
    path, ordered = tmp_path / "stopped.jsonl", order(tmp_path, "http://x", open=constant(10, 0.3))
    file = RecordFile(LineFile(path))
    file.begin(HEADER)
    file.add(unsent(Due(n=0, worker=0, scheduled_s=0.0, ask=DUE.ask), "x"))
    file.end(FOOTER)
    assert settle_file(path, ordered, until_s=1.0, began_at=datetime.now(UTC)) == 2
    kept = read_file(path)
    assert (kept.header, kept.footer) == (HEADER, FOOTER)
    assert [(one.n, one.error) for one in kept.records][1:] == [(n, STOPPED) for n in (1, 2)]


# --- the order ----------------------------------------------------------------------------------------------


def test_an_order_survives_its_file(tmp_path: Path) -> None:
    for ordered in (
        order(tmp_path, "http://127.0.0.1:1"),
        order(tmp_path, "https://h/base", closed=steady(3, 9.0, 1.0), route=Route.COMPARISON, models=("a", "b")),
        order(tmp_path, "http://h", work=DrawnWork(Workload(kind=WorkKind.MULTI_TURN, extra={"top_k": 1}))),
        order(tmp_path, "http://h", begin_s=12.5, headers={"x-a": "b"}),
    ):
        assert read_order(msgspec.json.encode(ordered)) == ordered


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v": 2}, "v: expected 1, got 2"),
        ({"closed": msgspec.to_builtins(steady(1, 1.0))}, "expected one of open and closed"),
        ({"open": None}, "expected one of open and closed"),
        ({"open": {"arrivals": "poisson", "rates": []}}, "at least one span"),
        ({"open": {"arrivals": "poisson", "rates": [{"begin_per_s": -1, "end_per_s": 1, "for_s": 1}]}}, "below 0"),
        ({"open": {"arrivals": "trace"}}, "trace_file: expected"),
        ({"worker": 1}, "worker: expected 0 to 0, got 1"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"address": "ftp://x"}, "address: expected http"),
        ({"route": "comparison"}, "models: expected"),
        ({"headers": {"Authorization": "Bearer x"}}, "key_variable"),
        ({"headers": {"x-a": "b\r\nc: d"}}, "cannot be sent"),
        ({"headers": {"Host": "x"}}, "the client's own"),
        ({"begin_s": "soon"}, "begin_s"),
        ({"unknown": 1}, "unknown field"),
    ],
)
def test_an_order_that_cannot_be_run_is_refused_by_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    written = {**json.loads(msgspec.json.encode(order(tmp_path, "http://127.0.0.1:1"))), **changes}
    with pytest.raises(OrderRefused, match=words):
        read_order(json.dumps(written).encode())


def test_only_the_gateway_is_told_of_the_run(tmp_path: Path) -> None:
    direct = order(tmp_path, "http://h", headers={"x-a": "b"})
    assert headers_of(direct, None) == [("x-a", "b")]
    through = order(tmp_path, "http://h", door="gateway", key_variable="K")
    assert headers_of(through, "s3cret") == [
        ("x-simsa-run-id", "run-1"),
        ("x-simsa-priority", "load_test"),
        ("authorization", "Bearer s3cret"),
    ]
    with pytest.raises(OrderRefused, match="K: the key has characters"):
        headers_of(through, "s3c\r\nret")


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OrderRefused, match="trace_file"):
        trace_of(order(tmp_path, "http://h", trace_file=str(tmp_path / "none.jsonl")))
    (tmp_path / "bad.jsonl").write_text("{}")
    with pytest.raises(OrderRefused, match="line 1 of the trace"):
        trace_of(order(tmp_path, "http://h", trace_file=str(tmp_path / "bad.jsonl")))


def test_a_fixed_source_asks_the_same_and_remembers_what_was_answered(tmp_path: Path) -> None:
    ordered: CellOrder = order(tmp_path, "http://h")
    source = source_of(ordered)
    assert source.next().body == WORK.body
    conversation = FixedSource(WORK.body, output_tokens=8, turns=2).conversation()
    assert len(conversation.first().body["messages"]) == 1
    second = conversation.next("네")
    assert second is not None
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    assert second.turn == 1
    assert conversation.next("네") is None
    assert SingleTurn(source).next("네") is None
