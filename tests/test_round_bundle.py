"""A round's bundle: what it shows to whom, and that nothing in it can be changed without being found and named."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from closed_rounds import (
    APPROVALS,
    BEGIN,
    ID,
    MODELS,
    PHONE,
    PRODUCTS,
    ClosedRound,
    count_choices,
    put_closed_round,
)
from databases import ScratchDatabase
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.canonical_json import canonical_json
from gateway.domain.hash_chain import entry_hash, genesis, verify_chain
from gateway.domain.rounds import AccessEntry, Approval, Clearance, Exclusion, ItemKind, RoundStatus
from gateway.domain.sealing import commit, seal_root
from gateway.domain.withheld import joined, read_openings, unfit, withhold
from gateway.rounds.archive import MANIFEST, pack, unpack, with_manifest
from gateway.rounds.bundle import Bundle, BundleKind, Tools, analysis_of, build_bundle, criteria_of, whole_votes
from gateway.rounds.bundle_view import read_bundle
from gateway.rounds.chain import chained, veiled_entry
from gateway.rounds.closing import close, closing_of
from gateway.rounds.contents import RoundContent
from gateway.rounds.sealed import text_digest
from gateway.rounds.sheets import votes_sheet
from gateway.rounds.store import RoundStore, WrongStatus
from gateway.rounds.verify import Published, State, Verdict, Verification, verify_bundle
from gateway.store import Store

TOOLS = Tools(count_choices)
CHAIR, OPERATOR = APPROVALS
Files = dict[str, bytes]


@pytest.fixture
async def closed(database: ScratchDatabase) -> AsyncIterator[ClosedRound]:
    store = await Store.open(database.url)
    yield await put_closed_round(RoundStore(store))
    await store.close()


@pytest.fixture
async def content(sqlite_file: ScratchDatabase) -> AsyncIterator[RoundContent]:
    """For what hangs on no database: a revealed round."""
    store = await Store.open(sqlite_file.url)
    one = await put_closed_round(RoundStore(store), reviewers=3)
    await one.reveal()
    yield await one.content()
    await store.close()


def files_of(bundle: Bundle) -> Files:
    return dict(unpack(bundle.data).files)


def lines_of(files: Files, name: str) -> list[Any]:
    return [json.loads(line) for line in files[name].splitlines()]


def with_lines(lines: list[Any]) -> bytes:
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def packed_anew(files: Files) -> bytes:
    """As an operator would who changed something: with a manifest and an archive that fit."""
    about = json.loads(files["round.json"])
    moment = datetime.fromisoformat(about["moments"]["revealed_at"] or about["moments"]["closed_at"])
    return pack(with_manifest({name: one for name, one in files.items() if name != MANIFEST})[0], moment)


def published_of(content: RoundContent, **others: Any) -> Published:
    one = content.round
    return Published(root=one.root, head=one.head, closing=content.closing.root, **others)


def places(found: Verification) -> set[str]:
    return {fault.file for fault in found.faults}


# --- what holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BundleKind)
async def test_the_bundle_of_a_round_holds_before_and_after_the_reveal(closed: ClosedRound, kind: BundleKind) -> None:
    for is_revealed in (False, True):
        if is_revealed:
            await closed.reveal()
        content = await closed.content()
        bundle = build_bundle(content, kind, tools=TOOLS)
        found = verify_bundle(bundle.data, published_of(content, receipt=closed.receipt), analyse=count_choices)
        assert found.faults == []
        assert {check.state for check in found.checks} == {State.HOLDS}
        assert found.verdict is Verdict.AUTHENTICATED
        assert found.bundle == bundle.root
        assert ("parts/mapping.json" in files_of(bundle)) is is_revealed
        warned = any("neither root, head nor closing covers" in note for note in found.notes)
        assert warned is is_revealed, "approvals come with the reveal, and rest on what nothing published covers"


async def test_the_same_content_gives_the_same_bytes(closed: ClosedRound) -> None:
    for kind in BundleKind:
        first, second = [build_bundle(await closed.content(), kind, tools=TOOLS) for _ in range(2)]
        assert first.data == second.data


async def test_what_is_not_published_cannot_authenticate(closed: ClosedRound) -> None:
    content = await closed.content()
    bundle = build_bundle(content, BundleKind.AUDIT, tools=TOOLS)
    one = content.round
    for published, verdict in (
        (Published(), Verdict.CONSISTENT),
        (Published(root=one.root), Verdict.PARTLY),
        (Published(root=one.root, head=one.head), Verdict.PARTLY),
        (Published(root=one.root, closing=content.closing.root), Verdict.AUTHENTICATED),
        (Published(bundle=bundle.root), Verdict.AUTHENTICATED),
    ):
        assert verify_bundle(bundle.data, published, analyse=count_choices).verdict is verdict


async def test_the_closing_is_made_once_and_takes_no_exclusion_afterwards(closed: ClosedRound) -> None:
    one = await closed.round()
    assert (await closing_of(closed.store, one)).root == (await closing_of(closed.store, one)).root
    late = Exclusion(one.created_at, "late", "prompt", "p1", "after the standings", "chair")
    with pytest.raises(WrongStatus):
        await closed.store.exclude(ID, late)
    entry = AccessEntry(one.created_at, "r-0", "reviewer", "consent")
    with pytest.raises(WrongStatus):
        await closed.store.declare(ID, "r-0", ["family-1"], entry=entry, consented_at=one.created_at, aside=[late])


async def test_what_comes_after_the_closing_is_marked_and_changes_no_root(closed: ClosedRound) -> None:
    before = (await closed.content()).closing.root
    one = (await closed.store.reviewers(ID))[0]
    late = replace((await closed.store.accesses(ID))[0], action="export.audit")
    await closed.store.note_access(ID, late)
    await closed.store.update_reviewer(ID, one.id, questionnaire={"recognised": "many", "guesses": []})
    content = await closed.content()
    bundle = build_bundle(content, BundleKind.AUDIT, tools=TOOLS)
    assert content.closing.root == before
    assert verify_bundle(bundle.data, published_of(content), analyse=count_choices).faults == []
    files = files_of(bundle)
    marks = [line.get("after_closing") for line in lines_of(files, "access.jsonl")]
    assert marks == [*[None] * (len(marks) - 1), True]
    assert lines_of(files, "reviewers.jsonl")[0]["later"]["questionnaire"]["recognised"] == "many"


async def test_the_stored_chain_is_one_that_the_arithmetic_of_chains_verifies(closed: ClosedRound) -> None:
    votes, one = await closed.store.votes(ID), await closed.round()
    assert verify_chain([chained(vote) for vote in votes], round_id=ID, head=one.head, length=one.votes) is None
    assert votes[0].previous == genesis(ID)
    assert all(vote.hash == chained(vote).hash for vote in votes)


# --- what is shown to whom ----------------------------------------------------------------------------------


async def test_no_model_is_named_before_the_reveal(closed: ClosedRound) -> None:
    for kind in BundleKind:
        assert b"canary" not in build_bundle(await closed.content(), kind, tools=TOOLS).data.lower()
    await closed.reveal()
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT, tools=TOOLS))
    assert b"CANARY-alpha" in files["parts/mapping.json"]
    assert b"CANARY-alpha" in files["answers.jsonl"], "what the model wrote before redaction"


async def test_no_bundle_has_labels_and_the_public_one_nobodys_words_or_questionnaires(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    bundles = {kind: build_bundle(content, kind, tools=TOOLS).data for kind in BundleKind}
    assert not any(b"LABEL" in data for data in bundles.values())
    for words in ("a secret reason", "의견입니다", "전문 밖", 'family-2"]', "key-chair", PHONE, '"guesses"'):
        assert words.encode() in bundles[BundleKind.AUDIT], words
        assert words.encode() not in bundles[BundleKind.PUBLIC], words


async def test_personal_data_is_listed_and_kept_back_before_publishing(closed: ClosedRound) -> None:
    bundle = build_bundle(await closed.content(), BundleKind.PUBLIC, tools=TOOLS)
    listed = json.loads(files_of(bundle)["personal_data.json"])
    assert len(listed) == 3
    assert {(one["file"], one["field"], one["masked"], one["done"]) for one in listed} == {
        ("answers.jsonl", "shown", "010-****-****", "withheld")
    }


async def test_words_that_were_cleared_are_published_unless_they_hold_personal_data(closed: ClosedRound) -> None:
    last = {vote.item: vote for vote in await closed.store.votes(ID)}
    numbers = [vote.number for vote in last.values() if "comment" in vote.judgement]
    assert 1 in numbers
    content = await cleared_content(closed, numbers)
    bundle = build_bundle(content, BundleKind.PUBLIC, tools=TOOLS)
    assert verify_bundle(bundle.data, published_of(content), analyse=count_choices).faults == []
    shown = {
        line["sequence"] for line in lines_of(files_of(bundle), "votes.jsonl") if "comment" in line.get("opened", {})
    }
    assert any("not persons" in note for note in verify_bundle(bundle.data).notes)
    assert shown == set(numbers) - {1}, "the first comment holds a telephone number"


async def cleared_content(closed: ClosedRound, numbers: list[int]) -> RoundContent:
    """The round with these comments cleared by the chair."""
    given = [Clearance(number, CHAIR.at, "key-chair") for number in numbers]
    entries = {one.number: AccessEntry(one.at, one.by, "chair", "comment.clear", str(one.number)) for one in given}
    await closed.store.clear(ID, given, entry=lambda one: entries[one.number], before={RoundStatus.CLOSED})
    return await closed.content()


async def test_a_public_bundle_shows_cleared_words_and_no_others(closed: ClosedRound) -> None:
    last = {vote.item: vote for vote in await closed.store.votes(ID)}
    first, second = [vote.number for vote in last.values() if vote.judgement.get("comment") == "의견입니다"][:2]
    content = await cleared_content(closed, [first])
    audit = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    public = files_of(build_bundle(content, BundleKind.PUBLIC, tools=TOOLS))
    at = CHAIR.at.isoformat()
    assert json.loads(audit["round.json"])["clearances"] == [{"entry": first, "at": at, "by": "key-chair"}]
    assert json.loads(public["round.json"])["clearances"] == [{"entry": first, "at": at}]
    lines, whole = lines_of(public, "votes.jsonl"), lines_of(audit, "votes.jsonl")
    more = [*lines]
    more[second - 1] = whole[second - 1]
    less = [{**line, "opened": {}} if line["sequence"] == first else line for line in lines]
    for changed, number, words in ((more, second, "nobody cleared it"), (less, first, "it was cleared")):
        files = with_sheet({**public, "votes.jsonl": with_lines(changed)})
        found = verify_bundle(packed_anew(analysed_anew(files)), published_of(content), analyse=count_choices)
        assert [(fault.file, fault.place) for fault in found.faults] == [("votes.jsonl", f"entry {number}")]
        assert words in found.faults[0].message


def with_sheet(files: Files) -> Files:
    view = read_bundle(files)
    votes = whole_votes(view.records["votes"])
    return {**files, "votes.csv": votes_sheet(view.parts["items"], criteria_of(view.parts), votes)}


@pytest.mark.parametrize("kind", BundleKind)
async def test_clearances_that_cannot_have_been_given_are_found(closed: ClosedRound, kind: BundleKind) -> None:
    last = {vote.item: vote for vote in await closed.store.votes(ID)}
    number = next(vote.number for vote in last.values() if vote.judgement.get("comment") == "의견입니다")
    content = await cleared_content(closed, [number])
    silent = next(vote.number for vote in content.votes if vote.salt is None)
    (given,) = content.clearances
    for clearances, accesses, words in (
        ([given], content.accesses[:-1], "the access log has no comment.clear"),
        ([replace(given, at=BEGIN)], content.accesses, "after closing"),
        ([given, replace(given, number=silent)], content.accesses, "with free words"),
        ([given, replace(given, number=10_000)], content.accesses, "with free words"),
        ([given, given], content.accesses, "each entry once"),
    ):
        changed = replace(content, clearances=clearances, accesses=accesses)
        faults = verify_bundle(build_bundle(changed, kind, tools=TOOLS).data, published_of(changed)).faults
        assert {fault.file for fault in faults} == {"round.json"}
        assert any(words in fault.message for fault in faults)


async def test_the_sheets_open_in_spreadsheets_and_say_what_the_documents_say(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT, tools=TOOLS))
    for name in ("design.csv", "votes.csv"):
        assert files[name].startswith(b"\xef\xbb\xbf")
    assert len(files["votes.csv"].splitlines()) == 1 + (await closed.round()).votes


# --- changes by accident ------------------------------------------------------------------------------------


async def test_a_changed_byte_in_any_file_is_found_and_the_file_named(content: RoundContent) -> None:
    bundle, rng = build_bundle(content, BundleKind.AUDIT, tools=TOOLS), random.Random(5)
    files = files_of(bundle)
    for name, body in files.items():
        for _ in range(3):
            at = rng.randrange(len(body))
            changed = body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]
            found = verify_bundle(pack({**files, name: changed}, stamp(content)), published_of(content))
            assert found.verdict is Verdict.BROKEN
            assert name in places(found), f"{name} byte {at}: {found.faults}"


async def test_a_changed_byte_anywhere_in_the_archive_is_found(content: RoundContent) -> None:
    bundle, rng = build_bundle(content, BundleKind.PUBLIC, tools=TOOLS), random.Random(6)
    directory = bundle.data.index(b"PK\x01\x02")
    spots = [rng.randrange(len(bundle.data)) for _ in range(20)]
    spots += [rng.randrange(directory, len(bundle.data)) for _ in range(20)] + list(range(0, 60, 3))
    for at in spots:
        changed = bytearray(bundle.data)
        changed[at] ^= 1 << rng.randrange(8)
        found = verify_bundle(bytes(changed))
        assert found.verdict is Verdict.BROKEN, f"byte {at}"
        assert found.faults
    for data in (bundle.data + b"\0", b"\0" + bundle.data, bundle.data[:-1], b"", b"PK"):
        assert verify_bundle(data).verdict is Verdict.BROKEN


async def test_a_byte_changed_in_place_names_the_file_and_the_entry_that_it_is_in(content: RoundContent) -> None:
    bundle = build_bundle(content, BundleKind.AUDIT, tools=TOOLS)
    changed = bundle.data.replace(b'"sequence":2}', b'"sequence":9}', 1)
    faults = verify_bundle(changed, published_of(content)).faults
    assert {"the archive", "votes.jsonl"} == {fault.file for fault in faults}
    assert "entry 2" in {fault.place for fault in faults}


async def test_a_file_that_is_missing_or_came_in_is_named(content: RoundContent) -> None:
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    for name in files:
        found = verify_bundle(pack({one: body for one, body in files.items() if one != name}, stamp(content)))
        assert name in places(found)
    assert "note.txt" in places(verify_bundle(pack({**files, "note.txt": b"x"}, stamp(content))))


async def test_a_bundle_that_was_compressed_anew_is_refused_with_the_reason(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT, tools=TOOLS))
    again = io.BytesIO()
    with zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    assert "packed anew" in verify_bundle(again.getvalue()).faults[0].message


def stamp(content: RoundContent) -> datetime:
    moment = content.round.revealed_at or content.round.closed_at
    assert moment is not None
    return moment


# --- changes on purpose, by somebody who hashes everything again --------------------------------------------


def rechained(files: Files, votes: list[Any]) -> Files:
    """The chain, its sheet and head, the closing: all made to fit the changed votes."""
    previous = genesis(ID)
    for number, line in enumerate(votes, start=1):
        line["sequence"] = line["payload"]["number"] = number
        line["previous"] = previous
        line["hash"] = previous = entry_hash(number, line["payload"], previous)
    about = json.loads(files["round.json"])
    about["head"], about["votes"] = previous, len(votes)
    return {**files, "votes.jsonl": with_lines(votes), "round.json": canonical_json(about)}


def change_a_vote(files: Files) -> Files:
    votes = lines_of(files, "votes.jsonl")
    said = votes[3]["payload"]["judgement"]
    said["choice"] = "b" if said["choice"] == "a" else "a"
    return rechained(files, votes)


def drop_the_last_votes(files: Files) -> Files:
    return rechained(files, lines_of(files, "votes.jsonl")[:-5])


def add_a_vote(files: Files) -> Files:
    votes = lines_of(files, "votes.jsonl")
    again = json.loads(json.dumps(votes[-1]))
    again["payload"]["revision"] += 1
    return rechained(files, [*votes, again])


@pytest.mark.parametrize("change", [change_a_vote, drop_the_last_votes, add_a_vote])
async def test_votes_changed_with_everything_hashed_again_are_found_by_the_published_head(
    closed: ClosedRound, change: Callable[[Files], Files]
) -> None:
    content = await closed.content()
    data = packed_anew(change(files_of(build_bundle(content, BundleKind.AUDIT))))
    found = verify_bundle(data, Published(root=content.round.root, head=content.round.head))
    assert any("published head" in fault.message for fault in found.faults)
    by_closing = verify_bundle(data, Published(closing=content.closing.root))
    assert by_closing.verdict is Verdict.BROKEN


async def test_a_receipt_finds_a_changed_chain_without_any_published_head(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT))
    for change in (change_a_vote, drop_the_last_votes):
        found = verify_bundle(packed_anew(change(files)), Published(receipt=closed.receipt))
        assert "receipt" in places(found)


def resealed(files: Files, name: str, part: Any) -> Files:
    """Another part, committed to anew under a root of its own."""
    about = json.loads(files["round.json"])
    about["commitments"][name] = commit(part, salt=bytes.fromhex(about["salts"][name]))
    about["root"] = seal_root(about["commitments"])
    return {**files, f"parts/{name}.json": canonical_json(part), "round.json": canonical_json(about)}


async def test_another_seed_is_found_by_the_queues_and_by_the_root(closed: ClosedRound) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT))
    design = {**json.loads(files["parts/design.json"]), "seed_hex": "ab" * 32}
    found = verify_bundle(packed_anew(resealed(files, "design", design)), Published(root=content.round.root))
    words = " ".join(fault.message for fault in found.faults if fault.file in ("parts/design.json", "round.json"))
    assert "deals another design" in words
    assert "published root" in words


async def test_a_weight_changed_after_sealing_is_found_by_the_root_alone(closed: ClosedRound) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT))
    plan = json.loads(files["parts/plan.json"])
    plan["cut"] = 2
    only = {**files, "parts/plan.json": canonical_json(plan)}
    assert "parts/plan.json" in places(verify_bundle(packed_anew(only)))
    found = verify_bundle(packed_anew(resealed(files, "plan", plan)), Published(root=content.round.root))
    assert any("published root" in fault.message for fault in found.faults)


async def test_answers_in_each_others_place_are_found(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT))
    lines = lines_of(files, "answers.jsonl")
    one, other = [line for line in lines if line["outline"]["prompt"] == "p0"][:2]
    one["opened"]["shown"], other["opened"]["shown"] = other["opened"]["shown"], one["opened"]["shown"]
    found = verify_bundle(packed_anew({**files, "answers.jsonl": with_lines(lines)}))
    assert {"answers.jsonl"} == places(found)
    swapped = lines_of(files, "answers.jsonl")
    swapped[0]["outline"]["model"], swapped[1]["outline"]["model"] = "M03", "M03"
    assert "answers.jsonl" in places(verify_bundle(packed_anew({**files, "answers.jsonl": with_lines(swapped)})))


async def test_votes_on_something_else_than_what_was_sealed_are_named(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.PUBLIC))
    votes = lines_of(files, "votes.jsonl")
    votes[2]["payload"]["shown"]["a"] = "00" * 32
    del votes[4]["payload"]["shown"]
    faults = verify_bundle(packed_anew(rechained(files, votes))).faults
    said = {fault.place for fault in faults if "not what was sealed" in fault.message}
    assert said == {"entry 3", "entry 5"}


async def test_votes_outside_an_assignment_or_of_somebody_else_are_named(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT))
    votes = lines_of(files, "votes.jsonl")
    votes[2]["payload"]["reviewer"] = "r-99"
    votes[4]["payload"]["item"] = "ff" * 16
    votes[6]["payload"]["judgement"]["choice"] = "A"
    faults = verify_bundle(packed_anew(rechained(files, votes))).faults
    said = {place: " ".join(one.message for one in faults if one.place == place) for place in {f.place for f in faults}}
    assert "r-99" in said["entry 3"]
    assert "nobody's queue" in said["entry 5"]
    assert "expected one of" in said["entry 7"]


@pytest.mark.parametrize("name", ["exclusions.jsonl", "access.jsonl", "reviewers.jsonl"])
async def test_records_dropped_or_changed_are_found_by_the_closing(closed: ClosedRound, name: str) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT))
    dropped = {**files, name: with_lines(lines_of(files, name)[1:])}
    changed = lines_of(files, name)
    field = next(iter(changed[0]["opened"]))
    changed[0]["opened"][field]["value"] = "somebody else"
    for changed_files in (dropped, {**files, name: with_lines(changed)}):
        assert name in places(verify_bundle(packed_anew(changed_files)))


async def test_an_exclusion_added_after_the_closing_is_found(closed: ClosedRound) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT))
    lines = lines_of(files, "exclusions.jsonl")
    more = {"outline": {**lines[0]["outline"], "kind": "prompt", "subject": "p2", "rule": "late"}}
    del more["outline"]["withheld"]
    found = verify_bundle(packed_anew({**files, "exclusions.jsonl": with_lines([*lines, more])}))
    assert "exclusions.jsonl" in places(found)


async def test_another_mapping_than_the_sealed_one_is_found(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT))
    mapping = json.loads(files["parts/mapping.json"])
    mapping["M01"], mapping["M02"] = mapping["M02"], mapping["M01"]
    found = verify_bundle(packed_anew({**files, "parts/mapping.json": canonical_json(mapping)}))
    assert {"parts/mapping.json"} <= places(found)


async def test_an_analysis_that_the_votes_do_not_give_is_found(closed: ClosedRound) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    analysis = json.loads(files["analysis.json"])
    analysis["wins"]["M01"] += 0.01
    changed = packed_anew({**files, "analysis.json": canonical_json(analysis)})
    found = verify_bundle(changed, published_of(content), analyse=count_choices)
    assert places(found) == {"analysis.json"}
    assert "wins.M01" in found.faults[0].message
    unchecked = verify_bundle(changed, published_of(content))
    assert next(one for one in unchecked.checks if one.name == "analysis").state is State.NOT_CHECKED


async def test_a_provenance_made_better_is_found(closed: ClosedRound) -> None:
    files = files_of(build_bundle(await closed.content(), BundleKind.AUDIT))
    about = {**json.loads(files["round.json"]), "provenance": "real"}
    found = verify_bundle(packed_anew({**files, "round.json": canonical_json(about)}))
    assert "expected 'simulated', found 'real'" in " ".join(fault.message for fault in found.faults)


async def test_documents_of_any_other_shape_are_faults_and_never_errors(content: RoundContent) -> None:
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    for name in files:
        for other in (b"[]", b"{}", b"null", b'{"outline":{}}\n', b"\xff", b"[" * 100_000):
            found = verify_bundle(pack({**files, name: other}, stamp(content)), analyse=count_choices)
            assert found.verdict is Verdict.BROKEN, f"{name}: {other[:20]!r}"


# --- fields that are kept back ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["a", "b", "c", "d"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, JSON), st.sets(NAMES), st.sets(NAMES), st.binary(min_size=32, max_size=32))
def test_an_outline_is_the_same_whatever_is_opened_and_opens_to_the_document(
    document: Mapping[str, Any], hidden: set[str], opened: set[str], salt: bytes
) -> None:
    veiled = withhold(document, hidden, salt=salt)
    openings = read_openings(veiled.shown(opened))  # type: ignore[arg-type]
    assert unfit(veiled.outline, openings) == []
    assert joined(veiled.outline, openings) == {
        name: value for name, value in document.items() if name not in hidden or name in opened
    }
    assert joined(veiled.outline, veiled.openings) == dict(document)
    assert set(openings) == hidden & opened & set(document)


async def test_a_salt_that_is_shown_opens_no_other_field(closed: ClosedRound) -> None:
    entry = next(vote for vote in await closed.store.votes(ID) if "comment" in vote.judgement)
    veiled = veiled_entry(replace(entry, judgement={**entry.judgement, "reason": "because"}))
    assert len({opening.salt for opening in veiled.openings.values()}) == 2
    assert (await closed.store.get(ID)).status is RoundStatus.CLOSED  # type: ignore[union-attr]


# --- what no published root covers --------------------------------------------------------------------------


def exclude_a_prompt_later(files: Files) -> Files:
    lines = lines_of(files, "exclusions.jsonl")
    lines[0]["later"] = {"kind": "prompt", "subject": "p5"}
    return {**files, "exclusions.jsonl": with_lines(lines)}


def show_another_answer_later(files: Files) -> Files:
    lines = lines_of(files, "answers.jsonl")
    lines[0]["later"] = {"shown": "**another answer**"}
    return {**files, "answers.jsonl": with_lines(lines)}


def submit_later(files: Files) -> Files:
    lines = lines_of(files, "reviewers.jsonl")
    lines[0]["later"] = {"submitted_at": None, "conflicts": []}
    return {**files, "reviewers.jsonl": with_lines(lines)}


def tell_more_of_an_opening(files: Files) -> Files:
    lines = lines_of(files, "reviewers.jsonl")
    lines[0]["opened"]["conflicts"]["note"] = "x"
    return {**files, "reviewers.jsonl": with_lines(lines)}


def analysed_anew(files: Files) -> Files:
    view = read_bundle(files)
    analysis = analysis_of(view.parts, view.records, count_choices)
    return {**files, "analysis.json": canonical_json(analysis)}


@pytest.mark.parametrize(
    "change", [exclude_a_prompt_later, show_another_answer_later, submit_later, tell_more_of_an_opening]
)
async def test_what_a_line_adds_to_its_record_under_no_root_is_a_fault(
    closed: ClosedRound, change: Callable[[Files], Files]
) -> None:
    await closed.reveal()
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    changed = packed_anew(analysed_anew(change(files)))
    found = verify_bundle(changed, published_of(content), analyse=count_choices)
    assert found.verdict is Verdict.BROKEN
    assert "lines" in {check.name for check in found.checks if check.state is State.BROKEN}


async def test_a_questionnaire_written_after_the_closing_is_shown_and_changes_no_result(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    lines = lines_of(files, "reviewers.jsonl")
    for line in lines:
        line["later"] = {"questionnaire": None}
    changed = analysed_anew({**files, "reviewers.jsonl": with_lines(lines)})
    assert changed["analysis.json"] == files["analysis.json"]


async def test_before_the_reveal_nothing_of_an_answer_is_opened_but_what_reviewers_read(closed: ClosedRound) -> None:
    for kind in BundleKind:
        files = files_of(build_bundle(await closed.content(), kind, tools=TOOLS))
        opened = {name for line in lines_of(files, "answers.jsonl") for name in line.get("opened", {})}
        assert opened == {"shown"}
    revealed = build_bundle(replace_status(await closed.content()), BundleKind.AUDIT)
    early = {**files_of(revealed), "round.json": files["round.json"]}
    assert any("opened by the reveal" in fault.message for fault in verify_bundle(packed_anew(early)).faults)


def replace_status(content: RoundContent) -> RoundContent:
    return replace(content, round=replace(content.round, status=RoundStatus.REVEALED))


async def test_the_order_of_lines_hangs_on_codes_and_not_on_names(closed: ClosedRound) -> None:
    """The same round under other names: each code keeps its answers, only what the models are called is different."""
    content = await closed.content()
    other = relabelled(content)
    assert [one.shown for one in other.answers] != [one.shown for one in content.answers]
    for kind in BundleKind:
        first, second = (build_bundle(one, kind, tools=TOOLS) for one in (content, other))
        assert files_of(first)["answers.jsonl"] == files_of(second)["answers.jsonl"]
        assert first.data == second.data


async def test_sealed_answers_stand_in_the_order_of_their_codes(closed: ClosedRound) -> None:
    sealed = (await closed.content()).parts["answers"]
    keys = [(one["model"], one["prompt"]) for one in sealed]
    assert keys == sorted(keys)


def relabelled(content: RoundContent) -> RoundContent:
    names = dict(zip(MODELS, (*MODELS[1:], MODELS[0]), strict=True))
    answers = [replace(answer, model=names[answer.model]) for answer in content.answers]
    mapping = {code: {**one, "model": names[one["model"]]} for code, one in content.parts["mapping"].items()}
    return replace(
        content,
        answers=sorted(answers, key=lambda one: (one.prompt_id, one.model)),
        parts={**content.parts, "mapping": mapping},
    )


# --- the two people who opened the names ----------------------------------------------------------------------


async def test_the_bundle_says_who_opened_the_names_and_the_public_one_only_as_what(closed: ClosedRound) -> None:
    sealed = json.loads(files_of(build_bundle(await closed.content(), BundleKind.AUDIT))["round.json"])
    assert sealed["approvals"] == []
    await closed.reveal()
    content = await closed.content()
    audit, public = (
        json.loads(files_of(build_bundle(content, kind))["round.json"])["approvals"]
        for kind in (BundleKind.AUDIT, BundleKind.PUBLIC)
    )
    assert [(one["who"], one["role"]) for one in audit] == [("key-chair", "chair"), ("key-operator", "operator")]
    assert public == [{"role": one["role"], "at": one["at"]} for one in audit]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "role chair"),
        ((CHAIR,), "role operator"),
        ((CHAIR, replace(CHAIR, who="key-other")), "role operator"),
        ((CHAIR, replace(OPERATOR, at=BEGIN)), "from closing"),
        ((CHAIR, replace(OPERATOR, at=BEGIN + timedelta(days=10))), "to the reveal"),
    ],
)
async def test_names_that_two_people_did_not_open_in_time_are_found(
    closed: ClosedRound, given: tuple[Approval, ...], words: str
) -> None:
    await closed.reveal(given)
    for kind in BundleKind:
        content = await closed.content()
        faults = verify_bundle(build_bundle(content, kind, tools=TOOLS).data, published_of(content)).faults
        assert {(fault.file, fault.place.partition("[")[0]) for fault in faults} == {("round.json", "approvals")}
        assert any(words in fault.message for fault in faults)


async def test_one_person_in_both_roles_and_an_approval_that_nobody_logged_are_found(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    alone = replace(content, approvals=[CHAIR, replace(OPERATOR, who=CHAIR.who)])
    faults = verify_bundle(build_bundle(alone, BundleKind.AUDIT).data).faults
    assert any("one of them twice" in fault.message for fault in faults)
    unlogged = replace(content, accesses=[one for one in content.accesses if one.who != OPERATOR.who])
    for kind in BundleKind:
        faults = verify_bundle(build_bundle(unlogged, kind).data).faults
        assert [fault.place for fault in faults] == ["approvals[1]"]


# --- conflicts of interest ------------------------------------------------------------------------------------


async def closed_otherwise(
    closed: ClosedRound, change: Callable[[list[Exclusion]], list[Exclusion]], conflicts: Mapping[str, tuple[str, ...]]
) -> RoundContent:
    """The round as it would have been closed with other exclusions and declarations."""
    await closed.reveal()
    content = await closed.content()
    exclusions = change(list(content.exclusions))
    people = [replace(one, conflicts=conflicts.get(one.id, one.conflicts)) for one in content.reviewers]
    records = {"exclusions": exclusions, "reviewers": people, "accesses": content.accesses[: content.closing.accesses]}
    closing = close(content.round, codes=content.codes, answers=content.answers, salt=bytes(32), **records)  # type: ignore[arg-type]
    return replace(content, exclusions=exclusions, reviewers=people, closing=closing)


async def test_an_exclusion_that_a_declared_conflict_asks_for_and_is_missing_is_named(closed: ClosedRound) -> None:
    gone = (await closed.store.exclusions(ID))[1]
    content = await closed_otherwise(closed, lambda some: [one for one in some if one != gone], {})
    found = verify_bundle(build_bundle(content, BundleKind.AUDIT, tools=TOOLS).data, published_of(content))
    assert [(fault.file, fault.place) for fault in found.faults] == [("exclusions.jsonl", "")]
    assert f"item {gone.subject} is not put aside: r-1" in found.faults[0].message


async def test_an_exclusion_for_a_conflict_that_nobody_declared_is_named(closed: ClosedRound) -> None:
    item = next(one for one in await closed.store.items(ID, "r-2") if one.kind is ItemKind.VOTE)
    first = (await closed.store.exclusions(ID))[0]
    more = replace(first, subject=item.id)
    content = await closed_otherwise(closed, lambda some: [*some, more, first], {})
    faults = verify_bundle(build_bundle(content, BundleKind.AUDIT, tools=TOOLS).data, published_of(content)).faults
    last = len(content.exclusions)
    assert [(fault.file, fault.place) for fault in faults] == [
        ("exclusions.jsonl", f"line {last - 1}"),
        ("exclusions.jsonl", f"line {last}"),
    ]
    assert item.id in faults[0].message
    assert "r-2 did not declare" in faults[0].message
    assert "twice" in faults[1].message


async def test_a_declaration_changed_afterwards_does_not_fit_what_was_put_aside(closed: ClosedRound) -> None:
    content = await closed_otherwise(closed, lambda some: some, {"r-1": ("family-0",)})
    faults = verify_bundle(build_bundle(content, BundleKind.AUDIT, tools=TOOLS).data, published_of(content)).faults
    assert {fault.file for fault in faults} == {"exclusions.jsonl"}
    assert any("is not put aside" in fault.message for fault in faults)
    assert any("did not declare" in fault.message for fault in faults)


# --- what a model wrote before redaction ----------------------------------------------------------------------


async def test_before_the_reveal_nothing_says_what_a_model_wrote_to_whoever_can_ask_it_again(
    closed: ClosedRound,
) -> None:
    content = await closed.content()
    redacted = [answer for answer in content.answers if answer.redactions]
    assert redacted
    for kind in BundleKind:
        data = build_bundle(content, kind, tools=TOOLS).data
        assert not any((text_digest(answer.text) or "").encode() in data for answer in redacted)


async def test_another_text_than_the_sealed_one_is_found_from_the_reveal_on(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    first = next(n for n, answer in enumerate(content.answers) if answer.redactions)
    answers = list(content.answers)
    answers[first] = replace(answers[first], text=f"{answers[first].text} ")
    records = {
        "exclusions": content.exclusions,
        "reviewers": content.reviewers,
        "accesses": content.accesses[: content.closing.accesses],
    }
    closing = close(content.round, codes=content.codes, answers=answers, salt=bytes(32), **records)  # type: ignore[arg-type]
    changed = replace(content, answers=answers, closing=closing)
    faults = verify_bundle(build_bundle(changed, BundleKind.AUDIT, tools=TOOLS).data).faults
    assert {fault.file for fault in faults} == {"answers.jsonl"}
    assert any(fault.message.startswith("text: expected the text that was sealed") for fault in faults)


# --- what nobody can make again -----------------------------------------------------------------------------

FULL = Tools(count_choices, lambda about, analysis, parts, language: f"<h1>{language} {analysis['wins']}</h1>")


@pytest.mark.parametrize("kind", BundleKind)
async def test_a_report_that_the_analysis_does_not_give_is_found(closed: ClosedRound, kind: BundleKind) -> None:
    content = await closed.content()
    bundle = build_bundle(content, kind, tools=FULL)
    published = published_of(content)
    again = {"analyse": FULL.analyse, "report": FULL.report}
    assert verify_bundle(bundle.data, published, **again).verdict is Verdict.AUTHENTICATED
    changed = packed_anew({**files_of(bundle), "report.en.html": b"<h1>somebody else</h1>"})
    assert places(verify_bundle(changed, published, **again)) == {"report.en.html"}
    assert verify_bundle(bundle.data, published, analyse=FULL.analyse).verdict is Verdict.PARTLY


@pytest.mark.parametrize("name", ["analysis.json", "report.ko.html"])
async def test_a_bundle_without_its_result_is_not_authenticated(closed: ClosedRound, name: str) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=FULL))
    del files[name]
    found = verify_bundle(packed_anew(files), published_of(content), analyse=FULL.analyse, report=FULL.report)
    assert found.faults == []
    assert found.verdict is Verdict.PARTLY


async def test_a_file_that_no_bundle_has_is_a_fault_even_in_the_manifest(closed: ClosedRound) -> None:
    content = await closed.content()
    for kind, name in ((BundleKind.AUDIT, "personal_data.json"), (BundleKind.PUBLIC, "blinding.json")):
        files = files_of(build_bundle(content, kind, tools=TOOLS))
        found = verify_bundle(packed_anew({**files, name: b"{}"}), published_of(content), analyse=count_choices)
        assert places(found) == {name}


async def test_an_audit_bundle_that_keeps_something_back_is_found(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.AUDIT, tools=TOOLS))
    lines = lines_of(files, "reviewers.jsonl")
    del lines[0]["opened"]["questionnaire"]
    changed = packed_anew(analysed_anew({**files, "reviewers.jsonl": with_lines(lines)}))
    found = verify_bundle(changed, published_of(content), analyse=count_choices)
    assert places(found) == {"reviewers.jsonl"}


async def test_the_public_bundle_counts_conflicts_and_does_not_say_whose_they_are(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    public, audit = (
        lines_of(files_of(build_bundle(content, kind)), "exclusions.jsonl")
        for kind in (BundleKind.PUBLIC, BundleKind.AUDIT)
    )
    assert {line["outline"]["rule"] for line in public} == {"conflict"}
    assert not any({"subject", "at"} & {*line["outline"], *line.get("opened", {})} for line in public)
    assert {"subject", "at"} <= set(audit[0]["opened"])


async def test_what_reviewers_were_shown_is_what_the_sealed_lexicon_leaves_of_the_answer(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    names = [check.name for check in verify_bundle(build_bundle(content, BundleKind.AUDIT).data).checks]
    assert "redaction" in names
    part = [row for row in content.parts["lexicon"] if row[0] not in PRODUCTS]
    files = resealed(files_of(build_bundle(content, BundleKind.AUDIT)), "lexicon", part)
    faults = verify_bundle(packed_anew(files)).faults
    assert any("redacted again" in fault.message for fault in faults)


async def test_a_round_that_older_rules_redacted_is_not_called_broken(closed: ClosedRound) -> None:
    await closed.reveal()
    content = await closed.content()
    (_, version), *rows = content.parts["lexicon"]
    files = resealed(files_of(build_bundle(content, BundleKind.AUDIT)), "lexicon", [["lexicon", version - 1], *rows])
    (check,) = (one for one in verify_bundle(packed_anew(files)).checks if one.name == "redaction")
    assert (check.state, check.faults) == (State.NOT_CHECKED, ())
    assert f"rules of version {version - 1}, here they are of version {version}" in (check.why or "")


async def test_a_public_bundle_keeps_no_answer_back_without_saying_why(closed: ClosedRound) -> None:
    content = await closed.content()
    files = files_of(build_bundle(content, BundleKind.PUBLIC, tools=TOOLS))
    lines = lines_of(files, "answers.jsonl")
    place = next(n for n, line in enumerate(lines) if "shown" in line.get("opened", {}))
    del lines[place]["opened"]
    changed = packed_anew(analysed_anew({**files, "answers.jsonl": with_lines(lines)}))
    assert places(verify_bundle(changed, published_of(content), analyse=count_choices)) == {"answers.jsonl"}
    told_otherwise = packed_anew({**files, "personal_data.json": b"[]"})
    assert verify_bundle(told_otherwise, published_of(content), analyse=count_choices).verdict is Verdict.BROKEN
