"""What a round has where its plan does not say: a rubric, practice pairs, attention items, a notice.

Words that people read, in both languages, of the project's own writing.
"""

from __future__ import annotations

import json
from decimal import Decimal
from importlib.resources import files
from typing import Any

from gateway.domain.rounds import Choice, Criterion, PracticeItem, RoundKind, RoundPrompt, Text

_ANSWERS = (
    Criterion(
        "quality",
        Text("정확성과 깊이", "Correctness and depth"),
        Text("어느 답변이 더 정확하고 빠짐없이 답했습니까?", "Which answer is more correct and complete?"),
        Decimal("0.5"),
    ),
    Criterion(
        "usefulness",
        Text("업무 활용도", "Use at work"),
        Text(
            "실제 업무에 쓴다면 어느 답변을 덜 고치고 쓸 수 있습니까?",
            "Which answer could you use at work with fewer changes?",
        ),
        Decimal("0.3"),
    ),
    Criterion(
        "language",
        Text("언어 표현", "Language"),
        Text("어느 답변이 더 자연스럽고 읽기 쉽습니까?", "Which answer reads more naturally and easily?"),
        Decimal("0.2"),
    ),
)
_CARDS = (
    Criterion(
        "realism",
        Text("실현 가능성", "Realism"),
        Text(
            "어느 쪽의 인프라 계획이 실제로 운영될 수 있다고 보십니까?",
            "Whose serving plan is more likely to work in practice?",
        ),
        Decimal("0.6"),
    ),
    Criterion(
        "economy",
        Text("경제성", "Economy"),
        Text(
            "어느 쪽이 같은 비용으로 더 많은 사용자를 감당하겠습니까?",
            "Which serves more users for the same money?",
        ),
        Decimal("0.4"),
    ),
)
RUBRICS = {RoundKind.ANSWERS: _ANSWERS, RoundKind.CARDS: _CARDS}
NOTICE = Text(
    "이 심사에서는 서로 다른 모델의 답변 두 개를 이름 없이 나란히 보고 비교합니다. "
    "심사 기록(선택, 등급, 의견, 걸린 시간)은 가명으로 저장되며 결과 검증에 쓰입니다. "
    "답변을 외부에 옮기거나 모델을 알아내려고 시도하지 말아 주세요. "
    "제출하기 전까지는 언제든지 그만둘 수 있습니다.",
    "In this review you compare two answers side by side without knowing which model wrote them. What you record "
    "(choices, grades, comments, time taken) is kept under a pseudonym and used to verify the result. Please do not "
    "pass answers on or try to find out which model is which. Until you submit, you may stop at any time.",
)


def practice_items(kind: RoundKind, use: str) -> tuple[PracticeItem, ...]:
    """The shipped pairs for a kind of round. `use`: training or attention."""
    found: list[dict[str, Any]] = _shipped()[kind.value][use]
    return tuple(PracticeItem(**{**it, "better": Choice(it["better"]), "why": Text(**it["why"])}) for it in found)


def card_questions(language: str | None) -> tuple[RoundPrompt, ...]:
    """What a round of cards asks about the candidates' plans, in one language or both."""
    found: list[dict[str, str]] = _shipped()["cards"]["questions"]
    return tuple(RoundPrompt(**it) for it in found if language in (None, it["language"]))


def _shipped() -> Any:
    return json.loads(files(__package__).joinpath("practice.json").read_bytes())
