"""An assessor's own claims, as a YAML file or a request's body: the registry's claims, each with what it is about.

Every mistake is reported at once, with its line. Nothing is stored; the verdicts belong to `domain.claims`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.domain.claim_terms import METRICS, MetricKind
from gateway.domain.records import Claim, Confidence, Registry, Sourced
from gateway.errors import RegistryInvalid
from gateway.registry.claims import read_claim
from gateway.registry.complaints import validated
from gateway.registry.schema import ClaimBlock
from gateway.registry.text import Document, Loc, did_you_mean, read_document, shown

MOST_CLAIMS = 500
SUBJECTS = ("model", "consortium")
UNSOURCED = "stated by an assessor, without a source"


@dataclass(frozen=True, slots=True)
class StatedClaim:
    """A claim and the id of the model or consortium that it is about."""

    about: str
    claim: Claim


def parse_claims(data: bytes, *, path: str, registry: Registry) -> list[StatedClaim]:
    """The claims in `data`: a mapping with `claims:`, each with `model` or `consortium`, a metric, and its figures.

    `id` and `text` may be left out, and so may source and confidence, which is then low. `path` only names it in
    complaints. Raises RegistryInvalid with every problem.
    """
    document = read_document(data, path=path)
    found = [] if document.problems() else _claims(document, registry)
    problems = document.problems()
    if problems:
        raise RegistryInvalid(path, problems)
    return found


def _claims(document: Document, registry: Registry) -> list[StatedClaim]:
    value = document.value
    if not isinstance(value, Mapping):
        document.complain((), f"expected a mapping with `claims:`, got {shown(value)}")
        return []
    for name in value:
        if name != "claims":
            document.complain((name,), "unknown field; known here: claims")
    items = value.get("claims")
    if not isinstance(items, list) or not items:
        document.complain(("claims",), f"expected a list with at least one claim, got {shown(items)}")
        return []
    if len(items) > MOST_CLAIMS:
        document.complain(("claims",), f"expected at most {MOST_CLAIMS} claims at a time, got {len(items)}")
        return []
    found = []
    seen: dict[tuple[str, str], int] = {}
    for n, item in enumerate(items):
        one = _claim(document, ("claims", n), item, n, registry)
        if one is None:
            continue
        first = seen.setdefault((one.about, one.claim.id), n)
        if first != n:
            message = f"expected an id of its own; claims[{first}] about {one.about} has {one.claim.id!r} already"
            document.complain(("claims", n, "id"), message)
        found.append(one)
    return found


def _claim(document: Document, loc: Loc, item: Any, position: int, registry: Registry) -> StatedClaim | None:
    if not isinstance(item, Mapping):
        document.complain(loc, f"expected a mapping, got {shown(item)}")
        return None
    about = _about(document, loc, item, registry)
    raw = {name: value for name, value in item.items() if name not in SUBJECTS}
    raw.setdefault("id", f"claim-{position + 1}")
    if isinstance(raw.get("metric"), str) and raw["metric"] in METRICS:
        raw.setdefault("text", METRICS[raw["metric"]].words)
    elif "metric" not in raw:
        document.complain((*loc, "metric"), f"missing; expected one of {', '.join(METRICS)}")
    raw.setdefault("text", "no metric")
    block = validated(document, ClaimBlock, raw, loc)
    if block is None:
        return None
    _check_names(document, loc, block, registry)
    sourced = Sourced(
        ", ".join(block.source or [block.said_by or UNSOURCED]), Confidence(block.confidence or "low"), block.note
    )
    claim = read_claim(document, loc, block, sourced, of_a_model="consortium" not in item)
    return None if about is None else StatedClaim(about, claim)


def _about(document: Document, loc: Loc, item: Mapping[str, Any], registry: Registry) -> str | None:
    named = [name for name in SUBJECTS if name in item]
    if len(named) != 1:
        document.complain((*loc, "model"), "expected either model or consortium, to say what it is about")
        return None
    subject = named[0]
    known: Mapping[str, object] = registry.models if subject == "model" else registry.consortia
    if not isinstance(item[subject], str) or item[subject] not in known:
        name = item[subject]
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        document.complain((*loc, subject), f"there is no {subject} {shown(name)} in the registry{hint}")
        return None
    return str(item[subject])


def _check_names(document: Document, loc: Loc, block: ClaimBlock, registry: Registry) -> None:
    if block.gpu is not None and block.gpu not in registry.gpus:
        known = f"; known are {', '.join(sorted(registry.gpus))}" if registry.gpus else "; the registry names none"
        message = f"there is no GPU {shown(block.gpu)} in the registry{did_you_mean(block.gpu, registry.gpus) or known}"
        document.complain((*loc, "gpu"), message)
    is_price = block.metric is not None and METRICS[block.metric].kind is MetricKind.PRICE
    currencies = _currencies(registry)
    if is_price and block.unit is not None and currencies and block.unit not in currencies:
        expected = " or ".join(sorted(currencies))
        document.complain((*loc, "unit"), f"expected a currency of the registry, {expected}; got {shown(block.unit)}")


def _currencies(registry: Registry) -> set[str]:
    """Those that some price of the registry is in."""
    hourly = {price.currency for gpu in registry.gpus.values() for price in gpu.prices}
    return hourly | {model.price.currency for model in registry.models.values() if model.price is not None}
