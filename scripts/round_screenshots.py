"""Writes docs/images/review-*.png: what reviewers see, for the guides. Needs the system's Chromium (`make browser`).

The round, its answers and its reviewer are those of the tests of pages. Look at what it wrote before it is committed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
OUT = ROOT / "docs" / "images"


async def main() -> None:
    from browsers import running_browser
    from gateways import running_gateway
    from review_rounds import ENTRIES, REVIEWERS, SECTIONS, item_id, put_round

    from gateway.rounds.links import link_path

    OUT.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as directory:
        async with (
            running_gateway(Path(directory), ENTRIES, sections=SECTIONS) as gateway,
            running_browser() as browser,
        ):
            put = await put_round(gateway.services.store, trained=True)
            context = await browser.new_context(locale="ko-KR", viewport={"width": 1200, "height": 1330})
            page = await context.new_page()
            await page.goto(gateway.url + link_path(await put.token()))
            await page.get_by_role("button", name="입장하기").click()
            items = [item_id(REVIEWERS[0], n) for n in range(4)]
            await page.goto(f"{gateway.url}/review/items/{items[0]}")
            await page.locator("input[name='grade.quality'][value='-1']").check()
            async with page.expect_response("**/judgement"):
                await page.keyboard.press("1")
            await page.locator("#state", has_text="저장됨").wait_for()
            await page.locator("h1").focus()
            await page.screenshot(path=OUT / "review-item.png")
            for item in items[1:]:
                await page.goto(f"{gateway.url}/review/items/{item}")
                async with page.expect_response("**/judgement"):
                    await page.keyboard.press("2")
            await page.goto(f"{gateway.url}/review/")
            await page.set_viewport_size({"width": 900, "height": 600})
            await page.screenshot(path=OUT / "review-list.png", full_page=True)
            phone = await browser.new_context(
                locale="ko-KR", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True,
                storage_state=await context.storage_state(),
            )  # fmt: skip
            small = await phone.new_page()
            await small.goto(f"{gateway.url}/review/items/{items[0]}")
            await small.screenshot(path=OUT / "review-phone.png")
            await page.get_by_text("심사를 마쳤으며").click()
            await page.get_by_role("button", name="제출").click()
            await page.get_by_role("heading", level=1).wait_for()
            await page.screenshot(path=OUT / "review-receipt.png", full_page=True)
            await page.goto(f"{gateway.url}/review/questionnaire")
            await page.screenshot(path=OUT / "review-questionnaire.png")


if __name__ == "__main__":
    asyncio.run(main())
