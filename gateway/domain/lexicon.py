"""The words that give an answer's author away, and where they stand in a text however they are written.

Candidates' names come from the registry; names of foreign models, which candidates often claim falsely, stand here.
Whether a sentence that holds a name speaks of itself is not decided here: that is `self_claims`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from html import unescape
from itertools import pairwise

from gateway.domain.records import Consortium, Model, Registry

VERSION = 4
"""Raised whenever the same registry would give another lexicon, or a lexicon would match other texts."""

# A model's name without these still is its name: sizes, dates, kinds of training.
_TAIL = re.compile(r"[\s-]+(?:\d+(?:\.\d+)?B(?:-A\d+B)?|A\d+B|Instruct|Base|Preview|v\d[\w.]*|\d{4})$", re.IGNORECASE)

_ACRONYM = re.compile(r"[A-Z](?:\.?[A-Z]){1,3}")
_LETTERS = {
    "A": "에이",
    "B": "비",
    "C": "씨",
    "D": "디",
    "E": "이",
    "F": "에프",
    "G": "지",
    "H": "에이치",
    "I": "아이",
    "J": "제이",
    "K": "케이",
    "L": "엘",
    "M": "엠",
    "N": "엔",
    "O": "오",
    "P": "피",
    "Q": "큐",
    "R": "알",
    "S": "에스",
    "T": "티",
    "U": "유",
    "V": "브이",
    "W": "더블유",
    "X": "엑스",
    "Y": "와이",
    "Z": "제트",
}

FOREIGN: dict[str, tuple[str, str, str]] = {
    # owner: (names of models, those that are ordinary words too, companies)
    "openai": ("ChatGPT 챗GPT 챗지피티 GPT 지피티", "", "OpenAI 오픈AI 오픈에이아이"),
    "anthropic": ("", "Claude 클로드", "Anthropic 앤트로픽 앤스로픽 앤쓰로픽"),
    "google": ("Gemma PaLM", "Gemini 제미나이 제미니 Bard 바드 젬마", "Google_DeepMind Google 구글 DeepMind 딥마인드"),
    "meta": ("", "Llama 라마", "Meta_AI Meta 메타"),
    "alibaba": ("Qwen 큐원 큐웬 쿠엔 통의천문 Tongyi_Qianwen", "", "Alibaba_Cloud Alibaba 알리바바_클라우드 알리바바"),
    "deepseek": ("DeepSeek 딥시크 딥식", "", ""),
    "mistral": ("Mixtral", "Mistral 미스트랄", "Mistral_AI 미스트랄_AI"),
    "microsoft": ("", "Phi Copilot 코파일럿", "Microsoft 마이크로소프트"),
    "xai": ("", "Grok 그록", "xAI"),
    "zhipu": ("ChatGLM GLM", "", "Zhipu 즈푸"),
    "moonshot": ("", "Kimi 키미", "Moonshot_AI 문샷"),
    "baidu": ("", "Ernie 어니", "Baidu 바이두"),
    "cohere": ("Command_R", "", "Cohere 코히어"),
}


class Kind(StrEnum):
    PRODUCT = "product"
    COMPANY = "company"


@dataclass(frozen=True, slots=True, order=True)
class Name:
    text: str
    owner: str
    """A consortium's id, a foreign maker, or the id of a model that belongs to no consortium."""
    kind: Kind
    is_ordinary: bool
    """An everyday word too, so it tells nothing outside a self-claim. Companies' names all count as such."""
    is_candidate: bool


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All names, sorted and each once, so that equal registries give equal lexicons."""

    names: tuple[Name, ...]
    version: int = VERSION
    _hash: int = field(init=False, repr=False, compare=False)
    """Taken once: every sentence looks its lexicon's patterns up by it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.names, self.version)))

    def __hash__(self) -> int:
        return self._hash

    def canonical(self) -> list[list[str | bool | int]]:
        """Plain values in a fixed order, for a round's commitment; begins with the version."""
        rows: list[list[str | bool | int]] = [["lexicon", self.version]]
        rows.extend([n.text, n.owner, n.kind.value, n.is_ordinary, n.is_candidate] for n in self.names)
        return rows


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a view: where, and whether a version stands behind it, which makes an everyday word a name."""

    start: int
    end: int
    name: Name
    has_version: bool


def build_lexicon(registry: Registry) -> Lexicon:
    """Names of every candidate in the registry, and the foreign ones."""
    names = {name for consortium in registry.consortia.values() for name in _of_consortium(consortium)}
    for model in registry.models.values():
        consortium = registry.consortia.get(model.consortium_id or "")
        names.update(_of_model(model, consortium))
    names.update(_foreign())
    return Lexicon(tuple(sorted({*names, *(spelled for name in names for spelled in _spelled(name))})))


def _spelled(name: Name) -> Iterator[Name]:
    """An acronym as Korean writers spell its letters: SKT, 에스케이티."""
    if _ACRONYM.fullmatch(name.text):
        yield replace(name, text="".join(_LETTERS[sign] for sign in name.text if sign != "."))


def _of_consortium(consortium: Consortium) -> Iterator[Name]:
    names = consortium.names
    for text in (*names.latin, *names.hangul):
        yield Name(text, consortium.id, Kind.PRODUCT, text in names.ordinary, True)
    for text in (*names.company, consortium.name_ko, consortium.name_en):
        yield Name(text, consortium.id, Kind.COMPANY, True, True)


def _of_model(model: Model, consortium: Consortium | None) -> Iterator[Name]:
    """Full names of models whose family's name is an everyday word: 'Solar Pro 2', 'A.X 4.0', 'Motif 2.6B'.

    The others contain their family's name. Without a consortium nobody says which words are ordinary, so all are.
    """
    texts = [model.id, *([model.name] if model.name else [])]
    if consortium is None:
        yield from (Name(text, model.id, Kind.PRODUCT, True, True) for text in texts if len(squeezed(text)) > 1)
        return
    families = {squeezed(text) for text in consortium.names.ordinary}
    for text in {shorter for full in texts for shorter in _without_tails(full)}:
        rest = next((squeezed(text)[len(f) :] for f in families if squeezed(text).startswith(f)), "")
        if len(rest) > 1 and any(sign.isdigit() for sign in rest) and text.isascii():
            yield Name(text, consortium.id, Kind.PRODUCT, False, True)


def _without_tails(text: str) -> Iterator[str]:
    while text:
        yield text
        shorter = _TAIL.sub("", text)
        text = shorter if shorter != text else ""


def _foreign() -> Iterator[Name]:
    for owner, (names, ordinary, companies) in FOREIGN.items():
        groups = ((names, Kind.PRODUCT, False), (ordinary, Kind.PRODUCT, True), (companies, Kind.COMPANY, True))
        for words, kind, is_ordinary in groups:
            for word in words.split():
                yield Name(word.replace("_", " "), owner, kind, is_ordinary, False)


# --- how names are written ----------------------------------------------------------------------------------

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_DECORATION = re.compile("[*_`\\\\\u0300-\u036f\u20d0-\u20ff\ue000-\ue00f]|~~")
_ALIKE = str.maketrans("авеіјкмнорсѕтухαεικνορτυχ‘’“”‐‑‒−：", "abeijkmhopcstyxaeikvoptux''\"\"----:")
"""Cyrillic and Greek letters that look Latin, quotes, hyphens."""
_SPACES = re.compile(r"\s+")
_REFERENCE = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,6}|#\d{1,7}|[A-Za-z][A-Za-z0-9]{1,31});")


def view_of(text: str) -> str:
    """The text as names are looked for: one width and case, nothing invisible, no emphasis, single spaces.

    Character references (`&#88;`, `&nbsp;`) are read as what a page shows for them.
    """
    written = _REFERENCE.sub(lambda match: unescape(match[0]), text) if "&" in text else text
    seen = unicodedata.normalize("NFKC", _INVISIBLE.sub("", written)).casefold()
    seen = _DECORATION.sub("", unicodedata.normalize("NFKC", seen)).translate(_ALIKE)
    return _SPACES.sub(" ", seen).strip()


def squeezed(text: str) -> str:
    """Letters and digits alone."""
    return "".join(sign for sign in view_of(text) if sign.isalnum())


_GAP = r"[ .:·\-/]{0,2}"
_VERSION = re.compile(
    r"(?:[ \-]{0,2}(?:v?\d+(?:\.\d+)*[bmok]?(?:-a\d+b)?|pro|mini|light|lite|base|instruct|think|turbo|open|"
    r"seed|omni|llm|vl|chat|coder|max|ultra|flash|sonnet|opus|haiku|k\d)(?![a-z0-9])|"
    r" ?(?:프로|미니|라이트|베이스)(?![가-힣]))*"
)
_AFTER_HANGUL = (
    r"(?![가-힣])|(?=은|는|이|가|을|를|의|와|과|랑|로|으로|에|께|도|만|까지|부터|야|예요|입니다|라|고|며|지|죠|인|측|팀|"
    r"랍|답|다|임|였|처럼|보다|한테|하|여|아|님|씨|조차|뿐|출신|산하|소속|올|구|소|표|요|드림)"
)


@lru_cache(maxsize=8)
def _patterns(lexicon: Lexicon) -> tuple[re.Pattern[str], dict[str, re.Pattern[str]], dict[str, Name]]:
    """Where a name may begin; by its first sign one pattern, longest names first; the names by their groups."""
    ordinary = {squeezed(name.text) for name in lexicon.names if name.is_ordinary}
    names = sorted(lexicon.names, key=lambda name: (-len(name.text), name))
    groups = {f"n{position}": name for position, name in enumerate(names)}
    by_first: dict[str, list[str]] = {}
    for group, name in groups.items():
        by_first.setdefault(view_of(name.text)[0], []).append(f"(?P<{group}>{_spelling(name, ordinary)})")
    firsts = re.escape("".join(by_first))
    start = re.compile(rf"(?<![a-z0-9])(?=[a-z])[{firsts}]|(?<![가-힣])(?=[가-힣])[{firsts}]")
    return start, {first: re.compile("|".join(parts)) for first, parts in by_first.items()}, groups


def _spelling(name: Name, ordinary: Collection[str]) -> str:
    """The name however spaced. Where only signs tell it from an everyday word (믿:음), they must be there."""
    text = view_of(name.text)
    signs_matter = not name.is_ordinary and squeezed(text) in ordinary
    pieces = list(re.finditer(r"[a-z]+|\d+|[가-힣]+|[^\sa-z\d가-힣]", text))
    tokens = [piece[0] for piece in pieces]
    written = name.text if name.text.lower() == text else text
    body = ""
    for position, token in enumerate(tokens):
        if not token.isalnum():
            is_within_number = 0 < position < len(tokens) - 1 and tokens[position - 1].isdigit()
            body += r"[ .\-]" if is_within_number else rf" ?{re.escape(token)} ?" if signs_matter else ""
        else:
            is_joint = (bool(body) and tokens[position - 1].isalnum()) or (position > 0 and not signs_matter)
            word = written[slice(*pieces[position].span())]
            body += (_GAP if is_joint and not body.endswith("]") else "") + _letters(word, name)
    right = r"(?![a-z])" if name.kind is Kind.PRODUCT else r"(?![a-z0-9])"
    return body + (right if text[-1].isascii() else f"(?:{_AFTER_HANGUL})")


def _letters(word: str, name: Name) -> str:
    """A word as it may be written: with spaces or hyphens between all letters, a hyphen anywhere, Open AI."""
    token = word.lower()
    if "가" <= token[0] <= "힣":
        return (r"[ .·\-]?" if len(token) > 2 else " ?").join(token)
    if len(token) == 3 and not name.is_ordinary and token.isalpha():
        return "[.-]?".join(token)
    if token.isdigit() or len(token) < 4 or (name.is_ordinary and name.kind is Kind.PRODUCT and len(token) < 5):
        return token
    joints = ["[ -]?" if before.islower() and after.isupper() else "-?" for before, after in pairwise(word)]
    parted = token[0] + "".join(joint + letter for joint, letter in zip(joints, token[1:], strict=True))
    return f"(?:{parted}|{r'[ .-]'.join(token)})"


def names_in(view: str, lexicon: Lexicon) -> list[Found]:
    """Every name in a text that `view_of` made, left to right, none within another."""
    start, by_first, groups = _patterns(lexicon)
    found: list[Found] = []
    for place in start.finditer(view):
        begin = place.start()
        match = by_first[view[begin]].match(view, begin) if not found or begin >= found[-1].end else None
        if match:
            tail = _VERSION.match(view, match.end())
            end = tail.end() if tail else match.end()
            has_version = any(sign.isdigit() for sign in view[match.end() : end])
            found.append(Found(begin, end, groups[str(match.lastgroup)], has_version))
    return found


def telling_owners(view: str, lexicon: Lexicon) -> frozenset[str]:
    """Candidates that the text names beyond doubt."""
    return frozenset(found.name.owner for found in telling(names_in(view, lexicon)))


def telling(found: Iterable[Found]) -> list[Found]:
    """The names that give a candidate away wherever they stand."""
    return [one for one in found if one.name.is_candidate and not one.name.is_ordinary]
