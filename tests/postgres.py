"""A PostgreSQL server of the tests' own: made from nothing, on a Unix socket nobody else knows, gone with the tests.

`Cluster` can be run by hand as well (`python tests/postgres.py` prints its address and waits for Ctrl-C). A server
that somebody else runs on this machine is never touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from guards import HANG_S

INSTALL = "apt-get install postgresql (Debian), then try again; no server needs to run"
_SPEED = {  # whatever is written here need not outlive the machine
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}


class NotInstalled(Exception):
    """There is no PostgreSQL on this machine."""


class Cluster:
    """A server and its files, in a directory of its own. Make it once a test session; `remove` it at the end."""

    def __init__(self) -> None:
        """Raises NotInstalled."""
        self._bin = _find_programs()
        self._directory = Path(tempfile.mkdtemp(prefix="simsa-pg-"))
        self._data = self._directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._as_other: tuple[str, ...] = ()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            other = _unprivileged()
            os.chown(self._directory, other.pw_uid, other.pw_gid)
            self._as_other = (f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups")
        options = ("--no-sync", "--auth=trust", "--username=simsa", "--encoding=UTF8", "--locale=C")
        initdb = [*self._command("initdb"), f"--pgdata={self._data}", *options]
        subprocess.run(initdb, check=True, capture_output=True, timeout=HANG_S)
        (self._data / "pg_hba.conf").write_text("local all keyed scram-sha-256\nlocal all all trust\n")
        self.start()

    def url(self, database: str) -> str:
        """For the owner, `simsa`, who needs no password; a role `keyed` would need one."""
        return f"postgresql://simsa@/{database}?host={self._directory}"

    def start(self) -> None:
        """Returns when it takes connections."""
        knobs = {**_SPEED, "listen_addresses": "", "unix_socket_directories": str(self._directory)}
        settings = [word for name, value in knobs.items() for word in ("-c", f"{name}={value}")]
        # --pdeathsig: it never outlives the tests, however they end
        command = [*self._command("postgres"), "-D", str(self._data), *settings]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + HANG_S
        while not self._is_ready():
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, (self._directory / "log").read_text()
            time.sleep(0.005)

    def crash(self) -> None:
        """End every process at once, in the middle of whatever they do; the next `start` recovers from the log."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(HANG_S)

    def freeze(self) -> None:
        """Every process stands still: connections stay, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _command(self, program: str) -> list[str]:
        return ["setpriv", "--pdeathsig=QUIT", *self._as_other, str(self._bin / program)]

    def _is_ready(self) -> bool:
        """The status line of its lock file, by which pg_ctl knows it too."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _find_programs() -> Path:
    """The directory of `initdb` and `postgres`: on the path, or where Debian keeps the newest."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not packaged:
        raise NotInstalled(f"PostgreSQL is not installed: {INSTALL}")
    return packaged[-1].parent


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


if __name__ == "__main__":
    cluster = Cluster()
    try:
        print(cluster.url("postgres"), flush=True)
        signal.pause()
    except KeyboardInterrupt:
        cluster.remove()
