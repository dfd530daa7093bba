"""The result of a round over HTTP: for whom, from when, in which forms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clients import Answer, RawClient
from gateways import RunningGateway, running_gateway
from test_round_results import keep

from gateway.domain.accounts import Role, Terms
from gateway.domain.rounds import RoundStatus
from gateway.rounds.report import POLICY
from scripts.round_example import BEGIN, MadeRound, made_round

ADMIN = "admin-key-of-this-test"
FORMS = ("results", "report", "tables/standing")


@pytest.fixture(scope="module")
def made() -> MadeRound:
    return made_round(models=3, reviewers=4, prompts=12, votes_each=12, cut=1, seed=2, status=RoundStatus.CLOSED)


@pytest.fixture
async def gateway(tmp_path: Path, made: MadeRound) -> AsyncIterator[RunningGateway]:
    """With the made round, still open."""
    async with running_gateway(tmp_path, [{"id": "m", "serving": {"kind": "vllm"}}], admin_key=ADMIN) as running:
        await keep(running.services.rounds.store, made)
        yield running


async def get(gateway: RunningGateway, made: MadeRound, form: str, *, key: str = ADMIN) -> Answer:
    async with RawClient(gateway.url, key=key) as client:
        return await client.request("GET", f"/api/rounds/{made.round.id}/{form}")


async def close(gateway: RunningGateway, made: MadeRound) -> None:
    store = gateway.services.rounds.store
    assert await store.move(made.round.id, {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=BEGIN)


async def reveal(gateway: RunningGateway, made: MadeRound) -> None:
    store = gateway.services.rounds.store
    assert await store.move(made.round.id, {RoundStatus.CLOSED}, RoundStatus.REVEALED, revealed_at=BEGIN)


async def test_nobody_gets_a_result_before_closing(gateway: RunningGateway, made: MadeRound) -> None:
    for form in FORMS:
        answer = await get(gateway, made, form)
        assert answer.status == 409
        assert "before a round is closed" in answer.json()["error"]["message"]
        assert "win_rate" not in answer.body.decode()


async def test_a_result_has_codes_until_the_reveal_and_names_after_it(gateway: RunningGateway, made: MadeRound) -> None:
    await close(gateway, made)
    closed = await get(gateway, made, "results")
    assert closed.status == 200
    assert closed.json()["names"] is None
    assert closed.json()["is_ranking"] is False
    assert closed.json()["title"]["ko"] == "예시 심사 · 블라인드 심사 연습 결과 — 순위 아님(모의 답변)"
    assert "sim-" not in closed.body.decode()
    assert closed.json()["conclusions"]["en"][0]["is_caution"] is True

    await reveal(gateway, made)
    revealed = (await get(gateway, made, "results")).json()
    assert sorted(one["model"] for one in revealed["names"].values()) == ["sim-01", "sim-02", "sim-03"]
    assert [one["licence_notice"] for one in revealed["names"].values() if one["licence_notice"]]
    assert revealed["analysis"]["overall"] == closed.json()["analysis"]["overall"]


async def test_the_report_is_one_page_in_the_language_asked_for(gateway: RunningGateway, made: MadeRound) -> None:
    await close(gateway, made)
    korean, english = await get(gateway, made, "report"), await get(gateway, made, "report?lang=en")
    assert (korean.status, english.status) == (200, 200)
    assert korean.header("content-security-policy") == POLICY
    assert korean.header("cache-control") == "no-store"
    assert (korean.header("content-language"), english.header("content-language")) == ("ko", "en")
    assert '<html lang="ko">' in korean.body.decode()
    assert '<html lang="en">' in english.body.decode()
    assert (await get(gateway, made, "report?lang=fr")).status == 400


async def test_every_table_is_a_file_for_spreadsheets(gateway: RunningGateway, made: MadeRound) -> None:
    await close(gateway, made)
    for table in (await get(gateway, made, "results")).json()["tables"]:
        answer = await get(gateway, made, f"tables/{table}")
        assert answer.status == 200
        assert answer.body.startswith(b"\xef\xbb\xbf")
        assert answer.header("content-disposition") == f'attachment; filename="{table}.csv"'


async def test_a_table_that_there_is_not_is_told_with_those_there_are(gateway: RunningGateway, made: MadeRound) -> None:
    answer = await get(gateway, made, "tables/everything")
    assert answer.status == 404
    assert "standing, pairs" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("role", "status"), [(Role.CHAIR, 404), (Role.AUDITOR, 200), (Role.REVIEWER, 403), (Role.INTEGRATOR, 403)]
)
async def test_results_are_for_auditors_and_for_who_runs_the_round(
    gateway: RunningGateway, made: MadeRound, role: Role, status: int
) -> None:
    """An auditor sees every round; to another organisation's chair the operator's own is as good as none."""
    await close(gateway, made)
    key = await gateway.key_of("other", Terms(roles=frozenset({role})))
    assert [(await get(gateway, made, form, key=key)).status for form in FORMS] == [status] * 3


async def test_who_read_a_result_is_noted(gateway: RunningGateway, made: MadeRound) -> None:
    await close(gateway, made)
    for form in FORMS:
        await get(gateway, made, form)
    noted = await gateway.services.rounds.store.accesses(made.round.id)
    assert [entry.action for entry in noted] == ["results.read"] * 3
