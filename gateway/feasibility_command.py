"""`simsa feasibility`: predicted verdicts as a table, JSON, CSV or a page to be read.

Names and numbers are checked here; the arithmetic is `domain.matrix`'s and the forms are those of `matrix_answer`,
`matrix_page` and `matrix_view`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar, get_args

import msgspec
import typer
from rich.console import Console

from gateway.calibration_file import CalibrationBook
from gateway.checkpoint_facts import read_checkpoint
from gateway.console import render_estimates, wants_json
from gateway.domain.kv_layers import KV_DTYPES
from gateway.domain.matrix import NOTHING_MEASURED, PUBLISHED, QUANTISATIONS, Matrix, MatrixLoad, build_matrix
from gateway.domain.memory import ByteRange
from gateway.domain.records import Gpu, Model, Registry
from gateway.errors import CheckpointUnreadable
from gateway.evidence import feasibility_summary
from gateway.matrix_answer import matrix_csv, matrix_object
from gateway.matrix_page import feasibility_page
from gateway.matrix_view import render_matrix, render_one
from gateway.matrix_words.fields import Language
from gateway.near_names import meant, no_such
from gateway.registry import load_registry
from gateway.settings import Settings

FORMS = ("table", "json", "csv", "html")
LANGUAGES: tuple[Language, ...] = get_args(Language)
EVERY = "all"
MAX_TOKENS, MAX_REQUESTS, MAX_GPUS = 100_000_000, 1_000_000, 64
"""Far beyond every engine; beyond them arithmetic would leave the range of floats."""
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class _Question:
    """What was asked, every name and number checked."""

    registry: Registry
    models: Sequence[Model]
    gpus: Sequence[Gpu]
    quantisations: Sequence[str]
    load: MatrixLoad
    measured_overheads: Mapping[str, ByteRange]

    def matrix(self) -> Matrix:
        return build_matrix(
            self.models, self.gpus, self.quantisations, self.load, measured_overheads=self.measured_overheads
        )


def feasibility(
    models: Annotated[list[str] | None, typer.Argument(help="Model ids; every candidate if none is given.")] = None,
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", help="A GPU id of the registry, or all; may be given several times.")
    ] = None,
    quantisation: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Number format of the weights: {', '.join(QUANTISATIONS)} or all; may be given several times."
        ),
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of one request, prompt and answer.")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests of that length at once.")] = 1,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Take the model's facts from a checkpoint: a folder, a file of one, or a URL on a hub."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs that share each model by tensor parallelism.")] = 1,
    kv_dtype: Annotated[str, typer.Option(help="Format of the KV cache, as vLLM's --kv-cache-dtype.")] = "auto",
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration",
            help="Take the overhead that engines showed on a type of GPU, where any did; or the guess everywhere.",
        ),
    ] = True,
    form: Annotated[
        str | None, typer.Option("--format", help="table, json, csv or html; by the ending of --out if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a table for spreadsheets.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file: .json, .csv or .html.")] = None,
    language: Annotated[str, typer.Option(help="Language of the html page: ko or en.")] = "ko",
) -> None:
    """Predict from registry facts whether models fit GPUs, how fast at most, and at what cost. Nothing is measured."""
    wanted = _form(form, json=json, csv=csv, out=out)
    _one_of("--language", language, LANGUAGES)
    settings = Settings()
    registry = load_registry(settings.registry)
    question = _Question(
        registry=registry,
        models=_named("model", models or [EVERY], registry.models)
        if checkpoint is None
        else [_read_checkpoint(checkpoint, models or [], settings)],
        gpus=_named("GPU", gpu or [settings.feasibility_gpu], registry.gpus),
        quantisations=_quantisations(quantisation or [PUBLISHED]),
        load=MatrixLoad(
            _within("--context", settings.feasibility_context if context is None else context, MAX_TOKENS, "tokens"),
            _within("--concurrency", concurrency, MAX_REQUESTS, "requests"),
            _within("--gpus", gpus, MAX_GPUS, "GPUs"),
            _one_of("--kv-dtype", kv_dtype, KV_DTYPES),
        ),
        measured_overheads=_measured_overheads(settings.calibration_file, registry)
        if calibration
        else NOTHING_MEASURED,
    )
    is_plain = quantisation is None and len(question.gpus) == 1 and not question.load.has_own_plan
    if wanted == "table" and out is None:
        _show(question, is_plain=is_plain)
    else:
        page_language: Language = "en" if language == "en" else "ko"
        _put(_content(question, wanted, page_language, is_plain=is_plain), out)


def _measured_overheads(path: Path, registry: Registry) -> Mapping[str, ByteRange]:
    """What the calibration file says of each GPU that it knows."""
    book = CalibrationBook(path)
    if book.problem is not None:
        _refuse(f"{book.problem}; or leave it out with --no-calibration")
    found = {name: book.calibrated_overhead(name) for name in registry.gpus}
    return {name: overhead for name, overhead in found.items() if overhead is not None}


def _read_checkpoint(source: str, ids: Sequence[str], settings: Settings) -> Model:
    """The model that a checkpoint's own files describe; an id given beside it names it."""
    if len(ids) > 1:
        _refuse("--checkpoint describes one model: give no model id, or the one that it is to be called by")
    try:
        return asyncio.run(read_checkpoint(source, settings, model_id=ids[0] if ids else None))
    except CheckpointUnreadable as error:
        _refuse(str(error))


