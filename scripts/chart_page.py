"""Prints deploy/helm/README.md: README.head.md, then a table of values.yaml (defaults, comments) and its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent.parent / "deploy" / "helm"

HEAD = """
## Values

| value | default | kind | meaning |
|---|---|---|---|"""

PARTS = """
### `{path}`

| key | kind | meaning |
|---|---|---|"""


def page() -> str:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines = [(CHART / "README.head.md").read_text() + HEAD]
    lines += [
        f"| `{'.'.join(path)}` | {default} | {kind(at(schema, path), schema)} | {meaning} |"
        for path, default, meaning in values_of(text)
    ]
    for path in (("gpus",), ("models",)):
        entry = at(schema, path)["additionalProperties"]
        lines += [PARTS.format(path=f"{path[0]}.ID"), *keys_of(entry, schema)]
    return "\n".join(lines)


def values_of(text: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Each value with its default as written and the comment above it; block mappings are gone into."""
    source = text.splitlines()

    def walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
        for key, value in node.value:
            here = (*path, key.value)
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from walk(value, here)
            else:
                written = text[value.start_mark.index : value.end_mark.index] if value.value != "" else ""
                default = " ".join(written.split())
                yield here, f"`{default}`" if default else "–", comment_above(source, key.start_mark.line)

    yield from walk(yaml.compose(text, Loader=yaml.SafeLoader), ())


def comment_above(source: list[str], line: int) -> str:
    first = line
    while first and source[first - 1].lstrip().startswith("# "):
        first -= 1
    return " ".join(text.strip().removeprefix("# ") for text in source[first:line]).replace("|", "\\|")


def at(schema: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    part: Mapping[str, Any] = schema
    for key in path:
        part = resolved(part, schema)["properties"][key]
    return resolved(part, schema)


def resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    part = part["allOf"][0] if "allOf" in part else part
    name = part.get("$ref")
    return part if name is None else schema["definitions"][name.rpartition("/")[2]]


def kind(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """In words: what may stand there."""
    if "enum" in part:
        return " or ".join(f"`{choice}`" for choice in part["enum"])
    what = part["type"]
    if what == "array":
        return f"list of {kind(resolved(part['items'], schema), schema)}s"
    words = {"boolean": "true or false", "object": "mapping", "string": "text", "integer": "whole number"}[what]
    bounds = [f"{part[end]:,}" for end in ("minimum", "maximum") if end in part]
    return f"{words}, {'–'.join(bounds)}" if bounds else words


def keys_of(entry: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, part in entry["properties"].items():
        found = resolved(part, schema)
        needed = ", needed" if key in entry.get("required", ()) else ""
        yield f"| `{prefix}{key}` | {kind(found, schema)}{needed} | {part['description']} |"
        if key == "scaling":
            yield from keys_of(found, schema, f"{prefix}{key}.")


if __name__ == "__main__":
    print(page())  # noqa: T201
