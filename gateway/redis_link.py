"""The one door to Redis, through which several gateways on one database know each other and share what is counted.

Every gateway says each second that it lives, of which version and registry; who has been silent may be gone.
Redis is never needed to serve: what raises `LinkDown` says what goes on without it. What is counted there belongs in
`shared_books`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError, ResponseError

from gateway.background import heed_cancelling
from gateway.errors import StartRefused

BEAT_S = 1.0
GONE_S = 8.0
"""A gateway that has said nothing for so long, by Redis's clock, has no share any more."""
_RETRY_S = 0.5
_LEAST_VERSION = (6, 2)
_UNABLE = frozenset({"MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"})
"""First words of answers that the library has no class of its own for."""
_EVICTION = "noeviction"


class LinkDown(Exception):
    """Redis does not answer; the message says how."""


class ScriptFailed(LinkDown):
    """Redis answers, and cannot do this one thing: a mistake of ours, and no reason to count everything alone."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of itself."""

    id: str
    version: str
    registry: str
    """SHA-256 of the registry that it serves by."""
    host: str
    since: str
    """When it started, ISO 8601."""
    number: int | None = None
    """Of the lock in the database by which it shows that it lives."""
    at_s: float = 0.0
    """When it last said so, epoch seconds of Redis's clock."""


