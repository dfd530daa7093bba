"""Stand-ins for the hosted APIs of Upstage and of CLOVA Studio, answering as their vendors publish that these do.

What is published: the fields taken, refused or ignored, the error bodies with their codes, the headers, the shape of
usage. What nobody publishes is left as OpenAI has it. No real API is ever called: these are what the gateway's rules
in model_registry.yaml are held against, and `with_shipped_rules` gives a registry entry that has exactly those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import yaml
from scripted_http import ScriptedServer
from scripted_replies import Reply, Request
from vllm_shapes import DONE, chat_answer, chat_chunk, usage_body, usage_chunk

KEY = "sk-of-the-vendor"
REGISTRY = Path(__file__).parent.parent / "model_registry.yaml"
Fields = dict[str, Any]


class HostedApi(ScriptedServer, ABC):
    """What both have in common: a key, a list of models, chat completions."""

    base_path: ClassVar[str]
    models: ClassVar[dict[str, int | None]]
    """Each model's greatest number of answered tokens, None where none is published."""
    words = ("안녕", "하세", "요")
    prompt_tokens = 20

    def usual(self, request: Request) -> Reply:
        if request.header("authorization") != f"Bearer {KEY}":
            return self.unauthorised()
        path = request.path.removeprefix(self.base_path)
        if (request.method, path) == ("GET", "/models"):
            return Reply.json({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        if (request.method, path) == ("POST", "/chat/completions"):
            return self.answer(request.json())
        return super().usual(request)

    def asked(self) -> list[Fields]:
        """The bodies of the chat completions that came, in order."""
        return [request.json() for request in self.requests_to(f"{self.base_path}/chat/completions")]

    @abstractmethod
    def unauthorised(self) -> Reply:
        """How the vendor refuses a key."""

    @abstractmethod
    def answer(self, asked: Fields) -> Reply:
        """How the vendor answers a chat."""


class Upstage(HostedApi):
    """Ignores what it does not know; counts requests and tokens in headers of its own; answers as a dated snapshot."""

    base_path = "/v1"
    models: ClassVar[dict[str, int | None]] = {"solar-pro2": None, "solar-pro4": 131072}
    headers = (
        ("x-upstage-ratelimit-limit-requests", "100"),
        ("x-upstage-ratelimit-remaining-requests", "99"),
        ("x-upstage-ratelimit-reset-requests", "1767225660"),
    )
    cached_tokens = 8

    def unauthorised(self) -> Reply:
        return self.refusal(401, "The API key is invalid.", code="invalid_api_key")

    def refusal(self, status: int, message: str, *, code: str, param: str | None = None) -> Reply:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        return Reply.json({"error": error}, status=status, headers=self.headers)

    def too_many(self, retry_after_s: int) -> Reply:
        error = {"message": "Too many requests.", "type": "rate_limit_error", "param": None, "code": None}
        headers = [*self.headers, ("retry-after", str(retry_after_s))]
        return Reply.json({"error": error}, status=429, headers=headers)

    def out_of_credit(self) -> Reply:
        return self.refusal(403, "API key suspended due to insufficient credit.", code="api_key_is_not_allowed")

    def answer(self, asked: Fields) -> Reply:
        if asked["model"] not in self.models:
            return self.refusal(404, "The model does not exist.", code="model_not_found", param="model")
        model = f"{asked['model']}-251215"
        usage: Fields = usage_body(self.prompt_tokens, len(self.words))
        usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        if not asked.get("stream"):
            return Reply.json(chat_answer("".join(self.words), usage=usage, model=model), headers=self.headers)
        events = [chat_chunk(word, model=model) for word in self.words]
        events.append(chat_chunk("", finish_reason="stop", model=model))
        if (asked.get("stream_options") or {}).get("include_usage"):
            events.append(usage_chunk(self.prompt_tokens, len(self.words), model=model))
        return Reply.stream(*events, DONE)


class ClovaStudio(HostedApi):
    """Refuses what it does not support with its code 40002, and knows no `stream_options`."""

    base_path = "/v1/openai"
    models: ClassVar[dict[str, int | None]] = {"HCX-007": 32768, "HCX-005": 4096, "HCX-DASH-002": 4096}
    supported = frozenset(
        (
            *("messages", "model", "stream", "max_completion_tokens", "max_tokens", "n", "temperature", "tools"),
            *("tool_choice", "parallel_tool_calls", "reasoning_effort", "response_format", "top_p", "stop", "seed"),
            *("top_k", "repeat_penalty", "repetition_penalty"),
        )
    )

    def unauthorised(self) -> Reply:
        return self.refusal(401, "Invalid key", code="40104")

    def refusal(self, status: int, message: str, *, code: str) -> Reply:
        return Reply.json({"error": {"message": message, "type": None, "param": None, "code": code}}, status=status)

    def too_many(self) -> Reply:
        return self.refusal(429, "Too many requests", code="42900")

    def answer(self, asked: Fields) -> Reply:
        if (refusal := self._refusal_of(asked)) is not None:
            return refusal
        model = asked["model"]
        if not asked.get("stream"):
            usage = usage_body(self.prompt_tokens, len(self.words))
            return Reply.json(chat_answer("".join(self.words), usage=usage, model=model))
        events = [chat_chunk(word, model=model) for word in self.words]
        return Reply.stream(*events, chat_chunk("", finish_reason="stop", model=model), DONE)

    def _refusal_of(self, asked: Fields) -> Reply | None:
        model = asked["model"]
        if model not in self.models:
            return self.refusal(400, "Model not found", code="40080")
        if asked.keys() - self.supported:
            return self.refusal(400, "Unsupported parameter", code="40002")
        longest = [asked[name] for name in ("max_tokens", "max_completion_tokens") if name in asked]
        limit = self.models[model]
        assert limit is not None
        is_wrong = (
            len(longest) > 1
            or any(not 1 <= tokens <= limit for tokens in longest)
            or (model == "HCX-007" and "max_tokens" in asked)
            or not 0 <= asked.get("temperature", 0.5) <= 1
            or asked.get("n", 1) != 1
        )
        return self.refusal(400, "Invalid parameter", code="40001") if is_wrong else None


def with_shipped_rules(model_id: str, url: str, *, api_key_env: str = "VENDOR_KEY") -> Fields:
    """The shipped entry of a hosted model, its rules and its price included, with its address replaced."""
    shipped = next(model for model in yaml.safe_load(REGISTRY.read_text())["models"] if model["id"] == model_id)
    (replica,) = shipped["replicas"]
    entry = {name: shipped[name] for name in ("id", "serving", "price") if name in shipped}
    if "price" in entry:
        entry["price"] = {**entry["price"], "date": str(entry["price"]["date"])}
    return {**entry, "replicas": [{**replica, "url": url, "api_key_env": api_key_env}]}
