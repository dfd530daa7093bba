"""The log: structured lines on standard error, JSON in a pipe, colour on a terminal. Never a key, never a prompt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import msgspec
import structlog


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Structured lines on standard error: JSON in a pipe, colour on a terminal."""
    out = stream or sys.stderr
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if out.isatty():
        plain = structlog.dev.plain_traceback
        renderer: list[Any] = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    else:
        # Never the frames' locals: they hold prompts and keys.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )


def _to_json(event: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def flush_log() -> None:
    """Push out lines that wait in the stream's buffer."""
    with suppress(OSError, ValueError):  # a closed or full pipe must not end the gateway
        sys.stderr.flush()


def call_logger(level: str, stream: TextIO | None = None) -> Callable[[dict[str, Any]], None]:
    """Writes one call's facts as a line of the log.

    Into a pipe it writes JSON itself, because the general logger costs a tenth of all that a call costs, and leaves
    flushing to `flush_log`.
    """
    out = stream or sys.stderr
    if logging.getLevelNamesMapping()[level] > logging.INFO:
        return lambda facts: None
    if out.isatty():
        log = structlog.get_logger("simsa")
        return lambda facts: log.info(**{name: value for name, value in facts.items() if name != "timestamp"})
    encode = msgspec.json.Encoder().encode
    raw = out.buffer

    def write(facts: dict[str, Any]) -> None:
        raw.write(encode(facts) + b"\n")

    return write
