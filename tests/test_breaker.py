"""When a replica is left alone: the breaker over any sequence of good and bad news, its clock in the test's hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.breaker import CLOSED, Admits, Breaker, BreakerRule, Outcome

RULE = BreakerRule(faults=3, rest_s=5.0)


def after(breaker: Breaker, *outcomes: Outcome, now: float = 0.0) -> Breaker:
    """What remains of it after calls one after the other."""
    for outcome in outcomes:
        trial = breaker.trial
        breaker = breaker.taken(now).judged(outcome, trial, now, RULE)
    return breaker


FAULT, GOOD, NEUTRAL = Outcome.FAULT, Outcome.GOOD, Outcome.NEUTRAL
OPEN = after(CLOSED, FAULT, FAULT, FAULT)


def test_opens_after_so_many_faults_in_a_row_and_rests() -> None:
    assert after(CLOSED, FAULT, FAULT).admits(0.0) is Admits.NOW
    assert OPEN.admits(4.9) is Admits.NOT
    assert OPEN.admits(5.0) is Admits.NOW


def test_good_call_forgives_and_neutral_ones_say_nothing() -> None:
    assert after(CLOSED, FAULT, FAULT, GOOD) is CLOSED
    assert after(CLOSED, *[NEUTRAL] * 10) is CLOSED
    assert after(CLOSED, FAULT, NEUTRAL, FAULT, NEUTRAL, FAULT).is_open


def test_one_call_at_a_time_tries_it_and_others_may_wait_for_that() -> None:
    trying = OPEN.taken(5.0)
    assert trying.admits(6.0) is Admits.LATER
    assert trying.judged(NEUTRAL, OPEN.trial, 6.0, RULE).admits(6.0) is Admits.NOW, "a trial that said nothing"
    assert trying.judged(GOOD, OPEN.trial, 6.0, RULE) is CLOSED


def test_each_failed_trial_doubles_the_rest_up_to_a_minute() -> None:
    breaker, now, rests = OPEN, 5.0, []
    for _ in range(6):
        breaker = after(breaker, FAULT, now=now)
        rests.append(breaker.until_s - now)
        now = breaker.until_s
    assert rests == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]


def test_beginning_of_an_answer_lets_others_in_on_probation() -> None:
    trial = OPEN.trial
    assert trial is not None
    begun = OPEN.taken(5.0).began(trial, RULE)
    assert not begun.is_open
    assert begun.admits(6.0) is Admits.NOW
    assert begun.judged(FAULT, trial, 6.0, RULE).until_s == 16.0, "one fault more, and it rests longer"
    assert begun.judged(GOOD, trial, 6.0, RULE) is CLOSED


def test_news_from_before_it_opened_change_nothing() -> None:
    assert OPEN.judged(GOOD, None, 1.0, RULE) is OPEN
    assert OPEN.judged(FAULT, None, 1.0, RULE) is OPEN
    trying = OPEN.taken(5.0)
    assert trying.judged(GOOD, None, 6.0, RULE) is trying
    reopened = after(OPEN, FAULT, now=6.0).taken(20.0)
    assert reopened.judged(GOOD, OPEN.trial, 30.0, RULE) is reopened, "the trial of an earlier time"


def test_pause_that_the_engine_asked_for_is_busy_and_no_fault() -> None:
    paused = CLOSED.paused(10.0)
    assert (paused.admits(9.9), paused.admits(10.0)) == (Admits.LATER, Admits.NOW)
    assert paused.judged(GOOD, None, 5.0, RULE).admits(9.9) is Admits.LATER, "an earlier call's success ends no pause"
    assert paused.judged(GOOD, None, 10.0, RULE) is CLOSED


def test_long_trial_keeps_the_others_out_for_one_rest_only() -> None:
    trying = OPEN.taken(5.0)
    assert (trying.admits(9.9), trying.admits(10.0)) == (Admits.LATER, Admits.NOW)
    both = trying.taken(10.0)
    assert both.admits(14.9) is Admits.LATER
    assert both.judged(NEUTRAL, OPEN.trial, 11.0, RULE).admits(14.9) is Admits.LATER, "the other is still under way"
    assert both.judged(GOOD, OPEN.trial, 11.0, RULE) is CLOSED, "either of them closes it"
    failed = both.judged(FAULT, OPEN.trial, 11.0, RULE)
    assert (failed.until_s, failed.trials) == (21.0, 0)
    assert failed.judged(GOOD, OPEN.trial, 12.0, RULE) is failed, "what was a trial before is none any more"


def test_trial_of_an_earlier_opening_is_none_of_a_later_one() -> None:
    late = OPEN.trial
    again = after(OPEN.taken(5.0).taken(10.0).judged(GOOD, late, 11.0, RULE), FAULT, FAULT, FAULT, now=12.0)
    assert again.trips == OPEN.trips
    trying = again.taken(17.0)
    assert trying.judged(NEUTRAL, late, 18.0, RULE) is trying
    assert trying.judged(FAULT, late, 18.0, RULE) is trying


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "good", "fault", "neutral", "began", "pause"]),
            st.floats(0, 20),
            st.integers(0, 5),
        )
    )
)
def test_while_open_trials_come_one_a_rest_and_nobody_is_kept_out_for_longer(
    steps: list[tuple[str, float, int]],
) -> None:
    breaker, now, in_row = CLOSED, 0.0, 0
    flying: list[float | None] = []
    for what, span, which in steps:
        now += span
        before = breaker
        if what == "take":
            if breaker.admits(now) is Admits.NOW:
                if breaker.trials:
                    assert now >= breaker.tried_s + breaker.rest_s, "one a rest"
                flying.append(breaker.trial)
                breaker = breaker.taken(now)
        elif what == "pause":
            breaker = breaker.paused(now + span)
        elif flying:
            trial = flying[which % len(flying)]
            if what != "began":
                flying.remove(trial)
                breaker = breaker.judged(Outcome(what), trial, now, RULE)
                in_row = in_row + 1 if what == "fault" else 0 if what == "good" else in_row
            elif trial is not None:
                breaker = breaker.began(trial, RULE)
        if breaker.is_open:
            assert breaker.trials == flying.count(breaker.opened_s), "the trials under way, and no other calls"
            assert breaker.admits(breaker.admits_from_s) is Admits.NOW
            assert breaker.admits_from_s <= max(breaker.until_s, now + breaker.rest_s)
            if breaker.trials and now >= breaker.until_s:
                assert breaker.admits(now) is not Admits.NOT, "others wait for the trials' fate"
        if breaker.trips > before.trips:
            assert breaker.admits(now) is Admits.NOT
            assert in_row >= RULE.faults or before.trips
            assert RULE.rest_s <= breaker.until_s - now
