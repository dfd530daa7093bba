"""Bad days over real sockets: the database away, the disk full, clients that are slow, rude or hostile.

Outages under the load of keyed callers are in test_outages.py, floods on every route in test_floods.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from databases import ScratchDatabase
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.domain.records import CallStatus

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
END = chat_chunk(finish_reason="stop") + DONE
MIB = 2**20


async def status_of(gateway: RunningGateway, body: object = ASK, **options: Any) -> int:
    async with RawClient(gateway.url) as client:
        return (await client.request("POST", CHAT, body=body, **options)).status


async def all_bytes(client: RawClient) -> bytes:
    """Everything that comes until the server closes the connection, unparsed."""
    async with asyncio.timeout(HANG_S):
        return await client._reader.read()


async def metric(gateway: RunningGateway, series: str) -> float:
    async with RawClient(gateway.url) as client:
        text = (await client.request("GET", "/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


@asynccontextmanager
async def recorded_in(
    database: ScratchDatabase, directory: Path, engine: ScriptedEngine, **settings: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway in front of model `m`, live, that waits for its database a moment only."""
    chosen = {"database_url": database.url, "database_statement_timeout_s": 0.5, **settings}
    async with running_gateway(directory, [entry("m", engine.url)], **chosen) as gateway:
        await gateway.until_live("m")
        yield gateway


# --- the database and the disk ------------------------------------------------------------------------------


