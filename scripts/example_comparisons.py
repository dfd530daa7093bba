"""Runs the shipped Korean prompts through a running gateway as comparisons and writes what came back as a page.

    SIMSA_ADMIN_KEY=simsa-… .venv/bin/python scripts/example_comparisons.py docs/examples/simulated-ko.md \
        --models EXAONE-4.0-32B,Midm-2.0-Base-Instruct --started-with ".venv/bin/simsa up" \
        --engines "two simulated engines, each on an H100 SXM of its own"

Every figure on the page is one of the gateway's own or the percentile of such; nothing is judged here.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.comparison_client import compare
from gateway.comparison_view import BASES, CAVEATS, PROVENANCE, ComparisonView
from gateway.console import printable, significant
from gateway.domain.records import Provenance
from gateway.domain.stats import Summary, summarise
from gateway.errors import SimsaError
from gateway.gateway_client import GatewayDoor, GatewayUnreachable
from gateway.prompts import CORE_SET, Prompt, load_prompts
from gateway.settings import Settings

LANGUAGE = "ko"
DEFAULT_URL = "http://127.0.0.1:8080"
LONGEST_TEXT = 360
"""Characters of an answer that are shown."""
LONGEST_NOISE = 40
"""The same for a stand-in, whose answers are random tokens."""
CONSOLE_WIDTH = 98

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the comparison that came of it."""

    prompt: Prompt
    comparison: Json


async def ask_all(options: argparse.Namespace, prompts: Sequence[Prompt], key: str | None) -> list[Asked]:
    """One comparison after the other; progress goes to standard error."""
    asked = []
    for number, prompt in enumerate(prompts, start=1):
        request = {
            "models": options.models.split(","),
            "prompt": prompt.text,
            "params": params(options),
        }
        comparison: Json = {}
        async for event, data in compare(GatewayDoor(options.url, key), request):
            if event == "comparison.finished":
                comparison = data
        asked.append(Asked(prompt, comparison))
        told = ", ".join(f"{side['model']} {side['status']}" for side in comparison["sides"])
        sys.stderr.write(f"{number}/{len(prompts)} {prompt.id}: {told}\n")
    return asked


def params(options: argparse.Namespace) -> Json:
    return {"max_tokens": options.max_tokens} | ({} if options.seed is None else {"seed": options.seed})


# --- the page -----------------------------------------------------------------------------------------------


def page(options: argparse.Namespace, asked: Sequence[Asked]) -> str:
    kinds = {Provenance(side["provenance"]) for one in asked for side in one.comparison["sides"]}
    lines = [
        f"# {len(asked)} comparisons over the shipped Korean prompts: {' and '.join(options.models.split(','))}",
        "",
        *head(options, asked, kinds),
        "",
        "## Summary",
        "",
        *summary_table(asked),
        "",
        *comparability(asked),
        "",
        "## The first comparison as the console shows it",
        "",
        *fenced(console_rendering(asked[0].comparison)),
        "",
        "## Every question and its answers",
        "",
        f"Answers end after {options.max_tokens} tokens; at most {shown_length(kinds)} characters of each are shown.",
    ]
    for one in asked:
        lines += ["", *question(one)]
    return "\n".join(lines) + "\n"


def head(options: argparse.Namespace, asked: Sequence[Asked], kinds: set[Provenance]) -> Iterator[str]:
    yield "Generated, not written by hand. What produced it:"
    yield ""
    yield f"- **Engines**: {options.engines}"
    yield f"- **Provenance**, as the engines themselves reply: {', '.join(sorted(PROVENANCE[kind] for kind in kinds))}"
    for kind in sorted(kinds):
        if kind in CAVEATS:
            yield f"- **{CAVEATS[kind]}**"
    if Provenance.STAND_IN in kinds:
        yield (
            "- **The text of the answers is meaningless**: random weights pick random tokens. Only a short excerpt is "
            "shown, with unprintable characters escaped."
        )
    industries = len({one.prompt.industry for one in asked})
    yield f"- **Prompts**: set `{CORE_SET}`, language {LANGUAGE}, {len(asked)} prompts from {industries} industries"
    given = ", ".join(f"{name} {value}" for name, value in params(options).items())
    yield f"- **Parameters**: {given}; {schedules(asked)}"
    yield f"- **Versions**: simsa {version('simsa')}, Python {platform.python_version()}"
    yield f"- **Machine**: {os.cpu_count()} CPU cores ({platform.system()}, {platform.machine()})"
    yield f"- **Date**: {datetime.now(UTC).date().isoformat()}"
    yield ""
    yield "To reproduce, with the gateway in one terminal and the key that it prints in the other:"
    yield ""
    yield from fenced(f"$ {options.started_with}\n$ SIMSA_ADMIN_KEY=simsa-… {command(options)}", language="console")


