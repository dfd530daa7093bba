"""What each tool wrote of one run, read into the same values: its answers' raw times and the figures that it prints.

The tools' files are outside bytes: what is not as expected is a `ResultUnreadable` that names the tool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.crosscheck.ratios import Answered, Figures, figures_of

OURS, VLLM, GUIDELLM = "simsa", "vllm bench serve", "guidellm"
TOOLS = (OURS, VLLM, GUIDELLM)


class ResultUnreadable(Exception):
    """A tool's result is not as this script expects it, or has failed requests; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One run of one tool."""

    tool: str
    answered: int
    failed: int
    prompt_tokens: float
    """Mean of a prompt, as the engine counts them."""
    completion_tokens: int
    """Of every answer."""
    figures: Figures
    """Ours as the report prints them; the others' from their raw times, over the same window as ours."""
    printed: Figures
    """As each tool prints them, by its own definitions and over its own window."""
    remarks: tuple[str, ...] = ()


def read_ours(content: bytes, *, warm_up_s: float) -> Shot:
    """`simsa loadtest run --json`: the plan's window begins after the same warm-up by itself."""
    with _complaining(OURS):
        (cell,) = json.loads(content)["cells"]
        repeat = cell["repeats"][-1]
        rates, latencies, outcomes = repeat["rates"], repeat["latencies"], repeat["outcomes"]
        figures = Figures(rates["output_tokens_per_s"], latencies["ttft_s"]["p50"], latencies["tpot_s"]["p50"])
        failed_checks = [f"{one['name']}: {one['seen']}" for one in repeat["checks"] if one["passed"] is False]
        answered = outcomes.get("ok", 0)
        return Shot(
            tool=OURS,
            answered=answered,
            failed=sum(outcomes.values()) - answered,
            prompt_tokens=rates["input_tokens_per_s"] / rates["requests_per_s"],
            completion_tokens=cell["output_tokens"],
            figures=figures,
            printed=figures,
            remarks=tuple(failed_checks),
        )


def read_vllm_bench(content: bytes, *, warm_up_s: float) -> Shot:
    """The file of `vllm bench serve --save-result --save-detailed`. Times are seconds, printed figures milliseconds."""
    with _complaining(VLLM):
        told = json.loads(content)
        names = ("start_times", "ttfts", "latencies", "output_lens", "errors")
        rows = [row for row in zip(*(told[name] for name in names), strict=True) if not row[4]]
        answers = [Answered(sent, sent + ttft, sent + latency, tokens) for sent, ttft, latency, tokens, _ in rows]
        return Shot(
            tool=VLLM,
            answered=told["completed"],
            failed=told["failed"],
            prompt_tokens=told["total_input_tokens"] / told["completed"],
            completion_tokens=_only(one.tokens for one in answers),
            figures=figures_of(answers, warm_up_s=warm_up_s),
            printed=Figures(told["output_throughput"], told["median_ttft_ms"] / 1000, told["median_tpot_ms"] / 1000),
        )


def read_guidellm(content: bytes, *, warm_up_s: float) -> Shot:
    """GuideLLM's JSON output. Its clock is the wall's; printed latencies are milliseconds, and what it prints as
    `inter_token_latency_ms` is the TPOT of everybody else: its `time_per_output_token_ms` includes the first token."""
    with _complaining(GUIDELLM):
        (benchmark,) = json.loads(content)["benchmarks"]
        requests, metrics = benchmark["requests"], benchmark["metrics"]
        answers = [_guidellm_answer(one) for one in requests["successful"]]
        prompts = [one["prompt_tokens"] for one in requests["successful"]]
        medians = {
            name: metrics[name]["successful"]["median"] / 1000
            for name in ("time_to_first_token_ms", "inter_token_latency_ms")
        }
        return Shot(
            tool=GUIDELLM,
            answered=len(answers),
            failed=len(requests["errored"]) + len(requests["incomplete"]),
            prompt_tokens=sum(prompts) / len(prompts),
            completion_tokens=_only(one.tokens for one in answers),
            figures=figures_of(answers, warm_up_s=warm_up_s),
            printed=Figures(metrics["output_tokens_per_second"]["successful"]["mean"], *medians.values()),
        )


def _guidellm_answer(told: Mapping[str, Any]) -> Answered:
    timings = told["info"]["timings"]
    return Answered(
        timings["request_start"],
        timings["first_token_iteration"],
        timings["last_token_iteration"],
        told["output_tokens"],
    )


READERS: Mapping[str, Callable[..., Shot]] = {OURS: read_ours, VLLM: read_vllm_bench, GUIDELLM: read_guidellm}


def _only(lengths: Iterator[int]) -> int:
    """The length of every answer; other lengths were not asked for."""
    found = set(lengths)
    if len(found) != 1:
        raise ValueError(f"expected answers of one length, got {sorted(found)}")
    return found.pop()


@contextmanager
def _complaining(tool: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ResultUnreadable(f"{tool}: its result is not as expected: {type(error).__name__}: {error}") from error
