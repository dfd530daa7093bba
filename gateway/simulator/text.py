"""What a simulated engine says: readable Korean or English, and the tokens that it consists of.

An answer is put together from sentences of our own about how to think a question through; it quotes words of the
question and states no facts about the world, so that nobody takes it for knowledge. It is the same for the same
model, prompt and seed. JSON answers are made in `json_values`; when tokens come is the engine's affair.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

# --- tokens -------------------------------------------------------------------------------------------------

_PIECE = re.compile(r" ?[A-Za-z]{1,6}| ?[가-힣]{1,2}| ?[0-9]{1,3}|\n{1,2}|.", re.DOTALL)
"""No piece is longer than 7 bytes of UTF-8, and none depends on what follows it: a cut at a piece stays a cut."""
END_TOKEN = 0
"""The id of the end of an answer; it has no text."""


def split_tokens(text: str) -> list[str]:
    """The tokens of `text`; joined they are `text` again, and the tokens of a joined prefix are that prefix."""
    return _PIECE.findall(text)


def count_tokens(text: str, *, up_to: int) -> int:
    """How many tokens `text` has; up_to + 1 when there are more, without looking at the rest."""
    return sum(1 for _ in islice(_PIECE.finditer(text), up_to + 1))


def token_id(piece: str) -> int:
    """A number for a piece that needs no vocabulary: its UTF-8 bytes behind a leading 1."""
    return int.from_bytes(b"\x01" + piece.encode(), "big")


def token_text(number: int) -> str:
    """The piece that `token_id` numbered, "" for END_TOKEN. Raises ValueError for any other number."""
    if number == END_TOKEN:
        return ""
    raw = number.to_bytes(8, "big").lstrip(b"\x00") if 0 < number < 2**64 else b""
    if not raw.startswith(b"\x01"):
        raise ValueError(f"Token id {number} is out of vocabulary")
    try:
        return raw[1:].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"Token id {number} is out of vocabulary") from error


# --- the question -------------------------------------------------------------------------------------------


def language_of(text: str) -> str:
    """ "ko" when at least a fifth of the letters are Hangul, else "en"."""
    hangul = len(re.findall(r"[가-힣ㄱ-ㅎㅏ-ㅣ]", text))
    return "ko" if hangul and 4 * hangul >= len(re.findall(r"[A-Za-z]", text)) else "en"


_KO_PARTICLE = re.compile(
    r"(?<=[가-힣]{2})(?:에서는|으로는|에게서|이라는|에서|에게|으로|라는|부터|까지|처럼|보다|이나|은|는|이|가|을|를|의|에|로|와|과|도|만)$"
)
_KO_NOT_TOPIC = re.compile(
    r"(?:[다요까줘며라해]|[하되이으려르라]면|[해려]야|하고|하는|하게|해서|되는|있는|없는|위한|대한|위해|대해|어떻게|무엇|무슨|어떤|얼마나|그리고|그러나|우리|다음|각각|가장|간단히|자세히|짧게)$"
)
_EN_NOT_TOPIC_WORDS = (
    "about above after also answer because been before being below between both briefly could describe does doing "
    "each ever every explain from give have help here into just like list made main make many more most much must "
    "need only other over please same short should show some such sure tell than that their them then there these "
    "they this three those through under until using very want well were what when where which while whom whose "
    "will with within without would write your yours"
)
_EN_NOT_TOPIC = frozenset(_EN_NOT_TOPIC_WORDS.split())


def topics_of(question: str) -> list[str]:
    """Up to three words of the question that it seems to be about, in its own spelling, the longest first."""
    if language_of(question) == "ko":
        words = [_KO_PARTICLE.sub("", word) for word in re.findall(r"[가-힣A-Za-z0-9]+", question)]
        topics = [word for word in words if len(word) > 1 and not _KO_NOT_TOPIC.search(word)]
    else:
        words = re.findall(r"[A-Za-z][A-Za-z0-9-]{3,}", question)
        topics = [word for word in words if word.lower() not in _EN_NOT_TOPIC]
    unique = list(dict.fromkeys(word for word in topics if len(word) <= 24))
    return sorted(unique, key=len, reverse=True)[:3]


@dataclass(frozen=True, slots=True)
class Term:
    """A quoted word of the question; a format spec such as `을/를` adds the Korean particle that fits its ending."""

    word: str
    quotes: str = ""

    def __format__(self, particles: str) -> str:
        quoted = self.quotes[:1] + self.word + self.quotes[1:]
        if not particles:
            return quoted
        after_consonant, after_vowel = particles.split("/")
        closed = _ends_in_consonant(self.word)
        if closed is None:
            return f"{quoted}{after_consonant}({after_vowel})"
        return quoted + (after_consonant if closed else after_vowel)


def _ends_in_consonant(word: str) -> bool | None:
    """Whether the last syllable has a final consonant; None where the reading is not certain."""
    last = word[-1]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    return last in "013678" if last.isdigit() else None


# --- the answer ---------------------------------------------------------------------------------------------

KO_OPENINGS = (
    "{a:을/를} 어떻게 볼지는 무엇을 결정하려는지에 달려 있습니다. "
    "먼저 목적을 정하고, 그다음에 조건과 방법을 차례로 따져 보겠습니다.",
    "결론을 서두르기보다 {a:이/가} 가리키는 범위부터 좁혀 보겠습니다. "
    "같은 말이라도 쓰는 사람에 따라 뜻이 달라지기 때문입니다.",
    "질문을 {a:과/와} {b} 두 갈래로 나누어 보면 답하기가 쉬워집니다. 아래에 생각할 순서를 정리했습니다.",
    "{a}에 대해 바로 쓸 수 있도록, 확인할 것과 결정할 것을 나누어 적겠습니다.",
    "{b:을/를} 염두에 두고 {a:을/를} 살펴보겠습니다. 판단에 필요한 것은 많지 않지만 순서가 중요합니다.",
)
KO_POINTS = (
    (
        "목적",
        "{a:을/를} 살피는 까닭이 비용인지, 품질인지, 위험인지에 따라 같은 자료도 다르게 읽힙니다. "
        "목적을 한 문장으로 적어 두면 뒤의 선택이 쉬워집니다.",
    ),
    (
        "범위",
        "{a:이/가} 포함하는 것과 포함하지 않는 것을 먼저 적습니다. "
        "경계가 흐리면 서로 다른 질문의 답을 하나로 착각하기 쉽습니다.",
    ),
    (
        "근거",
        "확인된 사실과 추정을 나눕니다. 출처와 시점이 분명한 자료만 판단의 근거로 삼고, 나머지는 가설로 남겨 둡니다.",
    ),
    (
        "대안",
        "한 가지 방법만 보지 말고 적어도 두 가지를 나란히 놓습니다. 아무것도 바꾸지 않는 것도 대안의 하나입니다.",
    ),
    (
        "기준",
        "기준은 적을수록 좋습니다. 효과, 비용, 시간, 되돌릴 수 있는지를 보면 {a:을/를} 견주는 데 충분할 때가 많습니다.",
    ),
    (
        "위험",
        "잘못되었을 때 누구에게 어떤 영향이 가는지 적습니다. "
        "되돌리기 어려운 결정일수록 작게 시험한 뒤에 넓히는 편이 안전합니다.",
    ),
    (
        "관계자",
        "{b:과/와} 관련된 사람마다 중요하게 여기는 것이 다릅니다. "
        "결정하기 전에 영향을 받는 쪽의 의견을 듣는 절차를 둡니다.",
    ),
    (
        "실행",
        "첫 단계는 짧은 기간에 끝낼 수 있을 만큼 작게 잡습니다. 맡을 사람과 기한, 끝났다고 볼 기준을 함께 정합니다.",
    ),
    (
        "확인",
        "{c:이/가} 나아졌는지를 무엇으로 확인할지 미리 정합니다. "
        "숫자로 재기 어렵다면 어떤 사례가 나와야 성공인지 적어 둡니다.",
    ),
    ("한계", "여기서는 질문에 적힌 내용만으로 정리했습니다. 구체적인 수치와 현장의 조건은 따로 확인해야 합니다."),
)
KO_CLOSINGS = (
    "정리하면, {a}에 대한 판단은 목적을 정하고 근거를 나눈 뒤 작은 시험으로 확인하는 순서로 좁혀 갈 수 있습니다.",
    "조건을 더 알려 주시면 {a:과/와} {b} 가운데 무엇을 먼저 다룰지 더 구체적으로 정리하겠습니다.",
    "우선은 목적과 기준만 정해도 {a:을/를} 둘러싼 선택지가 크게 줄어듭니다.",
)
KO_THOUGHTS = (
    "질문에서 중요한 말은 {a:과/와} {b}인 것 같다.",
    "사실을 단정하기보다 생각할 순서를 보여 주는 편이 도움이 되겠다.",
    "목적, 근거, 기준, 확인 방법으로 나누어 보자.",
    "답은 짧은 항목으로 정리하고, 확인이 필요한 점은 따로 밝히자.",
)
KO_MORE = "이번에는 {c:을/를} 중심으로 한 번 더 살펴보겠습니다."

EN_OPENINGS = (
    "How to look at {a} depends on the decision that has to be made. "
    "Let us fix the purpose first, then go through conditions and options in turn.",
    "Before drawing a conclusion, it helps to narrow down what {a} covers here, "
    "because different readers may mean different things by it.",
    "The question becomes easier once it is split into {a} and {b}. Here is an order in which to think it through.",
    "To make this usable right away, I will separate what to check about {a} from what to decide.",
    "Keeping {b} in mind, let us consider {a}. Little is needed for a judgement, but the order matters.",
)
EN_POINTS = (
    (
        "Purpose",
        "Whether {a} matters for cost, quality or risk changes how the same material reads. "
        "One written sentence of purpose makes later choices easier.",
    ),
    (
        "Scope",
        "Write down what {a} includes and what it leaves out. "
        "With blurred borders, answers to different questions look like one.",
    ),
    (
        "Evidence",
        "Separate confirmed facts from assumptions. "
        "Only material with a source and a date should carry the judgement; the rest stays a hypothesis.",
    ),
    (
        "Options",
        "Put at least two options side by side. Leaving everything as it is counts as one of them.",
    ),
    (
        "Criteria",
        "Fewer criteria are better. "
        "Effect, cost, time and whether a step can be undone are often enough to compare {a}.",
    ),
    (
        "Risks",
        "Note who would be affected, and how, if it went wrong. "
        "The harder a decision is to undo, the smaller its first trial should be.",
    ),
    (
        "People",
        "Those involved with {b} care about different things. Plan a way to hear them before deciding.",
    ),
    (
        "First step",
        "Choose a first step small enough to finish soon. Agree on who does it, by when, and what finished means.",
    ),
    (
        "Check",
        "Decide in advance how to tell whether {c} has improved. "
        "Where numbers are hard to get, describe a case that would count as success.",
    ),
    (
        "Limits",
        "This is arranged from the words of the question alone. "
        "Concrete figures and local conditions need to be checked separately.",
    ),
)
EN_CLOSINGS = (
    "In short, a judgement about {a} can be narrowed down by fixing the purpose, "
    "sorting the evidence and checking with a small trial.",
    "With more about the conditions, it would be possible to say whether {a} or {b} should come first.",
    "Settling the purpose and the criteria alone already removes many of the choices around {a}.",
)
EN_THOUGHTS = (
    "The words that matter in this question seem to be {a} and {b}.",
    "It is better to show an order of thought than to assert facts.",
    "Purpose, evidence, criteria and a way to check would be a good division.",
    "Keep the points short and say what needs to be confirmed.",
)
EN_MORE = "Let us go through it once more with {c} at the centre."


@dataclass(frozen=True, slots=True)
class _Phrases:
    openings: tuple[str, ...]
    points: tuple[tuple[str, str], ...]
    closings: tuple[str, ...]
    thoughts: tuple[str, ...]
    more: str
    quotes: str
    fillers: tuple[str, ...]
    """Stand for topics where the question names fewer than three."""


_LANGUAGES = {
    "ko": _Phrases(KO_OPENINGS, KO_POINTS, KO_CLOSINGS, KO_THOUGHTS, KO_MORE, "‘’", ("이 질문", "그 목적", "그 조건")),
    "en": _Phrases(
        EN_OPENINGS, EN_POINTS, EN_CLOSINGS, EN_THOUGHTS, EN_MORE, "“”", ("this question", "its purpose", "its context")
    ),
}
_BULLETS = ("{n}. {title}: {body}", "- **{title}** {body}", "**{title}**\n{body}", "({n}) {title} — {body}", "{body}")


def choices(*parts: object) -> Random:
    """A source of choices that is the same wherever `parts` are; nothing secret is drawn from it."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return Random(digest)  # noqa: S311


