"""What the keys, bins and reasons of evidence cards are called in Korean and in English."""

from __future__ import annotations

from collections.abc import Mapping

Words = Mapping[str, tuple[str, str]]
"""Korean, English."""

LINES: Words = {
    "ttft_p50": ("첫 글자까지 걸리는 시간(보통)", "Time to first token (typical)"),
    "ttft_p95": ("첫 글자까지 걸리는 시간(느린 5 %)", "Time to first token (slowest 5 %)"),
    "tpot": ("이어 쓰는 속도", "Pace of writing"),
    "throughput": ("처리량", "Throughput"),
    "failures": ("실패한 요청", "Failed requests"),
    "cost": ("출력 토큰 비용", "Cost of output tokens"),
    "single_gpu": ("GPU 한 장으로 운영", "Runs on one GPU"),
    "sample": ("측정 규모", "Size of the sample"),
}
BINS: Words = {
    "very_fast": ("매우 빠름", "very fast"),
    "fast": ("빠름", "fast"),
    "moderate": ("보통", "moderate"),
    "slow": ("느림", "slow"),
    "very_slow": ("매우 느림", "very slow"),
    "very_low": ("매우 낮음", "very low"),
    "low": ("낮음", "low"),
    "high": ("높음", "high"),
    "very_high": ("매우 높음", "very high"),
    "hardly_any": ("거의 없음", "hardly any"),
    "few": ("적음", "few"),
    "some": ("간혹 있음", "some"),
    "many": ("많음", "many"),
    "small": ("작음", "small"),
    "medium": ("중간", "medium"),
    "large": ("큼", "large"),
    "fits": ("가능", "yes"),
    "fits_quantised": ("양자화하면 가능", "when quantised"),
    "fits_short_context": ("문맥을 줄이면 가능", "with a shorter context"),
    "no": ("불가능", "no"),
}
REASONS: Words = {
    "not_measured": ("측정되지 않음", "not measured"),
    "too_few_requests": ("측정 횟수가 부족함", "too few requests"),
    "not_the_real_model": ("실제 모델으로 측정한 값이 없음", "not measured on the real model"),
    "no_bins_for_currency": ("비교할 수 없는 통화", "in a currency without bins"),
    "not_computable": ("정보가 부족해 계산할 수 없음", "cannot be worked out from what is known"),
}
HEAD = {"ko": ("항목", "구간"), "en": ("Item", "Range")}
UNKNOWN = {"ko": "알 수 없음", "en": "unknown"}


def word(words: Words, key: str, language: str) -> str:
    """The word for a key. Raises KeyError for one that no card has."""
    korean, english = words[key]
    return korean if language == "ko" else english
