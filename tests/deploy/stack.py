"""A whole installation on one machine, of real parts: PostgreSQL, Redis, engines, three gateways, nginx, Prometheus.

Each part is a process that can be killed, stopped and begun anew at the address that it had, as a cluster does it with
pods. Two kinds of clients go on all the while, and know what was promised to them: people who read streams, and a
reviewer who votes. What they were promised is compared with the database at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import RawClient, Truncated
from databases import ScratchPostgres
from deploy_tools import ROOT, program
from guards import HANG_S
from processes_under_test import clean_environment
from redis_server import RedisServer
from review_rounds import REVIEWERS, ReviewRound, items_of, put_round
from reviewer_clients import ReviewerClient

from gateway.processes import free_ports, http_status
from gateway.registry import derive_registry
from gateway.rounds.store import RoundStore
from gateway.store import Store

MODEL = "Midm-2.0-Base-Instruct"
GPU = "h100-sxm"
GATEWAYS, ENGINES = 3, 2
READERS = 6
TOKENS = 48
VOTE_S = 0.3
"""Between two votes: a reviewer may post four a second for long."""
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "안녕하세요"}],
    "max_tokens": TOKENS,
    "stream": True,
}
ADMIN = "admin-key-of-the-stack"
NGINX = ROOT / "deploy" / "nginx" / "simsa.conf"
RULES = ROOT / "deploy" / "helm" / "files" / "rules"


class Part:
    """One process at one address."""

    def __init__(self, name: str, command: Sequence[str | Path], ready: str, log: Path, **environment: object) -> None:
        self.name = name
        self._command = [str(word) for word in command]
        self._ready = ready
        self._log = log
        self._environment = clean_environment(**environment)
        self._process: Process | None = None

    async def start(self) -> None:
        """Returns when it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig=KILL", *self._command),
                stdin=DEVNULL, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip
        async with asyncio.timeout(HANG_S):
            while await http_status(self._ready, timeout_s=2.0) != 200:
                assert self._process.returncode is None, f"{self.name}: {self._log.read_text()[-3000:]}"
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(HANG_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass
class Readers:
    """What people who read streams through the proxy met."""

    url: str
    met: Counter[str] = field(default_factory=Counter)
    begun: set[str] = field(default_factory=set)
    """Request ids of answers of which a head came: a gateway served them."""
    whole: set[str] = field(default_factory=set)
    is_over: bool = False

    async def read(self) -> None:
        """One after the other until it is over."""
        while not self.is_over:
            request_id = f"live-{uuid.uuid4()}"
            met = await self._read_one(request_id)
            self.met[met] += 1
            if met == "unreachable":
                await asyncio.sleep(0.05)

    async def _read_one(self, request_id: str) -> str:
        headers = [("x-request-id", request_id)]
        try:
            async with RawClient(self.url, key=ADMIN) as client:
                head = await client.start("POST", CHAT, headers=headers, body=ASK)
                if head.status != 200:
                    await client.rest()
                    return f"refused {head.status}"
                self.begun.add(request_id)
                if b"data: [DONE]" not in await client.rest():
                    return "aborted"
        except (ConnectionError, Truncated, OSError):
            return "aborted" if request_id in self.begun else "unreachable"
        self.whole.add(request_id)
        return "whole"

    async def until(self, more: int) -> None:
        """Wait until so many more were read whole."""
        wanted = self.met["whole"] + more
        async with asyncio.timeout(HANG_S):
            while self.met["whole"] < wanted:
                await asyncio.sleep(0.02)


@dataclass
class Voter:
    """A reviewer who revises one judgement over and over, and knows which revisions were acknowledged."""

    url: str
    token: str
    item: str
    acknowledged: list[int] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    """What was answered, other than an acknowledgement."""
    is_over: bool = False
    _cookie: str | None = None
    _form: str = ""

    async def enter(self) -> None:
        async with ReviewerClient(self.url) as reviewer:
            await reviewer.enter(self.token)
            await reviewer.get(f"/review/items/{self.item}")
            self._cookie, self._form = reviewer.cookie, reviewer.form

    async def vote(self) -> None:
        base, number = 0, 0
        while not self.is_over:
            number += 1
            with suppress(ConnectionError, Truncated, OSError, json.JSONDecodeError):
                async with ReviewerClient(self.url) as reviewer:
                    reviewer.cookie, reviewer.form = self._cookie, self._form
                    answer = await reviewer.save(self.item, {"choice": "ab"[number % 2]}, base=base)
                if answer.status == 200:
                    base = answer.json()["revision"]
                    self.acknowledged.append(base)
                else:
                    self.met[f"{answer.status} {answer.body[:120]!r}"] += 1
                if answer.status == 409:  # the answer to the one before was lost, the vote was not
                    base = answer.json()["revision"]
            await asyncio.sleep(VOTE_S)

    async def until(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        try:
            async with asyncio.timeout(HANG_S):
                while len(self.acknowledged) < wanted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"no more votes after {len(self.acknowledged)}: {self.met}") from None


@dataclass
class Stack:
    """What runs, and who uses it."""

    postgres: ScratchPostgres
    redis: RedisServer
    round: ReviewRound
    engines: list[Part]
    gateways: list[Part]
    proxy: Part
    prometheus: Part
    prometheus_url: str
    readers: Readers
    voter: Voter

    async def rest(self) -> None:
        """Let clients end what they began."""
        self.readers.is_over = self.voter.is_over = True

    async def query(self, question: str) -> list[dict[str, Any]]:
        """What Prometheus answers to a query."""
        async with RawClient(self.prometheus_url) as client:
            answer = await client.request("GET", f"/api/v1/query?query={question}")
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    async def rule_failures(self) -> list[str]:
        async with RawClient(self.prometheus_url) as client:
            groups = (await client.request("GET", "/api/v1/rules")).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert rules, "no rule was loaded"
        return [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]


@asynccontextmanager
async def running_stack(directory: Path, postgres: ScratchPostgres, redis: RedisServer) -> AsyncIterator[Stack]:
    """All of it, with its clients at work; gone when the block ends."""
    ports = free_ports(ENGINES + GATEWAYS + 2)
    engine_ports, gateway_ports = ports[:ENGINES], ports[ENGINES : ENGINES + GATEWAYS]
    proxy_port, prometheus_port = ports[-2:]
    registry = directory / "registry.yaml"
    replicas = [{"url": f"http://127.0.0.1:{port}", "gpu": GPU, "gpus": 1} for port in engine_ports]
    registry.write_bytes(derive_registry((ROOT / "model_registry.yaml").read_bytes(), {MODEL: replicas}))
    simsa = [sys.executable, "-m", "gateway"]
    engines = [
        Part(
            f"engine {port}",
            [*simsa, "engine", MODEL, "--gpu", GPU, "--port", str(port), "--speed", "2"],
            f"http://127.0.0.1:{port}/health",
            directory / f"engine-{port}.log",
            registry=registry,
        )
        for port in engine_ports
    ]
    shared = {
        "registry": registry,
        "database_url": postgres.url,
        "redis_url": redis.url,
        "admin_key": ADMIN,
        "health_interval_s": 0.2,
        "shutdown_grace_s": 30,
        "log_level": "INFO",
    }
    gateways = [
        Part(
            f"gateway {port}",
            [*simsa, "serve"],
            f"http://127.0.0.1:{port}/ready",
            directory / f"gateway-{port}.log",
            port=port,
            data_dir=directory / f"data-{port}",
            **shared,
        )
        for port in gateway_ports
    ]
    proxy = Part(
        "nginx",
        [program("nginx"), "-p", directory, "-e", "stderr", "-c", proxy_settings(directory, proxy_port, gateway_ports)],
        f"http://127.0.0.1:{proxy_port}/health",
        directory / "nginx.log",
    )
    prometheus = Part(
        "prometheus",
        [
            program("prometheus"),
            f"--config.file={prometheus_settings(directory, gateway_ports, engine_ports)}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
            "--log.level=warn",
        ],
        f"http://127.0.0.1:{prometheus_port}/-/ready",
        directory / "prometheus.log",
    )
    parts = [*engines, *gateways, proxy, prometheus]
    async with AsyncExitStack() as stack:
        store = await Store.open_for_reading(postgres.url)
        stack.push_async_callback(store.close)
        for part in parts:
            stack.push_async_callback(part.kill)
        await asyncio.gather(*(part.start() for part in engines))
        round_ = ReviewRound(await _open_round(postgres), RoundStore(store))
        await asyncio.gather(*(part.start() for part in gateways))
        await asyncio.gather(proxy.start(), prometheus.start())
        url = f"http://127.0.0.1:{proxy_port}"
        reviewer = REVIEWERS[0]
        voter = Voter(url, await round_.token(reviewer), items_of(reviewer)[0].id)
        await voter.enter()
        readers = Readers(url)
        works = [asyncio.create_task(work) for work in (*(readers.read() for _ in range(READERS)), voter.vote())]
        it = Stack(
            postgres, redis, round_, engines, gateways, proxy, prometheus,
            f"http://127.0.0.1:{prometheus_port}", readers, voter,
        )  # fmt: skip
        try:
            yield it
        finally:
            await it.rest()
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)


