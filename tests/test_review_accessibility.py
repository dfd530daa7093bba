"""axe-core on every page of the review, in light and dark, on a screen and on a phone: it finds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsers import running_browser
from gateways import running_gateway
from page_inspector import Inspector
from playwright.async_api import BrowserContext, Page
from review_rounds import ENTRIES, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round

from gateway.domain.rounds import RoundStatus
from gateway.rounds.links import link_path

SCREEN: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
ITEMS = [item_id(REVIEWERS[0], number) for number in range(4)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "language"), [(SCREEN, "ko"), (PHONE, "ko"), (SCREEN, "en")], ids=str)
async def test_axe_finds_nothing_on_any_page(
    tmp_path: Path, scheme: Any, device: dict[str, Any], language: str
) -> None:
    async with running_gateway(tmp_path, ENTRIES, sections=SECTIONS) as gateway, running_browser() as browser:
        put = await put_round(gateway.services.store, status=RoundStatus.SEALED, language=language)
        context = await browser.new_context(color_scheme=scheme, locale="ko-KR", **device)
        inspector = Inspector(await context.new_page())
        await walk(inspector, context, gateway.url, put)
        assert len(inspector.looked_at) >= 18
        assert inspector.found == []


async def walk(inspector: Inspector, context: BrowserContext, url: str, put: ReviewRound) -> None:
    """Every page there is, in each of its states."""
    page, look = inspector.pages[0], inspector.look
    await page.goto(f"{url}/review/enter")
    await look("entrance without a link")
    await page.goto(f"{url}/review/enter#no-link")
    await press(page)
    await look("refused link")
    await page.goto(f"{url}/review/items/{ITEMS[0]}")
    await look("no session")
    await page.goto(url + link_path(await put.token()))
    await look("entrance")
    await press(page)
    await look("not open yet")
    await put.move(RoundStatus.SEALED, RoundStatus.OPEN)
    await page.goto(f"{url}/review/")
    await look("consent")
    await page.locator("input[name=confidential]").check()
    await page.locator("input[name=consent]").check()
    await press(page)
    await look("consent with a problem")
    await page.locator("input[name=no_conflict]").check()
    await page.locator("input[name=confidential]").check()
    await page.locator("input[name=consent]").check()
    await press(page)
    await look("practice")
    await page.locator("#go-on").click()
    await look("practice without a choice")
    await page.locator("input[name=choice][value=a]").check()
    await page.locator("#go-on").click()
    await look("practice explained")
    await page.goto(f"{url}/review/training/2")
    await page.locator("input[name=choice][value=a]").check()
    await page.locator("#go-on").click()
    await press(page)
    await look("list")
    await judge(inspector, url)
    await page.goto(f"{url}/review/none")
    await look("not found")
    await put.move(RoundStatus.OPEN, RoundStatus.PAUSED)
    await page.goto(f"{url}/review/")
    await look("paused")
    await put.move(RoundStatus.PAUSED, RoundStatus.OPEN)
    await page.goto(f"{url}/review/")
    await look("list, all done")
    await page.locator("input[name=sure]").check()
    await press(page)
    await look("receipt")
    await page.goto(f"{url}/review/questionnaire")
    await page.locator("summary").first.click()
    await look("questionnaire")
    await page.locator("input[name=recognised]").first.check()
    await press(page)
    await look("done")
    await put.move(RoundStatus.OPEN, RoundStatus.CLOSED)
    await put.move(RoundStatus.CLOSED, RoundStatus.REVEALED)
    await page.goto(f"{url}/review/")
    await look("revealed")


async def judge(inspector: Inspector, url: str) -> None:
    page = inspector.pages[0]
    for number, item in enumerate(ITEMS):
        await page.goto(f"{url}/review/items/{item}")
        await inspector.look(f"item {number}")
        if number == 0:
            await page.keyboard.press("?")
            await inspector.look("shortcuts")
            await page.keyboard.press("Escape")
            await page.locator("input[name=choice][value=cannot_judge]").check()
            await page.locator("#reason").fill("판단할 근거가 부족함")
            await page.locator("h1").click()
            await page.locator("#state", has_text="저장됨").or_(page.locator("#state", has_text="Saved")).wait_for()
            await inspector.look("item that cannot be judged")
        else:
            async with page.expect_response("**/judgement"):
                await page.locator("input[name=choice][value=a]").check()
    await page.goto(f"{url}/review/items/{ITEMS[1]}?plain=1")
    await inspector.look("plain text")


async def press(page: Page) -> None:
    """The page's main button."""
    await page.locator("button.primary").first.click()
