"""What is fixed when a round is sealed, put together part by part, each hidden behind a salted commitment.

The parts name models by codes (M01 ...), and one part alone, `mapping`, says which code is which model: it is opened
at the reveal, all others when the round is closed. The published root covers every part. Values in, values out; salts,
the seed and random ids arrive as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.domain import review_design
from gateway.domain.assignment import make_design
from gateway.domain.canonical_json import canonical_json
from gateway.domain.lexicon import Lexicon
from gateway.domain.records import Registry
from gateway.domain.rounds import (
    AnswerStatus,
    ItemKind,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundKind,
    RoundPlan,
    plan_document,
)
from gateway.domain.sealing import commit, digest, seal_root

MAPPING = "mapping"
"""The part that says which code is which model."""
ITEMS = "items"
PARTS = ("plan", "prompts", "practice", "lexicon", "answers", "reviewers", "design", ITEMS, MAPPING)
SALT = "salt "
"""In front of a part's name: what its salt is called among a round's secrets."""
_SIDES = {review_design.SOUND: True, review_design.BROKEN: False}


class CannotSeal(Exception):
    """The round lacks something that sealing needs; the message says what, and how to mend it. It names no model."""

    def __init__(self, message: str, *, models: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.models = tuple(models)
        """Which ones it is about: for whoever may know who fails before the reveal."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """All that sealing fixes, ready to be kept in one transaction."""

    items: tuple[RoundItem, ...]
    documents: Mapping[str, Any]
    """By part."""
    salts: Mapping[str, str]
    """By part, hexadecimal."""
    commitments: Mapping[str, str]
    root: str
    seed: str


def seal(
    one: Round,
    *,
    answers: Sequence[RoundAnswer],
    reviewers: Sequence[Reviewer],
    registry: Registry,
    lexicon: Lexicon,
    seed: bytes,
    codes: Sequence[str],
    new_id: Callable[[], str],
    new_salt: Callable[[], bytes],
) -> Sealed:
    """Draw the queues and commit to everything. `codes`: models in the secret order of their codes.

    Raises CannotSeal for what is missing or cannot be dealt out.
    """
    _require_whole(one, answers, reviewers)
    _require_redacted(one, lexicon)
    code = {model: f"M{number:02d}" for number, model in enumerate(codes, start=1)}
    design = _dealt(one.plan, answers, reviewers, code, seed)
    items = _items(design, one.plan, {short: model for model, short in code.items()}, new_id)
    plan, salts = plan_document(one.plan), {name: new_salt() for name in PARTS}
    documents: dict[str, Any] = {
        "plan": {
            **{name: value for name, value in plan.items() if name not in _ELSEWHERE},
            "models": sorted(code.values()),
            "round": {"id": one.id, "name": one.name},
        },
        "prompts": plan["prompts"],
        "practice": {"training": plan["training"], "attention": plan["attention"]},
        "lexicon": lexicon.canonical(),
        "answers": _answer_documents(answers, code, salts[MAPPING]),
        "reviewers": [{"id": r.id, "stratum": r.stratum} for r in reviewers],
        "design": review_design.design_document(design),
        ITEMS: [_item_document(item, code) for item in items],
        MAPPING: {short: _model_document(model, answers, registry) for model, short in sorted(code.items())},
    }
    commitments = {name: commit(documents[name], salt=salts[name]) for name in PARTS}
    return Sealed(
        items=items,
        documents=documents,
        salts={name: salt.hex() for name, salt in salts.items()},
        commitments=commitments,
        root=seal_root(commitments),
        seed=seed.hex(),
    )


def draft_digest(one: Round, answers: Sequence[RoundAnswer], reviewers: Sequence[Reviewer]) -> str:
    """Of all that a draft consists of: a dry run counts for this very draft alone."""
    kept = [
        [a.prompt_id, a.model, a.status.value, a.provenance, a.call_id, text_digest(a.text), text_digest(a.shown)]
        for a in answers
    ]
    people = [[r.id, r.stratum] for r in reviewers]
    return sha256(canonical_json([plan_document(one.plan), kept, people, one.lexicon])).hexdigest()


def lexicon_digest(lexicon: Lexicon) -> str:
    """Of all names that redaction knows, hexadecimal."""
    return digest(lexicon.canonical())


def text_digest(text: str | None) -> str | None:
    """SHA-256 of a text's UTF-8, hexadecimal."""
    return None if text is None else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def deal(document: Mapping[str, Any]) -> review_design.Design:
    """Deal the queues of a sealed design again, from what it says that it was made from."""
    return make_design(
        review_design.Round(
            models=tuple(document["models"]),
            prompts=tuple(review_design.Prompt(**prompt) for prompt in document["prompts"]),
            reviewers=tuple(review_design.Reviewer(**reviewer) for reviewer in document["reviewers"]),
            options=review_design.Options(
                votes=max((reviewer["votes"] for reviewer in document["reviewers"]), default=1), **document["options"]
            ),
            attention_prompts=tuple(document["attention_prompts"]),
            unavailable=tuple((gap["model"], gap["prompt"]) for gap in document["unavailable"]),
        ),
        seed=bytes.fromhex(document["seed_hex"]),
    )


