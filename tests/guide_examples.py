"""The blocks of a guide as a reader would take them: found, run as processes of their own, compared with what is shown.

Python runs in copies of one process that has imported the clients, because importing them costs a hundred times what an
example does. What an example may not do, whatever it runs, is turn to another machine than this one. The gateway that
they call is not made here.
"""

from __future__ import annotations

import ast
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, Self

from guards import HANG_S

WENT_OUT = 97
"""Exit code of an example that turned to another machine."""
_BLOCK = re.compile(r"^(?:#+ (?P<heading>[^\n]+)|```(?P<language>\w+)\n(?P<code>.*?)^```)$", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (\w+)=", re.MULTILINE)
_PROSE = re.compile(r"[가-힣]|\w \w")


@dataclass(frozen=True)
class Example:
    """A block to run, and the block after it where that shows what it prints."""

    heading: str
    line: int
    language: str
    code: str
    shown: str | None
    shown_language: str | None


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def examples_of(page: str) -> list[Example]:
    """Every block of Python and shell in a page of Markdown, in order."""
    blocks: list[tuple[str, int, str, str]] = []
    heading = ""
    for found in _BLOCK.finditer(page):
        heading = found["heading"] or heading
        if found["language"]:
            line = page.count("\n", 0, found.start()) + 2
            blocks.append((heading, line, found["language"], found["code"]))
    following = [(code, language) for *_, language, code in [*blocks[1:], ("", 0, "", "")]][: len(blocks)]
    return [
        Example(heading, line, language, code, *(after if after[1] in ("text", "json") else (None, None)))
        for (heading, line, language, code), after in zip(blocks, following, strict=True)
        if language in ("python", "bash")
    ]


def variables_of(page: str) -> list[str]:
    """The environment that the page tells its readers to set."""
    return _EXPORT.findall(page)


# --- the same in both languages -------------------------------------------------------------------------------


def without_words(example: Example) -> str:
    """The code with comments and whatever is said in a human language left out."""
    if example.language == "python":
        return ast.dump(_Wordless().visit(ast.parse(example.code)))
    code = re.sub(r"(^| +)#.*$", "", example.code, flags=re.MULTILINE)
    return re.sub(r'"([^"\n]*)"', lambda text: '"…"' if _PROSE.search(text[1]) else text[0], code)


class _Wordless(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        is_prose = isinstance(node.value, str) and _PROSE.search(node.value)
        return ast.Constant("…") if is_prose else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        """Of text with values in it, the values: each language has its own order of words around them."""
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return ast.JoinedStr(sorted(values, key=ast.dump))


# --- what is shown --------------------------------------------------------------------------------------------


def differs_from_shown(printed: str, shown: str, language: str) -> str | None:
    """In what the output is not of the form shown; None where it is.

    Text: every number stands for any number, … for anything. JSON: every member shown is there, with the same type.
    """
    if language == "json":
        try:
            return _other_shape(json.loads(printed), json.loads(shown), "$")
        except ValueError as error:
            return f"no JSON: {error}"
    pattern = re.sub(r"\d+(?:\\\.\d+)?", r"\\d+(?:\\.\\d+)?", re.escape(shown)).replace("…", "(?s:.*)")
    return None if re.fullmatch(pattern, printed) else "not of the form shown"


def _other_shape(value: Any, shown: Any, where: str) -> str | None:
    if type(value) is not type(shown):
        return f"{where} is {value!r}, shown is {shown!r}"
    if isinstance(shown, dict):
        missing = shown.keys() - value.keys()
        if missing:
            return f"{where} has no {', '.join(sorted(missing))}"
        problems = (_other_shape(value[name], shown[name], f"{where}.{name}") for name in shown)
        return next(filter(None, problems), None)
    if isinstance(shown, list) and shown:
        return _other_shape(value[0], shown[0], f"{where}[0]") if value else f"{where} is empty"
    return None


# --- running --------------------------------------------------------------------------------------------------


def run_shell(code: str, environment: Mapping[str, str], directory: Path) -> Ended:
    """Run a block of shell in a directory, with this environment and the path to programs."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


_NURSERY = f"""
import gc, json, os, sys
import openai, openai.resources.chat, openai.lib.streaming.chat
import langchain_openai

def stay_here(event, arguments):
    host = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        os.write(2, f"the example turned to {{host}}\\n".encode())
        os._exit({WENT_OUT})

gc.freeze()  # what is imported is left alone when an example ends, which takes most of a second otherwise
sys.addaudithook(stay_here)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in enumerate((os.devnull, order["out"], order["err"])):
            os.dup2(os.open(path, os.O_RDWR), number)
        os.chdir(order["directory"])
        os.environ.clear()
        os.environ.update(order["environment"])
        exec(compile(order["code"], order["name"], "exec"), {{"__name__": "__main__"}})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class PythonNursery:
    """`with PythonNursery() as python: python.run(…)`: each run is a new process with the clients imported."""

    def __enter__(self) -> Self:
        bare = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY], stdin=PIPE, stdout=PIPE, env=bare, process_group=0
        )
        return self

    def run(self, code: str, environment: Mapping[str, str], directory: Path, *, name: str) -> Ended:
        """Run a program called `name` to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
            order = {"code": code, "name": name, "environment": dict(environment), "directory": str(directory)}
            order |= {"out": out.name, "err": err.name}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], HANG_S)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise TimeoutError(f"{name} did not end: {err.read().decode()}")
            code_of_end = int(self._process.stdout.readline())
            return Ended(code_of_end, out.read().decode(), err.read().decode())

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def numbered(examples: list[Example]) -> Iterator[tuple[str, Example]]:
    """Each with a name that stays the same while the words around it change."""
    for number, example in enumerate(examples, 1):
        yield f"{number:02}-{example.language}", example
