"""The shipped rules, dashboards, scalers and runbook as values: what they ask for, and which series there are.

Rendering the chart is the chart's tests' part; here the files count that it takes as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from deploy_tools import ROOT, library
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry

CHART = ROOT / "deploy" / "helm"
RULES = sorted((CHART / "files" / "rules").glob("*.yaml"))
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
RULE_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
RUNBOOK = ROOT / "docs" / "runbook.md"
ENGINE_SERIES = ROOT / "tests" / "vllm_0_32_metrics.txt"
"""The series of a real engine; tests/vllm holds it against one."""
PROMETHEUS_OWN = {"up", "ALERTS"}
SERIES_NAME = re.compile(r"\b(?:simsa_[a-z0-9_]+|vllm:[a-z0-9_]+|job[a-z_]*:[a-z0-9_]+:[a-z0-9_]+)")
_GRAFANA = (("$__rate_interval", "5m"), ("$__range", "3h"))
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One rule; `alert` and `record` exclude each other."""

    file: str
    group: str
    expr: str
    alert: str | None
    record: str | None
    hold: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@cache
def rules() -> tuple[Rule, ...]:
    return tuple(rule for path in RULES for rule in _rules_of(path))


def alerts() -> dict[str, Rule]:
    return {rule.alert: rule for rule in rules() if rule.alert is not None}


def records() -> dict[str, Rule]:
    return {rule.record: rule for rule in rules() if rule.record is not None}


def _rules_of(path: Path) -> Iterator[Rule]:
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield Rule(
                file=path.name,
                group=group["name"],
                expr=rule["expr"],
                alert=rule.get("alert"),
                record=rule.get("record"),
                hold=rule.get("for"),
                labels=rule.get("labels", {}),
                annotations=rule.get("annotations", {}),
            )


@dataclass(frozen=True)
class Check:
    """One question to promtool: which alerts of this name fire at that moment of the test."""

    alert: str
    test: str
    fired: list[Json]


def rule_checks() -> Iterator[Check]:
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in test["alert_rule_test"]:
                yield Check(check["alertname"], f"{path.name}: {test['name']}", check["exp_alerts"])


def dashboards() -> dict[str, Json]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS}


def panels(dashboard: Json) -> list[Json]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_queries(dashboard: Json) -> Iterator[str]:
    """What its panels ask, and the series that its variables are read from; Grafana's variables as values."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield filled_in(target["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            (series,) = re.findall(r"^label_values\((.+), \w+\)$", variable["query"]["query"])
            yield filled_in(series)


def filled_in(query: str) -> str:
    for name, value in _GRAFANA:
        query = query.replace(name, value)
    return re.sub(r"\$\w+", ".*", query)


def scaler_series() -> set[str]:
    """Every series that a template of the chart names: scalers ask for them, and alerts of one release."""
    return {name for text in _templates() for name in SERIES_NAME.findall(text)}


def template_alerts() -> set[str]:
    """Alerts that the chart makes itself, for its release and for each engine that is scaled."""
    return {name for text in _templates() for name in re.findall(r"^ *- alert: (\w+)$", text, flags=re.MULTILINE)}


def _templates() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*") if path.is_file()]


@cache
def selected(expr: str) -> frozenset[str]:
    """The names of all series that an expression selects. Raises ValueError where it is none."""
    parser = library("promql_parser")
    found: set[str] = set()

    def note(node: Any) -> bool:
        if isinstance(node, parser.VectorSelector):
            assert node.name, f"a selector without a name: {expr}"
            found.add(node.name)
        return True

    parser.walk(parser.parse(expr), note)
    return frozenset(found)


def sources(expr: str) -> set[str]:
    """The same with recorded series resolved into what they are recorded from."""
    recorded = records()
    found: set[str] = set()
    for name in selected(expr):
        found |= sources(recorded[name].expr) if name in recorded else {name}
    return found


def series_on(page: str) -> set[str]:
    """The names of all series that a /metrics page declares, whether they have samples by now or not."""
    return {
        family.name + suffix
        for family in text_string_to_metric_families(page)
        for suffix in _SUFFIXES.get(family.type, ("",))
    }


def engine_series() -> set[str]:
    return series_on(ENGINE_SERIES.read_text(encoding="utf-8"))


def labels_on(page: str) -> set[str]:
    """The names of all labels of samples on a /metrics page."""
    families = text_string_to_metric_families(page)
    return {label for family in families for sample in family.samples for label in sample.labels}


@cache
def engine_labels() -> frozenset[str]:
    return frozenset(labels_on(ENGINE_SERIES.read_text(encoding="utf-8")))


@cache
def gateway_labels() -> frozenset[str]:
    """The names of all labels that the gateway declares, whether a series has them by now or not."""
    declared = [vars(series) for series in vars(Telemetry()).values() if hasattr(series, "collect")]
    return frozenset(label for one in declared for key in ("_labels", "_labelnames") for label in one.get(key, ()))


def families(series: Iterable[str]) -> set[str]:
    """Series and, of histograms, their common names: prose speaks of these."""
    found = set(series)
    return found | {name.removesuffix("_bucket") for name in found if name.endswith("_bucket")}
