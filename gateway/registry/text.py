"""YAML bytes in, plain values out, with the line of every entry and one sentence for every complaint.

PyYAML keeps the last of two equal keys in silence, reads `on:` as a boolean and expands aliases without end; here
duplicates are refused with their line, keys are always text, and a document has a budget. What the values mean is
not known here: that is `schema`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 8 * 1024 * 1024
MAX_NODES = 100_000
"""Values in the document, each alias counted as often as it is used: what stops an alias bomb."""
MAX_DEPTH = 32

Loc = tuple[str | int, ...]
"""Where a value stands: mapping keys and list positions from the top of the document."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class Unreadable(Exception):
    """The document as a whole cannot be read; nothing further can be said about it."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(slots=True)
class Document:
    """A file's values, where they stand in the file, and every complaint about them so far."""

    path: str
    value: Any = None
    lines: dict[Loc, int] = field(default_factory=dict)
    _complaints: list[tuple[int | None, Loc, str]] = field(default_factory=list)

    def complain(self, loc: Loc, message: str, *, line: int | None = None) -> None:
        """Say what is wrong with the value at `loc` and what would be right."""
        self._complaints.append((line or self._line_of(loc), loc, message))

    def has_complaint(self, loc: Loc) -> bool:
        """Whether something is said already about the value at `loc` itself."""
        return any(place == loc for _, place, _ in self._complaints)

    def problems(self) -> list[str]:
        """One line a complaint, in the order of the file: file, entry, field, what is wrong, line in the file."""
        lines = []
        for line, loc, message in sorted(self._complaints, key=lambda complaint: complaint[0] or 0):
            place = f" {self._name_of(loc)}:" if loc else ""
            lines.append(f"{self.path}:{place} {message}" + (f" (line {line})" if line else ""))
        return lines

    def _line_of(self, loc: Loc) -> int | None:
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc) if loc else None

    def _name_of(self, loc: Loc) -> str:
        """`models[2] (my-id).price`: list entries that carry an id show it."""
        text, value = "", self.value
        for part in loc:
            word = part if isinstance(part, int) or part.isprintable() else shown(part)
            text += f"[{part}]" if isinstance(part, int) else f".{word}" if text else str(word)
            value = _child(value, part)
            name = value.get("id") if isinstance(part, int) and isinstance(value, Mapping) else None
            text += f" ({name[:80]!s})" if isinstance(name, str) and name.isprintable() else ""
        return text


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def shown(value: object) -> str:
    """How a complaint quotes a value: short, on one line, containers by name only."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value) if isinstance(value, (str, bytes)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'replicas'?`, or nothing when no known word is near."""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold()[:200], by_folded, n=1, cutoff=0.6)
    return f", did you mean {by_folded[near[0]]!r}?" if near else ""


def read_document(data: bytes, *, path: str) -> Document:
    """The values of a YAML document. Unreadable parts are complained of and left None.

    Never raises: a document that cannot be read at all has value None and one problem.
    """
    document = Document(path)
    try:
        text = _decode(data)
        _refuse_depth(text)
        loader = _LOADER(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise Unreadable("the file is empty; expected at least `models:` with one entry")
            document.value = _Builder(loader, document).build(root, (), 0)
        finally:
            loader.dispose()
    except Unreadable as error:
        document.value = None
        document.complain((), error.message, line=error.line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        document.complain((), f"not valid YAML: {error.problem}", line=mark.line + 1 if mark else None)
    except yaml.YAMLError as error:
        document.complain((), f"not valid YAML: {str(error).splitlines()[0]}")
    return document


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable(f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"expected UTF-8 text, got byte 0x{data[error.start]:02x}", line) from error


def _refuse_depth(text: str) -> None:
    """Looks before the composer leaps: libyaml's recurses without a limit, and 10^5 brackets would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            mark = event.start_mark
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels", mark.line + 1 if mark else None)


class _Builder:
    """Turns a node graph into values and spends the document's budget while it does so."""

    def __init__(self, loader: Any, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._nodes = 0

    def build(self, node: yaml.Node, loc: Loc, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unreadable(f"more than {MAX_NODES} values, aliases counted as often as they are used", line)
        if depth > MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels", line)
        self._document.lines.setdefault(loc, line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc)
        if node.tag not in _PLAIN_TAGS:
            self._document.complain(loc, f"expected plain YAML, got the tag {node.tag!r}", line=line)
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*loc, n), depth + 1) for n, item in enumerate(node.value)]
        return self._mapping(node, loc, depth)

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        line = node.start_mark.line + 1
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError):
            self._document.complain(loc, f"cannot be read as YAML: {shown(node.value)}", line=line)
            return None

    def _mapping(self, node: yaml.Node, loc: Loc, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._document.complain(loc, "expected a plain word as key", line=line)
            elif key.tag == "tag:yaml.org,2002:merge":
                message = "merging with << is not supported; write the fields out, or reuse a whole block by its anchor"
                self._document.complain(loc, message, line=line)
            elif key.value in values:
                known = first_line[key.value]
                self._document.complain((*loc, key.value), f"given twice, first on line {known}", line=line)
            else:
                first_line[key.value] = line
                self._document.lines[(*loc, key.value)] = line
                values[key.value] = None
                values[key.value] = self.build(value, (*loc, key.value), depth + 1)
        return values


def write_document(value: Mapping[str, Any], *, heading: Sequence[str] = ()) -> bytes:
    """YAML bytes that read back to the same values; `heading` becomes comment lines."""
    body = yaml.dump(value, Dumper=_NoAliases, allow_unicode=True, sort_keys=False, width=110)
    return ("".join(f"# {line}\n" for line in heading) + body).encode()


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
