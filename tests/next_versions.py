"""A version of Simsa that has one step of the schema more than this one, as the next release may have it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from guards import HANG_S
from processes_under_test import Ended, clean_environment
from test_store import on_schema

from gateway.schema_steps import migrations, steps

ROOT = Path(__file__).parent.parent
OURS = steps()[-1]
NEXT = f"{int(OURS) + 1:04d}"
_STEP = '''"""A column that may be empty, and a table."""

import sqlalchemy as sa
from alembic import op

revision = "{next}"
down_revision = "{ours}"
oldest_code = "{oldest_code}"


def upgrade():
    op.add_column("calls", sa.Column("next_fact", sa.Text()))
    op.create_table("next_facts", sa.Column("id", sa.Text(), primary_key=True))


def downgrade():
    op.drop_table("next_facts")
    op.drop_column("calls", "next_fact")
'''


class NextVersion:
    """Its files in a directory. `oldest_code`: the oldest code that may run after its step."""

    def __init__(self, directory: Path, *, oldest_code: str) -> None:
        self._root = directory / f"next-{oldest_code}"
        package = self._root / "gateway"
        package.mkdir(parents=True)
        (self._root / "loadtests").symlink_to(ROOT / "loadtests")
        for each in (ROOT / "gateway").iterdir():
            if each.name != "migrations":
                (package / each.name).symlink_to(each)
        shutil.copytree(ROOT / "gateway" / "migrations", package / "migrations")
        self._versions = package / "migrations" / "versions"
        step = _STEP.format(next=NEXT, ours=OURS, oldest_code=oldest_code)
        (self._versions / f"{NEXT}_next.py").write_text(step)

    async def run(self, *arguments: str, **settings: object) -> Ended:
        """`simsa ARGUMENTS` of that version, to its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            cwd=self._root,
            env={**clean_environment(**settings), "PYTHONPATH": str(self._root)},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(HANG_S):
            out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def take_step(self, url: str) -> None:
        """What its `simsa db upgrade` does, without asking which gateways have the database."""

        def take(connection: sa.Connection) -> None:
            config = migrations()
            config.set_main_option("path_separator", "os")
            config.set_main_option("version_locations", str(self._versions))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

        await on_schema(url, take)
