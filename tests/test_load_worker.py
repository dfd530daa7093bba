"""Workers of load tests as real processes against real sockets: every fault, both loops, signals, full disks, hosts."""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import RawClient
from engines import CLOSE, DONE, RESET, Reply, ScriptedEngine, chat_chunk, error_event, usage_chunk
from gateways import entry, running_gateway
from guards import HANG_S
from load_workers import (
    BODY,
    constant,
    order,
    read_file,
    run_worker,
    running,
    sent,
    stand_in,
    steady,
    until_lines,
    with_file_limit,
    write_order,
)

from gateway import __version__
from gateway.processes import free_ports
from loadtests.calibration import Errors, Level, errors_of, next_level, try_level, what_was_shown
from loadtests.cell_order import FixedWork
from loadtests.endings import Ending
from loadtests.plan import Arrivals, Closed, Open, Rate, Route, Users
from loadtests.records import Outcome

CHAT = "/v1/chat/completions"
ADMIN = "admin-key-of-the-tests"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORD, FINISH, USAGE = chat_chunk("가나"), chat_chunk(finish_reason="stop"), usage_chunk(12, 1)
WHOLE = WORD + FINISH + DONE

FAULTS: list[tuple[Reply, Outcome, str | None]] = [
    (Reply.stream(WORD, FINISH, USAGE, DONE), Outcome.OK, None),
    (Reply.stream(WORD, FINISH, USAGE, DONE, framing="close"), Outcome.OK, None),
    (Reply.raw(EARLY + HEAD, b"%x\r\n%b\r\n0\r\n\r\n" % (len(WHOLE), WHOLE)), Outcome.OK, None),
    (Reply.json({"error": {"message": "Not there."}}, status=404), Outcome.REFUSED, "status 404: Not there."),
    (Reply.text("<html>", status=502), Outcome.REFUSED, "status 502: <html>"),
    (Reply.json({"error": {"message": "Slow down."}}, status=429), Outcome.TOO_MANY, "status 429: Slow down."),
    (Reply.json({}, status=307, headers=[("location", "/")]), Outcome.REFUSED, "status 307"),
    (Reply.raw(RESET), Outcome.UNREACHABLE, "Connection reset by peer"),
    (Reply.raw(CLOSE), Outcome.UNREACHABLE, "closed before the answer's head"),
    (Reply.raw(b"HTTP/1.1 200 OK\r\ncontent-", CLOSE), Outcome.CUT, "closed before the answer's head"),
    (Reply.raw(b"SSH-2.0-OpenSSH_9\r\n", CLOSE), Outcome.MALFORMED, "no HTTP"),
    (Reply.json({"choices": []}), Outcome.MALFORMED, "no stream of events but 'application/json'"),
    (Reply.stream(WORD, b"data: nonsense\n\n"), Outcome.MALFORMED, "no JSON object"),
    (Reply.raw(HEAD, b"this is no chunk\r\n"), Outcome.MALFORMED, "no HTTP"),
    (Reply.stream(WORD, CLOSE), Outcome.CUT, "before its end"),
    (Reply.stream(WORD, RESET), Outcome.CUT, "Connection reset by peer"),
    (Reply.stream(WORD, FINISH), Outcome.CUT, "before its end"),
    (Reply.stream(WORD, DONE), Outcome.CUT, "without a finish_reason"),
    (Reply.stream(WORD, error_event("가나다")), Outcome.FAILED, "reported an error"),
    (Reply.stream(WORD, chat_chunk(finish_reason="abort"), DONE), Outcome.FAILED, "gave up"),
    (Reply.stream(FINISH, usage_chunk(12, 0), DONE), Outcome.EMPTY, "no token came"),
    (Reply.hang(), Outcome.TIMEOUT, "not over after 2 s"),
    (Reply.stream(WORD, asyncio.Event()), Outcome.TIMEOUT, "not over after 2 s"),
]  # fmt: skip


