"""A blind review round put into the database, for tests of what reviewers see of it and do in it.

Everything that must not reach a reviewer carries the word CANARY: models, calls, facts, redactions. What they are to
see carries none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from gateway.domain.rounds import (
    AnswerStatus,
    Choice,
    Criterion,
    DesignOptions,
    ItemKind,
    PracticeItem,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundPlan,
    RoundPrompt,
    RoundStatus,
    Text,
    plan_document,
)
from gateway.rounds.links import make_token
from gateway.rounds.sealed import text_digest
from gateway.rounds.store import RoundStore
from gateway.store import Store

NOW = datetime(2026, 11, 28, 6, 0, tzinfo=UTC)
KEY = "c0" * 32
CANARY = "CANARY"
MODELS = ("canary-model-one", "canary-model-two", "canary-model-three")
"""Their consortia: one, two, two."""
REVIEWERS = ("reviewer-1", "reviewer-2")
CONSORTIA: Sequence[Mapping[str, Any]] = tuple(
    {
        "id": f"family-{n}",
        "name": {"ko": f"{n}번 컨소시엄", "en": f"Consortium {n}"},
        "programme_status": "in",
        "source": "S",
        "confidence": "high",
    }
    for n in range(1, 11)
)
SECTIONS: Mapping[str, Any] = {"consortia": list(CONSORTIA), "sources": {"S": "A source"}}
"""For the registry of `running_gateway`."""
ENTRIES: Sequence[Mapping[str, Any]] = tuple(
    {
        "id": model,
        "serving": {"kind": "none", "reason": "a test", "source": "S", "confidence": "high"},
        "consortium": f"family-{min(n, 2)}",
    }
    for n, model in enumerate(MODELS, 1)
)
"""Of the registry, one for each model."""

PROMPTS = (
    RoundPrompt("p1", "finance", "ko", "기준금리가 오르면 변동금리 대출자에게 생기는 일을 쉽게 설명해 주세요."),
    RoundPrompt("p2", "manufacturing", "ko", "공장 설비의 예지 보전을 시작합니다. 첫 달에 할 일을 알려 주세요."),
    RoundPrompt("p3", "education", "en", "Explain to a ten-year-old why the sky is blue."),
)  # fmt: skip
ANSWERS = {
    "p1": (
        "기준금리가 오르면 **변동금리 대출의 이자도 함께 오릅니다.**\n\n1. 은행이 돈을 빌려 오는 비용이 늘어납니다.\n"
        "2. 대출 금리가 정해진 주기마다 다시 계산됩니다.\n3. 매달 내는 이자가 늘어납니다.\n\n"
        "| 대출 잔액 | 금리 | 한 달 이자 |\n|---|--:|--:|\n"
        "| 1억 원 | 4.0% | 약 33만 원 |\n| 1억 원 | 4.5% | 약 38만 원 |\n\n"
        "계산식은 $1억 \\times r / 12$ 입니다.",
        "기준금리는 한국은행이 정하는 금리입니다. 이 금리가 오르면 시중 은행의 금리도 따라 오르는 경우가 많습니다. "
        "변동금리 대출을 받았다면 몇 달 뒤부터 이자가 늘어날 수 있으니, 고정금리로 바꾸는 방법도 알아보세요.",
        "이자가 오릅니다.",
    ),
    "p2": (
        "## 첫째 주\n설비 목록과 고장 이력을 모읍니다.\n\n"
        "## 둘째 주\n- 진동 센서를 붙일 설비를 세 대 고릅니다.\n- 측정 주기를 정합니다.\n\n"
        "```python\nrms = (sum(x * x for x in window) / len(window)) ** 0.5\n```\n\n"
        "## 셋째 주와 넷째 주\n데이터를 보며 기준값을 정합니다.",
        "먼저 고장 이력을 모으고, 자주 멈추는 설비부터 센서를 붙이세요. "
        "한 달 동안은 자료를 쌓는 데 집중하는 편이 좋습니다.",
        "설비를 점검하세요.",
    ),
    "p3": (
        "Sunlight looks white, but it is made of **many colours**. The air scatters blue light more than red light, "
        "so blue comes to your eyes from everywhere in the sky.",
        "Because of Rayleigh scattering: intensity goes as $$\\frac{1}{\\lambda^4}$$ so short waves scatter most.",
        "It just is.",
    ),
}
"""By prompt, one for each model."""
PLAN = RoundPlan(
    title=Text("1차 블라인드 심사", "First blind review"),
    models=MODELS,
    prompts=PROMPTS,
    rubric=(
        Criterion(
            "quality", Text("품질", "Quality"),
            Text("내용이 더 정확하고 충실한 쪽은?", "Which is more correct and complete?"), Decimal("0.6"),
        ),
        Criterion(
            "use", Text("활용성", "Usefulness"),
            Text("현장에서 바로 쓰기에 더 좋은 쪽은?", "Which is more useful in practice?"), Decimal("0.4"),
        ),
    ),
    design=DesignOptions(votes_per_reviewer=3, repeats_per_reviewer=0, attention_per_reviewer=1),
    sampling={"temperature": 0.7, "max_tokens": 512, "user": CANARY},
    training=(
        PracticeItem(
            "t1", "ko", "1킬로미터는 몇 미터입니까?", "1,000미터입니다.", "100미터입니다.", Choice.A,
            Text("A가 맞습니다. 1킬로미터는 1,000미터입니다.", "A is right: a kilometre is 1,000 metres."),
        ),
        PracticeItem(
            "t2", "ko", "물은 몇 도에서 끓습니까?", "끓지 않습니다.", "1기압에서 섭씨 100도입니다.", Choice.B,
            Text("B가 맞습니다.", "B is right."),
        ),
    ),
    attention=(
        PracticeItem("x1", "ko", "대한민국의 수도는 어디입니까?", "서울입니다.", "모릅니다.", Choice.A, Text("A", "A")),
    ),
    notice=Text("이 심사는 국가대표 모델을 고르기 위한 것입니다.", "This review chooses the national model."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReviewRound:
    """A round in the database."""

    id: str
    store: RoundStore

    async def token(self, reviewer: str = REVIEWERS[0], *, expires_at: datetime | None = None) -> str:
        """What stands in the reviewer's link behind '#'."""
        found = await self.store.reviewer(self.id, reviewer)
        assert found is not None
        return make_token(KEY, self.id, found, expires_at=expires_at or datetime.now(UTC) + timedelta(days=1))

    async def move(self, before: RoundStatus, after: RoundStatus) -> None:
        assert await self.store.move(self.id, {before}, after)


