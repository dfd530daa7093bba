"""axe-core on every page of those who run rounds, and on the result: light, dark, ko, en, on a desk and a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from browsers import running_browser
from clients import RawClient
from gateways import RunningGateway, running_gateway
from page_inspector import VIEWS, Inspector
from playwright.async_api import Page
from review_rounds import ENTRIES, KEY, NOW, PLAN, SECTIONS, answers, put_round
from test_round_results import keep

from gateway.domain.accounts import Role, Terms
from gateway.domain.rounds import AccessEntry, AnswerStatus, Exclusion, Round, RoundStatus, VoteEntry
from gateway.rounds.links import link_path, make_token
from gateway.rounds.store import RoundStore
from gateway.rounds.tables import rounds
from scripts.round_example import made_round

ADMIN = "admin-key-of-this-test"
ONE, DRAFT = "round-1", "draft-1"
LANGUAGES = {"ko": "ko-KR", "en": "en-GB"}
STUCK, HELD, REVOKED, EXCLUDED, INVITED = (f"reviewer-{n}" for n in range(5))


@asynccontextmanager
async def inspecting(
    directory: Path, *, admin_key: str | None = ADMIN
) -> AsyncIterator[tuple[RunningGateway, Inspector]]:
    """A gateway, and a page in each language; at the end nothing may have been found."""
    async with (
        running_gateway(directory, ENTRIES, sections=SECTIONS, admin_key=admin_key) as gateway,
        running_browser() as browser,
    ):
        contexts = [await browser.new_context(locale=locale) for locale in LANGUAGES.values()]
        inspector = Inspector(*[await context.new_page() for context in contexts], views=VIEWS)
        yield gateway, inspector
        assert inspector.found == []


async def sign_in(inspector: Inspector, url: str, key: str) -> None:
    for page in inspector.pages:
        await page.goto(f"{url}/rounds/sign-in")
        await page.locator("#key").fill(key)
        await page.locator("form:has(#key) button").click()


async def ask(inspector: Inspector, url: str, step: str, fields: Mapping[str, str] | None = None) -> None:
    """Look at the page that asks whether the step is meant."""
    for page in inspector.pages:
        await page.goto(url)
        await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        for name, value in (fields or {}).items():
            await page.locator(f"form[action$='/steps/{step}'] [name={name}]").fill(value)
        await page.locator(f"form[action$='/steps/{step}'] button").first.click()
    await inspector.look(f"asked: {step}")


# --- the way in -------------------------------------------------------------------------------------------------


async def test_axe_finds_nothing_on_the_way_in_and_on_the_planner(tmp_path: Path) -> None:
    async with inspecting(tmp_path, admin_key=None) as (gateway, inspector):
        pages = f"{gateway.url}/rounds"
        await inspector.visit(f"{pages}/sign-in?ended=1", "session ended, no key asked for")
        await sign_in(inspector, gateway.url, "simsa-unknown")
        await inspector.look("key refused")
        await inspector.each(lambda page: page.locator("button.primary").click())
        await inspector.look("no rounds yet")
        await inspector.visit(f"{pages}/planner", "planner")
        await inspector.visit(f"{pages}/planner?models=999&reviewers=3&prompts=2", "planner with complaints")
        await inspector.visit(f"{pages}/none", "no such round")
        assert len(inspector.looked_at) == 6


# --- a round ----------------------------------------------------------------------------------------------------


async def test_axe_finds_nothing_on_the_pages_of_a_round(tmp_path: Path) -> None:
    async with inspecting(tmp_path) as (gateway, inspector):
        store, pages = gateway.services.rounds.store, f"{gateway.url}/rounds"
        await put_draft(store)
        people = (STUCK, HELD, REVOKED, EXCLUDED, INVITED)
        put = await put_round(gateway.services.store, status=RoundStatus.SEALED, reviewers=people)
        await inspector.visit(f"{pages}/{ONE}", "sign-in")
        await sign_in(inspector, gateway.url, await gateway.key_of("watch", Terms(roles=frozenset({Role.AUDITOR}))))
        await inspector.visit(f"{pages}/{ONE}", "an auditor before closing")
        await sign_in(inspector, gateway.url, ADMIN)
        await inspector.look("list of rounds")
        await look_at_a_draft(inspector, f"{pages}/{DRAFT}")
        await put.move(RoundStatus.SEALED, RoundStatus.OPEN)
        await trouble(store)
        await inspector.visit(f"{pages}/{ONE}?done=open", "open, with all that may be wrong")
        await inspector.visit(f"{pages}/{ONE}/result", "no result yet")
        await ask(inspector, f"{pages}/{ONE}", "close")
        await ask(inspector, f"{pages}/{ONE}", "renew")
        await ask(inspector, f"{pages}/{ONE}", "exclude", {"subject": "p1", "reason": "신문에 났음"})
        await put.move(RoundStatus.OPEN, RoundStatus.PAUSED)
        await inspector.visit(f"{pages}/{ONE}", "paused")
        await put.move(RoundStatus.PAUSED, RoundStatus.CLOSED)
        await inspector.visit(f"{pages}/{ONE}", "closed")
        await put.move(RoundStatus.CLOSED, RoundStatus.REVEALED)
        await put.move(RoundStatus.REVEALED, RoundStatus.ARCHIVED)
        await inspector.visit(f"{pages}/{ONE}", "archived")
        assert len(inspector.looked_at) == 14


async def put_draft(store: RoundStore) -> None:
    """With a failed answer and a dry run that did not pass."""
    await store.create(Round(DRAFT, "second", NOW, "", RoundStatus.DRAFT, PLAN), {"links": KEY})
    first, *others = answers()
    failed = replace(first, status=AnswerStatus.FAILED, text=None, shown=None, facts={"error": {"code": "timeout"}})
    await store.save_answers(DRAFT, [failed, *others])
    async with store._store.transaction() as connection:
        await connection.execute(sa.update(rounds).where(rounds.c.id == DRAFT).values(dry_run={"passed": False}))


async def look_at_a_draft(inspector: Inspector, url: str) -> None:
    """Up to the links of those who are invited."""
    await inspector.visit(f"{url}?done=dry-run", "draft")
    await ask(inspector, url, "invite", {"labels": "\n".join(f"심사위원 {n}" for n in range(20))})
    for page, label in zip(inspector.pages, ("가", "나"), strict=True):
        await page.goto(url)
        await page.locator("#labels").fill(f"{label} 1\n{label} 2")
        await page.locator("form[action$='/steps/invite'] button").click()
        await page.locator("button.primary").click()
    await inspector.look("links")


async def trouble(store: RoundStore) -> None:
    """A reviewer who has been silent for days, one with too many conflicts, one let in no more, one left out."""
    now = datetime.now(UTC)
    item, *_ = await store.items(ONE, STUCK)

    def long_ago(before: Mapping[str, Any]) -> VoteEntry:
        at = now - timedelta(days=5)
        return VoteEntry(1, item.id, STUCK, 1, at, {"choice": "a"}, before["previous"], "aa" * 32)

    assert await store.append_vote(ONE, item, long_ago)
    await store.update_reviewer(ONE, STUCK, consented_at=now)
    await store.update_reviewer(ONE, HELD, conflicts=[f"family-{n}" for n in range(1, 5)])
    await store.update_reviewer(ONE, REVOKED, revoked_at=now)
    await store.exclude(ONE, Exclusion(now, "chair", "reviewer", EXCLUDED, "청탁을 받았다고 알려 옴", "key-chair"))
    aside, *_ = await store.items(ONE, INVITED)
    left_out = Exclusion(now, "conflict", "item", aside.id, "declared", "rule")
    entry = AccessEntry(now, INVITED, "reviewer", "consent")
    await store.declare(ONE, INVITED, ["family-1"], entry=entry, consented_at=None, aside=[left_out])


# --- the result -------------------------------------------------------------------------------------------------


async def test_axe_finds_nothing_on_the_result_which_is_one_page_for_everybody(tmp_path: Path) -> None:
    made = made_round(models=3, reviewers=6, prompts=12, votes_each=12, cut=1, seed=5, status=RoundStatus.CLOSED)
    async with inspecting(tmp_path / "gateway") as (gateway, inspector):
        store, round_id, url = gateway.services.rounds.store, made.round.id, gateway.url
        await keep(store, made)
        await sign_in(inspector, url, ADMIN)
        now = datetime.now(UTC)
        assert await store.move(round_id, {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=now)
        await inspector.visit(f"{url}/rounds/{round_id}/result", "result with codes")
        assert await store.move(round_id, {RoundStatus.CLOSED}, RoundStatus.REVEALED, revealed_at=now)
        await inspector.visit(f"{url}/rounds/{round_id}", "revealed")
        reports = [await downloaded(gateway, round_id, language, tmp_path) for language in LANGUAGES]
        for page, report in zip(inspector.pages, reports, strict=True):
            await page.goto(report.as_uri())
        await inspector.look("downloaded report with names")
        for page, report, language, reviewer in zip(inspector.pages, reports, LANGUAGES, made.people, strict=False):
            assert await text_of(page, f"{url}/rounds/{round_id}/result") == report.read_text()
            token = make_token("00", round_id, reviewer, expires_at=now + timedelta(days=1))
            await store.update_reviewer(round_id, reviewer.id, language=language)
            await page.goto(url + link_path(token))
            await page.locator("button.primary").click()
            assert await text_of(page, f"{url}/review/result") == report.read_text()


async def downloaded(gateway: RunningGateway, round_id: str, language: str, directory: Path) -> Path:
    async with RawClient(gateway.url, key=ADMIN) as client:
        report = await client.request("GET", f"/api/rounds/{round_id}/report?lang={language}")
    kept = directory / f"report.{language}.html"
    kept.write_bytes(report.body)
    return kept


async def text_of(page: Page, url: str) -> str:
    answer = await page.goto(url)
    assert answer is not None
    return await answer.text()
