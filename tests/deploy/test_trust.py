"""Why `trustedCa` sets SSL_CERT_FILE, and why PostgreSQL's address has to name the file: what each client goes by."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from deploy_tools import program
from guards import HANG_S
from redis.asyncio import Redis

from gateway.upstream import Upstream, parse_origin, request_head

Call = Callable[[int], Awaitable[object]]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that nobody knows (ca.crt), and what it issued for localhost (server.crt, server.key)."""
    made = tmp_path_factory.mktemp("authority")
    (made / "names").write_text("subjectAltName=DNS:localhost\n", encoding="utf-8")
    key, request = "req -newkey rsa:2048 -nodes -batch", "-extfile names -CAcreateserial -days 9"
    for words in (
        f"{key} -x509 -subj /CN=ours -keyout ca.key -out ca.crt -days 9",
        f"{key} -subj /CN=localhost -keyout server.key -out server.csr",
        f"x509 -req -in server.csr -CA ca.crt -CAkey ca.key {request} -out server.crt",
    ):
        subprocess.run([program("openssl"), *words.split()], cwd=made, check=True, capture_output=True, timeout=HANG_S)
    return made


async def ask_as_gateways_do(port: int) -> object:
    upstream = Upstream(idle_connections=0, now=time.monotonic)
    origin = parse_origin(f"https://localhost:{port}")
    due = time.monotonic() + HANG_S
    head = request_head(origin, b"GET", b"/", [])
    return await upstream.open(origin, head=head, body=None, connect_s=HANG_S, due=due, due_what="an answer")


async def ask_redis(port: int) -> object:
    return await Redis.from_url(f"rediss://localhost:{port}/0", retry=None).ping()


def ask_postgresql(words: str) -> Call:
    return lambda port: asyncpg.connect(f"postgresql://simsa@localhost:{port}/simsa?{words}", direct_tls=True)


def is_trusted(issued: Path, call: Call) -> bool:
    """Whether the call gets past the server's certificate, whatever it then makes of its silence."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued / "server.crt", issued / "server.key")
    greeted: list[bool] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.append(bool(await reader.read(1)))
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(hang_up, "localhost", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            with suppress(Exception):  # nobody answers here
                await asyncio.wait_for(call(port), HANG_S)

    asyncio.run(main())
    return any(greeted)


@pytest.mark.parametrize("call", [ask_as_gateways_do, ask_redis])
@pytest.mark.parametrize("is_named", [True, False])
def test_the_file_that_the_chart_names_is_trusted(
    call: Call, is_named: bool, issued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_named:
        monkeypatch.setenv("SSL_CERT_FILE", str(issued / "ca.crt"))
    else:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert is_trusted(issued, call) is is_named


def test_postgresql_asks_for_the_file_by_its_own_words(issued: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(issued / "ca.crt"))
    monkeypatch.setenv("HOME", str(issued))
    assert not is_trusted(issued, ask_postgresql("sslmode=verify-full"))
    assert is_trusted(issued, ask_postgresql(f"sslmode=verify-full&sslrootcert={issued / 'ca.crt'}"))
