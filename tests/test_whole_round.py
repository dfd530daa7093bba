"""A whole round as people live it: twelve reviewers in a browser, a gateway that is killed, a checked bundle.

The gateway is a process of its own before three simulated engines; chair and operator work by the command line, each
with a key of their own; reviewers click, type Hangul, lose their connection, use a phone, and one of them attacks.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from browsers import running_browser
from gateways import entry, registry_text
from playwright.async_api import Browser, BrowserContext, Page, expect
from processes_under_test import Ended, GatewayProcess, gateway_process, run_simsa
from review_rounds import SECTIONS
from servers import serve
from simulated_models import H100, LLAMA_8B, model_of

from gateway.processes import free_ports
from gateway.prompts import load_prompts
from gateway.simulator import create_engine

ADMIN = "admin-key-of-this-test"
MODELS = ("candidate-one", "candidate-two", "candidate-three")
REVIEWERS = 12
PROMPTS = 8
FASTER = 2000.0
GUARD_MS = 40_000
"""How long a page may take to show what it should. A guard, not a timing."""
HOSTILE_COMMENT = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e거꾸로\u200b\u200d&amp;' OR 1=1 --"
REFUSED: Sequence[Any] = (
    {"comment": "가" * 4_001},
    {"choice": "c"},
    {"grades": {"quality": 99}},
    {"comment": "\ud800"},
    {"x": 1},
)
"""What is no judgement."""
PLAN: dict[str, Any] = {
    "name": "first",
    "title": {"ko": "1차 블라인드 심사", "en": "First blind review"},
    "models": list(MODELS),
    "prompts": "prompts.jsonl",
    "design": {"votes_per_reviewer": 4},
    "sampling": {"max_tokens": 60, "temperature": 0.7},
    "cut": 1,
    "training": [
        {
            "id": "t1",
            "text": "1킬로미터는 몇 미터입니까?",
            "a": "1,000미터입니다.",
            "b": "100미터입니다.",
            "better": "a",
            "why": {"ko": "1킬로미터는 1,000미터입니다.", "en": "A kilometre is 1,000 metres."},
        }
    ],
}
Acknowledged = tuple[str, int, str]
"""Item, revision, choice."""
STORM = """
async (item) => {
  const form = document.querySelector('input[name=form]').value;
  const post = (choice, base) => fetch(`/review/items/${item}/judgement`, {
    method: 'POST', headers: {'content-type': 'application/json'},
    body: JSON.stringify({form, judgement: {choice}, base_revision: base}),
  });
  window.acknowledged = [];
  try {
    for (let base = Number(document.querySelector('input[name=base_revision]').value), n = 0; n < 100; n += 1) {
      const choice = n % 2 ? 'a' : 'b';
      const answer = await post(choice, base);
      if (!answer.ok) break;
      base = (await answer.json()).revision;
      window.acknowledged.push([item, base, choice]);
    }
  } catch { /* the gateway is gone */ }
  return window.acknowledged;
}
"""
"""Votes one after the other, as fast as they are acknowledged, until nobody answers."""
POST = """
async ([path, body, type]) => {
  const answer = await fetch(path, {method: 'POST', headers: {'content-type': type}, body});
  return [answer.status, await answer.text()];
}
"""


# --- who runs it --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    """Somebody at a terminal with a key of their own."""

    url: str
    key: str
    directory: Path
    setting: str = "key"
    """Where the command looks for the key."""

    async def simsa(self, *arguments: str | Path) -> Ended:
        return await run_simsa(*map(str, arguments), "--url", self.url, **{self.setting: self.key})

    async def did(self, *arguments: str | Path) -> Any:
        """What it printed; it must have done what it was asked."""
        ended = await self.simsa(*arguments)
        assert ended.code == 0, (arguments, ended)
        return json.loads(ended.out)


@contextmanager
def simulated_engines() -> Iterator[list[dict[str, Any]]]:
    """Entries of a registry for engines that run until the block ends."""
    with ExitStack() as stack:
        made = []
        for n, name in enumerate(MODELS, 1):
            app = create_engine(model_of(LLAMA_8B, model_id=name), H100, max_model_len=4096, speed=FASTER)
            made.append(entry(name, stack.enter_context(serve(app)), consortium=f"family-{n}"))
        yield made


@dataclass
class House:
    """Where the gateway lives: the same database, registry and address at each start."""

    directory: Path
    entries: Sequence[dict[str, Any]]
    port: int = field(default_factory=lambda: free_ports(1)[0])
    running: GatewayProcess = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[GatewayProcess]:
        registry = self.directory / "round-registry.yaml"
        registry.write_text(registry_text(self.entries, **SECTIONS))
        async with gateway_process(
            self.directory, self.entries, registry=registry, port=self.port, admin_key=ADMIN, batch_retry_s=0.05
        ) as gateway:
            self.running = gateway
            yield gateway

    async def person(self, name: str, role: str) -> Person:
        """A new key with one role, of an organisation of its own where there is none yet."""
        admin = Person(self.url, ADMIN, self.directory, "admin_key")
        await admin.simsa("org", "create", "panel")
        made = await admin.did("key", "create", "panel", "--name", name, "--role", role)
        return Person(self.url, made["secret"], self.directory)

    def write_plan(self) -> Path:
        """The plan as a chair writes it, its prompts in a file beside it."""
        chosen = load_prompts(language="ko")[:PROMPTS]
        lines = [{"set": "mine", "id": f"q{n}", "language": "ko", "industry": p.industry, "text": p.text}
                 for n, p in enumerate(chosen)]  # fmt: skip
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (self.directory / "prompts.jsonl").write_text(text)
        path = self.directory / "plan.yaml"
        path.write_text(yaml.safe_dump(PLAN, allow_unicode=True))
        return path

    def write_reviewers(self) -> Path:
        path = self.directory / "reviewers.csv"
        rows = [f"심사위원 {n + 1},{'expert' if n % 3 else 'user'},ko" for n in range(REVIEWERS)]
        path.write_text("label,stratum,language\n" + "\n".join(rows) + "\n", encoding="utf-8-sig")
        return path


# --- who judges ---------------------------------------------------------------------------------------------


@dataclass
class Seat:
    """A reviewer in a browser of their own."""

    number: int
    link: str
    context: BrowserContext
    page: Page
    problems: list[str]

    async def begin(self) -> None:
        """From the link to the list of items."""
        page = self.page
        await page.goto(self.link)
        await page.get_by_role("button", name="입장하기").click()
        for words in ("해당하는 컨소시엄이 없습니다.", "외부에 알리지 않겠습니다.", "분석에 쓰이는 데 동의합니다."):
            await page.get_by_text(words).click()
        await page.get_by_role("button", name="동의하고 계속하기").click()
        await page.locator("input[name=choice][value=a]").check()
        await page.get_by_role("button", name="설명 보기").click()
        await page.get_by_role("button", name="심사 시작하기").click()
        await expect(page.locator("ol.items")).to_be_visible()

    async def items(self) -> list[str]:
        """The ids of the queue, from the list."""
        links = await self.page.locator("ol.items a").all()
        return [str(await link.get_attribute("href")).rpartition("/")[2] for link in links]

    async def open_first(self) -> None:
        await self.page.get_by_role("link", name="시작하기", exact=True).click()
        await expect(self.page.locator("h1")).to_contain_text("심사 항목")

    async def saved(self) -> None:
        await expect(self.page.locator("#state")).to_have_text("저장됨")

    async def choose(self, choice: str) -> None:
        await self.page.locator(f"input[name=choice][value={choice}]").check()
        await self.saved()

    async def go_on(self) -> None:
        before = self.page.url
        await self.page.locator("#go-on").click()
        await self.page.wait_for_url(lambda url: url != before)

    async def judge_rest(self) -> None:
        """Every item from the one on the page to the list, by clicks, with opinions that differ by reviewer."""
        at = self.number
        while "/review/items/" in self.page.url:
            await self.choose(("a", "b", "tie", "a", "both_bad")[at % 5])
            if at % 3 == 0:
                await self.page.locator("fieldset.grade input[value='-1']").first.check()
                await self.saved()
            at += 1
            await self.go_on()

    async def submit(self) -> Any:
        """The receipt, as the reviewer downloads it."""
        await self.page.get_by_text("심사를 마쳤으며").click()
        await self.page.get_by_role("button", name="제출").click()
        await expect(self.page.locator("h1")).to_contain_text("제출되었습니다")
        async with self.page.expect_download() as download:
            await self.page.get_by_role("link", name="접수증 내려받기").click()
        return json.loads(Path(await (await download.value).path()).read_text())

    async def answer_questionnaire(self) -> None:
        await self.page.get_by_role("link", name="설문 시작하기").click()
        await self.page.get_by_text("없음", exact=True).click()
        await self.page.get_by_role("button", name="보내기").click()
        await expect(self.page.get_by_text("모든 절차가 끝났습니다")).to_be_visible()

    async def post(self, path: str, body: Any, *, form: str | None = None) -> tuple[int, str]:
        """What the page's own script could send."""
        token = form if form is not None else await self.page.locator("input[name=form]").first.input_value()
        sent = json.dumps({"form": token, **body})
        status, text = await self.page.evaluate(POST, [path, sent, "application/json"])
        return status, text


