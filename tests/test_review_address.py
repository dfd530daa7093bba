"""An address of reviewers' own: which requests come to it, how pages get there, and who is told where there is none.

That nothing about models is learnt at it is the attacker's test (test_blind_wire.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from clients import RawClient
from gateways import RunningGateway, running_gateway
from pydantic import ValidationError
from review_rounds import ENTRIES, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round
from reviewer_clients import ReviewerClient
from structlog.testing import capture_logs

from gateway.domain.rounds import RoundStatus
from gateway.review_address import ReviewAddress
from gateway.settings import Settings

ADMIN = "admin-key-of-this-test"
HOST = "review.example"
URL = f"http://{HOST}"
FIRST = item_id(REVIEWERS[0], 0)
SHARED = "reviewers reach their pages under the same address as the API"


@dataclass
class Addressed:
    gateway: RunningGateway
    round: ReviewRound
    here: ReviewerClient
    """A browser at the reviewers' address."""
    elsewhere: ReviewerClient
    """The same at the gateway's other address."""


@asynccontextmanager
async def addressed(directory: Path, **options: object) -> AsyncIterator[Addressed]:
    async with running_gateway(directory, ENTRIES, sections=SECTIONS, admin_key=ADMIN, review_url=URL) as gateway:
        put = await put_round(gateway.services.store, trained=True, **options)  # type: ignore[arg-type]
        async with ReviewerClient(gateway.url, host=HOST) as here, ReviewerClient(gateway.url) as elsewhere:
            yield Addressed(gateway, put, here, elsewhere)


# --- which requests come to it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "review.example", "REVIEW.Example", "review.example.", "review.example..", "review.example:8080",
        "a@review.example", "review.example.:443", "http://review.example/x", "other.example, review.example",
        "review.example%00",
    ],
)  # fmt: skip
def test_the_address_is_known_however_it_is_written(value: str) -> None:
    assert ReviewAddress("https://review.example").is_named_by([(b"accept", b"*/*"), (b"host", value.encode())])


@pytest.mark.parametrize(
    "value",
    ["preview.example", "x.review.example", "review.example.org", "review.example.org:80", "review-example", "",
     "review.example-2", "review.examples", "127.0.0.1:8080"],
)  # fmt: skip
def test_a_name_that_holds_it_is_another_address(value: str) -> None:
    assert not ReviewAddress("https://review.example").is_named_by([(b"host", value.encode())])


@pytest.mark.parametrize("name", ["host", "x-forwarded-host", "forwarded"])
def test_a_proxy_names_it_too_and_no_other_header_does(name: str) -> None:
    address = ReviewAddress("http://[::1]:8443")
    assert address.is_named_by([(b"host", b"127.0.0.1"), (name.encode(), b'host="[::1]:80"')])
    assert not address.is_named_by([(b"host", b"127.0.0.1"), (b"referer", b"http://[::1]/")])


