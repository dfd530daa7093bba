"""What the feasibility page has to say, as fields that each language fills: none can lack a sentence.

`{names}` in braces are filled in by the page; figures, signs and layout do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Gap, Units
from gateway.domain.records import Confidence

Language = Literal["ko", "en"]


@dataclass(frozen=True, slots=True)
class Words:
    """All sentences and labels of one language."""

    title: str
    title_many: str
    kicker: str
    load_one: str
    load_many: str
    brief: str
    summary: str
    made: str
    registry: str
    no_date: str
    contents: str
    legend: str
    verdicts: Mapping[Verdict, str]
    """Short, for cells and tables. `{format}` is the number format with which the verdict holds."""
    legend_of: Mapping[Verdict, str]
    also_as: str
    """Beside a shorter context: the number format that is needed as well."""
    legend_room: str
    legend_borderline: str
    legend_confidence: str
    by_size: str
    """A flag under a model that no supported engine serves."""
    legend_by_size: str
    units: Mapping[Units, str]
    """A flag under a GPU's name; nothing for native units."""
    units_of: Mapping[Units, str]
    quantisations: Mapping[str, str]
    panel_units: str
    others_unknown: str
    figure: str
    scroll: str
    gpus_least: str
    table: str
    table_caption: str
    columns: Mapping[str, str]
    confidence: Mapping[Confidence, str]
    unknown: str
    unknown_heading: str
    unknown_lead: str
    unknown_none: str
    gaps: Mapping[Gap, str]
    facts: Mapping[str, str]
    """A registry field in words; one that is not here is shown by its name."""
    no_speed: str
    no_speed_facts: str
    no_price: str
    mixed_prices: str
    no_consortium: str
    gpus_heading: str
    gpu_columns: Mapping[str, str]
    assumptions_heading: str
    assumptions: tuple[str, ...]
    assumption_many: str
    """What is assumed besides where several GPUs share a model."""
    overhead_is: Mapping[str, str]
    """By basis: guess, measured, both."""
    sixteen_bits: str
    tip_headroom: str
    tip_context: str
    tip_context_at: str
    tip_at_once: str
    tip_speed: str
    tip_cost: str
    tip_confidence: str
