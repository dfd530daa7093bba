"""What in an answer gives its author away, taken out before a reviewer sees it.

A sentence that says who is speaking, truly or falsely, and one that names a candidate beyond doubt, become one
neutral marker; special tokens of chat templates go. Which names there are belongs to `lexicon`, which sentences speak
of themselves to `self_claims`. Nothing here knows of rounds or reviewers.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gateway.domain.lexicon import Lexicon, telling, telling_owners, view_of
from gateway.domain.self_claims import Sentence, is_true, joined, names_maker, read_sentence, rule_of, texts
from gateway.domain.sentences import Span, spans_of

MARKER = "［가림 · redacted］"
"""Stands for whatever was taken out: the same in both languages, for every author and every reason."""
MAX_NAMES = 1_000
"""In one text. Sentences with names behind them are taken out unread: trying the rules at each name is what costs."""
MENTION, SPECIAL, ENGINE = "mention", "special-token", "engine-error"

_SPECIAL = (
    r"(?:(?:<[|｜](?:im_start|start_header_id)[|｜]>)(?:assistant|system|user|tool)\b"
    r"|<[|｜][^\s<>|｜\u2060]{0,40}[|｜]>|\[[|｜][^\s\[\]|｜\u2060]{1,40}[|｜]\]"
    r"|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?(?:BOS|EOS|PAD|UNK|SEP|CLS|INST|SYS)\]|<</?SYS>>)"
)
_SPECIALS = re.compile(rf"(?:{_SPECIAL}[ \t]*)+", re.IGNORECASE)
_ENGINE_ERROR = re.compile(
    r"EngineDeadError|EngineCore (?:encountered|proc)|\bvllm\.[\w.]+Error|torch\.(?:cuda\.)?OutOfMemoryError"
    r"|maximum context length is \d+ tokens|Error code: \d{3} - \{|\{\"(?:object|error)\": ?(?:\"error\"|\{\"message\")"
)
_PAIRED_MARKS = ("**", "__", "~~", "`")


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was taken out: `start` to `end` are positions in the original text."""

    start: int
    end: int
    sentence: str
    rule: str
    """A rule of `self_claims`, or mention, special-token, engine-error."""
    names: tuple[str, ...] = ()
    is_true: bool | None = None
    """Of a self-claim: whether it names the author. None: no claim, or nobody said who the author is."""

    @property
    def sentence_sha256(self) -> str:
        return hashlib.sha256(self.sentence.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Redacted:
    text: str
    redactions: tuple[Redaction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A span and the sentence in it; `rule` when it must go."""

    span: Span
    sentence: Sentence
    rule: str | None = None


_NOTHING = _Read(Span(0, 0), Sentence(""))


def redact(text: str, lexicon: Lexicon, *, author: str | None = None, prompt_text: str = "") -> Redacted:
    """The text without what tells its author.

    `author` is a consortium's id and only sets `is_true`: what is taken out never depends on it. Candidates that
    `prompt_text` names may be mentioned in the answer, but not claimed. Any text is taken, and a redacted one comes
    back as it is.
    """
    plain, cuts, tokens = _without_tokens(text)
    allowed = telling_owners(view_of(prompt_text), lexicon)
    read = _judged(plain, lexicon, allowed)
    gone = [one for one in read if one.rule]
    redactions = [_redaction(one, text, cuts, author) for one in gone]
    return Redacted(
        text=_with_markers(plain, [one.span for one in gone]),
        redactions=tuple(sorted((*tokens, *redactions), key=lambda redaction: (redaction.start, redaction.end))),
    )


# --- special tokens -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Where the text without tokens lies in the original: pieces by their start in both."""

    plain: tuple[int, ...]
    original: tuple[int, ...]

    def start_of(self, position: int) -> int:
        piece = bisect_right(self.plain, position) - 1
        return self.original[piece] + position - self.plain[piece]

    def end_of(self, position: int) -> int:
        return self.start_of(position - 1) + 1


def _without_tokens(text: str) -> tuple[str, _Cuts, list[Redaction]]:
    """Within a line something stays where a token stood, so that no two halves become a new one."""
    parts: list[str] = []
    plain, original = [0], [0]
    tokens = []
    position = length = 0
    for match in _SPECIALS.finditer(text):
        start, end = match.span()
        left_over = _left_over(text, start, end)
        parts += (text[position:start], left_over)
        length += start - position + len(left_over)
        plain.append(length)
        original.append(end)
        tokens.append(Redaction(start, end, match[0], SPECIAL))
        position = end
    parts.append(text[position:])
    return "".join(parts), _Cuts(tuple(plain), tuple(original)), tokens


def _left_over(text: str, start: int, end: int) -> str:
    """Nothing at a line's edge; within a word an invisible joiner, which a name in two halves is read across."""
    if start == 0 or end == len(text) or text[start - 1] == "\n" or text[end] == "\n":
        return ""
    return "\u2060" if text[start - 1].isalnum() and text[end].isalnum() else " "


# --- sentences ----------------------------------------------------------------------------------------------


def _judged(text: str, lexicon: Lexicon, allowed: frozenset[str]) -> list[_Read]:
    """Every span with the rule that takes it out, if one does.

    Where one is a claim all are judged again: some words are a claim only beside another.
    """
    spans = spans_of(text, marker=MARKER)
    plain = [_Read(span, read_sentence(text[span.start : span.end], lexicon)) for span in spans]
    judged = _judged_once(text, plain, allowed, beside_claim=False)
    if any(_is_claim(one) for one in judged):
        judged = _judged_once(text, plain, allowed, beside_claim=True)
    return _with_makers(judged)


def _judged_once(text: str, plain: Sequence[_Read], allowed: frozenset[str], *, beside_claim: bool) -> list[_Read]:
    read: list[_Read] = []
    names = 0
    for one in plain:
        span, piece = one.span, text[one.span.start : one.span.end]
        before = read[-1] if read else _NOTHING
        names += len(one.sentence.found)
        if names > MAX_NAMES and one.sentence.found:
            one = replace(one, sentence=Sentence(""), rule=MENTION)
        elif rule := ENGINE if _ENGINE_ERROR.search(piece) else _claim(one, _context(text, before, span), beside_claim):
            one = replace(one, rule=rule)
        elif span.continues and (rule := _claim_across(before, one, beside_claim)):
            read[-1], one = replace(before, rule=before.rule or rule), replace(one, rule=rule)
        elif any(found.name.owner not in allowed for found in telling(one.sentence.found)):
            one = replace(one, rule=MENTION)
        read.append(one)
    return read


def _is_claim(one: _Read) -> bool:
    return one.rule not in (None, MENTION, ENGINE)


def _context(text: str, before: _Read, span: Span) -> Sentence:
    """The sentence before; none behind a marker, or what stood before that one would be read as it the next time."""
    return before.sentence if MARKER not in text[before.span.end : span.start] else Sentence("")


def _claim(one: _Read, before: Sentence, beside_claim: bool) -> str | None:
    """The rule by which a sentence, or a table's cell after its label, speaks of itself."""
    if not one.sentence.found:
        return None
    label = joined(before, one.sentence, by=": ") if one.span.is_cell else None
    rule = rule_of(one.sentence, before, beside_claim=beside_claim)
    return rule or (rule_of(label, Sentence(""), beside_claim=beside_claim) if label else None)


def _claim_across(before: _Read, one: _Read, beside_claim: bool) -> str | None:
    """The rule by which two lines that are one sentence speak of themselves."""
    both = joined(before.sentence, one.sentence)
    is_open = both.found and before.rule in (None, MENTION)
    return rule_of(both, Sentence(""), beside_claim=beside_claim) if is_open else None


def _with_makers(read: Sequence[_Read]) -> list[_Read]:
    """`Developer: …` goes where the line before or after it names the model."""
    marked = list(read)
    for (n, first), (m, second) in pairwise(enumerate(read)):
        if first.rule and not second.rule and names_maker(second.sentence):
            marked[m] = replace(second, rule="label")
        if second.rule and not first.rule and names_maker(first.sentence):
            marked[n] = replace(first, rule="label")
    return marked


def _redaction(one: _Read, text: str, cuts: _Cuts, author: str | None) -> Redaction:
    start, end = cuts.start_of(one.span.start), cuts.end_of(one.span.end)
    return Redaction(
        start=start,
        end=end,
        sentence=text[start:end],
        rule=one.rule or "",
        names=texts(one.sentence.found),
        is_true=is_true(one.sentence, author) if _is_claim(one) else None,
    )


def _with_markers(text: str, spans: Sequence[Span]) -> str:
    """Neighbours in one line share a marker. Emphasis that began or ends outside keeps its other half."""
    parts: list[str] = []
    position = 0
    for span in spans:
        between = text[position : span.start]
        is_next = bool(parts) and between.strip(" \t") == "" and parts[-1].endswith(MARKER)
        parts.append("" if is_next else between)
        parts.append(_marker_for(text[span.start : span.end], is_next=is_next))
        position = span.end
    return "".join((*parts, text[position:]))


def _marker_for(piece: str, *, is_next: bool) -> str:
    marker = "" if is_next else MARKER
    for mark in _PAIRED_MARKS:
        if piece.count(mark) % 2:
            marker = mark + marker if piece.startswith(mark) and not piece.endswith(mark) else marker + mark
    return marker
