"""The attacker's test: a whole round against engines in which everything that could tell carries a canary.

Names, ids, headers, figures, errors, reasoning, special tokens and self-claims of three engines are marked. Every
answer under /review is kept as it came over the socket, for every reviewer, from the entrance to after the reveal, and
is searched; then pages are compared with each other: two sides may differ in nothing but their text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from clients import Answer, RawClient
from engines import DONE, Reply, Request, ScriptedEngine, error_body
from gateways import RunningGateway, entry, running_gateway
from review_rounds import CONSORTIA
from reviewer_clients import ReviewerClient
from round_operators import RoundOperator
from vllm_shapes import event

from gateway.api.review_door import HEADERS, PAGE_BYTES
from gateway.domain.rounds import ItemKind, RoundItem

ADMIN = "admin-key-of-this-test"
MARK = "zqcanary"
LETTERS = ("alpha", "beta", "gamma")
NAMES = {"alpha": ("Zqalphon", "제큐알폰"), "beta": ("Zqbetron", "제큐베트론"), "gamma": ("Zqgammix", "제큐감믹스")}
"""Of the three candidates' model families, Latin and Hangul; no such words anywhere else."""
FIGURES = {"alpha": (3_141_591, 2_718_281), "beta": (1_414_213, 1_732_051), "gamma": (2_236_067, 2_645_751)}
"""Prompt and completion tokens that each engine claims."""
FAILING = "질문 5"
"""Where it stands in a prompt, gamma refuses with an error that names it."""
TEXTS = {
    "alpha": "**첫째**, 금리는 오를 수 있습니다.\n\n- 예금\n- 대출",
    "beta": "금리는 내릴 수 있습니다. " * 40,
    "gamma": "## 요약\n\n| 가 | 나 |\n|---|---|\n| 1 | 2 |\n\n금리는 그대로일 수 있습니다.",
}
"""What remains of their answers, different in length and looks."""
PLAN: dict[str, Any] = {
    "name": f"{MARK}-round-name",
    "title": {"ko": "1차 심사", "en": "First round"},
    "models": [f"{MARK}-{letter}" for letter in LETTERS],
    "prompts": [
        {"id": f"{MARK}-p{n}", "text": f"질문 {n}. 금리는 어떻게 됩니까?", "stratum": f"{MARK}-stratum"}
        for n in range(9)
    ],
    "design": {"votes_per_reviewer": 6},
    "sampling": {"max_tokens": 64, "temperature": 0.123454321},
}
ALLOWED_HEADERS = {
    *HEADERS, "content-type", "content-length", "content-disposition", "location", "set-cookie", "x-request-id", "date",
    "server", "allow", "retry-after", "connection",
}  # fmt: skip
PLACES = re.compile(r"/review/(|\?ended=1|enter|receipt|items/[0-9a-f]{32}(\?plain=1)?|training/\d+)")
ANSWER = re.compile(r'(<div class="answer"[^>]*>)(.*)', re.DOTALL)


# --- engines ------------------------------------------------------------------------------------------------


def marked_engine(letter: str) -> ScriptedEngine:
    """Everything that it says of itself carries the mark."""
    engine = ScriptedEngine([f"{MARK}-served-{letter}"], owned_by=f"{MARK}-owner", root=f"{MARK}-root-{letter}")
    engine.script("/v1/chat/completions", lambda request: marked_reply(request, letter))
    engine.script("/version", Reply.json({"version": f"0.32.0+{MARK}"}))
    return engine


