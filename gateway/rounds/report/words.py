"""The words of a round's report besides its conclusions: headings, captions, heads of columns, codes in words.

Each language fills every field, so none can lack one. Sentences about a result's numbers are `conclusion_words`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.rounds.conclusion_words import FEATURES, Language
from gateway.rounds.conclusions import Topic


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it, and the words beside a drawing."""

    heading: str
    lead: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    kicker: str
    facts: str
    """`{invited}`, `{counted}`, `{prompts}`, `{entries}` ..."""
    dates: str
    codes_until: str
    contents: str
    topics: Mapping[Topic, str]
    sections: Mapping[str, Section]
    columns: Mapping[str, str]
    """Heads of tables by `table.column`, else by the column alone."""
    codes: Mapping[str, str]
    """Codes of our own in cells."""
    numbers: str
    """What opens the table behind a drawing."""
    not_comparable: str
    no_figure: str
    yes: str
    no: str
    rank: str
    cut: str
    n: str
    raw: str
    controlled: str
    met: str
    nobody: str
    fragility: Mapping[str, str]
    removed: str
    moved: str
    james: str
    agreement_bounds: str
    blinding_bounds: str
    style_without: str
    position_counts: str
    verify: tuple[str, ...]
    notices: str
    root: str
    head: str
    none_yet: str


