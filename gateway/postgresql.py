"""What is PostgreSQL's own about being the database: its connections and their limits, and the locks of its gateways.

A gateway holds advisory locks for as long as it runs, in a session that does nothing else; the server frees them
when that session ends, so that a killed gateway never stands in the way. The one gateway of a database holds its lock
alone; several hold it together, and each one more by which the others see that it lives. `database` decides which kind
of database a URL names; statements are in `store`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import asyncpg
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.background import end_all
from gateway.errors import StartRefused
from gateway.schema_steps import MAY_RUN, Schema, fit_of, steps
from gateway.settings import DatabaseLimits

GATEWAY_LOCK = (0x53494D53, 1)
"""The advisory lock of the gateway that serves a database; the first half spells SIMS."""
MIGRATION_LOCK = (0x53494D53, 2)
"""Held while the schema is changed."""
DUTY_LOCK = (0x53494D53, 3)
"""Of several gateways, the one that has it does what only one may do."""
SUMS_LOCK = (0x53494D53, 4)
"""Held by whoever writes calls and the sums made of them, to the end of its transaction."""
ALIVE = 0x53494D54
"""The first half of the lock by which each of several gateways shows that it lives; the second is its number."""
CODE_LOCKS = 0x53494D43
"""First half of the lock that every gateway shares with those of the same code; the second half is its newest step."""
VALUE_CLASSES = frozenset({"22", "23", "54"})
"""SQLSTATE classes that blame the values: data exception, integrity violation, program limit exceeded."""
_TAKE, _TAKE_SHARED = "SELECT pg_advisory_lock($1, $2)", "SELECT pg_advisory_lock_shared($1, $2)"
_HOLDER = (
    "SELECT pid, application_name, backend_start FROM pg_stat_activity JOIN pg_locks USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_HAS_DUTY = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2"
    " AND pid = pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)
LIVING = (
    "SELECT objid::bigint AS number FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = :alive"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""The numbers of the gateways that live."""