@asynccontextmanager
async def seated(browser: Browser, number: int, link: str, **options: Any) -> AsyncIterator[Seat]:
    context = await browser.new_context(locale="ko-KR", **options)
    page = await context.new_page()
    seat = Seat(number, link, context, page, [])
    origin = link.partition("/review")[0]
    page.on("pageerror", lambda error: seat.problems.append(str(error)))
    page.on("dialog", lambda dialog: seat.problems.append(dialog.message))
    page.on("request", lambda asked: None if asked.url.startswith(origin) else seat.problems.append(asked.url))
    try:
        yield seat
        assert seat.problems == []
    finally:
        await context.close()


async def plain_review(seat: Seat) -> None:
    await seat.open_first()
    await seat.judge_rest()


async def review_with_hangul(seat: Seat) -> None:
    """Composes a comment: Enter while a syllable is composed neither goes on nor loses it."""
    await seat.open_first()
    page = seat.page
    await seat.choose("a")
    ime = await seat.context.new_cdp_session(page)
    await page.locator("textarea[name=comment]").click()
    here = page.url
    for syllable in ("ㅎ", "하", "한"):
        await ime.send("Input.imeSetComposition", {"text": syllable, "selectionStart": 1, "selectionEnd": 1})
    composed = {"key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229}
    await ime.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **composed})
    await ime.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **composed, "modifiers": 2})
    assert page.url == here
    await ime.send("Input.insertText", {"text": "한글 의견입니다"})
    await page.keyboard.press("Control+Enter")
    await page.wait_for_url(lambda url: url != here)
    await page.goto(here)
    assert await page.locator("textarea[name=comment]").input_value() == "한글 의견입니다"
    await seat.judge_rest()


