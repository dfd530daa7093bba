"""The feasibility page in Korean. What each sentence is for stands in `fields`."""

from __future__ import annotations

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Gap, Units
from gateway.domain.records import Confidence
from gateway.matrix_words.fields import Words

KOREAN = Words(
    title="후보 모델의 GPU 1장 구동 가능성: 예측값(실측 아님)",
    title_many="후보 모델의 GPU {gpus}장 구동 가능성: 예측값(실측 아님)",
    kicker="심사 Simsa · 인프라 현실성",
    load_one="한 번에 요청 1건, 요청당 {context}토큰(프롬프트와 답변의 합)을 기준으로 판정했습니다.",
    load_many="동시 요청 {count}건, 요청당 {context}토큰(프롬프트와 답변의 합)을 기준으로 판정했습니다.",
    brief="전제: vLLM은 GPU 메모리의 {utilisation}까지 쓰고, 오버헤드는 {overhead}"
    "하며, KV 캐시는 {kv_dtype}입니다. 자세한 내용은 ‘전제’에 있습니다.",
    summary="전체 {total}개 모델 가운데 {known}개는 공개된 정보만으로 판정할 수 있습니다. 나머지 {unknown}개는 ‘알 수 "
    "없음’으로 두고 모델마다 그 까닭을 적었습니다.",
    made="작성일 {date}",
    registry="{as_of} 기준 정보, 레지스트리 {sha}",
    no_date="기준일 없음",
    contents="수치 형식",
    legend="칸을 읽는 법",
    verdicts={
        Verdict.FITS: "구동 가능",
        Verdict.FITS_QUANTISED: "{format}로 양자화해야 구동 가능",
        Verdict.FITS_SHORT_CONTEXT: "컨텍스트를 줄여야 구동 가능",
        Verdict.NO: "구동 불가",
        Verdict.UNKNOWN: "알 수 없음",
    },
    legend_of={
        Verdict.FITS: "구동 가능. ×5는 이런 요청 5건을 동시에 담을 수 있다는 뜻입니다.",
        Verdict.FITS_QUANTISED: "칸에 적힌 형식으로 가중치를 더 줄여야 구동할 수 있습니다.",
        Verdict.FITS_SHORT_CONTEXT: "컨텍스트를 줄여야 구동할 수 있습니다. 주어진 동시 요청 수에서 요청당 쓸 수 있는 "
        "최대 토큰 수를 적었습니다.",
        Verdict.NO: "구동 불가. 같은 GPU가 적어도 몇 장 있어야 하는지 적었습니다. 텐서 병렬 2, 4, 8, 16, 32, 64장만 "
        "따졌고 그 사이의 수는 따지지 않았습니다. 어느 것으로도 안 되면 줄표(–)를 넣었습니다.",
        Verdict.UNKNOWN: "알 수 없음. 계산에 필요한 정보가 공개되지 않았습니다. 까닭은 그 줄에 적었습니다.",
    },
    also_as="{verdict}({format}로 양자화도 필요)",
    legend_room="둘째 줄은 이 부하에서 남는 메모리(GiB)이고, 빼기 표시가 있으면 모자라는 메모리입니다.",
    legend_borderline="점선 테두리는 경계선상의 판정입니다. 오버헤드를 얼마로 보느냐에 따라 결과가 바뀝니다.",
    legend_confidence="모서리의 동그라미는 신뢰도가 낮은 정보에 기댄 판정이라는 표시입니다.",
    by_size="크기만 판정",
    legend_by_size="‘크기만 판정’: 지원하는 엔진이 없는 모델이므로 메모리 크기만 따진 결과입니다.",
    units={Units.NATIVE: "", Units.WEIGHT_ONLY: "가중치만", Units.UNLISTED: "연산 속도 미상"},
    units_of={
        Units.NATIVE: "",
        Units.WEIGHT_ONLY: "‘가중치만’: 이 형식으로 연산하지 못하는 GPU입니다. 가중치가 작아져 메모리와 읽는 시간은 "
        "줄지만 연산은 16비트로 합니다.",
        Units.UNLISTED: "‘연산 속도 미상’: 이 형식의 연산 속도가 레지스트리에 없습니다. 상한은 비트 폭이 허용하는 "
        "가장 빠른 값으로, 기대값은 레지스트리에 있는 연산기로 계산했습니다.",
    },
    quantisations={
        "published": "공개된 그대로",
        "bf16": "BF16(16비트)",
        "fp8": "FP8(8비트 부동소수점)",
        "int8": "INT8(8비트 정수)",
        "int4": "INT4(4비트, GPTQ 방식)",
        "awq": "AWQ(4비트, 영점 포함)",
        "nvfp4": "NVFP4(4비트 부동소수점)",
        "mxfp4": "MXFP4(4비트 부동소수점)",
    },
    panel_units="모든 GPU: {flag}.",
    others_unknown="판정할 수 없는 모델 {count}개는 여기에 다시 그리지 않았습니다. 첫째 그림과 아래 목록에 있습니다.",
    figure="히트맵, 가중치 형식 {format}. 가로줄은 컨소시엄별 모델, 세로줄은 메모리가 작은 것부터 늘어놓은 GPU입니다. "
    "같은 수치가 아래 표에 있습니다.",
    scroll="그림, 옆으로 밀어서 볼 수 있음",
    gpus_least="{count}장",
    table="모든 수치를 표로 보기",
    table_caption="가중치 형식 {format}: 모든 수치는 예측값",
    columns={
        "model": "모델",
        "gpu": "GPU",
        "verdict": "판정",
        "headroom": "남는 메모리, GiB(하한 / 유력 / 상한)",
        "context": "요청 1건의 최대 컨텍스트(토큰)",
        "context_at": "주어진 동시 요청 수의 최대 컨텍스트(토큰)",
        "at_once": "최대 동시 요청",
        "gpus": "최소 GPU 수(2의 거듭제곱)",
        "speed": "기준 부하의 초당 토큰: 기대값(상한)",
        "cost": "기준 부하의 출력 100만 토큰당 비용",
        "full_speed": "가득 찼을 때의 초당 토큰: 기대값(상한), 요청 수",
        "full_cost": "가득 찼을 때의 출력 100만 토큰당 비용",
        "confidence": "신뢰도",
        "reason": "까닭",
    },
    confidence={Confidence.HIGH: "높음", Confidence.MEDIUM: "보통", Confidence.LOW: "낮음"},
    unknown="알 수 없음",
    unknown_heading="판정할 수 없는 모델과 그 까닭",
    unknown_lead="‘알 수 없음’은 ‘불가’가 아닙니다. 체크포인트의 config.json만 있으면 대부분 판정할 수 있습니다.",
    unknown_none="모든 모델을 판정했습니다.",
    gaps={
        Gap.NO_WEIGHTS: "가중치가 공개되지 않아 자체 GPU 구동 여부를 따질 수 없습니다.",
        Gap.NO_SHAPE: "모델의 구조(층 수, KV 헤드 수, 헤드 크기)가 공개되지 않았습니다.",
        Gap.FACTS: "공개되지 않았거나 쓸 수 없는 값: {facts}.",
        Gap.CONTRADICTORY: "레지스트리에 적힌 값이 서로 맞지 않습니다.",
        Gap.PLAN: "이 GPU 수나 이 KV 캐시 형식으로는 vLLM이 이 모델을 띄우지 못합니다.",
    },
    facts={
        "layers": "층 수",
        "kv_heads": "KV 헤드 수",
        "head_dim": "헤드 크기",
        "heads": "어텐션 헤드 수",
        "heads, head_dim": "어텐션 헤드 수와 헤드 크기(또는 은닉 크기)",
        "params": "매개변수 수",
        "active_params": "활성 매개변수 수",
        "global_layers": "전역 어텐션 층 수",
        "sliding_window": "슬라이딩 윈도 크기",
        "sliding_window or attention_chunk": "윈도 또는 청크 크기",
        "attention_chunk": "청크 크기",
        "linear.layers": "상태 층 수",
        "linear.state_bytes": "층별 상태 크기",
        "mla.kv_lora_rank": "잠재 벡터 크기",
        "mla.qk_rope_head_dim": "회전 위치 부호화 크기",
        "context": "최대 컨텍스트",
        "weights.dtype": "가중치의 수치 형식",
    },
    no_speed="기준 부하를 담지 못하므로 속도가 없음",
    no_speed_facts="필요한 정보: {facts}",
    no_price="공개된 가격 없음",
    mixed_prices="가격의 통화가 서로 다르고 환율이 없음",
    no_consortium="컨소시엄 없음",
    gpus_heading="GPU 제원",
    gpu_columns={
        "gpu": "GPU",
        "memory": "메모리, GiB",
        "bandwidth": "대역폭, TB/s",
        "bf16": "BF16, TFLOPS",
        "fp8": "FP8, TFLOPS",
        "price": "GPU 1장의 시간당 공개 가격",
        "note": "레지스트리의 비고",
    },
    assumptions_heading="전제",
    assumptions=(
        "모든 값은 공개된 정보로 계산한 예측값이며, 실제로 실행해 본 것은 없습니다. 구동 여부는 해당 GPU에서 엔진을 "
        "띄우고 부하를 가득 걸어 보아야 확정됩니다.",
        "메모리는 vLLM의 방식대로 나눕니다. GPU 메모리의 {utilisation}에서 가중치와 오버헤드를 뺀 나머지가 KV "
        "캐시이며, 키와 값은 {kv_dtype}, 블록은 {block}토큰입니다.",
        "오버헤드(활성값, CUDA 그래프, 라이브러리)는 모델과 GPU에 따라 {overhead}했습니다. "
        "가장 그럴듯한 값으로 판정했으며, 이 범위 안에서 결과가 바뀔 수 있는 칸은 점선으로 표시했습니다.",
        "vLLM이 NVIDIA GPU와 같은 방식으로 지원하지 않는 장치는 메모리 크기만으로 판정한 것입니다. GPU 제원의 비고를 "
        "보십시오.",
        "공개된 형식이 아닌 칸은 매개변수 수로 계산했고 임베딩은 16비트로 두었습니다. 그런 체크포인트가 실제로 "
        "있는지, 답변의 품질이 유지되는지는 별개의 문제입니다.",
        "초당 토큰은 디코딩만 계산한 값이며, 모든 요청의 컨텍스트가 캐시에 가득 찬 상태를 가정합니다. 상한은 제원표의 "
        "최고 성능에, 모든 가중치가 그 형식이고 비트 폭이 허용하는 가장 빠른 연산기가 있다고 보고 계산하여 어떤 엔진도 "
        "넘을 수 없습니다. 필요한 정보가 없으면 ‘?’로 적습니다. 기대값은 대역폭의 0.8, 연산의 0.5를 쓴 값으로 아무것도 "
        "증명하지 않습니다.",
        "비용은 기대 속도를 쉬지 않고 유지할 때의 값으로, 공개된 GPU 가격의 최저와 최고를 썼습니다. 유휴 시간과 "
        "프롬프트를 읽는 시간은 따로 듭니다. ‘가득 찼을 때’는 메모리가 담을 수 있고 vLLM이 기본 설정에서 동시에 받는 "
        "최대 요청 수를 뜻합니다.",
    ),
    overhead_is={
        "guess": "{low}~{high} GiB로 추정",
        "measured": "같은 GPU에서 {low}~{high} GiB로 측정",
        "both": "일부 GPU는 측정하고 나머지는 추정하여 {low}~{high} GiB로 계산",
    },
    assumption_many="GPU {gpus}장이 텐서 병렬로 모델 하나를 나누어 맡습니다. 상한과 기대값 모두 GPU 사이의 통신 "
    "시간을 넣지 않았으므로 실제 엔진은 이보다 느립니다.",
    sixteen_bits="16비트",
    tip_headroom="남는 메모리 {low} / {likely} / {high} GiB(하한 / 유력 / 상한)",
    tip_context="요청 1건의 최대 컨텍스트 {tokens}토큰",
    tip_context_at="동시 {requests}건의 최대 컨텍스트 {tokens}토큰",
    tip_at_once="최대 동시 요청 {count}건",
    tip_speed="동시 {requests}건에서 초당 {expected}토큰 기대, 상한 {ceiling}",
    tip_cost="이 속도에서 출력 100만 토큰당 {low}~{high} {currency}",
    tip_confidence="신뢰도 {confidence}",
)
