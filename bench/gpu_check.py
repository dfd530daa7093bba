"""`make gpu-check`: measure the GPU of this machine and set it beside the registry's table and predictions.

    python -m bench.gpu_check --out docs/gpu-check.md --python /path/to/python/with/torch

Writes the page and the same as JSON beside it. Without a GPU or torch it says so in one sentence, writes nothing,
claims nothing, and exits 0. Five minutes at most; no network. The measuring itself is `gpu_probe`, run by the other
Python.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu_engines import has_real_size, run_engine
from bench.gpu_page import Engine, compare, match_gpu, rates_of, render_page
from gateway.domain.memory import kv_layout
from gateway.domain.records import Gpu, Registry
from gateway.registry import load_registry

ROOT = Path(__file__).parent.parent
PROBE = Path(__file__).with_name("gpu_probe.py")
WITHIN_S = 285.0
PROBE_WITHIN_S = 150.0
ENGINE_LEAST_S = 60.0
"""With less time left no engine is started: it would not come up."""
CONTEXT = 8192
BLOCK = 16
GATHERED_TOKENS = 262_144
MODELS = ("EXAONE-4.0-1.2B", "Llama-VARCO-8B-Instruct", "EXAONE-4.0-32B")
GATHERED = ("Llama-VARCO-8B-Instruct", "EXAONE-4.0-32B", "EXAONE-4.0-1.2B", "A.X-K1")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    started_s = time.monotonic()
    registry = load_registry(options.registry)
    found = _probe(options.python, registry)
    if (reason := found.get("reason")) is not None:
        print(f"gpu-check: nothing was measured and nothing is claimed: {reason}")  # noqa: T201
        return 0
    gpu = match_gpu(found["name"], found["memory_bytes"], registry.gpus.values())
    engines = _engines(options.python, options.models, registry, _measured_gpu(gpu, found), started_s)
    write(options.out, found, gpu, engines, taken=datetime.now(UTC).date().isoformat(), origin="`make gpu-check`")
    print(f"gpu-check: {options.out} is written")  # noqa: T201
    return 0


def write(
    out: Path, found: Mapping[str, Any], gpu: Gpu | None, engines: Sequence[Engine], *, taken: str, origin: str
) -> None:
    """The page, and everything in it as JSON beside it, repetitions included."""
    document = {
        "taken": taken,
        "origin": origin,
        "gpu": gpu.id if gpu else None,
        "probe": dict(found),
        "rates": [asdict(rate) for rate in rates_of(found["measured"])],
        "compared": [
            {**asdict(one), "share": one.share, "verdict": one.verdict}
            for one in (compare(gpu, rates_of(found["measured"])) if gpu else [])
        ],
        "engines": [
            {**asdict(one), "resolved_kv_bytes": one.resolved_kv_bytes, "overhead_bytes": one.overhead_bytes}
            for one in engines
        ],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render_page(found, gpu, engines, taken=taken, origin=origin), encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _options() -> argparse.ArgumentParser:
    usual = ROOT / ".venv-vllm" / "bin" / "python"
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description="Measure the GPU of this machine.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu-check.md", help="the page to write")
    parser.add_argument("--registry", type=Path, default=ROOT / "model_registry.yaml", help="the model registry")
    parser.add_argument(
        "--python",
        type=Path,
        default=usual if usual.exists() else Path(sys.executable),
        help="a Python that has torch, and vLLM for the engines; .venv-vllm's where there is one",
    )
    parser.add_argument("--models", nargs="*", default=MODELS, help="models whose real sizes vLLM is started with")
    return parser


def _probe(python: Path, registry: Registry) -> dict[str, Any]:
    """What the probe found, or `{"reason": ...}`."""
    if shutil.which(str(python)) is None:
        return {"reason": f"there is no Python at {python}; name one that has torch by --python"}
    orders = json.dumps({"pages": pages(registry)})
    try:
        ended = subprocess.run(
            [str(python), str(PROBE)], input=orders, capture_output=True, text=True, timeout=PROBE_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"the GPU did not finish within {PROBE_WITHIN_S:.0f} s"}
    try:
        found = json.loads(ended.stdout)
    except ValueError:
        last = ended.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        return {"reason": f"{python} could not measure: {last[0][:200]}"}
    if isinstance(found.get("reason"), str):
        return {"reason": f"{python}: {found['reason']}"}
    return dict(found)


def pages(registry: Registry) -> list[dict[str, Any]]:
    """KV pages in the registry's shapes: the values of one token in one layer, and how many pages to gather."""
    found = []
    for name in GATHERED:
        shape = registry.models[name].shape if name in registry.models else None
        layout = kv_layout(shape) if shape is not None else None
        if layout is not None:
            found.append(
                {
                    "name": name,
                    "token_elements": layout.token_bytes // 2,  # of 16 bits each
                    "block": BLOCK,
                    "blocks": GATHERED_TOKENS // BLOCK,
                }
            )
    return found


def _measured_gpu(gpu: Gpu | None, found: Mapping[str, Any]) -> Gpu | None:
    """The table's entry with the memory that the driver reports, which overrides it."""
    return None if gpu is None else replace(gpu, memory_bytes=found["memory_bytes"])


def _engines(python: Path, names: Sequence[str], registry: Registry, gpu: Gpu | None, started_s: float) -> list[Engine]:
    if gpu is None or not _has_vllm(python):
        return []
    found = []
    for name in names:
        left_s = WITHIN_S - (time.monotonic() - started_s)
        model = registry.models.get(name)
        if left_s < ENGINE_LEAST_S or model is None or not has_real_size(model):
            continue
        print(f"gpu-check: starting vLLM in the size of {name} ...", file=sys.stderr)  # noqa: T201
        context = min(CONTEXT, (model.shape and model.shape.context) or CONTEXT)
        found.append(run_engine(python, model, gpu, context=context, within_s=left_s - 35.0))
    return found


def _has_vllm(python: Path) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([str(python), "-c", code], check=False, timeout=30).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
