"""The stand-in engine and the raw client do what they say, since every other test over sockets believes them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from clients import RawClient, Truncated
from engines import (
    CLOSE,
    DONE,
    RESET,
    Reply,
    Request,
    ScriptedEngine,
    chat_chunk,
    error_event,
    usage_chunk,
)

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}]}


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(models=["m", "other"], tokens=3) as engine:
        yield engine


@pytest.fixture
async def client(engine: ScriptedEngine) -> AsyncIterator[RawClient]:
    async with RawClient(engine.url) as client:
        yield client


def data_of(body: bytes) -> list[object]:
    events = [part.removeprefix(b"data: ") for part in body.split(b"\n\n") if part]
    return [json.loads(event) if event != b"[DONE]" else "[DONE]" for event in events]


async def test_unscripted_paths_answer_like_vllm(client: RawClient) -> None:
    assert (await client.request("GET", "/health")).status == 200
    assert (await client.request("GET", "/version")).json() == {"version": "0.32.0"}
    cards = (await client.request("GET", "/v1/models")).json()["data"]
    assert [(card["id"], card["owned_by"], card["root"]) for card in cards] == [
        ("m", "vllm", "m"),
        ("other", "vllm", "other"),
    ]
    metrics = (await client.request("GET", "/metrics")).body
    assert b'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n' in metrics
    missing = await client.request("GET", "/nowhere")
    assert (missing.status, missing.json()) == (404, {"detail": "Not Found"})


async def test_owner_root_and_length_of_the_models_can_be_chosen() -> None:
    async with (
        ScriptedEngine(["x"], owned_by="simsa-simulated", root="/tiny", max_model_len=None) as engine,
        RawClient(engine.url) as client,
    ):
        card = (await client.request("GET", "/v1/models")).json()["data"][0]
        assert (card["owned_by"], card["root"], card["max_model_len"]) == ("simsa-simulated", "/tiny", None)


async def test_whole_chat_carries_text_finish_reason_and_usage(client: RawClient) -> None:
    answer = (await client.request("POST", CHAT, body=ASK)).json()
    assert answer["choices"][0]["message"]["content"] == "word0 word1 word2 "
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


async def test_a_lower_limit_shortens_the_answer(client: RawClient) -> None:
    answer = (await client.request("POST", "/v1/completions", body={**ASK, "max_tokens": 2, "n": 2})).json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "word0 word1 ", "length"),
        (1, "word0 word1 ", "length"),
    ]
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_stream_has_usage_only_when_asked_for(client: RawClient, path: str) -> None:
    plain = data_of((await client.request("POST", path, body={**ASK, "stream": True})).body)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    counted = data_of((await client.request("POST", path, body={**ASK, **options})).body)
    assert plain[-1] == counted[-1] == "[DONE]"
    assert counted[:-2] == plain[:-1]
    last = counted[-2]
    assert isinstance(last, dict)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


async def test_unknown_model_and_bad_json_are_refused_in_vllms_words(client: RawClient) -> None:
    unknown = await client.request("POST", CHAT, body={**ASK, "model": "nope"})
    assert (unknown.status, unknown.json()["error"]["type"]) == (404, "NotFoundError")
    bad = await client.request("POST", CHAT, body=b"{", headers=[("content-type", "application/json")])
    assert (bad.status, bad.json()["error"]["code"]) == (400, 400)


async def test_every_request_is_kept_as_it_was_sent(engine: ScriptedEngine, client: RawClient) -> None:
    await client.request("POST", CHAT + "?a=1", body=b'{"x": 1}', headers=[("X-Two", "1"), ("X-Two", "2")])
    await client.request("GET", "/health")
    async with RawClient(engine.url) as second:
        await second.request("GET", "/health")
    first = engine.requests[0]
    assert (first.method, first.path, first.query, first.body) == ("POST", CHAT, "a=1", b'{"x": 1}')
    assert [value for name, value in first.headers if name == "x-two"] == ["1", "2"]
    assert first.header("X-Two") == "1"
    assert [request.connection for request in engine.requests] == [1, 1, 2]
    assert engine.connections_made == 2
    await engine.until(lambda: engine.connections_open == 1)


async def test_gates_hold_back_what_stands_behind_them(engine: ScriptedEngine, client: RawClient) -> None:
    before_head, between = asyncio.Event(), asyncio.Event()
    engine.script(CHAT, Reply.stream(chat_chunk("a"), between, chat_chunk("b"), DONE).gated(before_head))
    await client.send("POST", CHAT, body=ASK)
    request = await engine.received(CHAT)
    assert request.sent_bytes == 0
    before_head.set()
    assert (await client.head()).status == 200
    assert await client.next_event() == chat_chunk("a")
    assert not request.answered.is_set()
    between.set()
    assert [await client.next_event() for _ in range(3)] == [chat_chunk("b"), DONE, b""]
    await request.answered.wait()


async def test_pieces_need_not_be_whole_events(engine: ScriptedEngine, client: RawClient) -> None:
    gate = asyncio.Event()
    event = chat_chunk("한글")
    engine.script(CHAT, Reply.stream(event[:-8], gate, event[-8:]))
    await client.start("POST", CHAT, body=ASK)
    assert await client.read() == event[:-8]
    gate.set()
    assert await client.read() == event[-8:]
    assert await client.read() == b""


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_all_three_framings_give_the_same_body(framing: str) -> None:
    async with ScriptedEngine() as engine, RawClient(engine.url) as client:
        engine.script(CHAT, Reply(pieces=(b"one", b"two"), framing=framing))  # type: ignore[arg-type]
        answer = await client.request("POST", CHAT, body=ASK)
        assert answer.body == b"onetwo"
        header = {"length": "content-length", "chunked": "transfer-encoding", "close": "connection"}[framing]
        assert answer.header(header) == {"length": "6", "chunked": "chunked", "close": "close"}[framing]


async def test_status_headers_and_body_are_the_scripts(engine: ScriptedEngine, client: RawClient) -> None:
    engine.script(CHAT, Reply.json({"error": "busy"}, status=503, headers=[("retry-after", "7")]))
    answer = await client.request("POST", CHAT, body={**ASK, "stream": True})
    assert (answer.status, answer.header("retry-after"), answer.json()) == (503, "7", {"error": "busy"})


async def test_replies_are_taken_in_order_and_the_last_one_stays(engine: ScriptedEngine, client: RawClient) -> None:
    engine.script(CHAT, Reply.json({}, status=503), Reply.json({}, status=500))
    statuses = [(await client.request("POST", CHAT, body=ASK)).status for _ in range(3)]
    assert statuses == [503, 500, 500]
    engine.script(CHAT)
    assert (await client.request("POST", CHAT, body=ASK)).status == 200


async def test_a_callable_decides_by_the_request(engine: ScriptedEngine, client: RawClient) -> None:
    async def echo(request: Request) -> Reply:
        return Reply.json(request.json())

    engine.script(CHAT, echo)
    assert (await client.request("POST", CHAT, body={"seed": 7})).json() == {"seed": 7}


async def test_garbage_goes_out_as_it_is(engine: ScriptedEngine, client: RawClient) -> None:
    engine.script(CHAT, Reply.raw(b"\x00\xffnot http", CLOSE))
    await client.send("POST", CHAT, body=ASK)
    with pytest.raises(Exception, match="Expected HTTP"):
        await client.head()


@pytest.mark.parametrize(("end", "error"), [(CLOSE, Truncated), (RESET, ConnectionResetError)])
async def test_a_cut_reply_ends_the_connection_after_so_many_bytes(
    engine: ScriptedEngine, client: RawClient, end: object, error: type[Exception]
) -> None:
    assert end is CLOSE or end is RESET
    engine.script(CHAT, Reply.json({"a": "b"}).cut(4, end))
    head = await client.start("POST", CHAT, body=ASK)
    assert head.header("content-length") == "9"
    assert await client.read() == b'{"a"'
    with pytest.raises(error):
        await client.read()


async def test_a_stream_can_fail_on_the_way(engine: ScriptedEngine, client: RawClient) -> None:
    engine.script(CHAT, Reply.stream(chat_chunk("a"), error_event("out of luck"), DONE))
    await client.start("POST", CHAT, body={**ASK, "stream": True})
    events = [event async for event in client.events()]
    assert events == [chat_chunk("a"), error_event("out of luck"), DONE]


@pytest.mark.parametrize("reply", [Reply.hang(), Reply.hang_after_head()])
async def test_a_hanging_reply_lasts_until_the_client_leaves(
    engine: ScriptedEngine, client: RawClient, reply: Reply
) -> None:
    engine.script(CHAT, reply)
    await client.send("POST", CHAT, body=ASK)
    request = await engine.received(CHAT)
    assert engine.running == 1
    client.leave()
    await request.closed_by_peer.wait()
    await engine.until(lambda: engine.connections_open == 0 and engine.running == 0)
    assert not request.answered.is_set()


@pytest.mark.parametrize("how", ["leave", "half_close", "reset"])
async def test_every_way_of_leaving_is_noticed_with_its_moment(
    engine: ScriptedEngine, client: RawClient, how: str
) -> None:
    engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()))
    await client.start("POST", CHAT, body=ASK)
    assert await client.next_event() == chat_chunk("a")
    left_s = time.monotonic()
    match how:
        case "leave":
            client.leave()
        case "half_close":
            await client.half_close()
        case _:
            client.reset()
    request = engine.requests[0]
    await request.closed_by_peer.wait()
    assert request.closed_by_peer_s is not None
    assert left_s <= request.closed_by_peer_s <= time.monotonic()


async def test_leaving_after_the_reply_is_not_leaving_during_it(engine: ScriptedEngine) -> None:
    async with RawClient(engine.url) as client:
        await client.request("POST", CHAT, body=ASK)
    await engine.until(lambda: engine.connections_open == 0)
    assert engine.requests[0].answered.is_set()
    assert not engine.requests[0].closed_by_peer.is_set()


async def test_a_reader_that_stops_reading_stops_the_engine(engine: ScriptedEngine, client: RawClient) -> None:
    piece = b"x" * 65536
    engine.script(CHAT, Reply(pieces=(piece for _ in iter(int, 1)), framing="chunked"))
    await client.start("POST", CHAT, body=ASK)
    request = engine.requests[0]
    sent = -1
    while sent != request.sent_bytes:
        sent = request.sent_bytes
        async with RawClient(engine.url) as other:  # a round trip through the same loop
            await other.request("GET", "/health")
    assert sent < 64 * 1024 * 1024
    assert engine.running == 1


async def test_a_killed_engine_resets_its_clients_and_comes_back_where_it_was() -> None:
    async with ScriptedEngine() as engine:
        url = engine.url
        engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()))
        async with RawClient(url) as client:
            await client.start("POST", CHAT, body=ASK)
            assert await client.next_event() == chat_chunk("a")
            await engine.kill()
            with pytest.raises(ConnectionResetError):
                await client.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        await engine.start()
        assert engine.url == url
        async with RawClient(url) as client:
            assert (await client.request("GET", "/health")).status == 200


async def test_an_exception_in_a_script_is_not_lost() -> None:
    def broken(request: Request) -> Reply:
        raise LookupError(request.path)

    with pytest.RaisesGroup(LookupError):
        async with ScriptedEngine() as engine, RawClient(engine.url) as client:
            engine.script(CHAT, broken)
            await client.send("POST", CHAT, body=ASK)
            assert await client.at_end() is False


async def test_connection_close_of_the_client_is_honoured(engine: ScriptedEngine, client: RawClient) -> None:
    await client.request("GET", "/health", headers=[("connection", "close")])
    assert await client.at_end()


async def test_client_sends_exactly_what_it_is_told(engine: ScriptedEngine, client: RawClient) -> None:
    await client.send_raw(b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    await client.send_raw(b"2\r\n{}\r\n0\r\n\r\n")
    assert (await client.head()).status == 200
    assert engine.requests[0].body == b"{}"


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_client_splits_events_at_any_blank_line(engine: ScriptedEngine, client: RawClient, blank: bytes) -> None:
    engine.script(CHAT, Reply.stream(b"data: a" + blank + b"data: b" + blank + b"data: c"))
    await client.start("POST", CHAT, body=ASK)
    assert [e async for e in client.events()] == [b"data: a" + blank, b"data: b" + blank, b"data: c"]


def test_usage_chunk_has_no_choices() -> None:
    (usage,) = data_of(usage_chunk(3, 4))
    assert isinstance(usage, dict)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}
