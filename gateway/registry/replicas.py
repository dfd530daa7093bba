"""Where a model's engines are, from entries of the registry or of a file beside it: addresses, or names of some.

What stands behind a name at the moment is `domain.discovery`'s subject. What would count an engine, its GPU or its
energy twice is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from gateway.domain.records import EnergyMeter, NamedReplicas, RecordType, Replica
from gateway.registry.energy import EnergyMeters
from gateway.registry.schema import ReplicaBlock
from gateway.registry.text import Document, Loc, did_you_mean

_RECORD_TYPES = {"ipv4": (RecordType.A,), "ipv6": (RecordType.AAAA,), None: (RecordType.A, RecordType.AAAA)}
_OF_ONE_ENGINE = {
    "id": "each engine behind a name is called by its address",
    "energy": "it would be that of one engine",
}
_OF_A_NAME = ("port", "scheme", "family")
_ELSEWHERE: Loc = ()
"""Where an engine of another file stands."""


def refer(document: Document, loc: Loc, name: str | None, known: Collection[str], table: str) -> None:
    """Complain of a name that its table does not have."""
    if name is not None and name not in known:
        document.complain(loc, f"{name!r} is not in {table}{did_you_mean(name, known)}")


class ReplicaEntries:
    """Reads the replica entries of a file, one model after the other."""

    def __init__(
        self,
        document: Document,
        gpus: Collection[str],
        *,
        others: Iterable[Replica] = (),
        name_by: Callable[[int, str], str] = lambda position, _url: str(position + 1),
    ) -> None:
        """`others`: replicas of another file, which count as seen before.

        `name_by`: what comes after the model's id in the id of a replica that is given none, by position and address.
        """
        self._document = document
        self._gpus = gpus
        self._name_by = name_by
        known = list(others)
        self._payers: dict[tuple[str, str], Loc] = {
            (one.url, one.base_path): _ELSEWHERE for one in known if one.gpu is not None
        }
        """The first entry that names the GPU of each engine."""
        self._meters = EnergyMeters(document, others=[one.energy for one in known if one.energy is not None])

    def read(
        self, loc: Loc, model_id: str, kind: str, blocks: Sequence[ReplicaBlock | None]
    ) -> tuple[tuple[Replica, ...], tuple[NamedReplicas, ...]]:
        """One model's entries; what cannot be read is complained of and left out."""
        replicas: list[Replica] = []
        named: list[NamedReplicas] = []
        for n, block in enumerate(blocks):
            if block is None:
                continue
            at = (*loc, n)
            refer(self._document, (*at, "gpu"), block.gpu, self._gpus, "gpus")
            meter = self._meters.read((*at, "energy"), block, is_remote=kind == "openai_api")
            if block.dns is not None:
                one = self._named(at, model_id, block)
                if one is not None:
                    named.append(one)
                    self._note_payer(at, kind, one.pattern)
            elif (replica := self._single(at, model_id, n, block, meter)) is not None:
                replicas.append(replica)
                self._note_payer(at, kind, replica)
        return tuple(replicas), tuple(named)

    def _single(
        self, loc: Loc, model_id: str, position: int, block: ReplicaBlock, meter: EnergyMeter | None
    ) -> Replica | None:
        has_broken_name = self._document.has_complaint((*loc, "dns"))
        for field in _OF_A_NAME:
            if getattr(block, field) is not None and not has_broken_name:
                self._document.complain((*loc, field), "expected only beside dns; an address says it itself")
        if block.url is None:
            if not has_broken_name and not self._document.has_complaint((*loc, "url")):
                self._document.complain(
                    (*loc, "url"), "missing; expected an address such as http://127.0.0.1:8101, or dns and port"
                )
            return None
        replica_id = block.id or f"{model_id}/{self._name_by(position, block.url)}"
        return _replica(block, replica_id, model_id, block.url, meter)

    def _named(self, loc: Loc, model_id: str, block: ReplicaBlock) -> NamedReplicas | None:
        if block.url is not None:
            self._document.complain((*loc, "dns"), "expected either url or dns, got both")
            return None
        for field, reason in _OF_ONE_ENGINE.items():
            if getattr(block, field) is not None:
                self._document.complain((*loc, field), f"expected none beside dns: {reason}")
        if block.dns is None or block.port is None:
            if not self._document.has_complaint((*loc, "port")):
                self._document.complain((*loc, "port"), "missing; expected the port at which the engines listen")
            return None
        place = f"{block.dns}:{block.port}"
        pattern = _replica(block, f"{model_id}/{place}", model_id, f"http://{place}", None)
        return NamedReplicas(block.dns, block.port, pattern, _RECORD_TYPES[block.family])

    def _note_payer(self, loc: Loc, kind: str, replica: Replica) -> None:
        """One engine's GPU is paid for once, by the entry that names it first."""
        if replica.gpu is None or kind == "openai_api":
            return
        at = (*loc, "gpu")
        first = self._payers.setdefault((replica.url, replica.base_path), at)
        if first != at:
            line = self._document.lines.get(first) if first else None
            message = (
                f"expected none: the engine at {replica.url}{replica.base_path} has its GPU"
                f"{f' on line {line}' if line else ' in an earlier entry'} already and would be paid for twice; leave "
                "gpu and gpus out here, and the cost of this entry's calls is unknown"
            )
            self._document.complain(at, message)


def _replica(block: ReplicaBlock, replica_id: str, model_id: str, url: str, meter: EnergyMeter | None) -> Replica:
    return Replica(
        id=replica_id,
        model_id=model_id,
        url=url,
        weight=block.weight,
        gpu=block.gpu,
        gpus=block.gpus,
        host=block.host,
        api_key_env=block.api_key_env,
        base_path=block.base_path,
        max_in_flight=block.max_in_flight,
        energy=meter,
    )
