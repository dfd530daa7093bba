"""A whole round put into a database, sealed, judged and closed, for tests of what is published of it.

Names of models carry the word CANARY, so that a name that comes out before the reveal is seen. Votes are drawn from a
seed; two reviewers wrote in their own words, one of them a telephone number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.domain.hash_chain import genesis
from gateway.domain.lexicon import build_lexicon
from gateway.domain.records import CandidateNames, Consortium, Model, Registry, Serving, ServingKind
from gateway.domain.rounds import (
    AccessEntry,
    AnswerStatus,
    Approval,
    Choice,
    Criterion,
    DesignOptions,
    Exclusion,
    PracticeItem,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundPlan,
    RoundPrompt,
    RoundStatus,
    Text,
    VoteEntry,
)
from gateway.rounds.chain import next_entry, sealed_digests
from gateway.rounds.closing import closing_of
from gateway.rounds.conflicts import consortia_of_models, is_conflict
from gateway.rounds.contents import RoundContent, read_content
from gateway.rounds.desk import redactor
from gateway.rounds.sealed import SALT, Sealed, lexicon_digest, seal
from gateway.rounds.store import RoundStore

BEGIN = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
ID = "0b9c4a52-closed"
MODELS = ("CANARY-alpha", "CANARY-beta", "CANARY-gamma")
PHONE = "010-1234-5678"
APPROVALS = (
    Approval("key-chair", "chair", BEGIN + timedelta(days=8, hours=1)),
    Approval("key-operator", "operator", BEGIN + timedelta(days=8, hours=2)),
)
PLAN = RoundPlan(
    title=Text("1차 심사", "First round"),
    models=MODELS,
    prompts=tuple(RoundPrompt(f"p{n}", "finance" if n % 2 else "law", "ko", f"질문 {n}") for n in range(8)),
    rubric=(
        Criterion("quality", Text("품질", "Quality"), Text("어느 쪽?", "Which?"), Decimal("0.7")),
        Criterion("use", Text("활용", "Use"), Text("어느 쪽?", "Which?"), Decimal("0.3")),
    ),
    design=DesignOptions(votes_per_reviewer=6),
    sampling={"temperature": 0.5},
    cut=1,
    attention=(
        PracticeItem("x1", "ko", "수도는?", "서울", "모름", Choice.A, Text("A", "A")),
        PracticeItem("x2", "ko", "2+2는?", "5", "4", Choice.B, Text("B", "B")),
    ),
)
PRODUCTS = ("Zephyrion", "Quillon", "Marabel")
"""What the models' families are called in the lexicon, which every bundle shows: no canary."""
CONSORTIA = {
    f"family-{n}": Consortium(
        f"family-{n}",
        f"{n}번 컨소시엄",
        f"Consortium {n}",
        programme_status="in",
        names=CandidateNames(latin=(product,)),
    )
    for n, product in enumerate(PRODUCTS)
}
REGISTRY = Registry(
    {
        name: Model(name, Serving(ServingKind.NONE, name), consortium_id=f"family-{n}", name=name)
        for n, name in enumerate(MODELS)
    },
    CONSORTIA,
    gpus={},
    rates=(),
    sources={},
    as_of=None,
    sha256="0" * 64,
)


@dataclass(frozen=True, slots=True)
class ClosedRound:
    store: RoundStore
    sealed: Sealed
    receipt: Mapping[str, Any]
    """The first reviewer's."""

    async def round(self) -> Round:
        found = await self.store.get(ID)
        assert found is not None
        return found

    async def content(self) -> RoundContent:
        return await read_content(self.store, await self.round())

    async def reveal(self, approvals: Sequence[Approval] = APPROVALS) -> None:
        for given in approvals:
            entry = AccessEntry(given.at, given.who, given.role, "reveal.approve")
            await self.store.approve(ID, "reveal", given, entry=entry, before={RoundStatus.CLOSED})
        at = BEGIN + timedelta(days=9)
        assert await self.store.move(ID, {RoundStatus.CLOSED}, RoundStatus.REVEALED, revealed_at=at)


def answers() -> list[RoundAnswer]:
    """All but one; each in its own words, which name its model, and as shown."""
    found, hide = [], redactor(REGISTRY)
    for n, model in enumerate(MODELS):
        for prompt in PLAN.prompts:
            if (n, prompt.id) == (1, "p3"):
                facts = {"error": {"code": "timeout", "message": f"{model} did not answer"}}
                failed = (AnswerStatus.FAILED, None, None, "simulated", None, None)
                found.append(RoundAnswer(prompt.id, model, *failed, (), facts))
                continue
            words = f"**{prompt.id}**에 대한 답 {'길게 ' * (n + 1)}" + (f"문의 {PHONE}" if prompt.id == "p5" else "")
            text = f"저는 {PRODUCTS[n]}의 {model}입니다. {words}"
            shown, redactions = hide(text, model=model, prompt=prompt.text)
            facts = {
                "usage": {"completion_tokens": 10 + n},
                "timing": {"e2e_s": 0.25 * (n + 1)},
                "cost": {"amount": "0.0001", "currency": "USD"},
                "finish_reason": "stop",
                "error": None,
            }
            ids = (f"cmp-{prompt.id}", f"call-{model}-{prompt.id}", "simulated")
            texts = (text, shown)
            found.append(RoundAnswer(prompt.id, model, AnswerStatus.OK, *ids, *texts, redactions, facts))
    return found