def paragraphs(model_id: str, question: str, draw: Random) -> Iterator[str]:
    """The answer's paragraphs, each with its separator; then, for those who go on reading, more without an end.

    The first yields make a complete answer; how many they are is `answer_length`. A model keeps to one manner of
    writing for all its answers.
    """
    phrases, terms = _phrases(question)
    manner = choices("manner", model_id)
    bullet, count = manner.choice(_BULLETS), answer_length(model_id) - 2
    points = list(manner.sample(phrases.points, len(phrases.points)))
    draw.shuffle(points)
    yield draw.choice(phrases.openings).format(**terms)
    for number, (title, body) in enumerate(points[:count], 1):
        yield "\n\n" + bullet.format(n=number, title=title, body=body.format(**terms))
    yield "\n\n" + draw.choice(phrases.closings).format(**terms)
    words = list(terms.values())
    for lap in cycle(range(len(words))):
        turned = dict(zip(terms, words[lap + 1 :] + words[: lap + 1], strict=True))
        yield "\n\n" + phrases.more.format(**turned)
        for number, (title, body) in enumerate(points, 1):
            yield "\n\n" + bullet.format(n=number, title=title, body=body.format(**turned))


def answer_length(model_id: str) -> int:
    """Paragraphs of a complete answer of this model: an opening, three to five points, a closing."""
    return 2 + choices("length", model_id).choice((3, 4, 5))


def answer(model_id: str, question: str, draw: Random) -> str:
    """A complete answer."""
    return "".join(islice(paragraphs(model_id, question, draw), answer_length(model_id)))


def reasoning(question: str, draw: Random) -> str:
    """What is thought before the answer, where the reader asked to see it."""
    phrases, terms = _phrases(question)
    first, *rest = phrases.thoughts
    draw.shuffle(rest)
    return " ".join(sentence.format(**terms) for sentence in (first, *rest[:2]))


def _phrases(question: str) -> tuple[_Phrases, dict[str, Term]]:
    phrases = _LANGUAGES[language_of(question)]
    quoted = [Term(word, phrases.quotes) for word in topics_of(question)]
    question_itself, *rest = map(Term, phrases.fillers)
    terms = (*quoted, *rest, question_itself) if quoted else (question_itself, *rest)
    return phrases, dict(zip("abc", terms, strict=False))
