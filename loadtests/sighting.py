"""A look at what stands behind a plan's doors before and after a run: engines, provenance, how long texts are.

The judgement on provenance is the gateway's own (`gateway.provenance`), made from what the engine says of itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.records import Model, Provenance, Registry
from gateway.engine_reports import cache_config_lines, legible, listed_models, read_version, resolve_engine
from gateway.errors import UpstreamError
from gateway.gateway_client import GatewayDoor, GatewayRefused, GatewayUnreachable, ask_gateway
from gateway.provenance import read_provenance
from gateway.upstream import Headers, Upstream, parse_origin
from loadtests.cells import EngineSeen
from loadtests.doorways import Doorway
from loadtests.plan import Route

TIMEOUT_S = 10.0


class TargetSilent(Exception):
    """What the plan aims at does not answer, or serves something else; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of the target."""

    provenance: Provenance
    """Of the answers: the gateway's word where requests go through it, else the engine's own."""
    engines: tuple[EngineSeen, ...]
    gateway: Mapping[str, str]
    """What the gateway says of itself; empty without one."""


async def see_target(
    doors: Sequence[Doorway],
    engines: Sequence[str],
    models: Sequence[str],
    registry: Registry,
    keys: Mapping[str, str],
    *,
    gpu: str | None,
    gpus: int,
) -> Sighting:
    """Look at every door once. `keys`: by the variable's name. Raises TargetSilent where one does not answer."""
    upstream = Upstream(idle_connections=0, now=time.perf_counter)
    try:
        seen = await asyncio.gather(
            *(_see_engine(upstream, address, models, registry, gpu=gpu, gpus=gpus) for address in engines)
        )
        found = [one for one in seen if one is not None]
        kinds: set[Provenance] = set()
        described: dict[str, str] = {}
        for door in doors:
            if door.door == "gateway":
                kinds |= await _ask_gateway(door, models, keys, described)
            else:
                kinds |= await _ask_engine(upstream, door, registry.models.get(models[0]), keys)
    finally:
        upstream.close()
    return Sighting(kinds.pop() if len(kinds) == 1 else Provenance.UNKNOWN, tuple(found), described)


async def _ask_gateway(
    door: Doorway, models: Sequence[str], keys: Mapping[str, str], described: dict[str, str]
) -> set[Provenance]:
    key = keys.get(door.key_variable or "")
    listed = await ask_gateway(GatewayDoor(door.address, key), "GET", "/v1/models")
    entries = {entry["id"]: entry for entry in listed.get("data", ()) if isinstance(entry, dict)}
    for name in models:
        if name not in entries:
            known = ", ".join(sorted(entries)) or "nothing"
            raise TargetSilent(f"the gateway at {door.address} serves {known}; expected {name}")
    candidates = await ask_gateway(GatewayDoor(door.address, key), "GET", "/api/models")
    described["registry_sha256"] = str(candidates.get("registry_sha256"))
    return {Provenance(entries[name]["simsa"]["provenance"]) for name in models}


async def _ask_engine(
    upstream: Upstream, door: Doorway, model: Model | None, keys: Mapping[str, str]
) -> set[Provenance]:
    origin = parse_origin(door.address)
    key = keys.get(door.key_variable or "")
    headers: Headers = () if key is None else ((b"authorization", b"Bearer " + key.encode()),)
    try:
        status, body = await upstream.fetch(origin, b"/v1/models", headers=headers, timeout_s=TIMEOUT_S)
    except UpstreamError as error:
        raise TargetSilent(f"no engine answers at {door.address}: {error.message}") from error
    entries = listed_models(body) if status == 200 else {}
    if door.model not in entries:
        known = ", ".join(sorted(entries)) or f"nothing (status {status})"
        raise TargetSilent(f"the engine at {door.address} serves {known}; expected {door.model}")
    if model is None:
        return {Provenance.UNKNOWN}
    entry = entries[door.model]
    return {read_provenance(model, origin, _text(entry.get("owned_by")), _text(entry.get("root")))[0]}


async def _see_engine(
    upstream: Upstream, address: str, models: Sequence[str], registry: Registry, *, gpu: str | None, gpus: int
) -> EngineSeen | None:
    """An engine as it describes itself; None where it does not."""
    origin = parse_origin(address)
    try:
        status, body = await upstream.fetch(origin, b"/metrics", headers=(), timeout_s=TIMEOUT_S)
        _, listed = await upstream.fetch(origin, b"/v1/models", headers=(), timeout_s=TIMEOUT_S)
        _, version = await upstream.fetch(origin, b"/version", headers=(), timeout_s=TIMEOUT_S)
    except UpstreamError:
        return None
    entries = listed_models(listed)
    model, entry = _of_ours(entries, models, registry)
    length = entry.get("max_model_len")
    owned_by, root = _text(entry.get("owned_by")), _text(entry.get("root"))
    resolved = resolve_engine(
        cache_config_lines(body) if status == 200 else (),
        version=read_version(version),
        max_model_len=length if isinstance(length, int) else None,
        root=None if root is None else legible(root),
        owned_by=None if owned_by is None else legible(owned_by),
    )
    kind = Provenance.UNKNOWN if model is None else read_provenance(model, origin, owned_by, root)[0]
    replica = next((one for one in (model.replicas if model else ()) if one.url == address), None)
    return EngineSeen(
        replica=replica.id if replica is not None else address,
        gpu=(replica.gpu if replica is not None else None) or gpu,
        gpus=replica.gpus if replica is not None else gpus,
        provenance=kind.value,
        version=resolved.version,
        max_model_len=resolved.max_model_len,
        resolved=dict(resolved.labels),
    )


def _of_ours(
    entries: Mapping[str, Mapping[str, Any]], models: Sequence[str], registry: Registry
) -> tuple[Model | None, Mapping[str, Any]]:
    for name in models:
        model = registry.models.get(name)
        served = model.serving.served_model_name if model is not None else name
        if served in entries:
            return model, entries[served]
    return None, next(iter(entries.values()), {})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


async def count_tokens(door: Doorway, route: Route, text: str, key: str | None) -> int | None:
    """How many tokens a prompt is to the engine when it comes by this route, by its own /tokenize; None without one.

    By any route but completions it comes as a user's message, to which the chat template adds tokens.
    """
    asked = {"prompt": text} if route is Route.COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
    try:
        answer = await ask_gateway(GatewayDoor(door.address, key), "POST", "/tokenize", {"model": door.model, **asked})
    except (GatewayRefused, GatewayUnreachable, UpstreamError):
        return None
    counted = answer.get("count") if isinstance(answer, dict) else None
    return counted if isinstance(counted, int) and counted > 0 else None
