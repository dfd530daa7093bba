"""Canaries in every place where a secret can stand, and then looked for in every place where none may be found.

Keys: an organisation's, the admin's, an engine's, the database's. Texts: what is asked and answered, and what comes in
headers, queries and bodies that are refused. The engine quotes all that it was told whenever it fails.
"""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from clients import Answer, Headers, RawClient
from databases import ScratchDatabase, ScratchPostgres
from dialect_shapes import (
    block_delta,
    block_start,
    embedding_body,
    message_body,
    message_start,
    message_stream,
    rerank_body,
    response_body,
    response_delta,
    response_opening,
    response_stream,
    score_body,
)
from engines import (
    CLOSE,
    DONE,
    Reply,
    Request,
    ScriptedEngine,
    chat_answer,
    chat_chunk,
    error_event,
    text_answer,
    usage_body,
)
from gateways import entry
from keyed_load import make_bearers
from otlp_collector import OtlpCollector
from processes_under_test import GatewayProcess, gateway_process
from test_outages import DATABASE_FAILING, metric, until_metric

from gateway.endpoints import ENDPOINTS
from gateway.log import configure_logging
from gateway.tables import metadata

ADMIN, ENGINE_KEY, PASSWORD = "canary-admin", "canary-engine", "canary-password"
COLLECTOR_KEY = "canary-collector"
WRONG, COOKIE, QUERY, SESSION, UNSAFE_ID = (
    "canary-wrong",
    "canary-cookie",
    "canary-query",
    "canary-session",
    "canary-id",
)
PROMPT, ANSWER = "canary-prompt", "canary-answer"
KEYS = (ADMIN, ENGINE_KEY, PASSWORD, COLLECTOR_KEY)
TEXTS = (WRONG, COOKIE, QUERY, SESSION, UNSAFE_ID, PROMPT, ANSWER)

CHAT, COMPARISONS, BATCHES = "/v1/chat/completions", "/api/comparisons", "/api/comparisons/batches"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "TEXT"}], "max_tokens": 8},
    "/v1/completions": {"prompt": "TEXT", "max_tokens": 8},
    "/v1/responses": {"input": "TEXT", "max_output_tokens": 8},
    "/v1/messages": {"messages": [{"role": "user", "content": "TEXT"}], "max_tokens": 8},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "TEXT"}]},
    "/v1/embeddings": {"input": ["TEXT"]},
    "/v1/rerank": {"query": "TEXT", "documents": ["TEXT"]},
    "/rerank": {"query": "TEXT", "documents": ["TEXT"]},
    "/v1/score": {"text_1": "TEXT", "text_2": ["TEXT"]},
    "/score": {"text_1": "TEXT", "text_2": ["TEXT"]},
    "/tokenize": {"prompt": "TEXT"},
    "/detokenize": {"tokens": [7], "user": "TEXT"},
}
STREAMED = (CHAT, "/v1/completions", "/v1/responses", "/v1/messages")
WHOLE: dict[str, Any] = {
    CHAT: chat_answer(ANSWER, usage=usage_body(5, 2)),
    "/v1/completions": text_answer(ANSWER, usage=usage_body(5, 2)),
    "/v1/responses": response_body(ANSWER),
    "/v1/messages": message_body(ANSWER),
    "/v1/messages/count_tokens": {"input_tokens": 5},
    "/v1/embeddings": embedding_body(),
    "/v1/rerank": rerank_body(),
    "/score": score_body(),
    "/tokenize": {"count": 1, "max_model_len": 9, "tokens": [7]},
    "/detokenize": {"prompt": ANSWER},
}
STREAMS: dict[str, tuple[bytes, ...]] = {
    CHAT: (chat_chunk(ANSWER), chat_chunk(finish_reason="stop"), DONE),
    "/v1/completions": (chat_chunk(ANSWER), chat_chunk(finish_reason="stop"), DONE),
    "/v1/responses": response_stream([ANSWER]),
    "/v1/messages": message_stream([ANSWER]),
}
BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    CHAT: (chat_chunk(ANSWER),),
    "/v1/completions": (chat_chunk(ANSWER),),
    "/v1/responses": (*response_opening(), response_delta(ANSWER)),
    "/v1/messages": (message_start(), block_start(), block_delta(ANSWER)),
}


