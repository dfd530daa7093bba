"""A scripted stand-in engine for tests: a real server on a loopback port that answers as vLLM 0.32 would.

`engine.script(path, Reply…)` replaces the answers of a path; scripts, gates, cuts and what was received stand in
scripted_replies.py and scripted_http.py, the shapes of bodies in vllm_shapes.py. It keeps no time: an engine that is
as slow as a real one is the simulated engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import vllm_shapes as vllm
from scripted_http import ScriptedServer
from scripted_replies import CLOSE, RESET, Reply, Request
from vllm_shapes import (
    DONE,
    chat_answer,
    chat_chunk,
    error_body,
    error_event,
    text_answer,
    text_chunk,
    usage_body,
    usage_chunk,
)

__all__ = [
    "CLOSE",
    "DONE",
    "RESET",
    "Reply",
    "Request",
    "ScriptedEngine",
    "chat_answer",
    "chat_chunk",
    "error_body",
    "error_event",
    "text_answer",
    "text_chunk",
    "usage_body",
    "usage_chunk",
]


class ScriptedEngine(ScriptedServer):
    """`async with ScriptedEngine(models=["m"]) as engine`: an engine at `engine.url` until the block ends.

    `tokens`: how many it answers with, unless the request's limit is lower. `root`: each model's own id where None.
    """

    def __init__(
        self,
        models: Sequence[str] = ("m",),
        *,
        tokens: int = 8,
        prompt_tokens: int = 12,
        owned_by: str = "vllm",
        root: str | None = None,
        max_model_len: int | None = 4096,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port)
        self.models = list(models)
        self.tokens = tokens
        self.prompt_tokens = prompt_tokens
        self.owned_by, self.root, self.max_model_len = owned_by, root, max_model_len

    @property
    def running(self) -> int:
        """Completions that are being answered."""
        return sum(request.path.endswith("/completions") for request in self.answering)

    def usual(self, request: Request) -> Reply:
        match request.method, request.path:
            case "GET", "/health":
                return Reply(content_type="text/plain; charset=utf-8")
            case "GET", "/version":
                return Reply.json({"version": "0.32.0"})
            case "GET", "/metrics":
                text = vllm.metrics_text(self.models, running=self.running)
                return Reply.text(text, content_type="text/plain; version=0.0.4; charset=utf-8")
            case "GET", "/v1/models":
                body = vllm.models_body(
                    self.models, owned_by=self.owned_by, root=self.root, max_model_len=self.max_model_len
                )
                return Reply.json(body)
            case "POST", "/v1/chat/completions" | "/v1/completions":
                return self._completion(request)
            case _:
                return super().usual(request)

    def _completion(self, request: Request) -> Reply:
        try:
            asked = cast("dict[str, Any]", request.json())
        except ValueError as error:
            return _refusal(str(error), type_="BadRequestError", code=400)
        model = asked.get("model") or self.models[0]
        if model not in self.models:
            message = f"The model `{model}` does not exist."
            return _refusal(message, type_="NotFoundError", code=404, param="model")
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or self.tokens
        words = [f"word{i} " for i in range(min(self.tokens, limit))]
        choices = asked.get("n") or 1
        how: dict[str, Any] = {
            "finish_reason": "length" if limit < self.tokens else "stop",
            "model": model,
            "n": choices,
        }
        completion_tokens = len(words) * choices
        is_chat = request.path == "/v1/chat/completions"
        if not asked.get("stream"):
            usage = usage_body(self.prompt_tokens, completion_tokens)
            answer = chat_answer if is_chat else text_answer
            return Reply.json(answer("".join(words), usage=usage, **how))
        events = list((vllm.chat_events if is_chat else vllm.text_events)(words, **how))
        if (asked.get("stream_options") or {}).get("include_usage"):
            kind = "chat.completion.chunk" if is_chat else "text_completion"
            events.append(usage_chunk(self.prompt_tokens, completion_tokens, model=model, kind=kind))
        return Reply.stream(*events, DONE)


def _refusal(message: str, *, type_: str, code: int, param: str | None = None) -> Reply:
    return Reply.json(error_body(message, type_=type_, code=code, param=param), status=code)
