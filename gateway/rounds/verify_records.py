"""Whether a bundle's votes are the chain that was published, and its other records those that the closing covers.

Each function gives the faults that it finds and never raises for a bundle's own contents, but what `verify` catches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.domain.canonical_json import read_canonical
from gateway.domain.hash_chain import entry_hash, genesis
from gateway.domain.rounds import Choice
from gateway.domain.withheld import WITHHELD, read_openings, unfit
from gateway.rounds.bundle import (
    ABOUT,
    AFTER_CLOSING_FIELDS,
    BEFORE_REVEAL,
    FINDINGS,
    VOTES,
    BundleKind,
    criteria_of,
    part_findings,
    whole_record,
    whole_votes,
)
from gateway.rounds.bundle_view import BundleView, Fault, listed
from gateway.rounds.chain import sealed_digests
from gateway.rounds.closing import (
    ACCESSES,
    ANSWERS,
    EXCLUSIONS,
    KEEPABLE,
    RECORDS,
    REVIEWERS,
    closed_round,
    digests_and_root,
)
from gateway.rounds.conflicts import CONFLICT
from gateway.rounds.sealed import ITEMS
from gateway.rounds.sheets import votes_sheet

_CHAIN = "votes.jsonl"
_RECEIPT_KIND = "simsa.review.receipt.v1"


def chain_faults(view: BundleView, head: str | None) -> list[Fault]:
    """Every entry that does not follow, or does not hash to what it says; then the end of the chain."""
    previous, faults = genesis(view.about["id"]), []
    for number, line in enumerate(view.records[VOTES], start=1):
        place = f"entry {number}"
        if line["sequence"] != number or line["payload"]["number"] != number:
            faults.append(Fault(_CHAIN, place, f"expected number {number}, found {line['sequence']}"))
        if line["previous"] != previous:
            faults.append(Fault(_CHAIN, place, f"it follows {line['previous']}, but the one before is {previous}"))
        made = entry_hash(number, line["payload"], line["previous"])
        if made != line["hash"]:
            faults.append(Fault(_CHAIN, place, f"it hashes to {made}, not to {line['hash']}: it was changed"))
        faults += _opening_faults(_CHAIN, place, line["payload"]["judgement"], line)
        previous = line["hash"]
    count = len(view.records[VOTES])
    faults = listed(faults)
    if count != view.about["votes"]:
        faults.append(Fault(_CHAIN, "", f"expected {view.about['votes']} entries, found {count}"))
    if previous != view.about["head"]:
        faults.append(Fault(_CHAIN, "", f"the chain ends in {previous}, and {ABOUT} says {view.about['head']}"))
    if head is not None and previous != head:
        faults.append(Fault(_CHAIN, "", f"the chain ends in {previous}, not in the published head {head}"))
    return faults


def vote_faults(view: BundleView) -> list[Fault]:
    """Each vote stands inside an assignment, is its reviewer's, and says what the rubric asks."""
    asked = {item["id"]: item["reviewer"] for item in view.parts[ITEMS]}
    criteria, revisions = set(criteria_of(view.parts)), Counter[str]()
    faults = []
    for line in view.records[VOTES]:
        vote = line["payload"]
        place, item = f"entry {vote['number']}", vote["item"]
        if item not in asked:
            faults.append(Fault(_CHAIN, place, f"item {item} is in nobody's queue"))
        elif asked[item] != vote["reviewer"]:
            faults.append(Fault(_CHAIN, place, f"item {item} is {asked[item]}'s, the vote {vote['reviewer']}'s"))
        revisions[item] += 1
        if vote["revision"] != revisions[item]:
            faults.append(Fault(_CHAIN, place, f"expected revision {revisions[item]}, found {vote['revision']}"))
        if (words := _misjudged(vote["judgement"], criteria)) is not None:
            faults.append(Fault(_CHAIN, place, words))
    sheet = votes_sheet(view.parts[ITEMS], criteria_of(view.parts), whole_votes(view.records[VOTES]))
    if view.files.get("votes.csv") != sheet:
        faults.append(Fault("votes.csv", "", "expected what votes.jsonl says, found something else"))
    return listed(faults)


def shown_faults(view: BundleView) -> list[Fault]:
    """Each vote judges what was sealed to be shown for its item."""
    sealed = sealed_digests(view.parts)
    return listed(
        Fault(_CHAIN, f"entry {vote['number']}", f"what was shown of item {vote['item']} is not what was sealed")
        for vote in (line["payload"] for line in view.records[VOTES])
        if vote["item"] in sealed and vote.get("shown") != sealed[vote["item"]]
    )


