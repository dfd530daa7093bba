"""A reviewer's way through a round over real sockets, and everything that is refused on it."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engines import ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from processes_under_test import gateway_process
from review_rounds import ENTRIES, KEY, PLAN, REVIEWERS, SECTIONS, ReviewRound, item_id, put_round
from reviewer_clients import ReviewerClient

from gateway.api.review_door import HEADERS, PAGE_BYTES
from gateway.domain.rounds import AccessEntry, Exclusion, Reviewer, RoundStatus
from gateway.rounds.links import make_token
from gateway.rounds.visits import MAX_CONFLICTS
from gateway.store import Store, upgrade

FIRST, SECOND, THIRD, ATTENTION = (item_id(REVIEWERS[0], n) for n in range(4))


@dataclass
class Reviewed:
    gateway: RunningGateway
    round: ReviewRound
    reviewer: ReviewerClient

    async def judge_all(self) -> None:
        for item in (FIRST, SECOND, THIRD, ATTENTION):
            assert (await self.reviewer.save(item, {"choice": "a"}, base=0)).status == 200


@asynccontextmanager
async def reviewed(directory: Path, *, trained: bool = True, **options: object) -> AsyncIterator[Reviewed]:
    """A round in a running gateway, with its first reviewer let in."""
    async with running_gateway(directory, ENTRIES, sections=SECTIONS) as gateway:
        put = await put_round(gateway.services.store, trained=trained, **options)  # type: ignore[arg-type]
        async with ReviewerClient(gateway.url) as reviewer:
            await reviewer.enter(await put.token())
            yield Reviewed(gateway, put, reviewer)


# --- coming in ----------------------------------------------------------------------------------------------


async def test_a_link_gives_a_session_that_scripts_and_other_sites_cannot_read(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        token = await it.round.token()
        assert (await it.reviewer.get(f"/review/enter?link={token}")).header("set-cookie") is None
        answer = await it.reviewer.post("/review/enter", {"link": token, "form": ""})
        assert (answer.status, answer.header("location")) == (303, "/review/?ended=1")
        cookie = answer.header("set-cookie") or ""
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/review" in cookie
        assert "Secure" not in cookie
        behind_tls = await it.reviewer.post("/review/enter", {"link": token, "form": ""}, x_forwarded_proto="https")
        assert "Secure" in (behind_tls.header("set-cookie") or "")
        kept = await it.round.store.reviewer(it.round.id, REVIEWERS[0])
        secret = (it.reviewer.cookie or "").partition("=")[2]
        assert kept is not None
        assert secret not in str(kept)


@pytest.mark.parametrize("how", ["", "x", "e30.", "{}.{}", "\u2603", "a" * 1200, "W10." + "0" * 64])
async def test_what_is_no_link_opens_nothing(tmp_path: Path, how: str) -> None:
    async with reviewed(tmp_path) as it:
        answer = await it.reviewer.post("/review/enter", {"link": how, "form": ""})
        assert answer.status == 403
        assert "올바르지 않은 링크" in answer.body.decode()


async def test_forged_expired_replaced_and_revoked_links_open_nothing(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        good = await it.round.token()
        mine = Reviewer(REVIEWERS[0], "", "")
        forged = make_token("11" * 32, it.round.id, mine, expires_at=tomorrow)
        nobody = make_token(KEY, it.round.id, Reviewer("nobody", "", ""), expires_at=tomorrow)
        nowhere = make_token(KEY, "no-round", mine, expires_at=tomorrow)
        bent = good[:-1] + ("0" if good[-1] != "0" else "1")
        for token in (forged, nobody, nowhere, bent):
            assert "올바르지 않은 링크" in (await it.reviewer.enter(token)).body.decode()
        expired = await it.round.token(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        assert "기한이 지난 링크" in (await it.reviewer.enter(expired)).body.decode()
        await it.round.store.renew_link(it.round.id, REVIEWERS[0])
        assert "새 링크가 발급되어" in (await it.reviewer.enter(good)).body.decode()
        fresh = await it.round.token()
        assert (await it.reviewer.enter(fresh)).status == 200
        await it.round.store.update_reviewer(it.round.id, REVIEWERS[0], revoked_at=datetime.now(UTC))
        assert "사용이 중지된 링크" in (await it.reviewer.enter(fresh)).body.decode()
        assert (await it.reviewer.get("/review/")).status == 401


async def test_a_second_entrance_ends_the_first_session_and_says_so(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it, ReviewerClient(it.gateway.url) as elsewhere:
        page = await elsewhere.enter(await it.round.token())
        assert "다른 창이나 기기의 접속은 종료되었습니다" in page.body.decode()
        ended = await it.reviewer.get("/review/")
        assert ended.status == 401
        assert "다른 창이나 기기에서 새로 입장하면" in ended.body.decode()
        assert (await it.reviewer.save(FIRST, {"choice": "a"}, base=0)).json()["error"]["code"] == "no_session"


async def test_a_link_may_be_pasted_whole(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        token = await it.round.token()
        for pasted in (f" https://simsa.example/review/enter#{token} ", f"https://x/review/enter?link={token}"):
            assert (await it.reviewer.post("/review/enter", {"link": pasted, "form": ""})).status == 303


async def test_many_wrong_links_from_one_place_are_slowed_down(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        statuses = [(await it.reviewer.post("/review/enter", {"link": "x", "form": ""})).status for _ in range(70)]
        assert statuses[:60] == [403] * 60
        assert statuses[-1] == 429


async def test_a_right_link_opens_however_many_wrong_ones_came_from_the_same_place(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        statuses = [(await it.reviewer.post("/review/enter", {"link": "x", "form": ""})).status for _ in range(70)]
        assert statuses[-1] == 429
        assert (await it.reviewer.post("/review/enter", {"link": await it.round.token(), "form": ""})).status == 303


async def test_entering_again_and_again_is_slowed_down(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        token = await it.round.token()
        statuses = [(await it.reviewer.post("/review/enter", {"link": token, "form": ""})).status for _ in range(12)]
        assert statuses[0] == 303
        assert statuses[-1] == 429


async def test_whoever_leaves_has_to_enter_again(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        cookie = it.reviewer.cookie
        assert (await it.reviewer.post("/review/leave")).header("location") == "/review/enter"
        it.reviewer.cookie = cookie
        assert (await it.reviewer.get("/review/")).status == 401


# --- other people's requests --------------------------------------------------------------------------------


async def test_a_form_without_the_sessions_token_changes_nothing(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it, ReviewerClient(it.gateway.url) as other:
        await other.enter(await it.round.token(REVIEWERS[1]))
        for token in ("", "0" * 64, other.form):
            it.reviewer.form = token
            assert (
                await it.reviewer.post(f"/review/items/{FIRST}", {"choice": "a", "base_revision": "0"})
            ).status == 403
            assert (await it.reviewer.save(FIRST, {"choice": "a"}, base=0)).status == 403
            assert (await it.reviewer.post("/review/submit", {"sure": "yes"})).status == 403
        assert await it.round.store.votes(it.round.id) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "null", "sec_fetch_site": "cross-site"},
        {"origin": "null", "sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site"},
    ],
)
async def test_requests_of_other_sites_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with reviewed(tmp_path) as it:
        assert (await it.reviewer.save(FIRST, {"choice": "a"}, base=0, **headers)).status == 403
        assert (await it.reviewer.post("/review/enter", {"link": await it.round.token()}, **headers)).status == 403


async def test_a_form_of_our_own_has_a_null_origin_where_no_referrer_is_told(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        answer = await it.reviewer.save(FIRST, {"choice": "a"}, base=0, origin="null", sec_fetch_site="same-origin")
        assert answer.status == 200


async def test_a_reviewer_reaches_their_own_items_only(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        theirs = item_id(REVIEWERS[1], 0)
        assert (await it.reviewer.get(f"/review/items/{theirs}")).status == 404
        assert (await it.reviewer.save(theirs, {"choice": "a"}, base=0)).status == 404
        assert (await it.reviewer.get("/review/items/nothing")).status == 404
        assert (await it.reviewer.get("/review/items/%00")).status == 404
        assert await it.round.store.votes(it.round.id) == []


async def test_an_organisations_key_opens_no_review(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it, ReviewerClient(it.gateway.url) as nobody:
        secret = await it.gateway.key_of("ministry")
        assert (await nobody.get("/review/", authorization=f"Bearer {secret}")).status == 401


# --- before the queue ---------------------------------------------------------------------------------------


async def test_consent_needs_an_answer_about_conflicts_and_both_agreements(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        page = (await it.reviewer.get("/review/")).body.decode()
        assert all(f"{n}번 컨소시엄" in page for n in range(1, 11))
        agreed = {"confidential": "yes", "consent": "yes", "language": "ko"}
        for fields in (
            agreed,
            {**agreed, "no_conflict": "yes", "conflicts": "family-1"},
            {"no_conflict": "yes", "consent": "yes", "language": "ko"},
            {"no_conflict": "yes", "confidential": "yes", "language": "ko"},
        ):
            answer = await it.reviewer.post("/review/consent", fields)
            assert 'role="alert"' in answer.body.decode()
        assert (await it.reviewer.post("/review/consent", {**agreed, "conflicts": "no-such"})).status == 400
        found = await it.round.store.reviewer(it.round.id, REVIEWERS[0])
        assert found is not None
        assert found.consented_at is None


async def test_items_of_a_declared_conflict_are_set_aside_by_a_rule_that_the_chair_sees(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        agreed = {"confidential": "yes", "consent": "yes", "language": "en", "conflicts": "family-1"}
        assert (await it.reviewer.post("/review/consent", agreed)).status == 303
        found = await it.round.store.exclusions(it.round.id)
        assert [(one.rule, one.kind, one.subject, one.by) for one in found] == [
            ("conflict", "item", FIRST, "rule"),
            ("conflict", "item", THIRD, "rule"),
        ]
        reviewer = await it.round.store.reviewer(it.round.id, REVIEWERS[0])
        assert reviewer is not None
        assert (reviewer.conflicts, reviewer.language) == (("family-1",), "en")
        await it.reviewer.post("/review/training/finish")
        page = (await it.reviewer.get("/review/")).body.decode()
        assert [item in page for item in (FIRST, SECOND, THIRD, ATTENTION)] == [False, True, False, True]
        assert (await it.reviewer.get(f"/review/items/{FIRST}")).status == 404
        assert (await it.reviewer.save(FIRST, {"choice": "a"}, base=0)).status == 404
        theirs = await it.round.store.items(it.round.id, REVIEWERS[1])
        assert all(item.set_aside is None for item in theirs)


async def test_conflicts_are_those_of_the_sealed_round_whatever_the_registry_says_by_now(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        mapping = {f"M{n:02d}": {"model": m, "consortium": "family-2"} for n, m in enumerate(PLAN.models, start=1)}
        await it.round.store.put_document(it.round.id, "mapping", mapping)
        agreed = {"confidential": "yes", "consent": "yes", "language": "ko", "conflicts": "family-1"}
        assert (await it.reviewer.post("/review/consent", agreed)).status == 303
        assert await it.round.store.exclusions(it.round.id) == []


async def test_who_declares_many_conflicts_waits_for_the_chair_and_sees_no_item(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        many = [("conflicts", f"family-{n}") for n in range(1, MAX_CONFLICTS + 2)]
        agreed = [("confidential", "yes"), ("consent", "yes"), ("language", "ko")]
        assert (await it.reviewer.post("/review/consent", [*agreed, *many])).status == 303
        page = (await it.reviewer.get("/review/")).body.decode()
        assert "이해관계 신고 내용을 주최 측에서 확인" in page
        assert not any(item in page for item in (FIRST, SECOND, THIRD, ATTENTION))
        assert (await it.reviewer.get(f"/review/items/{SECOND}")).status == 303
        assert await it.round.store.exclusions(it.round.id) == []
        reviewer = await it.round.store.reviewer(it.round.id, REVIEWERS[0])
        assert reviewer is not None
        assert (reviewer.consented_at, len(reviewer.conflicts)) == (None, MAX_CONFLICTS + 1)
        again = await it.reviewer.post("/review/consent", [*agreed, ("no_conflict", "yes")])
        assert again.status == 303
        assert "이해관계 신고 내용" in (await it.reviewer.get("/review/")).body.decode()
        await it.round.store.renew_link(it.round.id, REVIEWERS[0])
        await it.reviewer.enter(await it.round.token())
        assert 'name="no_conflict"' in (await it.reviewer.get("/review/")).body.decode()


async def test_the_page_that_asks_for_conflicts_does_not_count_items(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        before = (await it.reviewer.get("/review/")).body
        theirs = [item for item in await it.round.store.items(it.round.id) if item.reviewer == REVIEWERS[0]]
        now, other = datetime.now(UTC), REVIEWERS[1]
        aside = [Exclusion(now, "conflict", "item", theirs[0].id, "a conflict", "rule")]
        entry = AccessEntry(now, other, "reviewer", "consent")
        assert await it.round.store.declare(
            it.round.id, other, ["family-1"], entry=entry, consented_at=now, aside=aside
        )
        assert (await it.reviewer.get("/review/")).body == before


async def test_training_says_at_once_what_was_right_and_counts_nothing(tmp_path: Path) -> None:
    async with reviewed(tmp_path, trained=False) as it:
        agreed = {"confidential": "yes", "consent": "yes", "language": "ko", "no_conflict": "yes"}
        await it.reviewer.post("/review/consent", agreed)
        assert "연습" in (await it.reviewer.get("/review/")).body.decode()
        assert (await it.reviewer.get(f"/review/items/{FIRST}")).status == 303
        unanswered = (await it.reviewer.post("/review/training/1")).body.decode()
        assert "먼저 종합 판단을" in unanswered
        right = (await it.reviewer.post("/review/training/1", {"choice": "a"})).body.decode()
        assert "저희 판단과 같습니다" in right
        assert "A가 맞습니다. 1킬로미터는" in right
        wrong = (await it.reviewer.post("/review/training/2", {"choice": "a"})).body.decode()
        assert "저희는 다르게 보았습니다" in wrong
        assert (await it.reviewer.get("/review/training/3")).status == 404
        assert (await it.reviewer.get("/review/training/x")).status == 404
        assert (await it.reviewer.post("/review/training/finish")).status == 303
        assert "항목 목록" in (await it.reviewer.get("/review/")).body.decode()
        assert await it.round.store.votes(it.round.id) == []


# --- judging ------------------------------------------------------------------------------------------------


async def test_an_item_is_judged_without_a_script(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        page = (await it.reviewer.get(f"/review/items/{FIRST}")).body.decode()
        assert "변동금리 대출의 이자도" in page
        fields = {
            "base_revision": "0", "choice": "b", "grade.quality": "1", "grade.use": "-2",
            "comment": " 좋음\r\n둘째 줄 ", "recognised": "yes", "seconds": "42", "go": SECOND,
        }  # fmt: skip
        answer = await it.reviewer.post(f"/review/items/{FIRST}", fields)
        assert (answer.status, answer.header("location")) == (303, f"/review/items/{SECOND}")
        (vote,) = await it.round.store.votes(it.round.id)
        assert vote.judgement == {
            "choice": "b", "grades": {"quality": 1, "use": -2}, "comment": "좋음\n둘째 줄",
            "recognised": True, "seconds": 42,
        }  # fmt: skip
        again = (await it.reviewer.get(f"/review/items/{FIRST}")).body.decode()
        assert 'name="base_revision" value="1"' in again
        assert re.search(r'name="choice" value="b" checked', again)
        assert re.search(r'name="grade.use" value="-2" checked', again)
        assert "좋음\n둘째 줄</textarea>" in again
        assert (await it.reviewer.post(f"/review/items/{FIRST}", {**fields, "base_revision": "1", "go": "//x"})).header(
            "location"
        ) == "/review/"


async def test_what_was_sent_over_a_newer_judgement_is_shown_and_not_kept(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        await it.reviewer.get(f"/review/items/{FIRST}")
        await it.reviewer.save(FIRST, {"choice": "a"}, base=0)
        sent = {"choice": "b", "comment": "늦은 의견", "base_revision": "0"}
        answer = await it.reviewer.post(f"/review/items/{FIRST}", sent)
        page = answer.body.decode()
        assert answer.status == 409
        assert "늦은 의견</textarea>" in page
        assert 'name="base_revision" value="1"' in page
        assert len(await it.round.store.votes(it.round.id)) == 1


async def test_too_long_a_comment_stays_in_the_form(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        await it.reviewer.get(f"/review/items/{FIRST}")
        answer = await it.reviewer.post(f"/review/items/{FIRST}", {"comment": "가" * 4001, "base_revision": "0"})
        assert answer.status == 400
        assert "가" * 4001 in answer.body.decode()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RoundStatus.SEALED, "아직 심사가 시작되지 않았습니다"),
        (RoundStatus.PAUSED, "심사가 잠시 중단되었습니다"),
        (RoundStatus.CLOSED, "심사가 끝났습니다"),
        (RoundStatus.REVEALED, "결과가 공개되었습니다"),
    ],
)
async def test_a_round_that_is_not_open_says_so_and_takes_nothing(
    tmp_path: Path, status: RoundStatus, words: str
) -> None:
    async with reviewed(tmp_path, status=status) as it:
        page = await it.reviewer.get("/review/")
        assert words in page.body.decode()
        assert (await it.reviewer.get(f"/review/items/{FIRST}")).header("location") == "/review/"
        refused = await it.reviewer.save(FIRST, {"choice": "a"}, base=0)
        assert (refused.status, refused.json()["error"]["code"]) == (409, "wrong_stage")
        assert (await it.reviewer.post("/review/submit", {"sure": "yes"})).header("location") == "/review/"
        assert await it.round.store.votes(it.round.id) == []
        has_link = f"/rounds/{it.round.id}/result" in page.body.decode()
        assert has_link == (status is RoundStatus.REVEALED)


async def test_plain_text_shows_both_sides_as_they_were_written(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        page = (await it.reviewer.get(f"/review/items/{FIRST}?plain=1")).body.decode()
        assert "| 대출 잔액 | 금리 |" in page
        assert page.count('<pre class="plain">') == 2
        assert "<table>" not in page


async def test_pages_change_their_language_and_stay_where_they_are(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        await it.reviewer.get(f"/review/items/{FIRST}")
        fields = {"language": "en", "back": f"/review/items/{FIRST}"}
        assert (await it.reviewer.post("/review/language", fields)).header("location") == f"/review/items/{FIRST}"
        page = (await it.reviewer.get(f"/review/items/{FIRST}")).body.decode()
        assert '<html lang="en">' in page
        assert "Both insufficient" in page
        for back in ("https://evil.example/", "//evil.example", "/api/keys", "/review//evil"):
            answer = await it.reviewer.post("/review/language", {"language": "ko", "back": back})
            assert answer.header("location") == "/review/"
        assert (await it.reviewer.post("/review/language", {"language": "fr", "back": "/review/"})).status == 400


# --- the end ------------------------------------------------------------------------------------------------


async def test_an_unfinished_queue_is_not_submitted(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        await it.judge_all()
        await it.reviewer.save(THIRD, {"choice": "cannot_judge"}, base=1)
        answer = await it.reviewer.post("/review/submit", {"sure": "yes"})
        assert "아직 종합 판단을 하지 않은 항목이 있습니다" in answer.body.decode()
        await it.reviewer.save(THIRD, {"choice": "cannot_judge", "reason": "전공이 아닙니다"}, base=2)
        assert "확인란에 표시해" in (await it.reviewer.post("/review/submit")).body.decode()
        assert (await it.reviewer.post("/review/submit", {"sure": "yes"})).header("location") == "/review/receipt"


async def test_a_receipt_names_the_chains_head_and_every_item_and_never_changes(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it, ReviewerClient(it.gateway.url) as other:
        assert (await it.reviewer.get("/review/receipt.json")).status == 409
        assert (await it.reviewer.get("/review/receipt")).header("location") == "/review/"
        await it.judge_all()
        await it.reviewer.get("/review/")
        assert (await it.reviewer.post("/review/submit", {"sure": "yes"})).status == 303
        answer = await it.reviewer.get("/review/receipt.json")
        votes = await it.round.store.votes(it.round.id)
        receipt = answer.json()
        assert receipt["head"] == {"number": 4, "hash": votes[-1].hash}
        assert receipt["items"] == [
            {
                "item": vote.item,
                "number": vote.number,
                "revision": vote.revision,
                "hash": vote.hash,
                "shown": vote.shown,
            }
            for vote in votes
        ]
        await other.enter(await it.round.token(REVIEWERS[1]))
        await other.save(item_id(REVIEWERS[1], 0), {"choice": "a"}, base=0)
        assert (await it.reviewer.get("/review/receipt.json")).body == answer.body
        assert votes[-1].hash in (await it.reviewer.get("/review/receipt")).body.decode()
        refused = await it.reviewer.save(FIRST, {"choice": "b"}, base=1)
        assert (refused.status, refused.json()["error"]["code"]) == (409, "wrong_stage")


async def test_the_questionnaire_is_kept_once(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        await it.judge_all()
        await it.reviewer.get("/review/")
        await it.reviewer.post("/review/submit", {"sure": "yes"})
        page = (await it.reviewer.get("/review/questionnaire")).body.decode()
        assert [f'name="a.{item}"' in page for item in (FIRST, SECOND, THIRD, ATTENTION)] == [True] * 3 + [False]
        assert (await it.reviewer.post("/review/questionnaire")).status == 400
        refused = await it.reviewer.post("/review/questionnaire", {"recognised": "some", f"a.{FIRST}": "no-such"})
        assert refused.status == 400
        fields = {"recognised": "some", f"a.{FIRST}": "family-1", f"confidence.{FIRST}": "2"}
        assert (await it.reviewer.post("/review/questionnaire", fields)).header("location") == "/review/receipt"
        found = await it.round.store.reviewer(it.round.id, REVIEWERS[0])
        assert found is not None
        assert found.questionnaire is not None
        assert found.questionnaire["recognised"] == "some"
        assert found.questionnaire["guesses"][0] == {"item": FIRST, "a": "family-1", "b": None, "confidence": 2}
        assert (await it.reviewer.get("/review/questionnaire")).header("location") == "/review/"
        assert (await it.reviewer.post("/review/questionnaire", fields)).header("location") == "/review/"


# --- the wire -----------------------------------------------------------------------------------------------


async def test_every_answer_has_the_same_headers(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        answers = [
            await it.reviewer.get(path)
            for path in (
                "/review/",
                f"/review/items/{FIRST}",
                "/review/nowhere",
                "/review/static/review.css",
                "/review",
            )
        ]
        answers += [
            await it.reviewer.save(FIRST, {"choice": "a"}, base=0),
            await it.reviewer.save(FIRST, {"choice": "x"}, base=0),
            await it.reviewer.post("/review/leave", {"form": "x"}),
            await it.reviewer.post("/review/nowhere"),
        ]
        per_kind = {"content-type", "location", "content-length", "date", "server", "x-request-id"}
        for answer in answers:
            found = {name: value for name, value in answer.headers if name not in per_kind}
            assert found == dict(HEADERS)
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_a_pages_size_tells_nothing_and_both_sides_are_as_long(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        for item in (FIRST, SECOND, THIRD, ATTENTION):
            for plain in ("", "?plain=1"):
                answer = await it.reviewer.get(f"/review/items/{item}{plain}", accept_encoding="gzip, br, zstd")
                assert answer.header("content-encoding") is None
                assert len(answer.body) % PAGE_BYTES == 0
                sides = re.findall(rb'<div class="answer" [^>]*>(.*?)</div>\n</div>', answer.body, re.S)
                assert len(sides) == 2
                assert len(sides[0]) == len(sides[1])


async def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        for path in ("/review/", f"/review/items/{FIRST}"):
            page = (await it.reviewer.get(path)).body.decode()
            loaded = re.findall(r'(?:src|href|action)="([^"#]+)', page)
            assert all(target.startswith("/review/") for target in loaded)
            assert "style=" not in page
            assert not re.search(r"\son\w+=", page)
        for name in it.gateway.services.web.assets:
            answer = await it.reviewer.get(f"/review/static/{name}")
            assert answer.status == 200
            assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", answer.body.decode()) == []
        assert (await it.reviewer.get("/review/static/../app.py")).status == 404


async def test_nothing_that_reaches_a_reviewer_carries_a_canary(tmp_path: Path) -> None:
    """Models, calls, comparisons, facts, labels, strata, secrets and the sealed parts all carry one in this round."""
    async with reviewed(tmp_path, trained=False) as it:
        seen: list[bytes] = []

        def note(answer: object) -> None:
            seen.append(repr(answer).lower().encode())

        agreed = {"confidential": "yes", "consent": "yes", "language": "ko", "conflicts": "family-9"}
        note(await it.reviewer.get("/review/"))
        note(await it.reviewer.post("/review/consent", agreed))
        note(await it.reviewer.get("/review/training/1"))
        note(await it.reviewer.post("/review/training/1", {"choice": "a"}))
        note(await it.reviewer.post("/review/training/finish"))
        for item in (FIRST, SECOND, THIRD, ATTENTION):
            note(await it.reviewer.get(f"/review/items/{item}"))
            note(await it.reviewer.get(f"/review/items/{item}?plain=1"))
            note(await it.reviewer.save(item, {"choice": "x"}, base=0))
            note(await it.reviewer.save(item, {"choice": "a"}, base=7))
            note(await it.reviewer.save(item, {"choice": "a"}, base=0))
            note(await it.reviewer.save(item, {"choice": "b"}, base=0))
        note(await it.reviewer.get("/review/"))
        note(await it.reviewer.post("/review/submit", {"sure": "yes"}))
        for path in ("receipt", "receipt.json", "questionnaire", "nowhere", "items/x", "static/x"):
            note(await it.reviewer.get(f"/review/{path}"))
        note(await it.reviewer.post("/review/questionnaire", {"recognised": "none"}))
        for name in it.gateway.services.web.assets:
            note(await it.reviewer.get(f"/review/static/{name}"))
        for before, after in (
            (RoundStatus.OPEN, RoundStatus.PAUSED),
            (RoundStatus.PAUSED, RoundStatus.CLOSED),
            (RoundStatus.CLOSED, RoundStatus.REVEALED),
        ):
            await it.round.move(before, after)
            note(await it.reviewer.get("/review/"))
        assert not [page for page in seen if b"canary" in page]
        assert len(seen) > 40


async def test_the_review_is_not_in_the_description_of_the_api(tmp_path: Path) -> None:
    async with reviewed(tmp_path) as it:
        document = (await it.reviewer.get("/openapi.json")).json()
        assert not [path for path in document["paths"] if path.startswith("/review")]


def test_the_fixtures_own_answers_are_free_of_canaries() -> None:
    assert "canary" not in str([(prompt.text, prompt.stratum) for prompt in PLAN.prompts]).lower()


# --- after a kill -------------------------------------------------------------------------------------------


async def test_a_judgement_that_was_acknowledged_outlives_the_gateway(tmp_path: Path) -> None:
    """Sent again after the restart it is no new revision, and the session goes on."""
    url = f"sqlite:///{tmp_path / 'data' / 'simsa.db'}"
    (tmp_path / "data").mkdir()
    await upgrade(url)
    store = await Store.open(url)
    put = await put_round(store, trained=True)
    token = await put.token()
    await store.close()
    async with ScriptedEngine() as engine:
        async with (
            gateway_process(tmp_path, [entry("m", engine.url)]) as gateway,
            ReviewerClient(gateway.url) as reviewer,
        ):
            await reviewer.enter(token)
            assert (await reviewer.save(FIRST, {"choice": "a"}, base=0)).json()["revision"] == 1
            gateway.send(signal.SIGKILL)
            await gateway.ended()
        async with gateway_process(tmp_path, [entry("m", engine.url)]) as gateway, ReviewerClient(gateway.url) as again:
            again.cookie = reviewer.cookie
            await again.get(f"/review/items/{FIRST}")
            said = (await again.save(FIRST, {"choice": "a"}, base=0)).json()
            assert (said["revision"], said["complete"], said["number"]) == (1, True, 1)
            assert (await again.save(FIRST, {"choice": "b"}, base=1)).json()["revision"] == 2