async def test_locked_database_is_not_noticed_by_clients_and_gets_every_row_later(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with ScriptedEngine() as engine, recorded_in(database, tmp_path, engine) as gateway:
        async with database.locked():
            statuses = await asyncio.gather(*(status_of(gateway, body) for body in (ASK, STREAM) * 10))
            assert await metric(gateway, "simsa_recorder_queued") >= 20
            async with RawClient(gateway.url) as client:
                assert (await client.request("GET", "/ready")).status == 200
        assert set(statuses) == {200}
        calls = await gateway.calls(20)
        assert {call.status for call in calls} == {CallStatus.OK}
        assert await metric(gateway, "simsa_recorder_queued") == 0
        assert await metric(gateway, 'simsa_recorder_failing{part="database"}') == 0


async def test_database_that_goes_and_comes_back_under_load_costs_no_answer_and_no_row(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    finished: list[str] = []

    async def keep_asking(worker: int) -> None:
        async with RawClient(gateway.url) as client:
            for turn in range(10**6):
                name = f"{worker}-{turn}"
                body = STREAM if turn % 2 else ASK
                answer = await client.request("POST", CHAT, body=body, headers=[("x-request-id", name)])
                assert answer.status == 200
                finished.append(name)
                if is_over:
                    return

    async def more_answers() -> None:
        enough = len(finished) + 50
        await gateway.until(lambda: len(finished) >= enough or any(task.done() for task in load))

    async with ScriptedEngine() as engine, recorded_in(database, tmp_path, engine) as gateway:
        is_over = False
        load = [asyncio.create_task(keep_asking(worker)) for worker in range(6)]
        for _ in range(2):
            await more_answers()
            async with database.gone():
                await gateway.until(lambda: gateway.services.recorder.stats().database_failing is not None)
                assert await metric(gateway, 'simsa_recorder_failing{part="database"}') == 1
                await more_answers()
            await gateway.until(lambda: gateway.services.recorder.stats().database_failing is None)
        await more_answers()
        is_over = True
        await asyncio.gather(*load)
        await gateway.until(lambda: gateway.services.recorder.stats().queued == 0)
        assert await metric(gateway, "simsa_recorder_lost") == 0
        rows = await database.rows("SELECT request_id, status FROM calls")
    assert sorted(row["request_id"] for row in rows) == sorted(finished)
    assert {row["status"] for row in rows} == {"ok"}


async def test_full_disk_under_the_spool_costs_neither_answer_nor_row(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        spool = gateway.services.settings.data_dir / "spool"
        for number in range(1, 5):  # the next segments lie on a device that is full
            (spool / f"{number:012d}.spool").symlink_to("/dev/full")
        assert await status_of(gateway) == 200
        assert await metric(gateway, 'simsa_recorder_failing{part="spool"}') == 1
        assert await status_of(gateway, STREAM) == 200
        assert len(await gateway.calls(2)) == 2
        assert await status_of(gateway) == 200
        assert await metric(gateway, 'simsa_recorder_failing{part="spool"}') == 0, "there is room again"
        assert await metric(gateway, "simsa_recorder_lost") == 0


async def test_calls_are_refused_rather_than_lost_when_records_have_nowhere_to_go(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    gate = asyncio.Event()
    async with ScriptedEngine() as engine, recorded_in(database, tmp_path, engine, recorder_queue=2) as gateway:
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, END), lambda request: engine.usual(request))
        async with RawClient(gateway.url) as streaming, database.locked():
            await streaming.start("POST", CHAT, body=STREAM)
            assert await status_of(gateway) == 200
            async with RawClient(gateway.url) as client:
                refused = await client.request("POST", CHAT, body=ASK)
                assert (refused.status, refused.json()["error"]["code"]) == (503, "recorder_unavailable")
                assert refused.header("retry-after") == "2"
                ready = await client.request("GET", "/ready")
                assert (ready.status, ready.json()["problems"]) == (503, ["records cannot be kept"])
            gate.set()
            assert (await streaming.rest()).endswith(DONE), "what had begun goes on"
            assert len(engine.requests_to(CHAT)) == 2, "a refused call reaches no engine"
        assert {call.status for call in await gateway.calls(2)} == {CallStatus.OK}
        await gateway.until(lambda: gateway.services.recorder.accepting)
        assert await status_of(gateway) == 200
        assert await metric(gateway, "simsa_recorder_lost") == 0


async def test_call_that_could_not_be_recorded_is_counted_as_an_answer(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with (
        ScriptedEngine() as engine,
        recorded_in(database, tmp_path, engine, recorder_queue=1) as gateway,
        database.locked(),
    ):
        assert await status_of(gateway) == 200
        assert await status_of(gateway) == 503
        assert b'status_class="5xx"} 1.0' in gateway.services.telemetry.render()


# --- slow and rude clients ----------------------------------------------------------------------------------


class Flood:
    """A long answer that is made only as far as it is read."""

    def __init__(self, megabytes: int) -> None:
        self.total = megabytes * 16
        self.made = 0
        """Events taken off so far; each is 64 KiB."""

    def reply(self) -> Reply:
        return Reply(pieces=self._pieces(), framing="chunked", content_type="text/event-stream")

    def _pieces(self) -> Iterator[bytes]:
        event = chat_chunk("x" * 65_000)
        for _ in range(self.total):
            self.made += 1
            yield event
        yield END

    async def until_held_up(self, gateway: RunningGateway) -> None:
        """Wait until nothing is taken off any more while 20 requests on other connections are answered."""
        async with asyncio.timeout(HANG_S):
            while self.made < self.total:
                before = self.made
                for _ in range(20):
                    assert await status_of(gateway) == 200
                if before and self.made == before:
                    return


async def test_slow_reader_holds_up_its_own_engine_only_and_then_gets_everything(tmp_path: Path) -> None:
    flood = Flood(megabytes=64)
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, flood.reply(), lambda request: engine.usual(request))
        async with RawClient(gateway.url) as slow:
            await slow.start("POST", CHAT, body=STREAM)
            await flood.until_held_up(gateway)
            assert flood.made < flood.total, "the answer is not gathered in memory"
            received = 0
            while part := await slow.read():
                received += len(part)
        assert received == flood.total * len(chat_chunk("x" * 65_000)) + len(END)
        assert {call.status for call in await gateway.calls()} == {CallStatus.OK}


async def test_client_that_reads_nothing_cannot_hold_an_engine_past_the_total_timeout(tmp_path: Path) -> None:
    flood = Flood(megabytes=1024)
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, timeouts={"total_s": 1.0})]) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, flood.reply())
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
            assert (await gateway.call()).status is not CallStatus.OK
            assert not gateway.services.dispatcher.in_flight


