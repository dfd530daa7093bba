"""What is fixed when a round is closed, besides its votes: exclusions, accesses, reviewers, the answers' records.

The root published at sealing and the chain's head do not cover these; the closing root covers them all, by outlines, so
that it holds whether or not a field is shown. What a bundle shows to whom belongs in `bundle`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from gateway.domain.canonical_json import Json
from gateway.domain.rounds import AFTER_CLOSING, AccessEntry, Exclusion, Reviewer, Round, RoundAnswer
from gateway.domain.sealing import SALT_BYTES, digest, seal_root
from gateway.domain.withheld import Veiled, withhold
from gateway.rounds.conflicts import CONFLICT
from gateway.rounds.reading import Records
from gateway.rounds.sealed import MAPPING, text_digest
from gateway.rounds.store import RoundStore

CLOSING = "closing"
PEOPLE = "closing reviewers"
"""Names of the two documents: what is published, with its salt; and the reviewers as they were."""
ROUND, ANSWERS, EXCLUSIONS, ACCESSES, REVIEWERS = "round", "answers", "exclusions", "access", "reviewers"
RECORDS = (ANSWERS, EXCLUSIONS, ACCESSES, REVIEWERS)
KEEPABLE: Mapping[str, tuple[str, ...]] = {
    ANSWERS: ("text", "shown", "redactions", "usage", "timing", "cost", "finish_reason", "error"),
    EXCLUSIONS: ("reason", "by"),
    ACCESSES: ("who",),
    REVIEWERS: ("conflicts", "questionnaire"),
}
"""Fields of each kind of record that stand behind commitments."""
MOMENTS = ("created_at", "sealed_at", "opened_at", "closed_at")
"""What had happened when a round was closed."""
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Closing:
    """The closing of a round as it is kept."""

    published: Mapping[str, Any]
    """at, votes, head, counts, digests, root: what everybody may see."""
    salt: bytes
    people: Sequence[Document]
    """Reviewers' documents as they were."""

    @property
    def root(self) -> str:
        return str(self.published["root"])

    @property
    def accesses(self) -> int:
        """Entries of the access log that the closing covers."""
        return int(self.published["counts"][ACCESSES])

    @property
    def exclusions(self) -> int:
        return int(self.published["counts"][EXCLUSIONS])


async def closing_of(store: RoundStore, one: Round) -> Closing:
    """The closing of a closed round, kept in one transaction with the step itself; made now where that was not so."""
    assert one.status in AFTER_CLOSING, f"the round is {one.status}"
    kept = await store.documents(one.id, {CLOSING, PEOPLE})
    if CLOSING not in kept:
        kept = await store.keep_documents(one.id, closing_documents(await store.records(one.id)))
    published = {name: value for name, value in kept[CLOSING].items() if name != "salt"}
    return Closing(published, bytes.fromhex(kept[CLOSING]["salt"]), kept[PEOPLE])


def closing_documents(kept: Records) -> dict[str, Any]:
    """The two documents of a round that is being closed, under a fresh salt."""
    made = close(
        kept.round,
        codes=codes_of(kept.documents[MAPPING]),
        answers=kept.answers,
        exclusions=kept.exclusions,
        accesses=kept.accesses,
        reviewers=kept.reviewers,
        salt=secrets.token_bytes(SALT_BYTES),
    )
    return {CLOSING: {**made.published, "salt": made.salt.hex()}, PEOPLE: list(made.people)}


def close(
    one: Round,
    *,
    codes: Mapping[str, str],
    answers: Sequence[RoundAnswer],
    exclusions: Sequence[Exclusion],
    accesses: Sequence[AccessEntry],
    reviewers: Sequence[Reviewer],
    salt: bytes,
) -> Closing:
    """Commit to everything as it stands. `codes`: by model."""
    documents: dict[str, list[Document]] = {
        ANSWERS: answer_documents(answers, codes),
        EXCLUSIONS: [exclusion_document(exclusion) for exclusion in exclusions],
        ACCESSES: [access_document(entry) for entry in accesses],
        REVIEWERS: [reviewer_document(reviewer) for reviewer in reviewers],
    }
    outlines = {name: [veiled.outline for veiled in veil(name, some, salt)] for name, some in documents.items()}
    moments = {name: moment(getattr(one, name)) for name in MOMENTS}
    about = {"id": one.id, "root": one.root, "head": one.head, "votes": one.votes, "moments": moments}
    published = {
        "at": moment(one.closed_at),
        "votes": one.votes,
        "head": one.head,
        "counts": {name: len(outlines[name]) for name in RECORDS},
        **digests_and_root(closed_round(about), outlines),
    }
    return Closing(published, salt, documents[REVIEWERS])


