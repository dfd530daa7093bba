"""The Grafana dashboards: what their generator writes, queries that parse, series that exist, panels that explain.

Grafana itself is not here, so that a panel looks as it should is not shown.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import watched
from deploy_tools import ROOT
from test_rules import known_series

BOARDS = watched.dashboards()
PANELS = [
    pytest.param(name, panel, id=f"{name.removesuffix('.json')}-{panel['title']}")
    for name, board in BOARDS.items()
    for panel in watched.panels(board)
]
UNITS = {"short", "s", "percentunit", "reqps", "bytes"}


def test_dashboards_are_what_their_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/dashboards.py", str(tmp_path)], cwd=ROOT, check=True)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text(encoding="utf-8") for path in watched.DASHBOARDS}
    assert written == shipped, "run `make docs`"
    assert set(shipped) == {"simsa-gateway.json", "simsa-engines.json"}


async def test_every_query_parses_and_every_series_exists(tmp_path: Path) -> None:
    known = await known_series(tmp_path)
    queries = [query for board in BOARDS.values() for query in watched.dashboard_queries(board)]
    assert len(queries) > 60
    for query in queries:
        assert watched.selected(query) <= known, query


@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_panel_has_a_unit_a_sentence_and_the_chosen_data_source(name: str, panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")
    for place in (panel, *panel["targets"]):
        assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"] for variable in BOARDS[name]["templating"]["list"]}
    used = {word for target in panel["targets"] for word in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__rate_interval", "__range"} <= variables


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_can_be_pointed_at_any_prometheus_release_model_and_replica(name: str) -> None:
    variables = {variable["name"]: variable for variable in BOARDS[name]["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"namespace", "job", "model"} < set(variables)
    assert set(variables) & {"replica", "instance"}
    assert any("Provenance" in panel["title"] for panel in watched.panels(BOARDS[name]))
    assert BOARDS[name]["schemaVersion"] >= 39


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_numbers_and_places_of_their_own(name: str) -> None:
    every = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for one, other in itertools.combinations([panel["gridPos"] for panel in every], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in every)
