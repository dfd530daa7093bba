"""How long the ranking takes: `python -m bench.ranking` prints seconds of wall clock and of CPU, and passes no verdict.

Votes are drawn with reviewers and prompts that have tastes of their own. Sizes are those the ranking is meant for: a
whole analysis of 100,000 votes with three criteria, and clustered intervals alone for 1,000,000.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from gateway.domain.ranking.analysis import Plan, analyse
from gateway.domain.ranking.contests import contests_of
from gateway.domain.ranking.document import as_document
from gateway.domain.ranking.estimates import Estimate, Said, estimate
from gateway.domain.ranking.votes import NO_GRADE, FloatArray, Votes, columns_of_votes
from gateway.domain.records import Provenance

CRITERIA = ("performance", "infrastructure", "industry")
FEATURES = ("length", "headers", "lists", "bold")
INDUSTRIES = ("finance", "manufacturing", "public")


def drawn_votes(
    n: int, *, models: int = 10, reviewers: int = 500, prompts: int = 1000, seed: int = 1, has_all: bool = True
) -> Votes:
    """n votes; with `has_all`, grades of three criteria, styles, industries and times too. The same for one seed."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, models, n)
    b = (a + rng.integers(1, models, n)) % models
    reviewer, prompt = rng.integers(0, reviewers, n), rng.integers(0, prompts, n)
    tastes, topics = rng.normal(0, 0.5, (reviewers, models)), rng.normal(0, 0.5, (prompts, models))
    worth = np.linspace(-0.8, 0.8, models)
    gap = worth[a] - worth[b] + tastes[reviewer, a] - tastes[reviewer, b] + topics[prompt, a] - topics[prompt, b]
    outcome = _outcomes(rng, gap)
    columns = {"models": _names("model", models), "reviewers": _names("r", reviewers), "prompts": _names("p", prompts)}
    codes = {"reviewer": reviewer, "prompt": prompt, "model_a": a, "model_b": b, "outcome": outcome}
    if not has_all:
        return columns_of_votes(**columns, **codes)
    return columns_of_votes(
        **columns,
        **codes,
        criteria=CRITERIA,
        grades=_grades(rng, gap),
        is_repeat=rng.random(n) < 0.02,
        is_attention=rng.random(n) < 0.02,
        recognised=rng.random(n) < 0.03,
        industries=INDUSTRIES,
        industry=rng.integers(0, len(INDUSTRIES), n),
        seconds=rng.lognormal(4, 0.6, n),
        features=FEATURES,
        style_a=rng.poisson(20, (n, len(FEATURES))).astype(np.float64),
        style_b=rng.poisson(20, (n, len(FEATURES))).astype(np.float64),
    )


def _outcomes(rng: np.random.Generator, gap: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    kind = rng.random(len(gap))
    won = np.where(rng.random(len(gap)) < expit(gap), 0, 1)
    return np.select([kind < 0.12, kind < 0.18, kind < 0.2], [2, 3, 4], won).astype(np.int8)


def _grades(rng: np.random.Generator, gap: FloatArray) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    seen = np.clip(np.rint(gap[:, None] + rng.normal(0, 1, (len(gap), len(CRITERIA)))), -2, 2)
    return np.where(rng.random(seen.shape) < 0.02, NO_GRADE, seen).astype(np.int8)


def _names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}{number:05}" for number in range(count))


def timed(what: str, work: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sys.stdout.write(f"{what:<70} {wall:6.2f} s   {cpu:6.2f} s of CPU\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    chosen = parser.parse_args()
    votes = drawn_votes(chosen.votes)
    plan = Plan(
        provenance=dict.fromkeys(votes.models, Provenance.SIMULATED),
        weights={"performance": 0.4, "infrastructure": 0.35, "industry": 0.25},
        keep=5,
    )
    timed(f"whole analysis, 10 models, {chosen.votes:,} votes, 3 criteria", lambda: as_document(analyse(votes, plan)))
    many = drawn_votes(chosen.many, reviewers=2000, has_all=False)

    def clustered() -> None:
        assert isinstance(estimate(contests_of(many), Said()), Estimate)

    timed(f"strengths, clustered intervals and ranks, {chosen.many:,} votes", clustered)


if __name__ == "__main__":
    main()
