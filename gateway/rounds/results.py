"""The result of a closed round: its analysis, made from plain documents, kept with the round, and shown as one object.

`analyse_round` is what the gateway stores and what anybody with the audit bundle recomputes. Models are codes in it;
which names stand beside them, and from when, is decided in `result_object`. Sentences belong in `conclusions`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gateway.domain.canonical_json import Json
from gateway.domain.design_facts import design_facts
from gateway.domain.ranking.analysis import Plan, Primary, analyse
from gateway.domain.ranking.blinding import Guess
from gateway.domain.ranking.document import as_document
from gateway.domain.ranking.figures import Figure, clustered_share
from gateway.domain.records import Provenance
from gateway.domain.rounds import AFTER_REVEAL, AnswerStatus, ItemKind, Round, RoundAnswer, RoundStatus
from gateway.rounds.ballots import Ballots, Document, read_ballots
from gateway.rounds.sealed import MAPPING, deal

VERSION = 2
"""Raised whenever the same round would give another document."""
_WEAKEST_FIRST = (Provenance.UNKNOWN, Provenance.SIMULATED, Provenance.STAND_IN, Provenance.REAL)
_SHARE_DIGITS = 9


def analyse_round(
    parts: Mapping[str, Any],
    votes: Sequence[Document],
    exclusions: Sequence[Document],
    reviewers: Sequence[Document],
    answers: Sequence[Document],
) -> dict[str, Any]:
    """The analysis that the sealed plan asks for, as JSON. The same documents give the same analysis to the last digit.

    `parts`: the sealed ones by name, `mapping` only where it is opened. `votes`: entries of the chain. `exclusions`:
    rule, kind, subject, in their order. `reviewers`: id, and where they are known consented_at, submitted_at,
    questionnaire. `answers`: model (its code), prompt, shown. Without `mapping` guesses of authors are not judged:
    beside them, an index by code would tell who is behind it. Raises ValueError for documents that do not fit.
    """
    ballots = read_ballots(parts, votes, exclusions, answers)
    guesses, outside = read_guesses(parts, reviewers)
    found = analyse(ballots.votes, analysis_plan(parts), guesses)
    whole = {
        "version": VERSION,
        "is_opened": MAPPING in parts,
        **as_document(found),
        "ballots": _ballots_document(ballots, votes),
        "reviewers": _reviewers_document(ballots, reviewers, parts["items"]),
        "attention": _figure(_attention(ballots)),
        "guesses": {"read": len(guesses), "outside": outside},
        "reliability": _reliability(parts),
        "design": _design_document(parts["design"]),
    }
    plain: dict[str, Any] = json.loads(json.dumps(whole, allow_nan=False))
    return plain


def analysis_plan(parts: Mapping[str, Any]) -> Plan:
    """The sealed plan, as far as it concerns the analysis."""
    plan = parts["plan"]
    return Plan(
        provenance=provenance_by_code(parts),
        weights={criterion["id"]: float(criterion["weight"]) for criterion in plan["rubric"]},
        keep=plan["cut"],
        primary=Primary(plan["primary"]),
    )


def provenance_by_code(parts: Mapping[str, Any]) -> dict[str, Provenance]:
    """Of each model's answers the weakest; of a model without answers unknown."""
    seen: dict[str, set[str]] = {code: set() for code in parts["plan"]["models"]}
    for answer in parts["answers"]:
        if answer["status"] == AnswerStatus.OK.value:
            seen[answer["model"]].add(answer["provenance"])
    return {
        code: next((kind for kind in _WEAKEST_FIRST if kind.value in found), Provenance.UNKNOWN)
        for code, found in seen.items()
    }


def read_guesses(parts: Mapping[str, Any], reviewers: Sequence[Document]) -> tuple[list[Guess], int]:
    """Whom reviewers took for the author, by code; and how many named a consortium that takes no part.

    A questionnaire names consortia. A right one is the true code; a wrong one any code of the consortium named.
    """
    mapping: Mapping[str, Document] | None = parts.get(MAPPING)
    if mapping is None:
        return [], 0
    consortium = {code: one["consortium"] or code for code, one in mapping.items()}
    codes: dict[str, str] = {}
    for code, name in sorted(consortium.items()):
        codes.setdefault(name, code)
    items = {item["id"]: item for item in parts["items"]}
    guesses: list[Guess] = []
    outside = 0
    for reviewer in reviewers:
        for guess in (reviewer.get("questionnaire") or {}).get("guesses", []):
            item = items[guess["item"]]
            for side, name in ((item["left"], guess.get("a")), (item["right"], guess.get("b"))):
                if name is not None and name not in codes:
                    outside += 1
                    continue
                guessed = None if name is None else side if consortium[side] == name else codes[name]
                guesses.append(Guess(reviewer["id"], side, guessed))
    return guesses, outside


# --- documents of a stored round ----------------------------------------------------------------------------


def answer_documents(answers: Sequence[RoundAnswer], codes: Mapping[str, str]) -> list[dict[str, Json]]:
    """Stored answers as `analyse_round` takes them; `codes` by model."""
    return [{"model": codes[one.model], "prompt": one.prompt_id, "shown": one.shown} for one in answers]


