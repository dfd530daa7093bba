"""A lock on a file that ends with its process, however that ends: how one data directory serves one process.

What is guarded, and what a refusal should say, is for the caller to know. PostgreSQL's lock is in `postgresql`.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import StartRefused


class FileLock:
    """An exclusive hold on a file for as long as this process lives, `release` or kill -9, whichever is first."""

    def __init__(self, path: Path, *, refusal: str) -> None:
        """Raise StartRefused: with `refusal` when another process holds it, with the reason when it cannot be made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartRefused(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            held = isinstance(error, BlockingIOError)
            raise StartRefused(refusal if held else f"{path} cannot be locked: {error.strerror}") from error

    def release(self) -> None:
        os.close(self._fd)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; True as well where that cannot be seen. Makes no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
