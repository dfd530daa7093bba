"""An answer's Markdown as HTML that is safe by construction: every tag is written here, every text is escaped.

Links, images and raw HTML come out as text, formulas as MathML. A redacted answer in, a fragment out, or what a reader
sees of each block; how the fragment stands on a page belongs in the templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape, unescape
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_CHARACTERS = 40_000
"""A longer answer is shown as it was written."""
MAX_FORMULA_CHARACTERS = 2_000
MAX_FORMULAS = 200
"""In one answer; those behind it are shown as they were written."""
MAX_FORMULA_CHARACTERS_IN_ALL = 12_000
"""In one answer, likewise."""
MAX_TABLE_CELLS, MAX_LINKS, MAX_BRACKETS = 2_000, 500, 4_000
"""An answer with more of them is shown as it was written: the parser's work grows with their square."""
MAX_HTML_CHARACTERS = 500_000
"""An answer whose HTML is longer is shown as it was written."""
MAX_NESTING = 20
"""Levels of blocks; the parser drops what lies deeper, so an answer that goes as far is shown as it was written."""
_FIRST_HEADING = 3
"""Above it stand the page's own: h1 the item, h2 the side."""
_MATH = "http://www.w3.org/1998/Math/MathML"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = {
    "paragraph": "p",
    "blockquote": "blockquote",
    "bullet_list": "ul",
    "list_item": "li",
    "em": "em",
    "strong": "strong",
    "s": "s",
    "table": "table",
    "thead": "thead",
    "tbody": "tbody",
    "tr": "tr",
}
"""Tokens that open and close an element without attributes."""
_RULER = re.compile(r":?-+:?")
_TAG = re.compile(r"<[^>]*>")
_ALIGNED = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
_MATH_TAGS = _names(
    "math mrow mi mn mo mtext mspace msup msub msubsup munder mover munderover mfrac msqrt mroot mtable mtr mtd mstyle "
    "mpadded mphantom menclose mmultiscripts mprescripts none"
)
_MATH_ATTRIBUTES = _names(
    "display displaystyle scriptlevel stretchy fence form separator accent accentunder lspace rspace width height "
    "depth minsize maxsize movablelimits linethickness columnalign rowspacing columnspacing columnlines rowlines "
    "mathvariant notation"
)
_OTHERS = _names("ol th td pre code br hr h3 h4 h5 h6 div")
TAGS = frozenset({*_BLOCKS.values(), *_MATH_TAGS, *_OTHERS})
"""Every tag that can come out; `div` is around a table, which is scrolled by keyboard where it is too wide."""
ATTRIBUTES = frozenset({*_MATH_ATTRIBUTES, "class", "start", "tabindex"})
"""Every attribute that can."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading, table cell or formula as it is seen."""

    first_line: int
    end_line: int
    """Its lines in the source, `end_line` not among them; lines end with a line feed."""
    text: str


def render_markdown(text: str) -> str:
    """The HTML fragment of an answer. Headings go on from h3 without gaps; what cannot be read is shown as it is."""
    return render_plain(text) if len(text) > MAX_CHARACTERS else _rendered(text)


@lru_cache(maxsize=64)
def _rendered(text: str) -> str:
    """The cache holds at most 64 texts of MAX_CHARACTERS and their HTML of MAX_HTML_CHARACTERS."""
    try:
        tokens = _tokens(text)
        html = None if tokens is None else _Writer(tokens).write()
    except RecursionError:
        html = None
    return render_plain(text) if html is None else html


def seen_blocks(text: str) -> list[Block]:
    """What a reader sees of each block that `render_markdown` does not show as it was written; blocks of code are."""
    if len(text) > MAX_CHARACTERS:
        return []
    try:
        tokens = _tokens(text)
        return [] if tokens is None else list(_Writer(tokens).seen())
    except RecursionError:
        return []


def _tokens(text: str) -> list[Token] | None:
    """The parsed text; None where it is to be shown as it was written."""
    visible = _visible(text)
    if visible.count("](") > MAX_LINKS or visible.count("[") > MAX_BRACKETS or _cells_in(visible) > MAX_TABLE_CELLS:
        return None
    tokens = _parser().parse(visible)
    return None if any(token.level >= MAX_NESTING - 1 for token in tokens) else tokens


def _cells_in(text: str) -> int:
    """The cells of all tables, rows filled up to their heads' width as the parser does; never too few."""
    cells = columns = 0
    for line in text.split("\n"):
        inner = line.strip(" \t>*+0123456789.)")
        parts = [part.strip() for part in inner.strip("|").split("|")]
        if "-" in inner and all(_RULER.fullmatch(part) for part in parts):
            columns = max(columns, len(parts))
            cells += columns
        elif inner:
            cells += columns
        else:
            columns = 0
    return cells


def render_plain(text: str) -> str:
    """The text as it was written, with its lines and spaces."""
    return f'<pre class="plain">{escape(_visible(text))}</pre>'


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    parser.disable("reference")
    return parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)


