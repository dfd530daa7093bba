"""The log's stream against real descriptors that are full, stalled, broken or closed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.log import FLUSH_AT_BYTES, LogStream, own_terminal

LONG = b"x" * (3 * select.PIPE_BUF) + b"\n"


def numbered(count: int, size: int = 100) -> list[bytes]:
    return [b"%0*d\n" % (size - 1, number) for number in range(count)]


def write_all(log: LogStream, lines: Sequence[bytes]) -> None:
    for line in lines:
        log.write_line(line)
    log.flush()


@contextmanager
def a_pipe(*, room: int = 65536) -> Iterator[tuple[int, int]]:
    """Read end and write end; the test may close either."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, room)
    try:
        yield ends
    finally:
        for end in ends:
            try:
                os.close(end)
            except OSError:  # the test has closed it
                continue


def drain(read_end: int) -> bytes:
    os.set_blocking(read_end, False)
    parts: list[bytes] = []
    try:
        while part := os.read(read_end, 65536):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts)


def send_to(fd: int, path: Path | str) -> None:
    """Let the descriptor point at the file from now on."""
    fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fresh, fd)
    os.close(fresh)


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.open(os.devnull, os.O_WRONLY)
    yield number
    os.close(number)


# --- the ordinary way ---------------------------------------------------------------------------------------


def test_lines_come_out_whole_and_in_order(fd: int, tmp_path: Path) -> None:
    send_to(fd, tmp_path / "log")
    log = LogStream(fd)
    lines = [*numbered(300), LONG, *numbered(3)]
    write_all(log, lines)
    assert (tmp_path / "log").read_bytes() == b"".join(lines)
    assert log.lost == 0


def test_a_line_waits_for_the_flush_and_many_do_not(fd: int, tmp_path: Path) -> None:
    send_to(fd, tmp_path / "log")
    log = LogStream(fd)
    log.write_line(b"one\n")
    assert (tmp_path / "log").read_bytes() == b""
    for line in numbered(FLUSH_AT_BYTES // 100 + 1):
        log.write_line(line)
    assert (tmp_path / "log").stat().st_size >= FLUSH_AT_BYTES


def test_text_that_no_encoding_carries_is_written_escaped(fd: int, tmp_path: Path) -> None:
    send_to(fd, tmp_path / "log")
    log = LogStream(fd)
    assert log.write("심사 \ud800\n") == 5
    log.flush()
    assert (tmp_path / "log").read_text() == "심사 \\ud800\n"


# --- errors -------------------------------------------------------------------------------------------------


def test_lines_for_a_full_disk_are_counted_and_flow_again_when_there_is_room(fd: int, tmp_path: Path) -> None:
    send_to(fd, "/dev/full")
    log = LogStream(fd)
    write_all(log, numbered(1000))
    assert log.lost == 1000
    send_to(fd, tmp_path / "log")
    write_all(log, [b"again\n"])
    assert (tmp_path / "log").read_bytes() == b"again\n"
    assert log.lost == 1000


def test_pipe_without_a_reader_costs_only_lines() -> None:
    with a_pipe() as (read_end, write_end):
        log = LogStream(write_end)
        os.close(read_end)
        write_all(log, numbered(1000))
        assert log.lost == 1000


def test_closed_descriptor_costs_only_lines() -> None:
    with a_pipe() as (_, write_end):
        log = LogStream(write_end)
        os.close(write_end)
        write_all(log, numbered(3))
        assert log.lost == 3


def test_without_a_descriptor_every_line_is_lost() -> None:
    log = LogStream(None)
    write_all(log, numbered(1000))
    log.flush(1.0)
    assert log.lost == 1000
    assert not log.isatty()


def test_line_cut_short_is_ended_before_the_next_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first_reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write_end = os.open(fifo, os.O_WRONLY)
    try:
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        log = LogStream(write_end)
        write_all(log, [LONG])
        assert os.read(first_reader, 65536) == LONG[: select.PIPE_BUF]
        os.close(first_reader)
        write_all(log, [b"nobody reads this\n"])
        assert log.lost == 2
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        write_all(log, [b"next\n"])
        assert drain(reader) == b"\n"
        log.flush()
        assert drain(reader) == b"next\n"
        os.close(reader)
        assert log.lost == 2
    finally:
        os.close(write_end)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 3 * select.PIPE_BUF), max_size=8)), max_size=8))