async def test_whatever_the_target_does_each_request_has_one_record_that_says_it(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        engine.script(CHAT, *(reply for reply, _, _ in FAULTS))
        rate = constant(len(FAULTS) * 2.5, 0.4)
        ran = await run_worker(tmp_path, order(tmp_path, engine.url, open=rate, timeout_s=2.0))
    assert (ran.code, ran.err) == (0, "")
    assert sorted(record.n for record in ran.file.records) == list(range(len(FAULTS)))
    left = list(ran.file.records)
    for _, outcome, words in FAULTS:
        found = next((one for one in left if one.outcome is outcome and (words or "") in (one.error or "")), None)
        assert found is not None, f"no record says {outcome}: {words}"
        left.remove(found)
    for record in ran.file.records:
        assert "가나" not in (record.error or ""), "never what the model wrote"
        assert record.sent_s is not None
        assert record.ended_s is not None
        assert record.sent_s <= (record.first_s or record.ended_s) <= record.ended_s


async def test_a_request_asks_for_a_stream_with_usage_and_direct_doors_hear_nothing_of_the_run(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        ran = await run_worker(tmp_path, order(tmp_path, engine.url, open=constant(10, 0.2)))
        request = engine.requests_to(CHAT)[0]
    assert request.json() == {
        **BODY,
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": False},
    }
    assert [name for name, _ in request.headers if name.startswith("x-simsa") or name == "authorization"] == []
    assert engine.connections_made == 1, "answers that are over give their connection to the next request"
    assert (ran.file.outcomes(), ran.file.header.workers) == (["ok", "ok"], 1)
    assert ran.file.footer is not None
    assert (ran.file.footer.stopped, round(ran.file.footer.window_s, 1)) == (None, 0.2)
    assert abs(ran.file.footer.wall_minus_monotonic_s) < 1.0
    assert 0 < ran.file.footer.cpu_s < HANG_S


async def test_events_five_milliseconds_apart_have_moments_of_their_own(tmp_path: Path) -> None:
    """What a buffer on the way would take from them. A busy machine takes some too, so the best of five counts."""
    log = tmp_path / "sent.jsonl"
    work = FixedWork({**BODY, "max_tokens": 100})
    async with stand_in(log, "--first-ms", "20", "--gap-ms", "5") as url:
        ran = await run_worker(tmp_path, order(tmp_path, url, open=constant(5, 1.0), work=work))
    assert [record.token_events for record in ran.file.records] == [100] * 5
    distinct = [1 + sum(gap > 1000 for gap in record.gaps_us) for record in ran.file.records]
    assert max(distinct) >= 95
    errors = errors_of(ran.file.records, sent(log))
    assert float(np.abs(errors.ttft_s).min()) < 0.002, "the others wait for this machine"
    assert abs(float(np.median(errors.itl_s))) < 0.002
    assert abs(float(np.median(errors.tpot_s))) < 0.0005


async def test_conversations_grow_in_a_closed_loop_and_locusts_page_shows_what_failed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    page: dict[str, Any] = {}

    async def look(process: Process) -> None:
        await until_lines(tmp_path / "out.jsonl", 7)
        async with RawClient(f"http://127.0.0.1:{port}") as client:
            page.update((await client.request("GET", "/stats/requests")).json())

    async with ScriptedEngine(tokens=2) as engine:
        usual = Reply.stream(WORD, FINISH, USAGE, DONE)
        engine.script(CHAT, Reply.json({"error": {"message": "no"}}, status=503), usual)
        work = FixedWork(BODY, output_tokens=8, turns=3)
        load = Closed((Users(1, 2, 1.0), Users(2, 2, 1.5)), think_s=0.02)
        ordered = order(
            tmp_path,
            engine.url,
            open=None,
            closed=load,
            work=work,
            web_port=port,
            door="gateway",
            key_variable="LOAD_KEY",
        )
        ran = await run_worker(tmp_path, ordered, {"LOAD_KEY": "s3cret"}, beside=look)
        requests = engine.requests_to(CHAT)
    assert (ran.code, ran.err) == (0, "")
    records = ran.file.records
    assert [record.outcome for record in records].count(Outcome.REFUSED) == 1
    assert {record.user for record in records} == {0, 1}
    assert {record.turn for record in records} == {0, 1, 2}
    assert sorted(record.n for record in records) == list(range(len(records)))
    first_of_second = min(record.scheduled_s for record in records if record.user == 1)
    assert first_of_second >= 0.5, "the line from 1 to 2 is above a half from its middle on"
    for user in (0, 1):
        own = sorted((one for one in records if one.user == user), key=lambda one: one.scheduled_s)
        assert all(later.scheduled_s >= (one.ended_s or 0) for one, later in pairwise(own))
    grown = next(request.json()["messages"] for request in requests if len(request.json()["messages"]) == 5)
    assert [message["content"] for message in grown[1::2]] == ["가나", "가나"], "with what was really answered"
    assert requests[0].header("authorization") == "Bearer s3cret"
    assert requests[0].header("x-simsa-run-id") == "run-1"
    assert requests[0].header("x-simsa-priority") == "load_test"
    assert b"s3cret" not in (tmp_path / "cell.json").read_bytes() + (tmp_path / "out.jsonl").read_bytes()
    total = next(stat for stat in page["stats"] if stat["name"] == "Aggregated")
    assert total["num_failures"] == 1
    assert page["user_count"] in (1, 2)


async def test_an_open_loop_goes_on_with_conversations_at_its_own_moments(tmp_path: Path) -> None:
    async with ScriptedEngine(tokens=2) as engine:
        work = FixedWork(BODY, output_tokens=2, turns=2)
        ran = await run_worker(tmp_path, order(tmp_path, engine.url, open=constant(20, 0.5), work=work))
    turns = [record.turn for record in sorted(ran.file.records, key=lambda record: record.n)]
    assert turns.count(1) >= 4, "what is due is the next turn of whoever has been answered"
    assert [record.scheduled_s for record in sorted(ran.file.records, key=lambda record: record.n)] == [
        pytest.approx(n / 20) for n in range(10)
    ]


async def test_a_trace_comes_again_with_its_moments_and_lengths_at_its_speed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at_s": 101, "output_tokens": 3}\n{"at_s": 100, "input_tokens": 9, "output_tokens": 5}\n')
    async with ScriptedEngine() as engine:
        load = Open(Arrivals.TRACE, speed=4.0)
        ran = await run_worker(tmp_path, order(tmp_path, engine.url, open=load, trace_file=str(trace)))
        requests = engine.requests_to(CHAT)
    assert [request.json()["max_tokens"] for request in requests] == [5, 3]
    assert [(one.scheduled_s, one.asked_input_tokens, one.completion_tokens) for one in ran.file.records] == [
        (0.0, 9, 5),
        (0.25, None, 3),
    ]


async def test_a_signal_stops_sending_and_what_does_not_end_in_time_is_abandoned(tmp_path: Path) -> None:
    async def interrupt(process: Process) -> None:
        await until_lines(tmp_path / "out.jsonl", 3)
        process.send_signal(signal.SIGTERM)

    async with ScriptedEngine() as engine:
        usual, stuck = Reply.stream(WORD, FINISH, USAGE, DONE), Reply.stream(WORD, asyncio.Event())
        engine.script(CHAT, usual, stuck, usual)
        ordered = order(tmp_path, engine.url, open=constant(10, 60.0), drain_s=0.3)
        ran = await run_worker(tmp_path, ordered, beside=interrupt)
    assert ran.code == 1
    assert ran.err == f"{tmp_path}/cell.json: stopped by SIGTERM\n"
    assert ran.file.footer is not None
    assert ran.file.footer.stopped == "stopped by SIGTERM"
    (abandoned,) = [record for record in ran.file.records if record.outcome is Outcome.ABANDONED]
    assert (abandoned.error, abandoned.token_events, abandoned.n) == ("stopped by SIGTERM", 1, 1)
    numbers = sorted(record.n for record in ran.file.records)
    assert numbers == list(range(len(numbers))), "what was due by then, and nothing else"
    assert len(numbers) < 100


async def test_what_is_under_way_when_the_drain_ends_is_abandoned_though_nobody_stopped_it(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        engine.script(CHAT, Reply.hang())
        ran = await run_worker(tmp_path, order(tmp_path, engine.url, open=constant(10, 0.3), drain_s=0.2))
    assert (ran.code, ran.file.outcomes()) == (0, ["abandoned"] * 3)
    assert {record.error for record in ran.file.records} == {"still running 0.2 s after the load's end"}


async def test_nobody_there_is_unreachable_and_every_request_counts(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    ordered = order(tmp_path, f"http://127.0.0.1:{port}", open=Open(Arrivals.POISSON, (Rate(20, 20, 0.5),)))
    ran = await run_worker(tmp_path, ordered)
    assert (ran.code, set(ran.file.outcomes())) == (0, {"unreachable"})
    assert {record.error for record in ran.file.records} == {"Connection refused"}


async def test_a_disk_that_fills_up_stops_the_cell_with_one_line(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        ordered = order(tmp_path, engine.url, open=constant(20, 30.0))
        ran = await run_worker(tmp_path, ordered, before=with_file_limit(4000))
    assert ran.code == Ending.NOT_KEPT
    assert ran.err == f"{tmp_path}/cell.json: the records cannot be written: File too large\n"
    assert ran.file.records, "what fitted is kept, whole lines only"


async def test_an_order_that_cannot_be_run_is_two_and_one_line(tmp_path: Path) -> None:
    ordered = order(tmp_path, "http://127.0.0.1:9", key_variable="NOT_SET_ANYWHERE")
    async with running("-m", "loadtests.worker", write_order(tmp_path, ordered)) as process, asyncio.timeout(HANG_S):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode() == f"{tmp_path}/cell.json: key_variable: NOT_SET_ANYWHERE is not set in the environment\n"


async def test_a_comparison_through_the_gateway_is_a_record_a_side(tmp_path: Path) -> None:
    async with ScriptedEngine(["a"]) as a, ScriptedEngine(["b"]) as b:
        b.script(CHAT, Reply.json({"error": {"message": "no", "code": 400}}, status=400))
        async with running_gateway(tmp_path, [entry("a", a.url), entry("b", b.url)], admin_key=ADMIN) as gateway:
            await gateway.until_live("a", "b")
            body = {"messages": BODY["messages"], "params": {"max_tokens": 8}, "schedule": "concurrent"}
            ordered = order(
                tmp_path,
                gateway.url,
                route=Route.COMPARISON,
                model="a",
                models=("a", "b"),
                open=constant(5, 0.4),
                work=FixedWork(body),
                door="gateway",
                key_variable="LOAD_KEY",
            )
            ran = await run_worker(tmp_path, ordered, {"LOAD_KEY": ADMIN})
            calls = await gateway.calls(4)
    assert (ran.code, ran.err) == (0, "")
    good = [record for record in ran.file.records if record.side == "a"]
    assert [(one.outcome, one.token_events, one.completion_tokens, one.usage_source) for one in good] == [
        ("ok", 8, 8, "engine")
    ] * 2
    assert [one.outcome.value for one in ran.file.records if one.side == "b"] == ["refused"] * 2
    assert {record.n for record in ran.file.records} == {0, 1}
    assert {one.request_id for one in good} <= {call.opened.request_id for call in calls}


# --- hosts --------------------------------------------------------------------------------------------------


async def test_records_of_workers_on_other_hosts_come_back_and_a_lost_ones_requests_are_unsent(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with ScriptedEngine() as engine, asyncio.timeout(HANG_S):
        path = write_order(tmp_path, order(tmp_path, engine.url, open=constant(20, 3.0)))
        lead = ("-m", "loadtests.worker", path, "--expect-workers", "2", "--master-port", str(port))
        follow = ("-m", "loadtests.worker", "--master-host", "127.0.0.1", "--master-port", str(port))
        async with running(*lead) as master, running(*follow) as one, running(*follow) as other:
            await asyncio.gather(*(until_lines(tmp_path / f"out-w{number}.jsonl", 4) for number in (0, 1)))
            other.kill()
            _, err = await master.communicate()
            assert await one.wait() == 0
    assert master.returncode == 1
    files = [read_file(tmp_path / f"out-w{number}.jsonl") for number in (0, 1)]
    numbers = sorted(record.n for file in files for record in file.records)
    assert numbers == list(range(60)), "every request of the schedule has one record"
    (lost,) = [file for file in files if file.footer is None]
    (kept,) = [file for file in files if file.footer is not None]
    assert set(kept.outcomes()) == {"ok"}
    assert set(lost.outcomes()) == {"ok", "unsent"}
    assert f"worker {lost.header.worker} of 2 ({lost.header.host}) was lost" in err.decode()
    for file in files:
        assert file.header.wall_offset_s == pytest.approx(0.0, abs=file.header.begin_within_s or 0.0)


ACTOR = """
import sys
import time
from loadtests import worker  # whatever patches the standard library comes first
import gevent
from gateway import __version__
from locust.env import Environment

print("here", flush=True)
runner = Environment(user_classes=[]).create_worker_runner("127.0.0.1", int(sys.argv[1]))
is_ordered = []


def ordered(**_):
    if "ready" in sys.argv:
        runner.send_message("simsa_ready", {"error": None, "host": "actor", "version": __version__})
    print("ordered", flush=True)
    is_ordered.append(True)


def asked(msg, **_):
    clock = {"monotonic_s": time.perf_counter(), "wall_s": time.time()}
    runner.send_message("simsa_clock", {"round": msg.data["round"], **clock})


runner.register_message("simsa_order", ordered)
runner.register_message("simsa_ask", asked)
def begun(**_):
    print("begun", flush=True)
    if "torn" in sys.argv:
        runner.send_message("simsa_lines", {"at": 7, "lines": b"{}", "sha256": ""})


runner.register_message("simsa_begin", begun)
runner.register_message("simsa_stop", lambda msg, **_: print("stopped:", msg.data["why"], flush=True))
while not is_ordered and "mute" not in sys.argv:
    runner.send_message("simsa_here")
    gevent.sleep(0.1)
runner.greenlet.join()
"""
"""A worker that connects, sends heartbeats and says what it hears, but never sends nor ends. `ready`: it gets ready.
`torn`: of what it sends the first part is not there. `mute`: it never says that it is here."""
STRANGER = """
import sys
from pathlib import Path
from loadtests import worker
import gevent
from locust.rpc import Message, rpc

client = rpc.Client("127.0.0.1", int(sys.argv[1]), "stranger")
print("here", flush=True)
while not Path(sys.argv[2]).exists() or not Path(sys.argv[2]).read_bytes():
    gevent.sleep(0.01)
for kind, data in (
    ("simsa_ready", {"error": "not today", "host": "?", "version": "?"}),
    ("simsa_clock", {"round": 0, "monotonic_s": 0.0, "wall_s": 0.0}),
    ("simsa_lines", {"at": 0, "lines": b"nonsense", "sha256": ""}),
    ("simsa_end", {"stopped": "enough", "bytes": 0}),
    ("client_ready", "2.0"),
):
    client.send(Message(kind, data, "stranger"))
assert client.recv().type == "ack"
"""
"""Whoever reaches the port and was dealt nothing: sends once that file has a line, ends when the master has read it."""
FEW = """
import sys
from pathlib import Path
from loadtests.cell_run import CellRun, Clocks
from loadtests.cell_order import read_order
from loadtests.record_file import LineFile
from locust.env import Environment
from time import perf_counter

order = read_order(Path(sys.argv[1]).read_bytes())
environment = Environment()
cell = CellRun(order, LineFile(Path(order.out)), environment)
runner = environment.create_local_runner()
runner.start(cell.users - 1, spawn_rate=cell.users)
cell.prepare(runner, 0.5)
print(cell.run(perf_counter(), Clocks()))
"""
"""A cell of whose users one never begins."""


async def heard(process: Process, expected: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(HANG_S):
        assert (await process.stdout.readline()).decode() == f"{expected}\n"


async def test_a_cell_with_fewer_users_than_its_load_has_is_stopped_and_its_footer_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    ordered = order(tmp_path, f"http://127.0.0.1:{port}", open=None, closed=steady(3, 30.0))
    async with running("-c", FEW, write_order(tmp_path, ordered)) as process, asyncio.timeout(HANG_S):
        out, err = await process.communicate()
    why = "only 2 of 3 users had begun after 0.5 s"
    assert (out.decode(), err.decode()) == (f"{why}\n", "")
    file = read_file(tmp_path / "out.jsonl")
    assert file.footer is not None
    assert (file.footer.stopped, file.outcomes()) == (why, [])
    assert file.footer.window_s >= 0


async def test_a_worker_that_never_gets_ready_ends_the_cell_with_a_reason(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9"))
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port), "--ready-s", "5")
    async with running("-c", ACTOR, str(port)) as actor:
        await heard(actor, "here")
        async with running(*lead) as master, asyncio.timeout(HANG_S):
            _, err = await master.communicate()
            why = "worker 0 of 1 did not get ready within 5 s"
            assert (master.returncode, err.decode()) == (1, f"{path}: {why}\n")
            await heard(actor, "ordered")
            await heard(actor, f"stopped: {why}")


async def test_a_worker_that_connects_and_never_says_that_it_is_here_is_told_apart_from_one_that_does_not_come(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9"))
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port), "--ready-s", "5")
    async with running("-c", ACTOR, str(port), "mute") as actor:
        await heard(actor, "here")
        async with running(*lead) as master, asyncio.timeout(HANG_S):
            _, err = await master.communicate()
    why = "0 of 1 workers came in 5 s; 1 that connected did not say that they are here"
    assert (master.returncode, err.decode()) == (Ending.MISSING, f"{path}: {why}: simsa {__version__} there too?\n")


async def test_workers_are_told_when_the_cell_ends_before_it_begins(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9"))
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "2", "--master-port", str(port))
    follow = ("-m", "loadtests.worker", "--master-host", "127.0.0.1", "--master-port", str(port))
    async with running(*lead) as master, running("-c", ACTOR, str(port)) as actor, running(*follow) as worker:
        await heard(actor, "here")
        await heard(actor, "ordered")
        master.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG_S):
            (_, master_err), (_, worker_err) = await asyncio.gather(master.communicate(), worker.communicate())
    assert (master.returncode, master_err.decode()) == (1, f"{path}: stopped by SIGTERM\n")
    assert (worker.returncode, worker_err.decode()) == (1, "the order of 127.0.0.1: stopped by SIGTERM\n")


async def test_a_worker_that_lives_on_and_never_ends_counts_as_lost(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9", open=constant(10, 0.5), drain_s=0.1))
    patience = ("--ready-s", "5", "--grace-s", "1")
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port), *patience)
    async with running("-c", ACTOR, str(port), "ready") as actor:
        await heard(actor, "here")
        async with running(*lead) as master, asyncio.timeout(HANG_S):
            _, err = await master.communicate()
            why = "it had not ended 1 s after load and drain"
            said = f"{path}: worker 0 of 1 (actor) was lost: {why}\n"
            assert (master.returncode, err.decode()) == (Ending.EARLY, said)
            for words in ("ordered", "begun", f"stopped: worker 0 of 1 (actor) counts as lost: {why}"):
                await heard(actor, words)
    file = read_file(tmp_path / "out-w0.jsonl")
    assert [(record.n, record.outcome) for record in file.records] == [(n, Outcome.UNSENT) for n in range(5)]
    assert file.footer is None


async def test_a_worker_whose_records_do_not_come_whole_is_given_up_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9", open=constant(1, 600.0)))
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port))
    async with running("-c", ACTOR, str(port), "ready", "torn") as actor:
        await heard(actor, "here")
        async with running(*lead) as master, asyncio.timeout(HANG_S):
            _, err = await master.communicate()
    said = f"{path}: worker 0 of 1 (actor) was lost: what it sent did not arrive whole\n"
    assert (master.returncode, err.decode()) == (Ending.EARLY, said)
    assert read_file(tmp_path / "out-w0.jsonl").outcomes() == ["unsent"] * 600


async def test_a_master_that_cannot_listen_says_so_in_one_line(tmp_path: Path) -> None:
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", port)
        async with running(*lead) as process, asyncio.timeout(HANG_S):
            _, err = await process.communicate()
        nowhere = ("--bind-host", "192.0.2.1")
        async with running(*lead, *nowhere) as other, asyncio.timeout(HANG_S):
            _, more = await other.communicate()
    refused = f"{path}: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert (process.returncode, err.decode()) == (Ending.REFUSED, refused)
    assert other.returncode == Ending.REFUSED
    (line,) = more.decode().splitlines()
    assert line == f"{path}: cannot listen on 192.0.2.1:{port}: Cannot assign requested address"


async def test_a_worker_on_another_host_sends_no_secret_that_it_was_not_started_for(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with ScriptedEngine() as engine, asyncio.timeout(HANG_S):
        path = write_order(tmp_path, order(tmp_path, engine.url, key_variable="OTHER_SECRET"))
        lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port))
        follow = ("-m", "loadtests.worker", "--master-host", "127.0.0.1", "--master-port", str(port))
        async with running(*lead) as master, running(*follow, environment={"OTHER_SECRET": "s3cret"}) as worker:
            _, err = await worker.communicate()
            await master.communicate()
        assert engine.requests_to(CHAT) == []
    assert worker.returncode == Ending.REFUSED
    assert "this host sends no key of OTHER_SECRET" in err.decode()


