"""HTML and SVG written as values: elements in, text out, with everything escaped that comes from outside.

A page that a program writes once and sends as a file needs no template language. Only `Css` is taken as it is, and it
comes from our own source. What a page says does not belong here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

VOID = frozenset({"meta", "br", "hr", "col"})
"""Elements of HTML without an end tag."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9:-]*")
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class Css:
    """A style sheet of our own, the one text that is not escaped."""

    text: str

    def __post_init__(self) -> None:
        if "<" in self.text:
            raise ValueError("a style sheet holds '<', which could end its element")


@dataclass(frozen=True, slots=True)
class Element:
    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Node, ...] = ()


Node = Element | Css | str
Attribute = str | int | float | bool | None


def element(name: str, attributes: Mapping[str, Attribute] | None = None, *children: Node | None) -> Element:
    """An element; an attribute that is None or False is left out, True is one without a value, a child None too.

    Raises ValueError for a name that is none: names come from the source, so that is a defect.
    """
    kept = {key: _value(value) for key, value in (attributes or {}).items() if value is not None and value is not False}
    for part in (name, *kept):
        if not _NAME.fullmatch(part):
            raise ValueError(f"markup: '{part}' is no name of an element or attribute")
    return Element(name, kept, tuple(child for child in children if child is not None))


def document(language: str, head: Iterable[Node], body: Iterable[Node]) -> str:
    """A whole HTML page."""
    root = element("html", {"lang": language}, element("head", {}, *head), element("body", {}, *body))
    return "<!DOCTYPE html>\n" + render(root) + "\n"


def render(node: Node) -> str:
    return "".join(_pieces(node))


def _pieces(node: Node) -> Iterator[str]:
    match node:
        case str():
            yield escape(_writable(node))
        case Css():
            yield node.text
        case Element():
            attributes = "".join(f' {key}="{escape(_writable(value))}"' for key, value in node.attributes.items())
            yield f"<{node.name}{attributes}>"
            for child in node.children:
                yield from _pieces(child)
            if node.name not in VOID:
                yield f"</{node.name}>"


def _value(value: Attribute) -> str:
    if value is True:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _writable(text: str) -> str:
    """`text` with a replacement sign for what HTML cannot hold: control characters and lone surrogates."""
    return "".join(c if c in "\n\t" or not _is_unwritable(ord(c)) else "\ufffd" for c in text)


def _is_unwritable(code: int) -> bool:
    return code < 0x20 or 0x7F <= code <= 0x9F or code in _SURROGATES or code in (0xFFFE, 0xFFFF)
