"""model_registry.yaml -> records, with every problem of the file in one go.

The door to everything about the file: load, check, export its schema, derive a copy for engines that were started
here. YAML belongs to `text`, the file's shape to `schema`, the records to `records`.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.domain.records import Registry
from gateway.errors import RegistryInvalid
from gateway.registry.records import Entries, Known
from gateway.registry.schema import (
    Block,
    ConsortiumBlock,
    GpuBlock,
    ModelBlock,
    RateBlock,
    RegistryFile,
)
from gateway.registry.text import Document, Loc, did_you_mean, read_document, shown, write_document

B = TypeVar("B", bound=Block)
SECTIONS: dict[str, type[Block]] = {
    "rates": RateBlock,
    "gpus": GpuBlock,
    "consortia": ConsortiumBlock,
    "models": ModelBlock,
}
WANTED = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
}
"""Pydantic's error types for a wrong container, and the words for what would be right."""


def load_registry(path: Path) -> Registry:
    """The registry in a file. Raises RegistryInvalid with every problem, also when the file cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        missing = "no such file; run where it is, or name it by SIMSA_REGISTRY"
        why = missing if isinstance(error, FileNotFoundError) else error.strerror or type(error).__name__
        raise RegistryInvalid(str(path), [f"{path}: cannot be read: {why}"]) from error
    return parse_registry(data, path=str(path))


def parse_registry(data: bytes, *, path: str) -> Registry:
    """The registry in `data`; `path` only names it in complaints. Raises RegistryInvalid with every problem."""
    document = read_document(data, path=path)
    registry = _registry(document, hashlib.sha256(data).hexdigest()) if _is_mapping(document) else None
    problems = document.problems()
    if problems or registry is None:
        raise RegistryInvalid(path, problems)
    return registry


def registry_json_schema() -> dict[str, Any]:
    """The file's JSON schema, for editors; `model_registry.schema.json` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RegistryFile.model_json_schema()}


def derive_registry(
    data: bytes,
    replicas: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    keep_remote: Collection[str] = (),
) -> bytes:
    """The same registry with replicas only where `replicas` names the model.

    Hosted APIs in `keep_remote` keep the replicas that they have. Comments are lost. Raises RegistryInvalid when
    `data` or the result is not a valid registry, or a model is named that it does not have.
    """
    known = parse_registry(data, path="model_registry.yaml").models
    named = [*replicas, *keep_remote]
    unknown = [f"no model {name!r} in the registry{did_you_mean(name, known)}" for name in named if name not in known]
    if unknown:
        raise RegistryInvalid("model_registry.yaml", unknown)
    values = read_document(data, path="model_registry.yaml").value
    for model in values["models"]:
        if model["id"] in replicas:
            model["replicas"] = [dict(replica) for replica in replicas[model["id"]]]
        elif model["id"] not in keep_remote or model["serving"]["kind"] != "openai_api":
            model.pop("replicas", None)
    derived = write_document(values, heading=["Derived from the model registry: do not edit, it is written anew."])
    parse_registry(derived, path="derived registry")
    return derived


# --- the whole document -------------------------------------------------------------------------------------


def _is_mapping(document: Document) -> bool:
    if not isinstance(document.value, dict) and not document.problems():
        document.complain((), f"expected a mapping with `models:`, got {shown(document.value)}")
    return isinstance(document.value, dict)


def _registry(document: Document, sha256: str) -> Registry:
    """Validates entry by entry, so that one broken entry does not hide what is wrong with the others."""
    value: dict[str, Any] = document.value
    emptied: dict[str, Any] = {name: [] for name in SECTIONS if isinstance(value.get(name), list)}
    head = _validated(document, RegistryFile, {**value, **emptied}, ())
    if "models" in value and value["models"] in ([], None):
        document.complain(("models",), "expected at least one entry")
    entries = Entries(document, _known(value, head or RegistryFile(models=[])))
    for section in ("gpus", "consortia", "models"):
        entries.refuse_duplicates(section, _ids(value, section))
    entries.refuse_duplicates("replicas", _replica_ids(value))
    consortia = [entries.consortium(loc, block) for loc, block in _blocks(document, "consortia", ConsortiumBlock)]
    gpus = [entries.gpu(loc, block) for loc, block in _blocks(document, "gpus", GpuBlock)]
    rates = [entries.rate(loc, block) for loc, block in _blocks(document, "rates", RateBlock)]
    models = [entries.model(loc, block) for loc, block in _blocks(document, "models", ModelBlock)]
    return Registry(
        models={model.id: model for model in models},
        consortia={consortium.id: consortium for consortium in consortia},
        gpus={gpu.id: gpu for gpu in gpus},
        rates=tuple(rates),
        sources=dict(head.sources) if head else {},
        as_of=head.as_of if head else None,
        sha256=sha256,
    )


