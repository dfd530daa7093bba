"""How each figure of a report is worked out, as docs/measurement.md defines it, in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.rounds import Text


@dataclass(frozen=True, slots=True)
class Formula:
    name: Text
    formula: str
    words: Text


FORMULAS: tuple[Formula, ...] = (
    Formula(
        Text("TTFT(첫 토큰까지의 시간)", "TTFT (time to first token)"),
        "c₁ − t₀",
        Text(
            "c₁은 내용, 추론, 도구 호출 가운데 하나가 들어 있는 첫 이벤트입니다. 역할만 있거나 빈 이벤트는 세지 "
            "않습니다.",
            "c₁ is the first event with content, reasoning or a tool call in it. Events with a role only, and empty "
            "ones, never count.",
        ),
    ),
    Formula(
        Text("TTFOT(첫 출력 토큰까지의 시간)", "TTFOT (time to first output token)"),
        "c(output) − t₀",
        Text("추론이 아닌 첫 토큰까지의 시간입니다.", "Up to the first token that is not reasoning."),
    ),
    Formula(
        Text("TPOT(출력 토큰당 시간)", "TPOT (time per output token)"),
        "(c_last − c₁) / (N − n₁)",
        Text(
            "토큰이 두 개 이상일 때만 있습니다. n₁은 이벤트가 달리 알리지 않으면 1로 봅니다.",
            "Only where there are more tokens than the first event's. n₁ is 1 unless the event says otherwise.",
        ),
    ),
    Formula(
        Text("ITL(이벤트 간격)", "ITL (gap between events)"),
        "cᵢ − cᵢ₋₁",
        Text(
            "토큰이 아니라 이벤트 사이의 간격이므로 이벤트당 토큰 수와 함께 보아야 합니다.",
            "A gap between events, not between tokens: read it with the tokens per event beside it.",
        ),
    ),
    Formula(
        Text("E2E(마지막 토큰까지의 시간)", "E2E (time to the last token)"),
        "c_last − t₀",
        Text("요청 하나의 전체 시간입니다.", "The whole time of a request."),
    ),
    Formula(
        Text("예정 시각부터 잰 TTFT와 E2E", "TTFT and E2E from t_sched"),
        "c₁ − t_sched; c_last − t_sched",
        Text(
            "보내는 쪽이 밀려도 사용자가 기다린 시간이 숨지 않습니다. 도착률로 건 부하의 판정은 이 값을 씁니다.",
            "A sender that falls behind hides no waiting. Verdicts on a load that comes at a rate rest on these.",
        ),
    ),
    Formula(
        Text("사용자별 속도", "Pace of one stream"),
        "1 / TPOT",
        Text("요청마다 구한 초당 토큰 수입니다.", "Tokens a second, of each request."),
    ),
    Formula(
        Text("출력 처리량", "Output throughput"),
        "ΣN / window; / GPUs",
        Text(
            "측정 구간은 준비 구간이 끝난 때부터 부하가 끝날 때까지입니다. GPU당 값은 GPU 수로 나눕니다.",
            "The window runs from the end of the warm-up to the end of the load. Per GPU, it is divided by their "
            "number.",
        ),
    ),
    Formula(
        Text("완료율", "Answered requests"),
        "requests answered well / window",
        Text("측정 구간 안에서 정상으로 끝난 요청의 수입니다.", "Those that ended well within the window."),
    ),
    Formula(
        Text("굿풋과 달성률", "Goodput and attainment"),
        "requests that met every objective / window; / offered",
        Text(
            "달성률의 분모는 보낼 예정이던 모든 요청입니다. 실패하거나 끊기거나 보내지 못한 요청은 달성하지 못한 "
            "것으로 셉니다.",
            "Attainment is of all requests that were due. Failed, cut and unsent ones did not meet the objectives.",
        ),
    ),
    Formula(
        Text("백분위수와 95% 구간", "Percentiles and 95% intervals"),
        "rank 1 + (n − 1) × q / 100; interval between order statistics, Binomial(n, q / 100)",
        Text(
            "원자료에서 정확히 구하며 구간으로 나눈 도수에서 어림하지 않습니다. p99는 n이 500 이상일 때만 밝힙니다.",
            "Exact, from raw values, never from buckets. A p99 is shown from n = 500 upwards only.",
        ),
    ),
    Formula(
        Text("출력 100만 토큰당 비용", "Cost per million output tokens"),
        "GPU money of the window / output tokens of the window × 10⁶",
        Text(
            "그 부하를 쉬지 않고 유지할 때의 값입니다. 부하가 낮으면 같은 GPU 비용을 적은 토큰이 나누어 맡아 "
            "비싸집니다.",
            "At that load, kept up without a pause. At a lower load fewer tokens share the same GPU money.",
        ),
    ),
    Formula(
        Text("게이트웨이가 더하는 시간", "What the gateway adds"),
        "p50(gateway) − p50(direct), repeat by repeat",
        Text("번갈아 진행한 반복을 짝지어 뺀 값입니다.", "The difference of repeats that were run in turns."),
    ),
    Formula(
        Text("주장의 여유", "Margin of a claim"),
        "at least: (value − claimed) / claimed; at most: (claimed − value) / claimed",
        Text("가장 불리한 반복의 값입니다.", "Of the worst repeat."),
    ),
)
