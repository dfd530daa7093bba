"""The relay's routes as OpenAPI describes them. They are served by `relay`, in front of the framework's routing."""

from __future__ import annotations

from typing import Any

from gateway.domain.records import Priority

_ERRORS = {
    "400": "bad JSON, a bad or repeated field, or the engine's own refusal",
    "401": "missing or invalid key",
    "403": "the key does not reach this model, route or field",
    "404": "unknown model, or one that nothing can serve, with the reason",
    "413": "body too large",
    "429": "a limit of the key is reached (Retry-After, x-ratelimit-*), or a budget used up (x-should-retry: false)",
    "502": "the engine could not be reached or failed",
    "503": "no live replica, no place on one in time, the engine is busy, or the gateway is shutting down",
    "504": "the engine was too slow",
}
_HEADERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "x-simsa-priority",
        "The class of the call where engines are full; load tests should say so.",
        {"enum": list(Priority), "default": Priority.INTERACTIVE},
    ),
    (
        "x-session-id",
        "Calls of one session go to the same replica while it is up and has room.",
        {"type": "string"},
    ),
)
_MESSAGES = {"type": "array", "items": {"type": "object"}}
_OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "/v1/chat/completions": ("create_chat_completion", "Chat with one model", {"messages": _MESSAGES}),
    "/v1/completions": ("create_completion", "Continue a text with one model", {"prompt": {}}),
}


def describe_relay(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the relay's operations to an OpenAPI document; returns it."""
    schema.setdefault("components", {}).setdefault("schemas", {})["Error"] = _error_schema()
    schema["components"].setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
    for path, (operation_id, summary, fields) in _OPERATIONS.items():
        schema["paths"][path] = {"post": _operation(operation_id, summary, fields)}
    return schema


def _operation(operation_id: str, summary: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["openai"],
        "operationId": operation_id,
        "summary": summary,
        "description": (
            "Passed through to the engine that serves `model`: unknown fields survive both ways, only `model` and "
            "`stream_options` are rewritten. With `stream: true` the answer is a stream of server-sent events; a "
            "failure after the first byte arrives as one `data: {\"error\": …}` event without `[DONE]`."
        ),
        "security": [{"key": []}],
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": words, "schema": schema}
            for name, words, schema in _HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["model", *fields],
                        "properties": {
                            "model": {"type": "string"},
                            "stream": {"type": "boolean", "default": False},
                            "max_tokens": {"type": "integer"},
                            **fields,
                        },
                        "additionalProperties": True,
                    }
                }
            },
        },
        "responses": {
            "200": {
                "description": "The engine's answer",
                "headers": {
                    name: {"schema": {"type": "string"}}
                    for name in ("x-request-id", "x-simsa-model", "x-simsa-replica", "x-simsa-provenance",
                                 "x-simsa-overhead-ms", "x-simsa-queue-ms", "x-simsa-attempts", "x-simsa-cost",
                                 *(f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens")
                                   for what in ("limit", "remaining", "reset")))
                },
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            **{
                status: {
                    "description": words,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, words in _ERRORS.items()
            },
        },
    }  # fmt: skip


def _error_schema() -> dict[str, Any]:
    nullable = {"type": ["string", "null"]}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": nullable, "code": nullable},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
