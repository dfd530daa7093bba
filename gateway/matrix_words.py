"""The words of the feasibility page, in Korean and in English.

Each language fills every field, so none can lack a sentence. `{names}` in braces are filled in by the page; figures
and layout do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Gap, Units
from gateway.domain.records import Confidence

Language = Literal["ko", "en"]


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    title_many: str
    kicker: str
    load_one: str
    load_many: str
    brief: str
    summary: str
    made: str
    registry: str
    no_date: str
    contents: str
    legend: str
    verdicts: Mapping[Verdict, str]
    """Short, for cells and tables. `{format}` is the number format with which the verdict holds."""
    legend_of: Mapping[Verdict, str]
    also_as: str
    """Beside a shorter context: the number format that is needed as well."""
    legend_room: str
    legend_borderline: str
    legend_confidence: str
    by_size: str
    """A flag under a model that no supported engine serves."""
    legend_by_size: str
    units: Mapping[Units, str]
    """A flag under a GPU's name; nothing for native units."""
    units_of: Mapping[Units, str]
    quantisations: Mapping[str, str]
    panel_units: str
    others_unknown: str
    figure: str
    scroll: str
    at_once: str
    gpus_least: str
    gpus_none: str
    needs: str
    table: str
    table_caption: str
    columns: Mapping[str, str]
    confidence: Mapping[Confidence, str]
    unknown: str
    unknown_heading: str
    unknown_lead: str
    unknown_none: str
    gaps: Mapping[Gap, str]
    facts: Mapping[str, str]
    """A registry field in words; one that is not here is shown by its name."""
    no_speed: str
    no_speed_facts: str
    no_price: str
    mixed_prices: str
    no_consortium: str
    gpus_heading: str
    gpu_columns: Mapping[str, str]
    per_hour: str
    assumptions_heading: str
    assumptions: tuple[str, ...]
    assumption_many: str
    overhead_is: Mapping[str, str]
    """By basis: guess, measured, both."""
    """What is assumed besides where several GPUs share a model."""
    sixteen_bits: str
    tip_headroom: str
    tip_context: str
    tip_context_at: str
    tip_at_once: str
    tip_speed: str
    tip_cost: str
    tip_confidence: str


