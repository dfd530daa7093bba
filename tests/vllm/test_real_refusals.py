"""What this vLLM serves and what it refuses, of the architectures that the registry knows: vLLM itself is asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from real_engines import LLAMA, REGISTRY

from gateway.checkpoints import stand_in_command, stand_in_environment, write_checkpoint
from gateway.domain.records import ServingKind
from gateway.settings import child_environment

SERVED = [m for m in REGISTRY.models.values() if m.serving.kind is ServingKind.VLLM and m.is_servable]
OUTLIVED = {m.id: m for m in REGISTRY.models.values() if m.serving.backend == "vllm_legacy"}
ASK = "import json; from vllm import ModelRegistry; print(json.dumps(sorted(ModelRegistry.get_supported_archs())))"


def test_vllm_has_every_architecture_that_the_registry_says_it_serves(vllm_python: Path) -> None:
    environment = child_environment(**stand_in_environment(vllm_python, REGISTRY.models[LLAMA]))
    run = subprocess.run([vllm_python, "-c", ASK], capture_output=True, text=True, env=environment, check=True)
    known = set(json.loads(run.stdout.splitlines()[-1]))
    for model in SERVED:
        name = model.weights.architecture
        assert name is None or (name in known) is (model.serving.backend != "vllm_transformers"), model.id
    assert not {model.weights.architecture for model in OUTLIVED.values()} & known


@pytest.mark.refuses
@pytest.mark.parametrize("model_id", OUTLIVED)
def test_vllm_refuses_an_architecture_that_it_has_outlived_and_names_the_registrys_last_version(
    vllm_python: Path, tmp_path: Path, model_id: str
) -> None:
    model, llama = OUTLIVED[model_id], REGISTRY.models[LLAMA]
    checkpoint = write_checkpoint(llama, tmp_path)
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "architectures": [model.weights.architecture]}))
    run = subprocess.run(
        stand_in_command(vllm_python, llama, checkpoint, port=9, max_model_len=1024),
        capture_output=True,
        text=True,
        env=child_environment(**stand_in_environment(vllm_python, llama)),
        check=False,
    )
    assert run.returncode != 0
    last = f"{model.weights.architecture} was supported in vLLM until v{model.serving.max_vllm}"
    assert last in run.stdout + run.stderr
