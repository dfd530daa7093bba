"""What only somebody hostile sends to our own routes is refused in words, on either kind of database: never a 5xx.

What generated data can find is test_openapi's part; here stand the values that a generator does not think of.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from databases import ScratchDatabase
from engines import ScriptedEngine
from gateways import entry, running_gateway
from populated_gateway import GPUS, SHAPE

ADMIN = "the-admin-of-this-gate"
KEYS, ORGS, COMPARE = "/api/admin/keys", "/api/admin/orgs", "/api/comparisons"
BATCHES, FEASIBILITY, USAGE = f"{COMPARE}/batches", "/api/feasibility", "/api/usage"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
NINES = "9" * 5000
"""More digits than Python reads as a number."""
LONG = "x" * 20_000
Sent = tuple[str, str, bytes]


def gets(*paths: str) -> Iterator[Sent]:
    return (("GET", path, b"") for path in paths)


def posts(path: str, *bodies: bytes) -> Iterator[Sent]:
    return (("POST", path, body) for body in bodies)


def written(**fields: Any) -> bytes:
    """JSON in which all that is not ASCII is escaped, halves of surrogate pairs too."""
    return json.dumps(fields).encode()


def key(**fields: Any) -> bytes:
    return written(**{"organisation": "acme", "name": "n", **fields})


def budget(amount: str, unit: str = "tokens") -> bytes:
    wanted = f'{{"period":"day","unit":"{unit}","amount":{amount}}}'
    return b'{"organisation":"acme","name":"n","limits":{"budgets":[%b]}}' % wanted.encode()


def comparison(**fields: Any) -> bytes:
    return written(**{"models": ["a", "b"], "prompt": "p", "params": {"max_tokens": 2}, **fields})


def batch(**fields: Any) -> bytes:
    return written(**{"models": ["a", "b"], "prompts": [{"prompt": "p"}], "params": {"max_tokens": 2}, **fields})


NO_BODIES = (b"", b"null", b"[]", b"{", b"NaN", b"\xff", b'"' * 3, b"[" * 100_000)
REFUSED: dict[str, list[Sent]] = {
    "NUL in an address": [
        *gets(f"{COMPARE}/%00", f"{COMPARE}?before=%00", f"{COMPARE}/export?format=%00", f"{BATCHES}/%00"),
        *gets(f"{BATCHES}/%00/statistics", f"{BATCHES}/%00/export", "/v1/models/%00", f"{FEASIBILITY}?model=%00"),
        *gets(f"{FEASIBILITY}?gpu=%00", f"{USAGE}?organisation=%00", f"{USAGE}?key=%00&model=%00", f"{KEYS}?x=%00"),
        *gets(f"{KEYS}?organisation=%00", f"{KEYS}?organisation=acme&organisation=%00", "/nowhere/%00%ff"),
        *posts(f"{KEYS}/%00/revoke", b""),
        *posts(f"{ORGS}/%00/revoke", b""),
        *posts(f"{BATCHES}/%00/resume", b""),
        ("DELETE", f"{BATCHES}/%00", b""),
    ],
    "ids of odd characters": [
        *gets(f"{COMPARE}/a%2Fb", f"{COMPARE}/..%2f..", f"{COMPARE}/%ff%fe", f"{COMPARE}/%ed%a0%80", f"{COMPARE}/"),
        *gets(f"{COMPARE}/{LONG}", f"{COMPARE}?before={LONG}", f"{BATCHES}/", "/v1/models/", "/v1/models/%ff"),
        *gets(
            f"/v1/models/{LONG}", "/v1/models/a%2F..%2Fb", f"{FEASIBILITY}?model={LONG}", f"{FEASIBILITY}?gpu={LONG}"
        ),
        *gets("/v1/responses/%00", "/v1/responses/a%2fb", "/v1/responses/", "/v1/responses/..", "//api/models"),
        *gets("/api/models/", "/health/"),
        *posts(f"{ORGS}/a%2Fb/revoke", b""),
    ],
    "numbers beyond all bounds": [
        *gets(*(f"{COMPARE}?limit={limit}" for limit in ("0", "-1", str(2**63), NINES, "NaN", "1e2", "", "1&limit=0"))),
        *gets(*(f"{FEASIBILITY}?context={context}" for context in ("0", "-1", str(2**63), "9" * 400, NINES, "NaN"))),
        *gets(*(f"{FEASIBILITY}?concurrency={requests}" for requests in ("0", str(2**63), "9" * 400, NINES, "1.5"))),
        *posts(CHAT, b'{"model":"a","max_tokens":%b,"messages":[]}' % NINES.encode()),
        *posts(CHAT, b'{"model":"a","max_tokens":1e999,"messages":[]}', b'{"model":"a","n":1e999,"messages":[]}'),
        *posts(CHAT, b'{"model":"a","stream":true,"stream_options":{"include_usage":1e999},"messages":[]}'),
        *posts(COMPARE, comparison(params={"seed": 2**63}), comparison(params={"max_tokens": 2**63})),
        *posts(COMPARE, *(_.encode() for _ in ('{"models":["a","b"],"prompt":"p","params":{"temperature":1e999}}',))),
        *posts(COMPARE, b'{"models":["a","b"],"prompt":"p","params":{"tools":[{"x":NaN}]}}'),
        *posts(COMPARE, b'{"models":["a","b"],"prompt":"p","params":{"tools":[{"x":%b}]}}' % NINES.encode()),
        *posts(BATCHES, batch(repeats=0), batch(repeats=2**63), batch(prompts=[])),
        *posts(KEYS, *(key(limits={"requests_per_min": count}) for count in (0, 2**63, 1.5, "x"))),
        *posts(KEYS, key(roles=["admin"] * 10_000), key(routes=["chat_completions"] * 10_000)),
        *posts(KEYS, key(limits={"budgets": [{"period": "day", "unit": "tokens", "amount": 5}] * 21})),
    ],
    "amounts that are none": [
        *posts(KEYS, *(budget(f'"{amount}"') for amount in ("1e999999", "1e-999999", "NaN", "sNaN", "-Infinity"))),
        *posts(KEYS, *(budget(f'"{amount}"') for amount in ("0", "-1", "-0", "1e23", NINES, "\\u0000", "\\ud800", ""))),
        *posts(KEYS, *(budget(amount) for amount in ("1e999999", "NaN", NINES, "null", "[]", "true"))),
        *posts(KEYS, budget("5", "KRW\\n"), budget("5", "\\u0000")),
    ],
    "days and moments outside the calendar": [
        *gets(f"{USAGE}?since=9999-12-31&until=9999-12-31", f"{USAGE}?since=0001-01-01", f"{USAGE}?since=-0001-01-01"),
        *gets(f"{USAGE}?since=2026-02-02&until=2026-01-01", f"{USAGE}?since=99999-01-01", f"{USAGE}?since={NINES}"),
        *gets(f"{USAGE}?since=-62135596801&until=-62135596801", f"{USAGE}?until=9999-12-31&since=9999-12-01"),
        *posts(KEYS, *(key(expires_at=f"9999-12-31T23:59:59{offset}") for offset in ("-23:59", "-00:01", ""))),
        *posts(KEYS, *(key(expires_at=at) for at in ("0001-01-01T00:00:00+23:59", "-0001-01-01T00:00:00Z", "", NINES))),
        *posts(KEYS, *(key(expires_at=at) for at in (2**63, -(2**63), 1e308))),
    ],
    "texts that no database keeps": [
        *posts(ORGS, written(id="x", name="a\0b"), written(id="x", name="\ud800"), written(id="x\0", name="n")),
        *posts(
            ORGS, written(id="x\n", name="n"), written(id="x", name="n", **{"\ud800": 1}), b'{"id":"x","name":"\xff"}'
        ),
        *posts(ORGS, written(id="x", name="n", **{"\0": 1}), written(id="x", name="n" * 201), written(id="x", name="")),
        *posts(KEYS, key(name="\0"), key(organisation="\0"), key(organisation="\ud800"), key(organisation=LONG)),
        *posts(
            KEYS, *(key(**{scope: [name]}) for scope in ("models", "routes", "licences") for name in ("\0", "\ud800"))
        ),
        *posts(KEYS, key(roles=["\ud800"]), key(routes=[LONG])),
        *posts(
            COMPARE, comparison(models=["a", "\0"]), comparison(models=["a", "\ud800"]), comparison(prompt="\ud800")
        ),
        *posts(BATCHES, batch(name="x\0"), batch(name="\ud800"), batch(prompts=[{"id": "\0", "prompt": "x"}])),
        *posts(CHAT, written(model="\ud800", messages=[]), written(model="\0", messages=[]), written(model=LONG)),
        *posts(CHAT, b'{"\\ud800":1,"model":"a","messages":[]}'),
        *posts(RESPONSES, written(model="a", input="x", previous_response_id="\0")),
        *posts(RESPONSES, written(model="a", input="x", previous_response_id="\ud800")),
    ],
    "bodies that are none": [
        *(("POST", path, body) for path in (ORGS, KEYS, COMPARE, BATCHES, CHAT) for body in NO_BODIES),
        *posts(ORGS, b'{"id":"x","name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        *posts(COMPARE, comparison(params={"chat_template_kwargs": {"chat_template": "{{ x }}"}})),
    ],
    "methods that a path has not": [
        *(
            (method, path, b"")
            for method in ("PUT", "PATCH", "TRACE", "OPTIONS", "PROPFIND")
            for path in (KEYS, CHAT, BATCHES)
        ),
        *(("DELETE", path, b"") for path in (KEYS, "/v1/models/a", "/health", "/v1/responses/r")),
        ("OPTIONS", "*", b""),
    ],
}
ACCEPTED: list[Sent] = [
    *gets(
        f"{USAGE}?since=9999-12-30&until=9999-12-30", f"{USAGE}?since=0001-01-01&until=0001-01-01", f"{USAGE}?key=%ff"
    ),
    *gets(f"{FEASIBILITY}?context=100000000&concurrency=1000000", f"{COMPARE}?limit=0&limit=1"),
    *posts(KEYS, budget('"1e17"'), key(expires_at="9999-12-31T23:59:59.999999Z"), key(limits={"concurrent": 2**53})),
    *posts(
        COMPARE, comparison(prompt="\0"), comparison(params={"max_tokens": 2, "stop": ["\0"], "temperature": 1e308})
    ),
    *posts(COMPARE, comparison(params={"max_tokens": 2, "tools": [{"\0": 10**30}], "seed": -(2**63)})),
    *posts(BATCHES, batch(prompts=[{"prompt": "\0"}]), batch(name="\x85\u2028\u202e")),
]


@asynccontextmanager
async def gate(directory: Path, database_url: str) -> AsyncIterator[str]:
    """The address of a gateway with models a and b and an organisation."""
    async with ScriptedEngine(models=["a", "b"]) as engine:
        models = [entry("a", engine.url, shape=SHAPE), entry("b", engine.url)]
        settings: dict[str, Any] = {"admin_key": ADMIN, "database_url": database_url}
        async with running_gateway(directory, models, sections={"gpus": GPUS}, **settings) as gateway:
            await gateway.until_live("a", "b")
            await ask(gateway.url, ("POST", ORGS, written(id="acme", name="수요기관")))
            yield gateway.url


async def ask(url: str, sent: Sent, *, key: str | None = ADMIN) -> Answer:
    method, path, body = sent
    async with RawClient(url, key=key) as client:
        return await client.request(method, path, body=body)


async def test_hostile_requests_are_refused_in_the_envelope(tmp_path: Path, database: ScratchDatabase) -> None:
    async with gate(tmp_path, database.url) as url:
        for what, requests in REFUSED.items():
            for sent in requests:
                answer = await ask(url, sent)
                shown = (what, sent[0], sent[1][:80], sent[2][:200], answer.status, answer.body[:200])
                assert answer.status in (400, 404, 405), shown
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, shown
                assert len(answer.body) < 2000, shown
                if answer.status == 405:
                    allowed = answer.header("allow")
                    assert allowed, shown
                    assert sent[0] not in allowed, shown


async def test_odd_but_right_requests_are_answered(tmp_path: Path, database: ScratchDatabase) -> None:
    async with gate(tmp_path, database.url) as url:
        for sent in ACCEPTED:
            answer = await ask(url, sent)
            assert answer.status in (200, 201), (sent[1][:80], sent[2][:200], answer.body[:200])
        for path in (COMPARE, f"{COMPARE}/export", f"{COMPARE}/export?format=csv", BATCHES, KEYS):
            assert (await ask(url, ("GET", path, b""))).status == 200, path


async def test_a_change_of_a_key_is_held_to_what_a_new_one_is(tmp_path: Path, database: ScratchDatabase) -> None:
    async with gate(tmp_path, database.url) as url:
        path = f"{KEYS}/{(await ask(url, ('POST', KEYS, key()))).json()['id']}"
        for body in (
            written(expires_at="9999-12-31T23:59:59-23:59"),
            written(name="a\0b"),
            written(name="\ud800"),
            written(models=["\0"]),
            written(routes=[LONG]),
            written(roles=["admin"] * 10_000),
            b'{"limits":{"budgets":[{"period":"day","unit":"tokens","amount":"NaN"}]}}',
            *NO_BODIES,
        ):
            assert (await ask(url, ("PATCH", path, body))).status == 400, body[:100]
        assert (await ask(url, ("PATCH", f"{KEYS}/%00", b"{}"))).status == 400
        assert (await ask(url, ("PATCH", f"{KEYS}/nobody", b"{}"))).status == 404
        assert (await ask(url, ("PATCH", path, b"{}"))).status == 200


@pytest.mark.parametrize("path", [KEYS, ORGS, COMPARE, BATCHES, CHAT])
async def test_without_a_key_no_body_is_read(tmp_path: Path, path: str) -> None:
    """Else anybody could fill the memory, and malformed bodies would be told apart before the key is."""
    async with running_gateway(tmp_path, [entry("a", "http://127.0.0.1:9")], admin_key=ADMIN) as gateway:
        async with RawClient(gateway.url) as client:
            head = await client.start("POST", path, headers=[("content-length", str(2**40))])
            assert head.status == 401
        assert (await ask(gateway.url, ("POST", path, b"{"), key=None)).status == 401


@pytest.mark.parametrize("path", [KEYS, ORGS, COMPARE, BATCHES, CHAT])
async def test_body_over_the_limit_is_refused_declared_or_not(tmp_path: Path, path: str) -> None:
    models = [entry("a", "http://127.0.0.1:9")]
    async with running_gateway(tmp_path, models, admin_key=ADMIN, max_body_bytes=1000) as gateway:
        whole = await ask(gateway.url, ("POST", path, b" " * 1001))
        async with RawClient(gateway.url, key=ADMIN) as client:
            await client.send("POST", path, headers=[("transfer-encoding", "chunked")])
            await client.send_raw(b"3e9\r\n" + b" " * 1001 + b"\r\n")
            in_pieces = await client.head()
        assert (whole.status, in_pieces.status) == (413, 413)
        assert whole.json()["error"]["code"] == "request_too_large"


async def test_allowed_methods_of_a_path_are_those_of_all_its_routes(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [entry("a", "http://127.0.0.1:9")]) as gateway:
        for path, allowed in ((KEYS, "GET, POST"), (f"{BATCHES}/b", "DELETE, GET"), (CHAT, "POST")):
            answer = await ask(gateway.url, ("PUT", path, b""))
            assert (answer.status, answer.header("allow")) == (405, allowed)
