"""Pydantic's errors in our words: each names the place, what is wrong and what would be right.

One block at a time; what blocks mean together belongs to `records`.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.registry.schema import Block, ModelBlock
from gateway.registry.text import Document, Loc, did_you_mean, shown

B = TypeVar("B", bound=Block)
WANTED = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
}
"""Pydantic's error types for a wrong container, and the words for what would be right."""


def validated(document: Document, kind: type[B], raw: Any, loc: Loc) -> B | None:
    """The block, for what of it can be read. A field with a fault of form is complained of and then left out.

    So a wrong price does not hide that the same entry names an unknown consortium. None when a field is broken that
    the entry cannot do without.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        document.complain(_visible(document, (*loc, *detail["loc"])), _in_words(kind, detail))
    broken = {detail["loc"][0] for detail in details if detail["loc"]}
    if not isinstance(raw, Mapping) or not broken:
        return None
    readable = {name: value for name, value in raw.items() if name not in broken}
    if kind is ModelBlock and "serving" in broken:
        readable["serving"] = {"kind": "vllm"}
    try:
        return kind.model_validate(readable)
    except ValidationError:
        return None


def _visible(document: Document, loc: Loc) -> Loc:
    """Drops each `value` that a plain fact does not have in the file."""
    seen: Loc = ()
    for part in loc:
        if part != "value" or (*seen, part) in document.lines:
            seen = (*seen, part)
    return seen


def _in_words(kind: type[Block], detail: ErrorDetails) -> str:
    loc = detail["loc"]
    match detail["type"]:
        case "refused":
            return detail["msg"]
        case "extra_forbidden":
            fields = _fields_at(kind, loc[:-1])
            return "unknown field" + (did_you_mean(str(loc[-1]), fields) or f"; known here: {', '.join(fields)}")
        case "missing":
            described = _fields_at(kind, loc[:-1]).get(str(loc[-1]))
            return f"missing; expected {described or 'a value'}"
        case "literal_error":
            options = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            hint = did_you_mean(str(detail["input"]), options.split(", "))
            return f"expected one of {options}; got {shown(detail['input'])}{hint}"
    wanted = WANTED.get(detail["type"])
    return f"expected {wanted}, got {shown(detail['input'])}" if wanted else detail["msg"]


def _fields_at(kind: type[Block], loc: Loc) -> dict[str, str | None]:
    """Names and descriptions of the fields of the block that stands at `loc` inside a block of `kind`."""
    for part in loc:
        if isinstance(part, str) and part in kind.model_fields:
            kind = next(_blocks_in(kind.model_fields[part].annotation), kind)
    return {name: field.description for name, field in kind.model_fields.items()}


def _blocks_in(annotation: Any) -> Iterator[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _blocks_in(argument)
