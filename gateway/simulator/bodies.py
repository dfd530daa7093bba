"""The bodies that clients send to a simulated engine, and vLLM's words for what is refused.

Reading only: unknown fields and an absent model are accepted as vLLM 0.32 accepts them. What a body means, and
whether its values make sense together, is decided in `requests`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Refusal(Exception):
    """A request that vLLM would refuse: HTTP status and body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


def refuse(
    message: str,
    *,
    param: str | None = None,
    value: object = None,
    status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    kind: str = "BadRequestError",
) -> Refusal:
    """vLLM's error envelope; it writes the parameter and value that it refuses into the message as well."""
    extras = [f"{name}={it}" for name, it in (("parameter", param), ("value", value)) if it is not None]
    text = f"{message} ({', '.join(extras)})" if extras and kind == "BadRequestError" else message
    return Refusal(status, {"error": {"message": text, "type": kind, "param": param, "code": int(status)}})


# --- bodies -------------------------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None


class StreamOptions(_Body):
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class GenerationBody(_Body):
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    n: int | None = 1
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    temperature: float | None = None
    top_p: float | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None


class ChatBody(GenerationBody):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool = True


class CompletionBody(GenerationBody):
    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    logprobs: int | None = None
    echo: bool | None = False
    suffix: str | None = None


class ResponsesBody(_Body):
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = False
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    temperature: float | None = None
    top_p: float | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include_reasoning: bool = True
    previous_response_id: str | None = None
    background: bool | None = False
    store: bool | None = True
    metadata: dict[str, Any] | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesBody(_Body):
    model: str = Field(min_length=1)
    messages: list[dict[str, Any]]
    max_tokens: int
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CountTokensBody(MessagesBody):
    max_tokens: int = 1


class TokenizeBody(_Body):
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    return_token_strs: bool | None = False


class DetokenizeBody(_Body):
    tokens: list[int]


BodyT = TypeVar("BodyT", bound=_Body)


def read_body(kind: type[BodyT], raw: bytes, content_type: str) -> BodyT:
    """The body as `kind`. Raises Refusal as vLLM's framework does for what is not JSON or has wrong fields."""
    if content_type.split(";", maxsplit=1)[0].strip().lower() != "application/json":
        problem = "Unsupported Media Type: Only 'application/json' is allowed"
        raise _validation_refusal([problem], None)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, {"detail": "There was an error parsing the body"}) from error
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        invalid = {"type": "json_invalid", "loc": "body", "msg": "JSON decode error", "ctx": {"error": str(error)}}
        raise _validation_refusal([invalid], "body") from error
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [{**each, "loc": ".".join(map(str, ("body", *each["loc"])))} for each in found]
        raise _validation_refusal(list(problems), str(problems[0]["loc"])) from error


def _validation_refusal(problems: list[Any], param: str | None) -> Refusal:
    label = "error" if len(problems) == 1 else "errors"
    message = f"{len(problems)} validation {label}:\n" + "\n".join(f"  {problem}" for problem in problems[:10])
    return refuse(message, param=param, kind="Bad Request")
