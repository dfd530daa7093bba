"""The system's Chromium, driven by playwright, for tests of what a page does in a browser."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from guards import HANG_S
from playwright.async_api import Browser, async_playwright, expect

expect.set_options(timeout=1000 * HANG_S)
CHROMIUM = Path("/usr/bin/chromium")
MISSING = f"{CHROMIUM} is not on this machine; install the system's Chromium to try the pages in a browser"


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """A browser without a window. Skips where there is none, unless SIMSA_TEST_BROWSER=required."""
    if not CHROMIUM.exists():
        if os.environ.get("SIMSA_TEST_BROWSER") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()
