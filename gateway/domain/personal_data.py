"""Personal data in a text, found by its form before anything is published.

Korean resident and foreigner numbers, phones, passports, driving licences, e-mail addresses and payment cards. A scan
shows a person where to look; it neither proves that a text is clean nor changes it. Names and postal addresses have no
form that could be found here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class DataKind(StrEnum):
    RESIDENT_NUMBER = "resident_number"
    FOREIGNER_NUMBER = "foreigner_number"
    PHONE = "phone"
    PASSPORT = "passport"
    DRIVING_LICENCE = "driving_licence"
    EMAIL = "email"
    CARD = "card"


@dataclass(frozen=True, slots=True)
class Finding:
    kind: DataKind
    start: int
    end: int
    masked: str
    """What was found with most of it hidden: fit for a report."""
    is_confirmed: bool
    """A checksum holds. Of numbers without one, or of resident numbers issued since October 2020, whose last digits
    are random, its absence proves nothing."""


@dataclass(frozen=True, slots=True)
class _Form:
    kind: DataKind
    pattern: re.Pattern[str]
    accept: Callable[[str], bool]
    confirm: Callable[[str], bool]


def personal_data_in(text: str) -> list[Finding]:
    """Every finding in the order of the text, none within another. Full-width digits count as digits."""
    plain = "".join(_one_width(sign) for sign in text)
    found = sorted(_candidates(plain), key=lambda finding: (finding.start, -finding.end))
    kept: list[Finding] = []
    for finding in found:
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def _one_width(sign: str) -> str:
    """The sign's ordinary form where that is one sign as well, so that positions stay."""
    if sign.isascii():
        return sign
    if sign in _DASHES:
        return "-"
    plain = unicodedata.normalize("NFKC", sign)
    return plain if len(plain) == 1 and plain.isascii() else sign


def _candidates(plain: str) -> Iterator[Finding]:
    for form in _FORMS:
        for match in form.pattern.finditer(plain):
            if form.accept(match[0]):
                masked = _masked(form.kind, match[0])
                yield Finding(form.kind, match.start(), match.end(), masked, form.confirm(match[0]))


