"""Who is let in: with a key those who have it, without one this machine's programs, but no foreign web page."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients import Answer, Headers, RawClient
from engines import ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from pydantic import SecretStr

from gateway.access import Access
from gateway.domain.accounts import EVERYTHING
from gateway.errors import AuthenticationFailed, PageRefused

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "안녕하세요"}], "max_tokens": 8}
NO_ENGINE = [entry("m", "http://127.0.0.1:9")]
PAGES = "http://localhost:3000"


async def ask(
    gateway: RunningGateway, headers: Headers, *, method: str = "POST", path: str = CHAT, key: str | None = None
) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request(method, path, headers=headers, body=ASK if method == "POST" else b"")


FOREIGN = [
    ([("host", "evil.example")], "host_not_allowed"),
    ([("host", "evil.example:8080")], "host_not_allowed"),
    ([("host", "localhost.evil.example")], "host_not_allowed"),
    ([("host", "127.0.0.1.evil.example")], "host_not_allowed"),
    ([("host", "evil.example@localhost")], "host_not_allowed"),
    ([("host", "localhost\u00a0")], "host_not_allowed"),
    ([("host", "128.0.0.1")], "host_not_allowed"),
    ([("host", "0.0.0.0")], "host_not_allowed"),
    ([("host", "")], "host_not_allowed"),
    ([("host", "localhost"), ("host", "evil.example")], "host_not_allowed"),
    ([("origin", "https://evil.example")], "origin_not_allowed"),
    ([("origin", "http://localhost.evil.example")], "origin_not_allowed"),
    ([("origin", "null")], "origin_not_allowed"),
    ([("origin", "file://")], "origin_not_allowed"),
    ([("origin", PAGES), ("origin", "https://evil.example")], "origin_not_allowed"),
    ([("origin", "https://evil.example"), ("content-type", "text/plain")], "origin_not_allowed"),
    ([("sec-fetch-site", "cross-site")], "origin_not_allowed"),
    ([("sec-fetch-site", "Cross-Site"), ("sec-fetch-mode", "no-cors")], "origin_not_allowed"),
]
OURS: list[Headers] = [
    [],
    [("host", "localhost")],
    [("host", "LocalHost:8080")],
    [("host", "127.0.0.1:8080")],
    [("host", "127.1.2.3")],
    [("host", "[::1]")],
    [("host", "[::1]:8080")],
    [("origin", PAGES), ("sec-fetch-site", "cross-site")],
    [("origin", "https://127.0.0.1:8443"), ("sec-fetch-site", "same-site")],
    [("sec-fetch-site", "same-origin")],
    [("sec-fetch-site", "none")],
]


@pytest.mark.parametrize(("headers", "code"), FOREIGN)
async def test_without_a_key_no_foreign_page_reaches_an_engine(tmp_path: Path, headers: Headers, code: str) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        for method, path in (("POST", CHAT), ("POST", "/api/comparisons"), ("GET", "/v1/models")):
            answer = await ask(gateway, headers, method=method, path=path)
            error = answer.json()["error"]
            assert (answer.status, error["type"], error["code"]) == (403, "permission_error", code)
            assert "SIMSA_ADMIN_KEY" in error["message"]
        assert not engine.requests_to(CHAT)


@pytest.mark.parametrize("headers", OURS)
async def test_without_a_key_this_machine_is_answered(tmp_path: Path, headers: Headers) -> None:
    async with ScriptedEngine() as engine, running_gateway(tmp_path, [entry("m", engine.url)]) as gateway:
        await gateway.until_live("m")
        assert (await ask(gateway, headers)).status == 200
        assert (await ask(gateway, headers, method="GET", path="/v1/models")).status == 200


async def test_request_without_a_host_is_no_browsers_and_answered(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, NO_ENGINE) as gateway, RawClient(gateway.url) as client:
        await client.send_raw(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert (await client.head()).status == 200


async def test_watchers_may_come_by_any_name_but_learn_no_detail(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, NO_ENGINE) as gateway:
        headers = [("host", "node-7.example:8080")]
        for path, status in (("/health", 200), ("/ready", 503), ("/metrics", 200)):
            assert (await ask(gateway, headers, method="GET", path=path)).status == status
        assert (await ask(gateway, headers, method="GET", path="/ready")).json() == {"status": "not ready"}
        assert "problems" in (await ask(gateway, [], method="GET", path="/ready")).json()


async def test_description_of_the_routes_opens_without_a_key(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, NO_ENGINE) as gateway:
        for path in ("/docs", "/openapi.json"):
            assert (await ask(gateway, [("sec-fetch-site", "none")], method="GET", path=path)).status == 200


@pytest.mark.parametrize("headers", [headers for headers, _ in FOREIGN])
async def test_with_a_key_only_the_key_counts(tmp_path: Path, headers: Headers) -> None:
    async with running_gateway(tmp_path, NO_ENGINE, admin_key="right") as gateway:
        assert (await ask(gateway, headers, method="GET", path="/v1/models", key="right")).status == 200
        wrong = await ask(gateway, headers, method="GET", path="/v1/models", key="wrong")
        assert (wrong.status, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


def test_key_may_come_as_x_api_key_where_the_route_takes_it() -> None:
    access = Access(SecretStr("right"), lambda _token: None)
    assert access.check([(b"x-api-key", b"right")], or_x_api_key=True) is EVERYTHING
    for headers in ([(b"x-api-key", b"wrong")], [(b"authorization", b"Bearer wrong"), (b"x-api-key", b"right")], []):
        with pytest.raises(AuthenticationFailed):
            access.check(headers, or_x_api_key=True)
    with pytest.raises(AuthenticationFailed):
        access.check([(b"x-api-key", b"right")])


def test_without_an_admin_key_an_unknown_key_of_ours_is_nobodys() -> None:
    access = Access(None, lambda _token: None)
    assert access.check([(b"authorization", b"Bearer none")]) is EVERYTHING
    with pytest.raises(AuthenticationFailed):
        access.check([(b"authorization", b"Bearer simsa-unknown")])
    with pytest.raises(PageRefused):
        access.check([(b"authorization", b"Bearer none"), (b"host", b"evil.example")])
