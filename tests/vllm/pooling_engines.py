"""Real vLLM engines that embed instead of generating: a generating stand-in under the pooling runner.

vLLM serves embeddings, rerank and score with it, and none of the generating routes.
"""

from __future__ import annotations

import json

from real_engines import MAX_MODEL_LEN, VLLM_PYTHON, RealEngine, RealEngines

from gateway.checkpoints import stand_in_command, stand_in_environment
from gateway.processes import start_child, wait_ready
from gateway.settings import child_environment

_READY_S = 150.0
_OF_GENERATION = ("--tool-call-parser", "hermes", "--enable-auto-tool-choice")


class PoolingEngine(RealEngine):
    """One stand-in that turns a text into a vector."""

    async def start(self) -> None:
        """Start it and wait until it has embedded a text."""
        command = stand_in_command(
            VLLM_PYTHON, self.model, self.checkpoint, port=self.port, max_model_len=MAX_MODEL_LEN
        )
        command = [word for word in command if word not in _OF_GENERATION]
        self._engine = child = await start_child(
            self.model_id,
            [*command, "--runner", "pooling", "--convert", "embed"],
            log=self.log,
            environment=child_environment(**stand_in_environment(VLLM_PYTHON, self.model)),
        )
        await wait_ready(child, f"{self.url}/health", timeout_s=_READY_S)
        question = {"model": self.model_id, "input": "안녕하세요"}
        await wait_ready(
            child,
            f"{self.url}/v1/embeddings",
            body=json.dumps(question).encode(),
            timeout_s=_READY_S,
            answer_s=_READY_S,
        )


class PoolingEngines(RealEngines):
    """`with PoolingEngines(directory) as engines`, as RealEngines; only MORTAL, which is not forked."""

    kind = PoolingEngine
