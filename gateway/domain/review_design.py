"""The values of a round's design: what it is made from, every reviewer's queue, and how it is written down and hashed.

Making designs belongs to `assignment`, checking them to `design_facts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from gateway.domain.canonical_json import Json, canonical_json
from gateway.domain.seeded_stream import GENERATOR

REPEAT_DISTANCE = 20
"""A hidden repeat comes at least that many items after its original."""
SOUND, BROKEN = "attention:sound", "attention:broken"
"""Stand where an attention item's models would: its answer that is right, and the one that nobody can prefer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    id: str
    stratum: str
    """Such as the industry that it is from."""


@dataclass(frozen=True, slots=True)
class Reviewer:
    id: str
    stratum: str
    votes: int | None = None
    """A quota of their own; None = the round's."""


@dataclass(frozen=True, slots=True)
class Options:
    votes: int
    """Each reviewer's, without repeats and attention items."""
    overlap: float = 0.15
    """Share of votes on questions (a prompt and a pair) that at least three reviewers are asked: 0.10 to 0.20."""
    repeats: int = 3
    """Hidden repeats of a reviewer, sides swapped: 2 to 4."""
    attention: int = 1
    """Attention items of a reviewer: 1 or 2."""


class ItemKind(StrEnum):
    VOTE = "vote"
    REPEAT = "repeat"
    ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class Item:
    """One question in a reviewer's queue. The models' names are for the sealed design, never for a reviewer."""

    position: int
    """From 1."""
    prompt: str
    model_left: str
    model_right: str
    kind: ItemKind
    repeat_of: int | None = None
    """The original's position."""
    shared: bool = False
    """Whether at least three reviewers vote on this prompt and pair."""


@dataclass(frozen=True, slots=True)
class Queue:
    reviewer: str
    items: tuple[Item, ...]
    put_aside: tuple[Item, ...] = ()
    """Votes on a model without an answer that no exchange of prompts could mend: nobody judges them. Position 0."""
    note: str | None = None
    """Why there are fewer repeats than asked for."""


@dataclass(frozen=True, slots=True)
class Round:
    """All that a design is made from, but the seed."""

    models: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    reviewers: tuple[Reviewer, ...]
    options: Options
    attention_prompts: tuple[str, ...]
    """Ids of the attention items' prompts; enough that nobody gets one twice."""
    unavailable: tuple[tuple[str, str], ...] = ()
    """(model, prompt) without an answer."""

    def quota(self, reviewer: Reviewer) -> int:
        return self.options.votes if reviewer.votes is None else reviewer.votes


@dataclass(frozen=True, slots=True)
class Design:
    round: Round
    seed: bytes
    queues: tuple[Queue, ...]
    """In the order of the round's reviewers."""


def design_document(design: Design) -> dict[str, Json]:
    """The design as JSON: what it was made from, how, and every queue."""
    plan = design.round
    return {
        "generator": GENERATOR,
        "seed_hex": design.seed.hex(),
        "models": list(plan.models),
        "prompts": [{"id": prompt.id, "stratum": prompt.stratum} for prompt in plan.prompts],
        "reviewers": [
            {"id": reviewer.id, "stratum": reviewer.stratum, "votes": plan.quota(reviewer)}
            for reviewer in plan.reviewers
        ],
        "options": {
            "overlap": plan.options.overlap,
            "repeats": plan.options.repeats,
            "attention": plan.options.attention,
        },
        "attention_prompts": list(plan.attention_prompts),
        "unavailable": [{"model": model, "prompt": prompt} for model, prompt in plan.unavailable],
        "queues": [
            {
                "reviewer": queue.reviewer,
                "items": [_item_document(item) for item in queue.items],
                "put_aside": [_item_document(item) for item in queue.put_aside],
                "note": queue.note,
            }
            for queue in design.queues
        ],
    }


def design_hash(design: Design) -> str:
    """SHA-256 of the design's canonical JSON, in hexadecimal."""
    return sha256(canonical_json(design_document(design))).hexdigest()


def _item_document(item: Item) -> dict[str, Json]:
    return {
        "position": item.position,
        "prompt": item.prompt,
        "model_left": item.model_left,
        "model_right": item.model_right,
        "kind": item.kind.value,
        "repeat_of": item.repeat_of,
        "shared": item.shared,
    }