def item_id(reviewer: str, position: int) -> str:
    """128 bits that look random."""
    return sha256(f"{reviewer} {position}".encode()).hexdigest()[:32]


def items_of(reviewer: str) -> list[RoundItem]:
    """Three votes and an attention item. The pairs by models' numbers: 0-1, 1-2, 2-0."""
    items = [
        RoundItem(
            item_id(reviewer, n), reviewer, n, ItemKind.VOTE, prompt.id, MODELS[n], MODELS[(n + 1) % 3],
            item_id(reviewer, 100 + n), item_id(reviewer, 200 + n),
        )
        for n, prompt in enumerate(PROMPTS)
    ]  # fmt: skip
    last = len(items)
    attention = RoundItem(
        item_id(reviewer, last), reviewer, last, ItemKind.ATTENTION, "x1", "a", "b",
        item_id(reviewer, 100 + last), item_id(reviewer, 200 + last),
    )  # fmt: skip
    return [*items, attention]


def answers(plan: RoundPlan = PLAN) -> list[RoundAnswer]:
    """An answer of every model to every prompt."""
    return [
        RoundAnswer(
            prompt.id,
            model,
            AnswerStatus.OK,
            f"comparison-{CANARY}",
            f"call-{CANARY}",
            f"provenance-{CANARY}",
            f"{CANARY} {ANSWERS[prompt.id][n]}",
            ANSWERS[prompt.id][n],
            ({"start": 0, "end": 6, "text": CANARY},),
            {"timing": {"e2e_s": CANARY}, "usage": CANARY, "finish_reason": CANARY, "error": {"code": CANARY}},
        )
        for prompt in plan.prompts
        for n, model in enumerate(plan.models)
    ]


def shown_parts(plan: RoundPlan, items: Sequence[RoundItem]) -> dict[str, Any]:
    """The sealed parts that say what is shown."""
    document = plan_document(plan)
    return {
        "prompts": document["prompts"],
        "practice": {"training": document["training"], "attention": document["attention"]},
        "answers": [
            {"model": one.model, "prompt": one.prompt_id, "shown_sha256": text_digest(one.shown)}
            for one in answers(plan)
        ],
        "items": [
            {"id": one.id, "kind": one.kind.value, "prompt": one.prompt_id, "left": one.left, "right": one.right}
            for one in items
        ],
    }


async def put_round(
    store: Store,
    *,
    plan: RoundPlan = PLAN,
    status: RoundStatus = RoundStatus.OPEN,
    reviewers: Sequence[str] = REVIEWERS,
    language: str = "ko",
    trained: bool = False,
) -> ReviewRound:
    """A sealed round, moved on to `status` if it is another. `trained`: everybody consented and practised already."""
    rounds = RoundStore(store)
    draft = Round("round-1", "first", NOW, "", RoundStatus.DRAFT, plan, provenance=f"provenance-{CANARY}")
    at = NOW if trained else None
    await rounds.create(draft, {"links": KEY})
    await rounds.add_reviewers(
        draft.id,
        [
            Reviewer(name, f"label-{CANARY}", f"stratum-{CANARY}", language, consented_at=at, trained_at=at)
            for name in reviewers
        ],
    )
    await rounds.save_answers(draft.id, answers(plan))
    items = [item for name in reviewers for item in items_of(name)]
    assert await rounds.seal(
        draft.id,
        items=items,
        documents={
            "design": CANARY,
            "mapping": {
                f"M{n:02d}": {"model": m, "consortium": f"family-{min(n, 2)}"} for n, m in enumerate(MODELS, start=1)
            },
            **shown_parts(plan, items),
        },
        secrets={"design": CANARY},
        root="ab" * 32,
        sealed_at=NOW,
    )
    if status is not RoundStatus.SEALED:
        assert await rounds.move(draft.id, {RoundStatus.SEALED}, status)
    return ReviewRound(draft.id, rounds)


def longer_plan(prompts: int) -> RoundPlan:
    """The plan with its prompts said over and over."""
    chosen = tuple(replace(PROMPTS[n % 3], id=f"p{n}") for n in range(prompts))
    return replace(PLAN, prompts=chosen)
