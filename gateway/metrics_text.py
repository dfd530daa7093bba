"""Finds single series in a Prometheus text page: a name at the start of a line, its labels, its value.

A plain search instead of a parser, as a page has hundreds of lines of which a handful matter. What the figures mean
belongs to whoever reads them: `engine_reports`, `energy_reports`.
"""

from __future__ import annotations

import re

MOST_SAMPLES = 1000
"""Of one name: nobody has so many parts."""
# A label's value may hold every character; in quotes only what is escaped ends nothing. Possessive: no way back.
LABELS = rb'\{(?:[^"}\n]|"(?:[^"\\\n]|\\.)*+")*+\}'
SAMPLE = re.compile(rb"(?:" + LABELS + rb")? (\S+)")
_LABELLED = re.compile(rb"(" + LABELS + rb")? (\S+)")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_NEWLINE = ord("\n")


def found_after(name: bytes, pattern: re.Pattern[bytes], body: bytes) -> list[re.Match[bytes]]:
    """What the pattern finds right behind a name that begins a line, at most `MOST_SAMPLES`."""
    found = []
    place = body.find(name)
    for _ in range(MOST_SAMPLES):
        if place < 0:
            break
        end = place + len(name)
        match = pattern.match(body, end) if not place or body[place - 1] == _NEWLINE else None
        if match is not None:
            found.append(match)
        place = body.find(name, end)
    return found


def labelled_samples(name: bytes, body: bytes) -> list[tuple[dict[str, str], str]]:
    """(labels by name, value as it stands there) of each series of a name."""
    matches = found_after(name, _LABELLED, body)
    return [(dict(label_pairs(m[1] or b"")), m[2].decode("utf-8", "replace")) for m in matches]


def label_pairs(line: bytes) -> list[tuple[str, str]]:
    """Names and values of one line's labels, in their order."""
    return [(name, _ESCAPED.sub(_unescaped, value)) for name, value in _LABEL.findall(line.decode("utf-8", "replace"))]


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