def marked_reply(request: Request, letter: str) -> Reply:
    asked = request.json()
    question = asked["messages"][-1]["content"]
    if letter == "gamma" and FAILING in question:
        body = error_body(f"{MARK} error of {letter}", type_=f"{MARK}Error", code=400, param=MARK)
        return Reply.json(body, status=400, headers=marked_headers(letter))
    latin, hangul = NAMES[letter]
    said = (
        f"저는 {hangul}입니다. I am {latin}, developed by {MARK}.\n\n{TEXTS[letter]}<|{MARK}_eot|>[|{MARK}endofturn|]"
    )
    prompt_tokens, completion_tokens = FIGURES[letter]
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        MARK: letter,
    }
    common = {
        "id": f"chatcmpl-{MARK}-{letter}",
        "object": "chat.completion.chunk",
        "created": 1_234_554_321,
        "model": f"{MARK}-served-{letter}",
        "system_fingerprint": f"{MARK}-fp-{letter}",
        "service_tier": f"{MARK}-tier",
        "kv_transfer_params": {MARK: letter},
    }

    def chunk(delta: Any, **choice: Any) -> bytes:
        whole = {"index": 0, "delta": delta, "logprobs": {MARK: letter}, "finish_reason": None, **choice}
        return event({**common, "choices": [whole]})

    return Reply(
        headers=marked_headers(letter),
        content_type="text/event-stream; charset=utf-8",
        framing="chunked",
        pieces=(
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning": f"{MARK} thinks as {latin}", "reasoning_content": f"{MARK} thinks"}),
            chunk({"content": said}),
            chunk({"content": ""}, finish_reason=f"{MARK}_stop", stop_reason=f"{MARK}_token"),
            event({**common, "choices": [], "usage": usage}),
            DONE,
        ),
    )


def marked_headers(letter: str) -> Sequence[tuple[str, str]]:
    return [
        ("x-request-id", f"{MARK}-request-{letter}"),
        ("server-timing", f"{MARK};dur=12345.4321"),
        (f"x-{MARK}", letter),
        ("set-cookie", f"{MARK}={letter}"),
    ]


# --- a round, and every byte that reached a reviewer -----------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """An answer as it came over the socket, and where the reviewer stood."""

    path: str
    stage: str
    answer: Answer

    @property
    def whole(self) -> str:
        """Headers and body as one text, and once more with HTML's escapes undone."""
        head = "\n".join(f"{name}: {value}" for name, value in self.answer.headers)
        body = self.answer.body.decode(errors="replace")
        return f"{head}\n{body}\n{unescape(body)}"


class Wiretap(ReviewerClient):
    """A reviewer's browser that forgets nothing."""

    def __init__(self, url: str, *, host: str | None = None) -> None:
        super().__init__(url, host=host)
        self.seen: list[Seen] = []
        self.stage = "outside"

    async def get(self, path: str, **headers: str) -> Answer:
        return self._kept(path, await super().get(path, **headers))

    async def post(self, path: str, fields: Any = (), **headers: str) -> Answer:
        return self._kept(path, await super().post(path, fields, **headers))

    async def save(self, item: str, judgement: Any, *, base: int, **headers: str) -> Answer:
        return self._kept(f"/review/items/{item}/judgement", await super().save(item, judgement, base=base, **headers))

    async def reconnect(self) -> None:
        """After an answer or a wait behind which the gateway closes the connection."""
        await self._client.__aexit__()
        await self._client.__aenter__()

    def _kept(self, path: str, answer: Answer) -> Answer:
        self.seen.append(Seen(path, self.stage, answer))
        return answer


@dataclass
class Blind:
    """A round that went all its way."""

    gateway: RunningGateway
    operator: RoundOperator
    round_id: str
    items: Sequence[RoundItem]
    taps: list[Wiretap] = field(default_factory=list)

    @property
    def seen(self) -> Iterator[Seen]:
        return (one for tap in self.taps for one in tap.seen)

    def pages(self, tap: Wiretap) -> dict[str, str]:
        """Each item's page by its id, as it was before anything was judged."""
        found: dict[str, str] = {}
        for one in tap.seen:
            name = one.path.removeprefix("/review/items/")
            if one.answer.status == 200 and len(name) == 32 and one.answer.body.startswith(b"<!DOCTYPE"):
                found.setdefault(name, one.answer.body.decode())
        return found