async def put_closed_round(store: RoundStore, *, reviewers: int = 4, seed: int = 3) -> ClosedRound:
    rng = random.Random(seed)
    lexicon = build_lexicon(REGISTRY)
    draft = Round(ID, "closed", BEGIN, "", RoundStatus.DRAFT, PLAN, "simulated", lexicon_digest(lexicon))
    people = [Reviewer(f"r-{n}", f"LABEL {n}", "expert" if n % 2 else "user") for n in range(reviewers)]
    await store.create(draft, {"links": "00"})
    await store.add_reviewers(ID, people)
    await store.save_answers(ID, answers())
    sealed = seal(
        draft,
        answers=await store.answers(ID),
        reviewers=await store.reviewers(ID),
        registry=REGISTRY,
        lexicon=lexicon,
        seed=rng.randbytes(32),
        codes=rng.sample(MODELS, len(MODELS)),
        new_id=lambda: rng.randbytes(16).hex(),
        new_salt=lambda: rng.randbytes(32),
    )
    assert await store.seal(
        ID,
        items=sealed.items,
        documents={**sealed.documents, "commitments": dict(sealed.commitments)},
        secrets={SALT + name: salt for name, salt in sealed.salts.items()},
        seed=sealed.seed,
        root=sealed.root,
        head=genesis(ID),
        sealed_at=BEGIN + timedelta(days=1),
    )
    await store.note_access(
        ID, AccessEntry(BEGIN + timedelta(days=1), "key-chair", "chair", "round.sealed", sealed.root)
    )
    assert await store.move(ID, {RoundStatus.SEALED}, RoundStatus.OPEN, opened_at=BEGIN + timedelta(days=2))
    receipt = await _judge(store, sealed, people, rng)
    assert await store.move(ID, {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=BEGIN + timedelta(days=8))
    closed = await store.get(ID)
    assert closed is not None
    await closing_of(store, closed)
    return ClosedRound(store, sealed, receipt)


async def _judge(
    store: RoundStore, sealed: Sealed, people: Sequence[Reviewer], rng: random.Random
) -> Mapping[str, Any]:
    """Everybody judges everything in turns, but one what they declared a conflict with; the first one's receipt."""
    close, consortia = people[1].id, consortia_of_models(sealed.documents["mapping"])
    aside = [
        item
        for item in sealed.items
        if item.reviewer == close and is_conflict(item.kind, (item.left, item.right), consortia, {"family-2"})
    ]
    at = BEGIN + timedelta(days=3)
    for one in people:
        is_close = one.id == close
        assert await store.declare(
            ID,
            one.id,
            ["family-2"] if is_close else [],
            entry=AccessEntry(at, one.id, "reviewer", "consent"),
            consented_at=at,
            aside=[Exclusion(at, "conflict", "item", item.id, "a secret reason", "rule") for item in aside if is_close],
        )
    given: list[VoteEntry] = []
    shown: dict[str, Any] = sealed_digests(sealed.documents)
    for item in sorted(sealed.items, key=lambda one: (one.position, one.reviewer)):
        if item in aside:
            continue
        for _ in range(2 if item.position == 1 else 1):
            entry = await store.append_vote(
                ID, item, lambda before, item=item: _entry(before, item, rng, shown[item.id])
            )  # type: ignore[misc]
            assert entry is not None
            given.append(entry)
    for n, one in enumerate(people):
        at = BEGIN + timedelta(days=6, minutes=n)
        asked = next(item for item in sealed.items if item.reviewer == one.id and item.kind.value == "vote")
        guess = {"item": asked.id, "a": "family-0", "b": None, "confidence": 2}
        told = {"recognised": "none", "guesses": [guess]}
        await store.update_reviewer(ID, one.id, submitted_at=at, questionnaire=told)
    own = [entry for entry in given if entry.reviewer == people[0].id]
    last = {entry.item: entry for entry in own}
    return {
        "kind": "simsa.review.receipt.v1",
        "round": ID,
        "root": sealed.root,
        "reviewer": people[0].id,
        "head": {"number": given[-1].number, "hash": given[-1].hash},
        "items": [
            {"item": one.item, "number": one.number, "revision": one.revision, "hash": one.hash}
            for one in last.values()
        ],
    }


def _entry(before: Mapping[str, Any], item: RoundItem, rng: random.Random, shown: Mapping[str, str]) -> VoteEntry:
    choice = rng.choice([one.value for one in Choice])
    said: dict[str, Any] = {"choice": choice, "grades": {"quality": rng.randint(-2, 2)}, "seconds": rng.randint(5, 99)}
    if before["number"] % 7 == 1:
        said["comment"] = f"제 번호는 {PHONE}입니다" if before["number"] == 1 else "의견입니다"
    if choice == Choice.CANNOT_JUDGE.value:
        said["reason"] = "전문 밖"
    at = BEGIN + timedelta(days=4, seconds=before["number"])
    return next_entry(before, round_id=ID, item=item, at=at, judgement=said, salt=rng.randbytes(32), shown=shown)


def count_choices(
    parts: Mapping[str, Any],
    votes: Sequence[Mapping[str, Any]],
    exclusions: Sequence[Mapping[str, Any]],
    reviewers: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A small analysis that hangs on everything that it is given: what was chosen for whom, and how many of each."""
    items = {item["id"]: item for item in parts["items"]}
    left_out = {one["subject"] for one in exclusions}
    wins: dict[str, float] = dict.fromkeys(parts["plan"]["models"], 0.0)
    for vote in {vote["item"]: vote for vote in votes}.values():
        item = items[vote["item"]]
        side = {"a": item["left"], "b": item["right"]}.get(vote["judgement"].get("choice"))
        if side in wins and item["id"] not in left_out:
            wins[side] += 1 / len(votes)
    told = sum(1 for one in reviewers if one.get("questionnaire"))
    shown = sum(len(one["shown"] or "") for one in answers)
    return {"wins": wins, "exclusions": len(exclusions), "blinding": {"told": told}, "shown": shown}