class Parrot(ScriptedEngine):
    """An engine that does what `mode-…` in its request says, and quotes its key and the request when it fails."""

    def __init__(self) -> None:
        super().__init__()
        for path in WHOLE:
            self.script(path, self._reply)

    def _reply(self, request: Request) -> Reply:
        if b"simsa-first-token" in request.body:
            return self.usual(request)
        found = re.search(rb"mode-(\w+)", request.body)
        mode = found[1].decode() if found else "answer"
        quote = f"{request.header('authorization')} said {PROMPT if PROMPT.encode() in request.body else 'little'}"
        error = {"error": {"message": quote, "type": quote, "code": quote, "param": None}}
        match mode:
            case "refuse" | "blame" | "fail" | "busy":
                status = {"refuse": 400, "blame": 401, "fail": 500, "busy": 503}[mode]
                return Reply.json(error, status=status, headers=[("x-quote", quote)])
            case "babble":
                return Reply.text(f"<html>{quote}</html>")
            case "cut":
                return Reply.stream(*BEGINNINGS[request.path], CLOSE)
            case "garble":
                return Reply.stream(*BEGINNINGS[request.path], f"data: {{{quote}\n\n".encode())
            case "moan":
                return Reply.stream(*BEGINNINGS[request.path], error_event(quote), DONE)
            case _ if request.json().get("stream"):
                return Reply.stream(*STREAMS[request.path])
            case _:
                return Reply.json(WHOLE[request.path])


class Sullen(ScriptedEngine):
    """Is well until it is to answer; then it says 500 and quotes its key."""

    def __init__(self) -> None:
        super().__init__(["sullen"])
        self.script("/v1/completions", lambda r: Reply.json({"detail": str(r.header("authorization"))}, status=500))


class Visitor:
    """Sends requests of one key, and keeps every answer that it got."""

    def __init__(self, gateway: GatewayProcess, key: str | None) -> None:
        self._gateway = gateway
        self._key = key
        self.answers: list[Answer] = []

    async def send(self, method: str, path: str, body: object = b"", headers: Headers = ()) -> Answer:
        async with RawClient(self._gateway.url, key=self._key) as client:
            answer = await client.request(method, path, body=body, headers=headers)
        self.answers.append(answer)
        return answer

    @property
    def heard(self) -> bytes:
        return b"".join(repr(answer.headers).encode() + answer.body for answer in self.answers)


def asked(path: str, mode: str, **fields: Any) -> Any:
    """A request for `path` that bears the canary and tells the engine what to do."""
    text = json.dumps({"model": "m", **BODIES[path], **fields}).replace("TEXT", f"{PROMPT} mode-{mode}")
    return json.loads(text)


async def send_everything(visitor: Visitor) -> set[int]:
    """Every route in every way in which it can go well or fail; the statuses."""
    rude: Headers = [("cookie", COOKIE), ("x-session-id", SESSION), ("x-request-id", f"{UNSAFE_ID} {UNSAFE_ID}")]
    for path in BODIES:
        for mode in ("answer", "refuse", "blame", "fail", "busy", "babble"):
            await visitor.send("POST", f"{path}?api_key={QUERY}", asked(path, mode), rude)
        for body in (
            b'{"model": "m", "model": "' + PROMPT.encode(),
            json.dumps({"model": PROMPT}).encode(),
            json.dumps({**asked(path, "answer"), "cache_salt": PROMPT}).encode(),
            PROMPT.encode(),
        ):
            await visitor.send("POST", path, body, rude)
        for header in ("authorization", "x-api-key"):
            async with RawClient(visitor._gateway.url) as stranger:
                refused = await stranger.request("POST", path, headers=[(header, f"Bearer {WRONG}")], body=b"{}")
                visitor.answers.append(refused)
    for path in STREAMED:
        for mode in ("answer", "refuse", "blame", "fail", "busy", "babble", "cut", "garble", "moan"):
            await visitor.send("POST", path, asked(path, mode, stream=True), rude)
    return {answer.status for answer in visitor.answers}


