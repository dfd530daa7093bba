"""What is promised hidden can be checked later, offline, and whatever was changed is named."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.canonical_json import LARGEST_INTEGER, Json, canonical_json, read_canonical
from gateway.domain.hash_chain import (
    Entry,
    FaultKind,
    append,
    receipt_for,
    verify_chain,
    verify_receipt,
)
from gateway.domain.merkle import InclusionProof, inclusion_proof, is_included, merkle_root
from gateway.domain.sealing import Opening, check_seal, commit, digest, is_sealed, opens, prove_commitment, seal_root

ROUND = "round-1"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
SALTS = st.binary(min_size=32, max_size=32)


# --- canonical JSON -----------------------------------------------------------------------------------------

# RFC 8785, appendix B: the bits of a double and how it is written.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "written"), NUMBERS)
def test_numbers_are_written_as_ecmascript_does(bits: str, written: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value).decode() == written


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself_and_as_nothing_else(value: float) -> None:
    written = canonical_json(value).decode()
    assert float(written) == value
    assert "E" not in written
    assert not written.endswith(".0")


def test_the_example_of_the_specification_comes_out_byte_for_byte() -> None:
    value: Json = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert (
        canonical_json(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_keys_stand_in_the_order_of_their_utf_16_code_units() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    written = canonical_json(dict.fromkeys(keys, 0)).decode()
    assert list(json.loads(written)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(VALUES)
def test_what_was_written_is_json_and_reads_back_to_the_same_bytes(value: Json) -> None:
    written = canonical_json(value)
    json.loads(written)
    assert canonical_json(read_canonical(written)) == written


@pytest.mark.parametrize(
    "written",
    [
        b"1 ",
        b"1.0",
        b"-0",
        b"1E3",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'"\\u0041"',
        b"NaN",
        b"[",
        b"\xff",
        b"[" * 90000,
    ],
)
def test_what_is_written_in_another_way_is_refused(written: bytes) -> None:
    with pytest.raises(ValueError):
        read_canonical(written)


@given(st.dictionaries(TEXT, SCALARS, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, Json], random: object) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([math.nan], r"\$\[0\]: expected a finite number"),
        ({"a": math.inf}, r"\$\.a: expected a finite number"),
        (2**53, r"2\*\*53"),
        (-(2**53), r"2\*\*53"),
        ("\ud800", "lone surrogate"),
        ({"\udc00": 1}, "lone surrogate"),
        ({1: 2}, "keys of text"),
        ({"a": [b"x"]}, r"\$\.a\[0\]: expected a value of JSON, got bytes"),
    ],
)
def test_what_is_not_json_to_everybody_is_refused_by_place(value: Json, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        canonical_json(value)


# --- commitments --------------------------------------------------------------------------------------------


def test_a_commitment_is_the_hash_of_salt_and_value() -> None:
    salt = bytes(range(32))
    by_hand = sha256(b'{"salt":"' + salt.hex().encode() + b'","value":{"a":1}}').hexdigest()
    assert commit({"a": 1}, salt=salt) == by_hand


@given(VALUES, SALTS, VALUES, SALTS)
def test_a_commitment_opens_to_what_was_committed_and_to_nothing_else(
    value: Json, salt: bytes, other: Json, other_salt: bytes
) -> None:
    commitment = commit(value, salt=salt)
    assert opens(commitment, Opening(salt, value))
    same = canonical_json(value) == canonical_json(other)
    assert opens(commitment, Opening(salt, other)) == same
    assert opens(commitment, Opening(other_salt, value)) == (salt == other_salt)


def test_a_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 32 bytes, got 16"):
        commit(1, salt=bytes(16))
    assert not opens(commit(1, salt=bytes(32)), Opening(bytes(16), 1))


@given(st.dictionaries(TEXT, st.tuples(SALTS, VALUES), min_size=1, max_size=7), st.data())
def test_a_seal_holds_and_names_whatever_was_altered(shown: dict[str, tuple[bytes, Json]], data: st.DataObject) -> None:
    openings = {name: Opening(salt, value) for name, (salt, value) in shown.items()}
    commitments = {name: commit(opening.value, salt=opening.salt) for name, opening in openings.items()}
    root = seal_root(commitments)
    assert check_seal(commitments, openings, root).holds
    assert seal_root(dict(reversed(commitments.items()))) == root
    name = data.draw(st.sampled_from(sorted(openings)))
    proof = prove_commitment(commitments, name)
    assert is_sealed(name, commitments[name], proof, root)
    assert not is_sealed(name, digest("other"), proof, root)
    assert not is_sealed(name + "x", commitments[name], proof, root)
    assert not is_sealed(name, commitments[name], proof, "no root")
    altered = check_seal(commitments, {**openings, name: replace(openings[name], value=["other"])}, root)
    assert (altered.altered, altered.root_holds) == ((name,), True)
    recommitted = check_seal({**commitments, name: digest("other")}, {}, root)
    assert not recommitted.root_holds
    assert check_seal(commitments, {"new " + max(openings, key=len): openings[name]}, root).unknown


def test_a_name_that_is_not_sealed_cannot_be_proved() -> None:
    with pytest.raises(ValueError, match="expected one of design, rubric, got prompts"):
        prove_commitment({"rubric": "00", "design": "11"}, "prompts")


# --- the tree -----------------------------------------------------------------------------------------------


def test_roots_are_those_of_the_specification() -> None:
    # The first leaves of the test data published with Certificate Transparency.
    leaves = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43"]
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle_root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle_root(leaves[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(leaves).hex() == "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_every_leaf_is_proved_at_its_own_place_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    root = merkle_root(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = inclusion_proof(leaves, index)
    assert is_included(leaves[index], proof, root)
    assert not is_included(leaves[index] + b"x", proof, root)
    other = data.draw(st.integers(0, len(leaves) - 1))
    if leaves[other] != leaves[index]:
        assert not is_included(leaves[other], proof, root)
    assert not is_included(leaves[index], replace(proof, siblings=(*proof.siblings, root)), root)
    if proof.siblings:
        assert not is_included(leaves[index], replace(proof, siblings=proof.siblings[:-1]), root)
        at = data.draw(st.integers(0, len(proof.siblings) - 1))
        changed = bytearray(proof.siblings[at])
        changed[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
        siblings = (*proof.siblings[:at], bytes(changed), *proof.siblings[at + 1 :])
        assert not is_included(leaves[index], replace(proof, siblings=siblings), root)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    leaves = [b"a", b"b"]
    node = sha256(b"\x00a").digest() + sha256(b"\x00b").digest()
    assert not is_included(node, InclusionProof(0, 1, ()), merkle_root(leaves))


def test_an_absurd_proof_is_refused_unread() -> None:
    assert not is_included(b"a", InclusionProof(0, 2**5000, (bytes(32),) * 5000), bytes(32))
    assert not is_included(b"a", InclusionProof(1, 1, ()), merkle_root([b"a"]))
    with pytest.raises(ValueError, match="expected 0 to 0, got 1"):
        inclusion_proof([b"a"], 1)


# --- the chain ----------------------------------------------------------------------------------------------


def chain(payloads: list[Json]) -> list[Entry]:
    entries: list[Entry] = []
    for payload in payloads:
        entries.append(append(payload, after=entries[-1] if entries else None, round_id=ROUND))
    return entries


PAYLOADS = st.lists(st.dictionaries(TEXT, SCALARS, max_size=2), min_size=1, max_size=8)


@given(PAYLOADS)
def test_a_chain_as_it_was_made_holds(payloads: list[Json]) -> None:
    entries = chain(payloads)
    assert verify_chain(entries, round_id=ROUND, head=entries[-1].hash, length=len(entries)) is None
    assert verify_chain([], round_id=ROUND, length=0) is None
    fault = verify_chain(entries, round_id="round-2")
    assert fault is not None
    assert (fault.sequence, fault.kind) == (1, FaultKind.UNLINKED)


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_one_changed_byte_anywhere_is_found_and_its_place_named(texts: list[str], data: st.DataObject) -> None:
    lines = [
        canonical_json([entry.sequence, entry.payload, entry.previous, entry.hash]) for entry in chain(list(texts))
    ]
    at = data.draw(st.integers(0, len(lines) - 1))
    byte = data.draw(st.integers(0, len(lines[at]) - 1))
    changed = bytearray(lines[at])
    changed[byte] ^= data.draw(st.integers(1, 255))
    assert place_of_fault([*lines[:at], bytes(changed), *lines[at + 1 :]]) == at + 1


def place_of_fault(lines: list[bytes]) -> int | None:
    """The first line that is not canonical, or the chain's first fault."""
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            sequence, payload, previous, hashed = read_canonical(line)  # type: ignore[misc,union-attr]
        except (ValueError, TypeError):
            return number
        entries.append(Entry(sequence, payload, previous, hashed))  # type: ignore[arg-type]
    fault = verify_chain(entries, round_id=ROUND)
    return None if fault is None else fault.sequence


