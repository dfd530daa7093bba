"""The error bodies that engines send, in whatever shape, as words and as identifiers that may be kept.

What an error means for a caller is not decided here.
"""

from __future__ import annotations

import re
from typing import Any

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z_]{0,39}|\d{3}")


def error_text(body: dict[str, Any]) -> str:
    """The message of an engine's error body, in any of the shapes that engines use."""
    error = body.get("error", body)
    if isinstance(error, dict):
        text = error.get("message") or error.get("detail") or body.get("message") or body.get("detail")
        return str(text) if text else "no message given"
    return str(error)


def error_kind(body: dict[str, Any]) -> str:
    """An error's type and code in brackets, as far as they are plain identifiers and so cannot quote anybody."""
    error = body.get("error", body)
    if not isinstance(error, dict):
        return ""
    named = [str(error[key]) for key in ("type", "code") if isinstance(error.get(key), str | int)]
    plain = [name for name in named if _IDENTIFIER.fullmatch(name)]
    return f" ({', '.join(plain)})" if plain else ""
