"""Prompts of about so many tokens, made without a tokenizer: by characters, at the ends of words.

How many characters a token holds is told by the engine's /tokenize before a run (`learn_fertility`); who asks it is
not this module's affair. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtests.plan import WorkKind
from loadtests.workloads import load_texts, passages
from loadtests.workloads.references import References
from loadtests.workloads.words import BREAK, WORDS


@dataclass(frozen=True, slots=True)
class Fertility:
    """How a model's tokenizer cuts our texts, by language: tokens = overhead + characters / characters_per_token.

    The defaults are guesses for tokenizers with a fair share of Korean in their vocabulary. Tokenizers differ by far
    more than the lengths of a capacity test should, so learn them from the engine.
    """

    characters_per_token: Mapping[str, float] = field(default_factory=lambda: {"ko": 1.8, "en": 4.6})
    overhead_tokens: Mapping[str, float] = field(default_factory=lambda: {"ko": 12.0, "en": 12.0})
    """What every prompt costs whatever it says: the chat template, and that figures take more tokens than words."""

    def characters(self, language: str, tokens: float) -> int:
        """How long a text of so many tokens is, overhead included; 0 where the overhead alone is more."""
        return max(0, int((tokens - self.overhead_tokens[language]) * self.characters_per_token[language]))

    def text_characters(self, language: str, tokens: float) -> int:
        """How long a part of a text is that has so many tokens itself."""
        return max(0, int(tokens * self.characters_per_token[language]))

    def tokens(self, language: str, characters: int) -> float:
        """The reverse of `characters`."""
        return self.overhead_tokens[language] + characters / self.characters_per_token[language]


DEFAULT_FERTILITY = Fertility()
SAMPLE_CHARACTERS = (300, 600, 1200, 2400, 4800, 7200, 9600, 12000)


def fertility_samples(language: str) -> tuple[str, ...]:
    """Whole prompts of several lengths, made as requests are, to be counted by /tokenize as one message of a user."""
    supply = Supply(passages(language))
    questions = [text.questions[0] for text in load_texts(WorkKind.CHAT, language)]
    references = References(0)
    return tuple(
        fit_prompt(
            language,
            head=references.request_line(language, at),
            passage=supply.cut(at * len(supply) // len(SAMPLE_CHARACTERS), characters),
            question=questions[at * len(questions) // len(SAMPLE_CHARACTERS)],
            characters=characters,
        )
        for at, characters in enumerate(SAMPLE_CHARACTERS)
    )


def learn_fertility(counted: Mapping[str, Iterable[tuple[int, int]]]) -> Fertility:
    """From (characters, tokens) of prompts, by language: the straight line that fits them best.

    A language that is missing keeps its default. Raises ValueError where a language has fewer than two different
    lengths, or where more characters have no more tokens.
    """
    slopes, overheads = dict(DEFAULT_FERTILITY.characters_per_token), dict(DEFAULT_FERTILITY.overhead_tokens)
    for language, pairs in counted.items():
        characters, tokens = (np.array(column, dtype=float) for column in _columns(language, pairs))
        spread = characters - characters.mean()
        tokens_per_character = float(spread @ tokens / (spread @ spread))
        if not tokens_per_character > 0:
            raise ValueError(f"{language}: expected longer prompts to have more tokens; these have not")
        slopes[language] = 1 / tokens_per_character
        overheads[language] = float(tokens.mean() - tokens_per_character * characters.mean())
    return Fertility(slopes, overheads)


def _columns(language: str, pairs: Iterable[tuple[int, int]]) -> tuple[Sequence[int], Sequence[int]]:
    kept = list(pairs)
    if len({characters for characters, _ in kept}) < 2:
        raise ValueError(f"{language}: expected prompts of at least two lengths to learn from; got {len(kept)} prompts")
    return [characters for characters, _ in kept], [tokens for _, tokens in kept]


# --- text of any length -------------------------------------------------------------------------------------


class Supply:
    """Paragraphs in a circle, from which text of any length is cut."""

    def __init__(self, paragraphs: Sequence[str]) -> None:
        """Raises ValueError where there is no paragraph."""
        if not paragraphs:
            raise ValueError("paragraphs: expected at least one, got none")
        self._circle = BREAK.join(paragraphs) + BREAK
        ends = np.cumsum([len(paragraph) + len(BREAK) for paragraph in paragraphs])
        self._starts = [0, *(int(end) for end in ends[:-1])]

    def __len__(self) -> int:
        """How many paragraphs a text can begin with."""
        return len(self._starts)

    def cut(self, start: int, characters: int) -> str:
        """At most `characters`, from the paragraph of that number on and round the circle, to the end of a word."""
        if characters <= 0:
            return ""
        begin = self._starts[start % len(self._starts)]
        piece = self._circle[begin : begin + characters + 1]
        if len(piece) <= characters:
            laps = (characters + 1 - len(piece)) // len(self._circle) + 1
            piece += self._circle * laps
        return cut_at_word(piece, characters)

    def extend(self, own: str, start: int, characters: int) -> str:
        """`own` and as much after it as makes `characters`; `own` cut to that length where it is longer."""
        if not own:
            return self.cut(start, characters)
        if len(own) >= characters:
            return cut_at_word(own, characters)
        more = self.cut(start, characters - len(own) - len(BREAK))
        return own + BREAK + more if more else own


def cut_at_word(text: str, characters: int) -> str:
    """At most `characters` of the text, to the end of a word; nothing where the first word is longer."""
    if len(text) <= characters:
        return text
    if characters <= 0:
        return ""
    head = text[:characters]
    if not text[characters].isspace():
        head = head[: max(head.rfind(" "), head.rfind("\n"), 0)]
    return head.rstrip()


# --- a whole prompt -----------------------------------------------------------------------------------------


def fit_prompt(language: str, *, head: str, passage: str, question: str, characters: int | None) -> str:
    """Head, passage and question, in this order, in at most `characters`; None = all there is.

    The passage gives way first, then the question, from its end. The head always stays whole, so that prompts with
    different heads differ at any length.
    """
    words = WORDS[language]
    if passage:
        before, after = f"{head}{BREAK}{words.material}\n", f"{BREAK}{words.request}\n{question}"
        kept = passage if characters is None else cut_at_word(passage, characters - len(before) - len(after))
        if kept:
            return before + kept + after
    kept = question if characters is None else cut_at_word(question, characters - len(head) - len(BREAK))
    return head + BREAK + kept if kept else head