def command(options: argparse.Namespace) -> str:
    """What to type for a page like this one from a gateway at the usual address."""
    words = {
        "--models": options.models,
        **{f"--{name.replace('_', '-')}": str(value) for name, value in params(options).items()},
        "--engines": options.engines,
        "--started-with": options.started_with,
    }
    given = [f"{name} {shlex.quote(value)}" for name, value in words.items()]
    page = shlex.quote(str(options.page))
    return " \\\n    ".join([f".venv/bin/python scripts/example_comparisons.py {page}", *given])


def schedules(asked: Sequence[Asked]) -> str:
    words = {"concurrent": "both sides at the same time", "sequential": "one side after the other"}
    used = Counter(one.comparison["schedule"] for one in asked)
    return ", ".join(f"{words[name]} ({count} times)" for name, count in used.items())


def summary_table(asked: Sequence[Asked]) -> Iterator[str]:
    models = [side["model"] for side in asked[0].comparison["sides"]]
    columns = [summary_column([one.comparison["sides"][n] for one in asked]) for n in range(len(models))]
    yield f"| | {' | '.join(models)} |"
    yield f"|---|{'---:|' * len(models)}"
    for label in columns[0]:
        yield f"| {label} | {' | '.join(cell(column[label]) for column in columns)} |"
    yield ""
    yield "Percentiles are exact, from the raw values; n says how many. See [measurement.md](../measurement.md)."


def summary_column(sides: Sequence[Json]) -> dict[str, str]:
    """One model's figures by their label. Failed answers count in the first row only."""
    answered = [side for side in sides if side["status"] == "ok"]
    ttft = summarise([side["timing"]["ttft_s"] for side in answered if side["timing"]["ttft_s"] is not None])
    tpot = summarise([side["timing"]["tpot_s"] for side in answered if side["timing"]["tpot_s"] is not None])
    verdicts = {f"{s['feasibility']['verdict']} · {s['feasibility']['gpu']}" for s in answered if s["feasibility"]}
    return {
        "Answered": f"{len(answered)} of {len(sides)}",
        "Provenance": ", ".join(sorted({side["provenance"] for side in sides})),
        "TTFT p50 (ms)": in_ms(ttft, ttft.p50),
        "TTFT p95 (ms)": in_ms(ttft, ttft.p95),
        "TPOT p50 (ms)": in_ms(tpot, tpot.p50),
        "Tokens in": total_tokens(answered, "prompt_tokens"),
        "Tokens out": total_tokens(answered, "completion_tokens"),
        "Cost, all answers": total_cost(answered),
        "One GPU (predicted)": ", ".join(sorted(verdicts)) or "unknown",
    }


def in_ms(summary: Summary, value: float | None) -> str:
    return "unknown" if value is None else f"{significant(value * 1000)} (n = {summary.n})"


def total_tokens(sides: Sequence[Json], name: str) -> str:
    counts = [side["usage"][name] for side in sides]
    missing = sum(count is None for count in counts)
    note = f" (unknown for {missing})" if missing else ""
    return f"{sum(count or 0 for count in counts):,}{note}"


def total_cost(sides: Sequence[Json]) -> str:
    """One sum for each currency and basis; unknown costs are told with their reason."""
    sums: dict[tuple[str, str], list[Decimal]] = {}
    reasons: Counter[str] = Counter()
    for cost in (side["cost"] for side in sides):
        if cost["amount"] is None:
            reasons[cost["reason"] or "no reason was given"] += 1
        else:
            sums.setdefault((cost["currency"], cost["basis"]), []).append(Decimal(cost["amount"]))
    parts = [
        f"{significant(sum(amounts, Decimal(0)))} {currency}, {BASES.get(basis, basis)} (n = {len(amounts)})"
        for (currency, basis), amounts in sums.items()
    ]
    return "; ".join([*parts, *(f"unknown for {count}: {reason}" for reason, count in reasons.items())])


