"""`make loadtest-demo`: three simulated candidates, the gateway in front, a load plan each, one report of all three.

Engines and gateway are those of `simsa up`, plans are run by `simsa loadtest run`. Plans and claims lie in
docs/examples/loadtest/; the claims are stated for this demonstration and are added to a copy of the registry only.
Ends with a table of the verdicts; exit code 1 when one is not as promised or a cell is invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from gateway.domain.claims import ClaimVerdict
from gateway.domain.records import Provenance
from gateway.processes import ChildFailed, free_ports, start_child, wait_ready
from gateway.registry import parse_registry
from gateway.registry.claims_file import parse_claims
from gateway.registry.text import read_document, write_document
from loadtests.cells import Run
from loadtests.exports import UnreadableRun, read_run
from loadtests.run_evidence import why_invalid
from loadtests.written import PAGES, write_report

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "loadtest"
CLAIMS = EXAMPLES / "claims.yaml"
FOLDER = ROOT / ".simsa" / "loadtest-demo"
"""Where engines, gateway and runs keep what they write."""
SOURCE = "stated for this demonstration"
GPU = "h100-sxm"
SIMSA = (sys.executable, "-m", "gateway")
READY_LIMIT_S, STOP_S = 120.0, 45.0


class Candidate(NamedTuple):
    """One of the three, and what comes of its claims."""

    name: str
    """Of its plan in EXAMPLES, and of its run there."""
    model: str
    promised: ClaimVerdict
    """The gravest verdict of its claims: a serving plan is as good as its weakest line."""

    @property
    def plan(self) -> Path:
        return EXAMPLES / f"{self.name}.yaml"


CANDIDATES = (
    Candidate("midm", "Midm-2.0-Base-Instruct", ClaimVerdict.PLAUSIBLE),
    Candidate("solar", "solar-pro-preview-instruct", ClaimVerdict.NOT_MET),
    Candidate("exaone", "EXAONE-4.0-32B", ClaimVerdict.REFUTED_ARITHMETIC),
)
GRAVEST_FIRST = (
    ClaimVerdict.REFUTED_ARITHMETIC,
    ClaimVerdict.REFUTED_MEASURED,
    ClaimVerdict.NOT_MET,
    ClaimVerdict.OPEN,
    ClaimVerdict.NOT_TESTABLE,
    ClaimVerdict.PLAUSIBLE,
    ClaimVerdict.HOLDS,
)


class DemoFailed(Exception):
    """The demonstration cannot go on; the message says why."""


def demo_registry(shipped: bytes, claims: bytes) -> bytes:
    """The shipped registry with the demonstration's claims beside each model's own. Raises RegistryInvalid."""
    parse_claims(claims, path=CLAIMS.name, registry=parse_registry(shipped, path="model_registry.yaml"))
    values = read_document(shipped, path="model_registry.yaml").value
    models = {model["id"]: model for model in values["models"]}
    for claim in read_document(claims, path=CLAIMS.name).value["claims"]:
        stated: dict[str, Any] = {**claim, "source": SOURCE, "confidence": "low"}
        models[stated.pop("model")].setdefault("claims", []).append(stated)
    heading = ["The model registry with the claims of a demonstration, which nobody made: do not edit or serve it."]
    derived = write_document(values, heading=heading)
    parse_registry(derived, path="the demonstration's registry")
    return derived


def gravest(run: Run) -> ClaimVerdict:
    """Of all its claims."""
    found = {ClaimVerdict(one.verdict) for one in run.verdicts}
    return next((verdict for verdict in GRAVEST_FIRST if verdict in found), ClaimVerdict.OPEN)


# --- running ------------------------------------------------------------------------------------------------


async def demonstrate(out: Path, note: Console) -> list[Run]:
    """The three runs; what is shown of them lies in `out`. Nothing that was started is left, whatever happens."""
    registry = FOLDER / "model_registry.yaml"
    FOLDER.mkdir(parents=True, exist_ok=True)
    registry.write_bytes(demo_registry((ROOT / "model_registry.yaml").read_bytes(), CLAIMS.read_bytes()))
    runs: list[Run] = []
    async with _up(registry, note) as environment:
        for number, candidate in enumerate(CANDIDATES, 1):
            note.print(f"candidate {number} of {len(CANDIDATES)}: {candidate.model}", style="bold")
            # One machine, one client: it is calibrated for the first, and the others take that over.
            options = ["--calibrated", runs[0].id] if runs else []
            runs.append(await _run_plan(candidate.plan, options, environment))
    _write(runs, out)
    return runs


@asynccontextmanager
async def _up(registry: Path, note: Console) -> AsyncIterator[Mapping[str, str]]:
    """`simsa up` with the three candidates; gives the environment in which load plans find them."""
    (port,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIMSA_")} | {
        "SIMSA_REGISTRY": str(registry),
        "SIMSA_DATA_DIR": str(FOLDER),
        "SIMSA_PORT": str(port),
        "SIMSA_ADMIN_KEY": secrets.token_urlsafe(),
        "PYTHONPATH": str(ROOT),
    }
    models = ",".join(candidate.model for candidate in CANDIDATES)
    command = (*SIMSA, "up", "--engines", "simulated", "--models", models, "--gpu", GPU)
    note.print(f"starting three simulated candidates on {GPU} and the gateway in front of them", style="dim")
    up = await start_child("simsa up", command, log=FOLDER / "up.log", environment=environment)
    try:
        await wait_ready(up, f"http://127.0.0.1:{port}/ready", timeout_s=READY_LIMIT_S)
        yield environment | {"SIMSA_REGISTRY": str(FOLDER / f"up-{port}" / "model_registry.yaml")}
    finally:
        await up.stop(STOP_S)


async def _run_plan(plan: Path, options: Sequence[str], environment: Mapping[str, str]) -> Run:
    """What `simsa loadtest run` found; its progress goes to our standard error. Raises DemoFailed."""
    process = await asyncio.create_subprocess_exec(
        *(*SIMSA, "loadtest", "run", str(plan), *options, "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        said, _ = await process.communicate()
    finally:
        await _ended(process)
    try:
        run = read_run(said)
    except UnreadableRun as error:
        raise DemoFailed(f"{plan.name}: `simsa loadtest run` ended with {process.returncode} and no run") from error
    if run.state != "complete":
        raise DemoFailed(f"{plan.name}: run {run.id} was {run.state}: {' '.join(run.notes)}")
    return run


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Whatever becomes of us, a run that we began ends: first asked, as by Ctrl-C, then made to."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _write(runs: Sequence[Run], out: Path) -> None:
    """The report's pages, and each run by its plan's name: the same names every time."""
    directories = [FOLDER / "load-runs" / run.id for run in runs]
    whole = FOLDER / "report"
    write_report(directories, whole)
    out.mkdir(parents=True, exist_ok=True)
    for page in PAGES.values():
        shutil.copyfile(whole / page, out / page)
    for candidate, run in zip(CANDIDATES, runs, strict=True):
        shutil.copyfile(whole / f"{run.id}-run.json", out / f"{candidate.name}.run.json")


# --- what came of it ----------------------------------------------------------------------------------------


def disappointments(runs: Sequence[Run]) -> list[str]:
    """What is not as it should be, in words."""
    found = []
    for candidate, run in zip(CANDIDATES, runs, strict=True):
        verdict = gravest(run)
        if verdict is not candidate.promised:
            found.append(f"{candidate.model}: its claims came out as {verdict.value}, not {candidate.promised.value}")
        found += [
            f"{candidate.model}: {cell.id} ({cell.door}): {why}" for cell in run.cells if (why := why_invalid(cell))
        ]
        if run.provenance != Provenance.SIMULATED.value:
            found.append(f"{candidate.model}: its answers are {run.provenance}, not simulated")
    return found


def verdict_table(runs: Sequence[Run]) -> Table:
    table = Table(title="what is claimed, and what came of it; every engine is simulated", title_justify="left")
    table.add_column("claim", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("margin", justify="right", no_wrap=True)
    for run in runs:
        table.add_row(run.model, f"{gravest(run).value}, all in all", style="bold")
        for one in run.verdicts:
            table.add_row(one.text, one.verdict, "" if one.margin is None else f"{one.margin:+.0%}")
        table.add_section()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.loadtest_demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=EXAMPLES, help="where the report is written")
    out: Path = parser.parse_args().out
    note = Console(stderr=True, highlight=False)
    begun_s = time.perf_counter()
    try:
        runs = asyncio.run(_until_told(demonstrate(out, note)))
    except (ChildFailed, DemoFailed) as error:
        sys.exit(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("stopped; what was started is ended")
    Console(highlight=False).print(verdict_table(runs))
    note.print(f"{(time.perf_counter() - begun_s) / 60:.1f} minutes; the report: {out / PAGES['en']}", soft_wrap=True)
    for line in (wrong := disappointments(runs)):
        note.print(line, style="red", markup=False, soft_wrap=True)
    sys.exit(1 if wrong else 0)


async def _until_told(work: Coroutine[Any, Any, list[Run]]) -> list[Run]:
    """`work`, cancelled by SIGTERM as by Ctrl-C."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


if __name__ == "__main__":
    main()