def _visible(text: str) -> str:
    """`text` without what HTML cannot hold: NUL, other controls, lone surrogates."""
    return "".join(c if c in "\n\t" or _is_writable(ord(c)) else "\ufffd" for c in text.replace("\r\n", "\n"))


def _is_writable(code: int) -> bool:
    return not (code < 0x20 or 0x7F <= code <= 0x9F or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF))


class _Writer:
    """Writes an answer's tokens as HTML. It knows what stood before: how deep the headings go, how many formulas."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._formulas = self._formula_characters = 0
        self._outline: list[int] = []
        """The answer's own levels of the headings that the text stands under."""

    def write(self) -> str | None:
        """The whole HTML; None where it grows too long."""
        pieces: list[str] = []
        length = 0
        for piece in self._pieces(self._tokens):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_HTML_CHARACTERS:
                return None
        return "".join(pieces)

    def seen(self) -> Iterator[Block]:
        """The text of each block with words or a formula in it."""
        for token in self._tokens:
            if token.map and (token.type == "inline" or token.type.startswith("math_")):
                html = "".join(self._pieces([token])).replace("<br>", "\n")
                yield Block(token.map[0], token.map[1], unescape(_TAG.sub("", html)))

    def _pieces(self, tokens: Sequence[Token]) -> Iterator[str]:
        for token in tokens:
            if token.hidden:
                continue
            if token.type == "inline":
                yield from self._pieces(token.children or ())
            elif token.type == "heading_open":
                own = int(token.tag[1:])
                self._outline = [*(level for level in self._outline if level < own), own]
                yield f"<h{self._heading_level()}>"
            elif token.type == "heading_close":
                yield f"</h{self._heading_level()}>"
            elif token.type == "image":
                yield escape(f"[{token.content}]")
            elif token.type.startswith("math_"):
                yield self._formula(token)
            else:
                yield _markup(token)

    def _heading_level(self) -> int:
        return min(6, _FIRST_HEADING - 1 + len(self._outline))

    def _formula(self, token: Token) -> str:
        is_block = token.type != "math_inline"
        self._formulas += 1
        self._formula_characters += len(token.content)
        is_set = self._formulas <= MAX_FORMULAS and self._formula_characters <= MAX_FORMULA_CHARACTERS_IN_ALL
        written = _mathml(token.content.strip(), is_block=is_block) if is_set else None
        source = f"{token.markup or '$'}{token.content}{token.markup or '$'}"
        return written if written is not None else f"<code>{escape(source)}</code>"


def _markup(token: Token) -> str:
    """One token that is neither a formula nor a picture, as its tag or its text."""
    kind, _, end = token.type.rpartition("_")
    if kind in _BLOCKS:
        wrapped = kind == "table"
        if end == "open":
            return ('<div class="wide" tabindex="0">' if wrapped else "") + f"<{_BLOCKS[kind]}>"
        return f"</{_BLOCKS[kind]}>" + ("</div>" if wrapped else "")
    match token.type:
        case "text":
            return escape(token.content)
        case "softbreak":
            return "\n"
        case "hardbreak":
            return "<br>"
        case "hr":
            return "<hr>"
        case "code_inline":
            return f"<code>{escape(token.content)}</code>"
        case "fence" | "code_block":
            return f"<pre><code>{escape(token.content)}</code></pre>"
        case "ordered_list_open":
            start = token.attrGet("start")
            return "<ol>" if start is None else f'<ol start="{int(start)}">'
        case "ordered_list_close":
            return "</ol>"
        case "th_open" | "td_open":
            align = _ALIGNED.get(str(token.attrGet("style")))
            return f"<{kind}>" if align is None else f'<{kind} class="{align}">'
        case "th_close" | "td_close":
            return f"</{kind}>"
        case "link_open" | "link_close":
            return ""
        case _:
            return escape(token.content)


def _mathml(source: str, *, is_block: bool) -> str | None:
    """A formula as MathML, None where it cannot be set."""
    if not source or len(source) > MAX_FORMULA_CHARACTERS:
        return None
    try:
        return _math_element(convert_to_element(source, display="block" if is_block else "inline"), MAX_NESTING * 4)
    except Exception:  # noqa: BLE001  the converter fails in as many ways as there are formulas
        return None


def _math_element(element: Element, depth: int) -> str:
    """The element with what is allowed of it. Raises ValueError for what may not stand in an answer."""
    tag = element.tag.rpartition("}")[2]
    if depth == 0 or tag not in _MATH_TAGS:
        raise ValueError(tag)
    kept = {name: value for name, value in element.attrib.items() if name in _MATH_ATTRIBUTES and ":" not in value}
    attributes = "".join(f' {name}="{escape(_visible(value))}"' for name, value in kept.items())
    inner = _math_text(element.text)
    inner += "".join(_math_element(child, depth - 1) + _math_text(child.tail) for child in element)
    return f"<{tag}{attributes}>{inner}</{tag}>"


def _math_text(text: str | None) -> str:
    """The converter writes signs as character references, in texts that are not escaped."""
    return escape(_visible(unescape(text or "")))