_ELSEWHERE = ("prompts", "training", "attention", "models")
"""Fields of a plan that are parts of their own, or codes in the sealed one."""


def _require_whole(one: Round, answers: Sequence[RoundAnswer], reviewers: Sequence[Reviewer]) -> None:
    if not reviewers:
        raise CannotSeal("No reviewer is invited yet: add them first, because the queues are made of who they are.")
    wanted = len(one.plan.models) * len(one.plan.prompts)
    if len(answers) != wanted:
        raise CannotSeal(
            f"The round has {len(answers)} of {wanted} answers: have them made, and collected, before it is sealed."
        )
    if not one.plan.attention:
        raise CannotSeal("The plan has no attention items: add at least one, or leave 'attention' to the shipped ones.")
    answering = {answer.model for answer in answers if answer.status is AnswerStatus.OK}
    if silent := [model for model in one.plan.models if model not in answering]:
        raise CannotSeal(
            f"{len(silent)} of {len(one.plan.models)} models have no answer to any prompt. An operator sees which: "
            "have what is wrong mended and the answers made again, or draft a new round without them.",
            models=silent,
        )


def _require_redacted(one: Round, lexicon: Lexicon) -> None:
    if one.plan.kind is RoundKind.ANSWERS and one.lexicon != lexicon_digest(lexicon):
        raise CannotSeal(
            "The names that redaction takes out have changed since the answers were redacted: an operator redacts them "
            "again ('simsa round generate'), then the round is rehearsed and sealed."
        )


def _dealt(
    plan: RoundPlan,
    answers: Sequence[RoundAnswer],
    reviewers: Sequence[Reviewer],
    code: Mapping[str, str],
    seed: bytes,
) -> review_design.Design:
    gaps = [(code[a.model], a.prompt_id) for a in answers if a.status is AnswerStatus.FAILED]
    options = plan.design
    try:
        return make_design(
            review_design.Round(
                models=tuple(sorted(code.values())),
                prompts=tuple(review_design.Prompt(p.id, p.stratum) for p in plan.prompts),
                reviewers=tuple(review_design.Reviewer(r.id, r.stratum) for r in reviewers),
                options=review_design.Options(
                    votes=options.votes_per_reviewer,
                    overlap=options.overlap_share,
                    repeats=options.repeats_per_reviewer,
                    attention=options.attention_per_reviewer,
                ),
                attention_prompts=tuple(item.id for item in plan.attention),
                unavailable=tuple(sorted(gaps)),
            ),
            seed=seed,
        )
    except ValueError as error:
        raise CannotSeal(f"The queues cannot be made: {error}") from error


