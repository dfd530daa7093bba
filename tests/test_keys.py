"""Keys as their bearers meet them: who is let in, how far, how much, and what is told when it is not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import Answer, RawClient
from dialect_shapes import response_body
from engines import DONE, Reply, ScriptedEngine, chat_answer, chat_chunk, error_body, usage_body
from gateways import RunningGateway, entry, running_gateway
from openai import AsyncOpenAI

from gateway.access import OPERATORS_FIELDS
from gateway.domain.charges import MOST_CHOICES, MOST_PROMPTS, MOST_TOKENS
from gateway.domain.records import Call, CallStatus
from gateway.use_by_day import UsageRow

ADMIN = "the-admin-of-this-gate"
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES: Any = [{"role": "user", "content": "안녕하세요"}]
ASK = {"model": "a", "messages": MESSAGES, "max_tokens": 8}
NON_COMMERCIAL = {"licence": {"id": "NC-1.2", "commercial": False, "source": "test", "confidence": "high"}}


HOSTED = {
    "serving": {"kind": "openai_api"},
    "price": {
        "currency": "KRW",
        "input_per_mtok": 1000000,
        "output_per_mtok": 2000000,
        "date": "2026-06-01",
        "source": "test",
        "confidence": "high",
    },
}
"""Of an API whose prompt tokens cost 1 won each, and whose answers' 2."""


class Door:
    """A gateway with models a and b, and whoever asks it for keys."""

    def __init__(self, gateway: RunningGateway, engine: ScriptedEngine, admin_key: str | None) -> None:
        self.gateway = gateway
        self.engine = engine
        self._admin_key = admin_key

    async def admin(self, method: str, path: str, body: object = b"", *, key: str | None = None) -> Answer:
        async with RawClient(self.gateway.url, key=key or self._admin_key) as client:
            return await client.request(method, f"/api/admin/{path}", body=body)

    async def org(self, organisation: str = "acme") -> None:
        answer = await self.admin("POST", "orgs", {"id": organisation, "name": "수요기관"})
        assert answer.status == 200, answer.body

    async def key(self, organisation: str = "acme", **terms: Any) -> dict[str, Any]:
        answer = await self.admin("POST", "keys", {"organisation": organisation, "name": "시험", **terms})
        assert answer.status == 200, answer.body
        made: dict[str, Any] = answer.json()
        return made

    async def secret(self, organisation: str = "acme", **terms: Any) -> str:
        return str((await self.key(organisation, **terms))["secret"])

    async def ask(self, key: str | None, body: object = ASK, *, path: str = CHAT) -> Answer:
        async with RawClient(self.gateway.url, key=key) as client:
            return await client.request("POST", path, body=body)

    async def get(self, key: str | None, path: str) -> Answer:
        async with RawClient(self.gateway.url, key=key) as client:
            return await client.request("GET", path)

    def openai(self, key: str, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.gateway.url}/v1", **{"api_key": key, "max_retries": 0, **options})


@asynccontextmanager
async def door(tmp_path: Path, *, admin_key: str | None = ADMIN, b: Any = None, **settings: Any) -> AsyncIterator[Door]:
    async with ScriptedEngine(models=["a", "b"]) as engine:
        models = [entry("a", engine.url), entry("b", engine.url, **(b or {}))]
        async with running_gateway(tmp_path, models, admin_key=admin_key, **settings) as gateway:
            await gateway.until_live("a", "b")
            opened = Door(gateway, engine, admin_key)
            await opened.org()
            yield opened


def error_of(answer: Answer) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status, error["type"], error["code"]


# --- who is let in ------------------------------------------------------------------------------------------


