"""Faults of a load test, each provoked for real: whatever was due is counted, and the repeat says what happened."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from engines import CLOSE, DONE, RESET, Reply, ScriptedEngine, chat_chunk, error_event, usage_chunk
from guards import HANG_S
from load_repeats import Bench, ledger_of, plan_of, repeat_order, run_one, worker_pids
from load_workers import order as cell_order
from load_workers import read_file, running, until_lines, with_file_limit, write_order
from vllm_shapes import metrics_text

from gateway.processes import free_ports
from loadtests.engine_view import EngineWatch
from loadtests.journal import Journal
from loadtests.lost_worker import STOPPED
from loadtests.records import Outcome
from loadtests.repeat_run import RepeatOrder, RepeatRun
from loadtests.validity import SILENT

CHAT = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORD, FINISH = chat_chunk("가나"), chat_chunk(finish_reason="stop")
THOUGHT = chat_chunk(reasoning="음")
MACHINE = {"client_cpu", "schedule_lag", "achieved_rate", "steady_state", "clock", "running"}
"""Checks that a busy machine fails: no test here is about them unless it names them."""

ANSWERS: dict[str, tuple[Reply, Outcome, str | None]] = {
    "nothing is said, and usage is told": (
        Reply.stream(FINISH, usage_chunk(12, 0), DONE),
        Outcome.EMPTY,
        "the answer ended well, and no token came",
    ),
    "reasoning alone": (
        Reply.stream(THOUGHT, THOUGHT, FINISH, usage_chunk(12, 8), DONE),
        Outcome.OK,
        "the answer is reasoning alone: no output came",
    ),
    "cut within an event": (Reply.stream(WORD, WORD[:20], CLOSE), Outcome.CUT, "before its end"),
    "cut after tokens, without an end": (Reply.stream(WORD, WORD), Outcome.CUT, "before its end"),
    "no event stream at all": (Reply.stream(WORD, b"data: {nonsense\n\n"), Outcome.MALFORMED, "no JSON object"),
    "an error object within the stream": (
        Reply.stream(WORD, error_event("no memory")),
        Outcome.FAILED,
        "reported an error",
    ),
    "a storm of 429": (
        Reply.json({"error": {"message": "Slow down."}}, status=429, headers=[("retry-after", "30")]),
        Outcome.TOO_MANY,
        "status 429: Slow down.",
    ),
    "a storm of 503": (
        Reply.json({"error": {"message": "Away."}}, status=503),
        Outcome.REFUSED,
        "status 503: Away.",
    ),
    "a head that never comes": (Reply.hang(), Outcome.TIMEOUT, "not over after 1 s"),
    "a head that stops half-way": (
        Reply.raw(b"HTTP/1.1 200 OK\r\ncont", asyncio.Event()),
        Outcome.TIMEOUT,
        "not over after 1 s",
    ),
    "a stream that stops for ever": (Reply.stream(WORD, asyncio.Event()), Outcome.TIMEOUT, "not over after 1 s"),
    "a connection that is reset": (Reply.raw(RESET), Outcome.UNREACHABLE, "Connection reset by peer"),
}
RATE, FOR_S = 20, 0.4


@pytest.mark.parametrize("fault", ANSWERS)
async def test_whatever_the_engine_does_to_every_request_all_are_counted_by_its_name(
    fault: str, tmp_path: Path
) -> None:
    reply, outcome, words = ANSWERS[fault]
    async with ScriptedEngine() as engine:
        engine.script(CHAT, reply)
        ledger = await run_one(tmp_path, engine.url, plan_of(RATE, FOR_S, timeout_s="1"))
    ledger.must_balance()
    assert ledger.outcomes.keys() <= {outcome.value, "unsent"}, "unsent: this machine may stand still"
    assert ledger.outcomes[outcome.value] > 0
    assert any(words in text for text in ledger.repeat.errors)
    assert ledger.failed.keys() <= MACHINE, "what an engine does is a result, not a fault of the measurement"
    (attained,) = ledger.repeat.objectives
    if outcome is not Outcome.OK:
        assert attained.met is False, "a failed request is worse than any answer"


async def test_reasoning_alone_has_times_of_tokens_and_none_of_output(tmp_path: Path) -> None:
    reply, _, _ = ANSWERS["reasoning alone"]
    async with ScriptedEngine() as engine:
        engine.script(CHAT, reply)
        ledger = await run_one(tmp_path, engine.url, plan_of(RATE, FOR_S))
    latencies = ledger.repeat.latencies
    assert latencies.ttft_s.n == ledger.outcomes["ok"] > 0
    assert latencies.ttfot_s.n == 0 or latencies.ttfot_s.p50 is None
    assert ledger.repeat.errors["the answer is reasoning alone: no output came"] == ledger.outcomes["ok"]


# --- who is not there any more ------------------------------------------------------------------------------


async def test_a_target_that_goes_down_fails_what_follows_and_the_repeat_says_that_it_was_gone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine())

        async def go_down(order: RepeatOrder) -> None:
            await until_lines(order.directory / f"{order.name}-w0.jsonl", 6)
            await stack.aclose()

        watch = EngineWatch((engine.url,))
        plan = plan_of(10, 4.0)
        ledger = await run_one(
            tmp_path, engine.url, plan, beside=go_down, watch=watch, provenances=("simulated", SILENT)
        )
    ledger.must_balance()
    assert ledger.outcomes["ok"] >= 5
    assert ledger.outcomes["unreachable"] > 0
    assert "Connection refused" in ledger.repeat.errors
    assert ledger.failed["provenance"] == "the target did not answer after the repeat; else simulated"
    assert "readings unanswered" in ledger.check("engine_restart").seen


async def test_half_the_workers_killed_are_said_and_what_they_owed_was_offered(tmp_path: Path) -> None:
    async def kill_two(order: RepeatOrder) -> None:
        files = [order.directory / f"{order.name}-w{worker}.jsonl" for worker in range(4)]
        await asyncio.gather(*(until_lines(path, 3) for path in files))
        pids = worker_pids(tmp_path)
        for worker in (1, 3):
            os.kill(pids[worker], signal.SIGKILL)

    async with ScriptedEngine() as engine:
        ledger = await run_one(tmp_path, engine.url, plan_of(20, 8.0, workers=4), beside=kill_two)
    ledger.must_balance()
    assert ledger.failed["records_complete"] == "2 of 4 workers lost"
    assert sorted(ledger.said) == [f"worker {n} was ended by SIGKILL: it said nothing" for n in (1, 3)]
    for worker, file in enumerate(ledger.files):
        assert (file.footer is None) == (worker in (1, 3))
        owed = [one for one in file.records if "the worker was lost" in (one.error or "")]
        assert bool(owed) == (worker in (1, 3))
        assert {one.outcome for one in owed} <= {Outcome.UNSENT}


async def test_a_worker_that_somebody_stops_is_said_and_what_it_owed_was_offered(tmp_path: Path) -> None:
    async def stop_one(order: RepeatOrder) -> None:
        await until_lines(order.directory / f"{order.name}-w1.jsonl", 3)
        os.kill(worker_pids(tmp_path)[1], signal.SIGTERM)

    async with ScriptedEngine() as engine:
        ledger = await run_one(tmp_path, engine.url, plan_of(10, 5.0, workers=2), beside=stop_one)
    ledger.must_balance()
    assert ledger.failed["records_complete"] == "stopped: stopped by SIGTERM"
    assert ledger.files[1].footer is not None
    assert ledger.repeat.errors[STOPPED] > 0


async def test_an_engine_that_began_anew_within_a_repeat_makes_it_invalid(tmp_path: Path) -> None:
    def said(generated: float) -> Reply:
        text = metrics_text(["m"], running=0)
        counter = 'vllm:generation_tokens_total{engine="0",model_name="m"} '
        return Reply.text(text.replace(f"{counter}0.0", f"{counter}{generated}"), content_type="text/plain")

    async with ScriptedEngine() as engine:
        engine.script("/metrics", said(5000.0))

        async def begin_anew(order: RepeatOrder) -> None:
            path = order.directory / f"{order.name}-w0.jsonl"
            await until_lines(path, 10)  # a second, in which the engine was read
            engine.script("/metrics", said(20.0))

        watch = EngineWatch((engine.url,))
        ledger = await run_one(tmp_path, engine.url, plan_of(5, 6.0), beside=begin_anew, watch=watch)
    ledger.must_balance()
    assert ledger.failed["engine_restart"] == "1 restart seen"


# --- the client's own machine -------------------------------------------------------------------------------

JUMPS = """
import sys
from pathlib import Path
from time import perf_counter, time
from loadtests.cell_order import read_order
from loadtests.cell_run import CellRun, Clocks
from loadtests.record_file import LineFile
from locust.env import Environment


