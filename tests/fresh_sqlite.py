"""A database file with the newest schema and no rows, copied: fifteen steps of the schema cost more than most tests.

That a gateway makes its file itself, by these steps, is shown where real processes start and in test_upgrades.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.store import upgrade

NAME = "simsa.db"
_kept: list[TemporaryDirectory[str]] = []


async def put_fresh_sqlite(directory: Path) -> Path:
    """The file in that directory, which is made; one that is there stays."""
    path = directory / NAME
    if not path.exists():
        if not _kept:
            made = TemporaryDirectory(prefix="simsa-fresh-")
            await upgrade(f"sqlite:///{Path(made.name) / NAME}")
            _kept.append(made)
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(_kept[0].name) / NAME, path)
    return path
