"""Writes docs/images/rounds-*.png and round-report-*.png: what those who run rounds see, for the guides.

Needs the system's Chromium (`make browser`). The round is that of `scripts.round_example`, half judged, on a gateway of
its own; the report is the one in docs/examples. Look at what it wrote before it is committed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from playwright.async_api import Browser, ViewportSize

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
OUT = ROOT / "docs" / "images"
EXAMPLES = ROOT / "docs" / "examples" / "round"
NOW = datetime.now(UTC)
REVIEWERS = 9
PLANNED = "/rounds/planner?models=10&reviewers=49&prompts=120&votes=40&ties=10"


@dataclass(frozen=True, slots=True)
class Picture:
    """`path` leads on from the gateway, or names a file; `step`: whose button is pressed first."""

    name: str
    path: str
    size: ViewportSize
    language: Literal["ko", "en"] = "ko"
    scheme: Literal["light", "dark"] = "light"
    step: str | None = None


def size(width: int, height: int) -> ViewportSize:
    return {"width": width, "height": height}


def pictures(round_id: str) -> Sequence[Picture]:
    one = f"/rounds/{round_id}"
    korean, english = ((EXAMPLES / f"report.{language}.html").as_uri() for language in ("ko", "en"))
    return (
        Picture("rounds-one", one, size(1100, 1230)),
        Picture("rounds-phone", one, size(390, 844)),
        Picture("rounds-confirm", one, size(900, 400), step="close"),
        Picture("rounds-planner", PLANNED, size(1100, 1060)),
        Picture("round-report-ko", korean, size(1000, 1000)),
        Picture("round-report-phone-ko", f"{korean}#standing", size(390, 1200)),
        Picture("round-report-dark-en", f"{english}#standing", size(1000, 1200), "en", "dark"),
    )


async def put_example(store: Any, organisation: str) -> str:
    """The made-up round, open: three reviewers are done, the others on their way, the last is not there yet; its id."""
    from gateway.domain.rounds import RoundStatus, VoteEntry
    from scripts.round_example import made_round

    made = made_round(models=6, reviewers=REVIEWERS, prompts=60, votes_each=30, cut=3)
    blank: dict[str, Any] = dict.fromkeys(
        ("seed", "root", "head", "sealed_at", "opened_at", "closed_at", "revealed_at")
    )
    draft = replace(made.round, **blank, organisation=organisation, votes=0, status=RoundStatus.DRAFT)
    await store.create(replace(draft, created_at=NOW - timedelta(days=9)), {"links": "00"})
    await store.save_answers(draft.id, made.stored_answers)
    people = [replace(one, label=f"심사위원 {n}") for n, one in enumerate(made.people, start=1)]
    await store.add_reviewers(draft.id, people)
    fixed = {"root": made.round.root, "sealed_at": NOW - timedelta(days=4)}
    await store.seal(draft.id, items=made.items, documents=made.documents, secrets={"plan": "00"}, **fixed)
    await store.move(draft.id, {RoundStatus.SEALED}, RoundStatus.OPEN, opened_at=NOW - timedelta(days=3))
    for n, one in enumerate(people[:-1]):
        items = await store.items(draft.id, one.id)
        at = NOW - timedelta(hours=9 * n)
        for item in items if n < 3 else items[: -6 * (n - 2)]:

            def link(before: Mapping[str, Any], item: Any = item, at: datetime = at) -> VoteEntry:
                place = (before["number"], item.id, item.reviewer, before["revision"])
                return VoteEntry(*place, at, {"choice": "a"}, before["previous"], "aa" * 32)

            await store.append_vote(draft.id, item, link)
        await store.update_reviewer(draft.id, one.id, consented_at=at, submitted_at=at if n < 3 else None)
    return draft.id


async def take(browser: Browser, url: str, key: str, picture: Picture) -> None:
    context = await browser.new_context(
        locale={"ko": "ko-KR", "en": "en-GB"}[picture.language], color_scheme=picture.scheme, viewport=picture.size
    )
    page = await context.new_page()
    await page.goto(f"{url}/rounds/sign-in")
    await page.locator("#key").fill(key)
    await page.locator("form:has(#key) button").first.click()
    await page.goto(picture.path if "://" in picture.path else url + picture.path)
    if picture.step is not None:
        await page.locator(f"form[action$='/steps/{picture.step}'] button").first.click()
    await page.screenshot(path=OUT / f"{picture.name}.png")
    await context.close()


async def main() -> None:
    from browsers import running_browser
    from engines import ScriptedEngine
    from gateways import entry, running_gateway

    from gateway.domain.accounts import Role, Terms

    OUT.mkdir(parents=True, exist_ok=True)
    models = [f"sim-{n:02d}" for n in range(1, 7)]
    with TemporaryDirectory() as directory:
        async with (
            ScriptedEngine(models) as engine,
            running_gateway(Path(directory), [entry(name, engine.url) for name in models], admin_key="a") as gateway,
            running_browser() as browser,
        ):
            await gateway.until_live(*models)
            key = await gateway.key_of("panel", Terms(roles=frozenset({Role.CHAIR})))
            for picture in pictures(await put_example(gateway.services.rounds.store, "panel")):
                await take(browser, gateway.url, key, picture)


if __name__ == "__main__":
    asyncio.run(main())