async def test_slow_reader_is_not_told_that_the_engine_was_idle(tmp_path: Path) -> None:
    flood = Flood(megabytes=64)
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, timeouts={"idle_s": 0.3})]) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, flood.reply(), lambda request: engine.usual(request))
        async with RawClient(gateway.url) as slow:
            await slow.start("POST", CHAT, body=STREAM)
            await flood.until_held_up(gateway)
            loop = asyncio.get_running_loop()
            over = loop.create_future()
            loop.call_later(0.4, over.set_result, None)  # longer than the engine may be idle
            await over
            assert (await slow.rest()).endswith(DONE)


async def test_half_a_request_and_then_nothing_leaves_no_trace(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n".encode()
        for part in (b"POST", head[:-2], head, head + b'{"model": "m", '):
            for leave in (RawClient.leave, RawClient.reset):
                async with RawClient(gateway.url) as client:
                    await client.send_raw(part)
                    leave(client)
        assert await status_of(gateway) == 200
        assert len(await gateway.calls()) == 1
        assert len(engine.requests_to(CHAT)) == 1


async def test_request_that_comes_a_byte_at_a_time_is_served_and_stops_nobody(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        body = json.dumps(ASK).encode()
        request = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        async with RawClient(gateway.url) as slow:
            for position in range(len(request)):
                await slow.send_raw(request[position : position + 1])
                if position % 40 == 0:
                    assert await status_of(gateway) == 200
            assert (await slow.head()).status == 200


async def test_chunked_body_is_read_and_its_limit_kept(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], max_body_bytes=MIB) as gateway,
    ):
        await gateway.until_live("m")
        chunked = [("transfer-encoding", "chunked")]
        body = json.dumps(ASK).encode()
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        assert await status_of(gateway, pieces, headers=chunked) == 200
        assert engine.requests_to(CHAT)[0].body == body
        assert await status_of(gateway, b"80000\r\n" + b" " * 0x80000 + b"\r\n" * 3, headers=chunked) == 400
        too_much = (b"80000\r\n" + b" " * 0x80000 + b"\r\n") * 3
        assert await status_of(gateway, too_much, headers=chunked) == 413


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, lambda request: Reply.stream(chat_chunk(request.json()["user"]), END))
        requests = b""
        for user in ("first", "second", "third"):
            body = json.dumps({**STREAM, "user": user}).encode()
            requests += f"POST {CHAT} HTTP/1.1\r\nhost: [::1]\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        async with RawClient(gateway.url) as client:
            await client.send_raw(requests + b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answers = await all_bytes(client)
        at = [answers.index(word) for word in (b'"first"', b'"second"', b'"third"', b'{"status":"ok"}')]
        assert at == sorted(at)
        assert answers.count(b"HTTP/1.1 200 OK") == 4


async def test_client_that_leaves_with_requests_in_the_pipe_frees_the_engine(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, timeouts={"total_s": 3.0})]) as gateway,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()))
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=STREAM)
            await client.next_event()
            await client.send("POST", CHAT, body=STREAM)
            client.leave()
            await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED


async def test_connection_goes_on_after_an_error(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], max_body_bytes=MIB) as gateway,
    ):
        await gateway.until_live("m")
        async with RawClient(gateway.url) as client:
            for method, path, body, status in (
                ("POST", CHAT, b"{", 400),
                ("POST", CHAT, {**ASK, "model": "none"}, 404),
                ("GET", CHAT, b"", 405),
                ("POST", CHAT, b" " * (2 * MIB), 413),
                ("POST", "/nowhere", b" " * (2 * MIB), 404),
                ("POST", CHAT, ASK, 200),
            ):
                assert (await client.request(method, path, body=body)).status == status
        assert await gateway.call()


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/comparisons", "/health", "/nowhere"])
async def test_head_and_options_are_answered_and_the_connection_goes_on(tmp_path: Path, path: str) -> None:
    async with (
        running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway,
        RawClient(gateway.url) as client,
    ):
        answer = await client.request("OPTIONS", path)
        assert answer.status in (404, 405)
        assert answer.json()["error"]["code"] in ("method_not_allowed", "route_not_found")
        ends = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        await client.send_raw(f"HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() + ends)
        head, _, rest = (await all_bytes(client)).partition(b"\r\n\r\n")
        assert head.split()[1] in (b"404", b"405")
        assert rest.startswith(b"HTTP/1.1 200 OK"), "an answer to HEAD has no body"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "' + b"x" * (5 * MIB) + b'"}',
        b'{"model": "\\ud800"}',
        b'{"model": "\\u0000"}',
        b'{"\\ud800": 1, "model": "m"}',
        b'{"model": "m", "n": 1e400}',
        b'{"model": "m", "n": ' + b"9" * 5000 + b"}",
        b'{"model": "m", "max_tokens": 1e999}',
        b'{"model": "m", "stream_options": {"a": ' + b"9" * 5000 + b"}}",
        b'{"model": "m", "stream_options": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}",
    ],
    ids=["long name", "half a surrogate pair", "NUL", "surrogate key", "n", "long n", "max_tokens", "options", "deep"],
)
async def test_hostile_value_is_the_callers_mistake_never_ours(tmp_path: Path, body: bytes) -> None:
    async with (
        running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway,
        RawClient(gateway.url) as client,
    ):
        answer = await client.request("POST", CHAT, body=body)
        assert answer.status in (400, 404)
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert len(answer.body) < 1000


async def test_body_of_very_many_fields_is_refused(tmp_path: Path) -> None:
    body = b'{"model":"m",' + b",".join(b'"f%d":0' % number for number in range(100_000)) + b"}"
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway:
        assert await status_of(gateway, body) == 400


@pytest.mark.parametrize(
    "head",
    [
        b"x-bomb: " + b"a" * MIB,
        b"\r\n".join(b"x-bomb-%d: a" % number for number in range(20_000)),
        b"authorization: Bearer " + b"a" * MIB,
        b"x-request-id: " + b"a" * MIB,
        b"content-length: 99999999999999999999999",
        b"content-length: 10\r\ncontent-length: 20",
        b"content-length: 10\r\ntransfer-encoding: chunked",
        b"content-length: -1",
        b"x bomb: a",
    ],
    ids=["long", "many", "long key", "long id", "huge length", "two lengths", "length and chunks", "negative", "space"],
)
async def test_hostile_header_is_never_our_error_and_stops_nobody(tmp_path: Path, head: bytes) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key="right") as gateway,
    ):
        await gateway.until_live("m")
        async with RawClient(gateway.url) as hostile:
            with suppress(ConnectionError):  # being cut off is an answer too
                await hostile.send_raw(f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n".encode() + head + b"\r\n\r\n")
                assert 400 <= (await hostile.head()).status < 500
        async with RawClient(gateway.url, key="right") as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200


async def test_endless_header_is_cut_off(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")]) as gateway,
        RawClient(gateway.url) as client,
    ):

        async def pour() -> None:
            await client.send_raw(b"GET /health HTTP/1.1\r\nx-bomb: ")
            for _ in range(16):
                await client.send_raw(b"a" * MIB)

        with pytest.raises(ConnectionError):
            await pour()


# --- large bodies -------------------------------------------------------------------------------------------


async def test_others_are_served_while_a_large_body_comes_in(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, END), lambda request: engine.usual(request))
        body = json.dumps({**ASK, "image": "A" * 10_000_000}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        async with RawClient(gateway.url) as streaming, RawClient(gateway.url) as large:
            await streaming.start("POST", CHAT, body=STREAM)
            await large.send_raw(head + body[:-1])
            assert await status_of(gateway) == 200
            gate.set()
            assert (await streaming.rest()).endswith(DONE), "a stream goes on while the body is incomplete"
            await large.send_raw(body[-1:])
            assert (await large.head()).status == 200
        assert engine.requests_to(CHAT)[-1].body == body