@given(PAYLOADS, st.data())
def test_a_payload_with_its_hash_made_anew_breaks_the_next_entry_or_the_head(
    payloads: list[Json], data: st.DataObject
) -> None:
    entries = chain(payloads)
    at = data.draw(st.integers(0, len(entries) - 1))
    before = entries[at - 1] if at else None
    forged = [*entries[:at], append("forged", after=before, round_id=ROUND), *entries[at + 1 :]]
    fault = verify_chain(forged, round_id=ROUND, head=entries[-1].hash)
    assert fault is not None
    last = at == len(entries) - 1
    assert (fault.sequence, fault.kind) == ((at + 1, FaultKind.OTHER_HEAD) if last else (at + 2, FaultKind.UNLINKED))


def test_a_dropped_entry_a_doubled_one_and_two_that_changed_places_are_named() -> None:
    a, b, c, d = chain([1, 2, 3, 4])
    for entries, sequence, kind in (
        ([a, c, d], 2, FaultKind.GAP),
        ([b, c, d], 1, FaultKind.GAP),
        ([a, b, b, c], 3, FaultKind.OUT_OF_ORDER),
        ([a, c, b, d], 2, FaultKind.GAP),
        ([a, b, replace(d, sequence=3)], 3, FaultKind.UNLINKED),
        ([a, replace(b, payload=math.nan)], 2, FaultKind.ALTERED),
    ):
        fault = verify_chain(entries, round_id=ROUND)
        assert fault is not None
        assert (fault.sequence, fault.kind) == (sequence, kind)


