"""Files of a checkpoint on a server that the operator allows: small ones whole, of weights the header alone.

Range requests ask for the header's bytes; a server that sends everything instead is cut off behind them. Every address,
redirects included, must lie below one of the allowed ones. Any server that has the files in a folder will do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote, unquote, urljoin, urlsplit

from gateway.domain.safetensors import PREFIX_BYTES, header_length
from gateway.errors import CheckpointUnreadable, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.http_reply import Reply
from gateway.upstream import Origin, Upstream, parse_origin, request_head

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_URL_SIGNS = "/?&=%:@!$'()*+,;~-._"


class HubFolder:
    """One folder of files below `url`."""

    def __init__(self, url: str, *, allowed: Sequence[str], upstream: Upstream, within_s: float) -> None:
        """`within_s`: how long all requests together may take. Raises CheckpointUnreadable for what is not allowed."""
        self.url = url.rstrip("/")
        self._allowed = allowed
        self._upstream = upstream
        self._within_s = within_s
        self._due = asyncio.get_running_loop().time() + within_s
        if "?" in url or "#" in url:
            expected = "expected the address of a folder, which ends before any '?' or '#'"
            raise CheckpointUnreadable(f"{_shown(url)}: {expected}")
        self._require_allowed(self.url)

    async def read(self, name: str, *, limit: int) -> bytes | None:
        """A whole small file; None when there is none of that name."""
        with self._in_words(name):
            reply = await self._open(f"{self.url}/{name}", None)
            try:
                if reply.status == 404:
                    return None
                self._require(reply, (200,), name)
                return await reply.read_all(limit)
            finally:
                reply.release()

    async def read_header(self, name: str, *, reserve: Callable[[int], None]) -> tuple[bytes, int | None] | None:
        """A safetensors file up to its header's end, and its length where that is told; None when there is none.

        `reserve` is told the header's length before it is fetched, and may raise.
        """
        url = f"{self.url}/{name}"
        with self._in_words(name):
            reply = await self._open(url, (0, PREFIX_BYTES))
            try:
                if reply.status == 404:
                    return None
                self._require(reply, (200, 206), name)
                body, total = _Body(reply), _file_length(reply)
                prefix = await body.take(PREFIX_BYTES)
                length = header_length(prefix, file=url)
                reserve(length)
                if reply.status == 200:
                    return prefix + await body.take(length), total
            finally:
                reply.release()
            return prefix + await self._rest(url, name, length), total

    async def _rest(self, url: str, name: str, length: int) -> bytes:
        reply = await self._open(url, (PREFIX_BYTES, length))
        try:
            self._require(reply, (200, 206), name, first=PREFIX_BYTES)
            body = _Body(reply)
            if reply.status == 200:
                await body.take(PREFIX_BYTES)
            return await body.take(length)
        finally:
            reply.release()

    async def _open(self, url: str, span: tuple[int, int] | None) -> Reply:
        """The reply to a GET of `span`, (first byte, number of bytes), after redirects."""
        headers = [] if span is None else [(b"range", b"bytes=%d-%d" % (span[0], span[0] + span[1] - 1))]
        for _ in range(MAX_REDIRECTS + 1):
            origin, path = self._require_allowed(url)
            reply = await self._upstream.open(
                origin,
                head=request_head(origin, b"GET", path, headers),
                body=None,
                connect_s=min(10.0, self._within_s),
                due=self._due,
                due_what=f"no answer within {self._within_s:g} s",
            )
            location = reply.header(b"location")
            if reply.status not in REDIRECTS or location is None:
                return reply
            reply.release()
            url = urljoin(url, location.decode("latin-1"))
        raise CheckpointUnreadable(f"{_shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _require_allowed(self, url: str) -> tuple[Origin, bytes]:
        """Where to ask, and for what. Raises CheckpointUnreadable."""
        try:
            place, path = _place(url)
            origin = parse_origin(f"{place[0]}://{urlsplit(url).netloc}")
        except ValueError as error:
            raise CheckpointUnreadable(f"{_shown(url)}: no usable address: {error}") from error
        for allowed in self._allowed:
            allowed_place, below = _place(allowed)
            if place == allowed_place and (below in ("", "/") or path.startswith(below.rstrip("/") + "/")):
                query = urlsplit(url).query
                target = quote(urlsplit(url).path or "/", safe=_URL_SIGNS) + (
                    f"?{quote(query, safe=_URL_SIGNS)}" if query else ""
                )
                return origin, target.encode("ascii")
        raise CheckpointUnreadable(
            f"{_shown(url)} may not be read: to allow it, name {place[0]}://{urlsplit(url).netloc} in SIMSA_HUB_URLS, "
            "or download the checkpoint and give its folder"
        )

    def _require(self, reply: Reply, wanted: Sequence[int], name: str, *, first: int = 0) -> None:
        """Raise CheckpointUnreadable for any other status, and for a part that does not begin at byte `first`."""
        if reply.status in (401, 403):
            why = f"the server asks for permission ({reply.status}): download the checkpoint and give its folder"
            raise CheckpointUnreadable(f"{_shown(self.url)}/{name}: {why}")
        if reply.status not in wanted:
            raise CheckpointUnreadable(f"{_shown(self.url)}/{name}: the server answered {reply.status}")
        if reply.header(b"content-encoding") not in (None, b"identity"):
            raise CheckpointUnreadable(f"{_shown(self.url)}/{name}: the server compresses what was asked for as it is")
        if reply.status == 206 and not (reply.header(b"content-range") or b"").startswith(b"bytes %d-" % first):
            raise CheckpointUnreadable(
                f"{_shown(self.url)}/{name}: the server does not send the bytes that were asked for"
            )

    @contextmanager
    def _in_words(self, name: str) -> Iterator[None]:
        """The upstream client's errors speak of engines; these of a file."""
        at = f"{_shown(self.url)}/{name}"
        try:
            yield
        except UpstreamTimeout as error:
            raise CheckpointUnreadable(f"{at}: not there within {self._within_s:g} s (SIMSA_HUB_TIMEOUT_S)") from error
        except UpstreamUnreachable as error:
            raise CheckpointUnreadable(f"{at}: the server cannot be reached") from error
        except UpstreamError as error:
            raise CheckpointUnreadable(f"{at}: the answer is cut short or too long") from error
        except ValueError as error:
            raise CheckpointUnreadable(str(error)) from error


class _Body:
    """A reply's bytes, taken piece by piece."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._held = bytearray()

    async def take(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer at the end of the reply."""
        while len(self._held) < size and (more := await self._reply.read()):
            self._held += more
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def _file_length(reply: Reply) -> int | None:
    """The length of the whole file by the headers of a reply to a range request."""
    if reply.status == 206:
        total = (reply.header(b"content-range") or b"").rpartition(b"/")[2]
    else:
        total = reply.header(b"content-length") or b""
    return int(total) if total.isdigit() and len(total) < 20 else None


def _place(url: str) -> tuple[tuple[str, str, int], str]:
    """Scheme, host and port, and the path, of an address without tricks. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("expected http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("expected an address without credentials")
    if ".." in unquote(parts.path).split("/") or "\\" in unquote(parts.path):
        raise ValueError("expected a path without '..'")
    return (parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]), parts.path


def _shown(url: str) -> str:
    """An address fit for a message: without credentials and signatures."""
    plain = re.split(r"[?#]", re.sub(r"//[^/@]*@", "//", url), maxsplit=1)[0]
    return "".join(sign if sign.isprintable() else "?" for sign in plain)[:200]