PUBLIC = "https://simsa.example"
ALL, ONLY_REVIEWERS = False, True


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("host", "simsa.example")], ALL),
        ([("host", "Simsa.Example.:8443")], ALL),
        ([("host", "localhost:8080")], ALL),
        ([("host", "127.0.0.1")], ALL),
        ([("host", "127.8.9.10:80")], ALL),
        ([("host", "[::1]:8080")], ALL),
        ([("host", "127.0.0.1"), ("x-forwarded-host", "simsa.example, localhost")], ALL),
        ([("host", "127.0.0.1"), ("forwarded", 'for=10.0.0.1;host="simsa.example:443", for=10.0.0.2')], ALL),
        ([("host", "127.0.0.1"), ("referer", "http://x/")], ALL),
        ([("host", "review.example")], ONLY_REVIEWERS),
        ([("host", "x")], ONLY_REVIEWERS),
        ([("host", "")], ONLY_REVIEWERS),
        ([], ONLY_REVIEWERS),
        ([("x-forwarded-host", "simsa.example")], ONLY_REVIEWERS),
        ([("host", "10.0.0.7:8080")], ONLY_REVIEWERS),
        ([("host", "x.simsa.example")], ONLY_REVIEWERS),
        ([("host", "simsa.example.org")], ONLY_REVIEWERS),
        ([("host", "127.0.0.1.example.org")], ONLY_REVIEWERS),
        ([("host", "a@simsa.example")], ONLY_REVIEWERS),
        ([("host", "simsa.example"), ("host", "x")], ONLY_REVIEWERS),
        ([("host", "127.0.0.1"), ("x-forwarded-host", "simsa.example, x")], ONLY_REVIEWERS),
        ([("host", "127.0.0.1"), ("x-original-host", "x")], ONLY_REVIEWERS),
        ([("host", "127.0.0.1"), ("forwarded", "for=10.0.0.1;Host=x")], ONLY_REVIEWERS),
    ],
)
def test_beside_a_public_address_only_its_name_and_this_machines_get_everything(
    headers: list[tuple[str, str]], expected: bool
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert ReviewAddress(URL, PUBLIC).is_for_reviewers(raw) is expected


@pytest.mark.parametrize("public_url", ["http://[2001:db8::1]:8443", "https://심사.example"])
def test_a_public_address_may_be_a_number_or_written_in_hangul(public_url: str) -> None:
    address = ReviewAddress(URL, public_url)
    names = {"http://[2001:db8::1]:8443": b"[2001:DB8::1]:80", "https://심사.example": b"xn--vf4b54b.example"}
    assert not address.is_for_reviewers([(b"host", names[public_url])])
    assert address.is_for_reviewers([(b"host", b"x")])


def test_without_a_public_address_every_name_but_the_reviewers_gets_everything() -> None:
    address = ReviewAddress(URL)
    assert not address.is_for_reviewers([(b"host", b"x")])
    assert not address.is_for_reviewers([])
    assert address.is_for_reviewers([(b"host", b"review.example")])
    assert address.is_for_reviewers([(b"host", b"127.0.0.1"), (b"x-original-host", b"review.example")])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://review.example.org", "https://review.example.org"),
        ("HTTPS://Review.Example.org./", "https://review.example.org"),
        ("http://review.example.org:8443/", "http://review.example.org:8443"),
        ("https://심사.example", "https://xn--vf4b54b.example"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_the_setting_is_an_address_without_a_path(given: str, kept: str) -> None:
    assert Settings(review_url=given).review_url == kept


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("review.example.org", "expected an address"),
        ("ftp://review.example.org", "expected an address"),
        ("https://a:b@review.example.org", "expected an address"),
        ("https://simsa.example.org/review", "has a path"),
        ("https://review.example.org/?x=1", "has a path"),
        ("https://SIMSA.example.org:8443", "the host name of SIMSA_PUBLIC_URL"),
        ("https://simsa.example.org.", "the host name of SIMSA_PUBLIC_URL"),
        ("https://review.example.org:x", "Port"),
    ],
)
def test_a_setting_that_could_not_work_is_refused(given: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(public_url="https://simsa.example.org", review_url=given)


# --- how pages get there ------------------------------------------------------------------------------------


async def test_links_lead_to_the_reviewers_address(tmp_path: Path) -> None:
    async with addressed(tmp_path) as it, RawClient(it.gateway.url, key=ADMIN) as chair:
        renewed = await chair.request("POST", f"/api/rounds/{it.round.id}/reviewers/{REVIEWERS[0]}/link")
        assert renewed.json()["link"].startswith(f"{URL}/review/enter#"), renewed.body
        page = await it.here.enter(renewed.json()["link"].partition("#")[2])
        assert (page.status, it.here.form != "") == (200, True)


async def test_a_link_made_before_the_setting_leads_on(tmp_path: Path) -> None:
    """A browser takes what stands behind '#' along to an address that has none."""
    async with addressed(tmp_path) as it:
        for path in ("/review/enter", "/review/enter?link=a.b%2F&x", "/review/", f"/review/items/{FIRST}", "/review"):
            answer = await it.elsewhere.get(path)
            assert (answer.status, answer.header("location"), answer.body) == (307, URL + path, b"")
            assert answer.header("referrer-policy") == "no-referrer"


async def test_at_any_other_address_a_session_has_ended(tmp_path: Path) -> None:
    async with addressed(tmp_path) as it:
        token = await it.round.token()
        for post in ({"link": token, "form": ""}, {}):
            answer = await it.elsewhere.post("/review/enter", post)
            assert (answer.status, answer.header("set-cookie")) == (401, None)
        assert "링크를 다시 열어" in answer.body.decode()
        await it.here.enter(token)
        it.elsewhere.cookie, it.elsewhere.form = it.here.cookie, it.here.form
        refused = await it.elsewhere.save(FIRST, {"choice": "a"}, base=0)
        assert (refused.status, refused.json()["error"]["code"]) == (401, "no_session")
        assert await it.round.store.votes(it.round.id) == []
        assert (await it.here.save(FIRST, {"choice": "a"}, base=0)).status == 200


async def test_everything_else_is_served_at_any_other_address(tmp_path: Path) -> None:
    async with addressed(tmp_path) as it, RawClient(it.gateway.url, key=ADMIN) as operator:
        for path in ("/metrics", "/docs", "/v1/models", "/api/rounds", "/health", "/rounds/sign-in"):
            assert (await operator.request("GET", path)).status == 200, path
            assert (await operator.request("GET", path, headers=[("host", f"x.{HOST}")])).status == 200, path


async def test_the_result_stands_at_the_reviewers_address_and_leads_nowhere_else(tmp_path: Path) -> None:
    async with addressed(tmp_path, status=RoundStatus.REVEALED) as it:
        assert (await it.here.get("/review/result")).status == 401
        page = await it.here.enter(await it.round.token())
        assert 'href="/review/result"' in page.body.decode()
        assert "/rounds/" not in page.body.decode()
        sign_in = await it.elsewhere.get(f"/rounds/{it.round.id}/result")
        assert sign_in.header("location") == f"/rounds/sign-in?next=%2Frounds%2F{it.round.id}%2Fresult"


async def test_the_whole_address_as_target_goes_before_the_host_header(tmp_path: Path) -> None:
    async with addressed(tmp_path) as it:
        for target, host, status in ((URL, "other.example", 404), ("http://other.example", HOST, 404)):
            async with RawClient(it.gateway.url) as client:
                await client.send_raw(f"GET {target}/metrics HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
                assert (await client.head()).status == status
        async with RawClient(it.gateway.url) as client:
            await client.send_raw(b"GET http://[::1]:8080/metrics HTTP/1.1\r\nhost: other.example\r\n\r\n")
            assert (await client.head()).status == 200


async def test_beside_a_public_address_no_other_name_gets_more_than_reviewers(tmp_path: Path) -> None:
    settings = {"admin_key": ADMIN, "review_url": URL, "public_url": PUBLIC}
    async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS, **settings) as gateway:
        put = await put_round(gateway.services.store, trained=True)
        async with RawClient(gateway.url, key=ADMIN) as operator:
            nothing = await operator.request("GET", "/review/none", headers=[("host", HOST)])
            for path in ("/metrics", "/docs", "/v1/models", "/api/rounds", "/rounds/sign-in"):
                for host in ("x", "10.0.0.7:8080", ""):
                    answer = await operator.request("GET", path, headers=[("host", host)])
                    assert (answer.status, answer.body) == (404, nothing.body), (path, host)
                for host in ("simsa.example", "localhost"):
                    assert (await operator.request("GET", path, headers=[("host", host)])).status == 200, (path, host)
            assert (await operator.request("GET", "/health", headers=[("host", "10.0.0.7")])).json() == {"status": "ok"}
        async with ReviewerClient(gateway.url, host="x") as reviewer:
            assert (await reviewer.enter(await put.token())).status == 200
        async with RawClient(gateway.url) as client:
            await client.send_raw(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert (await client.head()).status == 404


# --- who is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url", "is_told"), [("0.0.0.0", None, True), ("0.0.0.0", URL, False), ("127.0.0.1", None, False)]
)
async def test_the_operator_is_told_where_reviewers_share_the_address(
    tmp_path: Path, host: str, url: str | None, is_told: bool
) -> None:
    def told(lines: list[object]) -> list[object]:
        return [line["rounds"] for line in lines if isinstance(line, dict) and line["event"].startswith(SHARED)]

    settings = {"admin_key": ADMIN, "host": host, "review_url": url}
    with capture_logs() as lines:
        async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS, **settings) as gateway:
            await put_round(gateway.services.store, status=RoundStatus.PAUSED)
            assert told(lines) == []
            async with RawClient(gateway.url, key=ADMIN) as operator:
                assert (await operator.request("POST", "/api/rounds/round-1/open")).status == 200
            assert told(lines) == [["first"]] * is_told
            async with ReviewerClient(gateway.url) as chair:
                await chair.post("/rounds/sign-in", {"key": ADMIN, "form": ""})
                assert ("API와 같은 주소" in (await chair.get("/rounds/round-1")).body.decode()) == is_told
                await gateway.services.rounds.store.move("round-1", {RoundStatus.OPEN}, RoundStatus.PAUSED)
                await chair.post("/rounds/round-1/steps/open", {"sure": "yes"})
            assert told(lines) == [["first"]] * 2 * is_told
        async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS, **settings):
            assert told(lines) == [["first"]] * 3 * is_told


@pytest.mark.parametrize(
    ("options", "is_told"),
    [({"review_url": URL}, True), ({"review_url": URL, "public_url": PUBLIC}, False), ({"public_url": PUBLIC}, False)],
)
async def test_the_operator_is_told_once_where_other_names_reach_the_api(
    tmp_path: Path, options: dict[str, str], is_told: bool
) -> None:
    with capture_logs() as lines:
        async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS, admin_key=ADMIN, **options):
            pass
    told = [line for line in lines if line["event"].startswith("every host name but the reviewers' own")]
    assert [line["log_level"] for line in told] == ["warning"] * is_told


def test_a_public_address_without_a_host_name_is_refused_beside_the_reviewers() -> None:
    with pytest.raises(ValidationError, match="SIMSA_PUBLIC_URL has no host name"):
        Settings(public_url="simsa.example.org", review_url=URL)