async def review_with_a_lost_connection(seat: Seat) -> None:
    await seat.open_first()
    await seat.choose("a")
    await seat.context.set_offline(True)
    await seat.page.locator("input[name=choice][value=b]").check()
    await expect(seat.page.locator("#state")).to_contain_text("오프라인")
    await seat.page.locator("#go-on").click()
    await expect(seat.page.locator("#state")).to_contain_text("다음 항목으로 넘어갑니다")
    await seat.context.set_offline(False)
    await seat.saved()
    assert await seat.page.locator("input[name=choice][value=b]").is_checked()
    await seat.judge_rest()


async def hostile_review(seat: Seat, others: Sequence[str]) -> None:
    """Every attack is refused, and leaves the votes of everybody as they were."""
    own = (await seat.items())[0]
    path = f"/review/items/{own}/judgement"
    await seat.open_first()
    for item in others:
        status, text = await seat.post(
            f"/review/items/{item}/judgement", {"judgement": {"choice": "a"}, "base_revision": 0}
        )
        assert (status, json.loads(text)["error"]["code"]) == (404, "not_found")
    assert (await seat.post(path, {"judgement": {"choice": "a"}, "base_revision": 0}, form="0" * 64))[0] == 403
    first = await seat.post(path, {"judgement": {"choice": "a", "comment": HOSTILE_COMMENT}, "base_revision": 0})
    again = await seat.post(path, {"judgement": {"choice": "a", "comment": HOSTILE_COMMENT}, "base_revision": 0})
    assert first == again, "said again it is no new revision"
    kept = json.loads(first[1])
    assert (first[0], kept["revision"], kept["complete"]) == (200, 1, True)
    assert (await seat.post(path, {"judgement": {"choice": "b"}, "base_revision": 0}))[0] == 409
    for judgement in (
        {"comment": "가" * 4_001},
        {"choice": "c"},
        {"grades": {"quality": 99}},
        {"comment": "\ud800"},
        {"x": 1},
    ):
        assert (await seat.post(path, {"judgement": judgement, "base_revision": 1}))[0] == 400
    await seat.page.reload()
    assert await seat.page.locator("textarea[name=comment]").input_value() == HOSTILE_COMMENT
    await seat.judge_rest()


