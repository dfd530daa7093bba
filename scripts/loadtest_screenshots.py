"""Writes docs/images/loadtest-report-verdicts-en.png from the page of `make loadtest-demo`, with the system's Chromium.

Look at what it wrote before it is committed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAGES = ROOT / "docs" / "examples" / "loadtest"
OUT = ROOT / "docs" / "images"
CLAIMS_ALIKE = "section[aria-labelledby=verdicts] .wide >> nth=0"


async def main() -> None:
    from browsers import running_browser

    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": 1180, "height": 900})
        await page.goto((PAGES / "report.en.html").as_uri())
        await page.locator(CLAIMS_ALIKE).screenshot(path=OUT / "loadtest-report-verdicts-en.png")


if __name__ == "__main__":
    asyncio.run(main())
