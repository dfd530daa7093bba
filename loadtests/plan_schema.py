"""The shape of a plan's YAML file. Untrusted input enters here; what entries mean together is `plan_file`'s subject."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gateway.registry.schema import Block
from gateway.registry.text import shown
from gateway.registry.values import Amount, Count, CountOrZero, Many, Name, Number, Text, Truth

MOST_SECONDS = 7 * 86_400
MOST_USERS = 100_000
MOST_PER_S = 100_000


def _refused(expected: str, got: object) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": f"expected {expected}, got {shown(got)}"})


def _real(expected: str, least: float, most: float, *, above: bool = False) -> BeforeValidator:
    def check(raw: object) -> float:
        if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not least <= raw <= most:
            raise _refused(expected, raw)
        if above and raw == least:
            raise _refused(expected, raw)
        return float(raw)

    return BeforeValidator(check)


def _whole(expected: str, least: int, most: int) -> BeforeValidator:
    def check(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise _refused(expected, raw)
        return raw

    return BeforeValidator(check)


Seconds = Annotated[float, _real(f"seconds, more than 0 and at most {MOST_SECONDS:,}", 0, MOST_SECONDS, above=True)]
SecondsOrZero = Annotated[float, _real(f"seconds, from 0 to {MOST_SECONDS:,}", 0, MOST_SECONDS)]
PerSecond = Annotated[
    float, _real(f"requests a second, more than 0 and at most {MOST_PER_S:,}", 0, MOST_PER_S, above=True)
]
PerSecondOrZero = Annotated[float, _real(f"requests a second, from 0 to {MOST_PER_S:,}", 0, MOST_PER_S)]
UserCount = Annotated[int, _whole(f"a whole number of users from 1 to {MOST_USERS:,}", 1, MOST_USERS)]
Tokens = Annotated[int, _whole("a whole number of tokens from 1 to 10,000,000", 1, 10_000_000)]
Small = Annotated[int, _whole("a whole number from 1 to 1,000", 1, 1000)]
WorkerCount = Annotated[int, _whole("a whole number of workers from 1 to 256", 1, 256)]
Share = Annotated[float, _real("a share above 0, up to 1", 0, 1, above=True)]
Sigma = Annotated[float, _real("a number from 0 to 3", 0, 3)]
Temperature = Annotated[float, _real("a number from 0 to 2", 0, 2)]
Speed = Annotated[float, _real("a factor from 0.01 to 1,000", 0.01, 1000)]
Address = Annotated[
    str,
    BeforeValidator(
        lambda raw: (
            raw
            if isinstance(raw, str) and raw.startswith(("http://", "https://")) and "@" not in raw and raw.isprintable()
            else _raise(_refused("an address such as http://127.0.0.1:8080, without credentials", raw))
        )
    ),
]


def _raise(error: PydanticCustomError) -> Any:
    raise error


class TargetBlock(Block):
    model: Name | None = Field(None, description="the gateway's id of the model")
    models: Many[Name] = Field([], description="Of a comparison: two to eight ids.")
    through: Literal["gateway", "direct", "both"] = Field("gateway", description="Which door requests go to.")
    route: Literal["chat", "completions", "comparison"] = Field("chat", description="Which route.")
    gateway: Address | None = Field(None, description="The gateway's address; left out = that of the settings.")
    engine: Address | None = Field(None, description="The engine's own address, for direct and both.")
    engine_model: Text | None = Field(None, description="What the engine calls the model.")
    metrics: Many[Address] = Field([], description="Addresses whose /metrics are read through the run.")


class UniformBlock(Block):
    least: Tokens = Field(description="the fewest tokens")
    most: Tokens = Field(description="the most tokens")


class LognormalBlock(Block):
    median: Tokens = Field(description="the median in tokens")
    sigma: Sigma = Field(description="the standard deviation of the logarithm, such as 0.6")
    least: Tokens = Field(1, description="Shorter ones are drawn again.")
    most: Tokens = Field(description="the most tokens; longer ones are drawn again")


class LengthsBlock(Block):
    """One of the two."""

    uniform: UniformBlock | None = None
    lognormal: LognormalBlock | None = None


def _lengths(raw: object) -> object:
    """A plain number is a fixed length."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return {"uniform": {"least": raw, "most": raw}}
    return raw


LengthsField = Annotated[LengthsBlock, BeforeValidator(_lengths)]


class WorkloadBlock(Block):
    kind: Literal["chat", "document_qa", "summary", "multi_turn", "reasoning", "tools", "structured", "image"] = Field(
        "chat", description="What is asked."
    )
    language: Literal["ko", "en", "mixed"] = Field("ko", description="Of the texts.")
    industries: Many[Name] = Field([], description="Left out = all.")
    input_tokens: LengthsField | None = Field(None, description="A number, or uniform or lognormal.")
    output_tokens: LengthsField | None = Field(None, description="A number, or uniform or lognormal.")
    pinned: Truth = Field(True, description="Whether answers are forced to their length (ignore_eos).")
    max_output_tokens: Tokens = Field(1024, description="The limit where no length is asked.")
    shared_prefix_tokens: CountOrZero = Field(0, description="Of each prompt, those that are the same in its group.")
    prefix_groups: Small = Field(1, description="How many different shared prefixes.")
    turns: LengthsField | None = Field(None, description="Of multi_turn: requests of a conversation.")
    temperature: Temperature = Field(0.0, description="Sampling temperature.")
    extra: dict[str, Any] = Field({}, description="Fields added to every request.")


