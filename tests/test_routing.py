"""Which replica a session belongs to: weighted rendezvous hashing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.routing import pick_for_session

REPLICAS = [(f"m/{number}", 1.0) for number in range(4)]
sessions = st.text(max_size=40)


@given(sessions, st.permutations(REPLICAS))
def test_session_belongs_to_one_replica_in_whatever_order_they_are_listed(
    session: str, replicas: list[tuple[str, float]]
) -> None:
    assert replicas[pick_for_session(session, replicas)] == REPLICAS[pick_for_session(session, REPLICAS)]


@given(sessions, st.integers(0, 3))
def test_only_the_sessions_of_a_replica_that_goes_move(session: str, gone: int) -> None:
    before = pick_for_session(session, REPLICAS)
    left = [replica for number, replica in enumerate(REPLICAS) if number != gone]
    after = left[pick_for_session(session, left)]
    assert before == gone or after == REPLICAS[before]


def test_sessions_are_shared_out_by_weight() -> None:
    replicas = [("m/1", 1.0), ("m/2", 3.0)]
    counts = Counter(pick_for_session(f"session {number}", replicas) for number in range(4000))
    assert 0.72 < counts[1] / 4000 < 0.78
