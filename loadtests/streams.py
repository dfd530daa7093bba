"""One request over a socket of gevent's, its answer read as it comes: every read has the moment at which it came.

Sockets are our own and geventhttpclient only parses HTTP. Its own client reads lines out of a buffer, so events that
came together get moments that nobody saw; connects before a moment can be noted; and looks at idle sockets with
select(), which refuses file descriptors from 1024 on. What bytes mean is `answers`' subject.
"""

from __future__ import annotations

import errno
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from select import POLLIN
from socket import IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY
from time import perf_counter
from typing import Any

import gevent  # type: ignore[import-untyped]
import gevent.monkey  # type: ignore[import-untyped]
import gevent.socket  # type: ignore[import-untyped]
import gevent.ssl  # type: ignore[import-untyped]
from geventhttpclient.response import HTTPParseError, HTTPResponse

from gateway.engine_answers import message_in
from gateway.upstream import Origin, parse_origin
from loadtests.answers import Answer, End, Exchange
from loadtests.records import Outcome

CONNECT_S = 10.0
IDLE_S = 2.0
"""A connection that was idle for longer is not used again: servers close theirs after 5 s, often at that moment."""
REST_S = 0.1
"""How long the last bytes of an answer that is over are waited for, so that its connection can be used again."""
READ_BYTES = 16 * 1024
ERROR_BYTES = 64 * 1024
EVENTS = "text/event-stream"
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""What this machine has too little of: the target never heard of it."""
_Poll = gevent.monkey.get_original("select", "poll")
"""The system's own: gevent's would run its loop."""


class Abandoned(gevent.GreenletExit):  # type: ignore[misc]
    """Thrown into a request that is given up; no Exception, so nothing on the way takes it for its own."""


class Reply(HTTPResponse):
    """The answer's head, and of its body the pieces that came with the last bytes fed."""

    def __init__(self) -> None:
        super().__init__(method="POST")
        self.pieces: list[bytes] = []

    def _on_body(self, buf: bytearray) -> None:
        self.pieces.append(bytes(buf))

    @property
    def has_head(self) -> bool:
        """Whether the final head is there; heads of 1xx only announce it."""
        return self.headers_complete and self.status_code >= HTTPStatus.OK

    def header(self, name: str) -> str | None:
        value = self.get(name)
        return value[0] if isinstance(value, list) else value


class Door:
    """Sockets to one address, kept open between requests, the most recently used first."""

    def __init__(self, address: str) -> None:
        """Raises ValueError for what is no address. Nothing is looked up or opened yet."""
        self.origin: Origin = parse_origin(address)
        self._idle: deque[tuple[gevent.socket.socket, float]] = deque()
        self._found: list[Any] = []
        self._tls: ssl.SSLContext | None = None
        self.opened = 0
        """Connections so far."""

    def look_up(self) -> None:
        """Find the host's addresses, once. Raises OSError."""
        self._found = gevent.socket.getaddrinfo(self.origin.host, self.origin.port, type=SOCK_STREAM)

    def take(self) -> gevent.socket.socket:
        """A socket that is open. Raises OSError."""
        while self._idle:
            sock, since_s = self._idle.pop()
            if perf_counter() - since_s <= IDLE_S and _is_quiet(sock):
                return sock
            sock.close()
        return self._connect()

    def give_back(self, sock: gevent.socket.socket) -> None:
        self._idle.append((sock, perf_counter()))
        while perf_counter() - self._idle[0][1] > IDLE_S:
            self._idle.popleft()[0].close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def _connect(self) -> gevent.socket.socket:
        """To the first address of the host that takes us; it stays the first."""
        if not self._found:
            self.look_up()
        refusal: OSError | None = None
        for place, (family, kind, protocol, _, address) in enumerate(self._found):
            sock = gevent.socket.socket(family, kind, protocol)
            try:
                sock.settimeout(CONNECT_S)
                sock.connect(address)
                sock.settimeout(None)
                sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                if self.origin.tls:
                    sock = self._secured(sock)
            except OSError as error:
                sock.close()
                refusal = refusal or error
            except BaseException:
                sock.close()
                raise
            else:
                self._found.insert(0, self._found.pop(place))
                self.opened += 1
                return sock
        raise refusal or OSError(f"{self.origin.host} has no address")

    def _secured(self, sock: gevent.socket.socket) -> gevent.socket.socket:
        if self._tls is None:
            self._tls = gevent.ssl.create_default_context()
        return self._tls.wrap_socket(sock, server_hostname=self.origin.host)


