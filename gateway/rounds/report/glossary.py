"""What a juror needs to know of the report's terms, in plain words and both languages."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.rounds.conclusion_words import Language

GLOSSARY: Mapping[Language, tuple[tuple[str, str], ...]] = {
    "ko": (
        (
            "예상 승률",
            "한 후보가 나머지 후보와 똑같은 횟수로 겨룰 때 얻을 것으로 예상되는 몫입니다. 이기면 1, 비기거나 둘 다 "
            "미흡이면 0.5, 지면 0으로 셉니다. 50%가 평균입니다.",
        ),
        (
            "강도와 점수",
            "예상 승률의 바탕이 되는 값입니다. 강도는 로짓 단위이고, 점수는 평균이 1000이 되도록 바꾼 것입니다. "
            "점수 차 400은 승산 10 대 1에 해당합니다.",
        ),
        (
            "신뢰구간",
            "다른 심사위원과 다른 질문으로 심사를 되풀이한다면 값이 어디까지 달라질 수 있는지를 나타냅니다. 95% 구간은 "
            "이런 방법으로 구한 구간 100개 가운데 95개쯤이 참값을 포함한다는 뜻입니다.",
        ),
        (
            "동시 신뢰구간",
            "여러 쌍을 한꺼번에 비교하면 우연한 차이가 눈에 띄기 쉽습니다. 동시 구간은 모든 쌍에 대해 함께 성립하도록 "
            "넓힌 구간입니다.",
        ),
        (
            "구별되지 않음",
            "이 표로는 어느 쪽이 앞서는지 말할 수 없다는 뜻입니다. 실력이 같다는 뜻이 아닙니다.",
        ),
        (
            "선발선, Holm 보정",
            "미리 정한 수의 후보를 가르는 선입니다. Holm 보정은 여러 쌍을 검정할 때 우연히 차이가 있다고 말할 위험을 "
            "막는 방법입니다.",
        ),
        (
            "선발선의 견고함",
            "표나 심사위원을 몇이나 빼면 선발선이 달라지는지를 봅니다. 수가 작을수록 결과가 소수의 표에 달려 있습니다.",
        ),
        (
            "둘 다 미흡, 수용선",
            "두 답변 모두 쓸 수 없다는 판정입니다. 이 판정이 얼마나 나오는지로 '이 정도면 쓸 만하다'는 선을 그립니다.",
        ),
        (
            "문체 보정",
            "길거나 꾸밈이 많은 답변이 내용과 상관없이 유리할 수 있습니다. 문체가 같다고 놓았을 때의 결과를 원래 결과 "
            "옆에 보여 줍니다. 어느 쪽이 주 결과인지는 심사 전에 정해 봉인했습니다.",
        ),
        (
            "일치도(α, κ)",
            "같은 항목을 본 심사위원들이 얼마나 같은 판정을 했는지를 나타냅니다. "
            "1이면 완전한 일치, 0이면 우연과 같습니다.",
        ),
        (
            "블라인드 지수",
            "심사가 끝난 뒤 누구의 답변이라고 생각했는지 물어 구합니다. 제임스 지수는 0.5, 뱅 지수는 0이 우연입니다.",
        ),
        (
            "root, head",
            "root는 심사 전에 정한 모든 것, head는 들어온 모든 표에서 계산한 값입니다. "
            "한 글자라도 바뀌면 값이 달라집니다.",
        ),
    ),
    "en": (
        (
            "Expected win rate",
            "The share that a candidate is expected to take when it meets every other equally often: 1 for a win, half "
            "for a tie or both bad, 0 for a loss. 50% is the average.",
        ),
        (
            "Strength and rating",
            "What the win rate is made from. Strength is in logits; the rating is the same with an average of 1000. "
            "400 points of rating are odds of ten to one.",
        ),
        (
            "Interval",
            "How far a figure might differ were the review done again with other reviewers and other prompts. Of a "
            "hundred 95% intervals made this way, about 95 hold the true value.",
        ),
        (
            "Simultaneous interval",
            "Whoever compares many pairs at once soon sees a difference that is chance. Simultaneous intervals are "
            "widened so that they hold for all pairs together.",
        ),
        (
            "Not distinguishable",
            "These votes cannot say which of the two is ahead. It does not mean that they are equal.",
        ),
        (
            "Cut line, Holm",
            "The line below a number of candidates fixed beforehand. Holm's correction keeps the risk of calling "
            "chance a difference in bounds when many pairs are tested.",
        ),
        (
            "Firmness of the line",
            "How many votes, or reviewers, would have to be missing for the line to move. A small number means that "
            "the result hangs on few.",
        ),
        (
            "Both bad, acceptable line",
            "A judgement that neither answer is of use. How often it is chosen draws a line of “good enough”.",
        ),
        (
            "Controlled for style",
            "Long or ornate answers may gain by looks alone. The result as it would be with equal style stands beside "
            "the plain one. Which of the two leads was sealed before anybody voted.",
        ),
        (
            "Agreement (α, κ)",
            "How far reviewers of the same items judged alike: 1 is perfect, 0 is chance.",
        ),
        (
            "Blinding indices",
            "Made from whom reviewers took for the author, asked when all was judged. Chance is 0.5 of James's index "
            "and 0 of Bang's.",
        ),
        (
            "Root and head",
            "Values worked out from everything fixed beforehand (root) and from every vote cast (head). With one "
            "letter changed they are others.",
        ),
    ),
}
