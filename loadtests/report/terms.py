"""The names of things in a load report, in both languages: doors, figures, checks, outcomes, verdicts, reasons.

Whole sentences about a run's numbers are `sentences`', headings and captions `words`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gateway.domain.rounds import Text

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = ("ko", "en")


def say(text: Text, language: Language) -> str:
    return text.ko if language == "ko" else text.en


PROVENANCE: Mapping[str, Text] = {
    "real": Text("실측", "real"),
    "stand_in": Text("대역 모델 측정", "stand-in weights"),
    "simulated": Text("모의 측정", "simulated"),
    "unknown": Text("출처 미확인", "provenance unknown"),
    "mixed": Text("출처 혼재", "mixed provenance"),
}
STATES: Mapping[str, Text] = {
    "running": Text("진행 중", "running"),
    "complete": Text("완료", "complete"),
    "stopped": Text("중단됨", "stopped early"),
    "failed": Text("실패", "failed"),
}
DOORS: Mapping[str, Text] = {
    "gateway": Text("게이트웨이", "gateway"),
    "direct": Text("엔진 직접", "engine itself"),
}
METRICS: Mapping[str, tuple[Text, str]] = {
    # A name, and the unit in which it is shown.
    "ttft_s": (Text("TTFT", "TTFT"), "s"),
    "scheduled_ttft_s": (Text("TTFT(예정 시각부터)", "TTFT (from t_sched)"), "s"),
    "ttfot_s": (Text("TTFOT", "TTFOT"), "s"),
    "tpot_s": (Text("TPOT", "TPOT"), "ms"),
    "itl_s": (Text("ITL(이벤트 간격)", "ITL (gap between events)"), "ms"),
    "e2e_s": (Text("E2E", "E2E"), "s"),
    "scheduled_e2e_s": (Text("E2E(예정 시각부터)", "E2E (from t_sched)"), "s"),
    "output_tokens_per_s_per_user": (Text("사용자별 속도", "pace of one stream"), "tokens/s"),
    "output_tokens_per_s": (Text("출력 처리량", "output throughput"), "tokens/s"),
    "output_tokens_per_s_per_gpu": (Text("GPU당 출력 처리량", "output throughput per GPU"), "tokens/s"),
    "requests_per_s": (Text("완료율", "answered requests"), "requests/s"),
}
"""Latencies and rates that objectives, drawings and tables name."""
UNITS: Mapping[str, Text] = {
    "s": Text("초", "s"),
    "ms": Text("ms", "ms"),
    "tokens/s": Text("토큰/초", "tokens/s"),
    "requests/s": Text("건/초", "requests/s"),
    "%": Text("%", "%"),
}
CHECKS: Mapping[str, Text] = {
    "client_cpu": Text("클라이언트 CPU 사용률", "Client CPU"),
    "schedule_lag": Text("발송 지연", "Schedule lag"),
    "achieved_rate": Text("실제로 보낸 비율", "Achieved rate"),
    "records_complete": Text("기록의 완전성", "Records complete"),
    "clock": Text("시계", "Clock"),
    "token_source": Text("토큰 수의 출처", "Source of token counts"),
    "lengths": Text("입출력 길이", "Lengths as asked"),
    "cache_hits": Text("캐시 적중률", "Cache hits"),
    "steady_state": Text("정상 상태", "Steady state"),
    "stream": Text("토큰 단위 스트리밍", "Streamed token by token"),
    "in_flight": Text("응답 대기 중인 요청 수", "Requests in flight"),
    "running": Text("동시 실행 요청 수", "Requests running at once"),
    "repeats": Text("반복 횟수", "Number of repeats"),
    "spread": Text("반복 사이의 차이", "Spread of repeats"),
    "provenance": Text("답변의 출처", "Provenance"),
    "engine_restart": Text("엔진 재시작", "Engine restarts"),
    "calibration": Text("클라이언트 보정", "Client calibration"),
    "weights": Text("제공한 가중치", "Weights served"),
    "gateway_records": Text("게이트웨이 기록과의 일치", "Borne out by the gateway's records"),
    "hosts": Text("여러 호스트의 동시 시작", "Hosts begin together"),
}
OUTCOMES: Mapping[str, Text] = {
    "ok": Text("정상", "ok"),
    "refused": Text("거절", "refused"),
    "too_many": Text("429 거절", "429"),
    "unreachable": Text("연결 실패", "unreachable"),
    "cut": Text("끊김", "cut off"),
    "failed": Text("엔진 오류", "engine error"),
    "malformed": Text("형식 오류", "malformed"),
    "empty": Text("빈 답변", "empty"),
    "timeout": Text("시간 초과", "timed out"),
    "abandoned": Text("기한 내 미완료", "abandoned"),
    "unsent": Text("보내지 못함", "unsent"),
}
VERDICTS: Mapping[str, Text] = {
    "holds": Text("성립함", "holds"),
    "refuted (measured)": Text("측정으로 반박됨", "refuted (measured)"),
    "refuted (arithmetic)": Text("계산으로 반박됨", "refuted (arithmetic)"),
    "not met (simulated)": Text("시뮬레이션에서 미달", "not met (simulated)"),
    "plausible (simulated)": Text("시뮬레이션에서 가능함", "plausible (simulated)"),
    "open": Text("미결", "open"),
    "not testable here": Text("여기서는 검증할 수 없음", "not testable here"),
}
"""In the order in which conclusions tell them."""
ENDINGS: Mapping[str, Text] = {
    "found": Text("찾음", "found"),
    "at_most": Text("계획의 상한까지 모두 충족", "the plan's limit was met"),
    "below_begin": Text("최저 부하에서도 미달", "the least load failed"),
    "invalid": Text("무효", "invalid"),
    "stopped": Text("중단됨", "stopped"),
}
WHY_NOT: Mapping[str, Text] = {
    "not_claimed": Text("이 후보에 대한 주장이 아닙니다.", "It is not claimed of this candidate."),
    "no_values": Text("값이 하나도 없습니다.", "There is no value."),
    "few_for_p99": Text(
        "p99는 값이 500개 이상일 때만 밝힙니다.",
        "A p99 is shown from 500 values upwards only.",
    ),
    "no_interval": Text(
        "값이 너무 적어 95% 신뢰구간을 구할 수 없습니다.",
        "There are too few values for a 95% interval.",
    ),
    "not_recorded": Text("기록에 없습니다.", "It is not in the records."),
    "not_every_repeat": Text(
        "이 값이 없는 반복이 있어 반복 전체를 대표하는 값을 말할 수 없습니다.",
        "Some repeat lacks it, so nothing can be said of all of them.",
    ),
    "tokens_unknown": Text(
        "토큰 수를 알 수 없는 답변이 있습니다.",
        "The number of tokens is not known of some answer.",
    ),
    "gpus_unknown": Text("GPU 수를 알 수 없습니다.", "The number of GPUs is not known."),
    "characters_unknown": Text(
        "글자 수를 알 수 없는 답변이 있습니다.",
        "The number of characters is not known of some answer.",
    ),
    "no_objectives": Text("계획에 목표가 없습니다.", "The plan has no objectives."),
    "cache_unknown": Text("엔진이 캐시 적중을 알려 주지 않습니다.", "The engine does not tell its cache hits."),
    "mtok_unknown": Text(
        "GPU 가격이나 출력 토큰 수를 알 수 없습니다.",
        "The GPU's price, or the number of output tokens, is not known.",
    ),
    "gpu_time_unknown": Text("GPU 시간을 알 수 없습니다.", "GPU time is not known."),
    "not_scraped": Text("엔진의 /metrics를 읽지 못했습니다.", "The engine's /metrics were not read."),
    "not_said": Text("엔진이 알려 주지 않았습니다.", "The engine did not say."),
    "gpu_unknown": Text("GPU가 기록되지 않았습니다.", "The GPU is not recorded."),
    "none_met": Text("충족한 부하가 없습니다.", "No load met them."),
    "none_failed": Text("미달한 부하가 없습니다.", "No load failed them."),
    "few_pairs": Text("짝이 너무 적어 구간을 구할 수 없습니다.", "There are too few pairs for an interval."),
    "no_margin": Text("비교할 수치가 없습니다.", "There is no figure to compare."),
    "rests_on_invalid": Text(
        "근거가 된 셀이 모두 무효여서 판정으로 쓸 수 없습니다.",
        "All cells that it rests on are invalid, so it is no verdict.",
    ),
    "idle": Text("이 동안 보낸 요청이 없습니다.", "Nothing was sent in this time."),
    "need_unknown": Text("계획에 필요한 처리량을 미리 알 수 없습니다.", "What the plan needs is not known beforehand."),
    "not_ended": Text("아직 끝나지 않았습니다.", "It has not ended."),
}
"""Why something is shown as a dash, by the codes of `readings` and of the tables."""
