"""`simsa compare --prompts`: order a batch at a running gateway, follow it, show and keep what it says.

The batch lives in the gateway: leaving this command does not end it, and starting it again goes on with the same.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gateway.batch_view import render_statistics
from gateway.console import printable
from gateway.errors import UpstreamError
from gateway.gateway_client import GatewayDoor, GatewayUnreachable, ask_gateway, download
from gateway.prompts import CORE_SET, read_prompts

PATH = "/api/comparisons/batches"
LOOK_S = 0.5
AWAY_S = 60.0
"""How long the gateway may be away, for a restart, before following it is given up."""


def batch_order(request: Mapping[str, Any], prompts: str, *, repeats: int, name: str | None) -> dict[str, Any]:
    """The body of an order: the shipped set by its name, else the prompts of a JSONL file. Raises PromptsInvalid.

    A `max_tokens` that the caller chose holds for every prompt, whatever the file says.
    """
    order = {**request, "repeats": repeats}
    if prompts == CORE_SET:
        return {**order, "set": CORE_SET, **({"name": name} if name is not None else {})}
    path = Path(prompts)
    is_chosen = "max_tokens" in request["params"]
    asked = [
        {"id": prompt.id, "prompt": prompt.text, **({} if is_chosen else {"max_tokens": prompt.max_tokens})}
        for prompt in read_prompts(path)
    ]
    return {**order, "prompts": asked, "name": name or path.name}


async def run_batch(
    gateway: GatewayDoor, order: Mapping[str, Any] | None, batch_id: str | None, *, out: Path | None, as_json: bool
) -> int:
    """Order (or take up) a batch and follow it to its end. The exit code: 0 all answered, 1 not all."""
    if order is not None:
        batch = await ask_gateway(gateway, "POST", PATH, order)
    else:
        batch = await ask_gateway(gateway, "POST", f"{PATH}/{batch_id}/resume")
    try:
        await _follow(gateway, batch, is_drawn=not as_json)
    except asyncio.CancelledError:
        print(  # noqa: T201
            f"simsa: the batch goes on in the gateway: 'simsa compare --batch {batch['id']}' follows it again",
            file=sys.stderr,
        )
        raise
    statistics = await ask_gateway(gateway, "GET", f"{PATH}/{batch['id']}/statistics")
    if (reason := statistics["batch"]["reason"]) is not None:
        print(f"simsa: the batch was cancelled: {printable(reason)}", file=sys.stderr)  # noqa: T201
    if out is not None:
        await _write(gateway, batch["id"], out)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(statistics), indent=2).decode() + "\n")
    else:
        Console().print(render_statistics(statistics))
    is_whole = statistics["batch"]["status"] == "done"
    return 0 if is_whole and all(model["answered"] == model["asked"] for model in statistics["models"]) else 1


async def _follow(gateway: GatewayDoor, batch: Mapping[str, Any], *, is_drawn: bool) -> None:
    """Until the batch no longer runs. A gateway that restarts meanwhile may be away for a minute."""
    loop = asyncio.get_running_loop()
    last_seen = loop.time()
    with _drawn(batch, is_drawn=is_drawn) as (progress, task):
        while True:
            items, waits = batch["items"], batch["waiting_for"]
            words = f"{batch['name']}, waits: {waits}" if waits else batch["name"]
            progress.update(task, completed=items["done"] + items["failed"], description=printable(words))
            if batch["status"] != "running":
                return
            await asyncio.sleep(LOOK_S)
            try:
                batch = await ask_gateway(gateway, "GET", f"{PATH}/{batch['id']}")
                last_seen = loop.time()
            except (GatewayUnreachable, UpstreamError):
                if loop.time() - last_seen > AWAY_S:
                    raise


@contextmanager
def _drawn(batch: Mapping[str, Any], *, is_drawn: bool) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not is_drawn) as progress:
        yield progress, progress.add_task(printable(batch["name"]), total=batch["items"]["total"])


async def _write(gateway: GatewayDoor, batch_id: str, out: Path) -> None:
    """The whole file under its name, or what was there before."""
    kind = "csv" if out.suffix == ".csv" else "jsonl"
    beside = out.with_name(f".{out.name}.part")
    try:
        with beside.open("wb") as file:
            async for piece in download(gateway, f"{PATH}/{batch_id}/export?format={kind}"):
                file.write(piece)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
