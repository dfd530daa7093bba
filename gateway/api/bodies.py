"""Reads the body of one of our own POSTs: bounded, strict JSON, then the shape that the route asks for."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from gateway.api.deps import Services
from gateway.asgi import read_body
from gateway.errors import InvalidRequest

MAX_DEPTH = 64
"""Levels of a request body; far more than tools and schemas need, far less than stops a JSON writer."""
Shape = TypeVar("Shape", bound=BaseModel)


async def read_json(request: Request, services: Services, shape: type[Shape]) -> Shape:
    """The body as `shape`; a large one is parsed off the loop. Raises InvalidRequest, or ClientLeft."""
    settings = services.settings
    raw = await read_body(request.scope, request.receive, settings.max_body_bytes)
    if len(raw) > settings.off_loop_body_bytes:
        return await asyncio.to_thread(_parse, raw, shape)
    return _parse(raw, shape)


def _parse(raw: bytes, shape: type[Shape]) -> Shape:
    """Strict JSON first: a NaN, an infinite number or a bottomless object could be stored, but not read back."""
    try:
        fields = msgspec.json.decode(raw)
        if _is_deeper_than(fields, MAX_DEPTH):
            raise InvalidRequest(f"The request body is nested more than {MAX_DEPTH} levels deep.")
        return shape.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The request body is not valid UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The request body is nested too deeply.") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error


def _is_deeper_than(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_is_deeper_than(inner, levels - 1) for inner in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_is_deeper_than(inner, levels - 1) for inner in value)
    return False
