"""What a request to a simulated engine asks for, or why it is refused.

Follows vLLM 0.32: a prompt over the context is refused, a larger answer than the rest of the context is cut to it.
Answering is not done here, nor is timing.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from gateway.domain.records import Model, ReasoningSwitch
from gateway.simulator.bodies import ChatBody, CompletionBody, GenerationBody, refuse
from gateway.simulator.text import count_tokens, token_text

MAX_CHOICES = 64
"""Most answers to one request. vLLM allows 16,384; a simulation of that many on one core would keep no time."""
IMAGE_TOKENS = 256
"""Prompt tokens that an image counts for."""
_IMAGE = "\ufffc"


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    """With the chat template's marks."""
    question: str
    """The words that the answer is about."""
    tokens: int
    """One more than the context when there are more than that."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the answer must look like."""

    kind: Literal["text", "json", "choice", "tool"] = "text"
    schema: Any = None
    options: tuple[str, ...] = ()
    tool: str | None = None
    named: bool = False
    """The caller named the tool: the answer then ends with `stop`, otherwise with `tool_calls`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, understood and accepted."""

    prompts: tuple[Prompt, ...]
    max_tokens: tuple[int, ...]
    """For each prompt, cut to the rest of the context."""
    form: Form
    chat: bool = True
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    n: int = 1
    seed: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    top_logprobs: int | None = None
    """Alternatives shown for each token; None = no logprobs."""
    reasoning: bool = False
    show_reasoning: bool = True
    echo: bool = False


def understand_chat(body: ChatBody, model: Model, *, max_model_len: int, limit_name: str = "max_tokens") -> Ask:
    """The request in `body`, or Refusal. `limit_name`: what the caller's dialect calls the limit on tokens."""
    _check_generation(body)
    _check_tools(body)
    if body.top_logprobs and not body.logprobs:
        raise refuse("when using `top_logprobs`, `logprobs` must be set to true.", param="top_logprobs")
    text, question = render_chat(body.messages, body.tools, sees="vision" in model.capabilities)
    prompt = Prompt(text, question, count_tokens(text, up_to=max_model_len))
    limit, param = body.max_tokens, limit_name
    if body.max_completion_tokens is not None:
        limit, param = body.max_completion_tokens, "max_completion_tokens"
    form = _tool_form(body, prompt) or _output_form(body)
    return Ask(
        prompts=(prompt,),
        max_tokens=(_answer_limit(body, prompt, limit, param, max_model_len),),
        form=form,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        reasoning=form.kind == "text" and _reasons(model.reasoning, body),
        show_reasoning=body.include_reasoning,
        **_sampling(body),
    )


def understand_completion(body: CompletionBody, *, max_model_len: int) -> Ask:
    """The request in `body`, or Refusal."""
    _check_generation(body)
    if body.suffix:
        raise refuse("suffix is not currently supported", param="suffix")
    prompts = _completion_prompts(body.prompt, max_model_len)
    limit = 16 if body.max_tokens is None else body.max_tokens
    return Ask(
        prompts=prompts,
        max_tokens=tuple(_answer_limit(body, prompt, limit, "max_tokens", max_model_len) for prompt in prompts),
        form=_output_form(body),
        chat=False,
        top_logprobs=body.logprobs,
        echo=bool(body.echo),
        **_sampling(body),
    )


def check_model(asked: str | None, served: str) -> None:
    """Raise the 404 of a model that is not served; an absent name means the one that is."""
    if asked and asked != served:
        raise refuse(
            f"The model `{asked}` does not exist. Valid aliases: {served}.",
            param="model",
            status=HTTPStatus.NOT_FOUND,
            kind="NotFoundError",
        )


