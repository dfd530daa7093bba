"""The energy counters of a replica's GPUs, read from an exporter's page, as NVIDIA's DCGM exporter writes it.

Bytes in, millijoules out; a counter that is not there, or may be more than this replica's, is unknown with the reason.
Asking for the page is `energy_watch`'s part, what two readings say `domain.energy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

from gateway.domain.records import EnergyMeter
from gateway.metrics_text import labelled_samples

MOST_COUNTED = 2**53
"""mJ: 280 years at 1,000 W. DCGM writes a value that it has not as a number beyond that."""
BLANK_REAL = 2**47
"""DCGM's mark of a value that it has not, among real numbers; as joules it would be more than a lifetime's."""
_INDEXES = ("gpu", "gpu_index")
"""Labels, in small letters, that may name a GPU on its machine."""
_UUIDS = ("uuid", "gpu_uuid")
"""Labels, in small letters, that may name a card among all there are."""
_PART = "gpu_i_id"
"""The label of a part of a divided GPU."""

Sample = tuple[Mapping[str, str], str]


def read_energy(page: bytes, meter: EnergyMeter) -> dict[str, int]:
    """The counters of the meter's GPUs in mJ, in its order, each by its card. Raises ValueError with why there is none.

    A card is its UUID where the page tells that, the same on every page; else its place on this one.
    """
    samples: list[Sample] = [
        ({name.lower(): value for name, value in labels.items()}, value)
        for labels, value in labelled_samples(meter.metric.encode(), page)
    ]
    if not samples:
        raise ValueError(f"the exporter shows no {meter.metric}")
    counters: dict[str, int] = {}
    names: dict[str, str] = {}
    for gpu in meter.gpus:
        card, counter = _counter_of(gpu, samples, meter)
        if (other := names.setdefault(card, gpu)) != gpu:
            raise ValueError(f"the GPU {gpu} is the GPU {other}: the registry names one card by two names")
        counters[card] = counter
    return counters


def _counter_of(gpu: str, samples: Sequence[Sample], meter: EnergyMeter) -> tuple[str, int]:
    own = [(labels, value) for labels, value in samples if gpu in [labels.get(name) for name in (*_INDEXES, *_UUIDS)]]
    if not own:
        raise ValueError(f"the exporter shows no counter of the GPU {gpu}")
    if any(labels.get(_PART) for labels, _ in own):
        raise ValueError(f"the GPU {gpu} is divided (MIG): its counter is the whole card's")
    found = {(_card(labels, meter.url), _millijoules(gpu, value, meter.millijoules_each)) for labels, value in own}
    if len(found) > 1:
        raise ValueError(f"the exporter shows different counters of the GPU {gpu}; it may be of several machines")
    return found.pop()


def _card(labels: Mapping[str, str], url: str) -> str:
    uuid = _first(labels, _UUIDS)
    return uuid or f"{url} {labels.get('hostname', '')} {_first(labels, _INDEXES)}"


def _first(labels: Mapping[str, str], names: Sequence[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _millijoules(gpu: str, text: str, each: int) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    limit = MOST_COUNTED if each == 1 else BLANK_REAL
    if not value.is_finite() or not 0 <= value < limit:
        raise ValueError(f"the counter of the GPU {gpu} is no quantity: {text[:40]}")
    counted = round(value * each)
    if counted > MOST_COUNTED:
        raise ValueError(f"the counter of the GPU {gpu} is no quantity: {text[:40]}")
    return counted
