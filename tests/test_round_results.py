"""From a closed round's documents to its analysis: which votes count, in whose favour, and nothing before closing."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from closed_rounds import ID as CLOSED
from closed_rounds import put_closed_round
from databases import ScratchDatabase
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.ranking.votes import BOTH_BAD, NO_GRADE, A
from gateway.domain.rounds import Exclusion, RoundStatus, VoteEntry
from gateway.errors import Conflict
from gateway.rounds.answer_style import FEATURES, style_of
from gateway.rounds.archive import unpack
from gateway.rounds.ballots import Place, read_ballots
from gateway.rounds.bundle import BundleKind, Tools, build_bundle
from gateway.rounds.results import analyse_round, read_guesses, result_object
from gateway.rounds.sealed import MAPPING, SALT
from gateway.rounds.standings import round_result
from gateway.rounds.store import RoundStore
from gateway.store import Store
from scripts.round_example import BEGIN, MadeRound, made_round


@cache
def small(status: RoundStatus = RoundStatus.CLOSED) -> MadeRound:
    return made_round(models=4, reviewers=8, prompts=24, votes_each=18, cut=2, seed=5, status=status)


def analysed(made: MadeRound, **changed: Any) -> dict[str, Any]:
    given_ = {name: getattr(made, name) for name in ("parts", "votes", "exclusions", "reviewers", "answers")}
    return analyse_round(**{**given_, **changed})


# --- style --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, 0, 0, 0)),
        ("환율은  오늘\n내렸습니다.", (3, 11, 0, 0, 0)),
        ("# 제목\n## 둘째\n#해시태그", (5, 12, 2, 0, 0)),
        ("- 하나\n  * 둘\n3. 셋\n- \n-붙임", (8, 12, 0, 3, 0)),
        ("**굵게** 그리고 __또__, ** 아님 **", (6, 21, 0, 0, 2)),
        ("```\n# 주석\n- 항목\n**a**\n```\n# 제목", (9, 20, 1, 0, 0)),
        ("~~~\n# 끝나지 않는 울타리", (5, 12, 0, 0, 0)),
    ],
)
def test_style_is_counted_outside_code_and_length_everywhere(text: str, expected: tuple[int, ...]) -> None:
    assert style_of(text) == dict(zip(FEATURES, map(float, expected), strict=True))


def test_style_does_not_depend_on_how_hangul_is_composed() -> None:
    assert style_of("\u1112\u1161\u11ab\u1100\u1173\u11af") == style_of("한글")


@given(st.text(max_size=200))
def test_style_is_finite_and_never_negative_for_any_text(text: str) -> None:
    assert all(0 <= value < 1e6 for value in style_of(text).values())


# --- ballots ------------------------------------------------------------------------------------------------

PARTS: dict[str, Any] = {
    "plan": {"models": ["M01", "M02"], "rubric": [{"id": "quality"}], "kind": "answers"},
    "prompts": [{"id": "p1", "stratum": "finance"}, {"id": "p2", "stratum": "health"}],
    "practice": {"attention": [{"id": "t1", "better": "b"}]},
    "items": [
        {"id": "i1", "reviewer": "r1", "kind": "vote", "prompt": "p1", "left": "M01", "right": "M02"},
        {"id": "i2", "reviewer": "r1", "kind": "repeat", "prompt": "p1", "left": "M02", "right": "M01"},
        {"id": "i3", "reviewer": "r1", "kind": "attention", "prompt": "t1", "left": "a", "right": "b"},
        {"id": "i4", "reviewer": "r2", "kind": "vote", "prompt": "p2", "left": "M02", "right": "M01"},
    ],
}
ANSWERS = [{"model": "M01", "prompt": "p1", "shown": "# 하나 둘"}, {"model": "M02", "prompt": "p1", "shown": None}]


def vote(number: int, item: str, choice: str | None, *, revision: int = 1, who: str = "r1", **more: Any) -> Any:
    said = {**({"choice": choice} if choice else {}), **more}
    return {"number": number, "item": item, "reviewer": who, "revision": revision, "judgement": said}


def placed(*votes: Any, exclusions: tuple[Any, ...] = ()) -> dict[str, tuple[Place, str | None]]:
    return {one.item: (one.place, one.rule) for one in read_ballots(PARTS, votes, exclusions, ANSWERS).placed}


def test_every_item_is_in_exactly_one_place() -> None:
    found = placed(vote(1, "i1", "a"), vote(2, "i2", "b"), vote(3, "i3", "b"))
    assert found == {
        "i1": (Place.COUNTED, None),
        "i2": (Place.REPEAT, None),
        "i3": (Place.ATTENTION, None),
        "i4": (Place.NOT_JUDGED, None),
    }


def test_the_last_revision_of_an_item_counts() -> None:
    found = read_ballots(PARTS, [vote(1, "i1", "b"), vote(2, "i1", "both_bad", revision=2)], (), ANSWERS)
    assert found.votes.outcome.tolist() == [BOTH_BAD]


def test_a_judgement_without_an_overall_choice_does_not_count() -> None:
    assert placed(vote(1, "i1", None, comment="…"))["i1"] == (Place.UNDECIDED, None)


def test_what_cannot_be_judged_is_kept_and_not_counted() -> None:
    found = read_ballots(PARTS, [vote(1, "i1", "cannot_judge", reason="…")], (), ANSWERS)
    assert found.placed[0].place is Place.CANNOT_JUDGE
    assert (len(found.votes), int(found.votes.counts.sum())) == (1, 0)


@pytest.mark.parametrize(("kind", "subject"), [("reviewer", "r1"), ("item", "i1"), ("prompt", "p1")])
def test_an_exclusion_leaves_out_what_it_names_with_its_rule(kind: str, subject: str) -> None:
    rules = ({"rule": "late", "kind": kind, "subject": subject},)
    found = placed(vote(1, "i1", "a"), vote(2, "i4", "b", who="r2"), exclusions=rules)
    assert found["i1"] == (Place.EXCLUDED, "late")
    assert found["i4"] == (Place.COUNTED, None)


def test_of_several_rules_the_first_written_down_is_named() -> None:
    rules = (
        {"rule": "second", "kind": "reviewer", "subject": "r2"},
        {"rule": "conflict", "kind": "item", "subject": "i1"},
        {"rule": "chair", "kind": "prompt", "subject": "p1"},
    )
    assert placed(vote(1, "i1", "a"), exclusions=rules)["i1"] == (Place.EXCLUDED, "conflict")


def test_an_exclusion_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="exclusion 0: expected a kind of reviewer, item, prompt, got 'planet'"):
        placed(exclusions=({"rule": "x", "kind": "planet", "subject": "mars"},))


@pytest.mark.parametrize("stray", [vote(7, "i9", "a"), vote(7, "i1", "a", who="r2")])
def test_a_vote_on_nobodys_item_is_an_error(stray: Any) -> None:
    with pytest.raises(ValueError, match=r"vote 7: r[12] was not asked about item i[19]"):
        placed(stray)


def test_grades_turn_round_because_a_reviewers_rise_towards_b() -> None:
    """-2 is "A much better" for a reviewer, and +2 is "A far better" in the ranking."""
    found = read_ballots(PARTS, [vote(1, "i1", "a", grades={"quality": -2})], (), ANSWERS).votes
    assert (found.outcome.tolist(), found.grades.tolist()) == ([A], [[2]])
    assert found.by_criterion("quality").outcome.tolist() == [A]


def test_a_criterion_that_was_not_graded_stays_out() -> None:
    found = read_ballots(PARTS, [vote(1, "i1", "a")], (), ANSWERS).votes
    assert found.grades.tolist() == [[NO_GRADE]]


def test_attention_items_are_judged_by_their_sound_side() -> None:
    assert read_ballots(PARTS, [vote(1, "i3", "b")], (), ANSWERS).attention == {"r1": (1, 1)}
    assert read_ballots(PARTS, [vote(1, "i3", "a")], (), ANSWERS).attention == {"r1": (0, 1)}
    assert read_ballots(PARTS, [vote(1, "i3", "tie")], (), ANSWERS).attention == {"r1": (0, 1)}


def test_style_is_that_of_the_answers_shown_and_unknown_where_there_is_none() -> None:
    found = read_ballots(PARTS, [vote(1, "i1", "a")], (), ANSWERS).votes
    assert found.features == FEATURES
    assert found.style_a.tolist() == [[3.0, 4.0, 1.0, 0.0, 0.0]]
    assert str(found.style_b.tolist()) == "[[nan, nan, nan, nan, nan]]"


def test_cards_have_no_style() -> None:
    parts = {**PARTS, "plan": {**PARTS["plan"], "kind": "cards"}}
    assert read_ballots(parts, [vote(1, "i1", "a")], (), ANSWERS).votes.features == ()


# --- the analysis -------------------------------------------------------------------------------------------


def test_the_same_documents_in_another_order_give_the_same_analysis() -> None:
    made = small()
    shuffled = random.Random(3)
    mixed = {
        name: shuffled.sample(list(found), len(found))
        for name, found in (("votes", made.votes), ("answers", made.answers))
    }
    before = copy.deepcopy([dict(vote) for vote in made.votes])
    assert json.dumps(analysed(made, **mixed)) == json.dumps(analysed(made))
    assert before == [dict(vote) for vote in made.votes], "nothing that came in is changed"


def test_counts_of_places_add_up_to_all_items() -> None:
    found = analysed(small())["ballots"]
    assert sum(found["places"].values()) == found["items"]
    assert found["excluded"] == [{"rule": "conflict", "kind": "item", "items": 3, "votes": 3, "reviewers": 1}]
    assert found["places"]["counted"] == analysed(small())["votes"]["counted"]


def test_without_the_mapping_nothing_of_a_model_but_its_code_is_in_an_analysis() -> None:
    text = json.dumps(analysed(small()))
    assert "sim-" not in text
    assert "team-" not in text
    assert analysed(small())["blinding"]["james"]["reason"] == "no_guesses"


def test_guesses_are_judged_once_the_mapping_is_opened() -> None:
    found = analysed(small(RoundStatus.REVEALED))
    assert found["is_opened"]
    assert found["blinding"]["james"]["n"] == found["guesses"]["read"] > 0


def test_a_guess_names_a_consortium_and_is_right_for_any_model_of_it() -> None:
    mapping = {
        code: {"consortium": name} for code, name in (("M01", "one"), ("M02", "one"), ("M03", "two"), ("M04", None))
    }
    items = [{"id": "i1", "left": "M02", "right": "M03"}, {"id": "i2", "left": "M04", "right": "M01"}]
    guesses = [{"item": "i1", "a": "one", "b": "one"}, {"item": "i2", "a": None, "b": "elsewhere"}]
    people = [{"id": "r1", "questionnaire": {"guesses": guesses}}, {"id": "r2", "questionnaire": None}, {"id": "r3"}]
    found, outside = read_guesses({MAPPING: mapping, "items": items}, people)
    assert [(one.model, one.guessed) for one in found] == [("M02", "M02"), ("M03", "M01"), ("M04", None)]
    assert outside == 1


def test_a_model_is_as_real_as_its_weakest_answer() -> None:
    made = small()
    answers = [
        {**one, "provenance": "simulated" if one["model"] == "M02" and one["prompt"] == "p-003" else "real"}
        for one in made.parts["answers"]
    ]
    found = analysed(made, parts={**made.parts, "answers": answers})
    assert found["plan"]["provenance"] == {"M01": "real", "M02": "simulated", "M03": "real", "M04": "real"}
    assert (found["is_ranking"], found["cautions"][0]) == (False, "not_real")


def test_a_controlled_estimate_has_its_own_pairs() -> None:
    found = analysed(small())["style_controlled"]
    assert len(found["pairs"]) == 6
    assert found["pairs"][0]["first"] == found["models"][0]["model"]


def test_names_and_notices_stand_in_a_result_only_after_the_reveal() -> None:
    made = small(RoundStatus.REVEALED)
    analysis = analysed(made)
    named = result_object(made.round, analysis, made.documents)
    closed = result_object(replace(made.round, status=RoundStatus.CLOSED), analysed(small()), made.documents)
    assert {one["name"] for one in named["names"].values()} == {"Sim 01", "Sim 02", "Sim 03", "Sim 04"}
    assert "Built with an example" in json.dumps(named)
    assert closed["names"] is None
    assert "Built with" not in json.dumps(closed)
    assert "sim-" not in json.dumps(closed)


# --- in a database ------------------------------------------------------------------------------------------


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[RoundStore]:
    opened = await Store.open(database.url)
    yield RoundStore(opened)
    await opened.close()


async def keep(store: RoundStore, made: MadeRound) -> None:
    """The whole made round, as the gateway itself would have come to keep it; closed at the end."""
    draft = replace(made.round, status=RoundStatus.DRAFT, seed=None, root=None, head=None, votes=0)
    await store.create(
        replace(draft, sealed_at=None, opened_at=None, closed_at=None, revealed_at=None), {"links": "00"}
    )
    await store.save_answers(draft.id, made.stored_answers)
    await store.add_reviewers(draft.id, made.people)
    sealed = {"items": made.items, "documents": made.documents, "secrets": {SALT + "plan": "00"}}
    assert await store.seal(draft.id, **sealed, seed=made.round.seed, root=made.round.root, sealed_at=BEGIN)
    for one in made.exclusions:
        await store.exclude(draft.id, Exclusion(BEGIN, one["rule"], one["kind"], one["subject"], "declared", "rule"))
    assert await store.move(draft.id, {RoundStatus.SEALED}, RoundStatus.OPEN, opened_at=BEGIN)
    items = {item.id: item for item in made.items}
    for one in made.votes:
        assert await store.append_vote(draft.id, items[one["item"]], _entry(one)) is not None
    for person in made.reviewers:
        questionnaire = person["questionnaire"]
        await store.update_reviewer(draft.id, person["id"], submitted_at=BEGIN, questionnaire=questionnaire)


def _entry(one: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], VoteEntry]:
    def link(before: Mapping[str, Any]) -> VoteEntry:
        number, revision = before["number"], before["revision"]
        judgement = one["judgement"]
        return VoteEntry(
            number, one["item"], one["reviewer"], revision, BEGIN, judgement, before["previous"], f"{number}"
        )

    return link


async def at_once(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return work()


async def test_a_result_exists_from_closing_on_and_is_made_anew_when_names_are_opened(store: RoundStore) -> None:
    made = made_round(models=3, reviewers=4, prompts=12, votes_each=12, cut=1, seed=2, status=RoundStatus.CLOSED)
    await keep(store, made)
    opened = await store.get(made.round.id)
    assert opened is not None
    with pytest.raises(Conflict, match="There is no result before a round is closed"):
        await round_result(store, opened, at_once)
    assert await store.document(made.round.id, "analysis") is None

    assert await store.move(opened.id, {RoundStatus.OPEN}, RoundStatus.CLOSED, closed_at=BEGIN)
    closed = await store.get(opened.id)
    assert closed is not None
    result = await round_result(store, closed, at_once)
    assert result["analysis"] == analysed(made), "what the gateway keeps is what the documents give offline"
    assert await store.document(opened.id, "analysis") == result["analysis"]
    assert result["names"] is None

    async def never(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        raise AssertionError("it was analysed already")

    assert await round_result(store, closed, never) == result

    assert await store.move(opened.id, {RoundStatus.CLOSED}, RoundStatus.REVEALED, revealed_at=BEGIN)
    revealed = await store.get(opened.id)
    assert revealed is not None
    named = await round_result(store, revealed, at_once)
    assert named["analysis"]["is_opened"]
    assert named["analysis"]["overall"] == result["analysis"]["overall"]
    assert sorted(one["model"] for one in named["names"].values()) == ["sim-01", "sim-02", "sim-03"]


async def test_a_questionnaire_given_after_closing_changes_neither_the_result_nor_the_bundle(store: RoundStore) -> None:
    closed = await put_closed_round(store)
    late = {"recognised": "many", "guesses": []}
    for one in await store.reviewers(CLOSED):
        await store.update_reviewer(CLOSED, one.id, questionnaire=late)
    await closed.reveal()
    result = await round_result(store, await closed.round(), at_once)
    bundle = build_bundle(await closed.content(), BundleKind.AUDIT, tools=Tools(analyse_round))
    assert result["analysis"] == json.loads(unpack(bundle.data).files["analysis.json"])
    assert result["analysis"]["guesses"]["read"] > 0, "the questionnaires as they stood"
