"""A dry run: a draft goes through everything that a round goes through, with votes that nobody cast.

Votes, revisions and exclusions are drawn from the seed of the queues; the bundle is written, read back and verified as
a stranger would. Values in, values out: nothing of it reaches the round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from gateway.domain.accounts import Role
from gateway.domain.design_facts import design_facts
from gateway.domain.planner import plan_round
from gateway.domain.rounds import (
    AccessEntry,
    Approval,
    Choice,
    Clearance,
    Exclusion,
    ItemKind,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundPlan,
    RoundStatus,
    VoteEntry,
)
from gateway.rounds.bundle import BundleKind, Tools, build_bundle
from gateway.rounds.chain import next_entry, sealed_digests
from gateway.rounds.clearing import CLEAR, comments_of
from gateway.rounds.closing import close, codes_of
from gateway.rounds.conflicts import CONFLICT, consortia_of_models, is_conflict
from gateway.rounds.contents import RoundContent
from gateway.rounds.life import APPROVE
from gateway.rounds.sealed import MAPPING, Sealed, deal
from gateway.rounds.verify import Published, Verification, verify_bundle

_SPREAD = 1.0
"""Of the made-up strengths, in logits to either side."""
_MOST_PROBLEMS = 20
_SECONDS_EACH = 40
_CLEARED = 3
"""Comments, at most, of which made-up clearances are given."""


def rehearse_round(
    one: Round,
    sealed: Sealed,
    answers: Sequence[RoundAnswer],
    reviewers: Sequence[Reviewer],
    *,
    families: Sequence[str],
    tools: Tools,
    now: datetime,
) -> dict[str, Any]:
    """What a dry run found: passed, facts, problems. `families`: consortia that reviewers may guess.

    It computes for seconds: run it in a thread.
    """
    begun = perf_counter()
    content = made_up_content(one, sealed, answers, reviewers, families=families, now=now)
    bundles = {kind: build_bundle(content, kind, tools=tools) for kind in BundleKind}
    problems: list[str] = []
    for kind, bundle in bundles.items():
        published = Published(
            root=sealed.root, head=content.round.head, closing=content.closing.root, bundle=bundle.root
        )
        problems += _problems(kind, verify_bundle(bundle.data, published, analyse=tools.analyse, report=tools.report))
    facts = {
        "votes": len(content.votes),
        "items": len(sealed.items),
        "design": _design(sealed),
        "resolution": _resolution(one.plan, len(reviewers)),
        "bundle_bytes": {kind.value: len(bundle.data) for kind, bundle in bundles.items()},
        "personal_data": len(bundles[BundleKind.PUBLIC].findings),
        "is_analysed": tools.analyse is not None,
        "seconds": round(perf_counter() - begun, 3),
    }
    return {"passed": not problems, "facts": facts, "problems": problems[:_MOST_PROBLEMS]}


def made_up_content(
    one: Round,
    sealed: Sealed,
    answers: Sequence[RoundAnswer],
    reviewers: Sequence[Reviewer],
    *,
    families: Sequence[str],
    now: datetime,
) -> RoundContent:
    """A revealed round of this draft, with votes on every item but those that are excluded."""
    rng = random.Random(f"rehearsal {sealed.seed}")  # noqa: S311  nothing is kept secret by it
    people = [_person(rng, reviewer, sealed.items, families, now) for reviewer in reviewers]
    if len(people) > 1:
        people[0] = _with_conflict(people[0], sealed)
    exclusions = _exclusions(sealed, people, now)
    aside = {one.subject for one in exclusions}
    judged = [item for item in sealed.items if item.id not in aside]
    votes = made_up_votes(rng, one, judged, now, shown=sealed_digests(sealed.documents))
    ended = now + timedelta(seconds=_SECONDS_EACH * (len(votes) + 1))
    done = replace(
        one,
        status=RoundStatus.REVEALED,
        seed=sealed.seed,
        root=sealed.root,
        head=votes[-1].hash if votes else None,
        votes=len(votes),
        sealed_at=now,
        opened_at=now,
        closed_at=ended,
        revealed_at=ended,
    )
    accesses = [AccessEntry(now, person.id, "reviewer", "consent") for person in people]
    codes = codes_of(sealed.documents[MAPPING])
    records = {"exclusions": exclusions, "accesses": accesses, "reviewers": people}
    closing = close(done, codes=codes, answers=answers, salt=rng.randbytes(32), **records)  # type: ignore[arg-type]
    approvals = [Approval(f"dry-run {role}", role.value, ended) for role in (Role.CHAIR, Role.OPERATOR)]
    cleared = [Clearance(one.number, ended, "dry-run") for one in comments_of(votes, ())[:_CLEARED] if not one.findings]
    later = [AccessEntry(ended, one.who, one.role, APPROVE) for one in approvals]
    later += [AccessEntry(ended, one.by, Role.CHAIR.value, CLEAR, str(one.number)) for one in cleared]
    return RoundContent(
        round=done,
        parts=sealed.documents,
        salts=sealed.salts,
        commitments=sealed.commitments,
        closing=closing,
        answers=answers,
        votes=votes,
        exclusions=exclusions,
        accesses=[*accesses, *later],
        reviewers=people,
        approvals=approvals,
        clearances=cleared,
    )


def made_up_votes(
    rng: random.Random, one: Round, items: Sequence[RoundItem], now: datetime, *, shown: Mapping[str, Mapping[str, Any]]
) -> list[VoteEntry]:
    """A chain over all items, all reviewers at once, some items judged twice, with every kind of judgement."""
    worth = {model: rng.uniform(-_SPREAD, _SPREAD) for model in one.plan.models}
    better = {item.id: item.better.value for item in one.plan.attention}
    entries: list[VoteEntry] = []
    for item in sorted(items, key=lambda item: (item.position, item.reviewer)):
        for revision in range(1, 3 if rng.random() < 0.1 else 2):
            before = {
                "number": len(entries) + 1,
                "revision": revision,
                "previous": entries[-1].hash if entries else "",
            }
            entries.append(
                next_entry(
                    before,
                    round_id=one.id,
                    item=item,
                    at=now + timedelta(seconds=_SECONDS_EACH * len(entries)),
                    judgement=_judgement(rng, one.plan, item, worth, better),
                    salt=rng.randbytes(32),
                    shown=shown[item.id],
                )
            )
    return entries


def _judgement(
    rng: random.Random, plan: RoundPlan, item: RoundItem, worth: Mapping[str, float], better: Mapping[str, str]
) -> dict[str, Any]:
    said: dict[str, Any] = {"seconds": rng.randint(15, 240)}
    if item.kind is ItemKind.ATTENTION:
        return {"choice": (Choice.A if item.left == better[item.prompt_id] else Choice.B).value, **said}
    gap = worth[item.left] - worth[item.right]
    choice = _choice(rng, gap)
    if choice is Choice.CANNOT_JUDGE:
        return {"choice": choice.value, "reason": "모의 심사: 판단하기 어려움", **said}
    said["grades"] = {c.id: max(-2, min(2, round(-gap + rng.gauss(0, 1)))) for c in plan.rubric}
    if rng.random() < 0.2:
        said["comment"] = f"모의 의견 {rng.randint(1, 999)}"
    if rng.random() < 0.03:
        said["recognised"] = True
    return {"choice": choice.value, **said}


def _choice(rng: random.Random, gap: float) -> Choice:
    luck = rng.random()
    for choice, share in ((Choice.CANNOT_JUDGE, 0.03), (Choice.BOTH_BAD, 0.06), (Choice.TIE, 0.12)):
        if luck < share:
            return choice
        luck -= share
    return Choice.A if rng.random() < 1 / (1 + math.exp(-gap)) else Choice.B


def _person(
    rng: random.Random, one: Reviewer, items: Sequence[RoundItem], families: Sequence[str], now: datetime
) -> Reviewer:
    """With consent, submission and a questionnaire, which most answer with not knowing."""
    asked = [item for item in items if item.reviewer == one.id and item.kind is ItemKind.VOTE][:5]
    guesses = [
        {"item": item.id, **{side: _guess(rng, families) for side in ("a", "b")}, "confidence": rng.randint(1, 3)}
        for item in asked
    ]
    questionnaire = {"recognised": "none", "guesses": guesses}
    return replace(one, consented_at=now, trained_at=now, submitted_at=now, questionnaire=questionnaire)


def _with_conflict(one: Reviewer, sealed: Sealed) -> Reviewer:
    """Who declares a conflict with the first consortium that they would have before them, where it is known."""
    consortia = consortia_of_models(sealed.documents[MAPPING])
    sides = [side for item in sealed.items if item.reviewer == one.id for side in (item.left, item.right)]
    declared = next((name for side in sides if (name := consortia.get(side)) is not None), None)
    return one if declared is None else replace(one, conflicts=(declared,))


def _exclusions(sealed: Sealed, people: Sequence[Reviewer], now: datetime) -> list[Exclusion]:
    """By the rule of conflicts, and one by hand."""
    consortia, declared = consortia_of_models(sealed.documents[MAPPING]), {one.id: one.conflicts for one in people}
    by_rule = [
        item
        for item in sealed.items
        if is_conflict(item.kind, (item.left, item.right), consortia, declared[item.reviewer])
    ]
    by_hand = next((item for item in reversed(sealed.items) if item not in by_rule), None)
    reason = "made up for a dry run"
    return [
        *(Exclusion(now, CONFLICT, "item", item.id, reason, "rule") for item in by_rule),
        *([] if by_hand is None else [Exclusion(now, "chair", "item", by_hand.id, reason, "dry-run")]),
    ]


def _guess(rng: random.Random, families: Sequence[str]) -> str | None:
    return rng.choice(families) if families and rng.random() < 0.3 else None


# --- what was found -----------------------------------------------------------------------------------------


def _problems(kind: BundleKind, found: Verification) -> list[str]:
    words = [f"{kind} bundle: {fault.file} {fault.place}: {fault.message}" for fault in found.faults]
    words += [f"{kind} bundle: {one.name} was not checked: {one.why}" for one in found.unchecked]
    if found.bundle is None and not words:
        words.append(f"{kind} bundle: it cannot be read back")
    return words


def _design(sealed: Sealed) -> dict[str, Any]:
    facts = design_facts(deal(sealed.documents["design"]))
    return {
        "votes": facts.votes,
        "put_aside": facts.put_aside,
        "checks": len(facts.checks),
        "missed": [asdict(check) for check in facts.missed],
    }


def _resolution(plan: RoundPlan, reviewers: int) -> dict[str, Any]:
    """What a round of this size can tell apart, as win rates."""
    found = plan_round(
        models=len(plan.models),
        reviewers=reviewers,
        prompts=len(plan.prompts),
        votes_per_reviewer=plan.design.votes_per_reviewer,
    )
    return {
        "win_rate_one_pair": round(found.one_pair.win_rate, 4),
        "win_rate_all_pairs": round(found.all_pairs.win_rate, 4),
        "votes_per_pair": round(found.votes_per_pair, 2),
        "design_effect": round(found.design_effect, 3),
        "warnings": list(found.warnings),
    }
