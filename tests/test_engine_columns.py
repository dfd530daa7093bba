"""The columns and the engines' configurations through a running gateway, before engines that change, die and lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from clients import Answer, RawClient
from databases import ScratchDatabase
from engines import Reply, ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from load_runs import made_run
from populated_gateway import GPU, GPUS, SHAPE
from processes_under_test import run_simsa
from rich.console import Console
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.calibration_file import CalibrationBook
from gateway.columns_command import render_columns
from gateway.domain.accounts import EVERYTHING, Role, Terms
from gateway.domain.calibration import OverheadObservation
from gateway.domain.memory import ByteRange
from gateway.domain.records import Provenance, Registry
from gateway.evidence import OneGpuVerdicts
from gateway.load_run_checks import Document
from gateway.settings import Settings
from gateway.simulator import create_engine
from loadtests.cells import Run

COLUMNS, ENGINES, CHAT = "/api/feasibility/columns", "/api/engines", "/v1/chat/completions"
ADMIN = "the-admin-of-this-gate"
QUICK = {"observation_flush_s": 0.05}


def metrics(*, running: int = 0, waiting: int = 0, kv: float = 0.0, preempted: int | None = 0, **labels: str) -> Reply:
    """What an engine shows under /metrics; `labels` are those of its cache."""
    cache = {"block_size": "16", "num_gpu_blocks": "1024", "cache_dtype": "auto", "engine": "0", **labels}
    lines = [
        f"vllm:num_requests_running {running}",
        f"vllm:num_requests_waiting {waiting}",
        f"vllm:kv_cache_usage_perc {kv}",
        *([] if preempted is None else [f"vllm:num_preemptions_total {preempted}"]),
        "vllm:cache_config_info{" + ",".join(f'{name}="{value}"' for name, value in cache.items()) + "} 1.0",
    ]
    return Reply.text("\n".join(lines) + "\n")


async def ask(gateway: RunningGateway, path: str, key: str | None = None) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("GET", path)


async def told(gateway: RunningGateway, path: str) -> list[dict[str, Any]]:
    answer = await ask(gateway, path)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def until(ask_again: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    """What is answered once it is so; each look takes its time, so it is asked again until then."""
    async with asyncio.timeout(HANG_S):
        while not holds(found := await ask_again()):
            await asyncio.sleep(0.01)
    return found


async def columns_once(gateway: RunningGateway, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The columns of the only replica, once something of them is so."""
    found = await until(lambda: told(gateway, COLUMNS), lambda data: bool(data) and holds(data[0]))
    only: dict[str, Any] = found[0]
    return only


def row(columns: Mapping[str, Any], figure: str) -> dict[str, Any]:
    (only,) = (each for each in columns["rows"] if each["figure"] == figure)
    found: dict[str, Any] = only
    return found


# --- what engines resolve -----------------------------------------------------------------------------------


