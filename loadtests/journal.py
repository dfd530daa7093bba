"""What a campaign has done so far, on disk: so that nothing measured is lost and an interrupted one goes on.

One directory a run: the plan as it was read, `run.json` after every repeat (written anew, then renamed into place), the
workers' records, and the spreads that plots are drawn from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from loadtests.cells import VERSION, Run

PLAN, RUN, SPREADS, RECORDS, TRACES = "plan.yaml", "run.json", "spreads.json", "records", "traces"
LOCK = "lock"
Spreads = dict[str, dict[str, tuple[float, ...]]]
"""By "cell/door": the quantiles 0 to 100 % of its TTFT and TPOT, of all its repeats together."""


class RunUnreadable(Exception):
    """A run's directory cannot be gone on with; the message says why."""


class Journal:
    """The files of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def records(self) -> Path:
        return self.directory / RECORDS

    def record_files(self, cell: str, repeat: str) -> list[Path]:
        """The workers' files of one attempt at a repeat."""
        return sorted((self.records / cell).glob(f"{repeat}-w*.jsonl"))

    def trace(self, cell: str) -> Path:
        """Where the trace that a cell replays is kept."""
        return self.directory / TRACES / f"{cell}.jsonl"

    def begin(self, plan: bytes) -> None:
        """Raises OSError."""
        self.records.mkdir(parents=True, exist_ok=True)
        (self.directory / TRACES).mkdir(exist_ok=True)
        _write(self.directory / PLAN, plan)

    def keep(self, run: Run, spreads: Mapping[str, Mapping[str, tuple[float, ...]]]) -> None:
        """Both files, each whole or as it was before. Raises OSError."""
        _write(self.directory / SPREADS, msgspec.json.encode(spreads))
        _write(self.directory / RUN, msgspec.json.encode(run))

    def plan(self) -> bytes:
        return self._read(PLAN)

    def run(self) -> Run:
        """What was kept last. Raises RunUnreadable."""
        try:
            run = msgspec.json.decode(self._read(RUN), type=Run)
        except msgspec.DecodeError as error:
            raise RunUnreadable(f"{self.directory / RUN}: {error}") from error
        if run.v != VERSION:
            raise RunUnreadable(f"{self.directory / RUN}: expected version {VERSION}, got {run.v}")
        return run

    def spreads(self) -> Spreads:
        try:
            return msgspec.json.decode(self._read(SPREADS), type=Spreads)
        except (RunUnreadable, msgspec.DecodeError):
            return {}

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as error:
            raise RunUnreadable(f"{self.directory / name}: {error.strerror or error}") from error


def new_run_id(name: str, moment: datetime, draw: bytes) -> str:
    """Such as `lr-20261128-103000-3f9a`: by time, and unlike any other of the same second."""
    return f"lr-{moment:%Y%m%d-%H%M%S}-{hashlib.sha256(draw + name.encode()).hexdigest()[:4]}"


def runs_directory(data_dir: Path) -> Path:
    return data_dir / "load-runs"


def _write(path: Path, content: bytes) -> None:
    new = path.with_suffix(path.suffix + ".new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