class SetAndSetBack:
    began_s = perf_counter()

    def __call__(self):
        return time() + (3600.0 if 0.5 < perf_counter() - self.began_s < 3.0 else 0.0)


order = read_order(Path(sys.argv[1]).read_bytes())
environment = Environment()
cell = CellRun(order, LineFile(Path(order.out)), environment)
runner = environment.create_local_runner()
runner.start(cell.users, spawn_rate=cell.users)
cell.prepare(runner)
wall = SetAndSetBack()
wall.began_s = perf_counter()
cell.run(perf_counter() + 0.1, Clocks(wall))
"""
"""A cell whose machine's wall clock is an hour ahead for a while, and then right again."""


async def test_a_wall_clock_that_jumps_and_comes_back_is_noticed_and_enters_no_figure(tmp_path: Path) -> None:
    plan = plan_of(10, 4.0)
    async with ScriptedEngine() as engine:
        order = repeat_order(tmp_path, engine.url, plan)
        ordered = cell_order(tmp_path, engine.url, open=plan.cells[0].load)
        async with running("-c", JUMPS, write_order(tmp_path, ordered)) as process, asyncio.timeout(HANG_S):
            _, err = await process.communicate()
    assert err.decode() == ""
    ledger = ledger_of(order, RepeatRun((Path(ordered.out),), ()), plan, EngineWatch(()))
    ledger.must_balance()
    assert ledger.failed["clock"].startswith(("it moved by 3600.0", "it moved by 3599.9"))
    longest = ledger.repeat.latencies.scheduled_e2e_s.max
    assert longest is not None
    assert 0 < longest < HANG_S


