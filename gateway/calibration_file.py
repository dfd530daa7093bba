"""`calibration.json`: what started engines taught of the overhead, kept beside the database and made to be read.

A broken file is refused in one sentence and never written over. The arithmetic is `domain.calibration`'s; when an
engine teaches something is seen in `engine_diary`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.domain.calibration import Calibration, OverheadObservation, calibrate, with_observation
from gateway.domain.memory import ByteRange

FORMAT = 1


class CalibrationInvalid(Exception):
    """The file is there and cannot be used; the message says why and how to mend it."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    unit: str
    observations: tuple[OverheadObservation, ...]


def load_calibration(path: Path) -> tuple[OverheadObservation, ...]:
    """The observations of a file; none where there is no file. Raises CalibrationInvalid."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error
    try:
        found = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(path, str(error)) from error
    if found.format != FORMAT:
        raise _invalid(path, f"it has format {found.format}, this version reads format {FORMAT}")
    for place, each in enumerate(found.observations):
        if each.overhead_bytes <= 0 or each.overhead_bytes > each.requested_bytes:
            raise _invalid(path, f"observations[{place}].overhead_bytes: expected a part of requested_bytes")
    return found.observations


def save_calibration(path: Path, observations: Sequence[OverheadObservation]) -> None:
    """Replace the file in one step: a reader has the old one or the new one, whole. Raises OSError."""
    body = msgspec.json.encode(_File(FORMAT, "bytes", tuple(observations)))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("wb") as file:
            file.write(msgspec.json.format(body, indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class CalibrationBook:
    """The file in use. `problem` says why it is not used, where that is so; then nothing is written either."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self.edition = 0
        """Another number whenever it may say something else."""
        self._observations: tuple[OverheadObservation, ...] = ()
        self._known: Mapping[str, Calibration] = {}
        self.read()

    def read(self) -> None:
        """Take over what the file says now."""
        try:
            self._take(load_calibration(self.path))
            self.problem = None
        except CalibrationInvalid as error:
            self._take(())
            self.problem = str(error)

    def calibration(self, gpu_id: str) -> Calibration | None:
        return self._known.get(gpu_id)

    def calibrated_overhead(self, gpu_id: str) -> ByteRange | None:
        """What engines on this type of GPU showed: lowest, median, highest. None while none did."""
        found = self._known.get(gpu_id)
        return None if found is None else found.overhead

    def teaches(self, observation: OverheadObservation) -> bool:
        """Whether it says something that the book does not hold yet."""
        return not any(
            (each.gpu, each.source, each.overhead_bytes)
            == (observation.gpu, observation.source, observation.overhead_bytes)
            for each in self._observations
        )

    def learn(self, observation: OverheadObservation) -> None:
        """Add it to the file as another process may have left it. Blocks. Raises OSError, CalibrationInvalid."""
        observations = with_observation(load_calibration(self.path), observation)
        save_calibration(self.path, observations)
        self._take(observations)

    def _take(self, observations: tuple[OverheadObservation, ...]) -> None:
        self._observations, self._known = observations, calibrate(observations)
        self.edition += 1


def _invalid(path: Path, why: str) -> CalibrationInvalid:
    return CalibrationInvalid(
        f"{path}: {why}; it is left as it is and not used: mend it, or move it away to begin a new one"
    )