def _misjudged(judgement: Mapping[str, Any], criteria: set[str]) -> str | None:
    choice, grades = judgement.get("choice"), judgement.get("grades", {})
    if choice is not None and choice not in {one.value for one in Choice}:
        return f"choice: expected one of {', '.join(Choice)}, found {choice!r}"
    for name, grade in grades.items():
        if name not in criteria or type(grade) is not int or not -2 <= grade <= 2:
            return f"grades.{name}: expected a criterion of the rubric and a grade from -2 to 2, found {grade!r}"
    return None


def closing_faults(view: BundleView, closing: str | None) -> list[Fault]:
    """Exclusions, accesses, reviewers and answers against what was committed to when the round was closed."""
    said = view.about["closing"]
    outlines = {name: [line["outline"] for line in view.records[name]] for name in RECORDS}
    for name in RECORDS:
        outlines[name] = outlines[name][: said["counts"][name]]
    made = digests_and_root(closed_round(view.about), outlines)
    faults = [
        Fault(_file_of(name), "", f"it is not what the closing covers: its digest is {digest}")
        for name, digest in made["digests"].items()
        if said["digests"].get(name) != digest
    ]
    if made["root"] != said["root"]:
        faults.append(Fault(ABOUT, "closing.root", f"the records make {made['root']}, and it says {said['root']}"))
    for name, due in (("at", view.about["moments"]["closed_at"]), ("votes", view.about["votes"])):
        if said[name] != due:
            faults.append(Fault(ABOUT, f"closing.{name}", f"expected {due}, found {said[name]}"))
    if closing is not None and said["root"] != closing:
        faults.append(Fault(ABOUT, "closing.root", f"expected the published {closing}, found {said['root']}"))
    return [*faults, *_late_faults(view, said["counts"])]


def _late_faults(view: BundleView, counts: Mapping[str, int]) -> Iterator[Fault]:
    """After the closing only accesses are added, each marked."""
    for name in RECORDS:
        count = len(view.records[name])
        if count < counts[name] or (count > counts[name] and name != ACCESSES):
            yield Fault(_file_of(name), "", f"expected the closing's {counts[name]} lines, found {count}")
    for number, line in enumerate(view.records[ACCESSES], start=1):
        if line.get("after_closing", False) is not (number > counts[ACCESSES]):
            yield Fault(_file_of(ACCESSES), f"line {number}", "expected 'after_closing' on what came after")


def _file_of(name: str) -> str:
    return f"{name}.jsonl" if name in RECORDS else ABOUT


def opening_faults(view: BundleView) -> list[Fault]:
    """Every field that a record opens is the one that was committed to, and may be opened by now."""
    return listed(
        fault
        for name in RECORDS
        for number, line in enumerate(view.records[name], start=1)
        for fault in (
            *_opening_faults(f"{name}.jsonl", f"line {number}", line["outline"], line),
            *_early_faults(view, name, number, line),
            *_closed_faults(view, name, number, line),
        )
    )


def _closed_faults(view: BundleView, name: str, number: int, line: Mapping[str, Any]) -> Iterator[Fault]:
    """An audit bundle keeps nothing back that it may open: a result could be bent by what is left out."""
    if view.about["bundle"] != BundleKind.AUDIT.value or (name == ANSWERS and not view.is_revealed):
        return
    for one in sorted(set(line["outline"].get(WITHHELD, {})) - set(line.get("opened", {}))):
        yield Fault(f"{name}.jsonl", f"line {number}", f"{one}: an audit bundle opens it, this one does not")


def _early_faults(view: BundleView, name: str, number: int, line: Mapping[str, Any]) -> Iterator[Fault]:
    early = [] if view.is_revealed or name != ANSWERS else sorted(set(line.get("opened", {})) - set(BEFORE_REVEAL))
    for one in early:
        yield Fault(f"{name}.jsonl", f"line {number}", f"{one}: it is opened by the reveal, which has not been")


def finding_faults(view: BundleView) -> list[Fault]:
    """Of a public bundle: what it keeps back of answers is listed as personal data, and what stays in it too.

    The masked forms of what is kept back are the gateway's word: the words themselves are not here.
    """
    listed_findings: Any = read_canonical(view.files[FINDINGS])
    kept = [one for one in listed_findings if one["done"] == "kept"]
    found = part_findings(view.parts)
    faults = [] if kept == found else [Fault(FINDINGS, "", "expected what is found in the sealed parts, found another")]
    withheld = {(one["file"], one["line"], one["field"]) for one in listed_findings if one["done"] == "withheld"}
    for number, line in enumerate(view.records[ANSWERS], start=1):
        due = set(KEEPABLE[ANSWERS] if view.is_revealed else BEFORE_REVEAL) & set(line["outline"].get(WITHHELD, {}))
        for name in sorted(due - set(line.get("opened", {}))):
            if (f"{ANSWERS}.jsonl", number, name) not in withheld:
                words = f"{name}: it is kept back, and {FINDINGS} does not say why"
                faults.append(Fault(f"{ANSWERS}.jsonl", f"line {number}", words))
    return listed(faults)


