"""Replies that an engine keeps, asked for again or cancelled: /v1/responses/{id} and /v1/responses/{id}/cancel.

The one engine that can answer is asked, and its answer passed on, whole or as a stream. Nothing is generated for it, so
it is no call: it has no record and no price. It is a request of its key all the same, in the minute and at a time.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import structlog

from gateway.access import Access, permit_route
from gateway.asgi import (
    JSON,
    STREAM_HEADERS,
    ClientLeft,
    RawHeaders,
    Receive,
    Scope,
    Send,
    read_body,
    request_id_of,
    send_error,
)
from gateway.dispatch import Abortable, Dispatcher
from gateway.domain.accounts import Caller
from gateway.domain.dialects.responses import RESPONSES
from gateway.domain.meter import Meter
from gateway.domain.model_name import renaming
from gateway.domain.records import Model
from gateway.downstream import departure_of
from gateway.endpoints import RESPONSES_CREATE
from gateway.engine_answers import RETRY_AFTER_S, EngineRefused, read_failure
from gateway.errors import (
    InternalError,
    MethodNotAllowed,
    NoReplica,
    RouteNotFound,
    SimsaError,
    Unavailable,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.http_reply import Reply
from gateway.limits import Reservation
from gateway.replica_state import ReplicaState
from gateway.reply_homes import ID, ReplyHomes, owner_of
from gateway.telemetry import status_class
from gateway.upstream import request_head

PREFIX = "/v1/responses/"
LABEL = "stored_responses"
_PATH = re.compile(re.escape(PREFIX) + rf"({ID})(/cancel)?\Z")
_PASSED_PARAMETERS = frozenset({"stream", "starting_after"})
_ERRORS = RESPONSES_CREATE.errors


class _Wanted(NamedTuple):
    """A request that was understood, and who can answer it."""

    caller: Caller
    method: bytes
    path: bytes
    """Below the replica's base path."""
    model: Model
    state: ReplicaState


class StoredReplies:
    """Serves the routes of replies that engines keep, for those who asked for them."""

    def __init__(self, dispatcher: Dispatcher, access: Access, homes: ReplyHomes) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._homes = homes
        self.is_draining = False
        self._log = structlog.get_logger("simsa.stored_replies")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope["headers"])
        try:
            wanted = await self._admit(scope)
            await read_body(scope, receive, self._dispatcher.settings.max_body_bytes)
            reservation = await self._dispatcher.limiter.reserve_free(wanted.caller, wanted.model)
        except ClientLeft:
            return
        except SimsaError as error:
            self._dispatcher.telemetry.observe_refusal(LABEL, error.status, error.code, request_id)
            await send_error(send, error, request_id)
            return
        except Exception as error:  # noqa: BLE001  the last place where the client can be told
            told = InternalError()
            self._log.error("request failed", request_id=request_id, exc_info=error)
            self._dispatcher.telemetry.observe_refusal(LABEL, told.status, told.code, request_id)
            await send_error(send, told, request_id)
            return
        try:
            retrieval = _Retrieval(self._dispatcher, wanted, request_id, send, reservation)
            await departure_of(scope).ends(retrieval.run())
        finally:
            self._dispatcher.limiter.settle(reservation, None)

    async def _admit(self, scope: Scope) -> _Wanted:
        caller = self._access.check(scope["headers"])
        found = _PATH.match(scope["path"])
        if found is None:
            raise RouteNotFound(f"There is no {scope['method']} {scope['path'][:200]}. See /docs.")
        reply_id, cancel = found[1], found[2] or ""
        allowed = "POST" if cancel else "GET"
        if scope["method"] != allowed:
            raise MethodNotAllowed(f"{scope['path']} takes {allowed}, not {scope['method']}.", allow=allowed)
        permit_route(caller, RESPONSES_CREATE.name)
        if self.is_draining:
            raise Unavailable("The gateway is shutting down.", code="draining", retry_after_s=RETRY_AFTER_S)
        home = await self._homes.find(owner_of(caller), reply_id, param="response_id")
        state = home.among(self._dispatcher.fleet.states_of(home.model_id), param="response_id")
        if not state.is_up:
            raise NoReplica(
                f"The engine that keeps the response '{reply_id}' does not answer at the moment.",
                param="response_id",
                retry_after_s=RETRY_AFTER_S,
            )
        given = parse_qsl(scope["query_string"].decode("latin-1"))
        query = urlencode([(name, value) for name, value in given if name in _PASSED_PARAMETERS])
        path = f"/responses/{reply_id}{cancel}" + (f"?{query}" if query else "")
        return _Wanted(caller, allowed.encode(), path.encode(), state.model, state)