def _known(value: Mapping[str, Any], head: RegistryFile) -> Known:
    """Names by what the file says, entries with other faults included: one fault is one complaint."""
    sources = value.get("sources")
    return Known(
        consortia={name for _, name in _ids(value, "consortia")},
        gpus={name for _, name in _ids(value, "gpus")},
        currencies=set(head.currencies),
        sources=set(sources) if isinstance(sources, dict) else set(),
    )


def _items(value: Any, section: str) -> list[Any]:
    items = value.get(section) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


def _ids(value: Any, section: str) -> Iterator[tuple[Loc, str]]:
    for n, item in enumerate(_items(value, section)):
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield (section, n, "id"), item["id"]


def _replica_ids(value: Any) -> Iterator[tuple[Loc, str]]:
    """Given ids, and those that replicas get by default. A model's second entry is a complaint of its own."""
    seen: set[str] = set()
    for n, model in enumerate(_items(value, "models")):
        name = str(model.get("id")) if isinstance(model, dict) else ""
        for m, replica in enumerate(_items(model, "replicas") if name not in seen else []):
            given = replica.get("id") if isinstance(replica, dict) else None
            yield ("models", n, "replicas", m, "id"), str(given or f"{name}/{m + 1}")
        seen.add(name)


def _blocks(document: Document, section: str, kind: type[B]) -> Iterator[tuple[Loc, B]]:
    for n, item in enumerate(_items(document.value, section)):
        if block := _validated(document, kind, item, (section, n)):
            yield (section, n), block


# --- Pydantic's errors in our words -------------------------------------------------------------------------


def _validated(document: Document, kind: type[B], raw: Any, loc: Loc) -> B | None:
    """The block, for what of it can be read. A field with a fault of form is complained of and then left out.

    So a wrong price does not hide that the same entry names an unknown consortium. None when a field is broken that
    the entry cannot do without.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        document.complain(_visible(document, (*loc, *detail["loc"])), _in_words(kind, detail))
    broken = {detail["loc"][0] for detail in details if detail["loc"]}
    if not isinstance(raw, Mapping) or not broken:
        return None
    readable = {name: value for name, value in raw.items() if name not in broken}
    if kind is ModelBlock and "serving" in broken:
        readable["serving"] = {"kind": "vllm"}
    try:
        return kind.model_validate(readable)
    except ValidationError:
        return None


def _visible(document: Document, loc: Loc) -> Loc:
    """Drops each `value` that a plain fact does not have in the file."""
    seen: Loc = ()
    for part in loc:
        if part != "value" or (*seen, part) in document.lines:
            seen = (*seen, part)
    return seen


def _in_words(kind: type[Block], detail: ErrorDetails) -> str:
    loc = detail["loc"]
    match detail["type"]:
        case "refused":
            return detail["msg"]
        case "extra_forbidden":
            fields = _fields_at(kind, loc[:-1])
            return "unknown field" + (did_you_mean(str(loc[-1]), fields) or f"; known here: {', '.join(fields)}")
        case "missing":
            described = _fields_at(kind, loc[:-1]).get(str(loc[-1]))
            return f"missing; expected {described or 'a value'}"
        case "literal_error":
            options = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            hint = did_you_mean(str(detail["input"]), options.split(", "))
            return f"expected one of {options}; got {shown(detail['input'])}{hint}"
    wanted = WANTED.get(detail["type"])
    return f"expected {wanted}, got {shown(detail['input'])}" if wanted else detail["msg"]


def _fields_at(kind: type[Block], loc: Loc) -> dict[str, str | None]:
    """Names and descriptions of the fields of the block that stands at `loc` inside a block of `kind`."""
    for part in loc:
        if isinstance(part, str) and part in kind.model_fields:
            kind = next(_blocks_in(kind.model_fields[part].annotation), kind)
    return {name: field.description for name, field in kind.model_fields.items()}


def _blocks_in(annotation: Any) -> Iterator[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _blocks_in(argument)
