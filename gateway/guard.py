"""Stands between a parent and one command, so that the command cannot outlive the parent.

Run by path (`python -I -S guard.py LIFELINE COMMAND…`), hence standard library only and no import of ours. LIFELINE
is the read end of a pipe whose write end only the parent holds: a line on it, a number of seconds, says "stop within
that time"; its end, which also comes when the parent is killed, says "stop, nobody is waiting". Stopping is SIGTERM
to the command, then SIGKILL to its whole process group. Works on Linux and macOS; where the guard itself is killed,
only Linux takes the command (not what it started) along.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

ORPHAN_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL when the parent is gone or the guard itself is told to end."""

_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WATCHED = (*_STOP_SIGNALS, signal.SIGCHLD)


def main(arguments: list[str]) -> int:
    """Run the command to its end. Returns its exit code, 128 + n where signal n ended it."""
    lifeline = int(arguments[0])
    os.set_inheritable(lifeline, False)
    # Blocked until the handlers stand: a signal in between must reach either nobody or both.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    guard = os.getpid()
    command = os.fork()
    if command == 0:
        _become(arguments[1:], guard)
    with contextlib.suppress(OSError):  # said here too: whichever of the two comes first
        os.setpgid(command, command)
    signals = _signal_pipe()
    status = _supervise(command, lifeline, signals)
    _kill_group(command)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: list[str], guard: int) -> None:
    """In the fork: turn into the command, leader of a process group of its own. Never returns."""
    try:
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # died before the kernel knew that it matters
                os._exit(127)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would pass that on
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _signal_pipe() -> int:
    """A descriptor that turns readable, with the signals' numbers, when a watched signal comes."""
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    for number in _WATCHED:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    return signals


def _supervise(command: int, lifeline: int, signals: int) -> int:
    """Wait for the command, stopping it when told to. Returns its wait status."""
    sources = [lifeline, signals]
    deadline: float | None = None
    while True:
        done, status = os.waitpid(command, os.WNOHANG)
        if done:
            return status
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(sources, [], [], timeout)
        if not ready:
            _kill_group(command)
            deadline = None
            continue
        grace_s = None
        if lifeline in ready:
            order = os.read(lifeline, 64)
            grace_s = float(order.split()[-1]) if order else ORPHAN_GRACE_S
            if not order:
                sources.remove(lifeline)
        if signals in ready and set(os.read(signals, 64)) & set(_STOP_SIGNALS):
            grace_s = ORPHAN_GRACE_S
        if grace_s is not None:
            os.kill(command, signal.SIGTERM)
            deadline = time.monotonic() + grace_s


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: macOS, a group of zombies
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
