"""`simsa org` and `simsa key` as an operator runs them, beside a gateway that is a process of its own."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from clients import Answer, RawClient
from engines import Reply, ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from processes_under_test import GatewayProcess, gateway_process, run_simsa

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
ADMIN = "the-admin-of-this-gate"


async def simsa(gateway: GatewayProcess | RunningGateway, *arguments: str) -> Any:
    ended = await run_simsa(*arguments, "--url", gateway.url, admin_key=ADMIN)
    assert (ended.code, ended.err) == (0, ""), arguments
    return json.loads(ended.out)


async def ask(gateway: GatewayProcess | RunningGateway, key: str, body: object = ASK, *, path: str = CHAT) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("POST" if body else "GET", path, body=body or b"")


async def test_organisation_and_key_are_made_listed_used_and_revoked_by_command(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url)], admin_key=ADMIN) as gateway,
    ):
        await gateway.until_live("m")
        assert (await simsa(gateway, "org", "create", "acme", "--name", "수요기관"))["name"] == "수요기관"
        assert [org["id"] for org in await simsa(gateway, "org", "list")] == ["acme"]
        terms = ["--model", "m", "--role", "integrator", "--expires", "2099-12-31", "--concurrent", "4"]
        terms += ["--budget", "1000tokens/day", "--budget", "50000.5KRW/month", "--requests-per-min", "100"]
        made = await simsa(gateway, "key", "create", "acme", *terms)
        assert made["expires_at"] == "2099-12-31T00:00:00+00:00"
        assert (made["models"], made["limits"]["concurrent"], made["limits"]["default_max_tokens"]) == (["m"], 4, 1024)
        budgets = [(b["amount"], b["unit"], b["period"]) for b in made["limits"]["budgets"]]
        assert budgets == [("1000", "tokens", "day"), ("50000.5", "KRW", "month")]
        assert (await ask(gateway, made["secret"])).status == 200
        (listed,) = await simsa(gateway, "key", "list", "acme")
        assert "secret" not in listed
        assert listed["limits"]["budgets"][0]["spent"] == "20"
        assert await simsa(gateway, "key", "list", "other") == []
        changed = await simsa(gateway, "key", "change", made["id"], "--concurrent", "9", "--may-set-priority")
        assert (changed["limits"]["concurrent"], changed["may_set_priority"], changed["models"]) == (9, True, ["m"])
        assert (await simsa(gateway, "key", "revoke", made["id"]))["status"] == "revoked"
        assert (await ask(gateway, made["secret"])).status == 401
        assert (await simsa(gateway, "org", "revoke", "acme"))["revoked_at"] is not None


MISTAKES = [
    (["org", "create", "Acme Inc"], ["id", "pattern"]),
    (["key", "create", "nobody"], ["no organisation 'nobody'"]),
    (["key", "create", "acme", "--model", "mm"], ["no model 'mm'", "m"]),
    (["key", "create", "acme", "--budget", "lots"], ["--budget", "1000000tokens/day", "'lots'"]),
    (["key", "create", "acme", "--expires", "soon"], ["--expires", "2026-12-31", "'soon'"]),
    (["key", "create", "acme", "--expires", "2099-01-01T10:00"], ["--expires", "+09:00"]),
    (["key", "change", "key-none"], ["name what is to change"]),
    (["key", "change", "key-none", "--concurrent", "2"], ["no key 'key-none'"]),
    (["key", "revoke", "key-none"], ["no key 'key-none'", "simsa key list"]),
    (["key", "list", "--url", "http://127.0.0.1:9"], ["no gateway answers", "simsa serve"]),
]


async def test_every_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("m", "http://127.0.0.1:9")], admin_key=ADMIN) as gateway:
        await simsa(gateway, "org", "create", "acme")
        for arguments, words in MISTAKES:
            where = [] if "--url" in arguments else ["--url", gateway.url]
            ended = await run_simsa(*arguments, *where, admin_key=ADMIN)
            assert (ended.code, ended.out) == (2, ""), arguments
            for word in words:
                assert word in ended.error_line


async def test_a_keys_secret_is_nowhere_but_in_the_answer_that_made_it(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        gateway_process(tmp_path, [entry("m", engine.url)], admin_key=ADMIN, log_level="DEBUG") as gateway,
    ):
        await simsa(gateway, "org", "create", "acme")
        made = await simsa(gateway, "key", "create", "acme", "--requests-per-min", "3")
        secret = made["secret"]
        answers = [await ask(gateway, secret), await ask(gateway, secret, {**ASK, "stream": True})]
        engine.script(CHAT, Reply.json({"error": {"message": "no"}}, status=500))
        answers += [await ask(gateway, secret), await ask(gateway, secret), await ask(gateway, secret + "x")]
        answers += [await ask(gateway, secret, {**ASK, "priority": 1}), await ask(gateway, secret, b"{")]
        paths = ("/api/usage", "/api/usage?format=csv", "/metrics", "/api/models", "/v1/models", "/api/comparisons")
        answers += [await ask(gateway, secret, None, path=path) for path in (*paths, "/nothing", "/openapi.json")]
        answers += [await ask(gateway, ADMIN, None, path="/api/admin/keys")]
        statuses = [answer.status for answer in answers]
        assert statuses == [200, 200, 502, 429, 401, 403, 400, *[200] * 6, 404, 200, 200]
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() == 0
        kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        kept += [answer.body + str(answer.headers).encode() for answer in answers]
        kept += ["\n".join(gateway.lines).encode()]
        assert any(b"insufficient" in text or b"rate_limit_exceeded" in text for text in kept), "the log was looked at"
    assert any(key.encode() in b"".join(kept) for key in (made["id"],)), "the key's id is there to be found"
    for place in kept:
        assert secret.encode() not in place
        assert secret[12:].encode() not in place
    for request in engine.requests:
        assert secret not in str(request.headers), "engines get no key of ours"
    with closing(sqlite3.connect(tmp_path / "data" / "simsa.db")) as database:
        ((digest, prefix),) = database.execute("SELECT digest, prefix FROM api_keys").fetchall()
    assert (len(digest), prefix) == (64, secret[:12])


async def test_call_that_a_killed_gateway_left_open_is_charged_at_its_estimate(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        async with gateway_process(tmp_path, [entry("m", engine.url)], admin_key=ADMIN) as gateway:
            await simsa(gateway, "org", "create", "acme")
            made = await simsa(gateway, "key", "create", "acme", "--budget", "1000000tokens/month")
            engine.script(CHAT, Reply.hang())
            async with RawClient(gateway.url, key=made["secret"]) as client:
                await client.send("POST", CHAT, body=ASK)
                await engine.received(CHAT)
                gateway.send(signal.SIGKILL)
                await gateway.ended()
        async with gateway_process(tmp_path, [entry("m", engine.url)], admin_key=ADMIN) as gateway:
            (call,) = await gateway.until_stored(lambda rows: [row["status"] for row in rows] == ["interrupted"])
            assert call["charged_tokens"] == call["prompt_estimate"] > 0
            (listed,) = await simsa(gateway, "key", "list")
            assert listed["limits"]["budgets"][0]["spent"] == str(call["prompt_estimate"])
