"""A prompt as the body of a request, by route: what engines and gateway take, without `model` and stream fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.plan import Route, WorkKind, Workload
from loadtests.workloads import Text
from loadtests.workloads.words import BREAK, WORDS

Body = dict[str, Any]
Message = dict[str, Any]
CHAT_ONLY = (WorkKind.TOOLS, WorkKind.IMAGE)


def check_body(workload: Workload, route: Route) -> None:
    """Raise ValueError where no request of the workload can be made for the route."""
    if route is Route.COMPLETIONS and workload.kind in CHAT_ONLY:
        raise ValueError(f"workload: {workload.kind} needs messages; route completions has none")
    if workload.kind is WorkKind.STRUCTURED and workload.is_pinned and workload.output_tokens is not None:
        raise ValueError(
            "workload: an answer by a schema ends where its schema does, so its length cannot be pinned; "
            "set is_pinned to false or leave output_tokens out"
        )


def user_message(prompt: str) -> Message:
    return {"role": "user", "content": prompt}


def picture_message(before: str, picture_uri: str, question: str) -> Message:
    """A picture between what is said before it and the question about it."""
    parts = [
        {"type": "text", "text": before},
        {"type": "image_url", "image_url": {"url": picture_uri}},
        {"type": "text", "text": question},
    ]
    return {"role": "user", "content": parts}


def answer_message(answer: str) -> Message:
    return {"role": "assistant", "content": answer}


def plain_prompt(language: str, messages: Sequence[Message]) -> str:
    """Messages as plain text for COMPLETIONS, with a place for the answer. It begins with that of the turn before."""
    words = WORDS[language]
    begin, *rest = messages
    said = [f"{words.asked if each['role'] == 'user' else words.answered} {each['content']}" for each in rest]
    return BREAK.join([begin["content"], *said]) + answer_place(language)


def answer_place(language: str) -> str:
    """What ends a plain prompt, so that the model answers rather than goes on asking."""
    return f"{BREAK}{WORDS[language].answered}"


def make_body(
    workload: Workload, route: Route, text: Text, messages: Sequence[Message], output_tokens: int | None
) -> Body:
    """The whole body. `output_tokens`: how long the answer is to be; None = as the model likes, within the limit."""
    fields = _fields(workload, text, output_tokens)
    match route:
        case Route.CHAT:
            return {"messages": list(messages), **fields}
        case Route.COMPLETIONS:
            return {"prompt": plain_prompt(text.language, messages), **fields}
        case Route.COMPARISON:
            return {"messages": list(messages), "params": fields}


def _fields(workload: Workload, text: Text, output_tokens: int | None) -> Body:
    limit = workload.max_output_tokens if output_tokens is None else output_tokens
    fields: Body = {"temperature": workload.temperature, "max_tokens": limit}
    if workload.is_pinned and output_tokens is not None:
        fields |= {"min_tokens": limit, "ignore_eos": True}
    if text.tools:
        fields |= {"tools": list(text.tools), "tool_choice": "auto"}
    if text.schema is not None:
        fields["response_format"] = {"type": "json_schema", "json_schema": text.schema}
    return fields | dict(workload.extra)