def test_an_end_that_was_cut_off_or_added_shows_against_the_published_head() -> None:
    entries = chain([1, 2, 3])
    cut = verify_chain(entries[:2], round_id=ROUND, head=entries[-1].hash, length=3)
    assert cut is not None
    assert (cut.sequence, cut.kind) == (3, FaultKind.CUT_OFF)
    longer = verify_chain(chain([1, 2, 3, 4]), round_id=ROUND, head=entries[-1].hash, length=3)
    assert longer is not None
    assert (longer.sequence, longer.kind) == (4, FaultKind.OTHER_HEAD)


@given(PAYLOADS, st.data())
def test_a_receipt_holds_against_every_later_chain_and_no_rewritten_one(
    payloads: list[Json], data: st.DataObject
) -> None:
    entries = chain(payloads)
    at = data.draw(st.integers(0, len(entries) - 1))
    head = data.draw(st.integers(at, len(entries) - 1))
    receipt = receipt_for(entries[at], head=entries[head])
    assert verify_receipt(receipt, entries, round_id=ROUND) is None
    assert verify_receipt(receipt, chain([*payloads, "later"]), round_id=ROUND) is None
    rewritten = verify_receipt(receipt, chain([*payloads[:at], "forged", *payloads[at + 1 :]]), round_id=ROUND)
    assert rewritten is not None
    assert (rewritten.sequence, rewritten.kind) == (at + 1, FaultKind.OTHER_HEAD)
    cut = verify_receipt(receipt, entries[:at], round_id=ROUND)
    assert cut is not None
    assert (cut.sequence, cut.kind) == (at + 1, FaultKind.CUT_OFF)
    broken = verify_receipt(receipt, [*entries[:at], replace(entries[at], hash="0" * 64)], round_id=ROUND)
    assert broken is not None
    assert broken.sequence == at + 1
