"""A look at a database beside its gateway: what is there is read, no row is written, no file is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import ScratchDatabase

from gateway.errors import DatabaseUnavailable, StartRefused
from gateway.store import Store

NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


async def add_horizon(store: Store) -> None:
    async with store.transaction() as connection:
        await connection.execute(
            sa.text("INSERT INTO settlement_horizon (id, open_since) VALUES (1, '2026-03-01 00:00:00+00:00')")
        )


async def horizons(store: Store) -> int:
    async with store.transaction() as connection:
        found = await connection.execute(sa.text("SELECT COUNT(*) FROM settlement_horizon"))
        return int(found.scalar_one())


async def database_at_rest(path: Path) -> str:
    """A file with one row, whose gateway is gone."""
    url = f"sqlite:///{path}"
    store = await Store.open(url)
    await add_horizon(store)
    await store.close()
    return url


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


async def test_what_a_running_gateway_wrote_is_read_and_nothing_can_be_written(database: ScratchDatabase) -> None:
    gateway = await Store.open(database.url)
    await add_horizon(gateway)
    look = await Store.open_for_reading(database.url)
    try:
        assert await horizons(look) == 1
        with pytest.raises(DatabaseUnavailable, match=r"read-?only"):
            async with look.transaction() as connection:
                await connection.execute(sa.text("DELETE FROM settlement_horizon"))
        assert await horizons(gateway) == 1
    finally:
        await look.close()
        await gateway.close()


async def test_a_look_at_a_file_at_rest_makes_no_file(tmp_path: Path) -> None:
    url = await database_at_rest(tmp_path / "simsa.db")
    before = names(tmp_path)
    look = await Store.open_for_reading(url)
    assert (await horizons(look), names(tmp_path)) == (1, before)
    await look.close()
    assert names(tmp_path) == before


async def test_what_a_crash_left_in_the_write_ahead_log_is_read(tmp_path: Path) -> None:
    url = await database_at_rest(tmp_path / "simsa.db")
    gateway = await Store.open(url)
    async with gateway.transaction() as connection:
        await connection.execute(sa.text("DELETE FROM settlement_horizon"))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("simsa.db", "simsa.db-wal"):
        (crashed / name).write_bytes((tmp_path / name).read_bytes())
    await gateway.close()
    look = await Store.open_for_reading(f"sqlite:///{crashed / 'simsa.db'}")
    assert await horizons(look) == 0
    await look.close()


@needs_root
async def test_a_file_in_use_is_not_looked_at_by_another_user_who_could_leave_files(tmp_path: Path) -> None:
    url = await database_at_rest(tmp_path / "simsa.db")
    os.chown(tmp_path / "simsa.db", NOBODY, NOBODY)
    look = await Store.open_for_reading(url)
    assert await horizons(look) == 1
    await look.close()
    gateway = await Store.open(url)
    with pytest.raises(StartRefused, match=f"look as its owner \\(uid {NOBODY}\\)"):
        await Store.open_for_reading(url)
    await gateway.close()