async def test_every_configuration_that_a_replica_shows_is_kept_and_outlives_the_gateway(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with ScriptedEngine(root="org/weights") as engine:
        engine.script("/metrics", metrics())
        models = [entry("m", engine.url)]
        async with running_gateway(tmp_path, models, database_url=database.url, **QUICK) as gateway:
            await gateway.until_live("m")
            (first,) = await until(lambda: told(gateway, ENGINES), bool)
            assert (first["model"], first["replica"], first["is_current"]) == ("m", "m/1", True)
            assert (first["version"], first["max_model_len"], first["root"]) == ("0.32.0", 4096, "org/weights")
            assert (first["num_gpu_blocks"], first["block_size"], first["kv_cache_size_tokens"]) == (1024, 16, None)
            assert first["labels"]["cache_dtype"] == "auto"
            engine.script("/version", Reply.json({"version": "0.33.0"}))
            engine.script("/metrics", metrics(num_gpu_blocks="512"))
            both = await until(lambda: told(gateway, ENGINES), lambda data: len(data) == 2)
            assert {(e["version"], e["num_gpu_blocks"], e["is_current"]) for e in both} == {
                ("0.32.0", 1024, False),
                ("0.33.0", 512, True),
            }
        async with running_gateway(tmp_path, models, database_url=database.url, **QUICK) as gateway:
            await gateway.until_live("m")
            again = await told(gateway, ENGINES)
            assert {e["id"]: e["first_seen"] for e in again} == {e["id"]: e["first_seen"] for e in both}
            assert all(e["first_seen"] <= e["last_seen"] for e in again)
            assert await told(gateway, f"{ENGINES}?model=other") == []


async def test_a_version_is_asked_for_once_and_again_when_the_engine_comes_back(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        state = gateway.services.fleet.states_of("m")[0]
        await gateway.until(lambda: state.observed is not None and state.observed.looks > 3)
        assert [r.path for r in engine.requests].count("/version") == 1
        engine.script("/health", Reply.text("", status=503))
        await gateway.until(lambda: not state.is_up)
        engine.script("/version", Reply.json({"version": "0.34.0"}))
        engine.script("/health")
        await gateway.until(lambda: state.resolved is not None and state.resolved.version == "0.34.0")


@pytest.mark.parametrize(
    "version", [Reply.text("", status=404), Reply.json([]), Reply.hang()], ids=["404", "a list", "hang"]
)
async def test_an_engine_without_a_version_or_metrics_is_shown_with_what_it_does_not_say(
    tmp_path: Path, version: Reply
) -> None:
    async with ScriptedEngine() as engine:
        engine.script("/version", version)
        engine.script("/metrics", Reply.text("no", status=404))
        async with running_gateway(tmp_path, [entry("m", engine.url)], health_timeout_s=0.25) as gateway:
            shown = await columns_once(gateway, lambda columns: columns["load_reason"] is not None)
        assert (shown["load"], shown["engine_version"]) == (None, None)
        assert shown["load_reason"] == "GET /metrics answered 404"
        for figure in ("kv_tokens", "blocks", "peak_running"):
            assert row(shown, figure)["resolved"]["value"] is None
            assert "no vllm:cache_config_info" in row(shown, figure)["resolved"]["reason"]
        assert "No look at the engine's metrics" in row(shown, "peak_running")["observed"]["reason"]
        assert row(shown, "context")["resolved"]["value"] == 4096


# --- what is observed ---------------------------------------------------------------------------------------


async def test_peaks_and_counters_add_up_across_an_engine_that_begins_anew_and_a_missing_family_is_null(
    tmp_path: Path,
) -> None:
    async with ScriptedEngine() as engine:
        engine.script("/metrics", metrics(preempted=5))
        async with running_gateway(tmp_path, [entry("m", engine.url)], **QUICK) as gateway:
            await columns_once(gateway, lambda columns: columns["load"] is not None)
            engine.script("/metrics", metrics(running=7, waiting=2, kv=0.97, preempted=9))
            await columns_once(gateway, lambda columns: columns["load"]["preemptions"] == 4)
            engine.script("/metrics", metrics(running=1, preempted=1))
            shown = await columns_once(gateway, lambda columns: columns["load"]["preemptions"] == 5)
            load = shown["load"]
            assert (load["peak_running"], load["peak_waiting"], load["peak_kv_usage"]) == (7, 2, 0.97)
            assert (load["restarts"], load["prefix_queries"], load["looks_waiting"] > 0) == (1, None, True)
            assert shown["load_saturated"]
            hits = row(shown, "prefix_cache_hit_rate")["observed"]
            assert (hits["value"], "vllm:prefix_cache_queries_total" in hits["reason"]) == (None, True)
            assert shown["fits"]["settled"] is None


async def test_what_was_observed_is_read_again_for_a_span_after_the_gateway_began_anew(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    async with ScriptedEngine() as engine:
        engine.script("/metrics", metrics(running=3, preempted=2))
        models = [entry("m", engine.url)]
        async with running_gateway(tmp_path, models, database_url=database.url) as gateway:
            shown = await columns_once(gateway, lambda columns: columns["load"] is not None)
            begun = shown["load"]["first_look"]
        engine.script("/metrics", metrics(preempted=2))
        async with running_gateway(tmp_path, models, database_url=database.url, **QUICK) as gateway:
            now = await columns_once(gateway, lambda columns: columns["load"] is not None)
            assert now["load"]["peak_running"] == 0
            (whole,) = await told(gateway, f"{COLUMNS}?since={begun.replace('+00:00', 'Z')}")
            assert whole["load"]["peak_running"] == 3
            assert whole["load"]["first_look"] == begun
            (none,) = await told(gateway, f"{COLUMNS}?until=2000-01-01T00:00:00Z")
            assert none["load"] is None


async def test_a_run_is_observed_over_the_time_of_its_own_calls(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)], **QUICK) as gateway:
        await gateway.until_live("m")
        gate = asyncio.Event()
        engine.script(CHAT, lambda request: engine.usual(request).gated(gate))
        body = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 4}

        async def call() -> int:
            async with RawClient(gateway.url) as client:
                return (await client.request("POST", CHAT, body=body, headers=[("x-simsa-run-id", "night")])).status

        calls = [asyncio.create_task(call()) for _ in range(3)]
        state = gateway.services.fleet.states_of("m")[0]
        await gateway.until(lambda: state.observed is not None and state.observed.peak_running == 3)
        gate.set()
        assert await asyncio.gather(*calls) == [200] * 3
        await gateway.calls(3)
        answer = await ask(gateway, f"{COLUMNS}?run=night&model=m")
        assert answer.json()["load_of"] == "run"
        (shown,) = answer.json()["data"]
        assert (shown["own_calls"]["n"], shown["own_calls"]["most_at_once"]) == (3, 3)
        assert shown["load"]["peak_running"] == 3
        assert (await ask(gateway, f"{COLUMNS}?run=unknown")).status == 404
        run = run_with("night", datetime.fromisoformat(shown["load"]["first_look"]))
        await gateway.services.load_runs.keep(Document(run), run, EVERYTHING, datetime.now(UTC))
        (of_run,) = (await ask(gateway, f"{COLUMNS}?run={run.id}&model=m")).json()["data"]
        assert (of_run["own_calls"]["n"], of_run["load"]["peak_running"]) == (3, 3)