def _masked(kind: DataKind, found: str) -> str:
    """The first signs stay, at most three, and an e-mail's domain; every other letter and digit is hidden."""
    if kind is DataKind.EMAIL:
        name, _, domain = found.partition("@")
        return f"{name[0]}{'*' * (len(name) - 1)}@{domain}"
    kept = 6 if kind in (DataKind.RESIDENT_NUMBER, DataKind.FOREIGNER_NUMBER) else 3
    kept = min(kept, len(found) // 2)
    return found[:kept] + re.sub(r"[A-Za-z0-9]", "*", found[kept:])


def _digits(found: str) -> list[int]:
    return [int(sign) for sign in found if sign.isdigit()]


# --- resident and foreigner numbers: YYMMDD-SNNNNNN ---------------------------------------------------------

_CENTURY = {9: 1800, 0: 1800, 1: 1900, 2: 1900, 5: 1900, 6: 1900, 3: 2000, 4: 2000, 7: 2000, 8: 2000}
"""By the seventh digit, which tells century and sex, and from 5 to 8 a foreigner."""
_RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _is_born(found: str) -> bool:
    """The first six digits are a day of the century that the seventh tells."""
    digits = _digits(found)
    year = _CENTURY[digits[6]] + digits[0] * 10 + digits[1]
    try:
        date(year, digits[2] * 10 + digits[3], digits[4] * 10 + digits[5])
    except ValueError:
        return False
    return True


def _is_resident(found: str) -> bool:
    return _is_born(found) and _digits(found)[6] not in (5, 6, 7, 8) and _is_written_as_number(found)


def _is_foreigner(found: str) -> bool:
    return _is_born(found) and _digits(found)[6] in (5, 6, 7, 8) and _is_written_as_number(found)


def _is_written_as_number(found: str) -> bool:
    """Thirteen digits in a row are as often an order's number: only a checksum tells them apart."""
    return not found.isdigit() or _resident_checksum_holds(found)


def _resident_checksum_holds(found: str) -> bool:
    """(11 - sum of digits by weights 2..9,2..5 mod 11) mod 10 is the last digit; foreigners' numbers add 2."""
    digits = _digits(found)
    check = 11 - sum(d * w for d, w in zip(digits, _RESIDENT_WEIGHTS, strict=False)) % 11
    offset = 2 if digits[6] in (5, 6, 7, 8) else 0
    return (check + offset) % 10 == digits[12]


# --- cards --------------------------------------------------------------------------------------------------


def _luhn_holds(found: str) -> bool:
    """ISO/IEC 7812: every second digit from the right doubled, digits summed, divisible by ten."""
    doubled = [d if n % 2 == 0 else d * 2 - 9 * (d > 4) for n, d in enumerate(reversed(_digits(found)))]
    return sum(doubled) % 10 == 0


def _is_card(found: str) -> bool:
    digits = _digits(found)
    return 14 <= len(digits) <= 16 and len(set(digits)) > 1 and _luhn_holds(found)


def _always(found: str) -> bool:
    return True


def _never(found: str) -> bool:
    return False


_DASHES = "‐‑‒–—−"
_NO_DIGIT_BEFORE = r"(?<![\d.A-Za-z])(?<!\d[- ])"
_NO_DIGIT_AFTER = r"(?![\dA-Za-z])(?!-\d)(?!\.\d)"
_AREAS = r"(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4])"
_FORMS = (
    _Form(
        DataKind.RESIDENT_NUMBER,
        re.compile(rf"{_NO_DIGIT_BEFORE}\d{{6}}(?: ?- ?| )?[0-9]\d{{6}}{_NO_DIGIT_AFTER}", re.ASCII),
        _is_resident,
        _resident_checksum_holds,
    ),
    _Form(
        DataKind.FOREIGNER_NUMBER,
        re.compile(rf"{_NO_DIGIT_BEFORE}\d{{6}}(?: ?- ?| )?[5-8]\d{{6}}{_NO_DIGIT_AFTER}", re.ASCII),
        _is_foreigner,
        _resident_checksum_holds,
    ),
    _Form(
        DataKind.DRIVING_LICENCE,
        re.compile(rf"{_NO_DIGIT_BEFORE}(?:1[1-9]|2[0-8])-\d{{2}}-\d{{6}}-\d{{2}}{_NO_DIGIT_AFTER}", re.ASCII),
        _always,
        _never,
    ),
    _Form(
        DataKind.CARD,
        re.compile(
            rf"{_NO_DIGIT_BEFORE}(?:\d{{4}}([- ]?)\d{{4}}\1\d{{4}}\1\d{{4}}|3\d{{3}}([- ]?)\d{{6}}\2\d{{4,5}})"
            rf"{_NO_DIGIT_AFTER}",
            re.ASCII,
        ),
        _is_card,
        _luhn_holds,
    ),
    _Form(
        DataKind.PHONE,
        re.compile(
            r"(?<![\w.])(?<!\d[- ])(?:\+82[- .]?\(?0?\)?|\(?0)"
            rf"(?:[17]0\)?[- .]?\d{{4}}|(?:1[16789]|50\d?|{_AREAS})\)?[- .]?\d{{3,4}})[- .]?\d{{4}}{_NO_DIGIT_AFTER}",
            re.ASCII,
        ),
        _always,
        _never,
    ),
    _Form(
        DataKind.PASSPORT,
        re.compile(r"(?<![A-Za-z0-9])[MSRODGT](?:\d{8}|\d{3}[A-Z]\d{4})(?![A-Za-z0-9])", re.ASCII),
        _always,
        _never,
    ),
    _Form(
        DataKind.EMAIL,
        re.compile(
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
            r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])",
            re.ASCII,
        ),
        _always,
        _never,
    ),
)
