"""Writes docs/examples/round/: the report of a round in which nothing is real, in both languages.

Models, reviewers, answers and votes are drawn from a seed, and everything is marked `simulated`; the queues, the
sealing, the analysis and the pages are those of a real round. Run it again when a report changes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from gateway.domain.canonical_json import Json
from gateway.domain.hash_chain import Entry, append
from gateway.domain.lexicon import build_lexicon
from gateway.domain.records import Consortium, Licence, Model, Registry, Serving, ServingKind
from gateway.domain.rounds import (
    AnswerStatus,
    Choice,
    DesignOptions,
    ItemKind,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundKind,
    RoundPlan,
    RoundPrompt,
    RoundStatus,
    Text,
)
from gateway.rounds.ballots import Document
from gateway.rounds.defaults import RUBRICS, practice_items
from gateway.rounds.results import analyse_round, answer_documents, result_object
from gateway.rounds.sealed import lexicon_digest, seal

OUT = Path(__file__).parent.parent / "docs" / "examples" / "round"
BEGIN = datetime(2026, 10, 5, 0, 0, tzinfo=UTC)
STRATA = ("finance", "manufacturing", "public", "education", "health")
TASTE, TOPIC, TIES, BAD = 0.5, 0.5, 0.18, 0.05
"""Standard deviations, in logits, of what reviewers and prompts have of their own; shares of ties and of both bad."""


@dataclass(frozen=True, slots=True)
class MadeRound:
    """A closed round, as documents and as the objects they come from."""

    round: Round
    parts: Mapping[str, Any]
    votes: Sequence[Document]
    exclusions: Sequence[Document]
    reviewers: Sequence[Document]
    answers: Sequence[Document]
    items: Sequence[RoundItem]
    stored_answers: Sequence[RoundAnswer]
    people: Sequence[Reviewer]
    documents: Mapping[str, Any]
    """All sealed parts, the mapping among them."""

    def result(self) -> dict[str, Any]:
        """What the API gives for it."""
        analysis = analyse_round(self.parts, self.votes, self.exclusions, self.reviewers, self.answers)
        return result_object(self.round, analysis, self.documents)


def made_round(
    *,
    models: int = 8,
    reviewers: int = 40,
    prompts: int = 120,
    votes_each: int = 40,
    repeats: int = 2,
    cut: int | None = 4,
    seed: int = 1,
    spread: float = 1.1,
    provenance: str = "simulated",
    status: RoundStatus = RoundStatus.REVEALED,
) -> MadeRound:
    """A whole round from a seed. `spread`: strengths go from minus to plus so many logits."""
    rng = random.Random(seed)  # noqa: S311  an example, not a secret
    names = [f"sim-{number:02d}" for number in range(1, models + 1)]
    plan = _plan(names, prompts, votes_each, repeats, cut)
    answers = _answers(rng, plan, provenance)
    people = [
        Reviewer(f"r-{number:03d}", f"#{number}", "expert" if number % 3 else "user")
        for number in range(1, reviewers + 1)
    ]
    lexicon = build_lexicon(_registry(names))
    draft = Round(
        "0f1e2d3c-example", "example", BEGIN, "", RoundStatus.DRAFT, plan, provenance, lexicon_digest(lexicon)
    )
    sealed = seal(
        draft,
        answers=answers,
        reviewers=people,
        registry=_registry(names),
        lexicon=lexicon,
        seed=rng.randbytes(32),
        codes=rng.sample(names, models),
        new_id=lambda: rng.randbytes(16).hex(),
        new_salt=lambda: rng.randbytes(32),
    )
    code = {one["model"]: short for short, one in sealed.documents["mapping"].items()}
    worth = {name: spread * (1 - 2 * place / max(1, models - 1)) for place, name in enumerate(names)}
    entries = _votes(rng, draft.id, sealed.items, answers, worth)
    closed = replace(
        draft,
        status=status,
        seed=sealed.seed,
        root=sealed.root,
        head=entries[-1].hash,
        votes=len(entries),
        sealed_at=BEGIN + timedelta(days=3),
        opened_at=BEGIN + timedelta(days=4),
        closed_at=BEGIN + timedelta(days=18),
        revealed_at=BEGIN + timedelta(days=19) if status is RoundStatus.REVEALED else None,
    )
    return MadeRound(
        round=closed,
        parts=dict(sealed.documents)
        if status is RoundStatus.REVEALED
        else {name: part for name, part in sealed.documents.items() if name != "mapping"},
        votes=[entry.payload for entry in entries],  # type: ignore[misc]  # payloads are objects
        exclusions=_exclusions(sealed.items, people),
        reviewers=[_reviewer(rng, one, sealed.items) for one in people],
        answers=answer_documents(answers, code),
        items=sealed.items,
        stored_answers=answers,
        people=people,
        documents=sealed.documents,
    )


def _plan(names: Sequence[str], prompts: int, votes_each: int, repeats: int, cut: int | None) -> RoundPlan:
    return RoundPlan(
        title=Text("예시 심사", "Example round"),
        models=tuple(names),
        prompts=tuple(
            RoundPrompt(f"p-{number:03d}", STRATA[number % len(STRATA)], "ko", f"예시 질문 {number}")
            for number in range(prompts)
        ),
        rubric=RUBRICS[RoundKind.ANSWERS],
        design=DesignOptions(votes_per_reviewer=votes_each, repeats_per_reviewer=repeats),
        sampling={"temperature": 0.7, "max_tokens": 1024},
        cut=cut,
        training=practice_items(RoundKind.ANSWERS, "training"),
        attention=practice_items(RoundKind.ANSWERS, "attention"),
    )


def _registry(names: Sequence[str]) -> Registry:
    """Models that there are not, each of a consortium of its own; the first one's licence demands a notice."""
    consortia = {
        f"team-{name}": Consortium(
            f"team-{name}", f"모의 컨소시엄 {name[4:]}", f"Simulated consortium {name[4:]}", programme_status="unknown"
        )
        for name in names
    }
    models = {
        name: Model(
            name,
            Serving(ServingKind.NONE, name),
            consortium_id=f"team-{name}",
            name=f"Sim {name[4:]}",
            licence=Licence("example", commercial=None, notice="Built with an example" if name == names[0] else None),
        )
        for name in names
    }
    return Registry(models, consortia, gpus={}, rates=(), sources={}, as_of=None, sha256="0" * 64)


