"""A key names so many runs in a day, and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.domain.accounts import Caller, Terms
from gateway.errors import PermissionDenied
from gateway.run_names import MOST_RUNS_A_DAY, RunNames

NOON = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def test_a_run_too_many_is_refused_for_that_key_until_the_next_day() -> None:
    moments = [NOON]
    names = RunNames(lambda: moments[-1])
    one, other, admin = (Caller(key, None, Terms()) for key in ("one", "other", None))
    for number in range(MOST_RUNS_A_DAY):
        names.note(one, f"run-{number}")
    with pytest.raises(PermissionDenied) as caught:
        names.note(one, "another")
    assert caught.value.code == "too_many_runs"
    names.note(one, "run-0")
    names.note(other, "another")
    for number in range(MOST_RUNS_A_DAY + 1):
        names.note(admin, f"run-{number}")
    moments.append(NOON + timedelta(days=1))
    names.note(one, "another")