def _items(
    design: review_design.Design, plan: RoundPlan, models: Mapping[str, str], new_id: Callable[[], str]
) -> tuple[RoundItem, ...]:
    """The queues with their models, under ids that mean nothing elsewhere."""
    better = {item.id: item.better.value for item in plan.attention}
    found: list[RoundItem] = []
    for queue in design.queues:
        ids = {item.position: new_id() for item in queue.items}
        for item in queue.items:
            left, right = (_side(item, name, models, better) for name in (item.model_left, item.model_right))
            found.append(
                RoundItem(
                    id=ids[item.position],
                    reviewer=queue.reviewer,
                    position=item.position - 1,
                    kind=ItemKind(item.kind.value),
                    prompt_id=item.prompt,
                    left=left,
                    right=right,
                    left_id=new_id(),
                    right_id=new_id(),
                    repeat_of=ids[item.repeat_of] if item.repeat_of is not None else None,
                    is_shared=item.shared,
                )
            )
    return tuple(found)


def _side(item: review_design.Item, name: str, models: Mapping[str, str], better: Mapping[str, str]) -> str:
    """The model of a side; of an attention item its own text, a or b."""
    if name not in _SIDES:
        return models[name]
    sound = better[item.prompt]
    return sound if _SIDES[name] else {"a": "b", "b": "a"}[sound]


def _item_document(item: RoundItem, code: Mapping[str, str]) -> dict[str, Any]:
    """With codes for models. The sides of an attention item are texts of the round, whatever models are called."""
    names = {item.left: item.left, item.right: item.right} if item.kind is ItemKind.ATTENTION else code
    return {
        "id": item.id,
        "reviewer": item.reviewer,
        "position": item.position,
        "kind": item.kind.value,
        "prompt": item.prompt_id,
        "left": names[item.left],
        "right": names[item.right],
        "repeat_of": item.repeat_of,
        "shared": item.is_shared,
    }


def text_commitment(text: str | None, *, code: str, prompt: str, salt: bytes) -> str | None:
    """Of an answer as its model wrote it, under a salt of its own, made of that of the mapping, which the reveal opens.

    A digest alone would tell whoever can have the model answer the same question again.
    """
    if text is None:
        return None
    return commit(text_digest(text), salt=sha256(salt + f"answer {code} {prompt}".encode()).digest())


def _answer_documents(answers: Sequence[RoundAnswer], code: Mapping[str, str], salt: bytes) -> list[dict[str, Any]]:
    """In the order of their codes: any order that comes of models' names would tell them."""
    documents = [_answer_document(answer, code[answer.model], salt) for answer in answers]
    return sorted(documents, key=lambda one: (one["model"], one["prompt"]))


def _answer_document(answer: RoundAnswer, code: str, salt: bytes) -> dict[str, Any]:
    return {
        "model": code,
        "prompt": answer.prompt_id,
        "status": answer.status.value,
        "provenance": answer.provenance,
        "text_commitment": text_commitment(answer.text, code=code, prompt=answer.prompt_id, salt=salt),
        "shown_sha256": text_digest(answer.shown),
        "redactions": len(answer.redactions),
    }


def _model_document(model: str, answers: Sequence[RoundAnswer], registry: Registry) -> dict[str, Any]:
    """Who stands behind a code: names, revision, licence, and what the engines that answered said of themselves."""
    entry = registry.models.get(model)
    consortium = registry.consortia.get(entry.consortium_id or "") if entry is not None else None
    own = [answer for answer in answers if answer.model == model]
    return {
        "model": model,
        "name": entry.name if entry is not None else None,
        "consortium": consortium.id if consortium is not None else None,
        "consortium_ko": consortium.name_ko if consortium is not None else None,
        "consortium_en": consortium.name_en if consortium is not None else None,
        "revision": entry.weights.revision if entry is not None else None,
        "licence": entry.licence.id if entry is not None else None,
        "licence_notice": entry.licence.notice if entry is not None else None,
        "provenance": sorted({answer.provenance for answer in own}),
        "calls": sorted(answer.call_id for answer in own if answer.call_id is not None),
    }
