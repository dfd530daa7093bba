"""JSON that satisfies a JSON schema, for structured output and tool arguments of the simulated engine.

Covers what such schemas use in practice: types, enum and const, required, nesting, lengths and bounds, unions and
local references. A schema that asks for more than is understood here is refused rather than answered wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from random import Random
from typing import Any

import msgspec

MAX_DEPTH = 24
"""Deepest nesting followed; a recursive schema takes its optional parts away before that."""
OPTIONAL_DEPTH = 4
"""Below this depth only required properties and the fewest items are written."""
_REFUSED = ("pattern", "patternProperties", "not", "if", "dependentSchemas", "uniqueItems", "contains", "propertyNames")
_FORMATS = {
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "date-time": "2026-01-15T09:30:00Z",
    "email": "name@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}

Schema = Mapping[str, Any]


class SchemaRefused(ValueError):
    """The schema asks for something that is not understood here; the message names it."""


def compose_json(schema: object, words: Sequence[str], draw: Random) -> str:
    """JSON text of a value that satisfies `schema`, with strings made of `words`. Raises SchemaRefused."""
    if not isinstance(schema, Mapping):
        raise SchemaRefused(f"expected a JSON schema object, got {schema!r}")
    try:
        value = _Composer(schema, tuple(words) or ("value",), draw).value(schema, 0)
    except (TypeError, AttributeError, KeyError, ZeroDivisionError, OverflowError) as error:
        raise SchemaRefused(f"a keyword has a value of the wrong type: {error}") from error
    return msgspec.json.encode(value).decode()


class _Composer:
    """One value in the making: the root schema for references, and where words and choices come from."""

    def __init__(self, root: Schema, words: tuple[str, ...], draw: Random) -> None:
        self._root = root
        self._words = words
        self._draw = draw

    def value(self, schema: object, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise SchemaRefused(f"the schema nests deeper than {MAX_DEPTH} levels")
        if schema is True:
            return self._words[0]
        if not isinstance(schema, Mapping):
            raise SchemaRefused(f"no value satisfies the schema {schema!r}")
        for name in _REFUSED:
            if name in schema:
                raise SchemaRefused(f"the keyword {name!r} is not supported")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._draw.choice(_nonempty(schema["enum"], "enum"))
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), depth + 1)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.value(_simplest(_nonempty(schema[union], union)), depth + 1)
        if "allOf" in schema:
            return self.value(_merged(schema, [self._plain(part) for part in schema["allOf"]]), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        makers: dict[object, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth),
            "string": lambda: self._string(schema),
            "integer": lambda: self._number(schema, whole=True),
            "number": lambda: self._number(schema, whole=False),
            "boolean": lambda: self._draw.random() < 0.5,
            "null": lambda: None,
        }
        if kind not in makers:
            raise SchemaRefused(f"unknown type {kind!r}")
        return makers[kind]()

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = list(schema.get("required", ()))
        names = list(properties) if depth < OPTIONAL_DEPTH else [name for name in properties if name in required]
        answer = {name: self.value(properties[name], depth + 1) for name in names}
        extra = schema.get("additionalProperties", True)
        for name in required:
            if name not in answer:
                answer[name] = self.value(extra, depth + 1)
        if len(answer) < schema.get("minProperties", 0) or len(answer) > schema.get("maxProperties", len(answer)):
            raise SchemaRefused("minProperties and maxProperties are not supported")
        return answer

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        fixed = schema.get("prefixItems", [])
        low = schema.get("minItems", 0)
        high = schema.get("maxItems", max(low, 3))
        count = max(low, min(high, len(fixed) or 2)) if depth < OPTIONAL_DEPTH else low
        rest = schema.get("items", True)
        return [self.value(fixed[i] if i < len(fixed) else rest, depth + 1) for i in range(count)]

    def _string(self, schema: Schema) -> str:
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                raise SchemaRefused(f"the string format {schema['format']!r} is not supported")
            return _FORMATS[schema["format"]]
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        text = " ".join(self._draw.sample(self._words, min(2, len(self._words))))
        while len(text) < low:
            text += " " + self._draw.choice(self._words)
        return text if high is None else text[:high]

    def _number(self, schema: Schema, *, whole: bool) -> int | float:
        low, high = _bounds(schema)
        unit = schema.get("multipleOf", 1)
        first = ceil(low / unit) if low is not None else None
        last = floor(high / unit) if high is not None else None
        if first is not None and first * unit == schema.get("exclusiveMinimum"):
            first += 1
        if last is not None and last * unit == schema.get("exclusiveMaximum"):
            last -= 1
        if first is None:
            first = 1 if last is None else last - 9
        last = first + 9 if last is None else last
        if first > last:
            if whole or low is None or high is None or low > high:
                raise SchemaRefused("no number lies within the bounds given")
            return float(low + high) / 2
        steps = self._draw.randint(first, last)
        return int(steps * unit) if whole else steps * unit

    def _resolve(self, reference: object) -> object:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaRefused(f"the reference {reference!r} is not local")
        found: Any = self._root
        for part in reference[1:].strip("/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if name:
                if not isinstance(found, Mapping) or name not in found:
                    raise SchemaRefused(f"the reference {reference!r} leads nowhere")
                found = found[name]
        return found

    def _plain(self, schema: object) -> Schema:
        resolved = self._resolve(schema["$ref"]) if isinstance(schema, Mapping) and "$ref" in schema else schema
        if not isinstance(resolved, Mapping):
            raise SchemaRefused(f"no value satisfies the schema {resolved!r}")
        return resolved


def _bounds(schema: Schema) -> tuple[float | None, float | None]:
    lows = [schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema]
    highs = [schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema]
    return (max(lows) if lows else None, min(highs) if highs else None)


def _nonempty(options: object, keyword: str) -> list[Any]:
    if not isinstance(options, list) or not options:
        raise SchemaRefused(f"{keyword!r} must be a list that is not empty")
    return options


def _simplest(options: list[Any]) -> object:
    """The first option that does not refer elsewhere, so that recursion ends; else the first."""
    plain = [option for option in options if isinstance(option, Mapping) and "$ref" not in option]
    real = [option for option in plain if option.get("type") != "null"]
    return (real or plain or options)[0]


def _merged(schema: Schema, parts: list[Schema]) -> dict[str, Any]:
    """`allOf` of objects as one object schema."""
    merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
    for part in parts:
        for name, value in part.items():
            if name == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif name == "required":
                merged["required"] = [*merged.get("required", ()), *value]
            else:
                merged[name] = value
    return merged