# --- the round ----------------------------------------------------------------------------------------------


async def test_a_whole_round_from_the_plan_to_the_verified_bundle(tmp_path: Path) -> None:
    expect.set_options(timeout=GUARD_MS)
    with simulated_engines() as entries:
        house = House(tmp_path, entries)
        async with running_browser() as browser:
            async with house.gateway():
                chair, operator = await house.person("chair", "chair"), await house.person("operator", "operator")
                root, links = await sealed_round(house, chair, operator)
                acknowledged = await votes_until_killed(browser, house, links[:2])
            async with house.gateway():
                assert await kept_of(house, acknowledged) == acknowledged
                receipts = await everybody_judges(browser, links)
                published = await closed_and_revealed(chair, operator)
                assert published["root"] == root
                await bundles_hold(tmp_path, chair, published, receipts)


async def sealed_round(house: House, chair: Person, operator: Person) -> tuple[str, list[str]]:
    """Open for reviewers; the published root, and the links."""
    drafted = await chair.did("round", "create", house.write_plan())
    assert drafted["status"] == "draft"
    await chair.did("round", "invite", "first", house.write_reviewers(), "--out", house.directory / "links.csv")
    kept = await operator.did("round", "generate", "first")
    assert (kept["kept"]["answers"], kept["kept"]["failed"]) == (PROMPTS * len(MODELS), 0)
    assert (await chair.did("round", "dry-run", "first"))["dry_run"]["passed"]
    sealed = await chair.did("round", "seal", "first")
    assert sealed["provenance"] == "simulated"
    await chair.did("round", "open", "first")
    rows = (house.directory / "links.csv").read_text(encoding="utf-8-sig").splitlines()[1:]
    links = [row.split(",")[2] for row in rows]
    assert len(set(links)) == REVIEWERS
    return sealed["root"], links


async def votes_until_killed(browser: Browser, house: House, links: Sequence[str]) -> list[Acknowledged]:
    """Two reviewers vote without a pause; the gateway is killed amid it. What it had acknowledged to them."""
    async with seated(browser, 0, links[0]) as one, seated(browser, 1, links[1]) as other:
        storms = []
        for seat in (one, other):
            await seat.begin()
            item = (await seat.items())[0]
            await seat.open_first()
            storms.append(asyncio.create_task(seat.page.evaluate(STORM, item)))
        for seat in (one, other):
            await seat.page.wait_for_function("() => window.acknowledged && window.acknowledged.length >= 5")
        house.running.send(signal.SIGKILL)
        found = [tuple(each) for storm in storms for each in await storm]
        assert len(found) >= 10
        return sorted(found)


async def kept_of(house: House, acknowledged: Sequence[Acknowledged]) -> list[Acknowledged]:
    """Those of them that are in the database, read from the file as any other program would."""
    file = house.directory / "data" / "simsa.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT item, revision, judgement FROM round_votes").fetchall()
    kept = {(item, revision, json.loads(said)["choice"]) for item, revision, said in rows}
    return sorted(kept & set(acknowledged))


