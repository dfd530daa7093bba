"""The steps that people take with a round on its pages: by whom, when, in which words; and which one comes next.

Values in, values out. Taking a step belongs in `api.chair_steps`, what it makes sure of in `life` and `desk`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.domain.accounts import Caller, Role
from gateway.domain.rounds import Round, RoundStatus
from gateway.rounds.life import LEADING, OPERATING
from gateway.web import word

_DRAFT = frozenset({RoundStatus.DRAFT})
_BEFORE_CLOSING = frozenset({RoundStatus.SEALED, RoundStatus.OPEN, RoundStatus.PAUSED})
_NOT_OVER = _DRAFT | _BEFORE_CLOSING
BY_CHAIR, BY_OPERATOR = word("chair or operator"), word("operator")


@dataclass(frozen=True, slots=True)
class Step:
    """`statuses`: when it can be taken. `means`: what the page that asks for confirmation says of it."""

    name: str
    roles: frozenset[Role]
    statuses: frozenset[RoundStatus]
    title: str
    means: str
    done: str
    has_form: bool = False
    """Whether it takes more than a button: it then has its own place on the page."""

    def is_for(self, one: Round, caller: Caller) -> bool:
        return one.status in self.statuses and caller.has_any(self.roles)


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step(
            "answers",
            OPERATING,
            _DRAFT,
            word("Have the answers made"),
            word("Every model is asked every question, and the plan is fixed. Again: what failed is asked once more."),
            word("The answers are being made."),
        ),
        Step(
            "collect",
            OPERATING,
            _DRAFT,
            word("Collect and redact the answers"),
            word("What came is redacted and kept with the round. It may be done again until the round is sealed."),
            word("The answers are collected and redacted."),
        ),
        Step(
            "stop",
            OPERATING,
            _DRAFT,
            word("Stop asking"),
            word("Nothing more is asked of the models. What came stays."),
            word("Nothing more is asked."),
        ),
        Step(
            "invite",
            LEADING,
            _DRAFT,
            word("Invite reviewers"),
            word("Each gets a link, shown once, on the next page. Nobody can read it again, only make a new one."),
            word("The reviewers are invited."),
            has_form=True,
        ),
        Step(
            "dry-run",
            LEADING,
            _DRAFT,
            word("Make a dry run"),
            word("The round is rehearsed with made-up votes, up to the verified bundle, and stays untouched."),
            word("The dry run is over."),
        ),
        Step(
            "seal",
            LEADING,
            _DRAFT,
            word("Seal the round"),
            word("Questions, answers, queues, rubric and weights are fixed for good, and their commitment is made."),
            word("The round is sealed. Publish its commitment now."),
        ),
        Step(
            "open",
            LEADING,
            frozenset({RoundStatus.SEALED, RoundStatus.PAUSED}),
            word("Open for review"),
            word("Reviewers can judge from now on."),
            word("The round is open."),
        ),
        Step(
            "pause",
            LEADING,
            frozenset({RoundStatus.OPEN}),
            word("Pause"),
            word("Reviewers see that the review rests. What they saved stays, and you can open the round again."),
            word("The round is paused."),
        ),
        Step(
            "close",
            LEADING,
            frozenset({RoundStatus.OPEN, RoundStatus.PAUSED}),
            word("Close the round"),
            word("Nothing is judged or excluded any more, for good; what reviewers saved counts."),
            word("The round is closed. Publish the head of its votes now."),
        ),
        Step(
            "reveal",
            LEADING,
            frozenset({RoundStatus.CLOSED}),
            word("Approve the reveal"),
            word("Once a chair and an operator have approved, names stand beside the result for good."),
            word("Your approval is noted."),
        ),
        Step(
            "archive",
            LEADING,
            frozenset({RoundStatus.REVEALED}),
            word("Archive"),
            word("The round can only be read from now on. There is no way back."),
            word("The round is archived."),
        ),
        Step(
            "exclude",
            LEADING,
            _BEFORE_CLOSING,
            word("Leave out of the result"),
            word("The votes do not count, for good; rule and reason stand in the audit bundle."),
            word("What you named does not count any more."),
            has_form=True,
        ),
        Step(
            "clear",
            LEADING,
            frozenset({RoundStatus.CLOSED, RoundStatus.REVEALED}),
            word("Let into public bundles"),
            word("Public bundles show these words from now on, for good; who cleared them stands in the audit bundle."),
            word("The comments are cleared."),
            has_form=True,
        ),
        Step(
            "renew",
            LEADING,
            frozenset(RoundStatus),
            word("Make a new link"),
            word("Older links open nothing any more and the session ends. What they judged stays."),
            word("The link is made."),
            has_form=True,
        ),
        Step(
            "revoke",
            LEADING,
            _NOT_OVER,
            word("Let in no more"),
            word("They cannot enter any more. What they judged stays and counts: to leave it out, exclude them."),
            word("The reviewer is let in no more."),
            has_form=True,
        ),
    )
}


def open_to(one: Round, caller: Caller) -> list[Step]:
    """The steps that this person can take as the round stands, in their order."""
    return [step for step in STEPS.values() if step.is_for(one, caller)]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the next step depends on."""

    is_asked: bool
    """Whether the models were asked for their answers, or need not be."""
    is_over: bool
    """Whether all answers came."""
    kept: int
    """Answers that are collected."""
    invited: int
    submitted: int
    is_rehearsed: bool
    """Whether a dry run passed on this very draft."""
    approved: Collection[str] = ()
    """Roles that approved the reveal."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a step waits for, and by whom it is done."""

    words: str
    by: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Next:
    """`step`: the one to take now; None while there is only something to wait for. `towards`: what it leads to."""

    step: Step | None
    towards: str
    needs: tuple[Need, ...] = ()