class Client:
    """Sends requests to one route and reads their answers."""

    def __init__(
        self,
        door: Door,
        path: str,
        headers: Sequence[tuple[str, str]],
        *,
        timeout_s: float,
        now_s: Callable[[], float],
    ) -> None:
        """`now_s`: the cell's clock. `headers` must be fit to be sent."""
        self._door = door
        self._timeout_s = timeout_s
        self._now_s = now_s
        origin = door.origin
        fixed: Mapping[str, str] = {
            "host": origin.authority.decode(),
            "accept": EVENTS,
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "simsa-loadtest",
            **dict(headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        self._head = f"POST {origin.prefix.decode()}{path} HTTP/1.1\r\n{lines}content-length: ".encode()

    def ask(self, body: bytes, answer: Answer) -> Exchange:
        """Send `body` and read to the end; whatever happens, the exchange and `answer` say so. Nothing is raised.

        The moment of sending is noted before a connection is opened, where one has to be: a target that is slow to
        take connections is slow, not its client.
        """
        exchange = Exchange()
        with _told(exchange, self._timeout_s):
            exchange.sent_s = self._now_s()
            sock = self._door.take()
            reply = Reply()
            is_reusable = False
            try:
                with suppress(ConnectionError):  # who refuses early closes early; what was answered is still to be read
                    sock.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
                self._read(sock, reply, answer, exchange)
                exchange.ended_s = self._now_s()
                is_reusable = _read_rest(sock, reply)
            finally:
                if is_reusable:
                    self._door.give_back(sock)
                else:
                    sock.close()
        if exchange.ended_s is None:
            exchange.ended_s = self._now_s()
        return exchange

    def _read(self, sock: gevent.socket.socket, reply: Reply, answer: Answer, exchange: Exchange) -> None:
        self._read_head(sock, reply, exchange)
        if exchange.status != HTTPStatus.OK:
            exchange.end = _refused(exchange.status or 0, _body_of(sock, reply))
            return
        kind = reply.header("content-type") or ""
        if not kind.startswith(EVENTS):
            exchange.end = End(Outcome.MALFORMED, f"the answer is no stream of events but '{kind[:100]}'")
            return
        receive, now_s = sock.recv, self._now_s
        read_s = now_s()
        while True:
            for piece in reply.pieces:
                answer.feed(piece, read_s)
            reply.pieces.clear()
            if answer.is_over:
                return
            if reply.message_complete:
                answer.end_of_stream()
                return
            chunk = receive(READ_BYTES)
            read_s = now_s()
            if not chunk:
                answer.end_of_stream()
                return
            reply.feed(chunk)

    def _read_head(self, sock: gevent.socket.socket, reply: Reply, exchange: Exchange) -> None:
        while not reply.has_head:
            chunk = sock.recv(READ_BYTES)
            if not chunk:
                raise ConnectionResetError("the connection was closed before the answer's head was complete")
            exchange.has_begun = True
            reply.feed(chunk)
        exchange.status = reply.status_code
        exchange.request_id = reply.header("x-request-id")
        exchange.replica = reply.header("x-simsa-replica")


@contextmanager
def _told(exchange: Exchange, timeout_s: float) -> Iterator[None]:
    """What goes wrong in the block is told in `exchange`; what takes longer than `timeout_s` goes wrong."""
    timeout = gevent.Timeout.start_new(timeout_s)
    try:
        yield
    except gevent.Timeout as over:
        if over is not timeout:
            raise
        exchange.end = End(Outcome.TIMEOUT, f"not over after {timeout_s:g} s")
    except Abandoned as given_up:
        exchange.end = End(Outcome.ABANDONED, str(given_up))
    except OSError as error:
        words = error.strerror or str(error) or type(error).__name__
        if error.errno in _OUR_OWN:
            exchange.sent_s = None
            exchange.end = End(Outcome.UNSENT, f"the client could not open a connection: {words}")
        else:
            exchange.end = End(Outcome.CUT if exchange.has_begun else Outcome.UNREACHABLE, words)
    except (HTTPParseError, UnicodeDecodeError) as error:
        exchange.end = End(Outcome.MALFORMED, f"the answer is no HTTP: {error}")
    finally:
        timeout.close()


def _refused(status: int, body: bytes) -> End:
    outcome = Outcome.TOO_MANY if status == HTTPStatus.TOO_MANY_REQUESTS else Outcome.REFUSED
    return End(outcome, f"status {status}: {message_in(body)}")


def _body_of(sock: gevent.socket.socket, reply: Reply) -> bytes:
    """The body of a refusal, so far as it came; a long one in part."""
    with suppress(OSError, HTTPParseError):
        while not reply.message_complete and sum(map(len, reply.pieces)) < ERROR_BYTES:
            reply.feed(sock.recv(READ_BYTES))
    return b"".join(reply.pieces)[:ERROR_BYTES]


def _read_rest(sock: gevent.socket.socket, reply: Reply) -> bool:
    """Read what frames the end of an answer that is over; whether another request may use the connection."""
    with gevent.Timeout(REST_S, False), suppress(OSError, HTTPParseError):
        while not reply.message_complete:
            chunk = sock.recv(READ_BYTES)
            if not chunk:
                return False
            reply.feed(chunk)
        return not reply.should_close()
    return False


def _is_quiet(sock: gevent.socket.socket) -> bool:
    """Whether nothing came over an idle connection: neither bytes that nobody asked for nor its end."""
    poll = _Poll()
    poll.register(sock.fileno(), POLLIN)
    return not poll.poll(0)