async def test_a_worker_whom_nobody_leads_gives_up_in_one_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    follow = ("-m", "loadtests.worker", "--master-host", "127.0.0.1", "--master-port", str(port), "--ready-s", "1")
    async with running(*follow) as worker, asyncio.timeout(HANG_S):
        _, err = await worker.communicate()
    why = f"the order of 127.0.0.1: no master answered at 127.0.0.1:{port} within 1 s\n"
    assert (worker.returncode, err.decode()) == (Ending.MISSING, why)


async def test_what_a_stranger_sends_changes_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    out = tmp_path / "out-w0.jsonl"
    async with ScriptedEngine() as engine:
        path = write_order(tmp_path, order(tmp_path, engine.url, open=constant(10, 3.0)))
        lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port))
        follow = ("-m", "loadtests.worker", "--master-host", "127.0.0.1", "--master-port", str(port))
        async with running("-c", STRANGER, str(port), str(out)) as stranger:
            await heard(stranger, "here")
            async with running(*lead) as master, running(*follow) as worker, asyncio.timeout(HANG_S):
                for process in (stranger, worker, master):
                    _, err = await process.communicate()
                    assert (process.returncode, err.decode()) == (0, "")
    assert read_file(out).outcomes() == ["ok"] * 30


async def test_a_master_listens_on_loopback_unless_told_otherwise_and_help_says_who_can_take_part(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    path = write_order(tmp_path, order(tmp_path, "http://127.0.0.1:9"))
    lead = ("-m", "loadtests.worker", path, "--expect-workers", "1", "--master-port", str(port))
    async with running("-c", ACTOR, str(port)) as actor, running(*lead):
        await heard(actor, "here")
        await heard(actor, "ordered")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", port)
    async with running("-m", "loadtests.worker", "--help") as process, asyncio.timeout(HANG_S):
        out, _ = await process.communicate()
    words = " ".join(out.decode().split())
    assert "127.0.0.1 unless given" in words
    assert "whoever reaches the port can take part" in words


# --- calibration --------------------------------------------------------------------------------------------


async def test_calibration_shows_counts_that_are_exact_and_figures_that_agree_with_the_stand_ins_log(
    tmp_path: Path,
) -> None:
    tried = await try_level(tmp_path, 500, 1.0)
    assert tried.wrong == 0
    assert tried.events_per_s == pytest.approx(500, rel=0.1)
    assert 0 < tried.cpu_share < 1
    assert float(np.abs(tried.errors.ttft_s).min()) < 0.002, "the others wait for this machine"
    assert abs(float(np.median(tried.errors.tpot_s))) < 0.0005


def level(events_per_s: float, *, lag_s: float = 0.001, cpu: float = 0.2, wrong: int = 0) -> Level:
    values = np.array([0.0004, -0.0005])
    return Level(events_per_s, lag_s, cpu, Errors(values, values, values), wrong)


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ([], 500),
        ([True], 1000),
        ([True, False], 1000),
        ([True, False, True], 2000),
        ([True, False, False], None),
        ([False], 500),
        ([False, False], None),
        ([True, True, True], None),
    ],
)
def test_a_rate_that_was_too_much_is_tried_once_more(passed: list[bool], expected: float | None) -> None:
    tried = [level(0, lag_s=0.001 if one else 0.02) for one in passed]
    assert next_level(tried, (500.0, 1000.0, 2000.0)) == expected


@pytest.mark.parametrize(
    ("tried", "needed", "expected"),
    [
        ([level(1000), level(2000), level(3000, lag_s=0.011)], None, (2000, True)),
        ([level(1000), level(2000, cpu=0.61)], 1000, (1000, True)),
        ([level(1000), level(2000, wrong=1)], 1500, (1000, False)),
        ([level(900, lag_s=0.02)], None, (900, False)),
    ],
)
def test_a_client_is_as_good_as_the_last_rate_that_was_not_too_much(
    tried: list[Level], needed: float | None, expected: tuple[float, bool]
) -> None:
    shown = what_was_shown(tried, needed)
    assert (shown.events_per_s, shown.passed) == expected
    assert shown.ttft_error_p99_s == pytest.approx(0.0005, rel=0.01)
    assert shown.needed_events_per_s == needed
