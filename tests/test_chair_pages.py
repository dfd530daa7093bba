"""The pages of those who run rounds, over real sockets: who sees what, who may do what, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from clients import Answer
from gateways import RunningGateway, running_gateway
from review_rounds import ENTRIES, MODELS, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round
from reviewer_clients import ReviewerClient

from gateway.api.review_door import HEADERS
from gateway.domain.accounts import Role, Terms
from gateway.domain.planner import Assumptions, plan_round
from gateway.domain.rounds import RoundStatus
from gateway.rounds.planner_page import FIELDS, read_sizes
from gateway.rounds.report import TABLES
from gateway.rounds.tables import rounds

ADMIN = "admin-key-of-this-test"
ONE = "/rounds/round-1"
PAGES = ("/rounds", "/rounds/planner", ONE, f"{ONE}/result", f"{ONE}/tables/{next(iter(TABLES))}.csv")


@dataclass
class Chaired:
    """A round that reviewers judge, and the browsers of people who run it. `seen`: every answer that these got."""

    gateway: RunningGateway
    round: ReviewRound
    stack: AsyncExitStack
    seen: list[Answer] = field(default_factory=list)

    async def browser(self) -> ReviewerClient:
        return await self.stack.enter_async_context(ReviewerClient(self.gateway.url))

    async def key(self, role: Role) -> str:
        return await self.gateway.key_of(f"org-{role.value}", Terms(roles=frozenset({role})))

    async def signed_in(self, role: Role | None = None) -> ReviewerClient:
        """Somebody with this role; the administrator without one."""
        browser = await self.browser()
        answer = await sign_in(browser, ADMIN if role is None else await self.key(role))
        assert (answer.status, answer.header("location")) == (303, "/rounds")
        return browser

    async def take(self, browser: ReviewerClient, step: str, **fields: str) -> Answer:
        """Ask for a step, and confirm it."""
        assert (await browser.get(ONE)).status == 200
        asked = await browser.post(f"{ONE}/steps/{step}", fields)
        assert asked.status == 200, asked.body
        return await browser.post(f"{ONE}/steps/{step}", {**fields, "sure": "yes"})


async def sign_in(browser: ReviewerClient, key: str, **headers: str) -> Answer:
    return await browser.post("/rounds/sign-in", {"key": key, "form": ""}, **headers)


@asynccontextmanager
async def chaired(directory: Path, *, admin_key: str | None = ADMIN, **options: object) -> AsyncIterator[Chaired]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            running_gateway(directory, ENTRIES, sections=SECTIONS, admin_key=admin_key)
        )
        put = await put_round(gateway.services.store, trained=True, **options)  # type: ignore[arg-type]
        # The round is the operator's, and a chair of another organisation has none of it.
        yield Chaired(gateway, put, stack)


async def own(it: Chaired, role: Role) -> None:
    """Give the round to the organisation of that role's key."""
    async with it.gateway.services.store.transaction() as connection:
        await connection.execute(sa.update(rounds).values(organisation=f"org-{role.value}"))


# --- coming in ----------------------------------------------------------------------------------------------