def run_with(run_id: str, began_at: datetime) -> Run:
    """A load run whose only repeat went through the gateway under this id."""
    run, _ = made_run(is_small=True)
    cell = next(one for one in run.cells if one.door == "gateway")
    repeat = msgspec.structs.replace(cell.repeats[0], run_id=run_id, began_at=began_at.isoformat())
    return msgspec.structs.replace(run, cells=[msgspec.structs.replace(cell, repeats=[repeat])])


async def test_an_engine_that_says_odd_things_is_stored_as_far_as_they_make_sense_and_costs_the_others_nothing(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    odd = metrics(running=1, num_gpu_blocks="9" * 40, kv_cache_size_tokens="1e15", x="\\u0000 \x00 \x7f")
    async with ScriptedEngine(["odd"], max_model_len=10**30) as strange, ScriptedEngine(["m"]) as engine:
        strange.script("/metrics", odd)
        engine.script("/metrics", metrics(running=2))
        models = [entry("odd", strange.url), entry("m", engine.url)]
        async with running_gateway(tmp_path, models, database_url=database.url, **QUICK) as gateway:
            await gateway.until_live("m")
            await until(lambda: told(gateway, f"{ENGINES}?model=m"), bool)
            await columns_once(gateway, lambda columns: columns["load"] is not None)
            (kept,) = await told(gateway, f"{COLUMNS}?model=m&since=2000-01-01T00:00:00Z")
            assert kept["load"]["peak_running"] == 2
            assert len(await told(gateway, COLUMNS)) == 2
            (said,) = await told(gateway, f"{ENGINES}?model=odd")
            assert (said["num_gpu_blocks"], said["kv_cache_size_tokens"], said["max_model_len"]) == (None, 10**15, None)
            assert said["labels"]["x"] == "u0000  "


async def test_what_is_observed_while_the_database_is_away_is_written_when_it_is_back(
    tmp_path: Path, sqlite_file: ScratchDatabase
) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)], **QUICK) as gateway:
        await columns_once(gateway, lambda columns: columns["load"] is not None)
        async with sqlite_file.gone():
            engine.script("/metrics", metrics(running=5))
            await columns_once(gateway, lambda columns: columns["load"]["peak_running"] == 5)
            await gateway.services.engine_diary.flush()
            assert (await ask(gateway, ENGINES)).status == 503
            engine.script("/metrics", metrics())
            state = gateway.services.fleet.states_of("m")[0]
            await gateway.until(lambda: state.last_look is not None and state.last_look.peak_running == 0)
        path = f"{COLUMNS}?since=2000-01-01T00:00:00Z"
        await until(
            lambda: ask(gateway, path),
            lambda answer: answer.status == 200 and answer.json()["data"][0]["load"]["peak_running"] == 5,
        )