def next_step(one: Round, facts: Facts) -> Next:
    """What is to be done with a round as it stands, and what that needs."""
    match one.status:
        case RoundStatus.DRAFT:
            return _towards_sealing(facts)
        case RoundStatus.SEALED | RoundStatus.PAUSED:
            return Next(STEPS["open"], word("Reviewers wait until the round is open."))
        case RoundStatus.OPEN:
            is_everybody = 0 < facts.invited <= facts.submitted
            all_in = Need(word("All reviewers have submitted"), word("reviewers"), is_everybody)
            return Next(STEPS["close"] if is_everybody else None, word("The reviewers are judging."), (all_in,))
        case RoundStatus.CLOSED:
            needs = (
                Need(word("A chair approves"), word("chair"), Role.CHAIR in facts.approved),
                Need(word("An operator approves"), word("operator"), Role.OPERATOR in facts.approved),
            )
            return Next(STEPS["reveal"], word("The names are opened by two people."), needs)
        case RoundStatus.REVEALED:
            return Next(STEPS["archive"], word("The result stands, with names. Archive the round once it is settled."))
        case _:
            return Next(None, word("The round is over."))


def _towards_sealing(facts: Facts) -> Next:
    has_answers = facts.kept > 0
    needs = (
        Need(word("The answers are made"), BY_OPERATOR, facts.is_asked and facts.is_over),
        Need(word("The answers are collected and redacted"), BY_OPERATOR, has_answers),
        Need(word("Reviewers are invited"), BY_CHAIR, facts.invited > 0),
        Need(word("A dry run passed on this very draft"), BY_CHAIR, facts.is_rehearsed),
    )
    towards = word("The round is being prepared; then it is sealed.")
    if facts.is_asked and not facts.is_over:
        return Next(None if facts.invited else STEPS["invite"], towards, needs)
    order = ("answers", "collect", "invite", "dry-run")
    todo = next((name for name, need in zip(order, needs, strict=True) if not need.is_met), "seal")
    return Next(STEPS[todo], towards, needs)