async def test_what_locust_itself_ends_is_no_silence(tmp_path: Path) -> None:
    """Its heartbeats rest on the wall clock: one that jumps can end a cell's users, but not without a word."""
    ended = JUMPS.replace("cell.run(", "import gevent; gevent.spawn_later(0.5, runner.stop); cell.run(")
    plan = plan_of(10, 3.0)
    async with ScriptedEngine() as engine:
        order = repeat_order(tmp_path, engine.url, plan)
        ordered = cell_order(tmp_path, engine.url, open=plan.cells[0].load)
        async with running("-c", ended, write_order(tmp_path, ordered)) as process, asyncio.timeout(HANG_S):
            await process.communicate()
    ledger = ledger_of(order, RepeatRun((Path(ordered.out),), ()), plan, EngineWatch(()))
    assert "stopped: Locust ended a user of the cell" in ledger.failed["records_complete"]


# --- a whole run --------------------------------------------------------------------------------------------


async def test_a_target_that_is_down_from_the_start_is_one_line_before_anything_is_tried(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    bench = Bench(tmp_path, f"http://127.0.0.1:{port}")
    code, out, err = await bench.simsa("run", bench.write_plan(calibrates=True))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"no engine answers at {bench.engine}: ")
    assert not (tmp_path / "data" / "load-runs").exists()


async def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_it_goes_on_from_there(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)
        # Room for the first cell and for run.json, none for the second cell's eighty records.
        code, out, err = await bench.simsa("run", bench.write_plan(for_s=4), before=with_file_limit(24_000))
        assert (code, out) == (1, "")
        *_, last = err.splitlines()
        assert "the records cannot be written: File too large; what was measured is kept" in last
        assert f"simsa loadtest run --resume {bench.run_directory.name}" in last
        kept = Journal(bench.run_directory).run()
        assert (kept.state, [cell.id for cell in kept.cells]) == ("failed", ["first"])
        code, out, _ = await bench.simsa("run", "--resume", bench.run_directory.name)
    whole = Journal(bench.run_directory).run()
    assert (whole.state, [cell.id for cell in whole.cells]) == ("complete", ["first", "second"])
    assert whole.cells[0] == kept.cells[0]
    assert sum(whole.cells[1].repeats[0].outcomes.values()) == whole.cells[1].repeats[0].rates.offered > 60


async def test_a_run_whose_disk_is_full_in_its_first_repeat_can_be_gone_on_with(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)
        code, _, err = await bench.simsa("run", bench.write_plan(), before=with_file_limit(4_000))
        assert code == 1
        assert "what was measured is kept" in err.splitlines()[-1]
        code, _, _ = await bench.simsa("run", "--resume", bench.run_directory.name)
    assert Journal(bench.run_directory).run().state == "complete"


async def test_ctrl_c_keeps_what_was_measured_and_its_records_are_whole(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)

        async def interrupt(process: Process) -> None:
            async with asyncio.timeout(HANG_S):
                while not (paths := list((tmp_path / "data").rglob("second-direct-r1-w0.jsonl"))):
                    await asyncio.sleep(0.01)
            await until_lines(paths[0], 5)
            process.send_signal(signal.SIGINT)

        code, out, _ = await bench.simsa("run", bench.write_plan(for_s=120), beside=interrupt)
    assert code == 1
    run = Journal(bench.run_directory).run()
    assert (run.state, [cell.id for cell in run.cells]) == ("stopped", ["first"])
    assert run.notes == ["Stopped during second (direct), repeat 1; that repeat is left out."]
    assert msgspec.json.decode(out)["state"] == "stopped"
    file = read_file(bench.run_directory / "records" / "second" / "second-direct-r1-w0.jsonl")
    assert file.footer is not None
    assert file.footer.stopped == "stopped by SIGTERM"
    numbers = sorted(record.n for record in file.records)
    assert numbers == list(range(len(numbers))), "what was due by then, and nothing else"


async def test_a_run_that_is_killed_leaves_no_load_behind(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        bench = Bench(tmp_path, engine.url)

        async def kill(process: Process) -> None:
            async with asyncio.timeout(HANG_S):
                while not list((tmp_path / "data").rglob("second-direct-r1-w0.jsonl")):
                    await asyncio.sleep(0.01)
            process.kill()

        await bench.simsa("run", bench.write_plan(for_s=120), beside=kill)
        async with asyncio.timeout(HANG_S):
            while worker_pids(tmp_path):  # their guard gives them a few seconds
                await asyncio.sleep(0.05)
