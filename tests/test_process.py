"""The gateway as a process: starts that are refused, a stop that keeps its promises, and kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient, Truncated
from databases import Row, ScratchDatabase, ScratchPostgres
from engines import DONE, Reply, Request, ScriptedEngine, chat_answer, chat_chunk, usage_body, usage_chunk
from gateways import Entry, entry, registry_text, running_gateway
from guards import HANG_S
from processes_under_test import (
    SIMSA,
    clean_environment,
    gateway_process,
    processes_of,
    run_simsa,
    stored_calls,
)

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True}
ROWS = "SELECT * FROM calls ORDER BY started_at, id"
NOWHERE = "http://127.0.0.1:9"


def registry_in(directory: Path, *models: dict[str, Any]) -> Path:
    path = directory / "registry.yaml"
    path.write_text(registry_text(models or (entry("m", NOWHERE),)))
    return path


def errors_in(stream: bytes) -> list[dict[str, Any]]:
    events = [json.loads(part[6:]) for part in stream.split(b"\n\n") if part.startswith(b'data: {"error"')]
    return [event["error"] for event in events]


# --- a start that is refused --------------------------------------------------------------------------------


async def test_taken_port_is_told_in_one_line_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = await run_simsa("serve", port=port, registry=registry_in(tmp_path), data_dir=tmp_path / "data")
    assert ended.code == 2
    assert ended.error_line.startswith(f"simsa: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert "SIMSA_PORT" in ended.error_line
    assert not (tmp_path / "data").exists(), "nothing was opened"


async def test_second_gateway_on_one_database_is_refused_and_the_first_goes_on(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    reason = {"sqlite": "SIMSA_DATA_DIR", "postgresql": "same SIMSA_REDIS_URL"}[database.kind]
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], database_url=database.url) as first,
    ):
        await first.until_live("m")
        refused = await run_simsa(
            "serve", port=0, registry=first.registry_path, data_dir=tmp_path / "other", database_url=database.url
        )
        assert refused.code == 2
        assert "in use by another simsa process" in refused.error_line
        assert reason in refused.error_line
        async with RawClient(first.url) as client:
            assert (await client.request("POST", CHAT, body=ASK)).status == 200
        assert (await first.call()).status.value == "ok"


async def test_second_gateway_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", NOWHERE)]) as first:
        refused = await run_simsa("serve", port=0, registry=first.registry_path, data_dir=tmp_path / "data")
    assert refused.code == 2
    assert "in use by another simsa process" in refused.error_line
    assert "SIMSA_DATA_DIR" in refused.error_line


async def test_gateways_with_postgresql_and_one_data_directory_are_refused_for_their_spool(
    tmp_path: Path, postgres: ScratchPostgres
) -> None:
    async with running_gateway(tmp_path, [entry("m", NOWHERE)]) as first:
        refused = await run_simsa(
            "serve", port=0, registry=first.registry_path, data_dir=tmp_path / "data", database_url=postgres.url
        )
    assert refused.code == 2
    assert refused.error_line.startswith(f"simsa: {tmp_path / 'data' / 'spool'} is in use by another simsa process")


async def test_postgresql_database_is_prepared_by_db_upgrade_and_not_by_the_gateway(
    tmp_path: Path, empty_postgres: ScratchPostgres
) -> None:
    settings = {"registry": registry_in(tmp_path), "data_dir": tmp_path / "data", "database_url": empty_postgres.url}
    refused = await run_simsa("serve", port=0, **settings)
    assert refused.code == 2
    assert refused.error_line.endswith("has no tables yet: run `simsa db upgrade`")
    for _ in range(2):
        assert (await run_simsa("db", "upgrade", **settings)).code == 0
    async with ScriptedEngine() as engine:
        models = [entry("m", engine.url)]
        async with gateway_process(tmp_path, models, database_url=empty_postgres.url) as gateway:
            async with RawClient(gateway.url) as client:
                assert (await client.request("POST", CHAT, body=ASK)).status == 200
            gateway.send(signal.SIGTERM)
            assert await gateway.ended() == 0
    assert [row["status"] for row in await empty_postgres.rows("SELECT status FROM calls")] == ["ok"]
    assert not (tmp_path / "data" / "simsa.db").exists()


async def test_sigterm_is_obeyed_though_the_database_stands_still(tmp_path: Path, postgres: ScratchPostgres) -> None:
    limits = {"database_connect_timeout_s": 0.5, "database_statement_timeout_s": 0.5}
    async with ScriptedEngine() as engine:
        models = [entry("m", engine.url)]
        async with gateway_process(tmp_path, models, database_url=postgres.url, **limits) as gateway:
            postgres.cluster.freeze()
            try:
                async with RawClient(gateway.url) as client:
                    assert (await client.request("POST", CHAT, body=ASK)).status == 200
                gateway.send(signal.SIGTERM)
                assert await gateway.ended() == 0
            finally:
                postgres.cluster.thaw()
        async with gateway_process(tmp_path, models, database_url=postgres.url) as again:
            await until_rows(postgres, lambda rows: [row["status"] for row in rows] == ["ok"])
            again.send(signal.SIGTERM)
            assert await again.ended() == 0


async def test_broken_registry_is_refused_with_every_problem(tmp_path: Path) -> None:
    models = [{"id": "a", "serving": {"kind": "vlm"}}, entry("b", "not a url"), {"serving": {"kind": "vllm"}}]
    ended = await run_simsa("serve", port=0, registry=registry_in(tmp_path, *models), data_dir=tmp_path / "data")
    assert ended.code == 2
    *problems, last = ended.err.splitlines()
    for where in ("models[0]", "models[1]", "models[2]"):
        assert any(where in problem for problem in problems), f"{where} is not named"
    assert last == f"simsa: {tmp_path / 'registry.yaml'} has {len(problems)} problem(s); mend them and try again"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, ["SIMSA_HOST=0.0.0.0", "SIMSA_ADMIN_KEY is not set"]),
        ({"host": "0.0.0.0", "admin_key": ""}, ["SIMSA_ADMIN_KEY"]),
        ({"port": "many"}, ["SIMSA_PORT", "'many'"]),
        ({"spool_fsync_s": "0"}, ["SIMSA_SPOOL_FSYNC_S", "greater than 0", "'0'"]),
        ({"data_dir": "/dev/null/simsa"}, ["SIMSA_DATA_DIR=/dev/null/simsa", "Not a directory"]),
        ({"host": "256.1.1.1", "admin_key": "k"}, ["256.1.1.1"]),
    ],
    ids=["no key", "empty key", "no number", "not above zero", "no directory", "no address"],
)
async def test_setting_that_cannot_be_is_named_in_one_line(
    tmp_path: Path, settings: dict[str, str], words: list[str]
) -> None:
    chosen = {"port": 0, "registry": registry_in(tmp_path), "data_dir": tmp_path / "data", **settings}
    ended = await run_simsa("serve", **chosen)
    assert ended.code == 2
    for word in words:
        assert word in ended.error_line


async def test_refused_database_url_does_not_show_its_password(tmp_path: Path) -> None:
    url = "postgresql://simsa:canary-7c1f@127.0.0.1:9/simsa"
    ended = await run_simsa("serve", port=0, registry=registry_in(tmp_path), database_url=url)
    assert ended.code == 2
    assert "SIMSA_DATABASE_URL" in ended.error_line
    assert "canary" not in ended.err + ended.out


async def test_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "simsa.db").write_bytes(b"not a database, but a letter. " * 100)
    ended = await run_simsa("serve", port=0, registry=registry_in(tmp_path), data_dir=tmp_path / "data")
    assert ended.code == 2
    assert "simsa.db" in ended.error_line
    assert "not a database" in ended.error_line


# --- SIGTERM ------------------------------------------------------------------------------------------------


async def asked(url: str, method: str, path: str, **request: Any) -> Answer:
    """On a connection of its own."""
    async with RawClient(url) as client:
        return await client.request(method, path, **request)


async def test_sigterm_lets_a_stream_finish_while_new_calls_are_refused(tmp_path: Path) -> None:
    gate = asyncio.Event()
    events = (chat_chunk("a"), chat_chunk("b"), chat_chunk(finish_reason="stop"))
    async with ScriptedEngine() as engine, gateway_process(tmp_path, [entry("m", engine.url)]) as gateway:
        engine.script(CHAT, Reply.stream(events[0], gate, *events[1:], usage_chunk(5, 2), DONE))
        engine.script("/v1/completions", Reply.json(chat_answer("ja", usage=usage_body(3, 1))).gated(gate))
        async with RawClient(gateway.url) as streaming, RawClient(gateway.url) as waiting:
            await streaming.start("POST", CHAT, body=STREAM)
            assert await streaming.next_event() == events[0]
            await waiting.send("POST", "/v1/completions", body={"model": "m", "prompt": "안녕", "max_tokens": 8})
            await engine.received("/v1/completions", 2)  # the gateway's own first token was asked for before
            gateway.send(signal.SIGTERM)
            assert (await gateway.until_logged("stopping"))["in_flight"] == 2
            ready = await asked(gateway.url, "GET", "/ready")
            assert (ready.status, ready.json()["problems"]) == (503, ["shutting down"])
            for path, body in ((CHAT, ASK), ("/api/comparisons", {"models": ["m", "m"], "prompt": "안녕"})):
                refused = await asked(gateway.url, "POST", path, body=body)
                assert (refused.status, refused.json()["error"]["code"]) == (503, "draining")
                assert refused.header("connection") == "close", "who tries again on another connection may find another"
                assert refused.header("retry-after") is not None
            gate.set()
            assert await streaming.rest() == b"".join(events[1:]) + DONE
            late = await waiting.head()
            assert (late.status, late.header("connection")) == (200, "close"), "it was asked before the signal"
        assert await gateway.ended() == 0
        assert len(engine.requests_to(CHAT)) == 1
    calls = {call["streamed"]: call for call in stored_calls(gateway.data_dir)}
    assert [(call["status"], call["prompt_tokens"]) for _, call in sorted(calls.items())] == [("ok", 3), ("ok", 5)]
    assert calls[1]["completion_tokens"] == 2
    assert [path.name for path in (gateway.data_dir / "spool").iterdir()] == ["lock"], "nothing is left to replay"


async def test_sigterm_ends_what_does_not_finish_within_the_grace_with_an_error(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        gateway_process(tmp_path, [entry("m", engine.url)], shutdown_grace_s=0.3) as gateway,
    ):
        engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()), Reply.hang())
        async with RawClient(gateway.url) as streaming, RawClient(gateway.url) as waiting:
            await streaming.start("POST", CHAT, body=STREAM)
            await waiting.send("POST", CHAT, body=ASK)
            await engine.received(CHAT, 2)
            gateway.send(signal.SIGTERM)
            rest = await streaming.rest()
            (error,) = errors_in(rest)
            assert rest.startswith(chat_chunk("a"))
            assert DONE not in rest
            assert (error["type"], error["code"]) == ("server_error", "draining")
            head = await waiting.head()
            assert (head.status, head.header("retry-after")) == (503, "2")
            assert json.loads(await waiting.rest())["error"]["code"] == "draining"
        assert await gateway.ended() == 0
        for request in engine.requests_to(CHAT):
            await asyncio.wait_for(request.closed_by_peer.wait(), HANG_S)
    rows = stored_calls(gateway.data_dir)
    assert [(row["status"], row["error_code"], row["http_status"]) for row in rows] == [("error", "draining", 503)] * 2
    assert rows[0]["completion_tokens"] == 1


async def test_sigterm_is_obeyed_though_a_client_reads_nothing(tmp_path: Path) -> None:
    flowing = asyncio.Event()

    def flood() -> Iterator[bytes]:
        for turn in range(2**30):
            if turn == 20:
                flowing.set()
            yield chat_chunk("가" * 20_000)

    async with (
        ScriptedEngine() as engine,
        gateway_process(tmp_path, [entry("m", engine.url)], shutdown_grace_s=0.1) as gateway,
    ):
        engine.script(CHAT, Reply(pieces=flood(), framing="chunked", content_type="text/event-stream"))
        async with RawClient(gateway.url) as client:
            await client.send("POST", CHAT, body=STREAM)
            await asyncio.wait_for(flowing.wait(), HANG_S)
            gateway.send(signal.SIGTERM)
            assert await gateway.ended() == 0
    (call,) = stored_calls(gateway.data_dir)
    assert (call["status"], call["error_code"]) == ("error", "draining")


# --- a log that cannot be written ---------------------------------------------------------------------------


@asynccontextmanager
async def gateway_logging_to(
    stderr: int | None, directory: Path, models: Sequence[Entry]
) -> AsyncIterator[tuple[str, Process]]:
    """`simsa serve`, ready, with this file or pipe as standard error, None to have it closed. Address and process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    closing_it = ("sh", "-c", 'exec "$@" 2>&-', "sh") if stderr is None else ()
    process = await asyncio.create_subprocess_exec(
        *(*closing_it, *SIMSA, "serve"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=stderr,
        env=clean_environment(
            registry=registry_in(directory, *models), data_dir=directory / "data", port=port, health_interval_s=0.05
        ),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(HANG_S):
            while not await is_ready(url):  # nothing announces it: the log is what fails
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield url, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def is_ready(url: str) -> bool:
    try:
        async with RawClient(url) as client:
            return (await client.request("GET", "/ready")).status == 200
    except ConnectionRefusedError:
        return False


async def lost_lines_where_calls_and_the_stop_go_well(stderr: int | None, directory: Path) -> int:
    """Whole and streamed calls, one of them in flight at SIGTERM, with this standard error; the lines lost by then."""
    gate = asyncio.Event()
    last = (chat_chunk("b"), chat_chunk(finish_reason="stop"))
    async with (
        ScriptedEngine() as engine,
        gateway_logging_to(stderr, directory, [entry("m", engine.url)]) as (url, process),
        RawClient(url) as client,
        RawClient(url) as streaming,
    ):
        for _ in range(20):
            whole = await client.request("POST", CHAT, body=ASK)
            assert (whole.status, whole.json()["choices"][0]["finish_reason"]) == (200, "stop")
            streamed = await client.request("POST", CHAT, body=STREAM)
            assert (streamed.status, streamed.body.endswith(DONE), errors_in(streamed.body)) == (200, True, [])
        assert (await client.request("POST", CHAT, body={**ASK, "model": "none"})).status == 404
        engine.script(CHAT, Reply.stream(chat_chunk("a"), gate, *last, usage_chunk(5, 2), DONE))
        await streaming.start("POST", CHAT, body=STREAM)
        assert await streaming.next_event() == chat_chunk("a")
        metrics = (await client.request("GET", "/metrics")).body.decode()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_S):
            while await is_ready(url):
                await asyncio.sleep(0.01)
        gate.set()
        assert await streaming.rest() == b"".join((*last, DONE))
        async with asyncio.timeout(HANG_S):
            assert await process.wait() == 0
    assert [row["status"] for row in stored_calls(directory / "data")] == ["ok"] * 41
    assert "simsa_background_failures_total{" not in metrics
    (lost,) = re.findall(r"^simsa_log_lines_lost_total (\S+)$", metrics, re.M)
    return int(float(lost))


LINES_OF_IT = 42
"""At least: it listens, forty calls, a refusal."""


async def test_log_on_a_full_disk_costs_only_lines(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert await lost_lines_where_calls_and_the_stop_go_well(full.fileno(), tmp_path) >= LINES_OF_IT


async def test_log_whose_reader_died_costs_only_lines(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with closing(os.fdopen(write_end, "wb")):
        assert await lost_lines_where_calls_and_the_stop_go_well(write_end, tmp_path) >= LINES_OF_IT


async def test_log_that_was_closed_before_the_start_costs_only_lines(tmp_path: Path) -> None:
    assert await lost_lines_where_calls_and_the_stop_go_well(None, tmp_path) >= LINES_OF_IT


async def test_log_whose_reader_does_not_read_stops_nobody(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    while fill(write_end):
        continue
    os.set_blocking(write_end, True)
    with closing(os.fdopen(write_end, "wb")), closing(os.fdopen(read_end, "rb")):
        assert await lost_lines_where_calls_and_the_stop_go_well(write_end, tmp_path) == 0


def fill(pipe: int) -> int:
    """Bytes that still went in."""
    try:
        return os.write(pipe, bytes(4096))
    except BlockingIOError:
        return 0


# --- kill -9 ------------------------------------------------------------------------------------------------


async def test_kill_9_under_load_keeps_every_finished_call_and_marks_the_rest(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    finished: set[str] = set()
    sent: set[str] = set()
    enough = asyncio.Event()

    async def keep_asking(url: str, worker: int) -> None:
        async with RawClient(url) as client:
            for turn in range(10**6):
                name = f"{worker}-{turn}"
                sent.add(name)
                body = STREAM if turn % 2 else ASK
                answer = await client.request("POST", CHAT, body=body, headers=[("x-request-id", name)])
                assert answer.status == 200
                finished.add(name)
                if len(finished) >= 150:
                    enough.set()

    async with ScriptedEngine() as engine:
        models = [
            entry("m", engine.url),
            entry("stuck", engine.url, serving={"kind": "vllm", "served_model_name": "m"}),
        ]
        async with gateway_process(tmp_path, models, database_url=database.url) as gateway:
            engine.script(CHAT, lambda request: _stuck_or_usual(engine, request))
            async with RawClient(gateway.url) as streaming, RawClient(gateway.url) as waiting:
                for client, name, body in ((streaming, "s", STREAM), (waiting, "w", ASK)):
                    marked = {**body, "model": "stuck", "stop": ["stuck"]}
                    await client.send("POST", CHAT, body=marked, headers=[("x-request-id", name)])
                await streaming.head()
                await engine.received(CHAT, 2)
                load = [asyncio.create_task(keep_asking(gateway.url, worker)) for worker in range(6)]
                await enough.wait()
                gateway.send(signal.SIGKILL)
                ends = await asyncio.gather(*load, return_exceptions=True)
            assert all(isinstance(end, (Truncated, ConnectionError)) for end in ends)
            assert await gateway.ended() == -signal.SIGKILL
        assert processes_of(tmp_path) == []
        async with gateway_process(tmp_path, models, database_url=database.url) as again:
            rows = await until_rows(database, lambda rows: all(row["status"] != "open" for row in rows))
            again.send(signal.SIGTERM)
            assert await again.ended() == 0
    status = {row["request_id"]: row["status"] for row in rows}
    assert len(status) == len(rows), "each call is one row"
    assert {status[name] for name in finished} == {"ok"}
    assert (status["s"], status["w"]) == ("interrupted", "interrupted")
    assert set(status) <= sent | {"s", "w"}
    assert set(status.values()) == {"ok", "interrupted"}


async def test_kill_9_while_the_database_is_locked_loses_nothing(tmp_path: Path, database: ScratchDatabase) -> None:
    async with ScriptedEngine() as engine:
        models = [entry("m", engine.url)]
        async with gateway_process(tmp_path, models, database_url=database.url) as gateway:
            async with database.locked():
                async with RawClient(gateway.url) as client:
                    for body in (ASK, STREAM):
                        assert (await client.request("POST", CHAT, body=body)).status == 200
                gateway.send(signal.SIGKILL)
                await gateway.ended()
            assert await database.rows(ROWS) == []
        async with gateway_process(tmp_path, models, database_url=database.url):
            rows = await until_rows(database, lambda rows: len(rows) == 2)
    assert [(row["status"], row["streamed"]) for row in rows] == [("ok", 0), ("ok", 1)]


async def until_rows(database: ScratchDatabase, holds: Callable[[list[Row]], bool]) -> list[Row]:
    """Wait until the calls in the database are such that `holds`; give them."""
    async with asyncio.timeout(HANG_S):
        while not holds(rows := await database.rows(ROWS)):
            await asyncio.sleep(0.01)
    return rows


def _stuck_or_usual(engine: ScriptedEngine, request: Request) -> Reply:
    if request.json().get("stop") == ["stuck"]:
        return Reply.stream(chat_chunk("a"), asyncio.Event())
    return engine.usual(request)
