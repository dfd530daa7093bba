"""The relay's routes as OpenAPI describes them. They are served by `relay`, in front of the framework's routing."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.domain.records import Priority

_ERRORS = {
    "400": "bad JSON, a bad or repeated field, or the engine's own refusal",
    "401": "missing or invalid key",
    "403": "the key does not reach this model, route or field",
    "404": "unknown model, or one that nothing can serve, with the reason; a route that the engine has not",
    "413": "body too large",
    "429": "a limit of the key is reached (Retry-After, x-ratelimit-*), or a budget used up (x-should-retry: false)",
    "502": "the engine could not be reached or failed",
    "503": "no live replica, no place on one in time, the engine is busy, or the gateway is shutting down",
    "504": "the engine was too slow",
}
_ASKED_HEADERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "x-simsa-priority",
        "The class of the call where engines are full, the key's own or a lower one; load tests should say so.",
        {"enum": list(Priority)},
    ),
    (
        "x-simsa-run-id",
        "The load run that the call belongs to: of class load_test, or an operator's of any.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    (
        "x-session-id",
        "Calls of one session go to the same replica while it is up and has room.",
        {"type": "string"},
    ),
)
_FACTS = ("x-request-id", "x-simsa-model", "x-simsa-replica", "x-simsa-provenance")
_HEADERS = (
    *_FACTS,
    "x-simsa-overhead-ms",
    "x-simsa-queue-ms",
    "x-simsa-attempts",
    "x-simsa-dropped",
    "x-simsa-cost",
    *(f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)
_MESSAGES = {"type": "array", "items": {"type": "object"}}
_TEXTS = {"type": ["string", "array"]}
_PASSED = (
    "Passed through to the engine that serves `model`: unknown fields survive both ways, only `model` and, where usage "
    "comes on request, `stream_options` are rewritten."
)
_STREAMED = (
    "With `stream: true` the answer is a stream of server-sent events; a failure after the first byte arrives as"
)


class _Operation(NamedTuple):
    """What OpenAPI says of a route beyond what all have in common."""

    operation_id: str
    summary: str
    fields: dict[str, Any]
    failure: str | None = None
    """How a stream tells its failure; None where nothing is streamed."""
    limit: str | None = None
    """The field that limits the answer's tokens."""
    error: str = "RelayError"
    note: str = ""


_DATA_ERROR = 'one `data: {"error": …}` event without `[DONE]`.'
_ERROR_EVENT = "one event of type `error`."
_POOLING = "Only engines of embedding and scoring models have it; others answer 404."
_OPERATIONS: dict[str, _Operation] = {
    "/v1/chat/completions": _Operation(
        "create_chat_completion", "Chat with one model", {"messages": _MESSAGES}, _DATA_ERROR, "max_tokens"
    ),
    "/v1/completions": _Operation(
        "create_completion", "Continue a text with one model", {"prompt": {}}, _DATA_ERROR, "max_tokens"
    ),
    "/v1/responses": _Operation(
        "create_response",
        "Answer one input",
        {"input": {"type": ["string", "array"]}},
        _ERROR_EVENT,
        "max_output_tokens",
        note="`previous_response_id` goes to the engine that keeps that response.",
    ),
    "/v1/messages": _Operation(
        "create_message",
        "Chat with one model, in Anthropic's dialect",
        {"messages": _MESSAGES, "max_tokens": {"type": "integer"}},
        _ERROR_EVENT,
        error="MessagesError",
        note="The key may come as `x-api-key`.",
    ),
    "/v1/messages/count_tokens": _Operation(
        "count_message_tokens", "Count a prompt's tokens", {"messages": _MESSAGES}, error="MessagesError"
    ),
    "/v1/embeddings": _Operation("create_embeddings", "Embed texts", {"input": _TEXTS}, note=_POOLING),
    "/v1/rerank": _Operation(
        "rerank",
        "Order documents by relevance",
        {"query": {}, "documents": _TEXTS},
        note=f"{_POOLING} Also at `/rerank`.",
    ),
    "/v1/score": _Operation("score", "Score pairs of texts", {}, note=f"{_POOLING} Also at `/score`."),
    "/tokenize": _Operation("tokenize", "Turn a prompt or messages into token ids", {}),
    "/detokenize": _Operation("detokenize", "Turn token ids into text", {"tokens": {"type": "array"}}),
}
_KEPT = "/v1/responses/{response_id}"
_KEPT_OPERATIONS = {
    _KEPT: ("get", "get_response", "A response that its engine keeps"),
    f"{_KEPT}/cancel": ("post", "cancel_response", "Stop a response that is made in the background"),
}


def describe_relay(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the relay's operations to an OpenAPI document; returns it."""
    schema.setdefault("components", {}).setdefault("schemas", {})["RelayError"] = _error_schema()
    schema["components"].setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
    schema["components"]["schemas"]["MessagesError"] = _messages_error_schema()
    for path, operation in _OPERATIONS.items():
        schema["paths"][path] = {"post": _operation(operation)}
    for path, (method, operation_id, summary) in _KEPT_OPERATIONS.items():
        schema["paths"][path] = {method: _kept_operation(operation_id, summary)}
    return schema


def _operation(operation: _Operation) -> dict[str, Any]:
    told = f"{_STREAMED} {operation.failure}" if operation.failure else ""
    properties: dict[str, Any] = {"model": {"type": "string"}}
    if operation.failure:
        properties["stream"] = {"type": "boolean", "default": False}
    if operation.limit:
        properties[operation.limit] = {"type": "integer"}
    body = {
        "type": "object",
        "required": ["model", *operation.fields],
        "properties": {**properties, **operation.fields},
        "additionalProperties": True,
    }
    return {
        "tags": ["openai"],
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": " ".join(filter(None, (_PASSED, told, operation.note))),
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": words, "schema": schema}
            for name, words, schema in _ASKED_HEADERS
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _answer(_HEADERS, streamed=operation.failure is not None),
            **_errors(operation.error),
        },
    }


def _kept_operation(operation_id: str, summary: str) -> dict[str, Any]:
    return {
        "tags": ["openai"],
        "operationId": operation_id,
        "summary": summary,
        "description": (
            "Asked of the engine that made it, for the key that asked for it; any other response is 404, as is one "
            "whose engine the gateway has forgotten. Engines keep responses only where they are told to "
            "(vLLM: `VLLM_ENABLE_RESPONSES_API_STORE=1`)."
        ),
        "security": [{"key": []}],
        "parameters": [{"name": "response_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": _answer(_FACTS, streamed=True), **_errors("RelayError")},
    }


def _answer(headers: tuple[str, ...], *, streamed: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    if streamed:
        content["text/event-stream"] = {}
    return {
        "description": "The engine's answer",
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
        "content": content,
    }


def _errors(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {status: {"description": words, "content": content} for status, words in _ERRORS.items()}


def _messages_error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    error = {"type": "object", "required": ["type", "message"], "properties": {"type": text, "message": text}}
    kind = {"type": "string", "const": "error"}
    return {"type": "object", "required": ["type", "error"], "properties": {"type": kind, "error": error}}


def _error_schema() -> dict[str, Any]:
    """The gateway's envelope; engines may give a number as the code, and have fields of their own."""
    nullable = {"type": ["string", "null"]}
    code = {"type": ["string", "integer", "null"]}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": nullable, "code": code},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