# --- side by side -------------------------------------------------------------------------------------------


async def test_of_a_simulated_engine_the_columns_agree_and_teach_and_settle_nothing(tmp_path: Path) -> None:
    # In a thread of its own; the arithmetic is the same, so what it resolves is what is predicted.
    serving = {"kind": "vllm", "served_model_name": "candidate"}
    with serve(create_engine(model_of(TINY), H100, max_model_len=1024, speed=1000)) as url:
        one = {
            **entry("m", serving=serving, shape=SHAPE, weights={"dtype": "bfloat16"}),
            "replicas": [{"url": url, "gpu": GPU}],
        }
        async with running_gateway(tmp_path, [one], sections={"gpus": GPUS}, **QUICK) as gateway:
            shown = await columns_once(gateway, lambda columns: columns["load"] is not None)
            for figure in ("blocks", "kv_tokens", "max_concurrency"):
                assert row(shown, figure)["difference"] == 0, row(shown, figure)
                assert row(shown, figure)["reason"] == "They agree: the arithmetic gives what the engine says."
            assert shown["provenance"] == "simulated"
            assert any("proves nothing" in note for note in shown["notes"])
            assert row(shown, "overhead")["resolved"]["value"] is None
            assert shown["fits"]["settled"] is None
            await gateway.services.engine_diary.flush()
        assert not (tmp_path / "data" / "calibration.json").exists()


async def test_real_weights_on_a_named_gpu_teach_the_calibration_and_a_broken_one_is_left_alone(tmp_path: Path) -> None:
    blocks = 70 * 2**30 // (16 * 4 * 2 * 64 * 2 * 2)  # of 16 tokens in 4 layers with 2 × 64 keys and values of 2 bytes
    labels = {"num_gpu_blocks": str(blocks), "gpu_memory_utilization": "0.92", "kv_cache_size_tokens": str(blocks * 16)}
    async with ScriptedEngine(root="org/weights", max_model_len=2048) as engine:
        engine.script("/metrics", metrics(**labels))
        weights = {"repo": "org/weights", "dtype": "bfloat16", "source": "test", "confidence": "high"}
        model = {**entry("m", shape=SHAPE, weights=weights), "replicas": [{"url": engine.url, "gpu": GPU}]}
        async with running_gateway(tmp_path, [model], sections={"gpus": GPUS}, **QUICK) as gateway:
            shown = await columns_once(gateway, lambda columns: columns["calibration"] is not None)
            assert shown["provenance"] == "real"
            overhead = row(shown, "overhead")
            assert overhead["resolved"]["value"] == pytest.approx(
                81559 / 1024 * 0.92 - 12_124_160 * 2 / 2**30 - 70, abs=0.01
            )
            assert shown["calibration"]["n"] == 1
            assert shown["calibration"]["overhead_gib"]["likely"] == overhead["resolved"]["value"]
            assert "the whole difference is that of the memory" in row(shown, "kv_tokens")["reason"]
            assert shown["fits"]["settled"] is None
            engine.script("/metrics", metrics(running=9, kv=0.99, **labels))
            settled = await columns_once(gateway, lambda columns: columns["load_saturated"])
            assert settled["fits"]["settled"] is True
        path = tmp_path / "data" / "calibration.json"
        (kept,) = json.loads(path.read_bytes())["observations"]
        assert (kept["gpu"], kept["model"], kept["provenance"], kept["engine_version"]) == (GPU, "m", "real", "0.32.0")
        path.write_text("{")
        with structlog.testing.capture_logs() as log:
            async with running_gateway(tmp_path, [model], sections={"gpus": GPUS}, **QUICK) as gateway:
                shown = await columns_once(gateway, lambda columns: columns["load"] is not None)
                await gateway.services.engine_diary.flush()
        assert str(path) in shown["calibration_problem"]
        assert path.read_text() == "{"
        assert "calibration not used" in [line["event"] for line in log]