@asynccontextmanager
async def blind_round(directory: Path, reviewers: int = 4, *, host: str | None = None) -> AsyncIterator[Blind]:
    """From the plan to open. `host`: the name that reviewers have of their own."""
    async with AsyncExitStack() as stack:
        engines = {letter: await stack.enter_async_context(marked_engine(letter)) for letter in LETTERS}
        models = [
            entry(
                f"{MARK}-{letter}",
                engine.url,
                name=f"{NAMES[letter][0]} 7B",
                consortium=f"family-{n}",
                serving={"kind": "vllm", "served_model_name": f"{MARK}-served-{letter}"},
            )
            for n, (letter, engine) in enumerate(engines.items(), 1)
        ]
        families = [dict(one) for one in CONSORTIA]
        for n, letter in enumerate(LETTERS):
            families[n]["names"] = {"latin": [NAMES[letter][0]], "hangul": [NAMES[letter][1]], "company": []}
        sections = {"consortia": families, "sources": {"S": "A source"}}
        settings: dict[str, Any] = {"admin_key": ADMIN, "batch_retry_s": 0.01, "batch_attempts": 1}
        settings["review_url"] = f"http://{host}" if host else None
        gateway = await stack.enter_async_context(running_gateway(directory, models, sections=sections, **settings))
        await gateway.until_live(*PLAN["models"])
        operator = RoundOperator(gateway.url, ADMIN)
        round_id = await operator.draft(PLAN)
        kept = await operator.answers(round_id)
        assert (kept["kept"]["answers"], kept["kept"]["failed"]) == (27, 1)
        links = await operator.invite(round_id, reviewers, english=1)
        await operator.seal(round_id)
        blind = Blind(gateway, operator, round_id, await gateway.services.rounds.store.items(round_id))
        for link in links:
            tap = await stack.enter_async_context(Wiretap(gateway.url, host=host))
            blind.taps.append(tap)
            await walk_in(tap, link)
        await operator.step(round_id, "open")
        yield blind


async def walk_in(tap: Wiretap, link: str) -> None:
    await tap.get("/review/")
    await tap.get(f"/review/enter?link={link}")
    await tap.enter(link)


async def walk(blind: Blind, tap: Wiretap) -> None:
    """All that a reviewer sees, errors included, from consent to the questionnaire."""
    await tap.reconnect()
    tap.stage = "consent"
    await tap.get("/review/")
    await tap.post("/review/consent", {})
    agreed = {"no_conflict": "yes", "confidential": "yes", "consent": "yes"}
    page = await tap.get("/review/")
    language = "en" if b'<html lang="en"' in page.body else "ko"
    await tap.post("/review/consent", {**agreed, "language": language})
    tap.stage = "training"
    total = len((await blind.gateway.services.rounds.life.store.get(blind.round_id)).plan.training)  # type: ignore[union-attr]
    for number in range(1, total + 1):
        await tap.get(f"/review/training/{number}")
        await tap.post(f"/review/training/{number}", {"choice": "a"})
    await tap.post("/review/training/finish")
    tap.stage = "judging"
    queue = (await tap.get("/review/")).body.decode()
    for item in re.findall(r"/review/items/([0-9a-f]{32})\"><span", queue):
        await tap.get(f"/review/items/{item}")
        await tap.get(f"/review/items/{item}?plain=1")
        await tap.save(item, {"choice": "a", "grades": {}, "nonsense": 1}, base=0)
        assert (await tap.save(item, {"choice": "tie", "comment": "한글 의견"}, base=0)).status == 200
        await tap.save(item, {"choice": "b"}, base=0)
        await tap.post(f"/review/items/{item}", {"choice": "b", "base_revision": "7", "go": item})
    await strange_requests(blind, tap)
    await tap.post("/review/submit")
    await tap.post("/review/submit", {"sure": "yes"})
    tap.stage = "done"
    await tap.get("/review/receipt")
    await tap.get("/review/receipt.json")
    await tap.get("/review/questionnaire")
    await tap.post("/review/questionnaire", {"recognised": "nonsense"})
    await tap.post("/review/questionnaire", {"recognised": "none"})
    await tap.get("/review/receipt")


