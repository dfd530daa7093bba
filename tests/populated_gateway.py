"""A gateway in which one of everything exists, on a thread of its own, for callers that block.

Its engines are well: two models on a simulated engine and one of embeddings, so every 5xx is the gateway's own doing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from clients import RawClient
from closed_rounds import ID as CLOSED_ROUND
from closed_rounds import put_closed_round
from dialect_shapes import embedding_body, rerank_body, score_body
from engines import Reply, ScriptedEngine
from gateways import entry, running_gateway
from load_runs import made_run
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.simulator import create_engine

ADMIN = "the-admin-of-this-gate"
TALKERS = ("talker", "other")
EMBEDDER = "embedder"
GPU = "h100-sxm"
ORGANISATION = "askers"
T = TypeVar("T")
SHAPE = {
    "params": 12_124_160,
    "layers": 4,
    "hidden": 256,
    "ffn": 1024,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "vocab": 32000,
    "tied_embeddings": True,
    "context": 2048,
    "source": "test",
    "confidence": "high",
}
_SPEEDS = {"bandwidth_tb_per_s": 3.35, "bf16_tflops": 989, "fp8_tflops": 1978, "watts": 700}
GPUS = [{"id": GPU, "name": "H100", "memory": "81559 MiB", **_SPEEDS, "source": "test", "confidence": "high"}]


@dataclass(frozen=True)
class Population:
    """Where the gateway is, who may ask it, and the ids of what is in it."""

    url: str
    integrator: str
    """The secret of an ordinary key."""
    known: dict[str, str]
    """What exists, by the name of the parameter that asks for it."""


@contextmanager
def populated_gateway(directory: Path, **settings: Any) -> Iterator[Population]:
    """The population until the block ends; none of the ids in it is of the key that asks."""
    with (
        serve(create_engine(model_of(TINY), H100, max_model_len=1024, speed=1000)) as engine,
        _on_a_thread(lambda: _populated(directory, engine, settings)) as population,
    ):
        yield population


@asynccontextmanager
async def _populated(directory: Path, engine: str, settings: dict[str, Any]) -> AsyncIterator[Population]:
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(ScriptedEngine([EMBEDDER]))
        for path, body in (
            ("/v1/embeddings", embedding_body()),
            ("/v1/rerank", rerank_body()),
            ("/score", score_body()),
        ):
            embedder.script(path, Reply.json(body))
        serving = {"kind": "vllm", "served_model_name": "candidate"}
        models = [
            *(entry(name, engine, serving=serving, shape=SHAPE) for name in TALKERS),
            entry(EMBEDDER, embedder.url),
        ]
        gateway = await stack.enter_async_context(
            running_gateway(directory, models, sections={"gpus": GPUS}, admin_key=ADMIN, **settings)
        )
        await gateway.until_live(*TALKERS, EMBEDDER)
        client = await stack.enter_async_context(RawClient(gateway.url, key=ADMIN))

        async def made(path: str, body: Any) -> dict[str, Any]:
            answer = await client.request("POST", path, body=body)
            assert answer.status in (200, 201), answer.body
            found: dict[str, Any] = answer.json()
            return found

        for organisation in (ORGANISATION, "leavers"):
            await made("/api/admin/orgs", {"id": organisation, "name": "수요기관"})
        limits = {"requests_per_min": 10**9, "budgets": [{"period": "day", "unit": "tokens", "amount": "1e15"}]}
        asker = await made("/api/admin/keys", {"organisation": ORGANISATION, "name": "시험", "limits": limits})
        leaver = await made("/api/admin/keys", {"organisation": "leavers", "name": "시험"})
        question = {"models": TALKERS, "prompt": "안녕하세요", "params": {"max_tokens": 2}}
        comparison = await made("/api/comparisons", question)
        batch = await made(
            "/api/comparisons/batches",
            {"models": TALKERS, "prompts": [{"prompt": "안녕하세요"}], "params": {"max_tokens": 2}},
        )
        await put_closed_round(gateway.services.rounds.store, reviewers=3)
        response = await made("/v1/responses", {"model": TALKERS[0], "input": "안녕하세요", "max_output_tokens": 2})
        run, _ = made_run(is_small=True)
        await made("/api/load-runs", {"run": msgspec.to_builtins(run)})
        yield Population(
            gateway.url,
            asker["secret"],
            {
                "model_id": TALKERS[0],
                "organisation_id": "leavers",
                "key_id": leaver["id"],
                "comparison_id": comparison["id"],
                "before": comparison["id"],
                "batch_id": batch["id"],
                "round_id": CLOSED_ROUND,
                "reviewer_id": "r-0",
                "table": "standing",
                "run_id": run.id,
                "other_id": run.id,
                "name": "cells",
                "response_id": response["id"],
            },
        )


@contextmanager
def _on_a_thread(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `make` gives, on an event loop of its own beside the caller until the block ends."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        manager = make()
        yield asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(manager.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
