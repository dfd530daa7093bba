"""A chair's way through a round in a real browser: from the sign-in to the closed round, with a reviewer in between."""

from __future__ import annotations

from pathlib import Path

from browsers import running_browser
from gateways import running_gateway
from playwright.async_api import expect
from review_rounds import ENTRIES, REVIEWERS, SECTIONS, item_id, put_round
from reviewer_clients import ReviewerClient

from gateway.domain.rounds import RoundStatus


async def test_a_chair_opens_watches_and_closes_a_round(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS) as gateway, running_browser() as browser:
        put = await put_round(gateway.services.store, trained=True, status=RoundStatus.SEALED)
        context = await browser.new_context(locale="ko-KR")
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: None if gateway.url in asked.url else problems.append(asked.url))
        await page.goto(f"{gateway.url}/rounds/{put.id}")
        await page.get_by_role("button", name="관리자로 들어가기").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("1차 블라인드 심사")
        await page.get_by_role("button", name="심사 시작").click()
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        await page.get_by_role("button", name="심사 시작").click()
        await expect(page.get_by_role("status").first).to_have_text("회차를 열었습니다.")
        await expect(page.locator("[aria-current=step]")).to_contain_text("진행 중")
        async with ReviewerClient(gateway.url) as reviewer:
            await reviewer.enter(await put.token())
            await reviewer.save(item_id(REVIEWERS[0], 0), {"choice": "a"}, base=0)
        await page.reload()
        await expect(page.locator(".stratum progress")).to_have_attribute("value", "1")
        await page.get_by_role("button", name="회차 마감").click()
        await expect(page.get_by_text("되돌릴 수 없습니다")).to_be_visible()
        await page.get_by_role("link", name="취소").click()
        await page.get_by_role("button", name="회차 마감").click()
        await page.get_by_role("button", name="회차 마감").click()
        await expect(page.locator("[aria-current=step]")).to_contain_text("마감")
        await page.get_by_role("button", name="English").click()
        await expect(page.locator("html")).to_have_attribute("lang", "en")
        await expect(page.get_by_role("heading", level=2, name="What comes next")).to_be_visible()
        assert problems == []