def _answers(rng: random.Random, plan: RoundPlan, provenance: str) -> list[RoundAnswer]:
    """Lorem of different lengths and looks; two models failed once."""
    found = []
    for place, model in enumerate(plan.models):
        for number, prompt in enumerate(plan.prompts):
            failed = (place, number) in {(1, 7), (4, 11)}
            text = None if failed else _text(rng, place)
            status = AnswerStatus.FAILED if failed else AnswerStatus.OK
            found.append(RoundAnswer(prompt.id, model, status, None, None, provenance, text, text, (), {}))
    return found


def _text(rng: random.Random, place: int) -> str:
    words = rng.choices(
        ["예시", "답변입니다.", "모의", "심사에서는", "쓰이지"], k=rng.randint(40 + 8 * (place % 3), 120)
    )
    heads = ["## 제목"] * rng.randint(0, 1 + place % 2)
    points = [rng.choice(["- **항목** 설명", "- 항목 설명"]) for _ in range(rng.randint(0, 4))]
    return "\n\n".join([*heads, " ".join(words), "\n".join(points)])


def _votes(
    rng: random.Random,
    round_id: str,
    items: Sequence[RoundItem],
    answers: Sequence[RoundAnswer],
    worth: Mapping[str, float],
) -> list[Entry]:
    """The chain: every item once, some revised, by reviewers and prompts with tastes of their own."""
    own: dict[tuple[str, str], float] = {}
    length = {(one.model, one.prompt_id): len(one.shown or "") for one in answers}
    entries: list[Entry] = []
    for number, item in enumerate(items):
        judgements = [_judgement(rng, item, own, worth, length)]
        if number % 25 == 0:
            judgements.insert(0, {**judgements[0], "choice": Choice.TIE.value})
        for revision, judgement in enumerate(judgements, start=1):
            at = BEGIN + timedelta(days=4, seconds=40 * len(entries))
            payload: Json = {
                "number": len(entries) + 1,
                "item": item.id,
                "reviewer": item.reviewer,
                "revision": revision,
                "at": at.isoformat(),
                "judgement": judgement,
            }
            entries.append(append(payload, after=entries[-1] if entries else None, round_id=round_id))
    return entries