ENGLISH = Words(
    title="Which candidate models run on one GPU: predicted (not measured)",
    title_many="Which candidate models run on {gpus} GPUs together: predicted (not measured)",
    kicker="Simsa · infrastructure realism",
    load_one="Judged for one request at a time of {context} tokens, prompt and answer together.",
    load_many="Judged for {count} requests at once, each of {context} tokens, prompt and answer together.",
    brief="Assumed: vLLM uses {utilisation} of the memory; the overhead is {overhead}; "
    "the KV cache is in {kv_dtype}. More under “What is assumed”.",
    summary="{known} of {total} models have enough published facts for a verdict. The other {unknown} stay unknown, "
    "each with its reason.",
    made="Made on {date}",
    registry="Facts as of {as_of}, registry {sha}",
    no_date="no date",
    contents="Number formats",
    legend="How to read a cell",
    verdicts={
        Verdict.FITS: "Fits",
        Verdict.FITS_QUANTISED: "Fits only as {format}",
        Verdict.FITS_SHORT_CONTEXT: "Fits only with a shorter context",
        Verdict.NO: "Does not fit",
        Verdict.UNKNOWN: "Unknown",
    },
    legend_of={
        Verdict.FITS: "Fits. ×5 means that memory holds five such requests at once.",
        Verdict.FITS_QUANTISED: "Fits only with smaller weights, in the format shown.",
        Verdict.FITS_SHORT_CONTEXT: "Fits only with a shorter context; shown are the most tokens a request may have "
        "at the number of requests asked.",
        Verdict.NO: "Does not fit. Shown is the fewest GPUs of this type that together hold it, of 2, 4, 8, 16, 32 "
        "and 64 by tensor parallelism (other numbers were not tried); a dash where none of them does.",
        Verdict.UNKNOWN: "Unknown: a fact that the arithmetic needs is not published. The reason is in the row.",
    },
    also_as="{verdict}, and only as {format}",
    legend_room="Second line: memory left over with this load, in GiB; with a minus sign, memory that is missing.",
    legend_borderline="Dashed line: borderline. The verdict turns within the range of the overhead.",
    legend_confidence="Ring in the corner: rests on a fact of low confidence.",
    by_size="by size only",
    legend_by_size="“by size only”: no supported engine serves this model, so the verdict is about memory alone.",
    units={Units.NATIVE: "", Units.WEIGHT_ONLY: "weights only", Units.UNLISTED: "speed unlisted"},
    units_of={
        Units.NATIVE: "",
        Units.WEIGHT_ONLY: "“weights only”: the GPU does not compute in this format. Smaller weights save memory and "
        "reading time; arithmetic stays at 16 bits.",
        Units.UNLISTED: "“speed unlisted”: the registry has no arithmetic speed for this format. The ceiling allows "
        "for the fastest that the width permits; the expectation counts on the units that are listed.",
    },
    quantisations={
        "published": "As published",
        "bf16": "BF16 (16 bits)",
        "fp8": "FP8 (8-bit floating point)",
        "int8": "INT8 (8-bit integers)",
        "int4": "INT4 (4 bits, GPTQ style)",
        "awq": "AWQ (4 bits with zero points)",
        "nvfp4": "NVFP4 (4-bit floating point)",
        "mxfp4": "MXFP4 (4-bit floating point)",
    },
    panel_units="All GPUs here: {flag}.",
    others_unknown="{count} models without a verdict are not drawn again; the first figure and the list below have "
    "them.",
    figure="Heat map, weights {format}: rows are models by consortium, columns are GPUs from small to large memory. "
    "The same figures stand in the table below it.",
    scroll="Figure, scrolls sideways",
    at_once="×{count}",
    gpus_least="{count} GPUs",
    gpus_none="–",
    needs="≤ {tokens}",
    table="All figures as a table",
    table_caption="Weights {format}: every figure is predicted",
    columns={
        "model": "Model",
        "gpu": "GPU",
        "verdict": "Verdict",
        "headroom": "Memory left, GiB (low / likely / high)",
        "context": "Longest context of one request",
        "context_at": "Longest context at the number of requests asked",
        "at_once": "Most requests at once",
        "gpus": "Fewest GPUs (powers of two)",
        "speed": "Tokens/s as asked: expected (ceiling)",
        "cost": "Cost per million output tokens as asked",
        "full_speed": "Tokens/s when full: expected (ceiling), requests",
        "full_cost": "Cost per million output tokens when full",
        "confidence": "Confidence",
        "reason": "Reason",
    },
    confidence={Confidence.HIGH: "high", Confidence.MEDIUM: "medium", Confidence.LOW: "low"},
    unknown="unknown",
    unknown_heading="What cannot be judged, and why",
    unknown_lead="Unknown is not “no”. Where the checkpoint’s config.json is at hand, it closes most of these gaps.",
    unknown_none="Every model here has a verdict.",
    gaps={
        Gap.NO_WEIGHTS: "No public weights: nothing can be said about a GPU of one’s own.",
        Gap.NO_SHAPE: "The model’s shape (layers, KV heads, head size) is not published.",
        Gap.FACTS: "Not published, or not usable: {facts}.",
        Gap.CONTRADICTORY: "The facts in the registry contradict each other.",
        Gap.PLAN: "vLLM does not start this model on so many GPUs, or with this format of the KV cache.",
    },
    facts={
        "layers": "number of layers",
        "kv_heads": "KV heads",
        "head_dim": "head size",
        "heads": "attention heads",
        "heads, head_dim": "attention heads and head size, or hidden size",
        "params": "parameter count",
        "active_params": "active parameters",
        "global_layers": "layers with full attention",
        "sliding_window": "sliding window",
        "sliding_window or attention_chunk": "size of the window or chunk",
        "attention_chunk": "size of the chunk",
        "linear.layers": "number of state layers",
        "linear.state_bytes": "size of a layer’s state",
        "mla.kv_lora_rank": "size of the latent",
        "mla.qk_rope_head_dim": "size of the rotary part",
        "context": "context limit",
        "weights.dtype": "number format of the weights",
    },
    no_speed="does not fit as asked, so it has no speed here",
    no_speed_facts="needs {facts}",
    no_price="no listed price",
    mixed_prices="prices in several currencies and no exchange rate",
    no_consortium="Without a consortium",
    gpus_heading="The GPUs",
    gpu_columns={
        "gpu": "GPU",
        "memory": "Memory, GiB",
        "bandwidth": "Bandwidth, TB/s",
        "bf16": "BF16, TFLOPS",
        "fp8": "FP8, TFLOPS",
        "price": "Listed price per GPU hour",
        "note": "Note of the registry",
    },
    per_hour="{low}–{high} {currency}",
    assumptions_heading="What is assumed",
    assumptions=(
        "Everything here is predicted from published facts. Nothing was run. Only starting the engine on the GPU, "
        "under a load that fills it, settles whether a model fits.",
        "Memory is shared out the way vLLM does it: {utilisation} of the GPU’s memory, less weights, less overhead, "
        "is the KV cache, in blocks of {block} tokens with keys and values in {kv_dtype}.",
        "The overhead (activations, CUDA graphs, libraries), by model and GPU, is {overhead}. "
        "Verdicts take the likely value; a dashed line marks those that the range could turn.",
        "Devices that vLLM does not serve as it serves NVIDIA GPUs are judged by size alone: see the notes in the "
        "table of GPUs.",
        "Other formats than the published one are worked out from the parameter count, with embeddings left in 16 "
        "bits. Whether such a checkpoint exists, and answers as well, is another question.",
        "Tokens per second are for decoding alone, every request with its whole context in cache. The ceiling is at "
        "the data sheet’s peak, with all weights in the format and the fastest units that its width permits: no engine "
        "beats it; “?” where a fact is unknown that it needs. The expectation takes 0.8 of the bandwidth and 0.5 of "
        "the arithmetic; it proves nothing.",
        "Cost is the GPU’s lowest to highest listed price at the expected rate, kept up around the clock. Idle time "
        "comes on top, and so does reading prompts. “When full” is the most requests that memory holds, and that vLLM "
        "takes at once by default.",
    ),
    overhead_is={
        "guess": "a guess of {low} to {high} GiB",
        "measured": "measured on this type of GPU, {low} to {high} GiB",
        "both": "measured for some types of GPU and for others a guess, {low} to {high} GiB",
    },
    assumption_many="{gpus} GPUs share each model by tensor parallelism. The ceiling lets them talk in no time, and "
    "so does the expectation: real engines are slower.",
    sixteen_bits="16 bits",
    tip_headroom="memory left {low} / {likely} / {high} GiB (low / likely / high)",
    tip_context="longest context of one request {tokens} tokens",
    tip_context_at="longest context of {requests} at once {tokens} tokens",
    tip_at_once="most requests at once {count}",
    tip_speed="{expected} tokens/s expected, ceiling {ceiling}, with {requests} at once",
    tip_cost="{low}–{high} {currency} per million output tokens at that rate",
    tip_confidence="confidence {confidence}",
)

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
    at_once="×{count}",
    gpus_least="{count}장",
    gpus_none="–",
    needs="≤ {tokens}",
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
    per_hour="{low}–{high} {currency}",
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

WORDS: Mapping[Language, Words] = {"ko": KOREAN, "en": ENGLISH}