class _Retrieval(Abortable):
    """One request for a kept reply, from the engine to the client."""

    def __init__(
        self, dispatcher: Dispatcher, wanted: _Wanted, request_id: str, send: Send, reservation: Reservation | None
    ) -> None:
        super().__init__()
        self._reservation = reservation
        self._dispatcher = dispatcher
        self._wanted = wanted
        self._request_id = request_id
        self._send = send
        self._renaming = renaming(wanted.model.serving.served_model_name, wanted.model.id)
        self._meter: Meter | None = None

    async def run(self) -> None:
        self._begin()
        self._dispatcher.in_flight.add(self)
        try:
            await self._pass_on()
        except SimsaError as error:
            await self._fail(error)
        except asyncio.CancelledError as cancellation:
            told = self._told(cancellation)
            if told is None or not self._resumes():
                raise
            await self._fail(told)
        except Exception as error:
            log = structlog.get_logger("simsa.stored_replies")
            log.error("request failed", request_id=self._request_id, exc_info=error)
            await self._fail(InternalError())
        finally:
            self._dispatcher.finished(self)

    async def _pass_on(self) -> None:
        total_due = asyncio.get_running_loop().time() + self._wanted.model.timeouts.total_s
        try:
            reply = await self._open(total_due)
        except UpstreamUnreachable as error:
            self._dispatcher.fleet.mark_down(self._wanted.state, error.message)
            raise
        try:
            if reply.status != 200:
                body = await reply.read_all(self._dispatcher.settings.max_answer_bytes)
                words = self._wanted.state.hide_key(body)
                raise read_failure(reply.status, words, reply.header(b"retry-after")).error
            if (reply.header(b"content-type") or b"").startswith(b"text/event-stream"):
                await self._stream(reply, total_due)
            else:
                body = await reply.read_all(self._dispatcher.settings.max_answer_bytes)
                await self._respond(200, self._renaming.at(("model",), body) if self._renaming else body)
        finally:
            reply.release()

    async def _open(self, total_due: float) -> Reply:
        _, method, path, model, state = self._wanted
        headers = [*state.auth, (b"x-request-id", self._request_id.encode())]
        return await self._dispatcher.upstream.open(
            state.origin,
            head=request_head(state.origin, method, state.replica.base_path.encode() + path, headers),
            body=None if method == b"GET" else b"",
            connect_s=model.timeouts.connect_s,
            due=total_due,
            due_what=f"no end within {model.timeouts.total_s} s",
        )

    async def _stream(self, reply: Reply, total_due: float) -> None:
        self._count(200)
        meter = Meter(RESPONSES, renaming=self._renaming)
        headers = [*STREAM_HEADERS, *self._facts()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._meter = meter
        timeouts = self._wanted.model.timeouts
        while not (meter.is_done or meter.failure):
            wait_s = timeouts.idle_s if meter.token_events else timeouts.first_token_s
            due = asyncio.get_running_loop().time() + wait_s
            reply.expect(min(due, total_due), f"silent for {wait_s} s or not at its end in time")
            came = await reply.arrivals()
            if not came:
                raise UpstreamTruncated("The answer was cut: the engine closed the stream before its end.")
            forward = b"".join([meter.feed(data, arrived_s) for data, arrived_s in came])
            if meter.failure is not None:
                forward = self._wanted.state.hide_key(forward)
            if meter.failure is not None and not meter.failure.told:
                forward += _ERRORS.event(
                    UpstreamTruncated(f"The answer was cut: {meter.failure.message}."), meter.events
                )
            is_last = meter.is_done or meter.failure is not None
            await self._send({"type": "http.response.body", "body": forward, "more_body": not is_last})

    async def _fail(self, error: SimsaError) -> None:
        """An error response, or the last event of a stream that has begun."""
        if self._meter is not None:
            event = _ERRORS.event(error, self._meter.events)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        elif isinstance(error, EngineRefused):
            await self._respond(error.status, error.written_in(_ERRORS))
        else:
            self._count(error.status)
            await send_error(self._send, error, self._request_id)

    async def _respond(self, status: int, body: bytes) -> None:
        self._count(status)
        headers = [JSON, (b"content-length", b"%d" % len(body)), *self._facts()]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _facts(self) -> RawHeaders:
        state = self._wanted.state
        return [
            (b"x-request-id", self._request_id.encode()),
            (b"x-simsa-model", self._wanted.model.id.encode()),
            (b"x-simsa-replica", state.replica.id.encode()),
            (b"x-simsa-provenance", state.provenance.value.encode()),
            *self._dispatcher.limiter.headers(self._reservation),
        ]

    def _count(self, status: int) -> None:
        self._dispatcher.telemetry.requests.at(self._wanted.model.id, LABEL, status_class(status)).value += 1
