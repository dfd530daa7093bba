"""What a result says in words: every sentence as it is written, and none that its intervals do not bear."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rounds.conclusion_words import SENTENCES
from gateway.rounds.conclusions import Topic, conclusions, rate_alpha, result_title
from gateway.rounds.figure_words import counted, number_words, share_words

CODES = ("M01", "M02", "M03")
COMPARISONS = re.compile(r"ahead|Ahead|first|보다|앞선|1위|better than|clear\. Every|분명합니다")


def figure(value: float | None, interval: list[float] | None = None, n: int = 40) -> dict[str, Any]:
    return {"value": value, "interval": interval, "n": n, "reason": None}


def estimate(gaps: tuple[float, float] = (0.5, 0.5), reach: float = 0.3, **changed: Any) -> dict[str, Any]:
    """Three models in the order of their codes; neighbours `gaps` apart, pairs known to ± `reach`."""
    strengths = (gaps[0] + gaps[1], gaps[1], 0.0)
    pairs = [(0, 1), (0, 2), (1, 2)]
    above = {pair: strengths[pair[0]] - strengths[pair[1]] > reach for pair in pairs}
    models = [
        {
            "model": code,
            "strength": strengths[place],
            "win_rate": 0.6 - 0.1 * place,
            "win_rate_interval": [0.5 - 0.1 * place, 0.7 - 0.1 * place],
            "rating": 1000.0,
            "rating_interval": [900.0, 1100.0],
            "strength_interval": [strengths[place] - 0.2, strengths[place] + 0.2],
            "best_rank": 1 + sum(above[pair] for pair in pairs if pair[1] == place),
            "worst_rank": 3 - sum(above[pair] for pair in pairs if pair[0] == place),
        }
        for place, code in enumerate(CODES)
    ]
    groups = [list(CODES)] if not any(above.values()) else [list(two) for two in pairwise(CODES)]
    found = {
        "is_comparable": True,
        "n": 900,
        "reviewers": 40,
        "prompts": 120,
        "reason": None,
        "cautions": [],
        "degrees": 39,
        "models": models,
        "not_distinguishable": [g for g in groups if len(g) == 3 or not above[CODES.index(g[0]), CODES.index(g[1])]],
        "line": None,
        "components": [],
        "pairs": [
            {
                "first": CODES[a],
                "second": CODES[b],
                "n": 300,
                "points_of_first": 160.0,
                "difference": strengths[a] - strengths[b],
                "simultaneous_interval": [strengths[a] - strengths[b] - reach, strengths[a] - strengths[b] + reach],
                "is_distinguishable": above[a, b],
            }
            for a, b in pairs
        ],
    }
    return {**found, **changed}


def not_comparable(reason: str, *components: list[str]) -> dict[str, Any]:
    return {"is_comparable": False, "n": 0, "reason": reason, "components": list(components)}


def result(overall: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """A result in which nothing is said but of the candidates; `changed` of its analysis."""
    raw = estimate() if overall is None else overall
    blank = not_comparable("not_recorded")
    analysis = {
        "is_opened": True,
        "is_ranking": True,
        "plan": {"primary": "raw", "keep": 1, "confidence": 0.95, "provenance": dict.fromkeys(CODES, "real")},
        "overall": raw,
        "pairs": raw.get("pairs", []),
        "style_controlled": blank,
        "criteria": {},
        "industries": {},
        "acceptability": blank,
        "sensitivity": [],
        "position": blank,
        "agreement": {"alpha": figure(None), "consistent": figure(None)},
        "attention": figure(None),
        "fragility": None,
        "anomalies": [],
        "blinding": {"james": figure(None), "bang": dict.fromkeys(CODES, figure(None)), "recognised": figure(None)},
        "reliability": [{"model": code, "asked": 120, "failed": 0} for code in CODES],
        "reviewers": {"voted_not_submitted": 0},
    }
    title = {"ko": "1차", "en": "Stage 1"}
    return {"round": {"title": title}, "names": None, "analysis": {**analysis, **changed}}


def line(*, is_clear: bool) -> dict[str, Any]:
    pairs = [{"above": "M01", "below": below, "is_separated": is_clear or below == "M03"} for below in ("M02", "M03")]
    return {"keep": 1, "above": ["M01"], "is_clear": is_clear, "contested": ["M02", "M01"], "pairs": pairs}


def fragility(**removals: Any) -> dict[str, Any]:
    return {"n": 900, "reason": None, "votes": None, "reviewers": None, **removals}


def accepted(where: str) -> dict[str, Any]:
    return {"is_comparable": True, "models": [{"model": code, "line": where} for code in CODES]}


def style(*spans: list[float]) -> dict[str, Any]:
    effects = {name: {"interval": span} for name, span in zip(("eojeol", "bold"), spans, strict=False)}
    found = estimate((-0.1, 0.6), effects=effects)
    found["models"][0]["win_rate"] = 0.56
    return found


def side(share: float, low: float, high: float) -> dict[str, Any]:
    return {"is_comparable": True, "share_for_a": share, "share_interval": [low, high]}


def agreement(alpha: dict[str, Any], consistent: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"alpha": alpha, "consistent": consistent or figure(None)}


def blinding(james: dict[str, Any], **more: Any) -> dict[str, Any]:
    bang = {code: figure(0.1, [-0.1, 0.3]) for code in CODES}
    return {"james": james, "bang": bang, "recognised": figure(None), **more}


def variation(name: str, moved: Any) -> list[dict[str, Any]]:
    return [{"variation": name, "left_out": 30, "moved": moved}]


MOVED = {"turned_pairs": 1, "left": ["M01"], "entered": ["M02"]}
STILL = {"turned_pairs": 0, "left": [], "entered": []}
REMOVAL = {"at_most": 9, "share": 0.01, "left": "M01", "entered": "M02"}
FLAGS = [{"sign": "speed"}, {"sign": "speed"}, {"sign": "position_lock"}]
UNSURE = estimate((0.1, 0.1))
CASES: dict[str, dict[str, Any]] = {
    "not_real": result(is_ranking=False, plan={**result()["analysis"]["plan"], "provenance": {"M01": "simulated"}}),
    "no_votes": result(not_comparable("no_votes")),
    "not_connected": result(not_comparable("not_connected", ["M01"], ["M02", "M03"])),
    "not_comparable": result(not_comparable("no_convergence")),
    "no_intervals": result(estimate(degrees=None, reviewers=1)),
    "few_reviewers": result(estimate(reviewers=10)),
    "few_prompts": result(estimate(prompts=60)),
    "clipped": result(estimate(cautions=["clipped"])),
    "none_distinguished": result(UNSURE),
    "all_distinguished": result(),
    "some_distinguished": result(estimate((0.5, 0.1))),
    "ahead": result(),
    "group": result(estimate((0.5, 0.1))),
    "first": result(),
    "may_be_first": result(estimate((0.1, 0.5))),
    "ranks": result(estimate((0.5, 0.1))),
    "line_clear": result(estimate(line=line(is_clear=True))),
    "line_unclear": result(estimate(line=line(is_clear=False))),
    "fragile_votes": result(fragility=fragility(votes=REMOVAL)),
    "fragile_reviewers": result(fragility=fragility(reviewers={**REMOVAL, "at_most": 3, "share": 0.075})),
    "line_holds": result(fragility=fragility(reason="line_holds")),
    "acceptable": result(acceptability=accepted("acceptable")),
    "not_acceptable": result(acceptability=accepted("not_acceptable")),
    "acceptable_unclear": result(acceptability=accepted("unclear")),
    "no_both_bad": result(acceptability=not_comparable("no_both_bad")),
    "acceptability_unknown": result(acceptability=not_comparable("not_connected", ["M01"])),
    "style_turned": result(style_controlled=style()),
    "style_more": result(style_controlled=style([0.1, 0.3], [-0.1, 0.3])),
    "style_less": result(style_controlled=style([-0.3, -0.1], [-0.3, -0.1])),
    "style_none": result(style_controlled=style([-0.1, 0.1])),
    "style_not_recorded": result(style_controlled=not_comparable("not_recorded")),
    "style_unknown": result(style_controlled=not_comparable("no_convergence")),
    "position_found": result(position=side(0.45, 0.42, 0.48)),
    "position_not_found": result(position=side(0.514, 0.494, 0.533)),
    "agreement_high": result(agreement=agreement(figure(0.85, [0.81, 0.9]))),
    "agreement_fair": result(agreement=agreement(figure(0.75, [0.7, 0.81]))),
    "agreement_low": result(agreement=agreement(figure(0.07, [-0.03, 0.16]))),
    "agreement_unclear": result(agreement=agreement(figure(0.7, [0.6, 0.8]))),
    "agreement_point": result(agreement=agreement(figure(0.9))),
    "agreement_unknown": result(),
    "consistent": result(agreement=agreement(figure(None), figure(0.456, [0.35, 0.57], 79))),
    "attention": result(attention=figure(0.975, [0.86, 0.996])),
    "blinding_broken": result(blinding=blinding(figure(0.4, [0.35, 0.45]))),
    "blinding_unclear": result(blinding=blinding(figure(0.52, [0.45, 0.6]))),
    "blinding_held": result(blinding=blinding(figure(0.75, [0.71, 0.78]))),
    "blinding_after_reveal": result(is_opened=False),
    "blinding_unknown": result(),
    "recognised_models": result(
        blinding=blinding(figure(0.6, [0.55, 0.65]), bang={**dict.fromkeys(CODES, figure(0.2, [0.1, 0.3]))})
    ),
    "recognised": result(blinding=blinding(figure(None), recognised=figure(0.028, [0.02, 0.04], 1677))),
    "without_both_bad": result(sensitivity=variation("without_both_bad", MOVED)),
    "without_recognised": result(sensitivity=variation("without_recognised", STILL)),
    "variation_unknown": result(sensitivity=variation("without_recognised", None)),
    "criteria": result(criteria={"quality": {}}),
    "industries": result(industries={"finance": {}}),
    "failures": result(reliability=[{"model": code, "asked": 120, "failed": int(code != "M02")} for code in CODES]),
    "anomalies": result(anomalies=FLAGS),
    "not_submitted": result(reviewers={"voted_not_submitted": 2}),
}
GOLDEN: dict[str, tuple[str, str]] = {
    "not_real": (
        "이 결과는 순위가 아닙니다. 모의 답변이 포함되어 있어 절차를 시험하고 계획하는 데에만 쓸 수 있습니다.",
        "This is not a ranking. It rests, at least in part, on simulated answers and serves only to try out and "
        "plan the procedure.",
    ),
    "no_votes": (
        "집계할 표가 없어 후보를 비교할 수 없습니다. 순위를 매기지 않습니다.",
        "There are no votes to count, so the candidates cannot be compared. No ranks are given.",
    ),
    "not_connected": (
        "표가 모든 후보를 이어 주지 않아 서로 비교할 수 없습니다. 순위를 매기지 않습니다. 그 안에서만 비교할 수 "
        "있는 묶음: M01 / M02, M03.",
        "The votes do not connect all candidates, so they cannot be compared. No ranks are given. Comparable "
        "only among themselves: M01 / M02, M03.",
    ),
    "not_comparable": (
        "이 표로는 추정값이 하나로 정해지지 않아 후보를 비교할 수 없습니다. 순위를 매기지 않습니다.",
        "These votes do not lead to one set of estimates, so the candidates cannot be compared. No ranks are given.",
    ),
    "no_intervals": (
        "심사위원이나 질문이 둘 미만이어서 신뢰구간을 구할 수 없습니다. 후보를 구별하는 말은 하지 않습니다.",
        "With fewer than two reviewers or prompts there are no intervals. Nothing is said about who differs from whom.",
    ),
    "few_reviewers": (
        "주의: 집계된 심사위원이 10명으로 30명보다 적습니다. 신뢰구간이 심사위원이 서로 비슷하다는 가정에 더 "
        "크게 기댑니다.",
        "Caution: 10 reviewers were counted, fewer than 30. The intervals lean more on reviewers being alike.",
    ),
    "few_prompts": (
        "주의: 집계된 질문이 60개로 100개보다 적습니다. 다른 질문에서는 결과가 달라질 수 있습니다.",
        "Caution: 60 prompts were counted, fewer than 100. Other prompts may lead to another result.",
    ),
    "clipped": (
        "주의: 분산 추정에 음수 방향이 나타나 0으로 처리했습니다. 신뢰구간을 조심스럽게 읽어 주세요.",
        "Caution: the estimate of variance had negative directions, set to zero. Read the intervals with care.",
    ),
    "none_distinguished": (
        "어느 두 후보도 서로 구별되지 않습니다(3쌍 모두, 95% 동시 신뢰구간). 실력이 같다는 뜻이 아니라, 이 "
        "표만으로는 차이를 말할 수 없다는 뜻입니다.",
        "No two candidates are distinguishable (all 3 pairs, 95% simultaneous intervals). This does not mean "
        "that they are equal, only that these votes cannot tell them apart.",
    ),
    "all_distinguished": (
        "모든 후보가 서로 구별됩니다(3쌍, 95% 동시 신뢰구간).",
        "All candidates are distinguishable from each other (3 pairs, 95% simultaneous intervals).",
    ),
    "some_distinguished": (
        "후보 3쌍 가운데 2쌍은 구별되고 1쌍은 구별되지 않습니다(95% 동시 신뢰구간).",
        "Of 3 pairs of candidates, 2 can be told apart and 1 cannot (95% simultaneous intervals).",
    ),
    "ahead": (
        "M01보다 뒤에 있다고 말할 수 있는 후보: M02, M03.",
        "M01 is ahead of: M02, M03.",
    ),
    "group": (
        "서로 구별되지 않음: M02, M03.",
        "Not distinguishable from each other: M02, M03.",
    ),
    "first": (
        "다른 모든 후보와 구별되며 가장 앞선 후보: M01.",
        "Ahead of every other candidate, and distinguishable from each: M01.",
    ),
    "may_be_first": (
        "1위일 수 있는 후보: M01, M02. 이들 가운데 누가 1위인지는 이 표로 정할 수 없습니다.",
        "May be first: M01, M02. Which of them is, these votes cannot decide.",
    ),
    "ranks": (
        "가능한 순위: M01(1위), M02(2–3위), M03(2–3위).",
        "Possible ranks: M01 (1), M02 (2–3), M03 (2–3).",
    ),
    "line_clear": (
        "선발선(상위 1개)은 분명합니다. 선 위의 후보는 선 아래의 모든 후보와 구별됩니다(Holm 보정): M01.",
        "The cut line below the top 1 is clear. Every candidate above it is distinguishable from every one below "
        "(Holm): M01.",
    ),
    "line_unclear": (
        "선발선(상위 1개)은 분명하지 않습니다. 선을 사이에 둔 2쌍 가운데 1쌍이 구별되지 않습니다(Holm 보정). "
        "선의 어느 쪽인지 다툴 수 있는 후보: M01, M02.",
        "The cut line below the top 1 is not clear. Of 2 pairs across it, 1 cannot be told apart (Holm). Their "
        "side of the line is open to dispute: M01, M02.",
    ),
    "fragile_votes": (
        "집계된 900표 가운데 9표(1.0%)를 빼면 선발선이 움직입니다: M01 아래로, M02 위로. 더 적은 표로도 가능할 "
        "수 있습니다.",
        "Removing 9 of 900 votes (1.0%) moves the cut line: M01 falls below it, M02 rises above. Fewer may suffice.",
    ),
    "fragile_reviewers": (
        "심사위원 40명 가운데 3명(7.5%)의 표를 모두 빼면 선발선이 움직입니다: M01 아래로, M02 위로. 더 적은 "
        "인원으로도 가능할 수 있습니다.",
        "Removing all votes of 3 of 40 reviewers (7.5%) moves the cut line: M01 falls below it, M02 rises above. "
        "Fewer may suffice.",
    ),
    "line_holds": (
        "표나 심사위원을 빼 본 범위에서는 선발선이 움직이지 않았습니다. 모든 경우를 해 본 것은 아닙니다.",
        "No removal of votes or reviewers that was tried moves the cut line. Not every one was tried.",
    ),
    "acceptable": (
        "'둘 다 미흡'을 기준으로 수용선 위라고 말할 수 있는 후보: M01, M02, M03(후보별 95% 구간).",
        "Above the acceptable line that “both bad” draws: M01, M02, M03 (each by its own 95% interval).",
    ),
    "not_acceptable": (
        "'둘 다 미흡'을 기준으로 수용선 아래라고 말할 수 있는 후보: M01, M02, M03(후보별 95% 구간).",
        "Below the acceptable line that “both bad” draws: M01, M02, M03 (each by its own 95% interval).",
    ),
    "acceptable_unclear": (
        "수용선의 어느 쪽인지 말할 수 없는 후보: M01, M02, M03.",
        "On neither side of the acceptable line with any certainty: M01, M02, M03.",
    ),
    "no_both_bad": (
        "'둘 다 미흡'을 고른 표가 없어 수용선을 그을 수 없습니다.",
        "Nobody chose “both bad”, so no acceptable line can be drawn.",
    ),
    "acceptability_unknown": (
        "이 표로는 수용선을 그을 수 없습니다.",
        "These votes do not draw an acceptable line.",
    ),
    "style_turned": (
        "문체(길이, 제목, 목록, 굵은 글씨)를 보정하면 3쌍 가운데 1쌍의 추정 순서가 뒤바뀌고, 예상 승률은 최대 "
        "4.0%p 달라집니다. 미리 정한 주 결과: 원래 표.",
        "Controlled for style (length, headings, lists, bold), the estimated order turns for 1 of 3 pairs, and "
        "expected win rates move by up to 4.0 percentage points. Named beforehand as the result: the votes as "
        "they are.",
    ),
    "style_more": (
        "다른 조건이 같을 때 더 자주 선택된 쪽: 길이(어절) 값이 큰 답변(특징별 95% 구간). 인과관계를 뜻하지는 "
        "않습니다.",
        "Other things equal, chosen more often: answers with more of length in words (eojeol) (each by its own "
        "95% interval). This need not be the cause.",
    ),
    "style_less": (
        "다른 조건이 같을 때 덜 선택된 쪽: 길이(어절), 굵은 글씨 수 값이 큰 답변(특징별 95% 구간). 인과관계를 "
        "뜻하지는 않습니다.",
        "Other things equal, chosen less often: answers with more of length in words (eojeol), bold passages "
        "(each by its own 95% interval). This need not be the cause.",
    ),
    "style_none": (
        "문체 특징 가운데 선택에 영향을 주었다고 말할 수 있는 것은 없습니다.",
        "No feature of style can be said to have moved the choices.",
    ),
    "style_not_recorded": (
        "문체를 보정한 결과는 없습니다. 답변의 문체를 재지 않았습니다.",
        "There is no result controlled for style: it was not measured.",
    ),
    "style_unknown": (
        "문체를 보정한 결과는 없습니다. 이 표로는 문체의 영향을 따로 떼어 낼 수 없습니다.",
        "There is no result controlled for style: these votes cannot separate its effect.",
    ),
    "position_found": (
        "자리의 영향이 있습니다. 실력이 같은 두 답변이라면 B 쪽의 몫은 55.0%입니다(95% 구간 52.0%–58.0%). 자리는 "
        "균형 있게 배정되었습니다.",
        "Position mattered. Of two equal answers the one at B takes 55.0% (95% interval 52.0%–58.0%). Positions "
        "were balanced by design.",
    ),
    "position_not_found": (
        "자리의 영향은 드러나지 않았습니다. 실력이 같은 두 답변이라면 A 쪽의 몫은 51.4%입니다(95% 구간 49.4%–53.3%).",
        "No effect of position shows. Of two equal answers the one at A takes 51.4% (95% interval 49.4%–53.3%).",
    ),
    "agreement_high": (
        "같은 항목을 본 심사위원들의 판단은 잘 일치합니다(크리펜도르프 α 0.85, 구간 0.81–0.90).",
        "Reviewers of the same items agree well (Krippendorff's α 0.85, interval 0.81–0.90).",
    ),
    "agreement_fair": (
        "같은 항목을 본 심사위원들의 판단은 잠정적 결론을 낼 만큼 일치합니다(크리펜도르프 α 0.75, 구간 0.70–0.81).",
        "Reviewers of the same items agree enough for tentative conclusions (Krippendorff's α 0.75, interval "
        "0.70–0.81).",
    ),
    "agreement_low": (
        "같은 항목을 본 심사위원들의 판단은 자주 엇갈립니다(크리펜도르프 α 0.07, 구간 −0.03 ~ 0.16). 개별 항목의 "
        "판정보다 전체 합계를 보아야 합니다.",
        "Reviewers of the same items often differ (Krippendorff's α 0.07, interval −0.03 ~ 0.16). Read the "
        "totals, not single items.",
    ),
    "agreement_unclear": (
        "심사위원들이 얼마나 일치하는지는 분명하지 않습니다(크리펜도르프 α 0.70, 구간 0.60–0.80).",
        "How far reviewers agree is not clear (Krippendorff's α 0.70, interval 0.60–0.80).",
    ),
    "agreement_point": (
        "크리펜도르프 α는 0.90입니다. 함께 본 항목이 적어 신뢰구간이 없고, 일치도를 평가하지 않습니다.",
        "Krippendorff's α is 0.90. Too few items were shared for an interval, so agreement is not rated.",
    ),
    "agreement_unknown": (
        "여러 심사위원이 함께 본 항목이 없거나 판단이 모두 같아 일치도를 구할 수 없습니다.",
        "Agreement cannot be measured: no item was judged by several reviewers, or all judged alike.",
    ),
    "consistent": (
        "같은 항목을 자리를 바꾸어 다시 본 79번 가운데 46%가 처음과 같은 판정이었습니다(구간 35%–57%).",
        "Of 79 repeats of an item, 46% were judged as the first time (interval 35%–57%).",
    ),
    "attention": (
        "주의 확인 문항의 정답 비율: 98%(40문항, 구간 86%–100%).",
        "Attention items judged rightly: 98% (of 40 items, interval 86%–100%).",
    ),
    "blinding_broken": (
        "주의: 심사위원들의 추측이 우연보다 잘 맞았습니다(제임스 지수 0.40, 구간 0.35–0.45). 블라인드가 온전히 "
        "지켜졌다고 볼 수 없습니다.",
        "Caution: guesses of authors were better than chance (James's index 0.40, interval 0.35–0.45). The blind "
        "did not fully hold.",
    ),
    "blinding_unclear": (
        "추측이 우연보다 잘 맞았는지는 분명하지 않습니다(제임스 지수 0.52, 구간 0.45–0.60; 우연이면 0.5).",
        "Whether guesses were better than chance is not clear (James's index 0.52, interval 0.45–0.60; chance is 0.5).",
    ),
    "blinding_held": (
        "추측이 우연보다 잘 맞았다는 근거는 없습니다(제임스 지수 0.75, 구간 0.71–0.78; 우연이면 0.5, 모두 "
        "'모름'이면 1).",
        "Nothing shows that guesses were better than chance (James's index 0.75, interval 0.71–0.78; 0.5 is "
        "chance, 1 is all “do not know”).",
    ),
    "blinding_after_reveal": (
        "누구의 답변인지 추측한 결과는 이름을 공개한 뒤에 평가합니다.",
        "Guesses of authors are judged after the names are revealed.",
    ),
    "blinding_unknown": (
        "추측이 없거나 적어서 블라인드가 지켜졌는지 지수로 말할 수 없습니다.",
        "There are no guesses, or too few, to say by an index whether the blind held.",
    ),
    "recognised_models": (
        "주의: 우연보다 자주 알아본 것으로 나타난 후보: M01, M02, M03(후보마다 따로 본 95% 구간, 보정 없음).",
        "Caution: recognised more often than by chance: M01, M02, M03 (each by its own 95% interval, uncorrected).",
    ),
    "recognised": (
        "심사위원이 '알아본 것 같다'고 표시한 표: 2.8%(1,677표 가운데, 구간 2%–4%).",
        "Votes whose reviewer thought to recognise a model: 2.8% (of 1,677 votes, interval 2%–4%).",
    ),
    "without_both_bad": (
        "'둘 다 미흡' 30표를 빼고 다시 추정한 결과: 순서가 뒤바뀐 쌍: 1쌍, 선발선 변화: M01 아래로, M02 위로.",
        "Estimated again without 30 votes of “both bad”: pairs that change order: 1; at the cut line M01 falls "
        "below and M02 rises above.",
    ),
    "without_recognised": (
        "'알아본 것 같다'는 30표를 빼고 다시 추정한 결과: 순서가 뒤바뀐 쌍: 0쌍, 선발선 변화: 없음.",
        "Estimated again without 30 votes of recognised models: pairs that change order: 0; at the cut line "
        "nothing changes.",
    ),
    "variation_unknown": (
        "표 일부(30표)를 빼고 다시 추정하는 확인은 할 수 없었습니다. 남는 표로는 후보를 비교할 수 없습니다.",
        "One check, estimating again without 30 votes, could not be made: the rest does not compare the candidates.",
    ),
    "criteria": (
        "평가 기준별 결과는 주 결과를 설명하는 자료이며, 기준마다 따로 순위를 주장하지 않습니다.",
        "Results by criterion describe the main result; no ranks are claimed for a criterion.",
    ),
    "industries": (
        "산업 분야별 수치는 참고용입니다. 표가 적어 분야별 순위를 주장하지 않습니다.",
        "Figures by industry are descriptive. With their few votes no ranks are claimed for an industry.",
    ),
    "failures": (
        "답변을 내지 못한 경우가 있는 후보(해당 쌍은 심사하지 않음): M01(질문 120개 가운데 1개), M03(질문 120개 "
        "가운데 1개).",
        "Gave no answer at times (pairs that need it were not judged): M01 (1 of 120 prompts), M03 (1 of 120 prompts).",
    ),
    "anomalies": (
        "심사 방식이 다른 심사위원과 눈에 띄게 다른 경우: 한쪽 자리만 고름(심사위원 1명), 다른 심사위원보다 훨씬 "
        "짧은 시간(심사위원 2명). 참고 표시일 뿐이며 이 때문에 제외한 표는 없습니다.",
        "Judged in a way unlike others: one side nearly always (1 reviewer), far less time than others (2 "
        "reviewers). These are notes; nothing was excluded because of them.",
    ),
    "not_submitted": (
        "제출을 마치지 않은 심사위원 2명의 표도 저장된 대로 집계했습니다.",
        "Votes of 2 reviewers who did not submit are counted as they were saved.",
    ),
}


def said(found: dict[str, Any], key: str) -> tuple[str, str]:
    both = [[one.text for one in conclusions(found, language=language) if one.key == key] for language in ("ko", "en")]
    assert both[0], f"{key} is not said"
    assert len(both[0]) == len(both[1])
    return both[0][0], both[1][0]


def test_every_sentence_has_its_case() -> None:
    assert set(CASES) == set(GOLDEN) == set(SENTENCES)


@pytest.mark.parametrize("key", list(CASES))
def test_sentence_reads_as_written(key: str) -> None:
    assert said(CASES[key], key) == GOLDEN[key]


@pytest.mark.parametrize("found", CASES.values(), ids=list(CASES))
def test_topics_come_in_their_order_and_nothing_is_left_to_fill_in(found: dict[str, Any]) -> None:
    for language in ("ko", "en"):
        told = conclusions(found, language=language)
        order = [list(Topic).index(one.topic) for one in told]
        assert order == sorted(order)
        assert not [one.text for one in told if "{" in one.text or "None" in one.text or "nan" in one.text]
    assert [one.key for one in conclusions(found, language="ko")] == [
        one.key for one in conclusions(found, language="en")
    ]


# --- no more than the intervals bear ------------------------------------------------------------------------


@given(st.tuples(st.floats(0, 2), st.floats(0, 2)), st.floats(0.001, 3))
def test_nobody_is_ahead_of_whom_their_interval_does_not_part(gaps: tuple[float, float], reach: float) -> None:
    found = result(estimate(gaps, reach))
    sure = {(p["first"], p["second"]) for p in found["analysis"]["pairs"] if p["simultaneous_interval"][0] > 0}
    for one in conclusions(found, language="en"):
        if one.key == "ahead":
            model, others = one.text.rstrip(".").split(" is ahead of: ")
            assert {(model, other) for other in others.split(", ")} <= sure
        if one.key == "first":
            assert {("M01", "M02"), ("M01", "M03")} <= sure
    if not sure:
        assert not [one for one in conclusions(found, language="en") if one.key in ("ahead", "first", "line_clear")]


@given(st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)), st.sampled_from(["ko", "en"]))
def test_where_all_intervals_hold_zero_no_word_compares(gaps: tuple[float, float], language: Any) -> None:
    found = result(estimate(gaps, 0.5, line=line(is_clear=False)))
    told = [one for one in conclusions(found, language=language) if one.topic in (Topic.CANDIDATES, Topic.LINE)]
    assert [one.key for one in told] == ["none_distinguished", "ranks", "line_unclear"]
    assert not [one.text for one in told if COMPARISONS.search(one.text)]


@pytest.mark.parametrize("reason", ["no_votes", "not_connected", "no_convergence"])
def test_no_ranks_are_told_of_what_cannot_be_compared(reason: str) -> None:
    told = conclusions(result(not_comparable(reason)), language="en")
    assert not [one for one in told if one.topic in (Topic.CANDIDATES, Topic.LINE)]


def test_without_intervals_nobody_is_compared() -> None:
    told = conclusions(result(estimate(degrees=None)), language="en")
    assert not [one for one in told if one.topic is Topic.CANDIDATES]


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_agreement_is_called_what_its_whole_interval_is(value: float, below: float, above: float) -> None:
    low, high = value - below, value + above
    match rate_alpha(low, high):
        case "high":
            assert low >= 0.8
        case "fair":
            assert low >= 0.667
        case "low":
            assert high < 0.667
        case "unclear":
            assert low < 0.667 <= high


@given(st.floats(0.01, 0.99), st.floats(0, 0.3))
def test_position_matters_only_where_its_interval_leaves_out_a_half(share: float, off: float) -> None:
    low, high = max(0.0, share - off), min(1.0, share + off)
    keys = {one.key for one in conclusions(result(position=side(share, low, high)), language="en")}
    assert ("position_found" in keys) == (not low <= 0.5 <= high)


def test_the_result_named_beforehand_is_the_one_that_is_told() -> None:
    found = result(style_controlled={**estimate((0.1, 0.1)), "effects": {}})
    found["analysis"]["plan"]["primary"] = "style_controlled"
    keys = [one.key for one in conclusions(found, language="en")]
    assert "none_distinguished" in keys
    assert "all_distinguished" not in keys


def test_a_result_of_answers_that_are_not_real_says_so_in_its_title() -> None:
    found = copy.deepcopy(CASES["not_real"])
    assert result_title(result(), language="ko") == "1차 · 블라인드 심사 결과"
    assert result_title(result(), language="en") == "Stage 1 · Result of a blind review"
    assert result_title(found, language="ko") == "1차 · 블라인드 심사 연습 결과 — 순위 아님(모의 답변)"
    assert result_title(found, language="en") == "Stage 1 · Trial of a blind review — not a ranking (simulated answers)"


def test_names_take_the_place_of_codes_once_they_are_known() -> None:
    found = result()
    found["names"] = {"M01": {"name": "한빛", "model": "hb-1"}, "M02": {"name": None, "model": "de-2"}}
    assert said(found, "first")[1].endswith("한빛.")
    assert "de-2 is ahead of: M03." in [one.text for one in conclusions(found, language="en")]


# --- figures in words ---------------------------------------------------------------------------------------


def test_figures_have_a_real_minus_and_no_negative_zero() -> None:
    assert [number_words(x) for x in (-0.0, 0.004, -0.004, 1.005, -2.5)] == ["0.00", "0.004", "−0.004", "1.00", "−2.50"]
    assert [share_words(x) for x in (0, 0.004, 0.0996, 0.5)] == ["0%", "0.4%", "10.0%", "50%"]


def test_one_of_a_kind_is_singular_in_english() -> None:
    assert [counted(n, "votes", "en") for n in (0, 1, 2000)] == ["0 votes", "1 vote", "2,000 votes"]
    assert counted(2000, "votes", "ko") == "2,000표"
