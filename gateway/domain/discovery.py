"""Which replicas stand behind DNS names: what an answer changes, and a registry with what is known by now.

How a name server is asked, and when, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.domain.records import EngineAddress, Model, NamedReplicas, RecordType, Registry, Replica

EMPTY_ROUNDS = 3
"""Answers in a row that there is no address, after which the last known ones are given up: one alone may be a name
server that has just started and does not know its zone yet."""


class Question(NamedTuple):
    """One kind of record of one name."""

    name: str
    record_type: RecordType


@dataclass(frozen=True, slots=True)
class Found:
    addresses: tuple[str, ...]
    """Without repetition, in an order of their own."""
    ttl_s: float


@dataclass(frozen=True, slots=True)
class NoneThere:
    """A name server said that there is no such name, or no such record of it."""

    why: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody said anything that counts."""

    why: str


Answer = Found | NoneThere | Unanswered
Addresses = Mapping[Question, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one question after some answers."""

    addresses: tuple[str, ...] = ()
    empty_rounds: int = 0
    is_failing: bool = False
    """The last round had no answer: the addresses are older."""
    why: str | None = "it was not asked for yet"
    """Why the last round brought no address; None where it did."""

    @property
    def was_answered(self) -> bool:
        """Once at least, be it that there is no address."""
        return bool(self.addresses) or self.empty_rounds > 0

    def after(self, answer: Answer) -> Standing:
        match answer:
            case Found(addresses):
                return Standing(addresses, why=None)
            case NoneThere(why):
                rounds = self.empty_rounds + 1
                return Standing(self.addresses if rounds < EMPTY_ROUNDS else (), rounds, why=why)
            case Unanswered(why):
                return replace(self, is_failing=True, why=why)


def questions_of(registry: Registry) -> set[Question]:
    """Everything that has to be asked for this registry's replicas."""
    named = (named for model in registry.routable() for named in model.named_replicas)
    return {question for one in named for question in _questions(one)}


def problem_of(name: str, standings: Sequence[Standing]) -> str | None:
    """What is wrong with a name, in words for an operator, from the standings of its questions."""
    reasons = "; ".join(dict.fromkeys(one.why for one in standings if one.is_failing and one.why))
    known = sum(len(one.addresses) for one in standings)
    if reasons:
        return f"{name} cannot be resolved: {reasons}" + ("; its last addresses stay in use" if known else "")
    empty = [one for one in standings if one.why]
    if known and not any(one.addresses for one in empty):
        return None
    reasons = "; ".join(dict.fromkeys(one.why for one in empty if one.why))
    return f"{name} has no address: {reasons}" + ("; its last ones stay in use for now" if known else "")


def with_addresses(registry: Registry, addresses: Addresses) -> Registry:
    """The registry with a replica for each address. An engine is a model's once, and its GPU is paid for once."""
    if not any(model.named_replicas for model in registry.models.values()):
        return registry
    paid = {_engine(one) for model in registry.models.values() for one in model.replicas if one.gpu is not None}
    models = {model.id: _with_addresses(model, addresses, paid) for model in registry.models.values()}
    return replace(registry, models=models)


def _with_addresses(model: Model, addresses: Addresses, paid: set[tuple[str, str]]) -> Model:
    replicas: dict[EngineAddress, Replica] = {}
    for replica in _found(model, addresses):
        if replica.address in replicas or any(replica.address == one.address for one in model.replicas):
            continue
        if replica.gpu is not None and _engine(replica) in paid:
            replica = replace(replica, gpu=None, gpus=1)
        if replica.gpu is not None:
            paid.add(_engine(replica))
        replicas[replica.address] = replica
    return replace(model, replicas=(*model.replicas, *replicas.values()))


def _found(model: Model, addresses: Addresses) -> Iterator[Replica]:
    for named in model.named_replicas:
        for question in _questions(named):
            for address in addresses.get(question, ()):
                yield named.at(address)


def _questions(named: NamedReplicas) -> Iterator[Question]:
    return (Question(named.name, record_type) for record_type in named.record_types)


def _engine(replica: Replica) -> tuple[str, str]:
    return replica.url, replica.base_path