async def strange_requests(blind: Blind, tap: Wiretap) -> None:
    """What nobody sends by clicking."""
    somebody_elses = next(item for item in blind.items if f"/review/items/{item.id}" not in {s.path for s in tap.seen})
    for name in (somebody_elses.id, somebody_elses.left_id, PLAN["prompts"][0]["id"], "0" * 32, "..%2f..", "%00"):
        await tap.get(f"/review/items/{name}")
        await tap.save(name, {"choice": "a"}, base=0)
    for path in (
        "/review/none",
        "/review/static/none.js",
        "/review/training/99",
        "/review",
        "/review/leave",
        "/review/submit",
    ):
        await tap.get(path)
    await tap.post("/review/language", {"language": "xx"})
    await tap.post("/review/consent", {"form": "0" * 64})
    await tap.post("/review/submit", {}, origin="http://elsewhere.example")
    await tap.post("/review/enter", {"link": "nonsense", "form": ""})
    await tap.post(f"/review/items/{somebody_elses.id}", {"comment": "x" * 70_000})
    await tap.reconnect()


async def fetch_assets(tap: Wiretap) -> None:
    """Every file that any page names."""
    named = {path for one in tap.seen for path in re.findall(r'(?:href|src)="(/review/static/[^"]+)"', one.whole)}
    assert len(named) >= 3
    for path in sorted(named):
        assert (await tap.get(path)).status == 200


async def needles(blind: Blind) -> set[str]:
    """Everything that must reach nobody: what was marked, and what the gateway itself wrote down of the answers."""
    store = blind.gateway.services.rounds.store
    found = {MARK, *(name for pair in NAMES.values() for name in pair)}
    found |= {str(figure) for figures in FIGURES.values() for figure in (*figures, sum(figures))}
    found |= {"1234554321", "12345.4321", "0.123454321", "answer of the engine"}
    for answer in await store.answers(blind.round_id):
        found |= {name for name in (answer.call_id, answer.comparison_id, answer.provenance) if name is not None}
        found |= {repr(value) for value in timings(answer.facts) if len(repr(value)) > 6}
    found |= {name for item in blind.items for name in (item.left_id, item.right_id)}
    return found


