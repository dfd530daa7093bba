"""Who is gone: a gateway that is missing for long, whatever the database went through meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.roll_call import GONE_S, RollCall

NUMBERS = st.frozensets(st.integers(1, 4))


def test_the_first_look_is_news_and_the_next_is_not() -> None:
    roll = RollCall()
    assert roll.look({1, 2}, 0.0).is_news, "who went before it was seen by nobody"
    assert not roll.look({1, 2, 3}, 1.0).is_news


def test_who_is_missing_is_news_at_once_and_gone_after_a_while() -> None:
    roll = RollCall()
    roll.look({1, 2}, 0.0)
    missed = roll.look({1}, 1.0)
    assert (missed.is_news, missed.spared, missed.gone) == (True, {1, 2}, set())
    assert not roll.look({1}, 2.0).is_news
    gone = roll.look({1}, 1.0 + GONE_S)
    assert (gone.is_news, gone.spared, gone.gone) == (False, {1}, {2})
    assert roll.look({1}, 9.0 + GONE_S).gone == set()


def test_after_a_long_time_without_the_database_nobody_is_gone_who_comes_back_in_time() -> None:
    roll = RollCall()
    roll.look({1, 2, 3}, 0.0)
    restarted = roll.look({1}, 600.0)  # it answered nobody for ten minutes, and this gateway first
    assert (restarted.spared, restarted.gone) == ({1, 2, 3}, set())
    back = roll.look({1, 2}, 600.0 + GONE_S)
    assert (back.spared, back.gone) == ({1, 2}, {3})


@given(st.lists(st.tuples(NUMBERS, st.floats(0.0, 3.0)), min_size=1))
def test_who_lives_is_spared_and_who_is_gone_was_missing_at_every_look_for_as_long(
    looks: list[tuple[frozenset[int], float]],
) -> None:
    roll, now_s = RollCall(), 0.0
    missing_since_s: dict[int, float] = {}
    seen: set[int] = set()
    for living, passed_s in looks:
        now_s += passed_s
        seen |= living
        missing_since_s = {number: missing_since_s.get(number, now_s) for number in seen - living}
        looked = roll.look(living, now_s)
        assert looked.gone == {n for n, since_s in missing_since_s.items() if now_s - since_s >= GONE_S}
        seen -= looked.gone
        assert looked.spared == seen
        assert living <= looked.spared
