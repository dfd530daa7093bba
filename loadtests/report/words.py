"""The words of a load report besides its conclusions: headings, leads, captions.

Each is said in both languages in one place, so neither can lack one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.domain.rounds import Text


@dataclass(frozen=True, slots=True)
class Section:
    heading: Text
    lead: Text | None = None


SECTIONS: Mapping[str, Section] = {
    "conclusions": Section(Text("결론", "Conclusions")),
    "validity": Section(
        Text("유효성", "Validity"),
        Text(
            "수치를 보기 전에 셀마다 믿을 수 있는지부터 확인합니다. 점검을 하나라도 통과하지 못한 셀은 무효이며, 수치 "
            "대신 까닭을 적습니다. 확인할 수 없었던 점검은 무효의 까닭이 되지 않지만 그 사실을 밝힙니다.",
            "Before any figure each cell is checked. A cell that fails one check is invalid and shows why in place of "
            "figures. A check that could not be looked at makes no cell invalid, and is named.",
        ),
    ),
    "verdicts": Section(
        Text("주장과 판정", "Claims and verdicts"),
        Text(
            "‘성립함’과 ‘측정으로 반박됨’에는 주장한 GPU에서 실제 모델로 잰 유효한 반복이 세 번 이상 필요합니다. "
            "여유는 가장 불리한 반복을 기준으로 하며, 음수이면 주장한 값을 지키지 못했다는 뜻입니다.",
            "“Holds” and “refuted (measured)” take three valid repeats with the real model on the GPU claimed. The "
            "margin is that of the worst repeat; below 0 the claim is missed.",
        ),
    ),
    "latency": Section(
        Text("부하에 따른 지연", "Latency against load"),
        Text(
            "표식은 여러 반복의 중앙값, 세로선은 각 반복의 95% 신뢰구간을 모두 덮는 범위입니다. 가로 점선은 목표, 세로 "
            "점선은 모든 목표를 충족한 최대 부하입니다. 도착률로 건 부하에서는 요청을 보냈어야 할 시각부터 잰 TTFT를 "
            "씁니다.",
            "Marks are the middle of the repeats, bars reach over the 95% intervals of all of them. Dashed lines "
            "across are objectives, the dashed line upwards is the highest load that met every one. Where load comes "
            "at a rate, TTFT counts from when the request was due.",
        ),
    ),
    "distributions": Section(
        Text("TTFT와 TPOT의 분포", "Distributions of TTFT and TPOT"),
        Text(
            "값이 가로축 이하인 요청의 비율입니다. 곡선이 왼쪽에 있고 가파를수록 빠르고 고릅니다. 세로 점선은 "
            "목표입니다.",
            "The share of requests at or below each value. Curves to the left are faster, steep ones more even. Dashed "
            "lines are objectives.",
        ),
    ),
    "frontier": Section(
        Text("처리량과 지연의 경계", "Throughput–latency frontier"),
        Text(
            "오른쪽 아래로 갈수록 좋습니다. 채운 표식을 이은 선이 경계이고, 빈 표식은 같은 후보의 다른 셀이 처리량과 "
            "지연 모두에서 같거나 더 나은 셀입니다. 값은 반복의 중앙값입니다. 게이트웨이를 거친 셀을 그렸고, 그런 셀이 "
            "없는 후보만 엔진에 직접 보낸 셀을 그렸습니다.",
            "Better is to the right and down. The line through full marks is the frontier; hollow marks are cells that "
            "another cell of the same candidate beats or equals in both. Values are the middle of the repeats. Cells "
            "through the gateway are drawn; those sent to the engine itself only of a candidate that has no others.",
        ),
    ),
    "cost": Section(
        Text("부하에 따른 비용", "Cost against load"),
        Text(
            "측정 구간의 GPU 비용을 그동안 나온 출력 토큰으로 나눈 값입니다. 세로선은 반복의 최소와 최대입니다. 노는 "
            "시간의 비용은 들어 있지 않습니다. 게이트웨이를 거친 셀을 그렸고, 표에는 모두 있습니다.",
            "GPU money of the window over the tokens put out in it. Bars reach from the least to the most of the "
            "repeats. Idle time outside the window is not in it. Cells through the gateway are drawn; the table has "
            "all.",
        ),
    ),
    "doors": Section(
        Text("게이트웨이가 더하는 시간", "What the gateway adds"),
        Text(
            "같은 셀을 게이트웨이와 엔진에 번갈아 보내 짝지어 비교했습니다. 점은 더해진 시간, 선은 95% 신뢰구간입니다.",
            "The same cell through the gateway and to the engine itself, in turns, compared in pairs. Dots are the "
            "time added, lines the 95% interval.",
        ),
    ),
    "results": Section(
        Text("셀별 결과", "Results of each cell"),
        Text(
            "반복마다 한 줄입니다. 대괄호는 95% 신뢰구간, n은 값의 수입니다. 모든 시간은 같은 시계로 쟀습니다. 도중에 "
            "부하가 바뀌는 셀은 살펴보기 위한 것이며 결론에 쓰지 않습니다.",
            "A line a repeat. Brackets hold 95% intervals, n is the number of values. All spans come from one clock. "
            "Cells whose load changes on the way are for looking at only; no conclusion rests on them.",
        ),
    ),
    "timelines": Section(
        Text("시간에 따른 변화", "Over time"),
        Text(
            "셀마다 모든 반복을 같은 시간축에 겹쳐 그렸습니다. 굵은 선이 첫 반복입니다. 초당 값은 칸의 평균, 대기·KV "
            "캐시·진행 중인 요청은 칸의 최댓값입니다. 한 칸은 그림이 {most}칸을 넘지 않게 하는 가장 짧은 시간(초 "
            "단위)입니다.",
            "Every repeat of a cell on the same time axis; the strong line is the first. Figures per second are means "
            "of a bucket; requests in flight, waiting ones and KV use are its highest. A bucket is the shortest whole "
            "number of seconds with which at most {most} fit a drawing.",
        ),
    ),
    "formulas": Section(
        Text("계산식", "How each figure is worked out"),
        Text(
            "t_sched는 요청을 보냈어야 할 시각, t₀는 요청을 소켓에 쓰기 직전, cᵢ는 토큰이 든 i번째 이벤트가 도착한 "
            "시각, nᵢ는 그 안의 토큰 수, N은 엔진이 센 출력 토큰 수입니다.",
            "t_sched is when a request was due, t₀ just before its bytes were sent, cᵢ the arrival of the i-th event "
            "with tokens, nᵢ the tokens in it, and N the output tokens that the engine counted.",
        ),
    ),
    "configuration": Section(Text("설정", "Configuration")),
    "reproduce": Section(
        Text("다시 해 보는 방법", "How to reproduce it"),
        Text(
            "아래 계획을 파일로 저장해 실행하면 같은 글과 길이, 같은 부하로 다시 측정합니다. 캐시에 남은 내용이 결과를 "
            "좋게 만들지 않도록 실행할 때마다 시드는 새로 정해지며, 각 반복에 쓴 시드는 표에 있습니다. 파일의 "
            "SHA-256이 아래와 같은지 확인하십시오.",
            "Save the plan below as a file and run it: it asks for the same texts and lengths under the same load. "
            "Seeds are new in every run, so that no cache flatters it; the tables have the seed of each repeat. See "
            "that the file has the SHA-256 below.",
        ),
    ),
}
WORDS: Mapping[str, Text] = {
    "kicker": Text("심사 Simsa · 부하 시험 보고서", "Simsa · load test report"),
    "title": Text("{name} · 부하 시험 결과", "{name} · result of a load test"),
    "side_by_side": Text("후보별 비교", "Side by side"),
    "title_many": Text("후보 {n}개의 부하 시험 비교: {name}", "Load test of {n} candidates: {name}"),
    "title_not_real": Text("{title} — 실측 아님({provenance})", "{title} — not measured on real models ({provenance})"),
    "facts": Text(
        "{model} · {gpu} · {provenance} · {state} · 셀 {cells}개 · 시작 {began} · 끝 {ended}",
        "{model} · {gpu} · {provenance} · {state} · {cells} cells · began {began} · ended {ended}",
    ),
    "contents": Text("차례", "Contents"),
    "other": Text("English", "한국어"),
    "numbers": Text("숫자로 보기", "In numbers"),
    "every_check": Text("모든 점검 보기", "Every check"),
    "every_figure": Text("{cell}: 모든 지표", "{cell}: every figure"),
    "valid": Text("유효", "valid"),
    "invalid": Text("무효", "invalid"),
    "invalid_why": Text("무효: {why}", "invalid: {why}"),
    "never_measured": Text("측정한 반복이 없습니다.", "no repeat was measured"),
    "not_looked_at": Text("확인 불가", "not looked at"),
    "passed": Text("통과", "passed"),
    "not_passed": Text("통과 못 함", "failed"),
    "check": Text("{name}: {seen} (기준: {limit})", "{name}: {seen} (demanded: {limit})"),
    "check_of": Text(
        "{name}, 반복 {repeats}: {seen} (기준: {limit})", "{name}, repeat {repeats}: {seen} (demanded: {limit})"
    ),
    "all_repeats": Text("전체", "all"),
    "yes": Text("예", "yes"),
    "no": Text("아니요", "no"),
    "users": Text("동시 사용자 {level}명", "{level} users at once"),
    "user": Text("동시 사용자 {level}명", "{level} user at once"),
    "rates": Text("초당 {level}건", "{level} requests/s"),
    "rate": Text("초당 {level}건", "{level} request/s"),
    "open": Text("도착률로 건 부하", "load by rate"),
    "closed": Text("동시 사용자로 건 부하", "load by users"),
    "axis_users": Text("동시 사용자(명)", "Users at once"),
    "axis_rate": Text("초당 요청(건)", "Requests per second"),
    "axis_time": Text("반복 시작부터(초)", "Seconds from the repeat's begin"),
    "axis_share": Text("요청의 비율(%)", "Share of requests (%)"),
    "axis_cost": Text("출력 100만 토큰당 {currency}", "{currency} per million output tokens"),
    "axis_log": Text("{name}, 로그 눈금", "{name}, log scale"),
    "attainment": Text("요청의 {percent}%", "{percent}% of requests"),
    "knee": Text("목표를 충족한 최대 부하 {level}", "highest load that met all: {level}"),
    "chart_latency": Text("{metric}: 부하에 따른 p50, p95, p99. {run}.", "{metric} by load: p50, p95 and p99. {run}."),
    "chart_cost": Text("부하에 따른 출력 100만 토큰당 비용.", "Cost of a million output tokens by load."),
    "chart_spread": Text("{metric}의 누적 분포. {run}.", "Cumulative distribution of {metric}. {run}."),
    "chart_frontier": Text("출력 처리량과 {metric} {statistic}.", "Output throughput and {metric} {statistic}."),
    "chart_timeline": Text("{row}. {run}.", "{row}. {run}."),
    "chart_doors": Text("게이트웨이가 더하는 시간과 95% 신뢰구간", "Time that the gateway adds, with its 95% interval"),
    "range": Text("{name}: {low}에서 {high}까지.", "{name}: from {low} to {high}."),
    "as_table": Text("같은 수치가 그림 아래 표에 있습니다.", "The same figures are in the table below."),
    "not_drawn": Text("그리지 않은 셀: {cells}.", "Cells not drawn: {cells}."),
    "not_steady": Text("부하가 일정하지 않음", "the load is not steady"),
    "few_drawn": Text(
        "곡선은 셀 {n}개만 부하 순서로 고르게 골라 그렸습니다. 표에는 모두 있습니다.",
        "Curves are of {n} cells, picked evenly by load. The table has them all.",
    ),
    "nothing_to_draw": Text("그릴 수 있는 유효한 셀이 없습니다.", "There is no valid cell to draw."),
    "no_price": Text(
        "비용을 알 수 없어 그리지 않은 후보: {runs}.", "Not drawn, because the cost is not known: {runs}."
    ),
    "per_gpu": Text("GPU당 출력 처리량(토큰/초)", "Output tokens/s per GPU"),
    "in_all": Text("출력 처리량(토큰/초)", "Output tokens/s"),
    "on_paper": Text(
        "긴 표는 종이에 싣지 않았습니다. 화면과 JSON·CSV 파일에 모두 있습니다.",
        "Long tables are left off paper: they are on the screen and in the JSON and CSV files.",
    ),
    "engines": Text("엔진", "Engines"),
    "searches": Text("최대 부하 탐색", "Searches"),
    "calibration": Text("클라이언트 보정", "Calibration of the client"),
    "calibration_said": Text(
        "정해진 시각에 답하는 대역을 상대로 초당 이벤트 {events}개를 읽었습니다. 발송 지연 p99 {lag}, TTFT 오차 p99 "
        "{error}, CPU {cpu}. 계획에 필요한 처리량: {needed}({passed}).",
        "On a stand-in with a known schedule it read {events} events a second: schedule lag p99 {lag}, error of TTFT "
        "p99 {error}, CPU {cpu}. The plan needs {needed}: {passed}.",
    ),
    "calibrated_by": Text("같은 클라이언트를 보정한 실행: {run}.", "It was shown by run {run}, on the same client."),
    "per_second": Text("초당 {n}개", "{n} a second"),
    "not_calibrated": Text("클라이언트를 보정하지 않았습니다.", "The client was not calibrated."),
    "no_engines": Text("엔진이 스스로를 밝히지 않았습니다.", "No engine described itself."),
    "no_gateway": Text("게이트웨이를 거치지 않았습니다.", "The gateway was not in the way."),
    "outcomes": Text("요청의 결과와 오류", "Outcomes and errors"),
    "throughput": Text("처리량과 달성률", "Throughput and attainment"),
    "work": Text("작업량과 비용", "Work and cost"),
    "repeats": Text("반복의 시드와 실행 ID", "Seeds and run ids of the repeats"),
    "every_repeat": Text("모든 반복 보기", "Every repeat"),
    "latencies": Text("지연", "Latency"),
    "objectives": Text("목표", "Objectives"),
    "no_objectives": Text("계획에 목표가 없습니다.", "The plan has no objectives."),
    "no_errors": Text("없음", "none"),
    "save_as": Text("plan.yaml로 저장(SHA-256 {sha})", "save as plan.yaml (SHA-256 {sha})"),
    "unknown_gpu": Text("GPU 미상", "GPU unknown"),
}
IDENTITY: Mapping[str, Text] = {
    "id": Text("실행 ID", "Run id"),
    "name": Text("이름", "Name"),
    "model": Text("모델", "Model"),
    "gpu": Text("GPU", "GPU"),
    "state": Text("상태", "State"),
    "provenance": Text("출처", "Provenance"),
    "began_at": Text("시작", "Began"),
    "ended_at": Text("끝", "Ended"),
    "seed": Text("시드", "Seed"),
    "workload_sha256": Text("작업 부하 SHA-256", "Workload SHA-256"),
    "plan_sha256": Text("계획 SHA-256", "Plan SHA-256"),
    "versions": Text("버전", "Versions"),
    "gateway": Text("게이트웨이", "Gateway"),
}
