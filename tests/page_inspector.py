"""axe-core, and a look for sideways scrolling, on pages in a real browser: in light and dark, on a desk and a phone."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, ViewportSize

AXE = Path(__file__).parent.parent / ".browser" / "axe.min.js"
MISSING = f"{AXE} is not there; `make browser` fetches it"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
RUN = "async (rules) => (await axe.run(document, {runOnly: rules, resultTypes: ['violations']})).violations"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNFOLD = "for (const one of document.querySelectorAll('details')) one.open = true"


def axe_source() -> str:
    """Of axe-core, to be evaluated in a page, for the pages' own policy lets in no script from elsewhere.

    Skips where it is not there, unless SIMSA_TEST_BROWSER=required.
    """
    if not AXE.exists():
        if os.environ.get("SIMSA_TEST_BROWSER") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return AXE.read_text()


@dataclass(frozen=True, slots=True)
class View:
    """How a page is looked at."""

    scheme: Literal["light", "dark"]
    size: ViewportSize

    def __str__(self) -> str:
        return f"{self.scheme}, {self.size['width']} wide"


DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 320, "height": 640}
"""As narrow as WCAG 2.2 wants a page to be readable without scrolling sideways (1.4.10)."""
VIEWS = (View("light", DESK), View("dark", PHONE), View("dark", DESK), View("light", PHONE))


class Inspector:
    """Looks at each page that somebody comes to; `found` names page, rule and the elements at fault.

    The pages given show the same, each in a language of its own. With `views` each is looked at with everything on it
    unfolded, in one of them at a time: pages beside one another in views beside one another, and at the next look in
    the next, for axe-core is slow on large pages. Each must fit a phone.
    """

    def __init__(self, *pages: Page, views: Sequence[View] = ()) -> None:
        self.pages = pages
        self.found: list[str] = []
        self.looked_at: list[str] = []
        self._views = views
        self._axe = axe_source()

    async def each(self, act: Callable[[Page], Awaitable[Any]]) -> None:
        """Do something on every page."""
        for page in self.pages:
            await act(page)

    async def visit(self, url: str, name: str) -> None:
        await self.each(lambda page: page.goto(url))
        await self.look(name)

    async def look(self, name: str) -> None:
        for number, page in enumerate(self.pages):
            await page.evaluate(self._axe)
            if not self._views:
                await self._inspect(page, name)
                await self._fit(page, name)
                continue
            await page.evaluate(UNFOLD)
            view = self._views[(number + len(self.looked_at)) % len(self._views)]
            await page.emulate_media(color_scheme=view.scheme)
            await page.set_viewport_size(view.size)
            await self._inspect(page, f"{name}, page {number} ({view})")
            await page.set_viewport_size(PHONE)
            await self._fit(page, f"{name}, page {number}")
        self.looked_at.append(name)

    async def _inspect(self, page: Page, name: str) -> None:
        for violation in await page.evaluate(RUN, list(RULES)):
            targets = [node["target"] for node in violation["nodes"]][:3]
            self.found.append(f"{name}: {violation['id']}: {violation['help']} {targets}")

    async def _fit(self, page: Page, name: str) -> None:
        if (beyond := await page.evaluate(SIDEWAYS)) > 0:
            self.found.append(f"{name}: it is {beyond} pixels wider than the screen")
