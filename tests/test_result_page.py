"""The page of a result: who is refused it, and that what it draws and says is what the numbers say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browsers import running_browser
from gateways import RunningGateway, running_gateway
from playwright.async_api import Page
from reviewer_clients import ReviewerClient
from test_round_report import Seen
from test_round_results import keep

from gateway.domain.rounds import RoundStatus
from gateway.rounds.conclusion_words import Language
from gateway.rounds.links import make_token
from gateway.rounds.report import report_page
from scripts.round_example import BEGIN, LANGUAGES, MadeRound, made_round

ADMIN = "admin-key-of-this-test"
NOT_REAL = {
    ("simulated", "ko"): "순위 아님(모의 답변)",
    ("simulated", "en"): "not a ranking (simulated answers)",
    ("stand_in", "ko"): "순위 아님(대역 모델의 답변)",
    ("stand_in", "en"): "not a ranking (answers of stand-in weights)",
}
FEW = {
    "ko": "심사위원이 12명으로 30명보다 적습니다",
    "en": "Caution: 12 reviewers were counted, fewer than 30",
}


@cache
def revealed(provenance: str = "simulated", reviewers: int = 12) -> dict[str, Any]:
    """The result of a round with four candidates and a line behind the second."""
    return made(provenance=provenance, reviewers=reviewers).result()


def made(**options: Any) -> MadeRound:
    chosen = {"models": 4, "reviewers": 12, "prompts": 24, "votes_each": 18, "cut": 2, "seed": 5, **options}
    return made_round(**chosen)


# --- who is refused it ------------------------------------------------------------------------------------------


async def test_it_is_refused_until_closing_to_all_and_until_the_reveal_to_reviewers(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, [{"id": "m", "serving": {"kind": "vllm"}}], admin_key=ADMIN) as gateway:
        store, of = gateway.services.rounds.store, made()
        await keep(store, of)
        async with ReviewerClient(gateway.url) as chair, ReviewerClient(gateway.url) as reviewer:
            await chair.post("/rounds/sign-in", {"key": ADMIN, "form": ""})
            await reviewer.enter(await token(gateway, of))
            for language in LANGUAGES:
                refused = await chair.get(f"/rounds/{of.round.id}/result?lang={language}")
                assert refused.status == 409
                assert not re.search(r"Sim 0|M0\d|\d%", refused.body.decode())
            assert (await reviewer.get("/review/result")).status == 303
            await store.move(of.round.id, {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=BEGIN)
            coded = await chair.get(f"/rounds/{of.round.id}/result")
            assert (coded.status, "Sim 0" in coded.body.decode()) == (200, False)
            assert (await reviewer.get("/review/result")).status == 303
            await store.move(of.round.id, {RoundStatus.CLOSED}, RoundStatus.REVEALED, revealed_at=BEGIN)
            for browser, path in ((chair, f"/rounds/{of.round.id}/result"), (reviewer, "/review/result")):
                named = await browser.get(path)
                assert (named.status, "Sim 01" in named.body.decode()) == (200, True)


async def token(gateway: RunningGateway, of: MadeRound) -> str:
    found = await gateway.services.rounds.store.reviewer(of.round.id, of.people[0].id)
    assert found is not None
    return make_token("00", of.round.id, found, expires_at=BEGIN.replace(year=BEGIN.year + 100))


# --- what it shows ----------------------------------------------------------------------------------------------

PLOT = """
plot => {
  const middle = one => { const box = one.getBoundingClientRect(); return (box.left + box.right) / 2 };
  const rows = [...plot.querySelectorAll(".name")].map(name => {
    const value = name.nextElementSibling, drawn = value.nextElementSibling;
    const span = drawn.querySelector(".whisker, .range").getBoundingClientRect(), dot = drawn.querySelector(".dot");
    const words = [...value.childNodes].map(one => one.textContent);
    const at = {low: span.left, high: span.right, ...(dot && {dot: middle(dot)})};
    return {name: name.firstChild.textContent, words, at};
  });
  return {rows, ticks: [...plot.querySelectorAll("text")].map(one => [parseFloat(one.textContent), middle(one)])};
}
"""
"""What somebody who looks at a drawing sees: names, the words beside them, places on the screen and what these mean."""


async def drawn(page: Page, section: str) -> list[dict[str, Any]]:
    """The rows of a section's drawing, places read off its axis."""
    seen = await page.locator(f"section[aria-labelledby={section}] .plot").evaluate(PLOT)
    (first, left), *_, (last, right) = seen["ticks"]

    def read(place: float) -> float:
        return float(first + (last - first) * (place - left) / (right - left))

    return [{**row, "at": {name: read(place) for name, place in row["at"].items()}} for row in seen["rows"]]


async def test_its_drawings_stand_where_the_numbers_say() -> None:
    models = revealed()["analysis"]["overall"]["models"]
    async with running_browser() as browser:
        page = await browser.new_page()
        for language, rank in (("ko", "위"), ("en", "")):
            await page.set_content(report_page(revealed(), language=language))  # type: ignore[arg-type]
            rates, ranks = await drawn(page, "standing"), await drawn(page, "ranks")
            for one, rate, place in zip(models, rates, ranks, strict=True):
                low, high = one["win_rate_interval"]
                assert rate["name"] == place["name"] == name_of(one)
                assert rate["words"] == [f"{100 * one['win_rate']:.0f}%", f"{100 * low:.0f}–{100 * high:.0f}%"]
                shown = {"low": 100 * low, "dot": 100 * one["win_rate"], "high": 100 * high}
                assert rate["at"] == pytest.approx(shown, abs=0.5)
                best, worst = one["best_rank"], one["worst_rank"]
                assert place["words"] == [f"{best}–{worst}{rank}" if best < worst else f"{best}{rank}"]
                assert place["at"] == pytest.approx({"low": best - 0.32, "high": worst + 0.32}, abs=0.1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_table_gives_every_name_its_strength_interval_and_ranks(language: Language) -> None:
    text = " ".join(Seen(report_page(revealed(), language=language)).text)
    for one in revealed()["analysis"]["overall"]["models"]:
        best, worst = one["best_rank"], one["worst_rank"]
        low, high = (f"{end:.2f}".replace("-", "−") for end in one["strength_interval"])
        joined = f"{low} ~ {high}" if "−" in low + high else f"{low}–{high}"
        ranks = str(best) if best == worst else f"{best}–{worst}"
        row = rf"{name_of(one)} {ranks} [\d.]+% [\d.%–]+ {one['strength']:.2f} {re.escape(joined)} "
        assert re.search(row.replace("-", "−"), text)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("provenance", ["simulated", "stand_in"])
def test_its_title_says_that_answers_were_not_real(provenance: str, language: Language) -> None:
    page = report_page(revealed(provenance), language=language)
    title, heading = (re.findall(f"<{tag}>(.*?)</{tag}>", page) for tag in ("title", "h1"))
    assert title == heading
    assert title[0].endswith(NOT_REAL[provenance, language])


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_answers_of_enough_people_carry_no_warning_and_few_people_do(language: Language) -> None:
    few = report_page(revealed("real"), language=language)
    enough = report_page(revealed("real", reviewers=30), language=language)
    assert FEW[language] in few
    assert not re.search("30명보다 적|fewer than 30", enough)
    for page in (few, enough):
        assert not re.search("순위 아님|not a ranking|모의 답변|simulated", page)


def name_of(one: dict[str, Any]) -> str:
    found: str = revealed()["names"][one["model"]]["name"]
    return found
