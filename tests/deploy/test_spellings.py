"""A setting of the gateway that the chart reads too means the same to both, however it is spelt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from charts import HELMS, Release, render_text
from fixtures import SMALL_REGISTRY
from manifests import of_kind, read_stream
from pydantic import TypeAdapter
from test_refusals import GOOD

WORDS = ("true", "True", "TRUE", "1", "yes", "YES", "on", "On", "t", "y", "false", "False", "0", "no", "off", "f", "n")


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("spelt", [*WORDS, True, False, 1, 0], ids=repr)
def test_engines_may_fetch_media_where_the_gateway_lets_clients_name_it(spelt: Any, helm: str) -> None:
    values = json.dumps({"gateway": {"settings": {"SIMSA_ALLOW_REMOTE_MEDIA": spelt}}})
    made = read_stream(render_text(values, Release(helm=helm), base=GOOD, registry=SMALL_REGISTRY))
    (policy,) = [one for one in of_kind(made, "NetworkPolicy") if one["metadata"]["name"] == "simsa-engines"]
    assert (policy["spec"]["egress"] != []) is TypeAdapter(bool).validate_python(str(spelt))
