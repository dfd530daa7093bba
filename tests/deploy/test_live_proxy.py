"""A real nginx before real gateways, with the settings that the chart's Ingress asks an nginx controller for, and with
those of the file that is shipped.

The controller itself is not run here: what its annotations become is written down in `DIRECTIVES`, after its manual.
"""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from deploy_tools import program
from engines import DONE, Reply, ScriptedEngine, chat_chunk, usage_chunk
from fixtures import OWN_CASES, install
from gateways import entry, running_gateway
from guards import HANG_S
from manifests import of_kind
from processes_under_test import gateway_process
from stack import proxy_settings

from gateway.processes import free_ports

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "안녕"}], "max_tokens": 8}
STREAM = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
EVENTS = (chat_chunk("a"), chat_chunk("b"), chat_chunk(finish_reason="stop"))
NGINX = "nginx.ingress.kubernetes.io/"
DIRECTIVES = {
    "proxy-buffering": "proxy_buffering {};",
    "proxy-request-buffering": "proxy_request_buffering {};",
    "proxy-read-timeout": "proxy_read_timeout {}s;",
    "proxy-send-timeout": "proxy_send_timeout {}s;",
    "proxy-body-size": "client_max_body_size {};",
}
CONFIGURATION = """
daemon off; master_process off; pid {directory}/pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      {settings}
    }}
  }}
}}
"""


def ingress_annotations() -> Mapping[str, str]:
    everything = next(case for case in OWN_CASES if case.values.stem == "everything")
    (ingress,) = of_kind(install(everything).manifests, "Ingress")
    marks = ingress["metadata"]["annotations"]
    return {key.removeprefix(NGINX): value for key, value in marks.items() if key.startswith(NGINX)}


@asynccontextmanager
async def nginx_before(upstream: str, directory: Path, annotations: Mapping[str, str]) -> AsyncIterator[str]:
    """nginx before that address, as a controller would set it up; gone when the block ends."""
    (port,) = free_ports(1)
    settings = " ".join(DIRECTIVES[name].format(value) for name, value in annotations.items())
    configuration = directory / "nginx.conf"
    text = CONFIGURATION.format(directory=directory, port=port, upstream=upstream, settings=settings)
    configuration.write_text(text, encoding="utf-8")
    async with running_nginx(configuration, port) as url:
        yield url


@asynccontextmanager
async def shipped_nginx(directory: Path, *upstreams: str) -> AsyncIterator[str]:
    """nginx with the shipped file, before those addresses."""
    (port,) = free_ports(1)
    configuration = proxy_settings(directory, port, [int(upstream.rpartition(":")[2]) for upstream in upstreams])
    async with running_nginx(configuration, port) as url:
        yield url


@asynccontextmanager
async def running_nginx(configuration: Path, port: int) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(program("nginx"), "-p", configuration.parent, "-e", "stderr", "-c", configuration),
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(HANG_S):
            while not await listens(port):  # nothing announces it
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_each_event_passes_the_proxy_before_the_next_one_is_made(path: str, tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in EVENTS]
    steps = [step for event, gate in zip(EVENTS, gates, strict=True) for step in (event, gate)]
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path / "gateway", [entry("m", engine.url)]) as gateway,
        nginx_before(gateway.url, tmp_path, ingress_annotations()) as url,
        RawClient(url) as client,
    ):
        await gateway.until_live("m")
        engine.script(path, Reply.stream(*steps, DONE))
        body = STREAM if path == CHAT else {"model": "m", "prompt": "안녕", "max_tokens": 8, "stream": True}
        head = await client.start("POST", path, body=body)
        assert (head.status, head.header("content-type")) == (200, "text/event-stream; charset=utf-8")
        for event, gate in zip(EVENTS, gates, strict=True):
            assert await client.next_event() == event
            gate.set()
        assert DONE in await client.rest()


async def test_a_client_that_leaves_the_proxy_ends_the_work_of_the_engine(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path / "gateway", [entry("m", engine.url)]) as gateway,
        nginx_before(gateway.url, tmp_path, ingress_annotations()) as url,
    ):
        await gateway.until_live("m")
        engine.script(CHAT, Reply.stream(EVENTS[0], asyncio.Event()))
        async with RawClient(url) as client:
            await client.start("POST", CHAT, body=STREAM)
            assert await client.next_event() == EVENTS[0]
        await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)


async def test_a_body_as_large_as_the_gateway_takes_passes_the_proxy(tmp_path: Path) -> None:
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path / "gateway", [entry("m", engine.url)], max_body_bytes=20971520) as gateway,
        nginx_before(gateway.url, tmp_path, ingress_annotations()) as url,
        RawClient(url) as client,
    ):
        await gateway.until_live("m")
        body = {**ASK, "messages": [{"role": "user", "content": "x" * 19_000_000}]}
        assert (await client.request("POST", CHAT, body=body)).status == 200
        async with RawClient(url) as other:
            refused = await other.request("POST", CHAT, body={**ASK, "padding": "x" * 20_971_520})
            assert refused.status == 413


async def test_a_gateway_that_is_told_to_stop_ends_its_streams_whole(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine() as engine,
        gateway_process(tmp_path / "gateway", [entry("m", engine.url)]) as gateway,
        nginx_before(gateway.url, tmp_path, ingress_annotations()) as url,
        RawClient(url) as client,
    ):
        engine.script(CHAT, Reply.stream(EVENTS[0], gate, *EVENTS[1:], usage_chunk(5, 2), DONE))
        await client.start("POST", CHAT, body=STREAM)
        assert await client.next_event() == EVENTS[0]
        gateway.send(signal.SIGTERM)
        assert (await gateway.until_logged("stopping"))["in_flight"] == 1
        gate.set()
        assert (await client.rest()).endswith(DONE)
        assert await gateway.ended() == 0


async def test_a_model_without_a_replica_takes_no_gateway_from_everything_else(tmp_path: Path) -> None:
    """Its 503s are the gateways' ordinary answers, and no sign that one of them is down."""
    models = [entry("gone", f"http://127.0.0.1:{free_ports(1)[0]}")]
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine())
        models.append(entry("m", engine.url))
        gateways = [
            await stack.enter_async_context(running_gateway(tmp_path / name, models)) for name in ("one", "other")
        ]
        for gateway in gateways:
            await gateway.until_live("m")
        url = await stack.enter_async_context(shipped_nginx(tmp_path, *(gateway.url for gateway in gateways)))
        met: dict[str, Counter[int]] = {name: Counter() for name in ("gone", "healthy", "posted")}

        async def ask(name: str, path: str, body: dict[str, Any]) -> None:
            for _ in range(20):
                async with RawClient(url) as client:
                    met[name][(await client.request("POST", path, body=body)).status] += 1

        await asyncio.gather(
            ask("gone", CHAT, {**ASK, "model": "gone"}),
            ask("healthy", CHAT, ASK),
            ask("posted", "/api/comparisons", {}),
        )
        assert met == {"gone": {503: 20}, "healthy": {200: 20}, "posted": {400: 20}}
