"""Several hosts from one plan, as real processes: who sends, what comes back, what becomes of a host that is lost."""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from clients import RawClient
from engines import ScriptedEngine
from guards import HANG_S
from load_repeats import RUN_LIMIT_S, Bench, kill_all_of
from load_workers import constant, order, read_file, running, until_lines, write_order

from gateway.processes import free_ports
from loadtests.endings import Ending
from loadtests.hosts import Address, Hosts, parse_address
from loadtests.journal import Journal
from loadtests.records import Outcome

CHAT = "/v1/chat/completions"
KEY = "ENGINE_KEY"
BURST_S = 0.5
"""For so long what comes is gathered: ten turns of a host that leads."""


async def said_by(process: Process, words: str) -> str:
    """The first line of its standard error that has these words."""
    assert process.stderr is not None
    async with asyncio.timeout(HANG_S):
        async for line in process.stderr:
            if words in line.decode():
                return line.decode().strip()
    raise AssertionError(f"it ended without saying {words!r}")


async def test_hosts_send_what_one_plan_says_with_their_own_keys_and_their_records_come_back(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    at = f"127.0.0.1:{port}"
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url, key_variable=KEY)
        run = ("run", bench.write_plan(), "--hosts", "2", "--listen", at, "--wait-s", "50")
        async with (
            bench.loadtest(*run, **{KEY: "s3cret-of-the-leader"}) as leading,
            bench.loadtest("worker", at, "--key-variable", KEY, **{KEY: "s3cret-of-one"}) as one,
            bench.loadtest("worker", at, "--key-variable", KEY, **{KEY: "s3cret-of-the-other"}) as other,
            asyncio.timeout(RUN_LIMIT_S),
        ):
            ended = [await process.communicate() for process in (leading, one, other)]
        requests = engine.requests_to(CHAT)
    (out, err), *followed = ended
    assert f"on each run `simsa loadtest worker {at}`" in " ".join(err.decode().split())
    assert [one.returncode, other.returncode] == [0, 0], "they are told that the run is over"
    for _, words in followed:
        assert words.decode().count("the cell ran to its end") >= 2
    found = msgspec.json.decode(out)
    assert (found["state"], found["workers"]) == ("complete", 2)
    assert {request.header("authorization") for request in requests} == {
        "Bearer s3cret-of-one",
        "Bearer s3cret-of-the-other",
    }
    records = Journal(bench.run_directory).records / "second"
    files = [read_file(records / f"second-direct-r1-w{worker}.jsonl") for worker in (0, 1)]
    numbers = sorted(record.n for file in files for record in file.records)
    assert numbers == list(range(len(numbers)))
    assert {file.header.host for file in files} == {socket.gethostname()}
    assert files[0].header.began_at == files[1].header.began_at
    checks = {check["name"]: check for check in found["cells"][1]["repeats"][0]["checks"]}
    assert checks["hosts"]["seen"].startswith("2 workers of 1 host within ")
    assert checks["records_complete"]["passed"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"s3cret" not in everything


@asynccontextmanager
async def bursts(port: int) -> AsyncIterator[int]:
    """A way to that port over a network that hands over what comes back in bursts; the port to go in at."""

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def in_bursts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = bytearray()

        def hand_over() -> None:
            writer.write(bytes(held))
            held.clear()

        while data := await reader.read(65_536):
            if not held:
                asyncio.get_running_loop().call_later(BURST_S, hand_over)
            held += data
        hand_over()
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        with suppress(OSError):
            await asyncio.gather(at_once(reader, back), in_bursts(there, writer))

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def ends_over_bursts(*lead: str) -> list[tuple[int | None, str]]:
    """How who leads and the one who follows over such a network end: code and standard error of each."""
    (port,) = free_ports(1)
    command = ("-m", "loadtests.worker")
    async with bursts(port) as through:
        leading = running(*command, *lead, "--master-port", str(port), "--ready-s", "20")
        following = running(*command, "--master-host", "127.0.0.1", "--master-port", str(through))
        async with leading as leader, following as follower, asyncio.timeout(HANG_S):
            said = await asyncio.gather(leader.communicate(), follower.communicate())
    return [(one.returncode, err.decode()) for one, (_, err) in zip((leader, follower), said, strict=True)]


async def test_a_host_hears_that_the_run_is_over_however_close_behind_the_greeting_it_comes() -> None:
    over = (Ending.OVER, "the order of 127.0.0.1: the run is over\n")
    assert await ends_over_bursts("--dismiss", "1") == [(Ending.RAN, ""), over]


async def test_a_host_gets_its_order_however_close_behind_the_greeting_it_comes(tmp_path: Path) -> None:
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9", open=constant(10, 0.5)))
    assert await ends_over_bursts(path, "--expect-workers", "1") == [(Ending.RAN, "")] * 2
    assert len(read_file(tmp_path / "out-w0.jsonl").records) == 5


async def test_a_host_that_is_lost_owed_its_share_and_the_run_waits_for_it_no_longer_than_it_said(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    at = f"127.0.0.1:{port}"
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)
        plan = bench.write_plan(first_s=6.0)
        async with (
            bench.loadtest("run", plan, "--hosts", "2", "--listen", at, "--wait-s", "25") as leading,
            bench.loadtest("worker", at) as one,
            bench.loadtest("worker", at) as other,
            asyncio.timeout(RUN_LIMIT_S),
        ):
            reading = asyncio.create_task(leading.communicate())
            async with asyncio.timeout(HANG_S):
                while len(paths := sorted((tmp_path / "data").rglob("first-direct-r1-w?.jsonl"))) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.gather(*(until_lines(path, 4) for path in paths))
            kill_all_of(other)
            _, err = await reading
            await one.communicate()
    assert one.returncode == 0, "it is told that the run is over"
    assert leading.returncode == 1
    *_, last = err.decode().splitlines()
    assert "1 of 2 workers came in 25 s; what was measured is kept" in last
    assert "Traceback" not in err.decode()
    run = Journal(bench.run_directory).run()
    assert (run.state, run.cells) == ("failed", []), "an invalid repeat is run again when the run goes on"
    assert "1 of 2 workers lost" in run.notes[0]
    files = [read_file(path) for path in paths]
    numbers = sorted(record.n for file in files for record in file.records)
    assert numbers == list(range(len(numbers)))
    (lost,) = [file for file in files if file.footer is None]
    assert lost.outcomes()[-1] == Outcome.UNSENT
    assert len(numbers) > 20, "six seconds of ten a second"


async def test_a_run_of_hosts_is_refused_where_it_cannot_listen_or_they_would_ask_themselves(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)
        plan = bench.write_plan()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            at = f"127.0.0.1:{taken.getsockname()[1]}"
            for option in (("--hosts", "2", "--listen", at), ("--web-port", at.partition(":")[2])):
                code, out, err = await bench.simsa("run", plan, *option)
                assert (code, out) == (2, "")
                refused = (
                    f"{option[-2]}: cannot listen on {at}: Address already in use; name another, or stop what uses it"
                )
                assert err == f"{refused}\n"
        code, _, err = await bench.simsa("run", plan, "--hosts", "2", "--listen", f"0.0.0.0:{free_ports(1)[0]}")
        assert code == 2
        assert f"target: {engine.url} is this host's own, the others would ask themselves" in err
        assert engine.requests_to(CHAT) == []


async def test_locusts_page_is_named_when_a_cell_begins_and_answers_on_loopback_alone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)
        async with bench.loadtest("run", bench.write_plan(first_s=120), "--web-port", str(port)) as process:
            line = await said_by(process, "Locust's page")
            assert line == f"Locust's page meanwhile: http://127.0.0.1:{port}/"
            async with asyncio.timeout(HANG_S):
                while True:  # the worker imports Locust first
                    try:
                        async with RawClient(f"http://127.0.0.1:{port}") as client:
                            page = await client.request("GET", "/")
                            stats = (await client.request("GET", "/stats/requests")).json()
                        if stats["stats"] and stats["stats"][0]["num_requests"]:
                            break
                    except ConnectionError:
                        pass
                    await asyncio.sleep(0.05)
            assert page.status == 200
            assert [one["name"] for one in stats["stats"]] == ["first", "Aggregated"]
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.2", port)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(HANG_S):
                await process.communicate()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:5600", Address("10.0.0.1", 5600)),
        ("lead.example", Address("lead.example", 5557)),
        ("[fd00::1]:5600", Address("fd00::1", 5600)),
        ("fd00::1", Address("fd00::1", 5557)),
    ],
)
def test_where_a_host_listens_is_read_and_written(text: str, expected: Address) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize("text", ["", ":1", "h:", "h:x", "h:0", "h:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected ADDRESS:PORT"):
        parse_address(text)


def test_hosts_are_told_how_many_workers_to_be() -> None:
    words = Hosts(3, 4, Address("10.0.0.1", 5557), 60.0).words
    expected = "waiting for 3 hosts, 60 s at the most: on each run `simsa loadtest worker 10.0.0.1:5557 --workers 4`"
    assert words == expected
