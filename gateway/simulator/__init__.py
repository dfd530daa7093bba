"""A simulated engine: it speaks vLLM 0.32's protocol and keeps the time that a model would need on a GPU.

For trying, testing and planning where there is no GPU. It says so itself: `/v1/models` answers with
`owned_by: simsa-simulator`. How long steps take is decided in domain.engine_model, what is said in `text`;
here they are put together behind HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from types import FrameType

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.domain.engine_model import resolve_limits
from gateway.domain.records import Gpu, Model
from gateway.domain.roofline import build_roofline, missing_facts
from gateway.errors import StartRefused
from gateway.simulator.answers import Answer, answer_parts
from gateway.simulator.as_chat import chat_of_message, chat_of_response, response_not_found
from gateway.simulator.bodies import (
    BodyT,
    ChatBody,
    CompletionBody,
    CountTokensBody,
    DetokenizeBody,
    MessagesBody,
    Refusal,
    ResponsesBody,
    TokenizeBody,
    read_body,
    refuse,
)
from gateway.simulator.delivery import AnswerResponse
from gateway.simulator.engine import Engine
from gateway.simulator.json_values import SchemaRefused
from gateway.simulator.message_reply import MessageReply
from gateway.simulator.replies import ChatReply, CompletionReply, Json
from gateway.simulator.requests import (
    Ask,
    check_model,
    render_chat,
    understand_chat,
    understand_completion,
)
from gateway.simulator.response_reply import ResponseReply
from gateway.simulator.text import split_tokens, token_id, token_text

OWNER = "simsa-simulator"
"""`owned_by` in /v1/models: what tells everybody that answers and times are simulated."""
VERSION = "0.32.0+simsa-simulated"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def create_engine(
    model: Model,
    gpu: Gpu,
    *,
    served_name: str | None = None,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    speed: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> ASGIApp:
    """An ASGI app that serves `model` as if on one `gpu`, under `served_name` (the model's serving name by default).

    `speed` 10 keeps a tenth of the simulated time. Raises ValueError that names the facts that are missing, or says
    with figures why the model does not fit.
    """
    if missing := missing_facts(model, gpu):
        raise ValueError(f"{model.id} cannot be simulated on {gpu.id}: unknown {', '.join(missing)}")
    roofline = build_roofline(model, gpu)
    limits = resolve_limits(model, gpu, max_model_len=max_model_len, max_num_seqs=max_num_seqs)
    name = served_name or model.serving.served_model_name
    engine = Engine(roofline, limits, served_name=name, speed=speed, clock=clock)
    desk = _Desk(model=model, gpu=gpu, served_name=name, engine=engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            clockwork = group.create_task(engine.run())
            yield
            clockwork.cancel()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", desk.chat, methods=["POST"]),
            Route("/v1/completions", desk.complete, methods=["POST"]),
            Route("/v1/responses", desk.respond, methods=["POST"]),
            Route("/v1/responses/{response_id}", desk.kept_response),
            Route("/v1/responses/{response_id}/cancel", desk.kept_response, methods=["POST"]),
            Route("/v1/messages", desk.message, methods=["POST"]),
            Route("/v1/messages/count_tokens", desk.count_tokens, methods=["POST"]),
            Route("/tokenize", desk.tokenize, methods=["POST"]),
            Route("/detokenize", desk.detokenize, methods=["POST"]),
            Route("/v1/models", desk.list_models),
            Route("/health", desk.health),
            Route("/version", desk.version),
            Route("/metrics", desk.metrics),
        ],
        exception_handlers={HTTPException: _http_error, Refusal: _refusal},
        lifespan=lifespan,
    )


def run_engine(
    model: Model,
    gpu: Gpu,
    *,
    port: int,
    host: str = "127.0.0.1",
    served_name: str | None = None,
    max_model_len: int | None = None,
    speed: float = 1.0,
    shutdown_grace_s: float = 30.0,
    on_listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until SIGTERM or SIGINT; streams in flight then have `shutdown_grace_s` to end.

    Raises ValueError as `create_engine` does, and StartRefused when the port is not to be had.
    """
    app = create_engine(model, gpu, served_name=served_name, max_model_len=max_model_len, speed=speed)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        timeout_graceful_shutdown=ceil(shutdown_grace_s),
    )
    with _listen(host, port) as listener:
        on_listening(f"http://{host}:{listener.getsockname()[1]}")
        _EngineServer(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # its own words repeat the address
        why = f"the simulated engine cannot listen on {host}:{port}: {reason}"
        raise StartRefused(f"{why}; stop what uses the port, or choose another one") from error


class _EngineServer(uvicorn.Server):
    """Returns after a signal, where uvicorn's own would send itself the signal again."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


@dataclass(frozen=True, slots=True)
class _Desk:
    """The routes of one engine."""

    model: Model
    gpu: Gpu
    served_name: str
    engine: Engine

    async def chat(self, request: Request) -> Response:
        body = await _read(request, ChatBody)
        check_model(body.model, self.served_name)
        ask = self._understand(body)
        counts = self.model.reasoning is not None or self.model.reasoning_parser is not None
        reply_id, news = f"chatcmpl-{uuid.uuid4().hex}", asyncio.Event()
        answers = self._answers(reply_id, ask, news)
        reply = ChatReply(reply_id, int(time.time()), self.served_name, ask, answers, counts)
        return AnswerResponse(self.engine, reply, news)

    async def complete(self, request: Request) -> Response:
        body = await _read(request, CompletionBody)
        check_model(body.model, self.served_name)
        ask = understand_completion(body, max_model_len=self.engine.limits.max_model_len)
        reply_id, news = f"cmpl-{uuid.uuid4().hex}", asyncio.Event()
        answers = self._answers(reply_id, ask, news)
        reply = CompletionReply(reply_id, int(time.time()), self.served_name, ask, answers, False)
        return AnswerResponse(self.engine, reply, news)

    async def respond(self, request: Request) -> Response:
        body = await _read(request, ResponsesBody)
        check_model(body.model, self.served_name)
        ask = self._understand(chat_of_response(body), limit_name="max_output_tokens")
        reply_id, news = f"resp_{uuid.uuid4().hex[:16]}", asyncio.Event()
        answers = self._answers(reply_id, ask, news)
        return AnswerResponse(
            self.engine, ResponseReply(reply_id, int(time.time()), self.served_name, ask, answers, True, body), news
        )

    async def kept_response(self, request: Request) -> Response:
        raise response_not_found(request.path_params["response_id"])

    async def message(self, request: Request) -> Response:
        body = await _read(request, MessagesBody)
        try:
            check_model(body.model, self.served_name)
            ask = self._understand(chat_of_message(body))
            reply_id, news = f"chatcmpl-{uuid.uuid4().hex}", asyncio.Event()
            answers = self._answers(reply_id, ask, news)
        except Refusal as refusal:
            return _as_messages_refusal(refusal)
        reply = MessageReply(reply_id, int(time.time()), self.served_name, ask, answers, False)
        return AnswerResponse(self.engine, reply, news)

    async def count_tokens(self, request: Request) -> Response:
        body = await _read(request, CountTokensBody)
        try:
            check_model(body.model, self.served_name)
            chat = chat_of_message(body)
            text, _ = render_chat(chat.messages, chat.tools, sees="vision" in self.model.capabilities)
        except Refusal as refusal:
            return _as_messages_refusal(refusal)
        tokens = len(split_tokens(text))
        return _json({"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}})

    async def tokenize(self, request: Request) -> Response:
        body = await _read(request, TokenizeBody)
        check_model(body.model, self.served_name)
        if body.messages is not None:
            text, _ = render_chat(body.messages, body.tools, sees="vision" in self.model.capabilities)
        elif body.prompt is not None:
            text = body.prompt
        else:
            raise refuse("Either `prompt` or `messages` must be provided.", param="prompt")
        pieces = split_tokens(text)
        return _json(
            {
                "count": len(pieces),
                "max_model_len": self.engine.limits.max_model_len,
                "tokens": [token_id(piece) for piece in pieces],
                "token_strs": pieces if body.return_token_strs else None,
            }
        )

    async def detokenize(self, request: Request) -> Response:
        body = await _read(request, DetokenizeBody)
        check_model(body.model, self.served_name)
        try:
            return _json({"prompt": "".join(map(token_text, body.tokens))})
        except ValueError as error:
            raise refuse(str(error), param="tokens") from error

    async def list_models(self, _: Request) -> Response:
        card = {
            "id": self.served_name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": OWNER,
            "root": f"simulated:{self.model.id}@{self.gpu.id}",
            "parent": None,
            "max_model_len": self.engine.limits.max_model_len,
            "permission": [],
        }
        return _json({"object": "list", "data": [card]})

    async def health(self, _: Request) -> Response:
        return Response(status_code=200 if self.engine.is_alive else 503)

    async def version(self, _: Request) -> Response:
        return _json({"version": VERSION})

    async def metrics(self, _: Request) -> Response:
        return Response(self.engine.metrics.render(), media_type=METRICS_TYPE)

    def _understand(self, body: ChatBody, *, limit_name: str = "max_tokens") -> Ask:
        max_model_len = self.engine.limits.max_model_len
        return understand_chat(body, self.model, max_model_len=max_model_len, limit_name=limit_name)

    def _answers(self, reply_id: str, ask: Ask, news: asyncio.Event) -> list[Answer]:
        """The answers asked for, `n` to each prompt, in the order of their index on the wire."""
        answers: list[Answer] = []
        for prompt, max_tokens in zip(ask.prompts, ask.max_tokens, strict=True):
            for choice in range(ask.n):
                try:
                    parts = answer_parts(ask, prompt, model_id=self.model.id, index=choice)
                except SchemaRefused as error:
                    raise refuse(f"The JSON schema cannot be followed: {error}", param="response_format") from error
                answers.append(
                    Answer(
                        f"{reply_id}-{len(answers)}",
                        ask,
                        prompt,
                        max_tokens=max_tokens,
                        parts=parts,
                        on_news=news.set,
                    )
                )
        return answers


async def _read(request: Request, kind: type[BodyT]) -> BodyT:
    return read_body(kind, await request.body(), request.headers.get("content-type", ""))


def _json(value: Json, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def _as_messages_refusal(refusal: Refusal) -> Response:
    """vLLM puts what it refuses after validation into Anthropic's envelope, with its own types."""
    error = refusal.body["error"]
    return _json({"type": "error", "error": {"type": error["type"], "message": error["message"]}}, refusal.status)


async def _http_error(_: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the shape in which FastAPI and so vLLM sends them."""
    assert isinstance(error, HTTPException)
    response = _json({"detail": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _json(error.body, error.status)