def timings(facts: Any) -> Iterator[float]:
    """Every number with a fraction that was written down of an answer."""
    match facts:
        case float():
            yield facts
        case dict():
            for value in facts.values():
                yield from timings(value)
        case list() | tuple():
            for value in facts:
                yield from timings(value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One round for all tests of this file, walked to its end: what was seen stays when the gateway is gone."""
    directory = tmp_path_factory.mktemp("blind")

    async def go() -> tuple[Blind, set[str]]:
        async with blind_round(directory) as blind:
            for tap in blind.taps[:-1]:
                await walk(blind, tap)
            last = blind.taps[-1]
            await last.reconnect()
            await fetch_assets(last)
            for step in ("pause", "open"):
                await blind.operator.step(blind.round_id, step)
                last.stage = step
                await last.reconnect()
                await last.get("/review/")
            await walk(blind, last)
            await blind.operator.step(blind.round_id, "close")
            for tap in blind.taps:
                tap.stage = "closed"
                await tap.reconnect()
                await tap.get("/review/")
                await tap.get("/review/receipt")
            return blind, await needles(blind)

    return asyncio.run(go())


# --- what is held -------------------------------------------------------------------------------------------


def test_no_canary_reaches_a_reviewer(whole: tuple[Blind, set[str]]) -> None:
    blind, forbidden = whole
    seen = list(blind.seen)
    assert len(seen) > 200
    assert {one.stage for one in seen} >= {"outside", "consent", "training", "judging", "done", "pause", "closed"}
    words = sorted(word.lower() for word in forbidden)
    leaks = []
    for one in seen:
        text = one.whole.lower()
        leaks += [(one.stage, one.path, word) for word in words if word in text]
    assert leaks == []


def test_what_a_round_is_made_of_carried_the_canaries(whole: tuple[Blind, set[str]]) -> None:
    """Otherwise the search above would prove nothing."""
    blind, forbidden = whole
    assert len(forbidden) > 100
    texts = "".join(one.whole for one in blind.seen)
    assert "금리는 내릴 수 있습니다." in texts
    assert "가림" in texts


def test_answers_have_the_headers_that_are_allowed_and_no_others(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    for one in blind.seen:
        names = {name for name, _ in one.answer.headers}
        assert names <= ALLOWED_HEADERS, (one.path, names - ALLOWED_HEADERS)
        assert all(one.answer.header(name) == value for name, value in HEADERS.items()), one.path
        assert "content-encoding" not in names


def test_the_cookie_and_the_redirects_say_nothing_but_where_to_go(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    for one in blind.seen:
        if (place := one.answer.header("location")) is not None:
            assert re.fullmatch(
                r"/review/(|\?ended=1|enter|receipt|items/[0-9a-f]{32}(\?plain=1)?|training/\d+)", place
            )
        for name, value in one.answer.headers:
            if name == "set-cookie":
                assert re.match(r"simsa-review=[\w\"-]*;", value), value


def test_every_page_has_a_padded_size(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    pages = [one.answer for one in blind.seen if (one.answer.header("content-type") or "").startswith("text/html")]
    assert len(pages) > 100
    assert {len(page.body) % PAGE_BYTES for page in pages} == {0}


def test_both_sides_come_in_one_answer_and_differ_in_their_text_alone(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    for tap in blind.taps:
        pages = blind.pages(tap)
        assert len(pages) >= 7
        for page in pages.values():
            (a_head, a_text), (b_head, b_text) = sides(page)
            assert len(a_text.encode()) == len(b_text.encode())
            assert a_head.replace("answer-a", "answer-b").replace("side-a", "side-b") == b_head


def test_pages_of_items_differ_in_ids_numbers_and_texts_alone(whole: tuple[Blind, set[str]]) -> None:
    """Whatever the models, the kind of item and the side."""
    blind, _ = whole
    for tap in blind.taps:
        skeletons = {skeleton(page) for page in list(blind.pages(tap).values())[1:-1]}
        assert len(skeletons) == 1


def test_a_pair_with_its_sides_swapped_is_the_same_page_the_other_way_round(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    shown = {item: page for tap in blind.taps for item, page in blind.pages(tap).items()}
    votes = [item for item in blind.items if item.kind is ItemKind.VOTE and item.id in shown]
    swapped = [
        (one, other)
        for one, other in combinations(votes, 2)
        if (one.prompt_id, one.left, one.right) == (other.prompt_id, other.right, other.left)
    ]
    assert swapped
    for one, other in swapped:
        (_, a), (_, b) = sides(shown[one.id])
        (_, other_a), (_, other_b) = sides(shown[other.id])
        assert (a, b) == (other_b, other_a)


def test_ids_are_of_one_reviewer_one_item_and_one_slot(whole: tuple[Blind, set[str]]) -> None:
    blind, _ = whole
    queues = [set(blind.pages(tap)) for tap in blind.taps]
    for one, other in combinations(queues, 2):
        assert one.isdisjoint(other)
    ids = [name for item in blind.items for name in (item.id, item.left_id, item.right_id)]
    assert len(ids) == len(set(ids))
    by_pair: dict[tuple[str, str, str], list[RoundItem]] = {}
    for item in blind.items:
        by_pair.setdefault((item.prompt_id, item.left, item.right), []).append(item)
    assert any(len(found) > 1 for found in by_pair.values()), "some pair was judged twice, under ids of its own"


async def test_a_page_is_the_same_bytes_each_time_whoever_asks_again(tmp_path: Path) -> None:
    async with blind_round(tmp_path, reviewers=3) as blind:
        tap = blind.taps[0]
        await tap.get("/review/")
        await tap.post(
            "/review/consent", {"no_conflict": "yes", "confidential": "yes", "consent": "yes", "language": "ko"}
        )
        await tap.post("/review/training/finish")
        queue = (await tap.get("/review/")).body.decode()
        for item in re.findall(r"/review/items/([0-9a-f]{32})\"><span", queue):
            first, again = await tap.get(f"/review/items/{item}"), await tap.get(f"/review/items/{item}")
            assert first.body == again.body
            assert _steady(first) == _steady(again)


# --- the reviewers' own address -----------------------------------------------------------------------------

HOST = "review.example"
OTHERS_PLACES = (
    "/", "/metrics", "/docs", "/openapi.json", "/ready", "/v1/models", f"/v1/models/{MARK}-alpha",
    "/v1/chat/completions",
    "/v1/responses/resp_1", "/api/models", "/api/rounds", "/api/feasibility", "/api/comparisons",
    "/rounds", "/rounds/sign-in", "/rounds/static/rounds.css", "/static-offline-docs/swagger-ui.css", "/nothing",
    "/api/nothing", "/REVIEW/", "/reviews", "//review/", "/./metrics", "/%2fmetrics", "/health/", "/healthz",
    "/health%00", "/metrics?x=/review/", "/metrics%00", "/favicon.ico", "/robots.txt",
)  # fmt: skip
"""What is served elsewhere, and what is served nowhere; a name of a route that is added is found in the description."""


async def test_at_the_reviewers_address_everything_else_is_one_page_to_the_byte(tmp_path: Path) -> None:
    async with blind_round(tmp_path, reviewers=3, host=HOST) as blind, RawClient(blind.gateway.url) as client:
        key = ("authorization", f"Bearer {ADMIN}")
        described = [path.format_map(_Names(blind)) for path in blind.gateway.app.openapi()["paths"]]
        places = sorted({*OTHERS_PLACES, *described} - {"/health"})
        assert len(places) > 60
        nothing = await client.request("GET", "/review/none", headers=[("host", HOST)])
        assert (nothing.status, len(nothing.body)) == (404, PAGE_BYTES)
        for place in places:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
                answer = await client.request(method, place, headers=[("host", HOST), key])
                assert (answer.body, _steady(answer)) == (nothing.body, _steady(nothing)), (method, place)
            async with RawClient(blind.gateway.url) as other:  # an answer without a body ends with its head
                head = await other.start("HEAD", place, headers=[("host", HOST), key])
                assert _steady(Answer(*head, b"")) == _steady(nothing), place
        assert (await client.request("GET", "/health", headers=[("host", HOST)])).json() == {"status": "ok"}


async def test_no_canary_reaches_who_calls_the_reviewers_address_in_an_odd_way(tmp_path: Path) -> None:
    async with blind_round(tmp_path, reviewers=3, host=HOST) as blind:
        words = {word.lower() for word in await needles(blind)}
        own = blind.gateway.url.removeprefix("http://")
        for target, hosts in odd_ways(own):
            for place in ("/metrics", "/openapi.json", "/v1/models", "/api/rounds", "/docs", "/"):
                async with RawClient(blind.gateway.url) as client:
                    lines = [f"GET {target}{place} HTTP/1.1", *hosts, f"authorization: Bearer {ADMIN}"]
                    await client.send_raw(("\r\n".join(lines) + "\r\n\r\n").encode())
                    head = await client.head()
                    answer = Answer(head.status, head.headers, await client.rest())
                assert answer.status in (400, 404), (target, hosts, place)
                text = Seen(place, "outside", answer).whole.lower()
                assert not [word for word in words if word in text], (target, hosts, place)


def odd_ways(own: str) -> Iterator[tuple[str, Sequence[str]]]:
    """A target's beginning and header lines that name the reviewers' address somehow; `own`: another address."""
    for host in (
        HOST, HOST.upper(), f"{HOST}.", f"{HOST}:80", f"{HOST}.:8443", f"{HOST}:", f"  {HOST}  ", f"user@{HOST}",
        f"http://{HOST}/", f"{HOST}, {own}", f"{own},{HOST}", f"{HOST}/x", f"{HOST}%00", f"{HOST}\t",
    ):  # fmt: skip
        yield "", [f"Host: {host}"]
    yield "", [f"Host: {HOST}", f"Host: {own}"]
    yield "", [f"Host: {own}", f"hOsT: {HOST}"]
    yield f"http://{HOST}", [f"Host: {own}"]
    yield f"HTTP://{HOST.upper()}:443", [f"Host: {own}"]
    yield f"http://{own}", [f"Host: {HOST}"]
    yield "", [f"Host: {own}", f"X-Forwarded-Host: {HOST}"]
    yield "", [f"Host: {own}", f"X-Forwarded-Host: other.example, {HOST}:443"]
    yield "", [f"Host: {own}", f'Forwarded: for=192.0.2.1;host="{HOST}:443";proto=https']
    yield "", [f"Host: {HOST}", f"X-Forwarded-Host: {own}"]
    yield "", [f"Host: {HOST}", f"Forwarded: host={own}"]


async def test_a_round_at_the_reviewers_own_address_is_walked_to_its_end(tmp_path: Path) -> None:
    async with blind_round(tmp_path, reviewers=3, host=HOST) as blind:
        await walk(blind, blind.taps[0])
        words = {word.lower() for word in await needles(blind)}
        assert {"judging", "done"} <= {one.stage for one in blind.seen}
        assert not [(one.path, word) for one in blind.seen for word in words if word in one.whole.lower()]
        receipt = blind.taps[0].seen[-1].answer
        assert receipt.status == 200


class _Names(dict[str, str]):
    """Values for the placeholders of routes: what is there, where a route asks for it."""

    def __init__(self, blind: Blind) -> None:
        super().__init__(round_id=blind.round_id, model_id=f"{MARK}-alpha", model=f"{MARK}-alpha")

    def __missing__(self, name: str) -> str:
        return "x"


def _steady(answer: Answer) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if name not in ("date", "x-request-id")]


def sides(page: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Of A and B: everything before the answer's text, and that text with the spaces that make it as long."""
    start = page.index('<div class="sides">')
    blocks = page[start : page.index("<form", start)].split('<div class="side">')[1:]
    assert len(blocks) == 2
    found = []
    for block in blocks:
        opened = ANSWER.search(block)
        assert opened is not None
        head = re.sub(r'lang="\w\w"', "", block[: opened.end(1)]).replace("답변 A", "답변").replace("답변 B", "답변")
        head = head.replace("Answer A", "Answer").replace("Answer B", "Answer")
        found.append((head, opened[2].rsplit("</div>\n</div>", 1)[0].removesuffix("</div>\n")))
    return found[0], found[1]


def skeleton(page: str) -> str:
    """A page without the texts of prompt and sides, ids, numbers and padding."""
    (_, a), (_, b) = sides(page)
    bare = page.replace(a, "", 1).replace(b, "", 1) if a != b else page.replace(a, "")
    bare = re.sub(r'<div class="text" role="region"[^>]*>.*?</div>', "", bare, count=1, flags=re.DOTALL)
    return re.sub(r"[0-9a-f]{32}|\d+", "#", re.sub(r'lang="\w\w"', "", bare)).rstrip()