async def test_columns_and_engines_are_for_those_who_oversee_and_bad_questions_are_refused(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key=ADMIN) as gateway,
    ):
        await gateway.until_live("m")
        for role in Role:
            key = await gateway.key_of(role.value, Terms(roles=frozenset({role})))
            allowed = role in (Role.OPERATOR, Role.AUDITOR, Role.ADMIN)
            for path in (COLUMNS, ENGINES):
                assert (await ask(gateway, path, key)).status == (200 if allowed else 403), (role, path)
        for query, status in (
            ("model=nobody", 404),
            ("since=2026-01-01T00:00:00", 400),
            ("since=yesterday", 400),
            ("since=0001-01-01T00:00:00%2B14:00", 400),
            ("since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", 400),
        ):
            assert (await ask(gateway, f"{COLUMNS}?{query}", ADMIN)).status == status, query


async def test_the_command_prints_what_the_gateway_tells(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await columns_once(gateway, lambda columns: columns["load"] is not None)
        shown = await run_simsa("columns", "m", "--url", gateway.url)
        assert (shown.code, shown.err) == (0, "")
        (columns,) = json.loads(shown.out)
        assert (columns["model"], row(columns, "blocks")["resolved"]["value"]) == ("m", 1024)
        wrong = await run_simsa("columns", "nobody", "--url", gateway.url)
        assert (wrong.code, wrong.err) == (2, "simsa: There is no model 'nobody'. See GET /api/models.\n")


def test_the_table_shows_figures_ranges_words_and_unknowns_with_their_reasons() -> None:
    def cell(value: object, **more: object) -> dict[str, object]:
        return {"value": value, "low": None, "high": None, "applies": True, "reason": "why not\x1b[2J", **more}

    figures = {"figure": "kv_tokens", "unit": "tokens", "difference": -12345.0, "reason": "The overhead is a guess."}
    engine = {
        "model": "m",
        "replica": "m/1",
        "gpu": None,
        "gpus": 1,
        "engine_version": None,
        "provenance": "real",
        "fits": {"settled": None, "reason": "Open."},
        "notes": ["Real."],
        "calibration": {"gpu": "h100", "n": 2, "overhead_gib": {"low": 1.0, "likely": 2.5, "high": 3.0}},
        "calibration_problem": None,
        "rows": [
            {
                **figures,
                "predicted": cell(20000, low=10000, high=30000),
                "resolved": cell("auto"),
                "observed": cell(0.5),
            },
            {**figures, "predicted": cell(None), "resolved": cell(0), "observed": cell(None, applies=False)},
        ],
    }
    console = Console(width=160, record=True, file=StringIO())
    console.print(render_columns(engine))
    text = console.export_text()
    for shown in ("10,000 … 20,000 … 30,000", "auto", "0.500", "-12,345", "unknown [1]", "–", "[1] why not", "· Open."):
        assert shown in text
    assert "Overhead on h100 as 2 engines showed it: 1.0 to 3.0 GiB, median 2.5." in text
    assert "\x1b" not in text


def test_the_calibration_stands_in_the_data_directory_unless_it_is_named(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).calibration_file == tmp_path / "calibration.json"
    assert Settings(calibration=tmp_path / "other.json").calibration_file == tmp_path / "other.json"


async def test_once_an_engine_taught_the_overhead_every_verdict_takes_it_and_names_its_source(tmp_path: Path) -> None:
    blocks = 70 * 2**30 // (16 * 4 * 2 * 64 * 2 * 2)
    labels = {"num_gpu_blocks": str(blocks), "gpu_memory_utilization": "0.92", "kv_cache_size_tokens": str(blocks * 16)}
    async with ScriptedEngine(root="org/weights", max_model_len=2048) as engine:
        weights = {"repo": "org/weights", "dtype": "bfloat16", "source": "test", "confidence": "high"}
        model = {**entry("m", shape=SHAPE, weights=weights), "replicas": [{"url": engine.url, "gpu": GPU}]}
        other = {**entry("n", shape=SHAPE, weights=weights), "replicas": [{"url": engine.url}]}
        engine.models = ["m", "n"]
        how: dict[str, Any] = {"sections": {"gpus": GPUS}, "feasibility_gpu": GPU, **QUICK}
        async with running_gateway(tmp_path, [model, other], **how) as gateway:
            await gateway.until_live("m", "n")
            before, guess = await side_verdict(gateway), await headroom_series(gateway)
            assert (before["overhead_basis"], before["overhead_source"]) == (
                "guess",
                "a guess: no engine showed it yet",
            )
            engine.script("/metrics", metrics(**labels))
            await columns_once(gateway, lambda columns: columns["calibration"] is not None)
            after, measured = await side_verdict(gateway), await headroom_series(gateway)
            known = gateway.services.calibration.calibration(GPU)
            assert known is not None
            assert after["overhead_basis"] == "measured"
            assert after["overhead_source"] == known.words
            assert known.words.startswith(f"calibration: 1 engine with real weights on {GPU}, vLLM 0.32.0, seen on ")
            likely = known.overhead.likely / 2**30
            assert after["overhead_gib"]["likely"] == pytest.approx(likely, abs=0.001)
            assert measured != guess
            assert measured == pytest.approx(after["headroom_gib"]["likely"] * 2**30, abs=2**21)


async def side_verdict(gateway: RunningGateway) -> dict[str, Any]:
    """The one-GPU verdict beside the first answer of a comparison."""
    body = {"models": ["m", "n"], "prompt": "안녕", "params": {"max_tokens": 2}}
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", "/api/comparisons", body=body)
    assert answer.status == 200, answer.body
    found = answer.json()["sides"][0]["feasibility"]
    assert isinstance(found, dict)
    return found


async def headroom_series(gateway: RunningGateway) -> float:
    text = (await ask(gateway, "/metrics")).body.decode()
    (line,) = [row for row in text.splitlines() if row.startswith("simsa_feasibility_headroom_bytes{") and '"m"' in row]
    return float(line.rpartition(" ")[2])


def test_the_verdict_of_calls_is_worked_out_again_when_the_calibration_says_something_else(tmp_path: Path) -> None:
    model = model_of(TINY)
    registry = Registry({model.id: model}, {}, {H100.id: H100}, (), {}, None, "sha")
    book = CalibrationBook(tmp_path / "calibration.json")
    verdicts = OneGpuVerdicts(Settings(), lambda: registry, book)
    assert verdicts.verdict(model, H100.id) == ("fits", H100.id)
    memory = H100.memory_bytes
    book.learn(
        OverheadObservation(
            gpu=H100.id,
            model=model.id,
            overhead_bytes=memory,
            requested_bytes=memory,
            weights_bytes=1,
            kv_bytes=1,
            predicted=ByteRange(1, 1, 1),
            provenance=Provenance.REAL,
            engine_version=None,
            on=date(2026, 11, 28),
            source="a report",
        )
    )
    assert verdicts.verdict(model, H100.id) == ("no", H100.id)
