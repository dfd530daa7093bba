"""model_registry.yaml -> records, with every problem of the file in one go.

The door to everything about the file: load, check, export its schema, derive a copy for engines that were started
here. YAML belongs to `text`, the file's shape to `schema`, the records to `records`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gateway.domain.records import Registry
from gateway.errors import RegistryInvalid
from gateway.registry.complaints import validated
from gateway.registry.records import Entries, Known
from gateway.registry.replicas_file import add_replicas
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


def load_registry(path: Path, *, replicas_file: Path | None = None) -> Registry:
    """The registry in a file, with the replicas of another one where that is named.

    Raises RegistryInvalid with every problem of the one or the other, also when a file cannot be read.
    """
    registry = parse_registry(_read(path, "SIMSA_REGISTRY"), path=str(path))
    if replicas_file is None:
        return registry
    return add_replicas(registry, _read(replicas_file, "SIMSA_REPLICAS_FILE"), path=str(replicas_file))


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        missing = f"no such file; run where it is, or name it by {setting}"
        why = missing if isinstance(error, FileNotFoundError) else error.strerror or type(error).__name__
        raise RegistryInvalid(str(path), [f"{path}: cannot be read: {why}"]) from error


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
    head = validated(document, RegistryFile, {**value, **emptied}, ())
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
        electricity=entries.electricity(("electricity",), head.electricity) if head and head.electricity else None,
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
        if block := validated(document, kind, item, (section, n)):
            yield (section, n), block
