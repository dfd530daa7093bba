"""A small whole round on real vLLM: stand-ins answer, three reviewers judge, the bundle is verified.

The weights are random, so that the answers are noise: what is shown is that a round runs through on the real engine,
and that everything of it says `stand_in`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateways import RunningGateway
from processes_under_test import run_simsa
from real_engines import HYBRID, LLAMA, RealEngine, gateway_before
from reviewer_clients import ReviewerClient
from round_operators import RoundOperator

from gateway.domain.accounts import Role, Terms
from gateway.prompts import load_prompts

ADMIN = "admin-key-of-this-test"
PLAN: dict[str, Any] = {
    "name": "real",
    "title": {"ko": "실제 엔진 심사", "en": "A round on real engines"},
    "models": [LLAMA, HYBRID],
    "prompts": [
        {"id": f"q{n}", "text": prompt.text, "stratum": prompt.industry}
        for n, prompt in enumerate(load_prompts(language="ko")[:3])
    ],
    "design": {"votes_per_reviewer": 3},
    "sampling": {"max_tokens": 24, "temperature": 0.7},
}


@pytest.fixture
async def gateway(tmp_path: Path, llama: RealEngine, hybrid: RealEngine) -> AsyncIterator[RunningGateway]:
    async with gateway_before(tmp_path, llama, hybrid, admin_key=ADMIN) as running:
        yield running


async def test_a_round_runs_through_and_says_that_its_engines_stood_in(gateway: RunningGateway, tmp_path: Path) -> None:
    operator = RoundOperator(gateway.url, ADMIN)
    chair = RoundOperator(gateway.url, await gateway.key_of("chair", Terms(roles=frozenset({Role.CHAIR}))))
    round_id = await chair.draft(PLAN)
    kept = await operator.answers(round_id)
    assert (kept["kept"]["answers"], kept["kept"]["failed"]) == (6, 0)
    links = await chair.invite(round_id, 3)
    sealed = await chair.seal(round_id)
    assert sealed["provenance"] == "stand_in"
    await chair.step(round_id, "open")
    for link in links:
        await judge_all(gateway.url, link)
    closed = await chair.step(round_id, "close")
    assert (await chair.step(round_id, "reveal"))["missing"] == ["operator"]
    assert (await operator.step(round_id, "reveal"))["missing"] == []
    result = await chair.ask("GET", f"/{round_id}/results")
    assert result["is_ranking"] is False
    assert LLAMA in str(result)
    bundle = tmp_path / "audit.zip"
    bundle.write_bytes((await operator.answer("GET", f"/{round_id}/export?kind=audit")).body)
    published = ("--root", sealed["root"], "--head", closed["head"], "--closing", closed["closing"])
    verified = await run_simsa("round", "verify", str(bundle), *published, "--json")
    assert verified.code == 0, verified


async def judge_all(url: str, link: str) -> None:
    """From the link to the submission; the pages name no model."""
    async with ReviewerClient(url) as reviewer:
        await reviewer.enter(link)
        agreed = {"no_conflict": "yes", "confidential": "yes", "consent": "yes", "language": "ko"}
        await reviewer.post("/review/consent", agreed)
        await reviewer.post("/review/training/finish")
        queue = (await reviewer.get("/review/")).body.decode()
        items = re.findall(r"/review/items/([0-9a-f]{32})\"><span", queue)
        assert len(items) >= 3
        for number, item in enumerate(items):
            page = (await reviewer.get(f"/review/items/{item}")).body.decode()
            assert LLAMA not in page
            assert HYBRID not in page
            choice = ("a", "b", "tie", "both_bad")[number % 4]
            assert (await reviewer.save(item, {"choice": choice}, base=0)).status == 200
        answer = await reviewer.post("/review/submit", {"sure": "yes"})
        assert answer.header("location") == "/review/receipt"
