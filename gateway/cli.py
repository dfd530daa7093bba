"""The `simsa` command: reads arguments, calls the part that does the work, shows what came of it.

Exit code 0 done, 1 the answer is no, 2 wrong use or a start that was refused, with one line on standard error.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console

from gateway import __version__
from gateway.account_commands import key_app, org_app
from gateway.batch_command import batch_order, run_batch
from gateway.claim_commands import claims_app
from gateway.columns_command import columns
from gateway.comparison_client import compare
from gateway.comparison_view import ComparisonView
from gateway.console import render_problems, wants_json
from gateway.costs_command import costs
from gateway.db_commands import db_app
from gateway.domain.records import Gpu, Model, Registry
from gateway.errors import RegistryInvalid, SimsaError, StartRefused
from gateway.facts_command import show_facts
from gateway.feasibility_command import feasibility
from gateway.gateway_client import GatewayDoor, GatewayRefused, GatewayUnreachable, own_door
from gateway.log import close_log
from gateway.near_names import no_such
from gateway.prompts import PromptsInvalid
from gateway.registry import load_registry, registry_json_schema
from gateway.round_commands import round_app
from gateway.settings import SECRET_SETTINGS, Settings, unknown_settings
from gateway.simulator import run_engine
from gateway.up import UpOptions, run_up
from loadtests.commands import loadtest_app

app = typer.Typer(
    help="Simsa: one door to the candidate models, and evidence about each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
registry_app = typer.Typer(help="The model registry file.", no_args_is_help=True)
app.add_typer(registry_app, name="registry")
app.add_typer(db_app, name="db")
app.add_typer(org_app, name="org")
app.add_typer(key_app, name="key")
app.add_typer(claims_app, name="claims")
app.add_typer(round_app, name="round")
app.add_typer(loadtest_app, name="loadtest")
app.command()(columns)
app.command()(costs)
registry_app.command("facts")(show_facts)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]
UNAUTHORIZED = 401
NO_KEY = "the gateway asks for its key: set SIMSA_ADMIN_KEY to the one that it was started with (`simsa up` prints it)"
GpuOption = Annotated[str | None, typer.Option("--gpu", help="A GPU id of the registry.")]


def main() -> NoReturn:
    """Run the command line; never shows a traceback for a mistake of the user."""
    try:
        app(standalone_mode=True)
    except ValidationError as error:
        _refuse(_settings_problem(error))
    except (StartRefused, GatewayUnreachable) as error:
        _refuse(str(error))
    except RegistryInvalid as error:
        for line in error.problems:
            print(line, file=sys.stderr)  # noqa: T201
        _refuse(f"{error.path} has {len(error.problems)} problem(s); mend them and try again")
    sys.exit(0)


@app.callback(invoke_without_command=True)
def simsa(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"simsa {__version__}")  # noqa: T201
        raise typer.Exit


@app.command()
def up(
    engines: Annotated[
        str, typer.Option(help="simulated, or vllm (the local GPU, or tiny stand-ins on the CPU).")
    ] = "simulated",
    models: Annotated[str | None, typer.Option(help="Model ids, separated by commas.")] = None,
    gpu: GpuOption = None,
    json: JsonFlag = False,
) -> None:
    """Start engines for a few candidates and the gateway in front of them, on this machine."""
    if engines not in ("simulated", "vllm"):
        _refuse(f"--engines: expected simulated or vllm, got '{engines}'")
    _warn_of_unknown_settings()
    settings = Settings()
    chosen = tuple(_split(models))
    options = UpOptions(
        engines=engines, models=chosen, gpu=gpu or settings.feasibility_gpu, settings=settings, json=_json(json)
    )
    sys.exit(run_up(options))


@app.command()
def serve(
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, with PostgreSQL and Redis; SIMSA_WORKERS.")
    ] = None,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
    meeting: Annotated[Path | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the gateway; its settings are SIMSA_* variables, see docs/settings.md."""
    _warn_of_unknown_settings()
    from gateway.workers import WorkerPlace, serve_by_workers

    settings = Settings()
    place = None
    if worker is not None and listener is not None and meeting is not None and parent is not None:
        number, _, of = worker.partition("/")
        place = WorkerPlace(int(number), int(of), listener, meeting, parent)
    elif (asked := workers or settings.workers) > 1:
        raise typer.Exit(serve_by_workers(settings, asked))
    # Imported here, as web framework and database cost every other command more than all the rest of its start.
    from gateway.server import serve as serve_gateway

    serve_gateway(settings, place)


@app.command()
def engine(
    model: Annotated[str, typer.Argument(help="A model id of the registry; its shape must be known.")],
    gpu: Annotated[str, typer.Option(help="The GPU to imitate.")] = "h100-sxm",
    port: Annotated[int, typer.Option(help="TCP port on 127.0.0.1.")] = 8101,
    speed: Annotated[float, typer.Option(help="Factor on time: 10 answers ten times as fast.")] = 1.0,
) -> None:
    """Run one simulated engine that speaks vLLM's protocol."""
    registry = load_registry(Settings().registry)
    candidate, device = _model(registry, model), _gpu(registry, gpu)

    def announce(address: str) -> None:
        print(f"simulated {model} on {gpu}: {address} (Ctrl-C stops)", flush=True)  # noqa: T201

    try:
        run_engine(candidate, device, port=port, speed=speed, on_listening=announce)
    except ValueError as error:
        _refuse(str(error))


