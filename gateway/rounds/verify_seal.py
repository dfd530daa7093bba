"""Whether what a bundle shows of a round's beginning is what was sealed: parts, queues from the seed, answers.

Each function gives the faults that it finds and never raises for a bundle's own contents, but what `verify` catches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.domain import review_design
from gateway.domain.canonical_json import read_canonical
from gateway.domain.lexicon import VERSION, Kind, Lexicon, Name
from gateway.domain.rounds import AnswerStatus
from gateway.domain.sealing import Opening, check_seal, seal_root
from gateway.domain.withheld import joined, read_openings
from gateway.rounds.answering import weakest_of
from gateway.rounds.bundle import ABOUT, LOCK, lock_document
from gateway.rounds.bundle_view import BundleView, Fault, difference, listed
from gateway.rounds.closing import ANSWERS, codes_of, read_text
from gateway.rounds.redacting import redact_answer
from gateway.rounds.sealed import ITEMS, MAPPING, PARTS, deal, text_commitment, text_digest
from gateway.rounds.sheets import design_sheet


class OtherRules(Exception):
    """What was sealed was made by rules that this version does not have; the message says which and where they are."""


_ANSWER = ("model", "prompt", "status", "provenance", "shown_sha256")


def seal_faults(view: BundleView, root: str | None) -> list[Fault]:
    """Parts against their commitments, commitments against the root, and the root against the published one."""
    about = view.about
    commitments: Mapping[str, str] = about["commitments"]
    openings = {
        name: Opening(bytes.fromhex(about["salts"][name]), part)
        for name, part in view.parts.items()
        if name in about["salts"]
    }
    check = check_seal(commitments, openings, about["root"])
    faults = [
        Fault(f"parts/{name}.json", "", f"it is not what was sealed as '{name}': its commitment is {commitments[name]}")
        for name in check.altered
    ]
    faults += [Fault(f"parts/{name}.json", "", "it was never sealed") for name in check.unknown]
    if not check.root_holds:
        made = seal_root(commitments)
        faults.append(Fault(ABOUT, "commitments", f"they make the root {made}, not {about['root']}"))
    if root is not None and about["root"] != root:
        faults.append(Fault(ABOUT, "root", f"expected the published root {root}, found {about['root']}"))
    return [*faults, *_missing(view, commitments, openings)]


def _missing(view: BundleView, commitments: Mapping[str, str], openings: Mapping[str, Opening]) -> Iterator[Fault]:
    for name in PARTS:
        is_due = name != MAPPING or view.is_revealed
        if name not in commitments:
            yield Fault(ABOUT, "commitments", f"expected one of '{name}', found none")
        elif is_due and name not in openings:
            yield Fault(f"parts/{name}.json", "", "expected this part and its salt, found none that can be read")
        elif not is_due and name in openings:
            yield Fault(f"parts/{name}.json", "", "it is opened by the reveal, and this round is not revealed")


def about_faults(view: BundleView) -> list[Fault]:
    """What round.json and analysis.lock say of the round, against the parts that were sealed."""
    plan, about, design = view.parts["plan"], view.about, view.parts["design"]
    found = {one["provenance"] for one in view.parts["answers"] if one["status"] == AnswerStatus.OK.value}
    expected = {
        "id": plan["round"]["id"],
        "name": plan["round"]["name"],
        "title": plan["title"],
        "kind": plan["kind"],
        "retention_until": plan["retention_until"],
        "provenance": weakest_of(found),
    }
    words = difference(expected, {name: about[name] for name in expected})
    faults = [] if words is None else [Fault(ABOUT, "", f"it is not what was sealed: {words}")]
    lock: Any = read_canonical(view.files[LOCK])
    words = difference(lock_document(plan, design), {name: one for name, one in lock.items() if name != "versions"})
    return faults if words is None else [*faults, Fault(LOCK, "", f"it is not what was sealed: {words}")]


def design_faults(view: BundleView) -> list[Fault]:
    """The queues dealt again from the sealed seed, and the sheet that shows them."""
    design = view.parts["design"]
    faults = []
    words = difference(review_design.design_document(deal(design)), design)
    if words is not None:
        faults.append(Fault("parts/design.json", "", f"the seed {design['seed_hex']} deals another design: {words}"))
    if view.files.get("design.csv") != design_sheet(design):
        faults.append(Fault("design.csv", "", "expected what parts/design.json says, found something else"))
    people = [(one["id"], one["stratum"]) for one in design["reviewers"]]
    if people != [(one["id"], one["stratum"]) for one in view.parts["reviewers"]]:
        faults.append(Fault("parts/design.json", "reviewers", "expected those of parts/reviewers.json, found others"))
    return faults


def item_faults(view: BundleView) -> list[Fault]:
    """The items that reviewers were asked, against the queues of the design."""
    expected, found = _expected_items(view.parts), view.parts[ITEMS]
    file = f"parts/{ITEMS}.json"
    if len(expected) != len(found):
        return [Fault(file, "", f"expected the design's {len(expected)} items, found {len(found)}")]
    ids = {(item["reviewer"], item["position"]): item["id"] for item in found}
    faults = []
    if len({item["id"] for item in found}) != len(found):
        faults.append(Fault(file, "", "expected an id of its own for each item, found one twice"))
    for place, (one, item) in enumerate(zip(expected, found, strict=True)):
        repeated = one["repeat_of"]
        due = {**one, "repeat_of": None if repeated is None else ids.get((one["reviewer"], repeated))}
        words = difference(due, {name: value for name, value in item.items() if name != "id"})
        if words is not None:
            faults.append(Fault(file, f"item {place}", f"it is not the design's: {words}"))
    return listed(faults)


def _expected_items(parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Items as the design has them, without ids; `repeat_of` is a position, from 0."""
    better = {item["id"]: item["better"] for item in parts["practice"]["attention"]}
    return [
        {
            "reviewer": queue["reviewer"],
            "position": item["position"] - 1,
            "kind": item["kind"],
            "prompt": item["prompt"],
            "left": _side(item["model_left"], item["prompt"], better),
            "right": _side(item["model_right"], item["prompt"], better),
            "repeat_of": None if item["repeat_of"] is None else item["repeat_of"] - 1,
            "shared": item["shared"],
        }
        for queue in parts["design"]["queues"]
        for item in queue["items"]
    ]