def result_object(of: Round, analysis: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """A round's result for whoever may read it: names and licence notices once it is revealed, codes before.

    `analysis` is `analyse_round`'s; of `parts` the mapping is looked at only after the reveal.
    """
    is_named = of.status in AFTER_REVEAL
    moments = {name: getattr(of, name) for name in ("sealed_at", "opened_at", "closed_at", "revealed_at")}
    return {
        "round": {
            "id": of.id,
            "name": of.name,
            "title": of.plan.title.document(),
            "kind": of.plan.kind.value,
            "status": of.status.value,
            "provenance": of.provenance,
            "root": of.root,
            "head": of.head,
            "votes": of.votes,
            **{name: moment.isoformat() if moment is not None else None for name, moment in moments.items()},
        },
        "rubric": parts["plan"]["rubric"],
        "prompts": len(parts["prompts"]),
        "names": {code: _named(one) for code, one in sorted(parts[MAPPING].items())} if is_named else None,
        "analysis": dict(analysis),
    }


def result_of_bundle(about: Mapping[str, Any], analysis: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """The same object from what a bundle says of its round; `about`: round.json."""
    is_named = bool(about["is_revealed"])
    facts = ("id", "name", "title", "kind", "provenance", "root", "head", "votes")
    return {
        "round": {
            **{name: about[name] for name in facts},
            "status": (RoundStatus.REVEALED if is_named else RoundStatus.CLOSED).value,
            **{name: about["moments"][name] for name in ("sealed_at", "opened_at", "closed_at", "revealed_at")},
        },
        "rubric": parts["plan"]["rubric"],
        "prompts": len(parts["prompts"]),
        "names": {code: _named(one) for code, one in sorted(parts[MAPPING].items())} if is_named else None,
        "analysis": dict(analysis),
    }


_SHOWN = ("model", "name", "consortium", "consortium_ko", "consortium_en", "revision", "licence", "licence_notice")


def _named(one: Document) -> dict[str, Any]:
    return {name: one.get(name) for name in _SHOWN}


# --- parts of the document ----------------------------------------------------------------------------------


def _ballots_document(ballots: Ballots, votes: Sequence[Document]) -> dict[str, Any]:
    return {
        "items": len(ballots.placed),
        "places": ballots.counts(),
        "excluded": ballots.excluded(),
        "entries": len(votes),
        "revised_items": sum(1 for count in Counter(vote["item"] for vote in votes).values() if count > 1),
    }


def _reviewers_document(
    ballots: Ballots, reviewers: Sequence[Document], items: Sequence[Document]
) -> dict[str, int | None]:
    """People, by how far they came. What is not said of any of them is null."""
    known = any("submitted_at" in one for one in reviewers)
    voted = {ballot.reviewer for ballot in ballots.placed if ballot.is_voted}
    submitted = {one["id"] for one in reviewers if one.get("submitted_at") is not None}
    return {
        "invited": len({item["reviewer"] for item in items}),
        "voted": len(voted),
        "counted": len(set(ballots.votes.reviewer[ballots.votes.counts].tolist())),
        "submitted": len(submitted) if known else None,
        "voted_not_submitted": len(voted - submitted) if known else None,
    }


def _attention(ballots: Ballots) -> Figure:
    """Attention items judged rightly; n: those judged. Reviewers are the clusters."""
    counts = np.array([count for _, count in sorted(ballots.attention.items())], dtype=np.float64).reshape(-1, 2)
    return clustered_share(counts[:, 0], counts[:, 1])


def _reliability(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By code: prompts that were to be answered, and those without an answer by the rule fixed beforehand."""
    asked, failed = Counter[str](), Counter[str]()
    for answer in parts["answers"]:
        asked[answer["model"]] += 1
        failed[answer["model"]] += answer["status"] != AnswerStatus.OK.value
    put_aside = Counter[str]()
    for queue in parts["design"]["queues"]:
        for item in queue["put_aside"]:
            if item["kind"] == ItemKind.VOTE.value:
                put_aside.update((item["model_left"], item["model_right"]))
    return [
        {"model": code, "asked": asked[code], "failed": failed[code], "votes_put_aside": put_aside[code]}
        for code in parts["plan"]["models"]
    ]


def _design_document(design: Mapping[str, Any]) -> dict[str, Any]:
    """The promises of the queues, counted again from what the seed deals."""
    facts = design_facts(deal(design))
    checks = [{**asdict(check), "is_kept": check.is_kept} for check in facts.checks]
    return {"votes": facts.votes, "put_aside": facts.put_aside, "checks": checks}


def _figure(figure: Figure) -> dict[str, Any]:
    def rounded(value: float) -> float:
        return round(float(value), _SHARE_DIGITS)

    span = figure.interval
    return {
        "value": None if figure.value is None else rounded(figure.value),
        "interval": None if span is None else [rounded(span.low), rounded(span.high)],
        "n": figure.n,
        "reason": figure.reason,
    }
