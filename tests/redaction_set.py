"""The measurement set of redaction, read and counted: for the tests and for docs/redaction.md."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.domain.lexicon import Lexicon, view_of
from gateway.domain.redaction import MARKER, redact
from gateway.domain.stats import binomial_cdf

FOLDER = Path(__file__).parent / "redaction"


FILES = ("later", "turned", "fresh", "unseen")
"""Texts that are measured by themselves; their ids begin so."""


@dataclass(frozen=True, slots=True)
class Text:
    id: str
    lang: str
    text: str
    is_self_claim: bool
    names: tuple[str, ...]
    note: str
    author: str | None = None
    is_true: bool | None = None
    prompt: str = ""

    @property
    def split(self) -> str:
        file = self.id.partition("-")[0]
        if file in FILES:
            return file
        return "held-out" if hashlib.sha256(self.id.encode()).digest()[0] % 2 else "dev"


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `n` texts came out wrong: claims missed, or ordinary texts changed."""

    kind: str
    split: str
    lang: str
    n: int
    failures: tuple[Text, ...]

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def bound(self) -> float:
        """The largest share that so few failures leave possible: exact, one-sided, 95 %."""
        return upper_bound(self.failed, self.n)

    def line(self) -> str:
        what = "missed" if self.kind == "self-claims" else "falsely redacted"
        return f"{self.kind}, {self.split}, {self.lang}: {self.failed} of {self.n} {what}, at most {self.bound:.2%}"


def read_set(name: str) -> list[Text]:
    """The texts of self_claims, of ordinary or of one of FILES."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [_text(json.loads(line)) for line in lines if line]


def _text(fields: dict[str, Any]) -> Text:
    return Text(**{**fields, "names": tuple(fields["names"])})


def is_missed(redacted: str, names: Sequence[str]) -> bool:
    """Whether one of the names can still be read, whatever its width, case and emphasis."""
    view = view_of(redacted.replace(MARKER, " "))
    for name in map(view_of, names):
        before = r"(?<![a-z0-9])" if name[0].isascii() else ""
        after = r"(?![a-z])" if name[-1].isascii() else ""
        if re.search(before + re.escape(name) + after, view):
            return True
    return False


def is_wrong(text: Text, lexicon: Lexicon) -> bool:
    redacted = redact(text.text, lexicon, author=text.author, prompt_text=text.prompt)
    if not text.is_self_claim:
        return redacted.text != text.text
    return is_missed(redacted.text, text.names) or MARKER not in redacted.text


def measured(lexicon: Lexicon, *, split: str) -> Iterator[Share]:
    """The shares of dev, held-out, both halves (all) or one of FILES, by language and for both."""
    texts = read_set(split) if split in FILES else [*read_set("self_claims"), *read_set("ordinary")]
    texts = [text for text in texts if split in ("all", text.split)]
    wrong = {text.id for text in texts if is_wrong(text, lexicon)}
    for kind, is_claim in (("self-claims", True), ("ordinary", False)):
        for lang in ("ko", "en", "both"):
            own = [text for text in texts if text.is_self_claim is is_claim and lang in (text.lang, "both")]
            yield Share(kind, split, lang, len(own), tuple(text for text in own if text.id in wrong))


def upper_bound(failed: int, n: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson: the share at which so few failures or fewer have the probability 1 - confidence."""
    low, high = failed / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        is_likely = failed < n and float(binomial_cdf(n, middle)[failed]) > 1 - confidence
        low, high = (middle, high) if is_likely else (low, middle)
    return high