_PATIENCE_S = 2.0
"""A gateway that was killed a moment ago is gone for the server as soon as it looks at the socket."""
_RETRY_S = 0.5
_ANSWER_MARGIN_S = 1.0
_CLOSE_S = 0.5
_SILENT_PEER = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server takes a gateway whose machine vanished for gone after 25 s, and frees its lock."""


class PostgresqlDatabase:
    """A pool of connections to one database, and the hold on it that lets this gateway be the only one."""

    upgrades_at_start = False
    _own_settings: ClassVar[Mapping[str, str]] = {}
    """Of this class's sessions, beside those of all."""

    def __init__(self, url: URL, limits: DatabaseLimits, **engine: Any) -> None:
        self._url = url
        self._limits = limits
        # What operators read in pg_stat_activity, which cuts it at 63 bytes; no two processes have the same.
        self._name = f"simsa {secrets.token_hex(4)} pid {os.getpid()} on {socket.gethostname()}"[:63]
        self._wants_hold = False
        self._holding: asyncpg.Connection | None = None
        self._is_doubted = False
        self.number = secrets.randbits(31) if limits.is_shared else None
        """By which the others know this gateway, where there are several."""
        self._schema: str | None = None
        self._turn = asyncio.Lock()
        self._attempts = 0
        self._failure: OSError | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            async_creator=self._connect,
            pool_size=limits.connections,
            max_overflow=0,
            pool_timeout=limits.connect_s,
            pool_pre_ping=True,
            **engine,
        )

    async def hold(self) -> None:
        """Become the gateway of this database. Raises StartRefused when it has one, OSError when it is away."""
        self._wants_hold = True
        try:
            await self._take_hold()
        except _HeldByAnother as error:
            raise StartRefused(
                f"{error}; several gateways serve a database where each has the same SIMSA_REDIS_URL: set it for all, "
                "stop the other one, or point SIMSA_DATABASE_URL at another database"
            ) from error

    async def take_duty(self) -> bool:
        """Whether this gateway, of several, has the duty: it keeps it until its session ends."""
        async with self._turn:
            session = self._holding
            if session is None or session.is_closed():
                return False
            with _as_os_errors():
                has_it: bool = await session.fetchval(_HAS_DUTY, *DUTY_LOCK)
                return has_it or bool(await session.fetchval("SELECT pg_try_advisory_lock($1, $2)", *DUTY_LOCK))

    def begin_migration(self, connection: Connection) -> None:
        """Wait for whoever changes the schema; raise StartRefused while a gateway relies on the one there is."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock({}, {})".format(*MIGRATION_LOCK))
        # Shared: a step that has just been committed may hold this one for a moment longer than the one above.
        take = "SELECT pg_try_advisory_xact_lock_shared({}, {})".format(*GATEWAY_LOCK)
        if not connection.exec_driver_sql(take).scalar():
            shown = self._url.render_as_string()
            raise StartRefused(f"database {shown} is in use by a simsa gateway: stop it, upgrade, start it again")

    async def check(self) -> None:
        """Take the hold again where its session was lost with the server. Raises OSError when another has it now."""
        if not self._wants_hold or (self._holding and not self._holding.is_closed() and not self._is_doubted):
            return
        attempts = self._attempts
        async with self._turn:
            if self._attempts == attempts:
                await self._restore_hold()
            elif self._failure is not None:  # what came of it while we waited goes for us too
                raise self._failure

    def doubt(self) -> None:
        """Something failed: the session of the hold may be gone without a word, so look at it before the next use."""
        self._is_doubted = True

    def refuses(self, error: DBAPIError) -> bool:
        """True when the values are to blame, and not the server, the network or the schema."""
        if isinstance(error, IntegrityError | DataError):
            return True
        state: str | None = getattr(error.orig, "sqlstate", None)
        is_unsendable = isinstance(getattr(error.orig, "__cause__", None), ValueError)  # the driver cannot encode it
        return is_unsendable if state is None else state[:2] in VALUE_CLASSES

    def shut_out(self, connection: Connection, codes: Collection[str]) -> None:
        for code in codes:
            take = f"SELECT pg_try_advisory_xact_lock({CODE_LOCKS}, {int(code)})"
            if not connection.exec_driver_sql(take).scalar():
                raise StartRefused(
                    f"database {self._url.render_as_string()} is in use by a simsa gateway whose code (schema {code}) "
                    "may not run after this upgrade: bring every gateway to a version between the two first, or stop it"
                )

    def begin_alone(self, connection: Connection) -> None:
        self.begin_migration(connection)
        take = "SELECT pg_try_advisory_xact_lock({}, {})".format(*GATEWAY_LOCK)
        if not connection.exec_driver_sql(take).scalar():
            raise StartRefused(f"database {self._url.render_as_string()} is in use by a simsa gateway: stop it first")

    def begin_reading(self, connection: Connection) -> None:
        """No step is taken until the session ends: one would wait for our look, and every gateway for the step."""
        take = "SELECT pg_try_advisory_lock_shared({}, {})".format(*MIGRATION_LOCK)
        is_still = connection.exec_driver_sql(take).scalar()
        connection.commit()
        if not is_still:
            raise StartRefused(f"the schema of database {self._url.render_as_string()} is being changed: try again")
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def make_durable(self) -> None:
        """Nothing to do: every session commits with synchronous_commit, whatever the server's default is."""

    async def close(self) -> None:
        """Close every connection, those to a server that does not answer too."""
        self._wants_hold = False
        if self._keeper is not None:
            await end_all([self._keeper])
        await self.engine.dispose()
        if self._holding is not None:
            await self._holding.close()
            self._holding = None

    # --- sessions -------------------------------------------------------------------------------------------

    async def _connect(self) -> asyncpg.Connection:
        """A session with our limits. Raises OSError with the reason, whatever it is."""
        limits = self._limits
        statement_ms = int(limits.statement_s * 1000)
        with _as_os_errors():
            return await asyncpg.connect(
                self._url.set(drivername="postgresql").render_as_string(hide_password=False),
                timeout=limits.connect_s,
                command_timeout=limits.statement_s + _ANSWER_MARGIN_S if statement_ms else None,
                connection_class=_Session,
                server_settings={
                    "application_name": self._name,
                    "statement_timeout": str(statement_ms),
                    "idle_in_transaction_session_timeout": str(10 * statement_ms),
                    "synchronous_commit": "on",
                    **_SILENT_PEER,
                    **self._own_settings,
                },
            )

    async def _take_hold(self) -> None:
        session = await self._connect()
        patience_ms = int(1000 * min(_PATIENCE_S, self._limits.statement_s / 2))
        try:
            with _as_os_errors():
                await session.execute(f"SET lock_timeout = {patience_ms}")
                for take, lock in self._locks():
                    try:
                        await session.execute(take, *lock)
                    except asyncpg.LockNotAvailableError:
                        await self._outlive_own_session(session, take, lock)
                await self._look_at_schema(session)
        except BaseException:
            await session.close()
            raise
        self._holding = session
        self._is_doubted = False
        session.add_termination_listener(self._begin_keeping)

    def _begin_keeping(self, session: asyncpg.Connection) -> None:
        """The session of the hold has ended: try to take it again at once, before anybody needs it."""
        if self._wants_hold and session is self._holding and (self._keeper is None or self._keeper.done()):
            self._keeper = asyncio.create_task(self._keep_hold(), name="database lock")

    async def _keep_hold(self) -> None:
        while self._wants_hold and (self._holding is None or self._holding.is_closed()):
            try:
                await self.check()
            except OSError:
                await asyncio.sleep(_RETRY_S)

    def _locks(self) -> list[tuple[str, tuple[int, int]]]:
        """What is held, and how: alone, or beside others and under a number of its own."""
        if self.number is None:
            return [(_TAKE, GATEWAY_LOCK)]
        return [(_TAKE_SHARED, GATEWAY_LOCK), (_TAKE, (ALIVE, self.number))]

    async def _outlive_own_session(self, session: asyncpg.Connection, take: str, lock: tuple[int, int]) -> None:
        """End the session that we gave up and the server has not, and take its lock. Raises _HeldByAnother."""
        holder = await session.fetchrow(_HOLDER, *lock)
        if holder is not None and holder["application_name"] == self._name:
            await session.execute("SELECT pg_terminate_backend($1)", holder["pid"])
            await session.execute(take, *lock)
            return
        since = f" since {holder['backend_start']:%Y-%m-%d %H:%M:%SZ}" if holder and holder["backend_start"] else ""
        name = (holder and holder["application_name"]) or "its name is not shown"
        raise _HeldByAnother(
            f"database {self._url.render_as_string()} is in use by another simsa process{since} ({name})"
        )

    async def _look_at_schema(self, session: asyncpg.Connection) -> None:
        """Raise OSError when it was changed while nobody had the lock, to one that this version may not run on.

        From here on no step is taken that this version may not run after: see `shut_out`.
        """
        try:
            await session.execute("SELECT pg_advisory_lock_shared($1, $2)", CODE_LOCKS, int(steps()[-1]))
        except asyncpg.LockNotAvailableError as error:
            raise OSError("its schema is being changed: wait until `simsa db upgrade` has ended") from error
        schema = await _schema_of(session)
        if schema.revision is None:
            return  # to be refused by whoever needs tables
        if self._schema not in (None, schema.revision) and fit_of(schema) not in MAY_RUN:
            raise OSError(
                f"its schema was changed from {self._schema} to {schema.revision} meanwhile: restart this gateway"
            )
        self._schema = schema.revision

    async def _restore_hold(self) -> None:
        self._failure = None
        try:
            if self._holding is not None and not self._holding.is_closed() and await self._still_answers(self._holding):
                return
            await self._take_hold()
        except OSError as error:
            self._failure = error
            raise
        finally:
            self._attempts += 1

    async def _still_answers(self, session: asyncpg.Connection) -> bool:
        """A session that answers still has its lock; one that does not is ended."""
        try:
            await session.execute("SELECT 1", timeout=self._limits.connect_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await session.close()
            return False
        self._is_doubted = False
        return True


class PostgresqlForReading(PostgresqlDatabase):
    """The same for a look beside the gateway that has it: its sessions write nothing."""

    _own_settings: ClassVar[Mapping[str, str]] = {"default_transaction_read_only": "on"}


async def _schema_of(session: asyncpg.Connection) -> Schema:
    """What `read_schema` reads, in a session outside of SQLAlchemy."""
    found: list[str | None] = []
    for statement in ("SELECT version_num FROM alembic_version", "SELECT revision FROM oldest_code"):
        try:
            found.append(await session.fetchval(statement))
        except asyncpg.UndefinedTableError:
            found.append(None)
    return Schema(*found)


class _Session(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose end is not waited for: a server that answers says goodbye at once."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's signature
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await super().close(timeout=_CLOSE_S if timeout is None else min(timeout, _CLOSE_S))


class _HeldByAnother(OSError):
    """Another session has the gateway's lock."""


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Translate what the driver raises of its own, before SQLAlchemy is there to do it."""
    try:
        yield
    except TimeoutError as error:
        raise TimeoutError("the server does not answer in time") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise ConnectionError(str(error).partition("\n")[0]) from error
