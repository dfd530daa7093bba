"""The scan for personal data: what it finds in which spelling, and what looks alike and is left alone."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.personal_data import DataKind, Finding, personal_data_in


def only(text: str) -> Finding:
    (finding,) = personal_data_in(text)
    return finding


def resident_number(body: str) -> str:
    """The number with its check digit, computed apart from the module: the weighted sum is 0 modulo 11 or folds."""
    weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]
    total = sum(int(d) * w for d, w in zip(body.replace("-", ""), weights, strict=True))
    check = (11 - total % 11) % 10
    return body + str((check + 2) % 10 if body[7] in "5678" else check)


FOUND = [
    ("연락처는 010-1234-5678입니다.", DataKind.PHONE, "010-1234-5678"),
    ("010 1234 5678로 전화 주세요", DataKind.PHONE, "010 1234 5678"),
    ("01012345678", DataKind.PHONE, "01012345678"),
    ("010.1234.5678", DataKind.PHONE, "010.1234.5678"),
    ("０１０－１２３４－５６７８", DataKind.PHONE, "０１０－１２３４－５６７８"),
    ("Call +82 10-1234-5678 now", DataKind.PHONE, "+82 10-1234-5678"),
    ("+82-2-345-6789", DataKind.PHONE, "+82-2-345-6789"),
    ("+821012345678", DataKind.PHONE, "+821012345678"),
    ("대표 전화 02-345-6789", DataKind.PHONE, "02-345-6789"),
    ("031-234-5678", DataKind.PHONE, "031-234-5678"),
    ("(02) 345-6789", DataKind.PHONE, "(02) 345-6789"),
    ("070-1234-5678", DataKind.PHONE, "070-1234-5678"),
    ("011-234-5678", DataKind.PHONE, "011-234-5678"),
    ("여권 번호 M12345678", DataKind.PASSPORT, "M12345678"),
    ("passport M123A4567", DataKind.PASSPORT, "M123A4567"),
    ("면허 11-23-456789-01", DataKind.DRIVING_LICENCE, "11-23-456789-01"),
    ("gaon.kim+test@example.co.kr로 보내 주세요", DataKind.EMAIL, "gaon.kim+test@example.co.kr"),
    ("카드 4111-1111-1111-1111", DataKind.CARD, "4111-1111-1111-1111"),
    ("4111 1111 1111 1111", DataKind.CARD, "4111 1111 1111 1111"),
    ("5555555555554444", DataKind.CARD, "5555555555554444"),
    ("3782-822463-10005", DataKind.CARD, "3782-822463-10005"),
    ("900101-1234567", DataKind.RESIDENT_NUMBER, "900101-1234567"),
    ("201115-3123456", DataKind.RESIDENT_NUMBER, "201115-3123456"),
    ("900101 - 2234567", DataKind.RESIDENT_NUMBER, "900101 - 2234567"),
    ("900101–1234567", DataKind.RESIDENT_NUMBER, "900101–1234567"),
    ("외국인등록번호 900101-5234567", DataKind.FOREIGNER_NUMBER, "900101-5234567"),
    ("040229-4123456", DataKind.RESIDENT_NUMBER, "040229-4123456"),
]

LOOKALIKES = [
    "2026-11-28",
    "2026.11.28. 10:30",
    "기간: 2024-01-01 ~ 2024-12-31",
    "20261128-000123",
    "주문번호 2024112812345",
    "주문 번호 20241128-0012345",
    "1234567890123",
    "사업자등록번호 123-45-67890",
    "계좌 110-123-456789",
    "ISBN 978-89-01-23456-7",
    "4111-1111-1111-1112",
    "0000-0000-0000-0000",
    "901301-1234567",
    "030229-4123456",
    "1588-1234",
    "국번 없이 100번",
    "3.141592653589793",
    "192.168.0.10",
    "010-12-345",
    "버전 0.32.0",
    "M1234567",
    "GPU H100 80GB",
    "SM12345678",
    "user@localhost",
    "@mention 과 a@b",
    "지출 1,234,567,890원",
    "2e10 - 3e5",
    "위도 37.566535, 경도 126.977969",
    "a 0102030405 b",
    "3f0a010-1234-5678",
]


@pytest.mark.parametrize(("text", "kind", "excerpt"), FOUND, ids=[excerpt for _, _, excerpt in FOUND])
def test_it_is_found_where_it_stands(text: str, kind: DataKind, excerpt: str) -> None:
    finding = only(text)
    assert (finding.kind, text[finding.start : finding.end]) == (kind, excerpt)


@pytest.mark.parametrize("text", LOOKALIKES)
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert personal_data_in(text) == []


@given(
    st.dates(min_value=date(1900, 1, 1), max_value=date(1999, 12, 31)),
    st.sampled_from("1256"),
    st.integers(0, 99999),
)
def test_a_right_checksum_confirms_and_a_wrong_one_does_not_acquit(day: date, digit: str, tail: int) -> None:
    number = resident_number(f"{day:%y%m%d}-{digit}{tail:05}")
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert (only(number).is_confirmed, only(wrong).is_confirmed) == (True, False)
    assert only(number).kind is (DataKind.FOREIGNER_NUMBER if digit in "56" else DataKind.RESIDENT_NUMBER)


def test_thirteen_digits_in_a_row_need_a_right_checksum() -> None:
    number = resident_number("900101-123456").replace("-", "")
    assert only(number).is_confirmed
    assert personal_data_in(number[:-1] + str((int(number[-1]) + 1) % 10)) == []


def test_what_is_reported_hides_most_of_it() -> None:
    assert only("900101-1234567").masked == "900101-*******"
    assert only("010-1234-5678").masked == "010-****-****"
    assert only("gaon@example.org").masked == "g***@example.org"
    assert only("4111 1111 1111 1111").masked == "411* **** **** ****"
    assert only("M12345678").masked == "M12******"


def test_several_are_found_in_order() -> None:
    text = "김가온, 900101-1234567, 010-1234-5678, gaon@example.org"
    assert [finding.kind for finding in personal_data_in(text)] == [
        DataKind.RESIDENT_NUMBER,
        DataKind.PHONE,
        DataKind.EMAIL,
    ]


@settings(max_examples=300)
@given(st.text(st.characters(codec=None)) | st.text("0123456789-+ @.aM）０", max_size=60))
def test_any_text_is_taken_and_findings_are_apart(text: str) -> None:
    end = 0
    for finding in personal_data_in(text):
        assert end <= finding.start < finding.end <= len(text)
        assert len(finding.masked) == finding.end - finding.start
        end = finding.end
