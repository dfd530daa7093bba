"""`simsa serve` with exactly the environment and files that the chart gives its container, as a kubelet would lay them.

Of the environment only what names places of a pod is changed: where it listens, and where its directories are.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import parts
import pytest
from checks import Installation
from clients import RawClient
from fixtures import OWN_CASES, Case, install
from guards import HANG_S
from manifests import Container, of_kind
from processes_under_test import GatewayProcess, clean_environment

KEY = "a-key-of-the-test"
ETC, DATA = "/etc/simsa", "/data"
ALONE = [case for case in OWN_CASES if not case.given.get("postgresql", {}).get("enabled")]
"""Cases that need no server beside the gateway."""
ONE_MODEL = next(case for case in ALONE if case.values.stem == "one-model")


def gateway_container(release: Installation) -> Container:
    return parts.gateway_pod(release).containers[-1]


def environment_of(release: Installation, directory: Path) -> dict[str, str]:
    places = {"SIMSA_HOST": "127.0.0.1", "SIMSA_PORT": "0"}
    secrets = {"SIMSA_ADMIN_KEY": KEY}
    found: dict[str, str] = {}
    for variable in gateway_container(release).spec["env"]:
        name = variable["name"]
        if "value" in variable:
            found[name] = places.get(name, variable["value"]).replace(ETC, str(directory / "etc"))
        elif name in secrets:
            found[name] = secrets[name]
    return {name: str(directory / "data") if value == DATA else value for name, value in found.items()}


def lay(files: Mapping[str, bytes], directory: Path, generation: str) -> None:
    """As a kubelet mounts ConfigMaps: a directory that `..data` leads to is exchanged whole, by one rename."""
    (directory / generation).mkdir(parents=True)
    for name, data in files.items():
        (directory / generation / name).write_bytes(data)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    (directory / "..data_tmp").symlink_to(generation)
    (directory / "..data_tmp").rename(directory / "..data")


def files_of(release: Installation) -> dict[str, bytes]:
    pod, container = parts.gateway_pod(release), gateway_container(release)
    names = (parts.REGISTRY_KEY, parts.REPLICAS_KEY)
    found = {name: parts.mounted(pod, container, f"{ETC}/{name}", release) for name in names}
    return {name: data for name, data in found.items() if data is not None}


@asynccontextmanager
async def serving(release: Installation, directory: Path) -> AsyncIterator[str]:
    """The address of a gateway that runs as the chart's container would."""
    lay(files_of(release), directory / "etc", "..first")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *gateway_container(release).spec["command"][1:]),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env={**clean_environment(), **environment_of(release, directory)},
        limit=2**20,
    )
    gateway = GatewayProcess(process, directory / "data")
    try:
        yield f"http://127.0.0.1:{(await gateway.until_logged('listening'))['port']}"
    finally:
        await gateway.kill()


async def ask(url: str, path: str) -> tuple[int, str]:
    async with RawClient(url, key=KEY) as client:
        answer = await client.request("GET", path)
        return answer.status, answer.body.decode()


@pytest.mark.parametrize("case", ALONE, ids=str)
async def test_the_gateway_starts_with_what_the_chart_gives_it(case: Case, tmp_path: Path) -> None:
    release = install(case)
    probes = {gateway_container(release).spec[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    async with serving(release, tmp_path) as url:
        assert {path: (await ask(url, path))[0] for path in probes} == dict.fromkeys(probes, 200)


async def test_the_gateway_knows_where_the_charts_engines_are(tmp_path: Path) -> None:
    release = install(ONE_MODEL)
    (entry,) = parts.replicas_file(release)["tiny"]
    async with serving(release, tmp_path) as url:
        status, body = await ask(url, "/api/models")
    assert status == 200
    assert entry["dns"] in body


async def test_the_gateway_uses_the_registry_that_is_marked_and_takes_an_edited_one_over(tmp_path: Path) -> None:
    release = install(ONE_MODEL)
    (config,) = [config for config in of_kind(release.manifests, "ConfigMap") if "binaryData" in config]
    edited = release.registry + b"# seen\n"
    async with serving(release, tmp_path) as url:
        assert await registry_in_use(url) == config["metadata"]["annotations"]["simsa/registry-sha256"]
        lay({**files_of(release), parts.REGISTRY_KEY: edited}, tmp_path / "etc", "..second")
        async with asyncio.timeout(HANG_S):
            while await registry_in_use(url) != hashlib.sha256(edited).hexdigest():  # nothing announces it
                await asyncio.sleep(0.05)


async def registry_in_use(url: str) -> str:
    _, series = await ask(url, "/metrics")
    (digest,) = re.findall(r'^simsa_registry_info\{sha256="([0-9a-f]{64})"\} 1', series, re.M)
    return str(digest)