def _judgement(
    rng: random.Random,
    item: RoundItem,
    own: dict[tuple[str, str], float],
    worth: Mapping[str, float],
    length: Mapping[tuple[str, str], int],
) -> dict[str, Any]:
    if item.kind is ItemKind.ATTENTION:
        shipped = {one.id: one.better.value for one in practice_items(RoundKind.ANSWERS, "attention")}
        is_right = rng.random() < 0.97
        return {"choice": "a" if (item.left == shipped[item.prompt_id]) is is_right else "b", "seconds": 20}

    def worth_of(model: str) -> float:
        taste = own.setdefault((item.reviewer, model), rng.gauss(0, TASTE))
        topic = own.setdefault((item.prompt_id, model), rng.gauss(0, TOPIC))
        return worth[model] + taste + topic + 0.002 * (length[model, item.prompt_id] - 400)

    gap = worth_of(item.left) - worth_of(item.right) + 0.08
    luck = rng.random()
    both = 1 / (1 + math.exp(1.2 * (worth[item.left] + worth[item.right]) + 1.2))
    chance = 1 / (1 + math.exp(-gap))
    if luck < BAD + 0.3 * both:
        choice = Choice.BOTH_BAD
    elif luck < BAD + 0.3 * both + TIES:
        choice = Choice.TIE
    elif luck > 0.99:
        choice = Choice.CANNOT_JUDGE
    else:
        choice = Choice.A if rng.random() < chance else Choice.B
    grades = {criterion.id: _grade(rng, gap) for criterion in RUBRICS[RoundKind.ANSWERS]}
    return {
        "choice": choice.value,
        "grades": grades,
        "seconds": rng.randint(25, 140),
        **({"recognised": True} if rng.random() < 0.03 else {}),
    }


def _grade(rng: random.Random, gap: float) -> int:
    """From -2, A much better."""
    return max(-2, min(2, round(-gap + rng.gauss(0, 0.9))))


def _exclusions(items: Sequence[RoundItem], people: Sequence[Reviewer]) -> list[Document]:
    conflicted = [item.id for item in items if item.reviewer == people[0].id and item.kind is ItemKind.VOTE][:3]
    return [
        {"rule": "conflict", "kind": "item", "subject": item, "reason": "declared", "by": "rule"} for item in conflicted
    ]


def _reviewer(rng: random.Random, one: Reviewer, items: Sequence[RoundItem]) -> Document:
    """With a questionnaire in which most do not know."""
    asked = [item for item in items if item.reviewer == one.id and item.kind is ItemKind.VOTE][:5]

    def guess(model: str) -> str | None:
        luck = rng.random()
        if luck < 0.6:
            return None
        return f"team-{model}" if luck < 0.66 else f"team-{rng.choice([item.left for item in asked])}"

    guesses = [{"item": item.id, "a": guess(item.left), "b": guess(item.right), "confidence": 1} for item in asked]
    moment = (BEGIN + timedelta(days=15)).isoformat()
    questionnaire = {"recognised": "none", "guesses": guesses}
    return {"id": one.id, "stratum": one.stratum, "submitted_at": moment, "questionnaire": questionnaire}


LANGUAGES: tuple[Literal["ko", "en"], ...] = ("ko", "en")


def main() -> None:
    from gateway.rounds.report import report_page

    result = made_round().result()
    OUT.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        (OUT / f"report.{language}.html").write_text(report_page(result, language=language))


if __name__ == "__main__":
    main()
