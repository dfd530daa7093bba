"""Where engines are, in a file of its own: it adds replicas to models of the registry, and says nothing else of them.

So what a cluster knows (addresses) need not be written into the file that people judge by (facts and claims).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from gateway.domain.records import Model, NamedReplicas, Registry, Replica
from gateway.errors import RegistryInvalid
from gateway.registry.complaints import validated
from gateway.registry.replicas import ReplicaEntries
from gateway.registry.schema import ReplicaBlock
from gateway.registry.text import Document, Loc, did_you_mean, read_document, shown


def add_replicas(registry: Registry, data: bytes, *, path: str) -> Registry:
    """The registry with the replicas of `data`: `replicas:`, a mapping of model ids to lists of replica entries.

    `path` only names it in complaints. Raises RegistryInvalid with every problem.
    """
    document = read_document(data, path=path)
    added = {} if document.problems() else _added(document, registry)
    problems = document.problems()
    if problems:
        raise RegistryInvalid(path, problems)
    return replace(registry, models={**registry.models, **added})


def _added(document: Document, registry: Registry) -> dict[str, Model]:
    value = document.value
    if not isinstance(value, Mapping):
        document.complain((), f"expected a mapping with `replicas:`, got {shown(value)}")
        return {}
    for name in value:
        if name != "replicas":
            document.complain((name,), "unknown field; known here: replicas")
    by_model = value.get("replicas", {})
    if by_model is None:
        return {}
    if not isinstance(by_model, Mapping):
        document.complain(("replicas",), f"expected a mapping of model ids to lists, got {shown(by_model)}")
        return {}
    additions = _Additions(document, registry)
    found = ((name, additions.read(name, raw)) for name, raw in by_model.items())
    return {name: model for name, model in found if model is not None}


class _Additions:
    """Reads the file model by model, beside what the registry has already."""

    def __init__(self, document: Document, registry: Registry) -> None:
        self._document = document
        self._registry = registry
        stated = [replica for model in registry.models.values() for replica in model.stated_replicas]
        self._entries = ReplicaEntries(
            document, registry.gpus, others=stated, name_by=lambda _, url: urlsplit(url).netloc
        )
        self._ids = {replica.id for replica in stated}

    def read(self, name: str, raw: Any) -> Model | None:
        """The model with its further replicas; None where the file may not give it any."""
        loc = ("replicas", name)
        model = self._registry.models.get(name)
        if model is None:
            hint = did_you_mean(name, self._registry.models)
            self._document.complain(loc, f"no model {shown(name)} in the registry{hint}")
            return None
        if not model.is_servable:
            self._document.complain(loc, "expected no replicas, as the registry says that nothing serves it")
            return None
        if not isinstance(raw, list):
            self._document.complain(loc, f"expected a list of replicas, got {shown(raw)}")
            return None
        blocks = [validated(self._document, ReplicaBlock, item, (*loc, n)) for n, item in enumerate(raw)]
        replicas, named = self._entries.read(loc, name, model.serving.kind.value, blocks)
        self._refuse_repeated(loc, model, replicas, named)
        return replace(model, replicas=(*model.replicas, *replicas), named_replicas=(*model.named_replicas, *named))

    def _refuse_repeated(
        self, loc: Loc, model: Model, replicas: Iterable[Replica], named: Iterable[NamedReplicas]
    ) -> None:
        addresses = {replica.address for replica in model.stated_replicas}
        for replica in (*replicas, *(one.pattern for one in named)):
            if replica.address in addresses:
                self._document.complain(loc, f"{replica.url} stands in it twice, or in the registry as well")
            elif replica.id in self._ids:
                self._document.complain(loc, f"expected an id of its own; a replica {replica.id!r} is there already")
            addresses.add(replica.address)
            self._ids.add(replica.id)
