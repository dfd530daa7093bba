"""The texts of load tests: Korean and English, of our own writing, for each kind of work and across industries.

They lie in `texts/KIND.LANGUAGE.jsonl`, one JSON object a line, and none translates another. This module reads them,
chooses those of a workload, and gives a workload its hash. How requests are made of them is `requests`' subject.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from gateway.domain.canonical_json import canonical_json
from loadtests.plan import WorkKind, Workload

INDUSTRIES = ("public_administration", "finance", "manufacturing", "health", "education", "law", "customer_service")
LANGUAGES = ("ko", "en")
MIXED = "mixed"
COMPOSITION = 1
"""Raised with every change to how requests are made of texts: other requests, another hash."""


@dataclass(frozen=True, slots=True)
class Text:
    """What one request, or one conversation, is made of. Which fields are filled is a matter of the kind."""

    id: str
    kind: WorkKind
    language: str
    industry: str
    questions: tuple[str, ...]
    """DOCUMENT_QA: several about the document; MULTI_TURN: what the user says, in order; otherwise one."""
    title: str | None = None
    """Of DOCUMENT_QA."""
    paragraphs: tuple[str, ...] = ()
    """What DOCUMENT_QA and SUMMARY ask about."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Of TOOLS: OpenAI's `tools`."""
    schema: Mapping[str, Any] | None = None
    """Of STRUCTURED: OpenAI's `response_format.json_schema`."""
    picture: Mapping[str, Any] | None = None
    """Of IMAGE: what `pictures` draws."""


def load_texts(kind: WorkKind, language: str) -> tuple[Text, ...]:
    """All texts of the kind in one language, in their fixed order. Not to be changed: they are read once."""
    return _read(WorkKind(kind), language)


def texts_of(workload: Workload) -> tuple[Text, ...]:
    """The texts that a workload draws from, by language, then industry. Raises ValueError for names there are none of.

    The order in which the workload names its industries means nothing.
    """
    wanted = industries_of(workload)
    return tuple(
        text
        for language in languages_of(workload)
        for text in load_texts(workload.kind, language)
        if text.industry in wanted
    )


def languages_of(workload: Workload) -> tuple[str, ...]:
    """One language, or both of a mixed workload."""
    if workload.language == MIXED:
        return LANGUAGES
    if workload.language not in LANGUAGES:
        raise ValueError(f"language: expected {', '.join((*LANGUAGES, MIXED))}; got {workload.language!r}")
    return (workload.language,)


def industries_of(workload: Workload) -> tuple[str, ...]:
    """Those that the workload names, or all, in the order of INDUSTRIES."""
    unknown = [name for name in workload.industries if name not in INDUSTRIES]
    if unknown:
        raise ValueError(f"industries: expected names of {', '.join(INDUSTRIES)}; got {unknown[0]!r}")
    return tuple(name for name in INDUSTRIES if not workload.industries or name in workload.industries)


@cache
def passages(language: str) -> tuple[str, ...]:
    """Paragraphs that prompts of the language are extended with: those of all documents, then of all summaries."""
    kinds = (WorkKind.DOCUMENT_QA, WorkKind.SUMMARY)
    return tuple(paragraph for kind in kinds for text in load_texts(kind, language) for paragraph in text.paragraphs)


def workload_sha256(workload: Workload) -> str:
    """A hash over the workload's values and every text that its requests may hold, in hexadecimal.

    Two runs with the same hash, seed and `fitting.Fertility` sent the same requests. Raises ValueError where `extra`
    holds what JSON cannot, and for names that do not exist.
    """
    asked = asdict(replace(workload, extra={})) | {"extra": workload.extra, "industries": industries_of(workload)}
    is_extended = workload.input_tokens is not None or workload.shared_prefix_tokens > 0
    value: dict[str, Any] = {
        "composition": COMPOSITION,
        "workload": asked,
        "texts": [asdict(text) for text in texts_of(workload)],
        "passages": {language: passages(language) if is_extended else () for language in languages_of(workload)},
    }
    return hashlib.sha256(canonical_json(value)).hexdigest()


@cache
def _read(kind: WorkKind, language: str) -> tuple[Text, ...]:
    content = files(__name__).joinpath("texts", f"{kind}.{language}.jsonl").read_text(encoding="utf-8")
    return tuple(_text(json.loads(line), kind, language) for line in content.split("\n") if line)


def _text(fields: dict[str, Any], kind: WorkKind, language: str) -> Text:
    """A field that `Text` does not have, or one that is missing, is a TypeError: the files are our own."""
    lists: dict[str, Any] = {name: tuple(fields.pop(name, ())) for name in ("questions", "paragraphs", "tools")}
    return Text(kind=kind, language=language, **lists, **fields)
