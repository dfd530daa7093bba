"""Organisations, keys and what was used, in the database: their SQL beside the `store`'s.

A key's secret never comes here, only its digest. Every change is counted in `account_changes` within the same
transaction, so that whoever holds keys in memory sees with one small read whether to read them anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.books import KeySpent, spent_in
from gateway.domain.accounts import Key, Organisation, Terms
from gateway.errors import InvalidRequest, NotFound
from gateway.store import RowRefused, Store
from gateway.tables import account_changes, api_keys, organisations
from gateway.use_by_day import UsageRow, ended_among, read_day, read_days


class Accounts:
    """Organisations and keys as they are stored. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._transaction = store.transaction

    # --- organisations and keys -----------------------------------------------------------------------------

    async def count_changes(self) -> int:
        """A number that is another one after every change."""
        async with self._transaction() as connection:
            return int((await connection.execute(sa.select(account_changes.c.count))).scalar_one())

    async def create_organisation(self, organisation: Organisation) -> None:
        """Raises InvalidRequest where the id is taken."""
        row = {column.name: getattr(organisation, column.name) for column in organisations.columns}
        try:
            async with self._transaction() as connection:
                await _count_change(connection)
                await connection.execute(sa.insert(organisations).values(row))
        except RowRefused as error:
            raise InvalidRequest(f"There is an organisation '{organisation.id}' already.", param="id") from error

    async def list_organisations(self) -> list[Organisation]:
        async with self._transaction() as connection:
            rows = await connection.execute(sa.select(organisations).order_by(organisations.c.id))
            return [Organisation(**row) for row in rows.mappings()]

    async def revoke_organisation(self, organisation_id: str, at: datetime) -> Organisation:
        """All of its keys stop to count; what it used stays. The first revocation's moment is kept."""
        async with self._transaction() as connection:
            await _count_change(connection)
            await _revoke(connection, organisations, organisation_id, at)
            return Organisation(**await _row(connection, organisations, organisation_id, "organisation"))

    async def create_key(self, key: Key, digest: str) -> None:
        """Raises NotFound where there is no such organisation, or it is revoked."""
        row = {c.name: getattr(key, c.name) for c in api_keys.columns if c.name not in ("digest", "terms")}
        row |= {"digest": digest, "terms": msgspec.to_builtins(key.terms, order="sorted")}
        async with self._transaction() as connection:
            await _count_change(connection)
            owner = sa.select(organisations.c.id).where(
                organisations.c.id == key.organisation, organisations.c.revoked_at.is_(None)
            )
            if (await connection.execute(owner)).first() is None:
                raise NotFound(f"There is no organisation '{key.organisation}' in force.", param="organisation")
            await connection.execute(sa.insert(api_keys).values(row))

    async def list_keys(self, organisation: str | None = None) -> list[Key]:
        """The oldest first, revoked and expired ones too."""
        statement = sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if organisation is not None:
            statement = statement.where(api_keys.c.organisation == organisation)
        async with self._transaction() as connection:
            return [_key(row) for row in (await connection.execute(statement)).mappings()]

    async def list_valid_keys(self) -> list[tuple[str, Key]]:
        """(digest, key) of those that are not revoked, nor their organisations. Expiry is for the reader to see."""
        statement = sa.select(api_keys).join(organisations).where(
            api_keys.c.revoked_at.is_(None), organisations.c.revoked_at.is_(None)
        )  # fmt: skip
        async with self._transaction() as connection:
            return [(row["digest"], _key(row)) for row in (await connection.execute(statement)).mappings()]

    async def change_key(self, key_id: str, change: Callable[[Key], Key]) -> tuple[str, Key]:
        """(digest, the key as `change` made it of what it was). Raises NotFound, and what `change` raises."""
        async with self._transaction() as connection:
            await _count_change(connection)
            row = await _row(connection, api_keys, key_id, "key")
            changed = change(_key(row))
            values = {name: getattr(changed, name) for name in ("name", "expires_at")}
            values["terms"] = msgspec.to_builtins(changed.terms, order="sorted")
            await connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(values))
            return row["digest"], changed

    async def revoke_key(self, key_id: str, at: datetime) -> Key:
        """The first revocation's moment is kept."""
        async with self._transaction() as connection:
            await _count_change(connection)
            await _revoke(connection, api_keys, key_id, at)
            return _key(await _row(connection, api_keys, key_id, "key"))

    # --- use ------------------------------------------------------------------------------------------------

    async def spent(self, key: str, today: date, call_ids: Sequence[str]) -> KeySpent:
        """What a key spent this month and today, and which of these calls are among it, all at one moment."""
        async with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            of_key = sa.select(api_keys.c.organisation).where(api_keys.c.id == key)
            organisation = (await connection.execute(of_key)).scalar()
            rows = await read_days(connection, today.replace(day=1), today, organisation=organisation, key=key)
            written = await ended_among(connection, call_ids)
        return KeySpent(spent_in(row for row in rows if row.day == today), spent_in(rows), written)

    async def usage(
        self,
        first: date,
        last: date,
        *,
        organisation: str | None = None,
        key: str | None = None,
        model: str | None = None,
    ) -> AsyncIterator[UsageRow]:
        """What was used by calls that began on the days from `first` to `last` of UTC; a transaction a day."""
        for number in range((last - first).days + 1):
            day = first + timedelta(days=number)
            async with self._transaction() as connection:
                rows = await read_day(connection, day, organisation=organisation, key=key, model=model)
            for row in rows:
                yield row


async def _count_change(connection: AsyncConnection) -> None:
    """First in a transaction: it also keeps two of them from changing accounts at the same time."""
    await connection.execute(sa.update(account_changes).values(count=account_changes.c.count + 1))


async def _revoke(connection: AsyncConnection, table: sa.Table, row_id: str, at: datetime) -> None:
    unrevoked = sa.update(table).where(table.c.id == row_id, table.c.revoked_at.is_(None))
    await connection.execute(unrevoked.values(revoked_at=at))


async def _row(connection: AsyncConnection, table: sa.Table, row_id: str, what: str) -> sa.RowMapping:
    row = (await connection.execute(sa.select(table).where(table.c.id == row_id))).mappings().first()
    if row is None:
        raise NotFound(f"There is no {what} '{row_id[:128]}'. See `simsa {_COMMANDS[what]} list`.", param="id")
    return row


_COMMANDS = {"organisation": "org", "key": "key"}


def _key(row: sa.RowMapping) -> Key:
    facts: dict[str, Any] = {name: row[name] for name in Key.__slots__ if name != "terms"}
    return Key(**facts, terms=msgspec.convert(row["terms"], Terms))
