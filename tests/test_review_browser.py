"""A reviewer's way through a round in a real browser: in Korean, by keyboard, through a lost connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browsers import running_browser
from gateways import RunningGateway, running_gateway
from playwright.async_api import BrowserContext, Page, expect
from review_rounds import ENTRIES, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round

from gateway.rounds.links import link_path

FIRST, SECOND, THIRD, ATTENTION = (item_id(REVIEWERS[0], n) for n in range(4))


@dataclass
class Desk:
    """A reviewer at their screen. `problems`: what the page complained of, or asked another host for."""

    gateway: RunningGateway
    round: ReviewRound
    context: BrowserContext
    page: Page
    problems: list[str]

    async def enter(self) -> None:
        await self.page.goto(self.gateway.url + link_path(await self.round.token()))
        await self.page.get_by_role("button", name="입장하기").click()

    async def open(self, item: str) -> None:
        await self.page.goto(f"{self.gateway.url}/review/items/{item}")

    async def votes(self) -> list[Any]:
        return await self.round.store.votes(self.round.id)

    async def saved(self) -> None:
        await expect(self.page.locator("#state")).to_have_text("저장됨")


@asynccontextmanager
async def desk(directory: Path, *, trained: bool = True, **options: Any) -> AsyncIterator[Desk]:
    async with running_gateway(directory, ENTRIES, sections=SECTIONS) as gateway, running_browser() as browser:
        put = await put_round(gateway.services.store, trained=trained)
        context = await browser.new_context(locale="ko-KR", **options)
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: None if gateway.url in asked.url else problems.append(asked.url))
        yield Desk(gateway, put, context, page, problems)
        assert problems == []


async def test_a_reviewer_goes_from_the_link_to_the_receipt(tmp_path: Path) -> None:
    async with desk(tmp_path, trained=False) as it:
        page = it.page
        await it.enter()
        assert "#" not in page.url
        await expect(page.get_by_role("heading", level=1)).to_have_text("심사를 시작하기 전에")
        for words in ("해당하는 컨소시엄이 없습니다.", "외부에 알리지 않겠습니다.", "분석에 쓰이는 데 동의합니다."):
            await page.get_by_text(words).click()
        await page.get_by_role("button", name="동의하고 계속하기").click()
        await page.locator("input[name=choice][value=a]").check()
        await page.get_by_role("button", name="설명 보기").click()
        await expect(page.get_by_text("저희 판단과 같습니다.")).to_be_visible()
        await page.get_by_role("link", name="다음 연습으로").click()
        await page.locator("input[name=choice][value=a]").check()
        await page.get_by_role("button", name="설명 보기").click()
        await expect(page.get_by_text("저희는 다르게 보았습니다.")).to_be_visible()
        await page.get_by_role("button", name="심사 시작하기").click()
        await page.get_by_role("link", name="시작하기", exact=True).click()
        for number, key in enumerate("1234", 1):
            await expect(page.get_by_role("heading", level=1)).to_contain_text(f"심사 항목 {number}")
            await expect(page.get_by_role("heading", level=1)).to_be_focused()
            await page.wait_for_load_state()  # the heading has the focus before there is a script to hear the key
            await page.keyboard.press(key)
            await it.saved()
            await page.keyboard.press("j")
        await expect(page.get_by_role("heading", level=1)).to_have_text("항목 목록")
        await page.get_by_text("심사를 마쳤으며").click()
        await page.get_by_role("button", name="제출").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("제출되었습니다")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="접수증 내려받기").click()
        votes = await it.votes()
        assert votes[-1].hash in Path(await (await download.value).path()).read_text()
        assert [vote.judgement["choice"] for vote in votes] == ["a", "b", "tie", "both_bad"]
        await page.get_by_role("link", name="설문 시작하기").click()
        await page.get_by_text("없음", exact=True).click()
        await page.get_by_role("button", name="보내기").click()
        await expect(page.get_by_text("모든 절차가 끝났습니다")).to_be_visible()


async def test_each_field_is_saved_as_it_is_filled_in(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        await it.page.locator("input[name='grade.quality'][value='-1']").check()
        await it.saved()
        await it.page.locator("input[name=recognised]").check()
        await it.saved()
        await it.page.locator("textarea[name=comment]").fill("표가 보기 좋음")
        await it.page.locator("h1").click()
        await expect(it.page.locator("#state")).to_have_text("저장됨")
        await it.page.reload()
        assert await it.page.locator("input[name='grade.quality'][value='-1']").is_checked()
        assert await it.page.locator("textarea[name=comment]").input_value() == "표가 보기 좋음"
        said = (await it.votes())[-1].judgement
        assert (said["grades"], said["recognised"], said["comment"]) == ({"quality": -1}, True, "표가 보기 좋음")


async def test_keys_while_hangul_is_composed_neither_choose_nor_send_nor_lose_a_syllable(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        ime = await it.context.new_cdp_session(it.page)
        comment = it.page.locator("textarea[name=comment]")
        await comment.click()
        await ime.send("Input.imeSetComposition", {"text": "하", "selectionStart": 1, "selectionEnd": 1})
        await ime.send("Input.imeSetComposition", {"text": "한", "selectionStart": 1, "selectionEnd": 1})
        composed = {"key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229}
        await ime.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **composed})
        await ime.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **composed, "modifiers": 2})
        await it.page.evaluate(
            "() => document.activeElement.dispatchEvent(new KeyboardEvent('keydown',"
            " {key: 'Enter', ctrlKey: true, isComposing: true, bubbles: true, cancelable: true}))"
        )
        assert FIRST in it.page.url
        assert await it.votes() == []
        await ime.send("Input.insertText", {"text": "한글"})
        await it.page.keyboard.press("Enter")
        await it.page.keyboard.type("1j?")
        await it.page.keyboard.press("Control+Enter")
        await it.page.wait_for_url(f"**/review/items/{SECOND}")
        (vote,) = (await it.votes())[-1:]
        assert vote.judgement["comment"] == "한글\n1j?"
        assert "choice" not in vote.judgement


async def test_judging_goes_on_without_a_connection_and_is_saved_once_there_is_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        await it.page.keyboard.press("1")
        await it.saved()
        await it.context.set_offline(True)
        await it.page.keyboard.press("2")
        await expect(it.page.locator("#state")).to_contain_text("오프라인")
        await it.page.keyboard.press("3")
        await it.page.keyboard.press("j")
        await expect(it.page.locator("#state")).to_contain_text("다음 항목으로 넘어갑니다")
        assert FIRST in it.page.url
        stored = await it.page.evaluate("() => JSON.stringify(localStorage)")
        assert FIRST in stored
        assert "변동금리" not in stored
        await it.context.set_offline(False)
        await it.saved()
        votes = await it.votes()
        assert [vote.judgement["choice"] for vote in votes] == ["a", "tie"]
        assert FIRST not in await it.page.evaluate("() => JSON.stringify(localStorage)")


async def test_what_could_not_be_sent_is_sent_by_the_next_page(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        await it.page.route("**/judgement", lambda route: route.abort())
        await it.page.keyboard.press("2")
        await expect(it.page.locator("#state")).to_contain_text("오프라인")
        await it.page.unroute("**/judgement")
        async with it.page.expect_response("**/judgement"):
            await it.open(SECOND)
        assert [(vote.item, vote.judgement["choice"]) for vote in await it.votes()] == [(FIRST, "b")]


async def test_what_was_kept_on_the_device_is_not_thrown_away_where_another_judgement_came_since(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        await it.page.route("**/judgement", lambda route: route.abort())
        await it.page.keyboard.press("2")
        await expect(it.page.locator("#state")).to_contain_text("오프라인")
        kept = await it.page.evaluate("() => JSON.stringify(localStorage)")
        await it.page.evaluate("() => localStorage.clear()")
        await it.page.unroute("**/judgement")
        await it.page.keyboard.press("1")
        await it.saved()
        await it.page.evaluate("(kept) => Object.assign(localStorage, JSON.parse(kept))", kept)
        await it.open(SECOND)
        await it.page.locator(f"#state a[href='/review/items/{FIRST}']").click()
        await expect(it.page.locator("#state")).to_contain_text("다른 창에서 바뀌었습니다")
        assert await it.page.locator("input[name=choice][value=b]").is_checked()
        assert [vote.judgement["choice"] for vote in await it.votes()] == ["a"]
        await it.page.keyboard.press("4")
        await it.saved()
        assert len(await it.votes()) == 2


async def test_an_answer_that_was_lost_is_not_taken_for_another_window(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)

        async def lose(route: Any) -> None:
            await route.fetch()
            await route.abort()

        await it.page.route("**/judgement", lose, times=1)
        await it.page.keyboard.press("1")
        await expect(it.page.locator("#state")).to_contain_text("오프라인")
        await it.page.keyboard.press("2")
        await it.saved()
        assert [vote.judgement["choice"] for vote in await it.votes()] == ["a", "b"]


async def test_a_judgement_of_another_window_is_not_overwritten_unseen(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        other = await it.context.new_page()
        await other.goto(it.page.url)
        await other.keyboard.press("1")
        await expect(other.locator("#state")).to_have_text("저장됨")
        await it.page.keyboard.press("4")
        await expect(it.page.locator("#state")).to_contain_text("다른 창에서 바뀌었습니다")
        assert [vote.judgement["choice"] for vote in await it.votes()] == ["a"]
        await it.page.reload()
        assert await it.page.locator("input[name=choice][value=a]").is_checked()


async def test_shortcuts_are_listed_and_can_be_switched_off(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.enter()
        await it.open(FIRST)
        await it.page.keyboard.press("?")
        await expect(it.page.get_by_role("dialog")).to_be_visible()
        await it.page.get_by_text("한 글자 단축키 사용").click()
        await it.page.keyboard.press("Escape")
        await it.page.keyboard.press("1")
        await it.page.keyboard.press("j")
        assert FIRST in it.page.url
        assert await it.page.locator("input[name=choice]:checked").count() == 0
        await it.page.reload()
        await it.page.keyboard.press("1")
        assert await it.page.locator("input[name=choice]:checked").count() == 0
        await it.page.keyboard.press("Control+Enter")
        await it.page.wait_for_url(f"**/review/items/{SECOND}")


@pytest.mark.parametrize("has_script", [True, False])
async def test_enter_on_a_choice_does_not_go_on(tmp_path: Path, has_script: bool) -> None:
    async with desk(tmp_path, java_script_enabled=has_script) as it:
        await it.page.goto(f"{it.gateway.url}/review/enter?link={await it.round.token()}")
        await it.page.get_by_role("button", name="입장하기").click()
        await it.open(FIRST)
        await it.page.locator("input[name=choice][value=a]").check()
        await it.page.keyboard.press("Enter")
        await expect(it.page.locator("#state")).to_have_text("저장됨")
        assert FIRST in it.page.url
        await it.page.get_by_role("button", name="저장하고 다음").click()
        await it.page.wait_for_url(f"**/review/items/{SECOND}")
        assert [vote.item for vote in await it.votes()] == [FIRST]


async def test_long_answers_scroll_by_keyboard_and_together(tmp_path: Path) -> None:
    async with desk(tmp_path, viewport={"width": 800, "height": 240}) as it:
        await it.enter()
        await it.open(FIRST)
        a, b = it.page.locator("#answer-a"), it.page.locator("#answer-b")
        await a.focus()
        await it.page.keyboard.press("End")
        await it.page.wait_for_function("() => document.getElementById('answer-b').scrollTop > 0")
        await it.page.locator("#sync").uncheck()
        await a.evaluate("side => (side.scrollTop = 0)")
        await it.page.wait_for_function("() => document.getElementById('answer-a').scrollTop === 0")
        assert await b.evaluate("side => side.scrollTop") > 0
