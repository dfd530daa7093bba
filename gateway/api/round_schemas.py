"""The shapes of the round routes: a plan as its author writes it, and what callers get back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from gateway.api.schemas import Asked, ComparisonParams, ModelId, Moment, distinct_models
from gateway.domain.rounds import (
    Choice,
    Criterion,
    DesignOptions,
    PracticeItem,
    PrimaryRanking,
    ReasoningPolicy,
    RoundKind,
    RoundPlan,
    RoundPrompt,
    RoundStatus,
    Text,
)
from gateway.prompts import load_prompts
from gateway.rounds.defaults import NOTICE, RUBRICS, card_questions, practice_items

MOST_MODELS = 20
MOST_PROMPTS = 2000
MOST_REVIEWERS = 2000
MOST_CLEARED = 1000
"""Comments at once."""
RESERVED_RULES = frozenset({"conflict", "no_answer"})
"""Names of rules that the gateway applies by itself; nobody excludes anything by hand under one of them."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Code = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9._-]+$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Language = Literal["ko", "en"]


class TextIn(Asked):
    """The same words in Korean and in English."""

    ko: Words
    en: Words

    def text(self) -> Text:
        return Text(self.ko, self.en)


class CriterionIn(Asked):
    id: Code
    title: TextIn
    question: TextIn
    weight: Annotated[Decimal, Field(gt=0, le=1)]


class RoundPromptIn(Asked):
    id: Code
    text: Words
    stratum: Code = Field("general", description="The industry that it belongs to.")
    language: Language = "ko"


class PracticeIn(Asked):
    """A pair written by hand; nothing of it comes from a candidate."""

    id: Code
    language: Language = "ko"
    text: Words
    a: Words
    b: Words
    better: Literal["a", "b"]
    why: TextIn

    def item(self) -> PracticeItem:
        return PracticeItem(self.id, self.language, self.text, self.a, self.b, Choice(self.better), self.why.text())


class DesignIn(Asked):
    votes_per_reviewer: int = Field(ge=1, le=400, description="Pairs that each reviewer judges, repeats not counted.")
    overlap_share: float = Field(
        0.15, ge=0.10, le=0.20, description="Share of votes on questions that at least three reviewers judge."
    )
    repeats_per_reviewer: int = Field(2, ge=2, le=4, description="Hidden repeats with sides swapped.")
    attention_per_reviewer: int = Field(1, ge=1, le=2, description="Items one side of which is plainly worse.")


class PlanIn(Asked):
    """What a round is: everything here is fixed when it is sealed. Exactly one of `prompts` and `set`."""

    name: Name = Field(description="Of the round, for those who run it; reviewers see the title.")
    title: TextIn
    kind: RoundKind = RoundKind.ANSWERS
    models: list[ModelId] = Field(min_length=2, max_length=MOST_MODELS, description="Ids of GET /v1/models.")
    prompts: list[RoundPromptIn] | None = Field(None, min_length=1, max_length=MOST_PROMPTS)
    set: Literal["core-1"] | None = Field(None, description="The prompt set that ships with the gateway.")
    language: Language | None = Field(None, description="Only the set's prompts in this language.")
    rubric: list[CriterionIn] | None = Field(None, min_length=1, max_length=10)
    design: DesignIn
    sampling: ComparisonParams = ComparisonParams()
    samples: int = Field(1, ge=1, le=5, description="Answers asked of each model to each prompt.")
    reasoning: ReasoningPolicy = ReasoningPolicy.HIDDEN
    primary: PrimaryRanking = PrimaryRanking.RAW
    cut: int | None = Field(None, ge=1, description="How many candidates go on, where the round decides that.")
    training: list[PracticeIn] | None = Field(None, max_length=10)
    attention: list[PracticeIn] | None = Field(None, max_length=20)
    retention_until: date | None = Field(None, description="When comments and labels of reviewers are to be erased.")
    notice: TextIn | None = None
    evidence_runs: list[Name] = Field(
        [], max_length=100, description="Of a round of cards: ids of the load runs whose calls count."
    )
    evidence_days: int = Field(30, ge=1, le=366, description="Of a round of cards without runs: how far back it looks.")

    @field_validator("models")
    @classmethod
    def _are_distinct(cls, models: Sequence[str]) -> Sequence[str]:
        return distinct_models(models)

    @field_validator("prompts", "rubric", "training", "attention")
    @classmethod
    def _have_ids_of_their_own(cls, items: list[Any] | None) -> list[Any] | None:
        ids = [item.id for item in items or ()]
        if repeated := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"each needs an id of its own; repeated: {', '.join(repeated)}")
        return items

    @model_validator(mode="after")
    def _is_whole(self) -> PlanIn:
        if self.kind is RoundKind.ANSWERS and (self.prompts is None) == (self.set is None):
            raise ValueError("send either 'prompts' or 'set'")
        if self.kind is RoundKind.CARDS and self.set is not None:
            raise ValueError(
                "set: a round of cards asks about plans: send 'prompts', or leave both out for the usual ones"
            )
        if self.rubric is not None and (total := sum(one.weight for one in self.rubric)) != 1:
            raise ValueError(f"rubric: the weights must add up to 1, these make {total}")
        if self.cut is not None and self.cut >= len(self.models):
            raise ValueError(f"cut: expected fewer than the {len(self.models)} models, got {self.cut}")
        practised = {item.id for item in (*(self.training or ()), *(self.attention or ()))}
        if clash := practised & {prompt.id for prompt in self.prompts or ()}:
            raise ValueError(f"prompts and practice items need ids of their own; both have: {', '.join(sorted(clash))}")
        return self

    def plan(self) -> RoundPlan:
        """The plan with what it does not say filled in from `rounds.defaults`."""
        rubric = RUBRICS[self.kind]
        if self.rubric is not None:
            rubric = tuple(Criterion(c.id, c.title.text(), c.question.text(), c.weight) for c in self.rubric)
        prompts = self._prompts()
        languages = {prompt.language for prompt in prompts}
        return RoundPlan(
            title=self.title.text(),
            models=tuple(self.models),
            prompts=prompts,
            rubric=rubric,
            design=DesignOptions(**self.design.model_dump()),
            sampling=self.sampling.model_dump(mode="json", exclude_none=True),
            kind=self.kind,
            samples=self.samples,
            reasoning=self.reasoning,
            primary=self.primary,
            cut=self.cut,
            training=_practice(self.kind, "training", self.training, languages),
            attention=_practice(self.kind, "attention", self.attention, languages),
            retention_until=self.retention_until,
            evidence_runs=tuple(self.evidence_runs),
            evidence_days=self.evidence_days,
            notice=self.notice.text() if self.notice is not None else NOTICE,
        )

    def _prompts(self) -> tuple[RoundPrompt, ...]:
        if self.prompts is not None:
            return tuple(RoundPrompt(p.id, p.stratum, p.language, p.text) for p in self.prompts)
        if self.kind is RoundKind.CARDS:
            return card_questions(self.language)
        shipped = load_prompts(language=self.language)
        return tuple(RoundPrompt(p.id, p.industry or "general", p.language or "ko", p.text) for p in shipped)


