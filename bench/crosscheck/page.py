"""The record of a cross-check as JSON, and the table of docs/loadtests.md that is made from it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import msgspec

from bench.crosscheck.ratios import HIGHEST, LOWEST, METRICS, Figures, Ratio, ratio_of
from bench.crosscheck.results import GUIDELLM, OURS, VLLM, Shot

BEGIN, END = "<!-- loadtest-crosscheck: begin -->", "<!-- loadtest-crosscheck: end -->"
OTHERS = (VLLM, GUIDELLM)
_WORDS: Mapping[str, tuple[str, str, float]] = {
    "output_tokens_per_s": ("output tokens/s", ".1f", 1.0),
    "ttft_p50_s": ("median TTFT, ms", ".2f", 1000.0),
    "tpot_p50_s": ("median TPOT, ms", ".3f", 1000.0),
}


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    began_at: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run in its round."""

    round: int
    place: int
    """From 0: which of the round's runs."""
    shot: Shot
    cached_share: float | None
    """Of prompt tokens, by the engine's counters over the run."""
    load_before: float
    """The machine's load average of a minute when it began: above the share of this script, others work here."""


@dataclass(frozen=True, slots=True)
class Outcome:
    machine: Machine
    settings: Mapping[str, object]
    requests: int
    runs: Sequence[Measured]

    def ratios(self, other: str, kind: str = "figures") -> dict[str, Ratio]:
        """Ours over another tool's, round by round. `kind`: figures | printed."""
        ours, theirs = self._by_round(OURS, kind), self._by_round(other, kind)
        both = sorted(ours.keys() & theirs.keys())
        return {
            name: ratio_of([(getattr(ours[one], name), getattr(theirs[one], name)) for one in both]) for name in METRICS
        }

    def middle(self, tool: str, metric: str) -> float:
        """The geometric mean of the rounds: as a ratio's two sides are."""
        values: list[float] = [getattr(one, metric) for one in self._by_round(tool, "figures").values()]
        return statistics.geometric_mean(values)

    def _by_round(self, tool: str, kind: str) -> dict[int, Figures]:
        return {one.round: getattr(one.shot, kind) for one in self.runs if one.shot.tool == tool}


def to_json(outcomes: Sequence[Outcome]) -> str:
    """Of each load, its runs and what they say."""
    whole = [{**msgspec.to_builtins(one), "ratios": _told(one)} for one in outcomes]
    return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode() + "\n"


def _told(outcome: Outcome) -> dict[str, object]:
    return {
        other: {
            kind: {
                name: {**asdict(one), "width": one.width, "verdict": one.verdict}
                for name, one in outcome.ratios(other, kind).items()
            }
            for kind in ("figures", "printed")
        }
        for other in OTHERS
    }


def from_json(text: str) -> list[Outcome]:
    return msgspec.json.decode(text, type=list[Outcome])


def put_into(page: str, outcomes: Sequence[Outcome]) -> str:
    """The page with the block between its marks written anew. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the marks {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n" + "\n\n".join(block(one) for one in outcomes) + f"\n{END}{after}"


def block(outcome: Outcome) -> str:
    """The tables of one load, and what stands beside them."""
    lines = [_beside(outcome), ""]
    for other in OTHERS:
        lines += [*_table(outcome, other), ""]
    return "\n".join(lines).rstrip()


def _beside(outcome: Outcome) -> str:
    machine, settings = outcome.machine, outcome.settings
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    loads = sorted(one.load_before for one in outcome.runs)
    rate = settings["rate_per_s"]
    load = f"{rate:g} requests/s at equal distances" if rate else f"{settings['users']} users who ask again at once"
    return (
        f"**{load}.** {machine.began_at}, {machine.cores} cores, {versions}. {settings['input_tokens']} "
        f"tokens in, {settings['output_tokens']} out, {outcome.requests} requests a run of which the first "
        f"{settings['warm_up_s']:g} s warm up. The machine's load was {loads[0]:.1f} to {loads[-1]:.1f} when runs "
        f"began; this script's own is 2 at most."
    )


def _table(outcome: Outcome, other: str) -> list[str]:
    figures, printed = outcome.ratios(other), outcome.ratios(other, "printed")
    rows = [
        f"| ours and `{other}` | ours | theirs | ratio, 95 % interval | pairs | says | theirs as it prints |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for name in METRICS:
        words, form, scale = _WORDS[name]
        ours, theirs = (format(outcome.middle(tool, name) * scale, form) for tool in (OURS, other))
        one = figures[name]
        rows.append(
            f"| {words} | {ours} | {theirs} | {_span(one)} | {one.pairs} | {_verdict(one)} | {_span(printed[name])} |"
        )
    return rows


def _span(one: Ratio) -> str:
    return f"{one.mean:.3f} ({one.low:.3f}–{one.high:.3f})"


def _verdict(one: Ratio) -> str:
    """In words, with the width where it settles nothing."""
    if one.verdict == "inconclusive":
        return f"inconclusive, {one.width:.3f} wide"
    return f"{one.verdict} ({LOWEST:g}–{HIGHEST:g})"
