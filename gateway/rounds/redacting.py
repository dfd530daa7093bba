"""An answer without what tells its author, as it is written and as a page shows it.

`domain.redaction` reads the source; here the rendered text is read as well, because Markdown can hide a name in the one
that stands plainly in the other. Where only the rendering tells, the whole block goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.domain.lexicon import Lexicon, view_of
from gateway.domain.redaction import MARKER, Redacted, Redaction, redact
from gateway.domain.sentences import prefix_end
from gateway.rounds.markdown import seen_blocks

MAX_PASSES = 5
"""Taking a block out can make others of what stood around it. What still tells after so many goes as a whole."""


class _Redact(Protocol):
    def __call__(self, text: str) -> Redacted: ...


@dataclass(frozen=True, slots=True)
class _Telling:
    """Lines of the source, from `first` up to but without `end`, and what was found in them."""

    first: int
    end: int
    found: tuple[Redaction, ...]


def redact_answer(text: str, lexicon: Lexicon, *, author: str | None = None, prompt_text: str = "") -> Redacted:
    """The text without what tells its author, in the source or on the page; terms as of `domain.redaction.redact`.

    A block taken out leaves as many lines as it had, so that lines of both texts correspond.
    """
    redact_one = partial(redact, lexicon=lexicon, author=author, prompt_text=prompt_text)
    redacted = redact_one(text)
    passes = 0
    while telling := list(_telling(redacted.text, redact_one)):
        passes += 1
        if passes > MAX_PASSES:
            break
        redacted = _without(telling, redacted, text)
    if not telling:
        return redacted
    whole = _Telling(0, text.count("\n") + 1, tuple(found for one in telling for found in one.found))
    return Redacted(MARKER, (_redaction(whole, text.split("\n")),))


def _telling(text: str, redact_one: _Redact) -> Iterator[_Telling]:
    """Blocks that tell as they are seen, and lines that tell now that their neighbours are gone."""
    for one in redact_one(text).redactions:
        first = text.count("\n", 0, one.start)
        yield _Telling(first, first + one.sentence.count("\n") + 1, (one,))
    lines = text.split("\n")
    for block in seen_blocks(text):
        source = "\n".join(lines[block.first_line : block.end_line])
        if view_of(source) != view_of(block.text) and (found := redact_one(block.text).redactions):
            yield _Telling(block.first_line, min(block.end_line, len(lines)), found)


def _without(telling: Sequence[_Telling], redacted: Redacted, original: str) -> Redacted:
    """`redacted` without the telling lines. What had been found in them is part of what is found now."""
    lines, written = redacted.text.split("\n"), original.split("\n")
    redactions = list(redacted.redactions)
    for one in telling:
        lines[one.first : one.end] = [_marked(lines[one.first]), *[""] * (one.end - one.first - 1)]
        new = _redaction(one, written)
        redactions = [old for old in redactions if old.end <= new.start or new.end <= old.start]
        redactions.append(new)
    return Redacted("\n".join(lines), tuple(sorted(redactions, key=lambda redaction: (redaction.start, redaction.end))))


def _redaction(telling: _Telling, written: Sequence[str]) -> Redaction:
    """The lines as they were written, under the first rule that took something out of them."""
    start = sum(len(line) + 1 for line in written[: telling.first])
    sentence = "\n".join(written[telling.first : telling.end])
    first = telling.found[0]
    return Redaction(
        start=start,
        end=start + len(sentence),
        sentence=sentence,
        rule=first.rule,
        names=tuple(dict.fromkeys(name for one in telling.found for name in one.names)),
        is_true=first.is_true,
    )


def _marked(line: str) -> str:
    """The marker in the line's place: behind its list's marker, in each of its cells."""
    begin = prefix_end(line)
    if not line.startswith("|", begin):
        return line[:begin] + MARKER
    return line[:begin] + "|" + f" {MARKER} |" * max(1, line.count("|", begin) - 1)
