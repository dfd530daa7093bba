"""What several requests have in common: the part at the beginning of their prompts that a prefix cache can keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadtests.plan import WorkKind, Workload
from loadtests.workloads import Text, languages_of, texts_of
from loadtests.workloads.fitting import Supply
from loadtests.workloads.references import References
from loadtests.workloads.words import BREAK

_PURPOSE = 2
"""Tells these draws from all others of the same seed."""


@dataclass(frozen=True, slots=True)
class Group:
    """One shared part. The same seed gives the same in every worker."""

    language: str
    line: str
    """Its first line, which no other group and no other seed has."""
    text: Text | None
    """Of DOCUMENT_QA: the document that its requests ask about."""
    start: int
    """With which paragraph the supply goes on."""

    def shared_part(self, supply: Supply, characters: int | None) -> str:
        """At most `characters` of it; None = the document as it is. Shorter ones are beginnings of longer ones, up to
        the end of a word. Its first line is never cut."""
        own = "" if self.text is None else BREAK.join(filter(None, (self.text.title, *self.text.paragraphs)))
        if characters is None:
            return self.line + BREAK + own if own else self.line
        more = supply.extend(own, self.start, characters - len(self.line) - len(BREAK))
        return self.line + BREAK + more if more else self.line


def make_groups(workload: Workload, seed: int, references: References, supply_sizes: dict[str, int]) -> list[Group]:
    """Its `prefix_groups` groups where a shared part is asked for, one a document for DOCUMENT_QA, otherwise none.

    Languages take turns, and so do documents, in an order that the seed shuffles.
    """
    languages = languages_of(workload)
    texts = {language: [text for text in texts_of(workload) if text.language == language] for language in languages}
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PURPOSE,)))
    order = {language: rng.permutation(len(texts[language])) for language in languages}
    starts = {language: int(rng.integers(supply_sizes[language])) for language in languages}
    asks_documents = workload.kind is WorkKind.DOCUMENT_QA
    if workload.shared_prefix_tokens > 0:
        count = workload.prefix_groups
    else:
        count = sum(map(len, texts.values())) if asks_documents else 0
    groups = []
    for number in range(count):
        language, turn = languages[number % len(languages)], number // len(languages)
        document = texts[language][order[language][turn % len(texts[language])]] if asks_documents else None
        line = references.group_line(language, number)
        groups.append(Group(language, line, document, starts[language] + turn))
    return groups