def _practice(
    kind: RoundKind, use: str, given: list[PracticeIn] | None, languages: set[str]
) -> tuple[PracticeItem, ...]:
    """The author's own items, or the shipped ones in the languages of the prompts."""
    if given is not None:
        return tuple(item.item() for item in given)
    return tuple(item for item in practice_items(kind, use) if item.language in languages)


class ReviewerIn(Asked):
    label: Name = Field(description="By which the chair tells reviewers apart; it never leaves the chair's pages.")
    stratum: Code = "reviewer"
    language: Language = "ko"


class ReviewersIn(Asked):
    reviewers: list[ReviewerIn] = Field(min_length=1, max_length=MOST_REVIEWERS)


class ExclusionIn(Asked):
    """A reviewer, item, pair or prompt whose votes do not count, with the reason that the bundle will show."""

    kind: Literal["reviewer", "item", "prompt"]
    subject: Words
    rule: Code = "chair"
    reason: Words

    @field_validator("rule")
    @classmethod
    def _is_the_chairs(cls, rule: str) -> str:
        if rule in RESERVED_RULES:
            raise ValueError(f"'{rule}' is set by the gateway itself: choose another name for your rule")
        return rule


class ClearanceIn(Asked):
    """Comments by the numbers of their entries, as the round's list of comments shows them."""

    entries: list[Annotated[int, Field(ge=1, le=2**53)]] = Field(min_length=1, max_length=MOST_CLEARED)


# --- answers ------------------------------------------------------------------------------------------------


class ApprovalOut(BaseModel):
    who: str = Field(description="The id of the key, or admin for the environment's.")
    role: str
    at: Moment


class RoundOut(BaseModel):
    id: str
    name: str
    title: dict[str, str]
    kind: RoundKind
    status: RoundStatus
    created_at: Moment
    sealed_at: Moment | None
    opened_at: Moment | None
    closed_at: Moment | None
    revealed_at: Moment | None
    archived_at: Moment | None
    provenance: str | None = Field(description="Of the answers: real, stand_in, simulated, unknown; null before any.")
    root: str | None = Field(description="The published commitment to all that is fixed, from sealing on.")
    head: str | None = Field(description="Of the chain of votes; published at closing, null before.")
    closing: str | None = Field(
        description="The root over exclusions, accesses, reviewers and answers as they were at closing; null before."
    )
    approvals: list[ApprovalOut] | None = Field(description="Who approved of the reveal, as what; null before it.")
    prompts: int
    models: int
    reviewers: int
    votes: int = Field(description="Entries of the chain of votes, revisions included.")
    dry_run: dict[str, Any] | None
    next: list[str] = Field(description="What can be done now, and by whom.")


class FindingOut(BaseModel):
    """Something in a comment that looks like personal data."""

    field: str
    kind: str
    masked: str


class CommentOut(BaseModel):
    """What a reviewer wrote in their own words beside a judgement that counts."""

    entry: int = Field(description="Its number in the chain of votes, by which it is cleared.")
    item: str
    reviewer: str = Field(description="The reviewer's pseudonym.")
    words: dict[str, str] = Field(description="By field: reason, comment.")
    findings: list[FindingOut] = Field(description="Where there are any, the words stay closed.")
    cleared_at: Moment | None = Field(description="Null while public bundles keep the words back.")
    cleared_by: str | None


class CommentList(BaseModel):
    data: list[CommentOut]


class ClearanceOut(BaseModel):
    entry: int
    at: Moment
    by: str = Field(description="The id of the key, or admin for the environment's.")


class ClearanceList(BaseModel):
    data: list[ClearanceOut]


class RoundList(BaseModel):
    data: list[RoundOut]


class LinkOut(BaseModel):
    """A reviewer's link, for the one time that it can be read."""

    id: str = Field(description="The reviewer's pseudonym.")
    label: str
    stratum: str
    link: str
    expires_at: Moment


class LinkList(BaseModel):
    data: list[LinkOut]


class RevealOut(BaseModel):
    round: RoundOut
    missing: list[str] = Field(description="Roles whose approval is still missing; empty once the names are open.")