async def test_key_is_shown_once_and_kept_as_a_digest_with_its_first_characters(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        made = await it.key()
        assert made["secret"].startswith("simsa-")
        assert len(made["secret"]) == 49
        assert made["prefix"] == made["secret"][:12]
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed == {name: value for name, value in made.items() if name != "secret"}
        assert (await it.ask(made["secret"])).status == 200


async def test_every_wrong_key_gets_the_same_answer(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        revoked, live = await it.key(), await it.secret()
        await it.admin("POST", f"keys/{revoked['id']}/revoke")
        await it.org("gone")
        orphan = await it.secret("gone")
        await it.admin("POST", "orgs/gone/revoke")
        expired = await it.secret(expires_at=(datetime.now(UTC) + timedelta(milliseconds=50)).isoformat())
        assert (await it.ask(live)).status == 200
        wrong = [
            None,
            "x",
            "simsa-" + "A" * 43,
            live[:-1],
            live + "x",
            live.upper(),
            revoked["secret"],
            orphan,
            ADMIN[:-1],
        ]
        await it.gateway.until(lambda: it.gateway.services.keys.find(expired.encode()) is None)
        answers = [await it.ask(key) for key in [*wrong, revoked["secret"], orphan, expired]]
        assert {(answer.status, answer.header("www-authenticate"), answer.body) for answer in answers} == {
            (401, "Bearer", answers[0].body)
        }
        assert error_of(answers[0]) == (401, "authentication_error", "invalid_api_key")
        for path in ("/v1/models", "/api/models", "/api/comparisons", "/api/usage", "/api/admin/keys"):
            assert (await it.get(revoked["secret"], path)).status == 401


async def test_revocation_counts_at_once_and_spares_the_call_in_flight(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        made, gate = await it.key(), asyncio.Event()
        it.engine.script(CHAT, Reply.stream(chat_chunk("하나"), gate, chat_chunk("", finish_reason="stop"), DONE))
        async with RawClient(it.gateway.url, key=made["secret"]) as client:
            assert (await client.start("POST", CHAT, body={**ASK, "stream": True})).status == 200
            assert (await it.admin("POST", f"keys/{made['id']}/revoke")).json()["status"] == "revoked"
            assert (await it.ask(made["secret"])).status == 401
            gate.set()
            assert (await client.rest()).endswith(b"data: [DONE]\n\n")


async def test_what_another_process_revokes_counts_within_the_refresh(tmp_path: Path) -> None:
    async with door(tmp_path, key_refresh_s=0.05) as it:
        made = await it.key()
        # A second pair of hands on the same database, as another gateway process has.
        await it.gateway.services.accounts.revoke_key(made["id"], datetime.now(UTC))
        await it.gateway.until(lambda: it.gateway.services.keys.find(made["secret"].encode()) is None)
        assert (await it.ask(made["secret"])).status == 401


async def test_keys_go_on_counting_while_the_database_is_away(tmp_path: Path) -> None:
    async with door(tmp_path, key_refresh_s=0.01) as it:
        secret = await it.secret()
        database = tmp_path / "data" / "simsa.db"
        database.rename(tmp_path / "away.db")
        try:
            for _ in range(3):
                assert (await it.ask(secret)).status == 200
            assert (await it.ask("simsa-" + "A" * 43)).status == 401
            assert (await it.admin("GET", "keys")).status == 503
        finally:
            (tmp_path / "away.db").rename(database)
        assert len(await it.gateway.calls(3)) == 3


PRIORITY = "x-simsa-priority"


async def test_key_may_lower_its_class_for_a_call_and_not_raise_it(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        secret = await it.secret(priority="batch")
        for path, body in ((CHAT, ASK), ("/api/comparisons", {"models": ["a", "b"], "prompt": "?"})):
            async with RawClient(it.gateway.url, key=secret) as client:
                lower = await client.request("POST", path, body=body, headers=[(PRIORITY, "load_test")])
                higher = await client.request("POST", path, body=body, headers=[(PRIORITY, "interactive")])
                unknown = await client.request("POST", path, body=body, headers=[(PRIORITY, "first")])
            assert lower.status == 200, lower.body
            assert error_of(higher) == (403, "permission_error", "priority_not_allowed")
            assert error_of(unknown)[:2] == (400, "invalid_request_error")
        async with RawClient(it.gateway.url, key=ADMIN) as client:
            assert (await client.request("POST", CHAT, body=ASK, headers=[(PRIORITY, "reviewer")])).status == 200


RUN = "x-simsa-run-id"


async def test_keys_of_class_load_test_and_operators_may_name_a_run(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        plain, tester = await it.secret(), await it.secret(priority="load_test")
        operator = await it.secret(roles=["operator"])
        for key, headers in (
            (tester, [(RUN, "Night_7.a-b"), (PRIORITY, "load_test")]),
            (tester, [(RUN, "Night_7.a-b")]),
            (operator, [(RUN, "x" * 64)]),
            (ADMIN, [(RUN, "1"), (PRIORITY, "reviewer")]),
            (plain, []),
        ):
            async with RawClient(it.gateway.url, key=key) as client:
                answer = await client.request("POST", CHAT, body=ASK, headers=headers)
            assert answer.status == 200, answer.body
        runs = [call.opened.run_id for call in reversed(await it.gateway.calls(5))]
        assert sorted(map(str, runs)) == ["1", "Night_7.a-b", "Night_7.a-b", "None", "x" * 64]
        assert all(RUN not in dict(request.headers) for request in it.engine.requests_to(CHAT))


async def test_both_sides_of_a_comparison_belong_to_the_run_that_it_names(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        plain, tester = await it.secret(), await it.secret(priority="load_test")
        asked = {"models": ["a", "b"], "prompt": "안녕하세요", "params": {"max_tokens": 2}}
        async with RawClient(it.gateway.url, key=plain) as client:
            refused = await client.request("POST", "/api/comparisons", body=asked, headers=[(RUN, "night")])
        assert error_of(refused) == (403, "permission_error", "run_not_allowed")
        async with RawClient(it.gateway.url, key=tester) as client:
            for headers in ([(RUN, "night")], []):
                answer = await client.request("POST", "/api/comparisons", body=asked, headers=headers)
                assert answer.status == 200, answer.body
        assert sorted(str(call.opened.run_id) for call in await it.gateway.calls(4)) == [
            "None",
            "None",
            "night",
            "night",
        ]


async def test_a_run_that_a_call_may_not_name_or_that_is_no_id_is_refused_before_any_engine(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        plain, batch = await it.secret(), await it.secret(priority="batch")
        for key, *lower in ((plain,), (batch,), (plain, (PRIORITY, "load_test")), (batch, (PRIORITY, "load_test"))):
            async with RawClient(it.gateway.url, key=key) as client:
                refused = await client.request("POST", CHAT, body=ASK, headers=[(RUN, "run-7"), *lower])
            assert error_of(refused) == (403, "permission_error", "run_not_allowed")
            assert "x-simsa-priority: load_test" in refused.json()["error"]["message"]
        async with RawClient(it.gateway.url, key=ADMIN) as client:
            for value in ("", "x" * 65, "run 7", "run/7", "\u00e9"):
                refused = await client.request("POST", CHAT, body=ASK, headers=[(RUN, value)])
                assert error_of(refused)[:2] == (400, "invalid_request_error"), value
        assert it.engine.requests_to(CHAT) == []


async def test_without_an_admin_key_a_key_counts_where_it_is_sent_and_no_key_is_the_operator(tmp_path: Path) -> None:
    async with door(tmp_path, admin_key=None) as it:
        made = await it.key(models=["a"])
        assert (await it.ask(made["secret"], {**ASK, "model": "b"})).status == 403
        assert (await it.ask(None, {**ASK, "model": "b"})).status == 200
        assert (await it.ask("anything", {**ASK, "model": "b"})).status == 200
        await it.admin("POST", f"keys/{made['id']}/revoke")
        assert (await it.ask(made["secret"])).status == 401, "a revoked key must not become the operator's"


# --- how far ------------------------------------------------------------------------------------------------


async def test_models_outside_a_keys_scope_are_forbidden_and_not_listed(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(models=["a"])
        async with it.openai(key) as client:
            assert [model.id for model in (await client.models.list()).data] == ["a"]
            await client.chat.completions.create(model="a", messages=MESSAGES)
            with pytest.raises(openai.PermissionDeniedError) as caught:
                await client.chat.completions.create(model="b", messages=MESSAGES)
            assert (caught.value.code, caught.value.type) == ("model_not_allowed", "permission_error")
            assert "'b'" in str(caught.value)
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.retrieve("b")
        sides = await it.ask(key, {"models": ["a", "b"], "prompt": "?"}, path="/api/comparisons")
        assert error_of(sides) == (403, "permission_error", "model_not_allowed")
        assert len(it.engine.requests_to(CHAT)) == 1, "nothing was asked that is not allowed"


async def test_routes_outside_a_keys_scope_are_forbidden(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(routes=["completions"])
        assert error_of(await it.ask(key)) == (403, "permission_error", "model_not_allowed")
        text = await it.ask(key, {"model": "a", "prompt": "옛날", "max_tokens": 2}, path="/v1/completions")
        assert text.status == 200
        sides = await it.ask(key, {"models": ["a", "b"], "prompt": "?"}, path="/api/comparisons")
        assert sides.status == 403


@pytest.mark.parametrize(("grants", "status"), [([], 403), (["NC-1.2"], 200), (["b"], 200)])
async def test_non_commercial_models_need_a_grant(tmp_path: Path, grants: list[str], status: int) -> None:
    async with door(tmp_path, b=NON_COMMERCIAL) as it:
        made = await it.key(licences=grants)
        key = made["secret"]
        assert made["models_without_licence"] == ([] if status == 200 else ["b"]), "whoever makes it is told"
        answer = await it.ask(key, {**ASK, "model": "b"})
        assert answer.status == status
        assert status == 200 or "NC-1.2" in answer.json()["error"]["message"]
        listed = [model["id"] for model in (await it.get(key, "/v1/models")).json()["data"]]
        assert listed == (["a", "b"] if status == 200 else ["a"])


@pytest.mark.parametrize("field", ["priority", "cache_salt"])
async def test_fields_that_steer_other_callers_engines_need_a_permission(tmp_path: Path, field: str) -> None:
    async with door(tmp_path) as it:
        plain, trusted = await it.secret(), await it.secret(may_set_priority=True)
        refused = await it.ask(plain, {**ASK, field: 1})
        assert error_of(refused) == (403, "permission_error", "parameter_not_allowed")
        assert refused.json()["error"]["param"] == field
        assert (await it.ask(trusted, {**ASK, field: 1})).status == 200
        assert (await it.ask(ADMIN, {**ASK, field: 1})).status == 200


@pytest.mark.parametrize("field", sorted(OPERATORS_FIELDS))
async def test_fields_that_steer_the_engine_itself_are_the_operators(tmp_path: Path, field: str) -> None:
    async with door(tmp_path) as it:
        for key in (await it.secret(), await it.secret(may_set_priority=True, roles=["admin", "operator"])):
            for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize"):
                refused = await it.ask(key, {**ASK, "input": "", "prompt": "", field: {}}, path=path)
                assert error_of(refused) == (403, "permission_error", "parameter_not_allowed")
                assert refused.json()["error"]["param"] == field
        assert not it.engine.requests_to(CHAT)
        assert (await it.ask(ADMIN, {**ASK, field: {}})).status == 200


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        (b'{"enable_thinking":false}', 200),
        (b'{"word":"chat_template"}', 200),
        (b'{"chat_template":"{{ x }}"}', 403),
        (b'{"chat_templat\\u0065":"{{ x }}"}', 403),
        (b'"chat_template"', 403),
        (b"null", 200),
    ],
)
async def test_template_does_not_come_in_among_its_variables(tmp_path: Path, variables: bytes, status: int) -> None:
    async with door(tmp_path) as it:
        body = b'{"model":"a","messages":[],"chat_template_kwargs":%b}' % variables
        assert (await it.ask(await it.secret(), body)).status == status
        assert (await it.ask(ADMIN, body)).status == 200


@pytest.mark.parametrize("value", [True, 1, "true", "on", [True]])
async def test_responses_in_the_background_need_a_permission(tmp_path: Path, value: object) -> None:
    async with door(tmp_path) as it:
        plain, trusted = await it.secret(), await it.secret(may_use_background=True)
        it.engine.script(RESPONSES, Reply.json(response_body("")))
        ask = {"model": "a", "input": "안녕하세요", "background": value}
        refused = await it.ask(plain, ask, path=RESPONSES)
        assert error_of(refused) == (403, "permission_error", "parameter_not_allowed")
        assert refused.json()["error"]["param"] == "background"
        assert not it.engine.requests_to(RESPONSES)
        for key, body in ((trusted, ask), (ADMIN, ask), (plain, {**ask, "background": False})):
            assert (await it.ask(key, body, path=RESPONSES)).status == 200
        assert (await it.ask(plain, {**ask, "background": None}, path=RESPONSES)).status == 200
        assert (await it.ask(plain, {**ASK, "background": value})).status == 200, "elsewhere it is the engine's own"


ROLES = {
    "integrator": {"ask": 200, "comparisons": 200, "usage": 200, "others": 403, "keys": 403, "make": 403},
    "reviewer": {"ask": 403, "comparisons": 403, "usage": 200, "others": 403, "keys": 403, "make": 403},
    "chair": {"ask": 403, "comparisons": 403, "usage": 200, "others": 403, "keys": 403, "make": 403},
    "operator": {"ask": 200, "comparisons": 200, "usage": 200, "others": 200, "keys": 403, "make": 403},
    "auditor": {"ask": 403, "comparisons": 200, "usage": 200, "others": 200, "keys": 200, "make": 403},
    "admin": {"ask": 200, "comparisons": 200, "usage": 200, "others": 200, "keys": 200, "make": 200},
}


@pytest.mark.parametrize("role", ROLES)
async def test_roles_open_what_they_are_for(tmp_path: Path, role: str) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(roles=[role])
        assert {
            "ask": (await it.ask(key)).status,
            "comparisons": (await it.get(key, "/api/comparisons")).status,
            "usage": (await it.get(key, "/api/usage")).status,
            "others": (await it.get(key, "/api/usage?organisation=other")).status,
            "keys": (await it.admin("GET", "keys", key=key)).status,
            "make": (await it.admin("POST", "orgs", {"id": "new", "name": "새"}, key=key)).status,
        } == ROLES[role]


async def test_who_calls_no_model_by_name_sees_none_and_only_overseers_see_replicas(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        for role, listed, status, sees in (
            ("reviewer", 0, 403, False),
            ("auditor", 0, 200, True),
            ("integrator", 2, 200, False),
            ("operator", 2, 200, True),
        ):
            secret = await it.secret(roles=[role])
            assert len((await it.get(secret, "/v1/models")).json()["data"]) == listed, role
            answer = await it.get(secret, "/api/models")
            assert answer.status == status, role
            if status == 200:
                assert all((model["replicas"] is not None) is sees for model in answer.json()["data"]), role


async def test_key_without_the_route_of_comparisons_reads_none(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        secret = await it.secret(routes=["embeddings"])
        for path in ("", "/export", "/some-id", "/batches", "/batches/some-id"):
            assert (await it.get(secret, f"/api/comparisons{path}")).status == 403, path


async def test_an_organisation_sees_its_own_comparisons_alone(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        await it.org("other")
        mine, others, auditor = await it.secret(), await it.secret("other"), await it.secret("other", roles=["auditor"])
        asked = await it.ask(mine, {"models": ["a", "b"], "prompt": "질문"}, path="/api/comparisons")
        made = asked.json()["id"]
        for key, visible in ((mine, True), (auditor, True), (ADMIN, True), (others, False)):
            page = (await it.get(key, "/api/comparisons")).json()["data"]
            assert [found["id"] for found in page] == [made] * visible
            assert (await it.get(key, f"/api/comparisons/{made}")).status == (200 if visible else 404)
            assert (await it.get(key, f"/api/comparisons?before={made}")).status == (200 if visible else 404)
            exported = (await it.get(key, "/api/comparisons/export")).body
            assert (made.encode() in exported) is visible
        sides = await it.gateway.calls(2)
        assert {call.opened.organisation for call in sides} == {"acme"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"models": ["aa"]}, "models"),
        ({"routes": ["chat"]}, "routes"),
        ({"licences": ["MIT"]}, "licences"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"roles": ["boss"]}, "roles.0"),
        ({"limits": {"requests_per_min": 0}}, "limits.requests_per_min"),
        ({"limits": {"budgets": [{"period": "day", "unit": "won", "amount": "1"}]}}, "limits.budgets.0.unit"),
        ({"limit": {}}, "limit"),
    ],
)
async def test_key_with_terms_that_make_no_sense_is_not_made(tmp_path: Path, change: Any, param: str) -> None:
    async with door(tmp_path) as it:
        refused = await it.admin("POST", "keys", {"organisation": "acme", "name": "x", **change})
        assert (refused.status, refused.json()["error"]["param"]) == (400, param)
        assert (await it.admin("GET", "keys")).json()["data"] == []


async def test_change_of_a_key_counts_from_the_next_call_on_and_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        limits = {
            "requests_per_min": 1,
            "concurrent": 5,
            "budgets": [{"period": "day", "unit": "tokens", "amount": 9e9}],
        }
        made = await it.key(models=["a"], limits=limits)
        assert [(await it.ask(made["secret"])).status for _ in range(2)] == [200, 429]
        change = {"name": "넓힌 열쇠", "models": ["a", "b"], "limits": {"requests_per_min": 3}}
        changed = (await it.admin("PATCH", f"keys/{made['id']}", change)).json()
        assert (changed["name"], changed["models"]) == ("넓힌 열쇠", ["a", "b"])
        assert (changed["limits"]["requests_per_min"], changed["limits"]["concurrent"]) == (3, 5)
        assert changed["limits"]["budgets"][0]["spent"] != "0", "what was used stays"
        assert (await it.ask(made["secret"], {**ASK, "model": "b"})).status == 200
        change = {"models": None, "limits": {"requests_per_min": None, "budgets": []}}
        changed = (await it.admin("PATCH", f"keys/{made['id']}", change)).json()
        assert (changed["models"], changed["limits"]["requests_per_min"], changed["limits"]["budgets"]) == (
            None,
            None,
            [],
        )
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert {**listed, "in_flight": 0} == {**changed, "in_flight": 0}


async def test_change_that_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        made, gone = await it.key(), await it.key()
        await it.admin("POST", f"keys/{gone['id']}/revoke")
        before = (await it.admin("GET", "keys")).json()
        for path, change, status in (
            (f"keys/{made['id']}", {"models": ["nobody"]}, 400),
            (f"keys/{made['id']}", {"roles": None}, 400),
            (f"keys/{made['id']}", {"organisation": "other"}, 400),
            (f"keys/{made['id']}", {"expires_at": "2020-01-01T00:00:00Z"}, 400),
            (f"keys/{gone['id']}", {"name": "again"}, 400),
            ("keys/key-none", {"name": "again"}, 404),
        ):
            answer = await it.admin("PATCH", path, change)
            assert answer.status == status, (change, answer.body)
        assert (await it.admin("PATCH", f"keys/{made['id']}", {"name": "x"}, key=made["secret"])).status == 403
        assert (await it.admin("GET", "keys")).json() == before


async def test_organisations_are_named_once_and_must_exist(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        again = await it.admin("POST", "orgs", {"id": "acme", "name": "x"})
        assert error_of(again)[0] == 400
        assert "acme" in again.json()["error"]["message"]
        for path in ("keys/key-none/revoke", "orgs/none/revoke"):
            assert (await it.admin("POST", path)).status == 404
        assert (await it.admin("POST", "keys", {"organisation": "none", "name": "x"})).status == 404
        await it.admin("POST", "orgs/acme/revoke")
        assert (await it.admin("POST", "keys", {"organisation": "acme", "name": "x"})).status == 404
        (listed,) = (await it.admin("GET", "orgs")).json()["data"]
        assert (listed["id"], listed["revoked_at"] is not None) == ("acme", True)


# --- how much -----------------------------------------------------------------------------------------------


async def test_requests_of_a_minute_are_limited_and_shown(tmp_path: Path) -> None:
    async with door(tmp_path) as it, it.openai(await it.secret(limits={"requests_per_min": 2})) as client:
        for left in ("1", "0"):
            answer = await client.chat.completions.with_raw_response.create(model="a", messages=MESSAGES)
            assert answer.headers["x-ratelimit-limit-requests"] == "2"
            assert answer.headers["x-ratelimit-remaining-requests"] == left
            assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
            assert "x-ratelimit-limit-tokens" not in answer.headers
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="a", messages=MESSAGES)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 61
        assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        assert len(it.engine.requests_to(CHAT)) == 2


async def test_tokens_of_a_minute_are_reserved_and_then_reconciled_with_what_was_used(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(limits={"tokens_per_min": 1200})
        first = await it.ask(key, {**ASK, "max_tokens": None})
        assert first.header("x-ratelimit-limit-tokens") == "1200"
        assert first.header("x-ratelimit-remaining-tokens") == str(1200 - 20), "the engine counted 12 + 8"
        large = await it.ask(key, {**ASK, "max_tokens": 1300})
        assert error_of(large) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert (large.header("retry-after"), large.header("x-should-retry")) == (None, "false")
        later = await it.ask(key, {**ASK, "max_tokens": 1160})
        assert later.status == 429
        assert 1 <= int(later.header("retry-after") or "") <= 61
        async with RawClient(it.gateway.url, key=key) as client:
            stream = await client.start("POST", CHAT, body={**ASK, "stream": True})
            assert int(stream.header("x-ratelimit-remaining-tokens") or "") < 1180 - 8, "reserved while it runs"
            await client.rest()
        assert (await it.ask(key)).header("x-ratelimit-remaining-tokens") == str(1200 - 3 * 20), "streams count"


@pytest.mark.parametrize(
    ("prompt", "answers"), [("가", 1), (["가", "나", "다"], 3), ([1, 2, 3, 4], 1), ([[1, 2], [3, 4]], 2), ([], 1)]
)
async def test_every_prompt_and_choice_of_a_request_is_reserved(tmp_path: Path, prompt: object, answers: int) -> None:
    async with door(tmp_path) as it:
        body = {"model": "a", "prompt": prompt, "max_tokens": 1000, "n": 2}
        for limit, status in ((2000 * answers, 429), (2000 * answers + 100, 200)):
            key = await it.secret(limits={"tokens_per_min": limit})
            assert (await it.ask(key, body, path="/v1/completions")).status == status


async def test_calls_at_a_time_are_limited_and_the_sdk_comes_back_when_one_has_ended(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key, gate = await it.secret(limits={"concurrent": 1}), asyncio.Event()
        it.engine.script(CHAT, Reply.json(chat_answer("하나", usage=usage_body(3, 1))).gated(gate))
        async with it.openai(key, max_retries=2) as client, asyncio.TaskGroup() as group:
            first = group.create_task(client.chat.completions.create(model="a", messages=MESSAGES))
            await it.gateway.until(lambda: it.gateway.services.dispatcher.in_flight)
            refused = await it.ask(key)
            assert error_of(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
            assert refused.header("retry-after") == "1"
            it.engine.script(CHAT)
            second = group.create_task(client.chat.completions.create(model="a", messages=MESSAGES))
            await it.gateway.until(lambda: refusals(it) == 2)
            gate.set()
        assert first.result().choices[0].message.content == "하나"
        assert second.result().choices[0].finish_reason is not None
        assert sorted(call.opened.client_retry or 0 for call in await it.gateway.calls(2)) == [0, 1]


def refusals(it: Door) -> float:
    requests = it.gateway.services.telemetry.requests
    return requests.at("_other", "chat_completions", "4xx").value


async def test_budget_in_tokens_ends_calls_until_the_next_day_whatever_they_cost(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        budgets = [{"period": "day", "unit": "tokens", "amount": "100"}]
        made = await it.key(limits={"budgets": budgets})
        async with it.openai(made["secret"], max_retries=2) as client:
            for _ in range(2):
                await client.chat.completions.create(model="a", messages=MESSAGES, max_tokens=8)
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(model="a", messages=MESSAGES, max_tokens=80)
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert "60 left" in str(caught.value)
        assert refusals(it) == 1, "the SDK does not try again"
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed["limits"]["budgets"] == [{**budgets[0], "spent": "40", "reserved": "0"}]
        assert listed["calls_without_cost_this_month"] == 2


async def test_budget_in_money_counts_what_calls_cost(tmp_path: Path) -> None:
    async with door(tmp_path, b=HOSTED) as it:
        budgets = [{"period": "month", "unit": "KRW", "amount": "100"}]
        made = await it.key(limits={"budgets": budgets})
        ask_b = {**ASK, "model": "b", "max_tokens": 8}
        answer = await it.ask(made["secret"], ask_b)
        assert answer.header("x-simsa-cost") == "28.000000 KRW; basis=api_price", "12 at 1 and 8 at 2"
        assert (await it.ask(made["secret"], {**ask_b, "max_tokens": 30})).status == 429
        assert (await it.ask(made["secret"], {**ask_b, "model": "a", "max_tokens": 3000})).status == 200
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed["limits"]["budgets"] == [{**budgets[0], "spent": "28", "reserved": "0"}]


async def leave_after(it: Door, secret: str, events: int, body: dict[str, Any]) -> Answer:
    """Ask for a stream and be gone after so many events."""
    async with RawClient(it.gateway.url, key=secret) as client:
        head = await client.start("POST", CHAT, body={**body, "stream": True})
        if head.status == 200:
            for _ in range(events):
                await client.next_event()
        return head


async def test_streams_that_are_cancelled_use_up_a_budget_in_money_and_a_restart_knows_it(tmp_path: Path) -> None:
    budgets = [{"period": "month", "unit": "KRW", "amount": "200"}]
    async with door(tmp_path, b=HOSTED) as it:
        made = await it.key(limits={"budgets": budgets})
        it.engine.script(CHAT, Reply.stream(*(chat_chunk(f"{n}") for n in range(30)), asyncio.Event()))
        answered = 0
        while (await leave_after(it, made["secret"], 30, {**ASK, "model": "b", "max_tokens": 30})).status == 200:
            answered += 1
            assert answered < 4, "60 of answers alone, of 200"
            await it.gateway.calls(answered)
        calls = await it.gateway.calls(answered)
        assert {call.cost.amount for call in calls} == {None}, "an estimate is not the cost"
        assert all(call.estimated_cost == (call.opened.prompt_estimate or 0) + 60 for call in calls)
        spent = sum(call.estimated_cost or 0 for call in calls)
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed["limits"]["budgets"] == [{**budgets[0], "spent": f"{spent:.0f}", "reserved": "0"}]
        assert listed["calls_without_cost_this_month"] == 0
        (row,) = (await it.get(made["secret"], "/api/usage")).json()["data"]
        assert (row["cost"], row["estimated_cost"], row["currency"]) == (None, str(spent), "KRW")
        assert (row["cost_basis"], row["calls_without_cost"]) == ("unknown", 0)
    async with (
        ScriptedEngine(models=["a"]) as engine,
        running_gateway(tmp_path, [entry("a", engine.url)], admin_key=ADMIN) as gateway,
    ):
        (again,) = (await Door(gateway, engine, ADMIN).admin("GET", "keys")).json()["data"]
        assert again["limits"] == listed["limits"]


async def test_call_that_no_engine_answered_costs_no_money(tmp_path: Path) -> None:
    async with door(tmp_path, b=HOSTED) as it:
        made = await it.key(limits={"budgets": [{"period": "day", "unit": "KRW", "amount": "200"}]})
        it.engine.script(CHAT, Reply.json({}, status=500))
        assert (await it.ask(made["secret"], {**ASK, "model": "b"})).status == 502
        call = await it.gateway.call()
        assert (call.charged_tokens, call.cost.amount, call.estimated_cost) == (0, None, None)
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed["limits"]["budgets"][0]["spent"] == "0"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"max_tokens": MOST_TOKENS, "n": MOST_CHOICES}),
        ("/v1/completions", {"messages": None, "prompt": ["x"] * MOST_PROMPTS, "max_tokens": MOST_TOKENS, "n": 1024}),
        (CHAT, {"max_tokens": -(2**70)}),
    ],
)
async def test_no_request_that_is_accepted_makes_a_record_that_the_database_refuses(
    tmp_path: Path, path: str, fields: dict[str, Any]
) -> None:
    async with door(tmp_path) as it:
        uncounted = {name: value for name, value in chat_answer("x", usage=usage_body(1, 1)).items() if name != "usage"}
        it.engine.script(path, Reply.json(uncounted))
        secret = await it.secret()
        for _ in range(3):
            assert (await it.ask(secret, {**ASK, **fields}, path=path)).status == 200
        await it.gateway.calls(3)
        assert it.gateway.services.recorder.stats().lost == 0
        (row,) = (await it.get(secret, "/api/usage")).json()["data"]
        assert row["calls"] == 3
        limits = (fields["max_tokens"], 0)
        assert row["charged_tokens"] >= 3 * max(limits) * fields.get("n", 1)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n"])
async def test_absurd_numbers_are_refused_and_nothing_is_asked_or_held(tmp_path: Path, field: str) -> None:
    async with door(tmp_path) as it:
        made = await it.key(limits={"budgets": [{"period": "day", "unit": "tokens", "amount": "1e9"}]})
        refused = await it.ask(made["secret"], {**ASK, field: 2**62})
        assert (refused.status, refused.json()["error"]["param"]) == (400, field)
        assert not it.engine.requests_to(CHAT)
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert (listed["limits"]["budgets"][0]["reserved"], listed["in_flight"]) == ("0", 0)


async def test_a_start_goes_on_and_says_so_where_it_cannot_read_what_was_spent(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        secret = await it.secret()
        assert (await it.ask(secret)).status == 200
        await it.gateway.calls(1)
    with closing(sqlite3.connect(tmp_path / "data" / "simsa.db")) as database:
        database.execute("UPDATE use_by_day SET charged_tokens = 'many'")
        database.commit()
    async with (
        ScriptedEngine(models=["a"]) as engine,
        running_gateway(tmp_path, [entry("a", engine.url)], admin_key=ADMIN) as gateway,
    ):
        await gateway.until_live("a")
        assert (await Door(gateway, engine, ADMIN).ask(secret)).status == 200


async def test_what_was_spent_is_known_again_after_a_restart(tmp_path: Path) -> None:
    budgets = [{"period": period, "unit": "tokens", "amount": "100"} for period in ("day", "month")]
    async with door(tmp_path) as it:
        made = await it.key(limits={"budgets": budgets})
        for _ in range(2):
            assert (await it.ask(made["secret"])).status == 200
    async with (
        ScriptedEngine(models=["a"]) as engine,
        running_gateway(tmp_path, [entry("a", engine.url)], admin_key=ADMIN) as gateway,
    ):
        await gateway.until_live("a")
        it = Door(gateway, engine, ADMIN)
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert [budget["spent"] for budget in listed["limits"]["budgets"]] == ["40", "40"]
        assert (await it.ask(made["secret"], {**ASK, "max_tokens": 60})).status == 429


async def test_nothing_stays_held_after_any_mix_of_endings(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        made = await it.key(
            limits={"concurrent": 50, "budgets": [{"period": "day", "unit": "tokens", "amount": "1e9"}]}
        )
        secret, never = made["secret"], asyncio.Event()
        assert (await it.ask(secret)).status == 200
        it.engine.script(CHAT, Reply.json(error_body("no", type_="x", code=400), status=400))
        assert (await it.ask(secret)).status == 400
        it.engine.script(CHAT, Reply.json({}, status=500))
        assert (await it.ask(secret)).status == 502
        it.engine.script(CHAT, Reply.stream(chat_chunk("하나"), chat_chunk("둘")))
        assert (await it.ask(secret, {**ASK, "stream": True})).status == 200
        it.engine.script(CHAT, Reply.stream(chat_chunk("하나"), chat_chunk("둘"), never))
        async with RawClient(it.gateway.url, key=secret) as client:
            await client.send("POST", CHAT, body={**ASK, "stream": True})
            await client.next_event()
            client.reset()
        it.engine.script(CHAT, Reply.hang())
        async with RawClient(it.gateway.url, key=secret) as client:
            await client.send("POST", CHAT, body=ASK)
            await it.gateway.until(lambda: it.gateway.services.dispatcher.in_flight)
            client.leave()
        calls = await it.gateway.calls(6)
        (listed,) = (await it.admin("GET", "keys")).json()["data"]
        assert listed["in_flight"] == 0
        (budget,) = listed["limits"]["budgets"]
        assert budget["reserved"] == "0"
        assert budget["spent"] == str(sum(call.charged_tokens or 0 for call in calls))
        never.set()


async def test_cancelled_call_is_charged_at_the_estimate_and_says_so(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        secret, never = await it.secret(), asyncio.Event()
        it.engine.script(CHAT, Reply.stream(chat_chunk("하나"), chat_chunk("둘"), never))
        async with RawClient(it.gateway.url, key=secret) as client:
            await client.send("POST", CHAT, body={**ASK, "stream": True})
            for _ in range(2):
                await client.next_event()
            client.reset()
        call = await it.gateway.call()
        never.set()
        assert (call.status, call.usage.prompt_tokens) == (CallStatus.CANCELLED, None)
        assert call.opened.prompt_estimate is not None
        assert call.charged_tokens == call.opened.prompt_estimate + 2
        (row,) = (await it.get(secret, "/api/usage")).json()["data"]
        assert (row["prompt_tokens"], row["completion_tokens"], row["calls_charged_by_estimate"]) == (0, 2, 1)
        assert row["charged_tokens"] == call.charged_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_comparison_of_which_no_side_may_be_asked_is_refused_and_not_kept(tmp_path: Path, stream: bool) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(limits={"requests_per_min": 1})
        poor = await it.secret(limits={"budgets": [{"period": "day", "unit": "tokens", "amount": "1"}]})
        question = {"models": ["a", "b"], "prompt": "x" * 10_000, "params": {"max_tokens": 2}, "stream": stream}
        assert (await it.ask(key)).status == 200
        asked = len(it.engine.requests_to(CHAT))
        refused = await it.ask(key, question, path="/api/comparisons")
        assert error_of(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(refused.header("retry-after") or "") <= 61
        spent = await it.ask(poor, question, path="/api/comparisons")
        assert error_of(spent) == (429, "insufficient_quota", "insufficient_quota")
        assert len(it.engine.requests_to(CHAT)) == asked
        assert await it.gateway.services.store.list_comparisons() == []


async def test_order_of_a_batch_is_one_request_of_its_key_and_needs_no_place_of_its_own(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(limits={"requests_per_min": 1})
        order = {"models": ["a", "b"], "prompts": [{"prompt": "?"}]}
        assert (await it.ask(key, order, path="/api/comparisons/batches")).status == 201
        refused = await it.ask(key, order, path="/api/comparisons/batches")
        assert error_of(refused) == (429, "rate_limit_error", "rate_limit_exceeded")
        busy, gate = await it.secret(limits={"concurrent": 1}), asyncio.Event()
        it.engine.script(CHAT, Reply.json(chat_answer("하나", usage=usage_body(3, 1))).gated(gate))
        async with RawClient(it.gateway.url, key=busy) as client:
            await client.send("POST", CHAT, body=ASK)
            await it.gateway.until(lambda: it.gateway.services.dispatcher.in_flight)
            assert (await it.ask(busy, order, path="/api/comparisons/batches")).status == 201
            gate.set()
            assert (await client.head()).status == 200


async def test_budget_that_is_too_small_for_a_request_names_the_field_that_would_mend_it(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(limits={"budgets": [{"period": "day", "unit": "tokens", "amount": "70"}]})
        large = await it.ask(key, {**ASK, "max_tokens": 100})
        assert error_of(large) == (429, "insufficient_quota", "insufficient_quota")
        assert large.json()["error"]["param"] == "max_tokens"
        it.engine.script(CHAT, Reply.json(chat_answer("x", usage=usage_body(60, 10))))
        assert (await it.ask(key)).status == 200
        spent = await it.ask(key)
        assert error_of(spent) == (429, "insufficient_quota", "insufficient_quota")
        assert spent.json()["error"]["param"] is None
        it.engine.script("/tokenize", Reply.json({"count": 1, "max_model_len": 9, "tokens": [1]}))
        counted = await it.ask(key, {"model": "a", "prompt": "x"}, path="/tokenize")
        assert counted.status == 200, "what takes no tokens needs no budget"


async def test_side_of_a_comparison_that_is_over_the_limit_fails_alone(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        key = await it.secret(limits={"requests_per_min": 1})
        whole = (await it.ask(key, {"models": ["a", "b"], "prompt": "?"}, path="/api/comparisons")).json()
        assert [side["status"] for side in whole["sides"]] == ["ok", "error"]
        error = whole["sides"][1]["error"]
        assert (error["status"], error["code"]) == (429, "rate_limit_exceeded")
        assert (await it.ask(key)).status == 429, "the side that was answered counts"


# --- what was used ------------------------------------------------------------------------------------------


async def test_usage_is_shown_by_day_organisation_key_and_model(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        await it.org("other")
        mine, others = await it.key(), await it.key("other")
        for _ in range(2):
            await it.ask(mine["secret"])
        await it.ask(mine["secret"], {**ASK, "model": "b"})
        await it.ask(others["secret"])
        await it.ask(ADMIN)
        await it.gateway.calls(5)
        shown = (await it.get(mine["secret"], "/api/usage")).json()
        today = datetime.now(UTC).date().isoformat()
        assert (shown["until"], shown["time_zone"]) == (today, "UTC")
        facts = [(row["day"], row["organisation"], row["key"], row["model"], row["calls"]) for row in shown["data"]]
        assert facts == [(today, "acme", mine["id"], "a", 2), (today, "acme", mine["id"], "b", 1)]
        assert shown["data"][0]["charged_tokens"] == shown["data"][0]["prompt_tokens"] + 16 == 40
        assert (shown["data"][0]["cost"], shown["data"][0]["calls_without_cost"]) == (None, 2)
        everything = (await it.get(ADMIN, "/api/usage")).json()["data"]
        assert sorted(str(row["organisation"]) for row in everything) == ["None", "acme", "acme", "other"]
        one = (await it.get(ADMIN, f"/api/usage?organisation=acme&model=b&key={mine['id']}")).json()["data"]
        assert [row["calls"] for row in one] == [1]
        assert (await it.get(mine["secret"], "/api/usage?organisation=other")).status == 403
        assert (await it.get(ADMIN, "/api/usage?since=2020-01-01&until=2020-02-01")).json()["data"] == []
        for wrong in ("since=2021-01-02&until=2021-01-01", "since=2001-01-01", "since=x", "until=9999-12-31"):
            assert (await it.get(ADMIN, f"/api/usage?{wrong}")).status == 400
        csv = await it.get(mine["secret"], "/api/usage?format=csv")
        assert csv.header("content-type") == "text/csv; charset=utf-8"
        lines = csv.body.decode("utf-8-sig").splitlines()
        assert lines[0].split(",") == list(UsageRow.__slots__)
        assert lines[1].startswith(f"{today},acme,{mine['id']},a,")
        assert len(lines) == 3


async def test_openapi_says_which_routes_take_a_key(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        document = (await it.get(None, "/openapi.json")).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    open_paths = {"/health", "/ready", "/metrics"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("security") == (None if path in open_paths else [{"key": []}]), path


async def test_calls_carry_whose_they_are(tmp_path: Path) -> None:
    async with door(tmp_path) as it:
        made = await it.key()
        await it.ask(made["secret"])
        call: Call = await it.gateway.call()
        assert (call.opened.organisation, call.opened.key, call.charged_tokens) == ("acme", made["id"], 20)
        await it.ask(ADMIN)
        operators = next(call for call in await it.gateway.calls(2) if call.opened.key is None)
        assert (operators.opened.organisation, operators.charged_tokens) == (None, None)
