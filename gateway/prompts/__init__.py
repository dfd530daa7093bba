"""The fixed prompt set that ships with the project, and the reader of a user's own prompt file.

`core.jsonl` holds Korean and English prompts of our own writing, one JSON object a line: eight industries, ten kinds
of task, half in each language, none a translation of another. A changed prompt means a new set name, so that results
over "core-1" stay comparable. Sending prompts and judging answers do not belong here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

CORE_SET = "core-1"
DEFAULT_MAX_TOKENS = 512
"""Tokens asked for where a user's line does not say."""
MOST_TOKENS = 1_000_000
LONGEST_ID = 128


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. `language` ("ko", "en"), `industry` and `task` are None where a user's file does not say."""

    id: str
    language: str | None
    industry: str | None
    task: str | None
    text: str
    max_tokens: int


class PromptsInvalid(Exception):
    """A prompt file cannot be used; `problems` has one line for each bad line of the file."""

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: {len(problems)} problem(s)\n" + "\n".join(problems))
        self.path = path
        self.problems = problems


def load_prompts(*, language: str | None = None, industry: str | None = None) -> tuple[Prompt, ...]:
    """The shipped prompts in their fixed order, only those of `language` and `industry` where given.

    Raises ValueError, naming what there is, when the set has no such language or industry.
    """
    name = "core.jsonl"
    prompts = parse_prompts(files(__name__).joinpath(name).read_bytes(), name=name)
    _require("language", language, {p.language for p in prompts if p.language})
    _require("industry", industry, {p.industry for p in prompts if p.industry})
    return tuple(p for p in prompts if language in (None, p.language) and industry in (None, p.industry))


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """A user's JSONL file. Only `text` is required; an absent `id` becomes "line-N".

    Raises PromptsInvalid with every bad line at once, also when the file cannot be read or holds no prompt.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PromptsInvalid(str(path), [f"{path}: cannot be read: {error.strerror or error}"]) from error
    return parse_prompts(content, name=str(path))


def parse_prompts(content: bytes, *, name: str) -> tuple[Prompt, ...]:
    """The prompts in the bytes of a JSONL file; `name` stands in front of every complaint. Blank lines are skipped."""
    prompts: list[Prompt] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in _numbered_lines(content):
        try:
            prompt = _parse_line(line, default_id=f"line-{number}")
            if prompt.id in first_line:
                raise ValueError(
                    f"id: {prompt.id!r} is already used in line {first_line[prompt.id]}; expected one of its own"
                )
        except ValueError as error:
            problems.append(f"{name}: line {number}: {error}")
        else:
            first_line[prompt.id] = number
            prompts.append(prompt)
    if not prompts and not problems:
        problems.append(f'{name}: has no prompts; expected one JSON object a line, such as {{"text": "..."}}')
    if problems:
        raise PromptsInvalid(name, problems)
    return tuple(prompts)


def _require(what: str, wanted: str | None, known: set[str]) -> None:
    if wanted is not None and wanted not in known:
        raise ValueError(f"{what}: expected one of {', '.join(sorted(known))}; got {wanted!r}")


def _numbered_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, counted from 1; LF or CRLF, with or without a byte order mark."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _parse_line(line: bytes, *, default_id: str) -> Prompt:
    """One prompt, or a ValueError that names every fault of the line."""
    fields = _parse_object(line)
    faults = [_unknown(key) for key in fields if key not in _FIELDS]
    faults += [f"{key}: expected {_FIELDS[key].expected}" for key in fields if _is_wrong(fields, key)]
    if "text" not in fields:
        faults.append("text: missing; expected the prompt itself")
    if faults:
        raise ValueError("; ".join(faults))
    return Prompt(
        id=str(fields.get("id", default_id)),
        language=_text_or_none(fields.get("language")),
        industry=_text_or_none(fields.get("industry")),
        task=_text_or_none(fields.get("task")),
        text=str(fields["text"]),
        max_tokens=int(str(fields.get("max_tokens", DEFAULT_MAX_TOKENS))),
    )


def _parse_object(line: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(
            line.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_int=_parse_whole_number
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start + 1}; expected a file saved as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}; expected one object a line") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply; expected one flat object") from error
    if not isinstance(value, dict):
        raise ValueError(f'expected an object such as {{"text": "..."}}, got {type(value).__name__}')
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands twice; expected each field once")
    return fields


def _parse_whole_number(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"has a number of {len(digits)} digits; expected none above {MOST_TOKENS:,}")
    return int(digits)


@dataclass(frozen=True, slots=True)
class _Field:
    expected: str
    accepts: Callable[[object], bool]


def _is_text(value: object) -> bool:
    """A string with something in it that can be sent as UTF-8 (a lone surrogate cannot)."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= c <= "\udfff" for c in value)


_WORD = _Field("a word or null", lambda value: value is None or _is_text(value))
_FIELDS = {
    "set": _WORD,
    "id": _Field(
        f"a string of 1 to {LONGEST_ID} printable characters",
        lambda value: _is_text(value) and len(str(value)) <= LONGEST_ID and str(value).isprintable(),
    ),
    "language": _Field(
        'a language code such as "ko" or "en"',
        lambda value: value is None or (isinstance(value, str) and value.isascii() and value.isalpha()),
    ),
    "industry": _WORD,
    "task": _WORD,
    "text": _Field("a string that is not empty", _is_text),
    "max_tokens": _Field(
        f"a whole number from 1 to {MOST_TOKENS:,}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_TOKENS,
    ),
}


def _is_wrong(fields: dict[str, object], key: str) -> bool:
    return key in _FIELDS and not _FIELDS[key].accepts(fields[key])


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, _FIELDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(_FIELDS)}"
    return f"{_shown(key)}: unknown field; {hint}"


def _shown(key: str) -> str:
    """A foreign field name as one printable line of bearable length."""
    return repr(key if len(key) <= 40 else key[:40] + "…")


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