def comparability(asked: Sequence[Asked]) -> Iterator[str]:
    yield "Timings comparable, and why:"
    yield ""
    judged = Counter((one.comparison["timing_comparable"], one.comparison["timing_reason"]) for one in asked)
    for (comparable, reason), count in judged.most_common():
        yield f"- {'yes' if comparable else 'no'}, {count} times: {cell(reason)}"


def console_rendering(comparison: Json) -> str:
    sides = [{**side, "output": {**(side["output"] or {}), "content": shortened(side)}} for side in comparison["sides"]]
    shown = {**comparison, "sides": sides if any(map(is_noise, sides)) else comparison["sides"]}
    console = Console(file=io.StringIO(), width=CONSOLE_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(ComparisonView.of(shown, console=console))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def question(one: Asked) -> Iterator[str]:
    yield f"### {one.prompt.id}"
    yield ""
    yield from (f"> {line}" if line else ">" for line in escaped(one.prompt.text).splitlines())
    for side in one.comparison["sides"]:
        yield ""
        yield f"**{side['model']}** · {facts(side)}"
        yield ""
        if side["status"] != "ok":
            yield f"failed: {cell((side['error'] or {}).get('message') or 'no reason was given')}"
        yield from fenced(shortened(side) or "(an empty answer)")


def facts(side: Json) -> str:
    timing, usage = side["timing"] or {}, side["usage"] or {}
    ttft, tokens = timing.get("ttft_s"), usage.get("completion_tokens")
    return ", ".join(
        (
            f"{side['status']} ({side['finish_reason'] or 'no finish reason'})",
            f"TTFT {'unknown' if ttft is None else f'{significant(ttft * 1000)} ms'}",
            f"{'unknown' if tokens is None else tokens} tokens",
        )
    )


# --- text ---------------------------------------------------------------------------------------------------


def is_noise(side: Json) -> bool:
    return Provenance(side["provenance"]) is Provenance.STAND_IN


def shown_length(kinds: set[Provenance]) -> int:
    return LONGEST_NOISE if Provenance.STAND_IN in kinds else LONGEST_TEXT


def shortened(side: Json) -> str:
    """The answer as far as it is shown; of a stand-in's only an excerpt, on one line, the unprintable escaped."""
    text = (side["output"] or {}).get("content") or ""
    limit = LONGEST_NOISE if is_noise(side) else LONGEST_TEXT
    cut = text[:limit] + ("…" if len(text) > limit else "")
    if not is_noise(side):
        return printable(cut)
    return "".join(c if c.isprintable() and c != "\ufffd" else c.encode("unicode_escape").decode() for c in cut)


def fenced(text: str, *, language: str = "text") -> Iterator[str]:
    """A code block that nothing in `text` can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    yield f"{fence}{language}"
    yield from text.splitlines()
    yield fence


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|~" else c for c in text)


def cell(text: str) -> str:
    return escaped(" ".join(printable(text).split()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare models over the shipped Korean prompts; write a page.")
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.add_argument("--models", required=True, help="two model ids or more, separated by commas")
    parser.add_argument("--engines", required=True, help="what the engines are, in words")
    parser.add_argument("--started-with", required=True, help="the command that started engines and gateway")
    parser.add_argument("--url", default=DEFAULT_URL, help="the gateway's address")
    parser.add_argument("--max-tokens", type=int, default=96, help="longest answer in tokens")
    parser.add_argument("--seed", type=int, help="sampling seed; none if not given")
    options = parser.parse_args()
    admin_key = Settings().admin_key
    key = admin_key.get_secret_value() if admin_key is not None else None
    try:
        asked = asyncio.run(ask_all(options, load_prompts(language=LANGUAGE), key))
    except (SimsaError, GatewayUnreachable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    options.page.write_text(page(options, asked), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
