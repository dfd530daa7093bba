"""Where the parts of a round come together: answers are collected and redacted, a draft is rehearsed and sealed.

The arithmetic runs in threads, never on the event loop. Steps that only move a round on are `life`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from gateway.domain.accounts import Caller
from gateway.domain.hash_chain import genesis
from gateway.domain.lexicon import build_lexicon
from gateway.domain.records import Registry
from gateway.domain.redaction import Redaction
from gateway.domain.rounds import AFTER_CLOSING, Round, RoundAnswer, RoundKind, RoundStatus
from gateway.errors import Conflict
from gateway.rounds.answering import Answering, Redact, weakest
from gateway.rounds.bundle import Bundle, BundleKind, Tools, build_bundle, votes_table
from gateway.rounds.cards import CardEvidence, card_answers
from gateway.rounds.closing import closing_documents, closing_of
from gateway.rounds.contents import RoundContent, read_content
from gateway.rounds.life import OPERATING, RoundLife
from gateway.rounds.redacting import redact_answer
from gateway.rounds.rehearsal import rehearse_round
from gateway.rounds.sealed import SALT, CannotSeal, Sealed, draft_digest, lexicon_digest, seal
from gateway.rounds.store import DraftChanged, RoundStore, WrongStatus

ID_BYTES = 16


class RoundDesk:
    """Everything that is done with rounds, by those who run them."""

    def __init__(
        self,
        *,
        store: RoundStore,
        life: RoundLife,
        answering: Answering,
        evidence: CardEvidence,
        registry: Callable[[], Registry],
        tools: Tools | None = None,
    ) -> None:
        self.store = store
        self.life = life
        self.answering = answering
        self._evidence = evidence
        self._registry = registry
        self._tools = tools or Tools()

    async def collect(self, of: Round) -> list[RoundAnswer]:
        """Redact and keep what came of the answers asked for; of a round of cards, gather the evidence.

        Raises Conflict once the round is sealed.
        """
        try:
            if of.plan.kind is RoundKind.CARDS:
                return await self._collect_cards(of)
            lexicon = build_lexicon(registry := self._registry())
            return await self.answering.collect(of, redactor(registry), lexicon=lexicon_digest(lexicon))
        except WrongStatus as error:
            raise Conflict(f"Answers are collected while a round is a draft; {error}.", code="wrong_status") from error

    async def _collect_cards(self, of: Round) -> list[RoundAnswer]:
        plan = of.plan
        since = datetime.now(UTC) - timedelta(days=plan.evidence_days)
        figures = await self._evidence.figures(plan.models, self._registry(), runs=plan.evidence_runs, since=since)
        answers = await asyncio.to_thread(card_answers, plan, figures)
        await self.store.save_answers(of.id, answers, provenance=weakest(answers))
        return answers

    async def seal(self, of: Round, caller: Caller) -> Round:
        """Fix a draft whose dry run passed, with queues from a fresh seed. Raises Conflict with what it lacks."""
        answers, reviewers = await self.store.answers(of.id), await self.store.reviewers(of.id)
        digest = await asyncio.to_thread(draft_digest, of, answers, reviewers)
        if of.dry_run is None or not of.dry_run.get("passed") or of.dry_run.get("digest") != digest:
            raise _dry_run_needed()
        sealed = await self.put_together(of, caller, answers=answers, reviewers=reviewers)
        try:
            is_sealed = await self.store.seal(
                of.id,
                items=sealed.items,
                documents={**sealed.documents, "commitments": dict(sealed.commitments)},
                secrets={SALT + name: value for name, value in sealed.salts.items()},
                is_same=lambda kept: draft_digest(kept.round, kept.answers, kept.reviewers) == digest,
                seed=sealed.seed,
                root=sealed.root,
                head=genesis(of.id),
                sealed_at=datetime.now(UTC),
            )
        except DraftChanged as error:
            raise _dry_run_needed() from error
        if not is_sealed:
            raise Conflict("The round is sealed already.", code="wrong_status")
        await self.life.note(of, caller, f"round.{RoundStatus.SEALED}", sealed.root)
        return await self.life.found(of.id, caller)

    async def rehearse(self, of: Round, caller: Caller) -> Round:
        """Go through a round of this very draft with made-up votes, from sealing to the verified bundle.

        Nothing of it is kept but what it found. Raises Conflict with what is missing to put the round together.
        """
        answers, reviewers = await self.store.answers(of.id), await self.store.reviewers(of.id)
        sealed = await self.put_together(of, caller, answers=answers, reviewers=reviewers)
        digest = await asyncio.to_thread(draft_digest, of, answers, reviewers)
        now, families = datetime.now(UTC), sorted(self._registry().consortia)
        work = partial(rehearse_round, of, sealed, answers, reviewers, families=families, tools=self._tools, now=now)
        found = await asyncio.to_thread(work)
        await self.store.update(of.id, dry_run={"digest": digest, "at": now.isoformat(), **found})
        await self.life.note(of, caller, "dry-run", "passed" if found["passed"] else "failed")
        return await self.life.found(of.id, caller)

    async def close(self, of: Round, caller: Caller) -> Round:
        """Take no votes any more, and commit to everything that the chain does not cover."""
        return await self.life.close(of, caller, closing_documents)

    async def closing(self, of: Round) -> str | None:
        """The published root of a closed round's closing; None before it is closed."""
        return (await closing_of(self.store, of)).root if of.status in AFTER_CLOSING else None

    async def export(self, of: Round, kind: BundleKind, caller: Caller) -> Bundle:
        """The bundle of a closed round, noted with its root. Raises Conflict before."""
        content = await self._closed_content(of)
        bundle = await asyncio.to_thread(build_bundle, content, kind, tools=self._tools)
        await self.life.note(of, caller, f"export.{kind}", bundle.root)
        return bundle

    async def votes_table(self, of: Round, caller: Caller) -> bytes:
        """The votes of a closed round for a spreadsheet, without anybody's words. Raises Conflict before."""
        content = await self._closed_content(of)
        await self.life.note(of, caller, "export.votes")
        return await asyncio.to_thread(votes_table, content)

    async def _closed_content(self, of: Round) -> RoundContent:
        if of.status not in AFTER_CLOSING:
            raise Conflict(f"A round is exported once it is closed; this one is {of.status}.", code="wrong_status")
        return await read_content(self.store, of)

    async def put_together(self, of: Round, caller: Caller, **parts: Any) -> Sealed:
        """What sealing would fix, with a fresh seed, codes, ids and salts. Raises Conflict with what is missing.

        Which models fail is for operators alone: a chair who knew it could tell them by their gaps.
        """
        codes, registry = list(of.plan.models), self._registry()
        secrets.SystemRandom().shuffle(codes)
        work = partial(
            seal,
            of,
            registry=registry,
            lexicon=build_lexicon(registry),
            seed=secrets.token_bytes(32),
            codes=codes,
            new_id=partial(secrets.token_hex, ID_BYTES),
            new_salt=partial(secrets.token_bytes, 32),
            **parts,
        )
        try:
            return await asyncio.to_thread(work)
        except CannotSeal as error:
            named = f" They are: {', '.join(error.models)}." if error.models and caller.has_any(OPERATING) else ""
            raise Conflict(f"{error}{named}", code="cannot_seal") from error


def _dry_run_needed() -> Conflict:
    return Conflict(
        "A round is sealed after a dry run that passed on this very draft: its plan, answers and reviewers "
        "as they are now. Make one with POST /api/rounds/{id}/dry-run or 'simsa round dry-run'.",
        code="dry_run_needed",
    )


def redactor(registry: Registry) -> Redact:
    """Redaction with the names that a registry knows."""
    lexicon = build_lexicon(registry)

    def redact_one(text: str, *, model: str, prompt: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        entry = registry.models.get(model)
        author = (entry.consortium_id or model) if entry is not None else model
        found = redact_answer(text, lexicon, author=author, prompt_text=prompt)
        return found.text, tuple(map(_redaction_object, found.redactions))

    return redact_one


def _redaction_object(one: Redaction) -> dict[str, Any]:
    return {
        "start": one.start,
        "end": one.end,
        "rule": one.rule,
        "names": list(one.names),
        "is_true": one.is_true,
        "sentence": one.sentence,
        "sentence_sha256": one.sentence_sha256,
    }