def _side(name: str, prompt: str, better: Mapping[str, str]) -> str:
    if name == review_design.SOUND:
        return better[prompt]
    if name == review_design.BROKEN:
        return {"a": "b", "b": "a"}[better[prompt]]
    return name


def answer_faults(view: BundleView) -> list[Fault]:
    """The answers' records against the sealed ones, and every text that is shown against its digest."""
    sealed = {(one["model"], one["prompt"]): one for one in view.parts["answers"]}
    faults, seen = [], set()
    for number, line in enumerate(view.records[ANSWERS], start=1):
        place, outline = f"line {number}", line["outline"]
        key = (outline["model"], outline["prompt"])
        due = sealed.get(key)
        if due is None or key in seen:
            faults.append(Fault("answers.jsonl", place, f"expected one sealed answer of {key[0]} to {key[1]}"))
            continue
        seen.add(key)
        expected = {**{name: due[name] for name in _ANSWER}, "redacted": due["redactions"]}
        words = difference(expected, {name: outline[name] for name in expected})
        if words is not None:
            faults.append(Fault("answers.jsonl", place, f"it is not the answer that was sealed: {words}"))
        faults += _text_faults(view, place, due, line)
    faults += [
        Fault("answers.jsonl", "", f"expected the sealed answer of {model} to {prompt}, found none")
        for model, prompt in sealed
        if (model, prompt) not in seen
    ]
    return listed(faults)


def redaction_faults(view: BundleView) -> list[Fault]:
    """Once the answers' own words are opened: redacting them again gives what reviewers were shown.

    Raises OtherRules where that cannot be tried here.
    """
    lexicon = read_lexicon(view.parts["lexicon"])
    prompts = {one["id"]: one["text"] for one in view.parts["prompts"]}
    faults = []
    for number, line in enumerate(view.records[ANSWERS], start=1):
        whole = joined(line["outline"], read_openings(line.get("opened", {})))
        text = read_text(whole.get("text"))
        if text is None:
            continue
        made = redact_answer(text, lexicon, prompt_text=prompts[whole["prompt"]]).text
        if text_digest(made) != whole["shown_sha256"]:
            words = "redacted again with the sealed lexicon, its text is not what reviewers were shown"
            faults.append(Fault("answers.jsonl", f"line {number}", words))
    return listed(faults)


def read_lexicon(part: Sequence[Sequence[Any]]) -> Lexicon:
    """The lexicon that `Lexicon.canonical` wrote. Raises OtherRules for another version, ValueError for none."""
    (head, version), *rows = part
    if head != "lexicon" or not isinstance(version, int):
        raise ValueError(f"expected a lexicon, found {head} {version}")
    if version != VERSION:
        raise OtherRules(
            f"the round was redacted by rules of version {version}, here they are of version {VERSION}: "
            "verify it with the Simsa that sealed it"
        )
    return Lexicon(tuple(Name(text, owner, Kind(kind), *flags) for text, owner, kind, *flags in rows))


def _text_faults(view: BundleView, place: str, due: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[Fault]:
    """What is opened of an answer, against the sealed one, `due`."""
    whole = joined(line["outline"], read_openings(line.get("opened", {})))
    if "shown" in whole and text_digest(read_text(whole["shown"])) != due["shown_sha256"]:
        yield Fault("answers.jsonl", place, f"shown: expected the text of {due['shown_sha256']}")
    if "text" in whole and MAPPING in view.about["salts"]:
        salt, text = bytes.fromhex(view.about["salts"][MAPPING]), read_text(whole["text"])
        if text_commitment(text, code=due["model"], prompt=due["prompt"], salt=salt) != due["text_commitment"]:
            yield Fault("answers.jsonl", place, f"text: expected the text that was sealed as {due['text_commitment']}")
    redactions = whole.get("redactions")
    if isinstance(redactions, Sequence) and len(redactions) != due["redactions"]:
        yield Fault("answers.jsonl", place, f"expected {due['redactions']} redactions, found {len(redactions)}")


def mapping_faults(view: BundleView) -> list[Fault]:
    """Once the names are open: one name behind each code of the plan."""
    codes = codes_of(view.parts[MAPPING])
    if sorted(codes.values()) == sorted(view.parts["plan"]["models"]):
        return []
    return [Fault(f"parts/{MAPPING}.json", "", "expected a model of its own behind each code of the plan")]