async def everybody_judges(browser: Browser, links: Sequence[str]) -> list[Any]:
    """All receipts, two reviewers at a time; one of them on a phone, one offline for a while, one hostile."""
    two = asyncio.Semaphore(2)
    foreign: list[str] = []

    async def one(number: int, link: str) -> Any:
        phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        async with two, seated(browser, number, link, **(phone if number == 4 else {})) as seat:
            if number < 2:  # they had begun before the gateway died
                await seat.page.goto(link)
                await seat.page.get_by_role("button", name="입장하기").click()
                await seat.page.get_by_role("link", name="이어서 심사하기").click()
                await seat.judge_rest()
            else:
                await seat.begin()
                foreign.extend((await seat.items())[:1])
                match number:
                    case 3:
                        await review_with_hangul(seat)
                    case 5:
                        await review_with_a_lost_connection(seat)
                    case 11:
                        await hostile_review(seat, foreign[:3])
                    case _:
                        await plain_review(seat)
            last = seat.page.locator("ol.items a").first
            item = str(await last.get_attribute("href")).rpartition("/")[2]
            receipt = await seat.submit()
            late = {"judgement": {"choice": "a"}, "base_revision": 1}
            assert (await seat.post(f"/review/items/{item}/judgement", late))[0] == 409
            if number % 4 == 0:
                await seat.answer_questionnaire()
            return receipt

    return list(await asyncio.gather(*(one(number, link) for number, link in enumerate(links))))


async def closed_and_revealed(chair: Person, operator: Person) -> Any:
    """What is published of the round."""
    progress = await chair.did("round", "progress", "first")
    assert {row["state"] for row in progress["reviewers"]} <= {"submitted", "done"}
    closed = await chair.did("round", "close", "first")
    assert len(closed["head"]) == len(closed["closing"]) == 64
    alone = await chair.simsa("round", "reveal", "first")
    assert (alone.code, json.loads(alone.out)["status"]) == (1, "closed")
    assert "operator" in alone.err
    assert (await operator.did("round", "reveal", "first"))["status"] == "revealed"
    result = await chair.did("round", "results", "first")
    assert result["is_ranking"] is False
    return closed


async def bundles_hold(directory: Path, chair: Person, published: Any, receipts: Sequence[Any]) -> None:
    """Both bundles are what was published; changed ones are found out."""
    shown = ("--root", published["root"], "--head", published["head"], "--closing", published["closing"])
    for kind in ("audit", "public"):
        bundle = directory / f"{kind}.zip"
        made = await chair.did("round", "export", "first", "--out", bundle, "--kind", kind)
        verified = await run_simsa("round", "verify", str(bundle), *shown, "--bundle", made["bundle_root"], "--json")
        assert verified.code == 0, verified
        assert json.loads(verified.out)["verdict"] == "authenticated"
    for number, receipt in enumerate(receipts):
        path = directory / f"receipt-{number}.json"
        path.write_text(json.dumps(receipt))
        if number in (0, 4, 11):
            held = await run_simsa("round", "verify", str(bundle), *shown, "--receipt", str(path), "--json")
            assert held.code == 0, held
    tampered = directory / "tampered.zip"
    with zipfile.ZipFile(directory / "audit.zip") as before, zipfile.ZipFile(tampered, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "votes.jsonl":
                content = content.replace(b'"choice":"a"', b'"choice":"b"', 1)
            after.writestr(name, content)
    found = await run_simsa("round", "verify", str(tampered), *shown, "--json")
    assert (found.code, json.loads(found.out)["verdict"]) == (1, "broken")
    text = zipfile.ZipFile(directory / "public.zip").read("votes.jsonl").decode()
    assert "한글 의견입니다" not in text
    assert "심사위원" not in "".join(
        zipfile.ZipFile(directory / "public.zip").read(name).decode(errors="replace")
        for name in zipfile.ZipFile(directory / "public.zip").namelist()
        if name.endswith((".json", ".jsonl", ".csv"))
    )
