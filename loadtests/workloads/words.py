"""The few words that stand between the parts of a prompt, by language."""

from __future__ import annotations

from dataclasses import dataclass

BREAK = "\n\n"
"""Between parts, and between paragraphs."""


@dataclass(frozen=True, slots=True)
class Words:
    reference: str
    """Before the number of a request."""
    file: str
    """Before the number of what several requests share."""
    material: str
    request: str
    asked: str
    """Of a transcript: before what the user says."""
    answered: str


WORDS = {
    "ko": Words("접수번호", "자료번호", "[참고 자료]", "[요청]", "질문:", "답변:"),
    "en": Words("Reference", "File", "[Material]", "[Request]", "Question:", "Answer:"),
}
