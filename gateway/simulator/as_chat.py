"""Requests of /v1/responses and /v1/messages as the chat that they amount to; vLLM answers them in the same way.

What these dialects have and a chat has not is refused here in vLLM's words, or has no meaning to a simulation.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from gateway.simulator.bodies import ChatBody, MessagesBody, ResponsesBody, refuse
from gateway.simulator.replies import Json

_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_of_response(body: ResponsesBody) -> ChatBody:
    """The chat in a request to /v1/responses, or Refusal: this engine keeps no responses."""
    if body.background and body.store:
        raise refuse(
            "This vLLM engine does not support `store=True` and therefore does not support the background mode. To "
            "enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching "
            "the vLLM server.",
            param="background",
            kind="invalid_request_error",
        )
    if body.previous_response_id is not None:
        raise response_not_found(body.previous_response_id)
    messages: list[Json] = [{"role": "system", "content": body.instructions}] if body.instructions else []
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
    else:
        messages += [message for item in body.input if (message := _message_of_item(item)) is not None]
    effort = _effort(body.reasoning)
    return ChatBody(
        model=body.model,
        messages=messages,
        max_tokens=body.max_output_tokens,
        stream=body.stream,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=[_tool(tool, tool.get("parameters")) for tool in body.tools] or None,
        tool_choice=_tool_choice_of_response(body),
        response_format=_response_format((body.text or {}).get("format")),
        reasoning_effort=effort,
        include_reasoning=body.include_reasoning,
        chat_template_kwargs=body.chat_template_kwargs,
        seed=body.seed,
        stop=body.stop,
        ignore_eos=body.ignore_eos,
    )


def response_not_found(response_id: str) -> Exception:
    """vLLM's words for a response that it does not keep."""
    return refuse(
        f"Response with id '{response_id}' not found.",
        param="response_id",
        status=HTTPStatus.NOT_FOUND,
        kind="invalid_request_error",
    )


def chat_of_message(body: MessagesBody) -> ChatBody:
    """The chat in a request to /v1/messages."""
    messages: list[Json] = [{"role": "system", "content": _text_of(body.system)}] if body.system else []
    for message in body.messages:
        messages += _messages_of_blocks(str(message.get("role", "user")), message.get("content"))
    thinking = (body.thinking or {}).get("type")
    return ChatBody(
        model=body.model,
        messages=messages,
        max_tokens=body.max_tokens,
        stream=body.stream,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=body.stop_sequences,
        tools=[_tool(tool, tool.get("input_schema")) for tool in body.tools or []] or None,
        tool_choice=_tool_choice_of_message(body.tool_choice),
        reasoning_effort="none" if thinking == "disabled" else _effort(body.output_config),
        chat_template_kwargs=body.chat_template_kwargs,
    )


def _message_of_item(item: Json) -> Json | None:
    match item.get("type", "message"):
        case "message":
            content = item.get("content")
            if isinstance(content, list):
                content = [_as_text(part) for part in content]
            return {"role": item.get("role", "user"), "content": content}
        case "function_call_output":
            output = item.get("output")
            return {"role": "tool", "content": output if isinstance(output, str) else _text_of(output)}
    return None


def _as_text(part: Any) -> Any:
    """What the model itself said is text like any other."""
    return {**part, "type": "text"} if isinstance(part, dict) and part.get("type") == "output_text" else part


def _effort(holder: Json | None) -> str | None:
    effort = (holder or {}).get("effort")
    return effort if isinstance(effort, str) else None


def _messages_of_blocks(role: str, content: Any) -> list[Json]:
    """A message of content blocks; what its tools answered becomes messages of their own."""
    if not isinstance(content, list):
        return [{"role": role, "content": content}]
    parts: list[Json] = []
    results: list[Json] = []
    for block in content:
        match block.get("type") if isinstance(block, dict) else None:
            case "text":
                parts.append({"type": "text", "text": block.get("text") or ""})
            case "image":
                parts.append({"type": "image_url", "image_url": block.get("source")})
            case "tool_result":
                results.append({"role": "tool", "content": _text_of(block.get("content"))})
    return [*results, *([{"role": role, "content": parts}] if parts else [])]


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or () if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _tool(tool: Json, parameters: Any) -> Json:
    return {"type": "function", "function": {"name": tool.get("name"), "parameters": parameters}}


def _tool_choice_of_response(body: ResponsesBody) -> str | Json | None:
    choice = body.tool_choice
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice.get("name")}}
    if not body.tools and choice == "required":
        message = "Tool choice 'required' must be specified with 'tools' parameter."
        raise refuse(message, param="tool_choice")
    return choice if body.tools else None


def _tool_choice_of_message(choice: Json | None) -> str | Json | None:
    if choice is None:
        return None
    if choice.get("type") == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return _TOOL_CHOICES.get(str(choice.get("type")))


def _response_format(form: Any) -> Json | None:
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"schema": form.get("schema", {"type": "object"})}}
    return form