async def compare_everything(visitor: Visitor, name: str) -> None:
    """Comparisons and a batch whose sides go well and fail."""
    for mode in ("answer", "refuse", "fail", "moan", "cut"):
        body = {"models": ["m", "n"], "prompt": f"{PROMPT} mode-{mode}"}
        await visitor.send("POST", COMPARISONS, body)
        await visitor.send("POST", COMPARISONS, {**body, "stream": True})
    prompts = [{"id": mode, "prompt": f"{PROMPT} mode-{mode}"} for mode in ("answer", "refuse")]
    ordered = await visitor.send("POST", BATCHES, {"models": ["m", "n"], "prompts": prompts, "name": name})
    assert ordered.status == 201, ordered.body
    batch = ordered.json()["id"]
    while (await visitor.send("GET", f"{BATCHES}/{batch}")).json()["status"] == "running":
        continue
    for path in (f"{BATCHES}/{batch}/export", f"{BATCHES}/{batch}/statistics", f"{COMPARISONS}/export?format=csv"):
        assert (await visitor.send("GET", path)).status == 200
    for path, body in (
        (COMPARISONS, {"models": ["m", "n"], "prompt": PROMPT, "params": {"no_such": PROMPT}}),
        (COMPARISONS, {"models": [PROMPT, "m"], "prompt": PROMPT}),
        (BATCHES, {"models": ["m", "n"], "prompts": [{"id": PROMPT}]}),
        (COMPARISONS, PROMPT.encode()),
    ):
        assert (await visitor.send("POST", path, body)).status in (400, 404)


async def look_everywhere(visitor: Visitor) -> None:
    """What somebody else can read of all this."""
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/api/models", "/openapi.json", "/docs", "/nowhere"):
        await visitor.send("GET", path)
    for path in (COMPARISONS, f"{COMPARISONS}/export", f"{COMPARISONS}/export?format=csv", BATCHES, "/api/usage"):
        await visitor.send("GET", path)
    for path in ("/api/usage?format=csv", "/api/admin/keys", "/api/admin/orgs", f"/v1/responses/{'resp_0' * 3}"):
        await visitor.send("GET", path)
    for path in BODIES:
        await visitor.send("POST", path, {"model": "sullen", **BODIES[path]})
        await visitor.send("POST", path, b"{")