KOREAN = Words(
    kicker="Simsa · 블라인드 심사 보고서",
    facts="초대한 심사위원 {invited}명(집계 {counted}명) · 질문 {prompts}개 · 저장된 판정 {entries}건 · "
    "순위 추정에 쓴 표 {votes}표 · 주 결과: {primary}",
    dates="봉인 {sealed} · 시작 {opened} · 마감 {closed} · 이름 공개 {revealed}",
    codes_until="이름은 아직 공개되지 않았습니다. 후보는 무작위 부호(M01, M02 …)로 표시합니다.",
    contents="차례",
    topics={
        Topic.STANDING: "이 결과를 읽기 전에",
        Topic.CANDIDATES: "누구와 누구를 구별할 수 있는가",
        Topic.LINE: "선발선",
        Topic.ACCEPTABILITY: "수용할 만한가",
        Topic.STYLE: "문체",
        Topic.POSITION: "자리",
        Topic.AGREEMENT: "심사위원의 일치",
        Topic.BLINDING: "블라인드",
        Topic.READINGS: "다르게 읽어 보면",
        Topic.PROCEDURE: "절차",
    },
    sections={
        "conclusions": Section("결론"),
        "standing": Section(
            "예상 승률",
            "다른 후보들과 똑같은 횟수로 겨룬다면 얻을 몫입니다. 점은 추정값, 선은 {confidence} 신뢰구간, 점선은 "
            "평균(50%)입니다. 두 선이 겹치는지로 두 후보를 비교하지 마십시오. 구별 여부는 아래 '가능한 순위'와 "
            "'맞대결'의 표가 말해 줍니다.",
            "후보별 예상 승률과 신뢰구간",
        ),
        "ranks": Section(
            "가능한 순위",
            "모든 쌍을 한꺼번에 고려한 구간에서, 각 후보가 차지할 수 있는 가장 높은 순위부터 가장 낮은 순위까지입니다. "
            "막대가 길수록 이 표로는 순위를 정하기 어렵습니다.",
            "후보별 가능한 순위의 범위",
        ),
        "line": Section(
            "선발선의 견고함",
            "선을 사이에 둔 쌍을 하나씩 검정했습니다(모든 쌍에 대한 Holm 보정). 아래 수는 선발선이 움직이는 데 "
            "필요한 표와 심사위원의 상한으로, 실제로는 더 적을 수 있습니다.",
        ),
        "pairs": Section(
            "맞대결",
            "가로줄 후보가 세로줄 후보에게서 얻은 점수의 몫입니다(비김과 둘 다 미흡은 반씩). 칸 아래는 표 수입니다. "
            "한 칸의 표는 적으므로 칸 하나로 판단하지 마십시오.",
            "가로줄 후보가 세로줄 후보를 상대로 얻은 몫",
        ),
        "criteria": Section(
            "평가 기준별",
            "같은 표를 기준마다 따로 본 예상 승률입니다. 기준별 순위를 주장하지 않습니다.",
            "기준별 예상 승률",
        ),
        "industries": Section(
            "산업 분야별(참고용)",
            "분야마다 표가 적어 참고로만 봅니다. 칸은 예상 승률, 작은 글씨는 {confidence} 신뢰구간입니다.",
            "분야별 예상 승률",
        ),
        "acceptability": Section(
            "수용할 만한가",
            "'둘 다 미흡' 표로 그은 선보다 나은 답으로 여겨질 확률입니다. 50%가 수용선입니다. 주 결과와는 다른, "
            "두 번째 모형의 추정입니다.",
            "후보별 수용 확률",
        ),
        "style": Section(
            "문체를 보정하면",
            "답변의 길이, 제목, 목록, 굵은 글씨의 차이를 함께 넣어 다시 추정했습니다. 채운 점은 원래 표, 빈 점은 "
            "문체를 보정한 추정입니다.",
            "원래 표와 문체를 보정한 예상 승률",
        ),
        "effects": Section(
            "문체 특징의 영향",
            "한 특징이 1 표준편차만큼 클 때 더해지는 강도(로짓)입니다. 0이면 영향이 없습니다.",
            "문체 특징별 계수",
        ),
        "position": Section(
            "자리의 영향",
            "실력이 같은 두 답변에서 A 자리가 얻을 몫입니다. 50%면 자리의 영향이 없습니다.",
            "A 자리의 몫",
        ),
        "agreement": Section(
            "심사위원의 일치와 일관성",
            "α와 κ는 1이면 완전한 일치, 0이면 우연과 같습니다. 비율은 0%에서 100%까지입니다.",
            "일치도와 일관성",
        ),
        "shares": Section("다시 본 항목과 확인 문항", "", "비율과 신뢰구간"),
        "blinding": Section(
            "블라인드가 지켜졌는가",
            "후보별 뱅 지수입니다. 0이면 우연, 1이면 모두 알아맞힘입니다. 후보마다 따로 본 구간이며, 여럿을 함께 볼 "
            "때의 보정은 하지 않았습니다.",
            "후보별 뱅 지수",
        ),
        "reliability": Section(
            "답변의 안정성",
            "정해진 횟수만큼 다시 물어도 답이 없었던 질문의 수입니다. 그런 쌍은 심사하지 않으며 다른 답으로 바꾸지 "
            "않습니다.",
        ),
        "places": Section("표는 어디로 갔는가", "모든 항목은 아래 가운데 한 곳에 속합니다."),
        "exclusions": Section("규칙에 따라 제외한 것", "제외는 모두 규칙과 이유를 적은 기록으로 남습니다."),
        "design": Section(
            "배정의 균형",
            "누가 무엇을 보는지는 공개된 시드로 정했습니다. 아래는 그 시드로 다시 배정하여 센 값입니다.",
        ),
        "verify": Section("직접 확인하는 방법"),
        "glossary": Section("용어 풀이"),
    },
    columns={
        "model": "후보",
        "rank": "가능한 순위",
        "win_rate": "예상 승률",
        "win_rate_interval": "구간",
        "strength": "강도(로짓)",
        "strength_interval": "구간",
        "rating": "점수",
        "rating_interval": "구간",
        "n": "표",
        "first": "앞선 쪽(추정)",
        "second": "상대",
        "points_of_first": "얻은 점수",
        "difference": "강도 차",
        "simultaneous_interval": "동시 구간",
        "is_distinguishable": "구별됨",
        "above": "선 위",
        "below": "선 아래",
        "holm_p_value": "p(Holm)",
        "is_separated": "구별됨",
        "criterion": "기준",
        "industry": "분야",
        "acceptable": "수용 확률",
        "acceptable_interval": "구간",
        "line": "수용선",
        "raw": "원래 표",
        "raw_interval": "구간",
        "controlled": "문체 보정",
        "controlled_interval": "구간",
        "feature": "특징",
        "coefficient": "계수",
        "interval": "구간",
        "shown_first": "A로 보임",
        "shown_second": "B로 보임",
        "figure": "지표",
        "value": "값",
        "agreement.n": "n",
        "blinding.n": "추측",
        "bang": "뱅 지수",
        "asked": "질문",
        "failed": "답 없음",
        "votes_put_aside": "심사하지 않은 항목",
        "place": "구분",
        "items": "항목",
        "votes": "판정이 있던 것",
        "reviewers": "심사위원",
        "rule": "규칙",
        "kind": "대상",
        "check": "점검",
        "found": "센 값",
        "bound": "기준",
        "is_kept": "지켜짐",
    },
    codes={
        "acceptable": "위",
        "not_acceptable": "아래",
        "unclear": "불분명",
        "alpha": "크리펜도르프 α(전체 판정)",
        "kappa": "플라이스 κ(전체 판정)",
        "consistent": "다시 보아도 같은 판정",
        "reversed": "다시 보니 반대 판정",
        "attention": "확인 문항 정답",
        "all_alike": "모든 기준에 같은 등급",
        "halo": "기준 사이의 상관",
        "place.attention": "확인 문항",
        "counted": "순위 추정에 씀",
        "cannot_judge": "판단하기 어려움",
        "repeat": "다시 보기(일관성 측정)",
        "undecided": "전체 판정이 없음",
        "not_judged": "판정하지 않음",
        "excluded": "규칙에 따라 제외",
        "conflict": "이해관계",
        "chair": "위원장 결정",
        "reviewer": "심사위원",
        "item": "항목",
        "prompt": "질문",
        "reviewer_model_spread": "심사위원마다 후보를 본 횟수의 차",
        "reviewer_pair_spread": "심사위원마다 쌍을 본 횟수의 차",
        "stratum_model_spread": "집단마다 후보를 본 횟수의 차",
        "stratum_pair_spread": "집단마다 쌍을 본 횟수의 차",
        "model_spread": "전체에서 후보를 본 횟수의 차",
        "pair_spread": "전체에서 쌍을 본 횟수의 차",
        "reviewer_sides": "심사위원마다 좌우의 차",
        "pair_sides": "쌍마다 좌우의 차",
        "prompt_sides": "질문마다 좌우의 차",
        "prompt_spread": "질문이 쓰인 횟수의 차",
        "most_votes_on_a_prompt_by_one_reviewer": "한 심사위원이 같은 질문을 보는 횟수(가장 많을 때)",
        "most_times_a_question_is_asked_of_one_reviewer": "한 심사위원에게 같은 항목을 묻는 횟수(가장 많을 때)",
        "prompt_stratum_deviation": "분야 배분의 치우침",
        "overlap": "여럿이 함께 보는 항목의 비율",
        "mislabelled_shared": "잘못 표시된 공동 항목",
        "fewest_repeats": "다시 보기 항목(가장 적은 심사위원)",
        "most_repeats": "다시 보기 항목(가장 많은 심사위원)",
        "nearest_repeat": "다시 보기까지의 간격",
        "wrong_repeats": "잘못된 다시 보기",
        "attention_fewest": "확인 문항(가장 적은 심사위원)",
        "attention_most": "확인 문항(가장 많은 심사위원)",
        **{name: text.ko for name, text in FEATURES.items()},
    },
    numbers="숫자로 보기",
    not_comparable="이 표로는 비교할 수 없어 그림이 없습니다.",
    no_figure="구할 수 없음",
    yes="예",
    no="아니요",
    rank="{rank}위",
    cut="추정 순서로 본 선발선(상위 {keep}개)",
    n="n {n}",
    raw="원래 표",
    controlled="문체 보정",
    met="{n}표",
    nobody="해당 없음",
    fragility={
        "votes": "빼면 선발선이 움직이는 표",
        "reviewers": "빼면 선발선이 움직이는 심사위원",
    },
    removed="{count} / {n}",
    moved="{left} 아래로, {entered} 위로",
    james="제임스 지수(전체)",
    agreement_bounds="크리펜도르프가 제시한 기준: 0.8 이상이면 믿을 만하고, "
    "0.667 이상이면 잠정적 결론에 쓸 수 있습니다.",
    blinding_bounds="제임스 지수: 0 모두 맞힘, 0.5 우연, 1 모두 모름.",
    style_without="문체를 알 수 없어 이 추정에서 빠진 표: {n}표.",
    position_counts="자리를 고려해도 강도 추정은 최대 {change} 로짓만 달라집니다. A와 B에 선 횟수는 표와 같습니다.",
    verify=(
        "봉인할 때 공개한 값(root)과 마감할 때 공개한 값(head)이 아래와 같은지 확인합니다.",
        "감사 묶음을 받아 다음 명령을 실행합니다. 인터넷 연결은 필요 없습니다. 봉인된 자료, 배정, 표의 사슬, 제외, "
        "이 분석이 처음부터 다시 계산되고 어긋난 곳은 이름과 함께 나옵니다.",
        "심사위원은 제출할 때 받은 확인서로 자신의 표가 바뀌지 않고 들어 있는지 확인할 수 있습니다.",
    ),
    notices="사용 허가에 따른 표시",
    root="봉인 값(root)",
    head="마지막 표의 값(head)",
    none_yet="아직 없음",
)
ENGLISH = Words(
    kicker="Simsa · report of a blind review",
    facts="{invited} reviewers invited, {counted} counted · {prompts} prompts · {entries} judgements kept · "
    "{votes} votes in the ranking's fit · result named beforehand: {primary}",
    dates="Sealed {sealed} · opened {opened} · closed {closed} · names revealed {revealed}",
    codes_until="The names are not revealed yet. Candidates are shown by random codes (M01, M02 …).",
    contents="Contents",
    topics={
        Topic.STANDING: "Before you read this",
        Topic.CANDIDATES: "Who is distinguishable from whom",
        Topic.LINE: "The cut line",
        Topic.ACCEPTABILITY: "Is it acceptable",
        Topic.STYLE: "Style",
        Topic.POSITION: "Position",
        Topic.AGREEMENT: "Agreement of reviewers",
        Topic.BLINDING: "Blinding",
        Topic.READINGS: "Read another way",
        Topic.PROCEDURE: "Procedure",
    },
    sections={
        "conclusions": Section("Conclusions"),
        "standing": Section(
            "Expected win rate",
            "The share a candidate would take of contests with every other equally often. Dots are estimates, lines "
            "their {confidence} intervals, the dashed line is the average (50%). Do not compare two candidates by "
            "whether their lines overlap: “Possible ranks” and “Head to head” below say who is distinguishable.",
            "Expected win rate of each candidate with its interval",
        ),
        "ranks": Section(
            "Possible ranks",
            "From the best to the worst rank that each candidate may have, by intervals that hold for all pairs at "
            "once. The longer the bar, the less these votes decide.",
            "Range of possible ranks of each candidate",
        ),
        "line": Section(
            "The cut line, and how firm it is",
            "Each pair across the line is tested (Holm, over all pairs). The figures below are upper bounds on the "
            "votes and reviewers whose removal moves the line; fewer may do.",
        ),
        "pairs": Section(
            "Head to head",
            "The share of points that the row's candidate took from the column's (ties and both bad count half). "
            "Below it the number of votes. A single cell has few: do not judge by one.",
            "Share of points that the row's candidate took from the column's",
        ),
        "criteria": Section(
            "By criterion",
            "Expected win rates by one criterion at a time. No ranks are claimed for a criterion.",
            "Expected win rate by criterion",
        ),
        "industries": Section(
            "By industry (descriptive)",
            "Each industry has few votes, so this describes and proves nothing. Cells: expected win rate; small: the "
            "{confidence} interval.",
            "Expected win rate by industry",
        ),
        "acceptability": Section(
            "Is it acceptable",
            "The chance of being preferred to the line that votes of “both bad” draw; 50% is that line. This is a "
            "second model, beside the main result.",
            "Chance of being acceptable, by candidate",
        ),
        "style": Section(
            "Controlled for style",
            "Estimated again with differences in length, headings, lists and bold in the fit. Full dots: the votes as "
            "they are; hollow dots: controlled for style.",
            "Expected win rates, as they are and controlled for style",
        ),
        "effects": Section(
            "What features of style add",
            "Strength (in logits) added by one standard deviation more of a feature. 0 is no effect.",
            "Coefficient of each feature of style",
        ),
        "position": Section(
            "Effect of position",
            "What position A would take of two equal answers. 50% is no effect.",
            "Share for position A",
        ),
        "agreement": Section(
            "Agreement and consistency of reviewers",
            "α and κ are 1 for perfect agreement and 0 for chance.",
            "Agreement",
        ),
        "shares": Section("Repeats and attention items", "", "Shares with their intervals"),
        "blinding": Section(
            "Did the blind hold",
            "Bang's index by candidate: 0 is chance, 1 is all right. Each interval stands by itself, with no "
            "correction for their number.",
            "Bang's index by candidate",
        ),
        "reliability": Section(
            "Reliability of answers",
            "Prompts without an answer after the number of attempts fixed beforehand. Such pairs are not judged, and "
            "no other answer takes their place.",
        ),
        "places": Section("Where the votes went", "Every item is in exactly one of these places."),
        "exclusions": Section("Excluded by rule", "Every exclusion is a record with its rule and its reason."),
        "design": Section(
            "Balance of the design",
            "Who judges what was dealt from a published seed. The figures below are counted from dealing it again.",
        ),
        "verify": Section("How to check this yourself"),
        "glossary": Section("Glossary"),
    },
    columns={
        "model": "Candidate",
        "rank": "Possible ranks",
        "win_rate": "Expected win rate",
        "win_rate_interval": "Interval",
        "strength": "Strength (logits)",
        "strength_interval": "Interval",
        "rating": "Rating",
        "rating_interval": "Interval",
        "n": "Votes",
        "first": "Stronger (estimate)",
        "second": "Against",
        "points_of_first": "Points taken",
        "difference": "Difference",
        "simultaneous_interval": "Simultaneous interval",
        "is_distinguishable": "Distinguishable",
        "above": "Above",
        "below": "Below",
        "holm_p_value": "p (Holm)",
        "is_separated": "Distinguishable",
        "criterion": "Criterion",
        "industry": "Industry",
        "acceptable": "Acceptable",
        "acceptable_interval": "Interval",
        "line": "Line",
        "raw": "As they are",
        "raw_interval": "Interval",
        "controlled": "Controlled",
        "controlled_interval": "Interval",
        "feature": "Feature",
        "coefficient": "Coefficient",
        "interval": "Interval",
        "shown_first": "Shown as A",
        "shown_second": "Shown as B",
        "figure": "Figure",
        "value": "Value",
        "agreement.n": "n",
        "blinding.n": "Guesses",
        "bang": "Bang's index",
        "asked": "Prompts",
        "failed": "No answer",
        "votes_put_aside": "Items not judged",
        "place": "Place",
        "items": "Items",
        "votes": "Of these judged",
        "reviewers": "Reviewers",
        "rule": "Rule",
        "kind": "Of",
        "check": "Check",
        "found": "Counted",
        "bound": "Bound",
        "is_kept": "Kept",
    },
    codes={
        "acceptable": "above",
        "not_acceptable": "below",
        "unclear": "unclear",
        "alpha": "Krippendorff's α (overall)",
        "kappa": "Fleiss's κ (overall)",
        "consistent": "Repeats judged alike",
        "reversed": "Repeats judged the other way",
        "attention": "Attention items right",
        "all_alike": "Same grade on all criteria",
        "halo": "Correlation of criteria",
        "place.attention": "attention items",
        "counted": "in the ranking's fit",
        "cannot_judge": "cannot judge",
        "repeat": "repeats (consistency)",
        "undecided": "no overall choice",
        "not_judged": "not judged",
        "excluded": "excluded by rule",
        "conflict": "conflict of interest",
        "chair": "decided by the chair",
        "reviewer": "reviewer",
        "item": "item",
        "prompt": "prompt",
        "reviewer_model_spread": "Spread of models within a reviewer",
        "reviewer_pair_spread": "Spread of pairs within a reviewer",
        "stratum_model_spread": "Spread of models within a stratum",
        "stratum_pair_spread": "Spread of pairs within a stratum",
        "model_spread": "Spread of models overall",
        "pair_spread": "Spread of pairs overall",
        "reviewer_sides": "Left against right within a reviewer",
        "pair_sides": "Left against right within a pair",
        "prompt_sides": "Left against right within a prompt",
        "prompt_spread": "Spread of prompts",
        "most_votes_on_a_prompt_by_one_reviewer": "Votes of one reviewer on a prompt, at most",
        "most_times_a_question_is_asked_of_one_reviewer": "Times that one reviewer is asked a question, at most",
        "prompt_stratum_deviation": "Deviation of strata from their share",
        "overlap": "Share of items that several judge",
        "mislabelled_shared": "Shared items marked wrongly",
        "fewest_repeats": "Repeats of the reviewer with fewest",
        "most_repeats": "Repeats of the reviewer with most",
        "nearest_repeat": "Items before a repeat, at least",
        "wrong_repeats": "Repeats that are none",
        "attention_fewest": "Attention items of the reviewer with fewest",
        "attention_most": "Attention items of the reviewer with most",
        **{name: text.en for name, text in FEATURES.items()},
    },
    numbers="In numbers",
    not_comparable="These votes compare nothing here, so there is no drawing.",
    no_figure="none",
    yes="yes",
    no="no",
    rank="{rank}",
    cut="cut line by estimated order (top {keep})",
    n="n {n}",
    raw="votes as they are",
    controlled="controlled for style",
    met="n {n}",
    nobody="none",
    fragility={
        "votes": "Votes whose removal moves the line",
        "reviewers": "Reviewers whose removal moves the line",
    },
    removed="{count} / {n}",
    moved="{left} falls, {entered} rises",
    james="James's index (all)",
    agreement_bounds="Krippendorff's own bounds: 0.8 and more is reliable, 0.667 and more serves tentative "
    "conclusions.",
    blinding_bounds="James's index: 0 all right, 0.5 chance, 1 nobody knows.",
    style_without="Votes left out of this estimate because the style is not known: {n}.",
    position_counts="With position in the fit no strength changes by more than {change} logits. How often each stood "
    "at A and B is in the table.",
    verify=(
        "Compare the value published when the round was sealed (root) and the one when it was closed (head) with those "
        "below.",
        "Get the audit bundle and run this command; no connection is needed. Sealed parts, design, chain of votes, "
        "exclusions and this analysis are worked out again from the start, and whatever does not fit is named.",
        "Reviewers can check with the receipt from their submission that their votes are in it, unchanged.",
    ),
    notices="Notices that licences demand",
    root="Root (sealed)",
    head="Head (closed)",
    none_yet="not yet",
)
WORDS: Mapping[Language, Words] = {"ko": KOREAN, "en": ENGLISH}
