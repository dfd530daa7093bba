from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.sse import MAX_EVENT_BYTES, SseError, SseParser

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
FIELDS = st.sampled_from(
    ["data: 안녕", "data:x", "data:  two spaces", ": comment", "event: delta", "id: 7", "retry", "data"]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    parts: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        end = draw(LINE_ENDS)
        parts += [field + end for field in draw(st.lists(FIELDS, min_size=1, max_size=4))]
        parts.append(end)
    return "".join(parts).encode()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def parse(chunks: list[bytes]) -> tuple[list[tuple[bytes | None, bytes]], bytes]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    raw = b"".join(event.raw for event in events) + parser.tail
    return [(event.data, event.name) for event in events if event.data is not None], raw


@given(streams(), st.lists(st.integers(min_value=0), max_size=8))
def test_any_split_gives_the_same_events_and_keeps_every_byte(stream: bytes, cuts: list[int]) -> None:
    whole, raw = parse([stream])
    assert raw == stream
    assert parse(split(stream, cuts)) == (whole, stream)
    assert parse([stream[i : i + 1] for i in range(len(stream))]) == (whole, stream)


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=6))
def test_garbage_never_raises_and_keeps_every_byte(stream: bytes, cuts: list[int]) -> None:
    assert parse(split(stream, cuts))[1] == stream


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\ndata: b\n\n", [(b"a\nb", b"")]),
        (b"data:a\r\n\r\ndata: b\r\rdata:  c\n\n", [(b"a", b""), (b"b", b""), (b" c", b"")]),
        (b"\xef\xbb\xbfdata: bom\n\n", [(b"bom", b"")]),
        (b": ping\n\n\n\ndata: x\n\n", [(b"x", b"")]),
        (b"event: delta\ndata: {}\n\n", [(b"{}", b"delta")]),
        (b"data\n\n", [(b"", b"")]),
        (b"data: unfinished\n", []),
    ],
)
def test_format_of_the_standard(stream: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert parse([stream])[0] == expected


def test_endless_event_is_refused() -> None:
    parser = SseParser()
    parser.feed(b"x" * MAX_EVENT_BYTES)
    with pytest.raises(SseError):
        parser.feed(b"x")