async def _open_round(postgres: ScratchPostgres) -> str:
    """A round that is open, put into the database before any gateway has it: its id."""
    store = await Store.open(postgres.url)
    try:
        return (await put_round(store, trained=True)).id
    finally:
        await store.close()


def proxy_settings(directory: Path, port: int, gateways: Sequence[int]) -> Path:
    """The shipped file with this installation's addresses."""
    shipped = NGINX.read_text(encoding="utf-8")
    begin, end = shipped.index("# gateways: begin"), shipped.index("# gateways: end")
    (options,) = set(re.findall(r"server \S+( .+;)", shipped[begin:end]))
    servers = "\n".join(f"    server 127.0.0.1:{one}{options}" for one in gateways)
    text = shipped[:begin] + servers + "\n    " + shipped[end:]
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    paths = "".join(f"  {name}_temp_path {directory}/{name};\n" for name in TEMPORARY)
    main = (
        "daemon off;",
        "master_process off;",  # one process, which one kill -9 ends
        f"pid {directory}/nginx.pid;",
        "error_log stderr warn;",
        "events { worker_connections 512; }",
        f"http {{\n  access_log off;\n{paths}{text}\n}}\n",
    )
    whole = "\n".join(main)
    path = directory / "nginx.conf"
    path.write_text(whole, encoding="utf-8")
    return path


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def prometheus_settings(directory: Path, gateways: Sequence[int], engines: Sequence[int]) -> Path:
    """Scrapes everything each half second, with the shipped rules."""

    def job(name: str, ports: Sequence[int]) -> Mapping[str, Any]:
        return {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}

    settings = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "scrape_configs": [job("simsa-gateway", gateways), job("simsa-engine", engines)],
    }
    path = directory / "prometheus.yml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return path
