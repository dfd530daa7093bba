"""The hot path: a request for one model in, an engine's bytes out, as plain ASGI in front of the framework's routing.

Everything that does not depend on the client's socket (which replica, retries, records) is `dispatch`'s work. No
database, log line, model validation or full JSON parse happens per token here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from decimal import Decimal
from functools import partial

import msgspec
import structlog

from gateway.access import (
    Access,
    asked_priority,
    asked_run,
    permit_background,
    permit_fields,
    permit_model,
    permit_route,
)
from gateway.active_call import ActiveCall
from gateway.asgi import (
    JSON,
    STREAM_HEADERS,
    ClientLeft,
    RawHeaders,
    Receive,
    Scope,
    Send,
    encoded,
    read_body,
    request_id_of,
    send_error,
)
from gateway.dispatch import CallContext, Dispatcher
from gateway.domain.accounts import Caller
from gateway.domain.records import Model
from gateway.downstream import departure_of
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.engine_answers import RETRY_AFTER_S, EngineRefused
from gateway.error_shapes import ErrorShape
from gateway.errors import (
    InternalError,
    MethodNotAllowed,
    SimsaError,
    Unavailable,
)
from gateway.model_lookup import find_model
from gateway.reply_homes import ReplyHomes, owner_of
from gateway.request_adapter import adapt
from gateway.request_body import RequestBody, read_request
from gateway.run_names import RunNames

PING = b": ping\n\n"
_PASSED_VALUE = re.compile(rb"[\x21-\x7e][\x20-\x7e]{0,255}\Z")


class Relay:
    """Serves the routes that go to one engine."""

    def __init__(self, dispatcher: Dispatcher, access: Access, homes: ReplyHomes, runs: RunNames) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._homes = homes
        self._runs = runs
        self.is_draining = False
        self._log = structlog.get_logger("simsa.relay")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ENDPOINTS[scope["path"]]
        request_id = request_id_of(scope["headers"])
        try:
            caller, accepted_s, model, body = await self._admit(endpoint, scope, receive)
            context = await self._placed(endpoint, scope["headers"], caller, model, body, request_id, accepted_s)
            reservation = await self._dispatcher.limiter.reserve(caller, model, endpoint, body)
        except ClientLeft:
            return
        except SimsaError as error:
            self._dispatcher.telemetry.observe_refusal(endpoint.name, error.status, error.code, request_id)
            await send_error(send, error, request_id, endpoint.errors)
            return
        except Exception as error:  # noqa: BLE001  the last place where the client can be told
            told = InternalError()
            self._log.error("request failed", request_id=request_id, exc_info=error)
            self._dispatcher.telemetry.observe_refusal(endpoint.name, told.status, told.code, request_id)
            await send_error(send, told, request_id, endpoint.errors)
            return
        call: ActiveCall | None = None
        try:
            limit_headers = partial(self._dispatcher.limiter.headers, reservation)
            answer = _Answer(send, request_id, model.id, endpoint.errors, limit_headers)
            call = ActiveCall(self._dispatcher, model, endpoint, body, context, reservation)
            await departure_of(scope).ends(self._serve(call, body, answer))
        finally:
            self._dispatcher.limiter.settle(reservation, call.record if call is not None else None)

    async def _admit(
        self, endpoint: Endpoint, scope: Scope, receive: Receive
    ) -> tuple[Caller, float, Model, RequestBody]:
        """Who asks, when the request was whole, and what it asks; what can be refused before there is a call."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['path']} takes POST, not {scope['method']}.", allow="POST")
        caller = self._access.check(scope["headers"], or_x_api_key=endpoint.takes_x_api_key)
        permit_route(caller, endpoint.name)
        if self.is_draining:
            raise Unavailable("The gateway is shutting down.", code="draining", retry_after_s=RETRY_AFTER_S)
        settings = self._dispatcher.settings
        raw = await read_body(scope, receive, settings.max_body_bytes)
        accepted_s = self._dispatcher.now()
        if len(raw) > settings.off_loop_body_bytes:
            body = await asyncio.to_thread(
                read_request, raw, endpoint.fields, allow_remote_media=settings.allow_remote_media
            )
        else:
            body = read_request(raw, endpoint.fields, allow_remote_media=settings.allow_remote_media)
        model = find_model(self._dispatcher.registry(), self._dispatcher.fleet, caller, body.model)
        permit_model(caller, model)
        permit_fields(caller, body.members)
        if endpoint.keeps_replies:
            permit_background(caller, body.members.get("background"))
        return caller, accepted_s, model, adapt(body, model)

    async def _placed(
        self,
        endpoint: Endpoint,
        headers: RawHeaders,
        caller: Caller,
        model: Model,
        body: RequestBody,
        request_id: str,
        accepted_s: float,
    ) -> CallContext:
        """Whose the call is and where it belongs.

        Raises InvalidRequest or PermissionDenied for what its headers ask, NotFound when it continues a reply that is
        not there.
        """
        context = _context(request_id, accepted_s, headers, caller)
        if context.run_id is not None:
            self._runs.note(caller, context.run_id)
        if self._dispatcher.tracer is not None:
            context = context._replace(trail=self._dispatcher.tracer.follow(headers, accepted_s))
        if endpoint.headers:
            context = context._replace(headers=_passed_headers(endpoint.headers, headers))
        if endpoint.keeps_replies:
            context = await self._homes.placed(
                context, body, model.id, owner_of(caller), self._dispatcher.fleet.states_of(model.id)
            )
        return context

    async def _serve(self, call: ActiveCall, body: RequestBody, answer: _Answer) -> None:
        try:
            async with call:
                await call.connect()
                if body.stream:
                    await answer.start_stream(call)
                    async with aclosing(self._with_pings(call.stream())) as chunks:
                        async for chunk in chunks:
                            await answer.add(chunk, is_last=call.record is not None)
                else:
                    await answer.whole(call.whole(), call)
        except SimsaError as error:
            await answer.fail(error, call)
        except Exception:  # noqa: BLE001  recorded and logged by the call; the client must be told
            await answer.fail(InternalError(), call)

    def _with_pings(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        interval_s = self._dispatcher.settings.ping_interval_s
        return with_pings(chunks, interval_s) if interval_s else chunks


class _Answer:
    """Writes one answer to the client: headers once, then bytes, then the end once."""

    def __init__(
        self,
        send: Send,
        request_id: str,
        model_id: str,
        errors: ErrorShape,
        limit_headers: Callable[[], RawHeaders],
    ) -> None:
        self._send = send
        self._request_id = request_id
        self._model_id = model_id
        self._errors = errors
        self._limit_headers = limit_headers
        self._is_started = False

    async def start_stream(self, call: ActiveCall) -> None:
        headers = [*STREAM_HEADERS, *self._facts(call)]
        self._is_started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def add(self, chunk: bytes, *, is_last: bool) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def whole(self, body: bytes, call: ActiveCall) -> None:
        headers = [JSON, (b"content-length", b"%d" % len(body)), *self._facts(call)]
        cost = call.record.cost if call.record is not None else None
        if cost is not None and cost.amount is not None:
            headers.append((b"x-simsa-cost", f"{_plain(cost.amount)} {cost.currency}; basis={cost.basis}".encode()))
        await self._respond(200, headers, body)

    async def fail(self, error: SimsaError, call: ActiveCall) -> None:
        """An error response, or the last event of a stream that has begun."""
        if self._is_started:
            await self._send({"type": "http.response.body", "body": call.error_event(error), "more_body": False})
            return
        if isinstance(error, EngineRefused):
            body = error.written_in(self._errors)
        else:
            body = msgspec.json.encode(self._errors.body(error))
        headers = [JSON, (b"content-length", b"%d" % len(body)), *encoded(error.headers()), *self._facts(call)]
        await self._respond(error.status, headers, body)

    async def _respond(self, status: int, headers: RawHeaders, body: bytes) -> None:
        self._is_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _facts(self, call: ActiveCall) -> RawHeaders:
        headers = [
            (b"x-request-id", self._request_id.encode()),
            (b"x-simsa-model", self._model_id.encode()),
            (b"x-simsa-overhead-ms", b"%.3f" % (call.overhead_s * 1000)),
            (b"x-simsa-queue-ms", b"%.3f" % (call.queue_s * 1000)),
            (b"x-simsa-attempts", b"%d" % call.attempts),
        ]
        if call.replica_id is not None:
            headers.append((b"x-simsa-replica", call.replica_id.encode()))
            headers.append((b"x-simsa-provenance", call.provenance.encode()))
        if call.left_out:
            headers.append((b"x-simsa-dropped", ",".join(call.left_out).encode()))
        return headers + self._limit_headers()


async def with_pings(chunks: AsyncGenerator[bytes, None], interval_s: float) -> AsyncGenerator[bytes, None]:
    """The same chunks, with a comment line after each `interval_s` of silence, so that proxies keep the stream open."""
    async with aclosing(chunks):
        upcoming = asyncio.ensure_future(anext(chunks))
        try:
            while True:
                await asyncio.wait((upcoming,), timeout=interval_s)
                if not upcoming.done():
                    yield PING
                    continue
                try:
                    chunk = upcoming.result()
                except StopAsyncIteration:
                    return
                yield chunk
                upcoming = asyncio.ensure_future(anext(chunks))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


def _context(request_id: str, accepted_s: float, headers: RawHeaders, caller: Caller) -> CallContext:
    """Whose the call is and where it belongs. Raises InvalidRequest or PermissionDenied for what its headers ask."""
    retry: int | None = None
    session: str | None = None
    run: bytes | None = None
    priority = caller.priority
    for name, value in headers:
        if name[:1] != b"x":  # most of them
            continue
        if name == b"x-stainless-retry-count":
            retry = int(value) if value.isdigit() and len(value) < 6 else None
        elif name == b"x-session-id":
            session = value.decode("latin-1") or None
        elif name == b"x-simsa-priority":
            priority = asked_priority(caller, value)
        elif name == b"x-simsa-run-id":
            run = value
    return CallContext(
        request_id,
        accepted_s,
        run_id=None if run is None else asked_run(caller, run),
        client_retry=retry,
        priority=priority,
        organisation=caller.organisation,
        key=caller.key,
        session=session,
    )


def _passed_headers(names: tuple[bytes, ...], headers: RawHeaders) -> bytes:
    """The lines of the client's headers that go on to the engine; values of odd bytes do not."""
    return b"".join(
        b"%b: %b\r\n" % (name, value) for name, value in headers if name in names and _PASSED_VALUE.match(value)
    )


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"