class SweepBlock(Block):
    rate_per_s: Many[PerSecond] = Field([], description="A steady cell for each.")
    users: Many[UserCount] = Field([], description="A steady cell for each.")


class RampBlock(Block):
    rate_per_s: Many[PerSecondOrZero] = Field([], description="From the first to the second, in straight line.")
    users: Many[UserCount] = Field([], description="From the first to the second.")


class StepsBlock(Block):
    rate_per_s: Many[PerSecond] = Field([], description="One after the other.")
    users: Many[UserCount] = Field([], description="One after the other.")
    each_s: Seconds = Field(description="seconds of each step")


class BurstBlock(Block):
    base_per_s: PerSecondOrZero = Field(description="the rate between bursts")
    peak_per_s: PerSecond = Field(description="the rate of a burst")
    every_s: Seconds = Field(description="seconds from one burst to the next")
    peak_s: Seconds = Field(description="seconds of a burst")


class TraceBlock(Block):
    file: Text | None = Field(None, description="JSON lines: at_s, input_tokens, output_tokens.")
    records: Name | None = Field(None, description="Replay this model's calls of the gateway's own database.")
    speed: Speed = Field(1.0, description="2 = twice as fast.")


class SearchBlock(Block):
    over: Literal["rate", "users"] = Field("rate", description="What is raised.")
    begin: Amount = Field(description="the first level, requests a second or users")
    most: Amount = Field(description="the highest level that is tried")
    tolerance: Share = Field(0.1, description="Ends at this distance between the last that held and the first not.")


class LoadBlock(Block):
    id: Name = Field(description="a short name, unique in the plan")
    rate_per_s: PerSecond | None = Field(None, description="A steady open loop.")
    users: UserCount | None = Field(None, description="A steady closed loop.")
    sweep: SweepBlock | None = Field(None, description="A steady cell for each of several levels.")
    ramp: RampBlock | None = Field(None, description="From one level to another.")
    steps: StepsBlock | None = Field(None, description="Levels one after the other in one cell.")
    burst: BurstBlock | None = Field(None, description="A base rate with peaks.")
    trace: TraceBlock | None = Field(None, description="Moments from a file or from the gateway's records.")
    search: SearchBlock | None = Field(None, description="Looks for the highest level that meets the objectives.")
    arrivals: Literal["poisson", "constant"] = Field("poisson", description="Of an open loop.")
    think_s: SecondsOrZero = Field(0.0, description="Of a closed loop: mean pause of a user.")
    for_s: Seconds | None = Field(None, description="Seconds of load, warm-up included; 60 if not given.")
    warm_up_s: SecondsOrZero | None = Field(None, description="Of these, the first that do not count; 10 at most.")
    claim: Name | None = Field(None, description="The claim whose load this is.")


class ObjectiveBlock(Block):
    metric: Literal[
        "ttft_s",
        "tpot_s",
        "itl_s",
        "e2e_s",
        "output_tokens_per_s",
        "output_tokens_per_s_per_user",
        "requests_per_s",
    ] = Field(description="which figure")
    statistic: Literal["p50", "p95", "p99", "mean", "attainment"] = Field(description="which statistic of it")
    limit: Number = Field(description="the most (latencies) or the least (rates), in the metric's unit")
    attainment_percent: Number | None = Field(None, description="With attainment: of offered requests.")


class PlanBlock(Block):
    name: Name = Field(description="a short name of the campaign")
    target: TargetBlock = Field(description="where requests go")
    workload: WorkloadBlock = Field(WorkloadBlock(), description="what is asked")
    load: list[LoadBlock] = Field(description="the cells and searches")
    objectives: Many[ObjectiveBlock] = Field([], description="What must hold.")
    preset: Name | None = Field(None, description="Objectives by size class, instead of `objectives`.")
    claims: Many[Name] = Field([], description="Claims of the registry to answer; left out = all of the model.")
    gpu: Name | None = Field(None, description="A GPU id of the registry.")
    gpus: Count | None = Field(None, description="GPUs of one replica.")
    repeats: Small = Field(3, description="Times that each cell is run.")
    seed: CountOrZero = Field(1, description="Of everything that is drawn.")
    drain_s: Seconds = Field(60.0, description="How long answers may take after the last request.")
    timeout_s: Seconds = Field(600.0, description="How long one answer may take.")
    workers: WorkerCount = Field(1, description="Processes that send.")
    calibrate: Truth = Field(True, description="Whether the client is tried on a stand-in first.")
