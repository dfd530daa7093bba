"""The sentences of a round's conclusions, in Korean and in English, by what they say.

`{names}` in braces are filled in by `conclusions`, which decides when a sentence may be said. Lists of models stand
behind a colon or before an invariable particle, since no Korean particle fits every name. Headings and captions belong
in `report.words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gateway.domain.rounds import Text

Language = Literal["ko", "en"]

NOUNS: Mapping[str, tuple[str, str, str]] = {
    # Korean, English for one, English for any other number
    "votes": ("{n}표", "{n} vote", "{n} votes"),
    "reviewers": ("심사위원 {n}명", "{n} reviewer", "{n} reviewers"),
    "prompts": ("질문 {n}개", "{n} prompt", "{n} prompts"),
    "pairs": ("{n}쌍", "{n} pair", "{n} pairs"),
    "models": ("후보 {n}개", "{n} candidate", "{n} candidates"),
    "people": ("{n}명", "{n}", "{n}"),
    "repeats": ("{n}번", "{n} repeat", "{n} repeats"),
    "items": ("{n}문항", "{n} item", "{n} items"),
    "guesses": ("추측 {n}건", "{n} guess", "{n} guesses"),
    "answers": ("답변 {n}개", "{n} answer", "{n} answers"),
}
PROVENANCE: Mapping[str, Text] = {
    "real": Text("실제 모델의 답변", "answers of the models named"),
    "stand_in": Text("대역 모델의 답변", "answers of stand-in weights"),
    "simulated": Text("모의 답변", "simulated answers"),
    "unknown": Text("출처가 확인되지 않은 답변", "answers of unknown origin"),
}
FEATURES: Mapping[str, Text] = {
    "eojeol": Text("길이(어절)", "length in words (eojeol)"),
    "characters": Text("길이(글자)", "length in characters"),
    "headers": Text("제목 수", "headings"),
    "lists": Text("목록 항목 수", "list items"),
    "bold": Text("굵은 글씨 수", "bold passages"),
}
PRIMARY: Mapping[str, Text] = {
    "raw": Text("원래 표", "the votes as they are"),
    "style_controlled": Text("문체를 보정한 표", "the votes controlled for style"),
}
SIGNS: Mapping[str, Text] = {
    "straight_lining": Text("거의 모든 항목에 같은 답", "nearly the same answer throughout"),
    "speed": Text("다른 심사위원보다 훨씬 짧은 시간", "far less time than others"),
    "position_lock": Text("한쪽 자리만 고름", "one side nearly always"),
}
TITLE = Text("블라인드 심사 결과", "Result of a blind review")
TITLE_NOT_REAL = Text(
    "블라인드 심사 연습 결과 — 순위 아님({provenance})",
    "Trial of a blind review — not a ranking ({provenance})",
)

SENTENCES: Mapping[str, Text] = {
    # --- what may be said at all ---
    "not_real": Text(
        "이 결과는 순위가 아닙니다. {provenance}이 포함되어 있어 절차를 시험하고 계획하는 데에만 쓸 수 있습니다.",
        "This is not a ranking. It rests, at least in part, on {provenance} and serves only to try out and plan "
        "the procedure.",
    ),
    "no_votes": Text(
        "집계할 표가 없어 후보를 비교할 수 없습니다. 순위를 매기지 않습니다.",
        "There are no votes to count, so the candidates cannot be compared. No ranks are given.",
    ),
    "not_connected": Text(
        "표가 모든 후보를 이어 주지 않아 서로 비교할 수 없습니다. 순위를 매기지 않습니다. "
        "그 안에서만 비교할 수 있는 묶음: {groups}.",
        "The votes do not connect all candidates, so they cannot be compared. No ranks are given. Comparable only "
        "among themselves: {groups}.",
    ),
    "not_comparable": Text(
        "이 표로는 추정값이 하나로 정해지지 않아 후보를 비교할 수 없습니다. 순위를 매기지 않습니다.",
        "These votes do not lead to one set of estimates, so the candidates cannot be compared. No ranks are given.",
    ),
    "no_intervals": Text(
        "심사위원이나 질문이 둘 미만이어서 신뢰구간을 구할 수 없습니다. 후보를 구별하는 말은 하지 않습니다.",
        "With fewer than two reviewers or prompts there are no intervals. Nothing is said about who differs from whom.",
    ),
    "few_reviewers": Text(
        "주의: 집계된 심사위원이 {n}명으로 30명보다 적습니다. "
        "신뢰구간이 심사위원이 서로 비슷하다는 가정에 더 크게 기댑니다.",
        "Caution: {n} reviewers were counted, fewer than 30. The intervals lean more on reviewers being alike.",
    ),
    "few_prompts": Text(
        "주의: 집계된 질문이 {n}개로 100개보다 적습니다. 다른 질문에서는 결과가 달라질 수 있습니다.",
        "Caution: {n} prompts were counted, fewer than 100. Other prompts may lead to another result.",
    ),
    "clipped": Text(
        "주의: 분산 추정에 음수 방향이 나타나 0으로 처리했습니다. 신뢰구간을 조심스럽게 읽어 주세요.",
        "Caution: the estimate of variance had negative directions, set to zero. Read the intervals with care.",
    ),
    # --- who is distinguishable from whom ---
    "none_distinguished": Text(
        "어느 두 후보도 서로 구별되지 않습니다({pairs} 모두, {confidence} 동시 신뢰구간). "
        "실력이 같다는 뜻이 아니라, 이 표만으로는 차이를 말할 수 없다는 뜻입니다.",
        "No two candidates are distinguishable (all {pairs}, {confidence} simultaneous intervals). This does not mean "
        "that they are equal, only that these votes cannot tell them apart.",
    ),
    "all_distinguished": Text(
        "모든 후보가 서로 구별됩니다({pairs}, {confidence} 동시 신뢰구간).",
        "All candidates are distinguishable from each other ({pairs}, {confidence} simultaneous intervals).",
    ),
    "some_distinguished": Text(
        "후보 {pairs} 가운데 {apart}은 구별되고 {together}은 구별되지 않습니다({confidence} 동시 신뢰구간).",
        "Of {pairs} of candidates, {apart} can be told apart and {together} cannot "
        "({confidence} simultaneous intervals).",
    ),
    "ahead": Text("{model}보다 뒤에 있다고 말할 수 있는 후보: {others}.", "{model} is ahead of: {others}."),
    "group": Text("서로 구별되지 않음: {models}.", "Not distinguishable from each other: {models}."),
    "first": Text(
        "다른 모든 후보와 구별되며 가장 앞선 후보: {model}.",
        "Ahead of every other candidate, and distinguishable from each: {model}.",
    ),
    "may_be_first": Text(
        "1위일 수 있는 후보: {models}. 이들 가운데 누가 1위인지는 이 표로 정할 수 없습니다.",
        "May be first: {models}. Which of them is, these votes cannot decide.",
    ),
    "ranks": Text("가능한 순위: {ranges}.", "Possible ranks: {ranges}."),
    # --- the cut line ---
    "line_clear": Text(
        "선발선(상위 {keep}개)은 분명합니다. 선 위의 후보는 선 아래의 모든 후보와 구별됩니다(Holm 보정): {above}.",
        "The cut line below the top {keep} is clear. Every candidate above it is distinguishable from every one below "
        "(Holm): {above}.",
    ),
    "line_unclear": Text(
        "선발선(상위 {keep}개)은 분명하지 않습니다. 선을 사이에 둔 {pairs} 가운데 {together}이 구별되지 않습니다"
        "(Holm 보정). 선의 어느 쪽인지 다툴 수 있는 후보: {contested}.",
        "The cut line below the top {keep} is not clear. Of {pairs} across it, {together} cannot be told apart (Holm). "
        "Their side of the line is open to dispute: {contested}.",
    ),
    "fragile_votes": Text(
        "집계된 {n} 가운데 {removed}({share})를 빼면 선발선이 움직입니다: {left} 아래로, {entered} 위로. "
        "더 적은 표로도 가능할 수 있습니다.",
        "Removing {removed} of {n} ({share}) moves the cut line: {left} falls below it, {entered} rises above. Fewer "
        "may suffice.",
    ),
    "fragile_reviewers": Text(
        "{n} 가운데 {removed}({share})의 표를 모두 빼면 선발선이 움직입니다: {left} 아래로, {entered} 위로. "
        "더 적은 인원으로도 가능할 수 있습니다.",
        "Removing all votes of {removed} of {n} ({share}) moves the cut line: {left} falls below it, {entered} "
        "rises above. Fewer may suffice.",
    ),
    "line_holds": Text(
        "표나 심사위원을 빼 본 범위에서는 선발선이 움직이지 않았습니다. 모든 경우를 해 본 것은 아닙니다.",
        "No removal of votes or reviewers that was tried moves the cut line. Not every one was tried.",
    ),
    # --- the acceptable line ---
    "acceptable": Text(
        "'둘 다 미흡'을 기준으로 수용선 위라고 말할 수 있는 후보: {models}(후보별 {confidence} 구간).",
        "Above the acceptable line that “both bad” draws: {models} (each by its own {confidence} interval).",
    ),
    "not_acceptable": Text(
        "'둘 다 미흡'을 기준으로 수용선 아래라고 말할 수 있는 후보: {models}(후보별 {confidence} 구간).",
        "Below the acceptable line that “both bad” draws: {models} (each by its own {confidence} interval).",
    ),
    "acceptable_unclear": Text(
        "수용선의 어느 쪽인지 말할 수 없는 후보: {models}.",
        "On neither side of the acceptable line with any certainty: {models}.",
    ),
    "no_both_bad": Text(
        "'둘 다 미흡'을 고른 표가 없어 수용선을 그을 수 없습니다.",
        "Nobody chose “both bad”, so no acceptable line can be drawn.",
    ),
    "acceptability_unknown": Text(
        "이 표로는 수용선을 그을 수 없습니다.",
        "These votes do not draw an acceptable line.",
    ),
    # --- style ---
    "style_turned": Text(
        "문체(길이, 제목, 목록, 굵은 글씨)를 보정하면 {pairs} 가운데 {turned}의 추정 순서가 뒤바뀌고, "
        "예상 승률은 최대 {points}%p 달라집니다. 미리 정한 주 결과: {primary}.",
        "Controlled for style (length, headings, lists, bold), the estimated order turns for {turned} of {pairs}, and "
        "expected win rates move by up to {points} percentage points. Named beforehand as the result: {primary}.",
    ),
    "style_more": Text(
        "다른 조건이 같을 때 더 자주 선택된 쪽: {features} 값이 큰 답변(특징별 {confidence} 구간). "
        "인과관계를 뜻하지는 않습니다.",
        "Other things equal, chosen more often: answers with more of {features} (each by its own {confidence} "
        "interval). This need not be the cause.",
    ),
    "style_less": Text(
        "다른 조건이 같을 때 덜 선택된 쪽: {features} 값이 큰 답변(특징별 {confidence} 구간). "
        "인과관계를 뜻하지는 않습니다.",
        "Other things equal, chosen less often: answers with more of {features} (each by its own {confidence} "
        "interval). This need not be the cause.",
    ),
    "style_none": Text(
        "문체 특징 가운데 선택에 영향을 주었다고 말할 수 있는 것은 없습니다.",
        "No feature of style can be said to have moved the choices.",
    ),
    "style_not_recorded": Text(
        "문체를 보정한 결과는 없습니다. 답변의 문체를 재지 않았습니다.",
        "There is no result controlled for style: it was not measured.",
    ),
    "style_unknown": Text(
        "문체를 보정한 결과는 없습니다. 이 표로는 문체의 영향을 따로 떼어 낼 수 없습니다.",
        "There is no result controlled for style: these votes cannot separate its effect.",
    ),
    # --- position ---
    "position_found": Text(
        "자리의 영향이 있습니다. 실력이 같은 두 답변이라면 {side} 쪽의 몫은 {share}입니다"
        "({confidence} 구간 {interval}). 자리는 균형 있게 배정되었습니다.",
        "Position mattered. Of two equal answers the one at {side} takes {share} ({confidence} interval {interval}). "
        "Positions were balanced by design.",
    ),
    "position_not_found": Text(
        "자리의 영향은 드러나지 않았습니다. 실력이 같은 두 답변이라면 A 쪽의 몫은 {share}입니다"
        "({confidence} 구간 {interval}).",
        "No effect of position shows. Of two equal answers the one at A takes {share} ({confidence} interval "
        "{interval}).",
    ),
    # --- agreement ---
    "agreement_high": Text(
        "같은 항목을 본 심사위원들의 판단은 잘 일치합니다(크리펜도르프 α {value}, 구간 {interval}).",
        "Reviewers of the same items agree well (Krippendorff's α {value}, interval {interval}).",
    ),
    "agreement_fair": Text(
        "같은 항목을 본 심사위원들의 판단은 잠정적 결론을 낼 만큼 일치합니다(크리펜도르프 α {value}, 구간 {interval}).",
        "Reviewers of the same items agree enough for tentative conclusions (Krippendorff's α {value}, interval "
        "{interval}).",
    ),
    "agreement_low": Text(
        "같은 항목을 본 심사위원들의 판단은 자주 엇갈립니다(크리펜도르프 α {value}, 구간 {interval}). "
        "개별 항목의 판정보다 전체 합계를 보아야 합니다.",
        "Reviewers of the same items often differ (Krippendorff's α {value}, interval {interval}). Read the totals, "
        "not single items.",
    ),
    "agreement_unclear": Text(
        "심사위원들이 얼마나 일치하는지는 분명하지 않습니다(크리펜도르프 α {value}, 구간 {interval}).",
        "How far reviewers agree is not clear (Krippendorff's α {value}, interval {interval}).",
    ),
    "agreement_point": Text(
        "크리펜도르프 α는 {value}입니다. 함께 본 항목이 적어 신뢰구간이 없고, 일치도를 평가하지 않습니다.",
        "Krippendorff's α is {value}. Too few items were shared for an interval, so agreement is not rated.",
    ),
    "agreement_unknown": Text(
        "여러 심사위원이 함께 본 항목이 없거나 판단이 모두 같아 일치도를 구할 수 없습니다.",
        "Agreement cannot be measured: no item was judged by several reviewers, or all judged alike.",
    ),
    "consistent": Text(
        "같은 항목을 자리를 바꾸어 다시 본 {n} 가운데 {share}가 처음과 같은 판정이었습니다(구간 {interval}).",
        "Of {n} of an item, {share} were judged as the first time (interval {interval}).",
    ),
    "attention": Text(
        "주의 확인 문항의 정답 비율: {share}({n}, 구간 {interval}).",
        "Attention items judged rightly: {share} (of {n}, interval {interval}).",
    ),
    # --- blinding ---
    "blinding_broken": Text(
        "주의: 심사위원들의 추측이 우연보다 잘 맞았습니다(제임스 지수 {value}, 구간 {interval}). "
        "블라인드가 온전히 지켜졌다고 볼 수 없습니다.",
        "Caution: guesses of authors were better than chance (James's index {value}, interval {interval}). The blind "
        "did not fully hold.",
    ),
    "blinding_unclear": Text(
        "추측이 우연보다 잘 맞았는지는 분명하지 않습니다(제임스 지수 {value}, 구간 {interval}; 우연이면 0.5).",
        "Whether guesses were better than chance is not clear (James's index {value}, interval {interval}; chance is "
        "0.5).",
    ),
    "blinding_held": Text(
        "추측이 우연보다 잘 맞았다는 근거는 없습니다(제임스 지수 {value}, 구간 {interval}; 우연이면 0.5, "
        "모두 '모름'이면 1).",
        "Nothing shows that guesses were better than chance (James's index {value}, interval {interval}; 0.5 is "
        "chance, 1 is all “do not know”).",
    ),
    "blinding_after_reveal": Text(
        "누구의 답변인지 추측한 결과는 이름을 공개한 뒤에 평가합니다.",
        "Guesses of authors are judged after the names are revealed.",
    ),
    "blinding_unknown": Text(
        "추측이 없거나 적어서 블라인드가 지켜졌는지 지수로 말할 수 없습니다.",
        "There are no guesses, or too few, to say by an index whether the blind held.",
    ),
    "recognised_models": Text(
        "주의: 우연보다 자주 알아본 것으로 나타난 후보: {models}(후보마다 따로 본 {confidence} 구간, 보정 없음).",
        "Caution: recognised more often than by chance: {models} (each by its own {confidence} interval, uncorrected).",
    ),
    "recognised": Text(
        "심사위원이 '알아본 것 같다'고 표시한 표: {share}({n} 가운데, 구간 {interval}).",
        "Votes whose reviewer thought to recognise a model: {share} (of {n}, interval {interval}).",
    ),
    # --- other readings of the votes ---
    "without_both_bad": Text(
        "'둘 다 미흡' {left_out}를 빼고 다시 추정한 결과: 순서가 뒤바뀐 쌍: {turned}, 선발선 변화: {line}.",
        "Estimated again without {left_out} of “both bad”: pairs that change order: {turned}; at the cut line {line}.",
    ),
    "without_recognised": Text(
        "'알아본 것 같다'는 {left_out}를 빼고 다시 추정한 결과: 순서가 뒤바뀐 쌍: {turned}, 선발선 변화: {line}.",
        "Estimated again without {left_out} of recognised models: pairs that change order: {turned}; at the "
        "cut line {line}.",
    ),
    "variation_unknown": Text(
        "표 일부({left_out})를 빼고 다시 추정하는 확인은 할 수 없었습니다. 남는 표로는 후보를 비교할 수 없습니다.",
        "One check, estimating again without {left_out}, could not be made: the rest does not compare the candidates.",
    ),
    "criteria": Text(
        "평가 기준별 결과는 주 결과를 설명하는 자료이며, 기준마다 따로 순위를 주장하지 않습니다.",
        "Results by criterion describe the main result; no ranks are claimed for a criterion.",
    ),
    "industries": Text(
        "산업 분야별 수치는 참고용입니다. 표가 적어 분야별 순위를 주장하지 않습니다.",
        "Figures by industry are descriptive. With their few votes no ranks are claimed for an industry.",
    ),
    "failures": Text(
        "답변을 내지 못한 경우가 있는 후보(해당 쌍은 심사하지 않음): {models}.",
        "Gave no answer at times (pairs that need it were not judged): {models}.",
    ),
    "anomalies": Text(
        "심사 방식이 다른 심사위원과 눈에 띄게 다른 경우: {signs}. 참고 표시일 뿐이며 이 때문에 제외한 표는 없습니다.",
        "Judged in a way unlike others: {signs}. These are notes; nothing was excluded because of them.",
    ),
    "not_submitted": Text(
        "제출을 마치지 않은 {reviewers}의 표도 저장된 대로 집계했습니다.",
        "Votes of {reviewers} who did not submit are counted as they were saved.",
    ),
}
LINE_SAME, LINE_NONE = Text("없음", "nothing changes"), Text("해당 없음", "there is none to speak of")
LINE_MOVED = Text("{left} 아래로, {entered} 위로", "{left} falls below and {entered} rises above")
RANK = Text("{model}({rank}위)", "{model} ({rank})")
FAILED = Text("{model}({asked} 가운데 {failed}개)", "{model} ({failed} of {asked})")
SIGNED = Text("{sign}({reviewers})", "{sign} ({reviewers})")