@app.command(name="compare")
def compare_command(
    prompt: Annotated[str | None, typer.Argument(help="The question, in quotes.")] = None,
    models: Annotated[str | None, typer.Option(help="Two to eight model ids, separated by commas.")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Instead of a question: a JSONL file, or core-1 for the shipped set.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often each prompt of --prompts is asked.")] = 1,
    name: Annotated[
        str | None, typer.Option(help="Name of the batch, the file's if not given: the same again goes on with it.")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Follow the batch with this id; a cancelled one goes on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the batch to this file: .jsonl, or .csv for tables.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens; 512 if nothing says.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    seed: Annotated[int | None, typer.Option(help="Sampling seed.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="concurrent or sequential; chosen by hardware if not given.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The gateway's address; by SIMSA_HOST and SIMSA_PORT if not given.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Ask several models the same question, or a whole set of prompts, and read the answers side by side.

    The key is taken from SIMSA_KEY, or SIMSA_ADMIN_KEY.
    """
    if [prompt is None, prompts is None, batch is None].count(False) != 1:
        _refuse("expected a question in quotes, or --prompts FILE, or --batch ID")
    if models is None and batch is None:
        _refuse("--models: expected two to eight model ids, separated by commas")
    settings = Settings()
    wanted = _split(models)
    params: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    request: dict[str, Any] = {
        "models": wanted,
        "params": {name: value for name, value in params.items() if value is not None},
    }
    if schedule is not None:
        request["schedule"] = schedule
    gateway = own_door(settings, url)
    try:
        if prompt is None:
            order = None if prompts is None else batch_order(request, prompts, repeats=repeats, name=name)
            sys.exit(asyncio.run(run_batch(gateway, order, batch, out=out, as_json=_json(json))))
        request |= {"prompt": prompt, "params": {"max_tokens": 512, **request["params"]}, "stream": True}
        finished = asyncio.run(_show_comparison(gateway, request, wanted, as_json=_json(json)))
    except GatewayRefused as error:
        _refuse(NO_KEY if error.answered_status == UNAUTHORIZED else error.message)
    except PromptsInvalid as error:
        for line in error.problems:
            print(line, file=sys.stderr)  # noqa: T201
        _refuse(f"{error.path} has {len(error.problems)} problem(s); mend them and try again")
    except SimsaError as error:
        _refuse(error.message)
    except KeyboardInterrupt:
        sys.exit(130)
    if finished is None or any(side["status"] != "ok" for side in finished["sides"]):
        sys.exit(1)


app.command()(feasibility)


@registry_app.command("check")
def registry_check(
    file: Annotated[Path | None, typer.Argument(help="The file; SIMSA_REGISTRY if not given.")] = None,
    replicas: Annotated[
        Path | None, typer.Option(help="A file of replicas to check with it; SIMSA_REPLICAS_FILE if FILE is not given.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Report every error of a registry file at once. Exit code 1 when there is one."""
    settings = Settings()
    path = file or settings.registry
    try:
        registry = load_registry(path, replicas_file=replicas or (settings.replicas_file if file is None else None))
    except RegistryInvalid as error:
        if _json(json):
            _print_json({"file": error.path, "valid": False, "problems": error.problems})
        else:
            Console().print(render_problems(error.path, error.problems))
        sys.exit(1)
    summary = {
        "file": str(path),
        "valid": True,
        "consortia": len(registry.consortia),
        "models": len(registry.models),
        "routable": len(registry.routable()),
        "gpus": len(registry.gpus),
        "sha256": registry.sha256,
    }
    if _json(json):
        _print_json(summary)
    else:
        Console().print(
            f"{path} is valid: {summary['consortia']} consortia, {summary['models']} models "
            f"({summary['routable']} with a replica), {summary['gpus']} GPUs"
        )


@registry_app.command("schema")
def registry_schema() -> None:
    """Print the registry file's JSON schema, for editors."""
    _print_json(registry_json_schema())


async def _show_comparison(
    gateway: GatewayDoor, request: dict[str, Any], models: list[str], *, as_json: bool
) -> dict[str, Any] | None:
    """Draw the answers as they stream, or print the finished object; returns it."""
    finished: dict[str, Any] | None = None
    events = compare(gateway, request)
    if as_json:
        async for event, data in events:
            finished = data if event == "comparison.finished" else finished
        _print_json(finished)
        return finished
    with ComparisonView(models, console=Console()) as view:
        async for event, data in events:
            view.feed(event, data)
            finished = data if event == "comparison.finished" else finished
    return finished


def _model(registry: Registry, name: str) -> Model:
    if name not in registry.models:
        _refuse(no_such("model", name, registry.models))
    return registry.models[name]


def _gpu(registry: Registry, name: str) -> Gpu:
    if name not in registry.gpus:
        _refuse(no_such("GPU", name, registry.gpus))
    return registry.gpus[name]


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _json(asked: bool) -> bool:
    return asked or wants_json(sys.stdout)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode() + "\n")


def _warn_of_unknown_settings() -> None:
    for name, near in unknown_settings():
        hint = f"; did you mean {near}?" if near else ", see docs/settings.md"
        print(f"simsa: {name} is no setting and changes nothing{hint}", file=sys.stderr)  # noqa: T201


def _settings_problem(error: ValidationError) -> str:
    """One line about the first setting that cannot be; never the value of one that may hold a secret."""
    first = error.errors()[0]
    field = "_".join(str(part) for part in first["loc"])
    given = "" if field in SECRET_SETTINGS else f", got '{first.get('input')}'"
    return f"SIMSA_{field.upper()}: {first['msg'].removeprefix('Value error, ')}{given}"


def _refuse(message: str) -> NoReturn:
    with suppress(OSError, ValueError):  # nobody may be there to read it; the exit code tells all the same
        print(f"simsa: {message}", file=sys.stderr)  # noqa: T201
    close_log()
    sys.exit(2)