def render_chat(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, sees: bool) -> tuple[str, str]:
    """The messages in a plain chat template of our own, and the question: the last user message.

    `sees`: whether the model takes images.
    """
    parts, question = [], ""
    if tools:
        parts.append("<|tools|>" + msgspec.json.encode(tools).decode() + "\n")
    for message in messages:
        role, text = str(message.get("role", "user")), _content_text(message.get("content"), sees=sees)
        parts.append(f"<|{role}|>{text}\n")
        question = text if role == "user" or not question else question
    return "".join(parts) + "<|assistant|>", question.replace(_IMAGE, " ")


def _content_text(content: object, *, sees: bool) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise refuse("`content` must be a string or a list of parts.", param="messages")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image_url", "image", "input_image") and sees:
            texts.append(_IMAGE * IMAGE_TOKENS)
        else:
            raise refuse(f"At most 0 {kind or 'unknown'}(s) may be provided in one prompt.", param="messages")
    return "\n".join(texts)


def _completion_prompts(
    prompt: str | list[str] | list[int] | list[list[int]] | None, max_model_len: int
) -> tuple[Prompt, ...]:
    if not prompt:
        raise refuse("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    several: list[Any] = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else [*prompt]
    texts = [each if isinstance(each, str) else _decode(each) for each in several]
    if not all(texts):
        raise refuse("The decoder prompt cannot be empty", param="prompt")
    return tuple(Prompt(text, text, count_tokens(text, up_to=max_model_len)) for text in texts)


def _decode(tokens: Any) -> str:
    try:
        return "".join(map(token_text, tokens))
    except ValueError as error:
        raise refuse(str(error), param="prompt") from error


def _sampling(body: GenerationBody) -> dict[str, Any]:
    options = body.stream_options if body.stream else None
    usage = bool(options and options.include_usage)
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return {
        "stream": bool(body.stream),
        "include_usage": usage,
        "continuous_usage": usage and bool(options and options.continuous_usage_stats),
        "n": body.n or 1,
        "seed": body.seed,
        "min_tokens": body.min_tokens,
        "ignore_eos": body.ignore_eos,
        "stop": tuple(stop),
        "include_stop": body.include_stop_str_in_output,
    }


def _check_generation(body: GenerationBody) -> None:
    if body.stream_options and not body.stream:
        raise refuse("Stream options can only be defined when `stream=True`.", param="stream_options")
    if body.n is not None and not 1 <= body.n <= MAX_CHOICES:
        bound = "at least 1" if body.n < 1 else f"at most {MAX_CHOICES}"
        raise refuse(f"n must be {bound}, got {body.n}.", param="n", value=body.n)
    if body.temperature is not None and not 0 <= body.temperature <= 2:
        text = "non-negative" if body.temperature < 0 else "in [0, 2]"
        raise refuse(f"temperature must be {text}, got {body.temperature}.", param="temperature")
    if body.top_p is not None and not 0 < body.top_p <= 1:
        raise refuse(f"top_p must be in (0, 1], got {body.top_p}.", param="top_p", value=body.top_p)
    if body.min_tokens < 0:
        raise refuse(f"min_tokens must be greater than or equal to 0, got {body.min_tokens}.")
    if isinstance(body.stop, list) and "" in body.stop:
        raise refuse("stop cannot contain an empty string.", param="stop")


def _answer_limit(body: GenerationBody, prompt: Prompt, asked: int | None, param: str, max_model_len: int) -> int:
    if asked is not None and asked > max_model_len:
        message = f"{param}={asked} cannot be greater than max_model_len={max_model_len}."
        raise refuse(f"{message} Please request fewer output tokens.", param=param, value=asked)
    if prompt.tokens > max_model_len:
        raise refuse(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            param="input_tokens",
            value=max_model_len + 1,
        )
    room = max_model_len - prompt.tokens
    limit = room if asked is None else min(asked, room)
    if limit < 1:
        raise refuse(f"max_tokens must be at least 1, got {limit}.", param="max_tokens", value=limit)
    if body.min_tokens > limit:
        raise refuse(f"min_tokens must be less than or equal to max_tokens={limit}, got {body.min_tokens}.")
    return limit


# --- what the answer must look like -------------------------------------------------------------------------


def _check_tools(body: ChatBody) -> None:
    if body.tools == []:
        raise refuse(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            param="tools",
        )
    if body.tools and not all(_tool_name(tool) for tool in body.tools):
        raise refuse("Every tool needs a `function` with a `name`.", param="tools")
    if body.tool_choice in (None, "none"):
        return
    if not body.tools:
        raise refuse("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if isinstance(body.tool_choice, dict):
        if _tool_name(body.tool_choice) not in {_tool_name(tool) for tool in body.tools}:
            raise refuse(
                "The tool specified in `tool_choice` does not match any of the specified `tools`", param="tool_choice"
            )
    elif body.tool_choice not in ("auto", "required"):
        raise refuse(
            f"Invalid value for `tool_choice`: {body.tool_choice}! "
            'Only named tools, "none", "auto" or "required" are supported.',
            param="tool_choice",
        )


def _tool_name(tool: dict[str, Any]) -> str | None:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None


def _tool_form(body: ChatBody, prompt: Prompt) -> Form | None:
    """A call when one is demanded, or when the choice is free and the question names a tool."""
    tools = {name: tool for tool in body.tools or [] if (name := _tool_name(tool))}
    choice = body.tool_choice or ("auto" if tools else "none")
    if isinstance(choice, dict):
        wanted = _tool_name(choice)
    elif choice == "none":
        wanted = None
    else:
        named_in_question = next((name for name in tools if name in prompt.question), None)
        wanted = named_in_question or (next(iter(tools)) if choice == "required" else None)
    if wanted is None:
        return None
    schema = tools[wanted]["function"].get("parameters") or {"type": "object", "properties": {}}
    return Form("tool", schema=schema, tool=wanted, named=isinstance(choice, dict))


def _output_form(body: GenerationBody) -> Form:
    asked = dict(body.structured_outputs or {})
    form = body.response_format or {}
    kind = form.get("type", "text")
    if kind == "json_schema":
        wrapper = form.get("json_schema")
        if not isinstance(wrapper, dict):
            message = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
            raise refuse(message, param="response_format")
        asked["json"] = wrapper.get("schema", {"type": "object"})
    elif kind == "json_object":
        asked["json_object"] = True
    elif kind != "text":
        raise refuse(f"The response_format type {kind!r} is not supported.", param="response_format")
    given = {name: value for name, value in asked.items() if value not in (None, False)}
    if not given:
        return Form()
    if len(given) > 1:
        raise refuse("You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').")
    return _constrained_form(*next(iter(given.items())))


def _constrained_form(name: str, value: Any) -> Form:
    match name:
        case "json":
            return Form("json", schema=_schema(value))
        case "json_object":
            return Form("json", schema={"type": "object", "properties": {"answer": {"type": "string"}}})
        case "choice" if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            return Form("choice", options=tuple(value))
    raise refuse(f"The structured output constraint {name!r} is not supported.", param="structured_outputs")


def _schema(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise refuse(f"Invalid JSON schema: {error}", param="structured_outputs") from error


_OFF = {"", "0", "false", "off", "no", "none", "null", "disabled", "minimal"}


def _reasons(switch: ReasoningSwitch | None, body: ChatBody) -> bool:
    """Whether this request turns reasoning on, by the model's own switch or `reasoning_effort`."""
    if switch is None:
        return False
    extras = body.model_extra or {}
    place = body.chat_template_kwargs or {} if switch.place == "chat_template_kwargs" else extras
    if switch.name in place:
        setting = place[switch.name]
    elif body.reasoning_effort is not None:
        return body.reasoning_effort.lower() not in _OFF
    else:
        setting = switch.default
    if setting is None:
        return False
    on = str(setting).lower() not in _OFF
    return on is not switch.name.startswith("skip_")
