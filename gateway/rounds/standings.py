"""The results of rounds, for whoever may read them: analysed once after closing, once more when names are opened.

They rest on what stood at closing, as the audit bundle does: a questionnaire given later changes neither.
Nobody gets anything of a result before its round is closed. What an analysis holds is `results`' subject, how it is
shown `report`'s; the arithmetic runs where `run` takes it, never on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.domain.rounds import AFTER_CLOSING, AFTER_REVEAL, Exclusion, Round, VoteEntry
from gateway.errors import Conflict
from gateway.rounds.ballots import Document
from gateway.rounds.closing import closing_of
from gateway.rounds.results import VERSION, analyse_round, answer_documents, result_object
from gateway.rounds.sealed import MAPPING, PARTS
from gateway.rounds.store import RoundStore

ANALYSIS = "analysis"
"""The document of a round that holds it."""
Run = Callable[[Callable[[], dict[str, Any]]], Awaitable[dict[str, Any]]]
"""Takes arithmetic off the event loop."""


async def round_result(store: RoundStore, of: Round, run: Run) -> dict[str, Any]:
    """The result of a round as `results.result_object` makes it. Raises Conflict before it is closed."""
    if of.status not in AFTER_CLOSING:
        raise Conflict(
            f"There is no result before a round is closed, for anyone: looking early makes chance look like a "
            f"difference. This one is {of.status}.",
            code="wrong_status",
        )
    documents = await store.documents(of.id)
    analysis: dict[str, Any] | None = documents.get(ANALYSIS)
    if analysis is None or not _is_current(analysis, of):
        analysis = await _analysed(store, of, documents, run)
        await store.put_document(of.id, ANALYSIS, analysis)
    return result_object(of, analysis, documents)


def _is_current(analysis: Document, of: Round) -> bool:
    """Whether it was made by this version, and with the names opened if they are."""
    is_opened = of.status in AFTER_REVEAL
    return (analysis["version"], analysis["is_opened"]) == (VERSION, is_opened)


async def _analysed(store: RoundStore, of: Round, documents: dict[str, Any], run: Run) -> dict[str, Any]:
    is_opened = of.status in AFTER_REVEAL
    parts = {name: documents[name] for name in PARTS if is_opened or name != MAPPING}
    codes = {one["model"]: code for code, one in documents[MAPPING].items()}
    votes = [vote_document(vote) for vote in await store.votes(of.id)]
    exclusions = [exclusion_document(one) for one in await store.exclusions(of.id)]
    reviewers = (await closing_of(store, of)).people
    answers = await store.answers(of.id)
    return await run(lambda: analyse_round(parts, votes, exclusions, reviewers, answer_documents(answers, codes)))


def vote_document(vote: VoteEntry) -> Document:
    """An entry of the chain, as far as an analysis reads it."""
    return {
        "number": vote.number,
        "item": vote.item,
        "reviewer": vote.reviewer,
        "revision": vote.revision,
        "judgement": vote.judgement,
    }


def exclusion_document(one: Exclusion) -> Document:
    return {"rule": one.rule, "kind": one.kind, "subject": one.subject}