class RedisLink:
    """`start`, then `run` and `listen` until cancelled, then `close`."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout_s: float,
        connections: int,
        describe: Callable[[str], Peer],
    ) -> None:
        """`describe`: what this gateway, by its id, says of itself at this moment."""
        self.id = secrets.token_hex(6)
        self.prefix = prefix
        self.timeout_s = timeout_s
        self.is_up = False
        self.server_run: str | None = None
        """Another one after each start of the server: what it knows may then be older than it was."""
        self.peers: Mapping[str, Peer] = {}
        """By id, this gateway among them, as of the last beat that Redis answered."""
        self.on_up: list[Callable[[], None]] = []
        """Told when Redis answers again, or is another run of the server."""
        self.on_down: list[Callable[[], None]] = []
        self.on_peers: Callable[[int], None] | None = None
        """Told when the number of gateways has changed."""
        self.silent: Mapping[str, Peer] = {}
        """Those that have said nothing for long, and may be gone."""
        self.assumed = 1
        """How many gateways there are, for as long as Redis has not told."""
        self._news: dict[str, list[Callable[[], Awaitable[None] | None]]] = {}
        self._describe = describe
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._listener: Any = Redis.from_url(url, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0))
        self._scripts: dict[str, str] = {}
        self._up_since_s = 0.0
        self._log = structlog.get_logger("simsa.redis")

    @property
    def live(self) -> int:
        """How many gateways share the limits, this one included."""
        return len(self.peers) or self.assumed

    async def start(self) -> None:
        """Say hello. A server that is away is waited for by `run`; raises StartRefused for one that refuses us."""
        try:
            information = await self._within(self._redis.info("server"))
        except LinkDown as error:
            cause = error.__cause__
            if isinstance(cause, AuthenticationError | NoPermissionError):
                raise StartRefused(f"SIMSA_REDIS_URL: Redis refuses this gateway: {cause}") from error
            self._log.error("Redis is away: limits are counted by shares until it is there", why=str(error))
            return
        version = str(information.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
            raise StartRefused(f"SIMSA_REDIS_URL: Redis {version} is too old: 6.2 or newer is needed")
        await self._warn_of_eviction()
        with suppress(LinkDown):  # `run` goes on trying
            await self._beat()

    async def run(self) -> None:
        """Say each second that this gateway lives, and see who else does."""
        while True:
            try:
                await self._beat()
            except LinkDown:
                with suppress(RedisError, OSError):  # connections that nobody uses may be as dead
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(_RETRY_S)
            else:
                await asyncio.sleep(BEAT_S)

    async def _warn_of_eviction(self) -> None:
        with suppress(LinkDown):
            memory = await self._within(self._redis.info("memory"))
            policy = memory.get("maxmemory_policy", _EVICTION)
            if memory.get("maxmemory", 0) and policy != _EVICTION:
                self._log.warning(
                    "Redis may throw away what keys used when it is full: set maxmemory-policy noeviction",
                    policy=policy,
                )

    async def farewell(self) -> None:
        """Go without being missed: what is still held here is let go of by nobody, so settle before."""
        self._news.clear()
        with suppress(LinkDown):
            await self._within(self._redis.hdel(f"{self.prefix}:gateways", self.id))

    async def close(self) -> None:
        for client in (self._redis, self._listener):
            with suppress(RedisError, OSError):
                await client.aclose()

    # --- scripts and values ---------------------------------------------------------------------------------

    async def evaluate(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | int], *, timeout_s: float | None = None
    ) -> Any:
        """Run a script of `lua/` in one round trip. Raises LinkDown."""
        sha = self._scripts.get(name)
        if sha is None:
            return await self._load_and_run(name, keys, arguments, timeout_s)
        try:
            asked = self._redis.evalsha(sha, len(keys), *keys, *arguments)
            return await self._asking(asked, timeout_s=timeout_s)
        except NoScriptError:
            return await self._load_and_run(name, keys, arguments, timeout_s)

    async def claim(self, key: str, value: bytes, *, for_s: int) -> bytes:
        """Keep a value unless there is one; the one that is kept. Raises LinkDown."""
        name = f"{self.prefix}:{key}"
        kept: bytes | None = await self._within(self._redis.set(name, value, ex=for_s, nx=True, get=True))
        return value if kept is None else kept

    async def recall(self, key: str) -> bytes | None:
        """Raises LinkDown."""
        found: bytes | None = await self._within(self._redis.get(f"{self.prefix}:{key}"))
        return found

    async def read(self, keys: Sequence[str], *, timeout_s: float | None = None) -> list[dict[bytes, bytes]]:
        """The hashes at these keys. Raises LinkDown."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        found: list[dict[bytes, bytes]] = await self._within(pipeline.execute(), timeout_s=timeout_s)
        return found

    async def make(self, key: str, field: str, value: str, *, for_s: int) -> None:
        """Have a hash with this field at a key, whatever it is where there is one. Raises LinkDown."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hsetnx(key, field, value)
        pipeline.expire(key, for_s)
        await self._within(pipeline.execute())

    async def scan(self, pattern: str) -> list[str]:
        """Keys of a pattern. Raises LinkDown."""

        async def all_of() -> list[str]:
            return [key.decode() async for key in self._redis.scan_iter(match=f"{self.prefix}:{pattern}", count=500)]

        found: list[str] = await self._within(all_of(), timeout_s=30.0)
        return found

    async def _load_and_run(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | int], timeout_s: float | None
    ) -> Any:
        text = files("gateway").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        self._scripts[name] = sha = await self._within(self._redis.script_load(text))
        return await self._within(self._redis.evalsha(sha, len(keys), *keys, *arguments), timeout_s=timeout_s)

    async def _within(self, asked: Awaitable[Any], *, timeout_s: float | None = None) -> Any:
        """As `_asking`, and a script that is not there is no answer either."""
        try:
            return await self._asking(asked, timeout_s=timeout_s)
        except NoScriptError as error:
            raise self._down(error) from error

    async def _asking(self, asked: Awaitable[Any], *, timeout_s: float | None = None) -> Any:
        """The answer in time. Raises LinkDown, and NoScriptError as it is."""
        this = asyncio.current_task()
        assert this is not None
        cancels = this.cancelling()
        try:
            try:
                async with asyncio.timeout(timeout_s or self.timeout_s):
                    return await asked
            finally:
                if this.cancelling() > cancels:  # the library waits by `wait_for`, which may forget it (Python 3.11)
                    raise asyncio.CancelledError
        except NoScriptError:
            raise
        except ResponseError as error:
            if _is_unable(error):
                raise self._down(error) from error
            self._log.error("Redis refuses what it was asked", why=str(error))
            raise ScriptFailed(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._down(error) from error

    def _down(self, error: Exception) -> LinkDown:
        why = str(error) or "no answer in time"
        if self.is_up:
            self.is_up = False
            self._log.error("Redis does not answer: limits are counted by shares of them", why=why)
            for told in self.on_down:
                told()
        return LinkDown(why)

    # --- who lives ------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        was_up = self.is_up
        look = self._redis.pipeline(transaction=False)
        look.info("server")  # each time: connections are made anew to one that was restarted, and nobody hears of it
        look.time()
        information, (seconds, microseconds) = await self._within(look.execute())
        run = str(information["run_id"])
        now_s = seconds + microseconds / 1e6
        own = msgspec.structs.replace(self._describe(self.id), id=self.id, at_s=now_s)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hset(f"{self.prefix}:gateways", self.id, msgspec.json.encode(own))
        pipeline.hgetall(f"{self.prefix}:gateways")
        _, found = await self._within(pipeline.execute())
        is_another = run != self.server_run
        if is_another or not was_up:
            self.server_run, self._up_since_s = run, now_s
        self._look_around({peer.id: peer for peer in map(_peer, found.values()) if peer is not None}, now_s)
        if is_another or not was_up:
            self.is_up = True
            self._log.info("Redis answers", gateways=len(self.peers))
            for told in self.on_up:
                told()

    def _look_around(self, found: Mapping[str, Peer], now_s: float) -> None:
        """Who lives. For a while after Redis came back others could not have spoken, so their silence tells nothing."""
        before = self.live
        excused = self.peers if now_s - self._up_since_s <= GONE_S else {}
        found = {**excused, **found}  # one that began anew empty has heard of none of them
        living = {name for name, peer in found.items() if now_s - peer.at_s <= GONE_S or name in excused}
        self.peers = {name: found[name] for name in sorted(living)}
        self.silent = {name: found[name] for name in sorted(found.keys() - living)}
        if self.live != before and self.on_peers is not None:
            self.on_peers(self.live)

    async def forget(self, gateway: str) -> None:
        """A gateway is gone, and nothing of it is held any more. Raises LinkDown."""
        await self._within(self._redis.hdel(f"{self.prefix}:gateways", gateway))
        self.silent = {name: peer for name, peer in self.silent.items() if name != gateway}

    # --- news -----------------------------------------------------------------------------------------------

    def hear(self, subject: str, told: Callable[[], Awaitable[None] | None]) -> None:
        """Call `told` when another gateway changed something of this subject, or may have while nobody listened."""
        self._news.setdefault(subject, []).append(told)

    async def tell(self, subject: str) -> None:
        """Tell the others that something changed. Who does not hear of it finds out by looking, a little later."""
        with suppress(LinkDown):
            await self._within(self._redis.publish(f"{self.prefix}:news", f"{self.id} {subject}"))

    async def listen(self) -> None:
        while True:
            try:
                async with self._listener.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(f"{self.prefix}:news")
                    heed_cancelling()  # what comes next may wait for ever
                    await self._take_news(*self._news)
                    async for message in channel.listen():
                        sender, _, subject = message["data"].decode().partition(" ")
                        if sender != self.id:
                            await self._take_news(subject)
            except (RedisError, OSError, TimeoutError):
                heed_cancelling()
                await asyncio.sleep(_RETRY_S)

    async def _take_news(self, *subjects: str) -> None:
        for subject in subjects:
            for told in self._news.get(subject, ()):
                if (waiting := told()) is not None:
                    await waiting


def _is_unable(error: ResponseError) -> bool:
    """Whether the server is in no state to serve, as one that is full or only a replica; else it minds the request."""
    return type(error) is not ResponseError or str(error).partition(" ")[0] in _UNABLE


def _peer(raw: bytes) -> Peer | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(raw, type=Peer)
    return None