async def test_a_key_gives_a_session_that_scripts_and_other_sites_cannot_read(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.browser()
        answer = await sign_in(browser, ADMIN, x_forwarded_proto="https")
        cookie = answer.header("set-cookie") or ""
        assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/rounds", "Secure"))
        assert ADMIN not in cookie
        secret = (browser.cookie or "").partition("=")[2]
        assert len(secret) >= 43
        async with it.gateway.services.store.transaction() as connection:
            rows = (await connection.exec_driver_sql("SELECT * FROM chair_sessions")).all()
        assert rows
        assert secret not in str(rows)
        page = await browser.get("/rounds")
        assert page.status == 200
        assert {name: page.header(name) for name in HEADERS} == dict(HEADERS)


async def test_keys_without_a_role_for_rounds_and_unknown_keys_open_nothing(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        for key in (await it.key(Role.INTEGRATOR), await it.key(Role.REVIEWER), "simsa-unknown", "", "한글"):
            browser = await it.browser()
            answer = await sign_in(browser, key)
            assert answer.status in (401, 403)
            assert answer.header("set-cookie") is None
            assert (await browser.get("/rounds")).header("location") == "/rounds/sign-in?next=%2Frounds"


async def test_without_a_session_every_page_leads_to_the_sign_in_and_no_step_is_taken(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.browser()
        for path in PAGES:
            answer = await browser.get(path)
            assert answer.status == 303
            assert answer.body == b""
        assert (await browser.post(f"{ONE}/steps/close", {"form": "", "sure": "yes"})).status == 303
        found = await it.round.store.get(it.round.id)
        assert found is not None
        assert found.status is RoundStatus.OPEN


async def test_a_revoked_key_ends_its_session_at_the_next_request(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in(Role.CHAIR)
        (key,) = await it.gateway.services.accounts.list_keys("org-chair")
        assert (await browser.get("/rounds")).status == 200
        await it.gateway.services.keys.revoke_key(key.id)
        assert (await browser.get("/rounds")).status == 303


async def test_signing_out_ends_the_session_for_good(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in()
        cookie = browser.cookie
        await browser.get("/rounds")
        assert (await browser.post("/rounds/sign-out")).status == 303
        browser.cookie = cookie
        assert (await browser.get("/rounds")).status == 303


async def test_wrong_keys_are_refused_after_some_and_the_right_one_costs_nothing(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.browser()
        for _ in range(30):
            assert (await sign_in(browser, ADMIN)).status == 303
        statuses = {(await sign_in(browser, "simsa-no")).status for _ in range(40)}
        assert statuses == {401, 429}


async def test_a_gateway_without_a_key_lets_the_administrator_in_but_no_foreign_page(tmp_path: Path) -> None:
    async with chaired(tmp_path, admin_key=None) as it:
        browser = await it.browser()
        assert "키 없이 쓰는" in (await browser.get("/rounds/sign-in")).body.decode()
        assert (await sign_in(browser, "", origin="http://evil.example")).status == 403
        rebound = await sign_in(browser, "", host="evil.example", origin="http://evil.example")
        assert rebound.status == 403
        assert browser.cookie is None
        assert (await sign_in(browser, "", origin="null")).status == 403
        assert (await sign_in(browser, "", origin="null", sec_fetch_site="cross-site")).status == 403
        assert (await sign_in(browser, "anything")).status == 401
        assert (await sign_in(browser, "", origin="null", sec_fetch_site="same-origin")).status == 303
        assert (await sign_in(browser, "")).status == 303
        assert (await browser.get(ONE)).status == 200
        assert (await browser.get(ONE, host="evil.example")).status == 403


@pytest.mark.parametrize(
    "onward",
    ["https://evil.example", "//evil.example", "/rounds//evil.example", "/roundsevil", "/review/", "/rounds/\\evil"],
)
async def test_the_sign_in_leads_to_our_own_pages_only(tmp_path: Path, onward: str) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.browser()
        answer = await browser.post("/rounds/sign-in", {"key": ADMIN, "next": onward, "form": ""})
        assert answer.header("location") == "/rounds"


# --- who may do what ----------------------------------------------------------------------------------------


async def test_forms_of_other_sites_and_other_sessions_change_nothing(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser, other = await it.signed_in(), await it.signed_in()
        await browser.get(ONE)
        await other.get(ONE)
        sure = {"sure": "yes"}
        path = f"{ONE}/steps/close"
        assert (await browser.post(path, {**sure, "form": other.form})).status == 403
        assert (await browser.post(path, {**sure, "form": ""})).status == 403
        assert (await browser.post(path, sure, origin="http://evil.example")).status == 403
        assert (await browser.post(path, sure, sec_fetch_site="cross-site")).status == 403
        assert (await browser.post(path, sure, origin="")).status == 403
        found = await it.round.store.get(it.round.id)
        assert found is not None
        assert found.status is RoundStatus.OPEN


async def test_a_step_is_taken_only_when_it_is_confirmed(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in()
        await browser.get(ONE)
        asked = await browser.post(f"{ONE}/steps/pause")
        assert "일시 중지" in asked.body.decode()
        found = await it.round.store.get(it.round.id)
        assert found is not None
        assert found.status is RoundStatus.OPEN
        done = await browser.post(f"{ONE}/steps/pause", {"sure": "yes"})
        assert (done.status, done.header("location")) == (303, f"{ONE}?done=pause")
        assert "회차를 일시 중지했습니다" in (await browser.get(f"{ONE}?done=pause")).body.decode()


async def test_a_chair_sees_progress_and_takes_steps_but_none_of_an_operator(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in(Role.CHAIR)
        assert (await browser.get(ONE)).status == 404, "it is of another organisation"
        await own(it, Role.CHAIR)
        page = (await browser.get(ONE)).body.decode()
        assert "0 / 8" in page
        assert "label-CANARY" in page
        for step in ("answers", "collect", "stop"):
            assert (await browser.post(f"{ONE}/steps/{step}", {"sure": "yes"})).status == 403
        assert (await it.take(browser, "pause")).status == 303


async def test_a_chair_never_sees_which_model_fails_and_an_operator_does(tmp_path: Path) -> None:
    """No model of this round has an engine."""
    async with chaired(tmp_path) as it:
        await own(it, Role.CHAIR)
        chair, operator = await it.signed_in(Role.CHAIR), await it.signed_in(Role.OPERATOR)
        seen = (await chair.get(ONE)).body.decode()
        assert not [model for model in MODELS if model in seen]
        assert "운영자용" not in seen
        told = (await operator.get(ONE)).body.decode()
        assert all(model in told for model in MODELS)


async def test_an_auditor_sees_nothing_of_the_reviewers_before_closing_and_pseudonyms_after(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in(Role.AUDITOR)
        before = (await browser.get(ONE)).body.decode()
        assert "마감 후에 볼 수 있습니다" in before
        assert not [word for word in (*REVIEWERS, "label-", "stratum-", "0 / 8") if word in before]
        assert (await browser.post(f"{ONE}/steps/pause", {"sure": "yes"})).status == 403
        await it.round.move(RoundStatus.OPEN, RoundStatus.CLOSED)
        after = (await browser.get(ONE)).body.decode()
        assert all(name in after for name in REVIEWERS)
        assert "label-" not in after
        assert "/steps/" not in after


async def test_a_reviewer_with_too_many_conflicts_is_shown_as_one_who_waits_for_the_chair(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        conflicts = [f"family-{n}" for n in range(1, 5)]
        await it.round.store.update_reviewer(it.round.id, REVIEWERS[0], consented_at=None, conflicts=conflicts)
        browser = await it.signed_in()
        page = await browser.get(ONE)
        assert page.status == 200
        assert "이해충돌이 많아 결정을 기다림" in page.body.decode()


async def test_links_stand_in_one_answer_and_open_the_review(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in()
        made = await it.take(browser, "renew", reviewer=REVIEWERS[0])
        token = made.body.decode().partition("/review/enter#")[2].partition("<")[0]
        assert "/review/enter#" not in (await browser.get(ONE)).body.decode()
        async with ReviewerClient(it.gateway.url) as reviewer:
            assert (await reviewer.enter(token)).status == 200
        assert (await it.take(browser, "revoke", reviewer=REVIEWERS[0])).status == 303
        async with ReviewerClient(it.gateway.url) as reviewer:
            assert (await reviewer.enter(token)).status == 403


async def test_an_exclusion_is_shown_with_its_rule_and_reason(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in()
        await browser.get(ONE)
        wrong = await browser.post(f"{ONE}/steps/exclude", {"kind": "prompt", "subject": "p1", "reason": ""})
        assert wrong.status == 400
        fields = {"kind": "prompt", "subject": "p1", "rule": "leaked", "reason": "<b>신문에 났음</b>"}
        assert (await it.take(browser, "exclude", **fields)).status == 303
        page = (await browser.get(ONE)).body.decode()
        assert "leaked" in page
        assert "&lt;b&gt;신문에 났음&lt;/b&gt;" in page


# --- what stands on them ------------------------------------------------------------------------------------


async def test_before_closing_no_page_has_a_standing_and_before_the_reveal_none_a_canary(tmp_path: Path) -> None:
    """For a chair. Models, answers, facts and secrets carry canaries; labels and strata are theirs to see."""
    async with chaired(tmp_path) as it:
        await own(it, Role.CHAIR)
        async with ReviewerClient(it.gateway.url) as reviewer:
            await reviewer.enter(await it.round.token())
            for n in range(4):
                saved = await reviewer.save(item_id(REVIEWERS[0], n), {"choice": "a", "comment": "canary-said"}, base=0)
                assert saved.status == 200
        browser = await it.signed_in(Role.CHAIR)
        seen = []
        for before, after in ((None, None), (RoundStatus.OPEN, RoundStatus.PAUSED)):
            if before is not None:
                await it.round.move(before, after)
            for path in PAGES:
                seen.append(answer := await browser.get(path))
                assert answer.status == (409 if "result" in path or "tables" in path else 200)
        await it.round.move(RoundStatus.PAUSED, RoundStatus.CLOSED)
        seen += [await browser.get(ONE), await browser.get("/rounds")]
        for step in ("reveal", "exclude", "renew", "archive"):
            seen.append(await browser.post(f"{ONE}/steps/{step}", {"reviewer": REVIEWERS[0]}))
        shown = [answer.body.decode().replace("label-CANARY", "").replace("stratum-CANARY", "") for answer in seen]
        assert not [page for page in shown if "canary" in page.lower()]
        assert "4 / 4" in shown[2]


async def test_a_reviewer_without_a_key_is_led_to_the_result_of_their_own_round(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it, ReviewerClient(it.gateway.url) as reviewer:
        await reviewer.enter(await it.round.token())
        assert (await reviewer.get(f"{ONE}/result")).header("location") == "/review/result"
        assert (await reviewer.get("/review/result")).header("location") == "/review/"
        reviewer.cookie = None
        assert (await reviewer.get("/review/result")).header("location") == "/rounds/sign-in"


# --- the planner --------------------------------------------------------------------------------------------


async def test_the_planner_says_what_the_arithmetic_says(tmp_path: Path) -> None:
    async with chaired(tmp_path) as it:
        browser = await it.signed_in()
        page = (await browser.get("/rounds/planner?models=10&reviewers=49&prompts=120&votes=40&ties=10")).body.decode()
        plan = plan_round(
            models=10, reviewers=49, prompts=120, votes_per_reviewer=40, assume=Assumptions(tie_share=0.1)
        )
        assert f"{plan.one_pair.win_rate:.1%}".replace("%", " %") in page
        assert f"{plan.all_pairs.win_rate:.1%}".replace("%", " %") in page
        few = (await browser.get("/rounds/planner?reviewers=10&models=999")).body.decode()
        assert "심사위원이 30명보다 적으면" in few
        assert "2부터 20까지의 정수" in few


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "٣", "9" * 50, "<b>"])
def test_sizes_that_are_no_numbers_leave_the_usual_ones(text: str) -> None:
    sizes, wrong = read_sizes({field.name: text for field in FIELDS})
    assert sizes == {field.name: field.start for field in FIELDS}
    assert bool(wrong) is bool(text)