_LINE = {
    **dict.fromkeys(RECORDS, frozenset({"outline", "opened"})),
    ACCESSES: frozenset({"outline", "opened", "after_closing"}),
    REVIEWERS: frozenset({"outline", "opened", "later"}),
    VOTES: frozenset({"sequence", "payload", "previous", "hash", "opened"}),
}
"""What a line may consist of. All of it is checked, so anything else would say what nobody checks."""
_OPENED = frozenset({"salt", "value"})


def line_faults(view: BundleView) -> list[Fault]:
    """Every line has the fields of its kind and no other; only a reviewer's has some that changed later."""
    return listed(
        Fault(f"{name}.jsonl", f"line {number}", words)
        for name, known in _LINE.items()
        for number, line in enumerate(view.records[name], start=1)
        for words in _odd_fields(line, known)
    )


def _odd_fields(line: Mapping[str, Any], known: frozenset[str]) -> Iterator[str]:
    yield from (f"{name}: no line of this kind has such a field" for name in sorted(set(line) - known))
    for name in sorted(set(line.get("later", {})) - set(AFTER_CLOSING_FIELDS)):
        yield f"later.{name}: it cannot change after the closing"
    for name, one in sorted(line.get("opened", {}).items()):
        if set(one) != _OPENED:
            yield f"opened.{name}: expected a salt and a value, found {', '.join(sorted(one))}"


def _opening_faults(file: str, place: str, outline: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[Fault]:
    for name in unfit(outline, read_openings(line.get("opened", {}))):
        yield Fault(file, place, f"{name}: it is not what was committed to")


def subject_faults(view: BundleView) -> list[Fault]:
    """Exclusions name what there is; reviewers are those who were sealed."""
    items = {item["id"] for item in view.parts[ITEMS]}
    strata = {one["id"]: one["stratum"] for one in view.parts["reviewers"]}
    known = {"item": items, "reviewer": set(strata), "prompt": {one["id"] for one in view.parts["prompts"]}}
    faults = []
    for number, line in enumerate(view.records[EXCLUSIONS], start=1):
        one = whole_record(line)
        if "subject" not in one and one["rule"] == CONFLICT and view.about["bundle"] == BundleKind.PUBLIC.value:
            continue
        if one["subject"] not in known.get(one["kind"], ()):
            words = f"there is no {one['kind']} {one['subject']} in this round"
            faults.append(Fault("exclusions.jsonl", f"line {number}", words))
    people = {line["outline"]["id"]: line["outline"]["stratum"] for line in view.records[REVIEWERS]}
    if people != strata or len(view.records[REVIEWERS]) != len(strata):
        faults.append(Fault("reviewers.jsonl", "", "expected the reviewers of parts/reviewers.json, found others"))
    return listed(faults)


def receipt_faults(view: BundleView, receipt: Mapping[str, Any]) -> list[Fault]:
    """What a reviewer was given when they submitted, against the chain: nothing changed, dropped or added since."""
    file = "receipt"
    if receipt.get("kind") != _RECEIPT_KIND:
        return [Fault(file, "kind", f"expected {_RECEIPT_KIND}, found {receipt.get('kind')!r}")]
    faults = [
        Fault(file, name, f"it is of {receipt[name]}, the bundle of {found}")
        for name, found in (("round", view.about["id"]), ("root", view.about["root"]))
        if receipt[name] != found
    ]
    hashes = {line["sequence"]: line["hash"] for line in view.records[VOTES]}
    given = [(f"item {item['item']}", item["number"], item["hash"]) for item in receipt["items"]]
    head = receipt["head"]
    for place, number, digest in [*given, ("head", head["number"], head["hash"])]:
        if number and hashes.get(number) != digest:
            faults.append(Fault(file, place, f"entry {number}: the receipt says {digest}, found {hashes.get(number)}"))
    own = {item["item"]: item["number"] for item in receipt["items"]}
    for line in view.records[VOTES]:
        vote = line["payload"]
        if vote["reviewer"] == receipt["reviewer"] and vote["number"] > own.get(vote["item"], 0):
            faults.append(Fault(_CHAIN, f"entry {vote['number']}", "it is the reviewer's, and their receipt lacks it"))
    return faults