@asynccontextmanager
async def with_password(database: ScratchDatabase) -> AsyncIterator[str]:
    """The database's address, with a password where there are such."""
    if not isinstance(database, ScratchPostgres):
        yield database.url
        return
    await database.execute(f"CREATE ROLE keyed LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    yield database.url.replace("simsa@", f"keyed:{PASSWORD}@")
    await database.execute("DROP ROLE keyed")


async def rows_of(database: ScratchDatabase, *, texts: bool) -> str:
    """Every row of the tables that may hold texts of comparisons, or of all the others."""
    own = ("comparisons", "comparison_contents", "comparison_sides", "batches", "batch_prompts", "batch_items")
    chosen = [table.name for table in metadata.sorted_tables if (table.name in own) is texts]
    return repr([await database.rows(f"SELECT * FROM {name}") for name in chosen])


def found_in(text: bytes | str, canaries: Iterable[str]) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [canary for canary in canaries if canary.encode() in raw]


async def test_no_secret_and_no_text_is_found_where_it_does_not_belong(
    tmp_path: Path, database: ScratchDatabase
) -> None:
    level = {"sqlite": "INFO", "postgresql": "DEBUG"}[database.kind]
    async with Parrot() as engine, Sullen() as sullen, OtlpCollector() as collector, with_password(database) as url:
        models = [
            entry("m", engine.url),
            entry("n", engine.url, serving={"kind": "vllm", "served_model_name": "m"}),
            entry("sullen", sullen.url),
        ]
        for model in models:
            model["replicas"][0]["api_key_env"] = "ENGINE_KEY"
        settings = {"breaker_faults": 10_000, "batch_attempts": 1, "database_statement_timeout_s": 0.5}
        settings |= {"otlp_endpoint": collector.url, "otlp_headers": f"authorization={COLLECTOR_KEY}"}
        async with gateway_process(
            tmp_path, models, {"ENGINE_KEY": ENGINE_KEY}, database_url=url, admin_key=ADMIN, log_level=level, **settings
        ) as gateway:
            mine, others = await make_bearers(gateway.url, ADMIN, ("mine", "others"))
            owner, other, admin = (Visitor(gateway, key) for key in (mine.secret, others.secret, ADMIN))
            assert {200, 400, 401, 403, 404, 502, 503} <= await send_everything(owner)
            await compare_everything(owner, "canaries")
            await look_everywhere(other)
            await look_everywhere(Visitor(gateway, None))
            async with database.gone():
                await send_everything(owner)
                await until_metric(gateway, DATABASE_FAILING, 1)
                await look_everywhere(other)
                for path in ("/ready", "/api/admin/keys", "/api/models", "/metrics"):
                    await admin.send("GET", path)
                spool = b"".join(path.read_bytes() for path in (gateway.data_dir / "spool").iterdir())
            await until_metric(gateway, "simsa_recorder_queued", 0)
            await admin.send("GET", "/ready")
            await look_everywhere(admin)
            ready = await admin.send("GET", "/ready")
            calls = await metric(gateway, "simsa_recorder_written")
            log = "\n".join(gateway.lines)
            told = [line.get("event") for line in gateway.log]
            gateway.send(signal.SIGTERM)
            assert await gateway.ended() == 0
        own, plain = await rows_of(database, texts=True), await rows_of(database, texts=False)

    # The canaries were really there.
    assert set(BODIES) == set(ENDPOINTS), "every route is in it"
    assert engine.requests_to(CHAT)[-1].header("authorization") == f"Bearer {ENGINE_KEY}"
    assert {"call", "refused", "first token failed", "the database fails; records wait"} <= set(told)
    assert calls > 200
    assert sum(span.name.endswith((" m", " n")) for span in collector.spans) > 200
    assert {request.header("authorization") for request in collector.requests} == {COLLECTOR_KEY}
    assert spool.count(mine.key.encode()) > 100
    assert found_in(owner.heard, (PROMPT, ANSWER)) == [PROMPT, ANSWER]
    assert found_in(own, (PROMPT, ANSWER)) == [PROMPT, ANSWER]
    assert "500" in ready.json()["replicas_down"]["sullen/1"]

    secrets = (*KEYS, mine.secret, mine.secret[12:], others.secret[12:])
    assert not found_in(owner.heard, secrets), "not even the one whose key it is"
    assert not found_in(other.heard, (*secrets, *TEXTS))
    assert not found_in(b"".join(answer.body for answer in admin.answers[:4]), (*secrets, *TEXTS))
    assert not found_in(log, (*secrets, *TEXTS))
    assert not found_in(spool, (*secrets, *TEXTS))
    assert not found_in(b"".join(request.body for request in collector.requests), (*secrets, *TEXTS))
    assert not found_in(plain, (*secrets, *TEXTS))
    assert not found_in(own, (*secrets, WRONG, COOKIE, QUERY, SESSION, UNSAFE_ID))


def test_logged_traceback_shows_no_values() -> None:
    stream = io.StringIO()
    before = structlog.get_config()
    try:
        configure_logging("INFO", stream)

        def fail(authorization: str) -> None:
            raise RuntimeError(f"about {len(authorization)} characters")

        try:
            fail("canary-in-a-frame")
        except RuntimeError as error:
            structlog.get_logger("test").error("failed", exc_info=error)
    finally:
        structlog.configure(**before)
    assert "RuntimeError" in stream.getvalue()
    assert "canary" not in stream.getvalue()
