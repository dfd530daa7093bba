"""The log: structured lines on standard error, JSON in a pipe, colour on a terminal. Never a key, never a prompt.

Every line leaves through one `LogStream`, which neither raises nor waits: a log that cannot be written costs lines,
which are counted, and never a call. What deserves a line is not known here.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any, TextIO, cast

import msgspec
import structlog

STDERR = 2
FLUSH_AT_BYTES = 8 * 1024
"""So much is collected before it is written without anybody asking."""
KEPT_BYTES = 1024 * 1024
"""So much is kept for a reader that does not read; what comes on top is lost."""
LAST_WAIT_S = 1.0
"""How long the end of the process waits for such a reader."""


class LogStream:
    """Lines for a file descriptor that may be full, stalled, broken or closed.

    Lines wait in memory for `flush`. One that meets an error is dropped and counted in `lost`; the next is tried
    again, so that lines flow once there is room on the disk or a pipe has a reader. A pipe that is only full keeps
    its lines up to `kept_bytes`.
    """

    def __init__(self, fd: int | None, *, kept_bytes: int = KEPT_BYTES) -> None:
        """`fd` None: there is nowhere to write to, every line is lost."""
        self.lost = 0
        """Lines that were not written, or not to their end."""
        self._fd = fd
        self._kept_bytes = kept_bytes
        self._waiting = bytearray()
        self._is_inside_line = False
        """The last byte written was not the end of a line."""
        self._is_cut = False
        """The rest of the line that was begun is lost."""
        self._flushing = Lock()
        self._room = select.poll()
        if fd is not None:
            self._room.register(fd, select.POLLOUT)

    @property
    def waiting_bytes(self) -> int:
        return len(self._waiting)

    def write_line(self, line: bytes) -> None:
        """Take a line, its end included."""
        self._waiting += line
        if len(self._waiting) >= FLUSH_AT_BYTES:
            self.flush()

    def write(self, text: str) -> int:
        """The same for text, as a file would take it."""
        self.write_line(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self, wait_s: float = 0.0) -> None:
        """Write what waits, as far as that goes at once, or within `wait_s`."""
        if not self._flushing.acquire(blocking=False):
            return  # a thread, or the code that a signal interrupted, is at it
        try:
            self._write_out(time.monotonic() + wait_s if wait_s else 0.0)
            if len(self._waiting) > self._kept_bytes:
                self._drop_from(self._waiting.rfind(b"\n", 0, self._kept_bytes) + 1)
        except (OSError, ValueError):
            self._drop_from(0)
        finally:
            self._flushing.release()

    def isatty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def _write_out(self, deadline_s: float) -> None:
        """Raises OSError when the descriptor refuses; returns early when it would have to wait."""
        waiting = self._waiting
        if self._fd is None:
            self._drop_from(0)
        while waiting and self._fd is not None:
            wait_ms = max(0.0, deadline_s - time.monotonic()) * 1000 if deadline_s else 0
            if not self._room.poll(wait_ms):
                return
            # A pipe with room takes this much at once even where others would have to wait; whole lines if they fit.
            end = waiting.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
            try:
                if self._is_cut:
                    os.write(self._fd, b"\n")
                    self._is_cut = self._is_inside_line = False
                    continue
                written = os.write(self._fd, bytes(waiting[:end]))
            except BlockingIOError:
                return
            self._is_inside_line = waiting[written - 1] != ord("\n")
            del waiting[:written]

    def _drop_from(self, start: int) -> None:
        self.lost += self._waiting.count(b"\n", start)
        del self._waiting[start:]
        if start == 0 and self._is_inside_line:
            self._is_cut = True


def own_terminal(fd: int) -> int:
    """A descriptor of our own for a terminal, which never waits: `fd` itself may, although it says that it has room."""
    if not os.isatty(fd):
        return fd
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # e.g. a terminal of another user, before sudo
        return fd


@cache
def log_stream() -> LogStream:
    """The log of this process, on standard error."""
    if sys.__stderr__ is not None:
        return LogStream(own_terminal(STDERR))
    # Closed before the start. The next file to be opened must not get its number: libraries would print into it.
    try:
        os.fstat(STDERR)
    except OSError:
        _point_at_nothing(STDERR)
    return LogStream(None)


def configure_logging(level: str, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Structured lines into the log, or into `stream`: JSON in a pipe, colour on a terminal.

    `worker`: the number of this process among several that write into one log; each line says it.
    """
    out = stream or cast("TextIO", log_stream())
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.append(lambda _logger, _method, line: {**line, "worker": worker})
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


def take_library_lines() -> None:
    """Let what libraries tell `logging` become lines of our log; by itself it goes around it, to standard error."""
    logging.getLogger().addHandler(_LibraryLines())


class _LibraryLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        try:
            tell(record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - the contract of handlers: whoever logs must not suffer
            self.handleError(record)


def flush_log() -> None:
    """Push out lines that wait."""
    log_stream().flush()


def close_log() -> None:
    """The last lines of a process; a slow reader gets a moment for them."""
    log_stream().flush(LAST_WAIT_S)
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):  # the interpreter would try once more, fail, and make the exit code 120
        _point_at_nothing(STDERR)


def call_logger(level: str) -> Callable[[dict[str, Any]], None]:
    """Writes one call's facts as a line of the log.

    Into a pipe it writes JSON itself, because the general logger costs a tenth of all that a call costs, and leaves
    flushing to `flush_log`.
    """
    out = log_stream()
    if logging.getLevelNamesMapping()[level] > logging.INFO:
        return lambda facts: None
    if out.isatty():
        log = structlog.get_logger("simsa")
        return lambda facts: log.info(**{name: value for name, value in facts.items() if name != "timestamp"})
    encode = msgspec.json.Encoder().encode
    write_line = out.write_line

    def write(facts: dict[str, Any]) -> None:
        try:
            line = encode(facts)
        except UnicodeEncodeError:
            line = _to_json(facts).encode()
        write_line(line + b"\n")

    return write


def _to_json(event: dict[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except Exception:  # noqa: BLE001 - half of a surrogate pair, a key that is no text: a line is told all the same
        return json.dumps({str(name): value for name, value in event.items()}, default=repr)


def _point_at_nothing(fd: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != fd:
        os.dup2(nothing, fd)
        os.close(nothing)