def test_every_line_is_either_written_or_counted(turns: list[tuple[bool, list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        path.touch()
        number = os.open(os.devnull, os.O_WRONLY)
        try:
            log = LogStream(number)
            sent: list[bytes] = []
            lost = 0
            for is_full, sizes in turns:
                send_to(number, "/dev/full" if is_full else path)
                lines = numbered(len(sizes)) if is_full else [b"x" * size + b"\n" for size in sizes]
                write_all(log, lines)
                sent += [] if is_full else lines
                lost += len(lines) if is_full else 0
        finally:
            os.close(number)
        assert path.read_bytes() == b"".join(sent)
        assert log.lost == lost


# --- a reader that does not read ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "non-blocking"])
def test_lines_wait_for_a_slow_reader_and_then_come_in_order(is_blocking: bool) -> None:
    lines = numbered(2000)
    with a_pipe(room=select.PIPE_BUF) as (read_end, write_end):
        os.set_blocking(write_end, is_blocking)
        log = LogStream(write_end)
        write_all(log, lines)
        got = b""
        while part := drain(read_end):
            got += part
            assert part.endswith(b"\n"), "a reader sees whole lines"
            log.flush()
        assert got == b"".join(lines)
        assert log.lost == 0


def test_memory_is_bounded_for_a_reader_that_never_reads() -> None:
    kept = 50_000
    lines = numbered(20_000)
    with a_pipe(room=select.PIPE_BUF) as (read_end, write_end):
        log = LogStream(write_end, kept_bytes=kept)
        write_all(log, lines)
        assert kept - 200 <= log.waiting_bytes <= kept
        log.write_line(b"y" * kept * 3 + b"\n")
        assert log.waiting_bytes <= kept
        got = b""
        while part := drain(read_end):
            got += part
            log.flush()
        assert got == b"".join(lines[: len(got) // 100]), "the oldest are kept, whole"
        assert log.lost == len(lines) + 1 - len(got) // 100
        write_all(log, [b"again\n"])
        assert drain(read_end) == b"again\n"


async def test_last_flush_waits_for_a_slow_reader_and_not_for_ever() -> None:
    lines = numbered(2000)
    with a_pipe(room=select.PIPE_BUF) as (read_end, write_end):
        log = LogStream(write_end)
        write_all(log, lines)
        reading = asyncio.create_task(asyncio.to_thread(os.read, read_end, 65536))
        flushing = asyncio.create_task(asyncio.to_thread(log.flush, 20.0))
        got = await reading
        while len(got) < 200_000:
            got += await asyncio.to_thread(os.read, read_end, 65536)
        await flushing
        assert got == b"".join(lines)
        write_all(log, lines)
        log.flush(0.01)
        assert log.lost == 0


# --- the process --------------------------------------------------------------------------------------------

_SAY = """
import contextlib, logging, os, sys
from gateway.log import call_logger, close_log, configure_logging, log_stream, take_library_lines
import structlog
configure_logging("INFO")
take_library_lines()
opened = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
write = call_logger("INFO")
write({"event": "call", "model": "m \\udc80", "cost": 1})
structlog.get_logger("test").info("심사 \\ud800", why=object)
logging.getLogger("asyncio").error("a task %s", "failed", exc_info=ValueError("no"))
with contextlib.suppress(OSError):
    print("for people", file=sys.stderr)
with contextlib.suppress(OSError):
    os.write(2, b"by a library")
close_log()
print(opened, log_stream().lost)
"""


def say(directory: Path, redirection: str) -> tuple[int, str, bytes]:
    """Exit code, standard output, and what went into a file that was opened after the start."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", _SAY, str(directory / "file")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, (directory / "file").read_bytes()


def test_all_that_is_told_comes_as_lines_of_json(tmp_path: Path) -> None:
    code, out, _ = say(tmp_path, f"2>{tmp_path / 'log'}")
    assert (code, out.split()[-1]) == (0, "0")
    lines = (tmp_path / "log").read_text().splitlines()
    call, told, library = [json.loads(line) for line in lines if line.startswith("{")]
    assert call == {"event": "call", "model": "m \udc80", "cost": 1}
    assert told["event"] == "심사 \ud800"
    assert (library["event"], library["level"]) == ("a task failed", "error")
    assert library["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_process_whose_standard_error_fails_ends_well_and_spoils_no_file(tmp_path: Path, redirection: str) -> None:
    code, out, file = say(tmp_path, redirection)
    assert code == 0
    opened, lost = out.split()[-2:]
    assert int(opened) > 2
    assert int(lost) == 3
    assert file == b""


def test_terminal_that_nobody_reads_stops_nothing() -> None:
    ours, terminal = os.openpty()
    own = own_terminal(terminal)
    try:
        log = LogStream(own)
        lines = numbered(1000)
        write_all(log, lines)
        assert log.waiting_bytes > 0
        shown = b""
        while log.waiting_bytes:
            shown += drain(ours)
            log.flush()
        shown += drain(ours)
        assert shown.replace(b"\r\n", b"\n") == b"".join(lines)
        assert log.lost == 0
    finally:
        for descriptor in {ours, terminal, own}:
            os.close(descriptor)


def test_what_is_no_terminal_is_written_to_as_it_is() -> None:
    with a_pipe() as (_, write_end):
        assert own_terminal(write_end) == write_end