def _show(question: _Question, *, is_plain: bool) -> None:
    console, matrix = Console(), question.matrix()
    if len(matrix.cells) == 1:
        console.print(render_one(matrix))
    elif is_plain:
        console.print(render_estimates((cell.model_id, cell.estimate) for cell in matrix))
    else:
        console.print(render_matrix(matrix, width=console.width))


def _content(question: _Question, form: str, language: Language, *, is_plain: bool) -> bytes:
    """What goes to a file or a pipe. A plain question's JSON is the list of its verdicts."""
    matrix = question.matrix()
    match form:
        case "csv":
            return matrix_csv(matrix, question.registry)
        case "html":
            today = datetime.now(UTC).date()
            return feasibility_page(matrix, question.registry, language=language, on=today).encode()
        case "table":
            console = Console(width=160, no_color=True)
            with console.capture() as captured:
                console.print(render_matrix(matrix, width=console.width))
            return captured.get().encode()
        case _:
            plain = [{"model": cell.model_id, **feasibility_summary(cell.estimate)} for cell in matrix]
            value = plain if is_plain else matrix_object(matrix, question.registry)
            return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2) + b"\n"


def _put(content: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        out.write_bytes(content)
    except OSError as error:
        _refuse(f"--out: {out} cannot be written: {error.strerror or error}; name a file in a directory that exists")


# --- what was typed -----------------------------------------------------------------------------------------


def _form(asked: str | None, *, json: bool, csv: bool, out: Path | None) -> str:
    """The form of the answer; refuses what contradicts itself."""
    named = {form for form, is_named in (("json", json), ("csv", csv)) if is_named} | ({asked} if asked else set())
    if len(named) > 1:
        _refuse(f"--format: expected one form, got {' and '.join(sorted(named))}")
    if named:
        (form,) = named
        if form not in FORMS:
            _refuse(f"--format: expected {', '.join(FORMS)}, got '{form}'")
        return form
    if out is not None:
        ending = out.suffix.removeprefix(".").lower()
        if ending not in FORMS[1:]:
            _refuse(f"--out: end the file's name in .json, .csv or .html, or say --format; got '{out}'")
        return ending
    return "json" if wants_json(sys.stdout) else "table"


def _named(what: str, names: Iterable[str], known: Mapping[str, Entry]) -> list[Entry]:
    """The registry's entries of these names, each once; all of them for `all`."""
    wanted = tuple(dict.fromkeys(names))
    if EVERY in wanted and EVERY not in known:
        return list(known.values())
    for name in wanted:
        if name not in known:
            _refuse(no_such(what, name, known))
    return [known[name] for name in wanted]


def _quantisations(names: Sequence[str]) -> tuple[str, ...]:
    if EVERY in names:
        return QUANTISATIONS
    return tuple(_one_of("--quantisation", name, QUANTISATIONS) for name in dict.fromkeys(names))


def _one_of(option: str, name: str, known: Collection[str]) -> str:
    if name not in known:
        _refuse(f"{option}: there is no '{name}'; {meant(name, known)}")
    return name


def _within(option: str, value: int, most: int, unit: str) -> int:
    if not 1 <= value <= most:
        _refuse(f"{option}: expected 1 to {most:,} {unit}, got {value:,}")
    return value


def _refuse(message: str) -> NoReturn:
    with suppress(OSError, ValueError):
        print(f"simsa: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