def closed_round(about: Mapping[str, Any]) -> Document:
    """What the closing covers of the round itself; `about` has it, and more."""
    moments = {name: about["moments"][name] for name in MOMENTS}
    return {**{name: about[name] for name in ("id", "root", "head", "votes")}, "moments": moments}


def digests_and_root(one: Json, outlines: Mapping[str, Sequence[Mapping[str, Json]]]) -> Document:
    """The digest of each kind of record, by name, and the root over them."""
    digests = {ROUND: digest(one), **{name: digest(list(outlines[name])) for name in RECORDS}}
    return {"digests": digests, "root": seal_root(digests)}


def veil(name: str, documents: Sequence[Document], salt: bytes) -> list[Veiled]:
    """Records of one kind with their fields behind commitments, each with a salt of its own, made of the closing's."""
    return [
        withhold(document, keepable(name, document), salt=sha256(salt + f"{name} {place}".encode()).digest())
        for place, document in enumerate(documents)
    ]


def keepable(name: str, document: Mapping[str, Any]) -> tuple[str, ...]:
    """Which fields of this record stand behind commitments; of an exclusion for a conflict also what it is about.

    Its item and its moment would tell whom the reviewer declared to be close to.
    """
    is_conflict = name == EXCLUSIONS and document["rule"] == CONFLICT
    return (*KEEPABLE[name], "at", "subject") if is_conflict else KEEPABLE[name]


def codes_of(mapping: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Codes by model, from the sealed part that says which is which."""
    return {one["model"]: code for code, one in mapping.items()}


# --- documents ----------------------------------------------------------------------------------------------


def answer_documents(answers: Sequence[RoundAnswer], codes: Mapping[str, str]) -> list[Document]:
    """Answers in the order of their codes: any order that comes of models' names would tell them."""
    documents = [answer_document(answer, codes[answer.model]) for answer in answers]
    return sorted(documents, key=lambda one: (one["model"], one["prompt"]))


def answer_document(answer: RoundAnswer, code: str) -> Document:
    """An answer without what names its model, but in its own words and in the engine's error."""
    facts = answer.facts
    error = facts.get("error") or {}
    return {
        "model": code,
        "prompt": answer.prompt_id,
        "status": answer.status.value,
        "provenance": answer.provenance,
        "shown_sha256": text_digest(answer.shown),
        "redacted": len(answer.redactions),
        "error_code": error.get("code"),
        "text": writable(answer.text),
        "shown": writable(answer.shown),
        "redactions": writable(list(answer.redactions)),
        **{name: writable(facts.get(name)) for name in ("usage", "timing", "cost", "finish_reason", "error")},
    }


def exclusion_document(one: Exclusion) -> Document:
    return {
        "at": moment(one.at),
        "rule": one.rule,
        "kind": one.kind,
        "subject": one.subject,
        "reason": one.reason,
        "by": one.by,
    }


def access_document(one: AccessEntry) -> Document:
    return {"at": moment(one.at), "who": one.who, "role": one.role, "action": one.action, "subject": one.subject}


def reviewer_document(one: Reviewer) -> Document:
    """A reviewer by pseudonym. Their label is in no bundle."""
    moments = ("consented_at", "trained_at", "submitted_at", "revoked_at")
    return {
        "id": one.id,
        "stratum": one.stratum,
        "language": one.language,
        **{name: moment(getattr(one, name)) for name in moments},
        "conflicts": list(one.conflicts),
        "questionnaire": writable(one.questionnaire),
    }


def moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def writable(value: Any) -> Any:
    """The value as canonical JSON can write it: a text with half a character in it as its bytes, in hexadecimal."""
    match value:
        case str():
            return value if _is_whole(value) else {HALF: value.encode("utf-8", "surrogatepass").hex()}
        case Mapping():
            return {name: writable(one) for name, one in value.items()}
        case list() | tuple():
            return [writable(one) for one in value]
    return value


HALF = "utf8_with_surrogates_hex"


def read_text(written: Any) -> str | None:
    """The text that `writable` wrote."""
    if isinstance(written, Mapping):
        return bytes.fromhex(written[HALF]).decode("utf-8", "surrogatepass")
    return None if written is None else str(written)


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)
