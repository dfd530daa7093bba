"""Every rule of the chart's tests, by name."""

from __future__ import annotations

import forms
import gateway_side
import lifecycle
import network
import parity
import placement
import references
import rights
import targets
from checks import Check

ON_ANY_OBJECTS: tuple[Check, ...] = (
    *rights.RULES,
    *lifecycle.RULES,
    *forms.RULES,
    *network.RULES,
    *references.RULES,
    *targets.RULES,
)
"""Rules that know nothing of this chart; a release by hand is enough to try them on."""
ON_THIS_CHART: tuple[Check, ...] = (*parity.RULES, *placement.RULES, *gateway_side.RULES)
BY_NAME = {rule.__name__: rule for rule in (*ON_ANY_OBJECTS, *ON_THIS_CHART)}
