"""Whether the gateway knows what the chart tells it and asks of it: settings, their values, routes, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated

from checks import Check, Finding, Installation
from manifests import identity
from parts import (
    gateway_pod,
)
from pydantic import TypeAdapter, ValidationError
from watched import engine_labels, gateway_labels

from gateway.app import create_app
from gateway.settings import Settings

OF_TARGETS = frozenset(("namespace", "service", "pod", "container", "endpoint", "node", "job", "instance"))
OF_PROMETHEUS = frozenset(("prometheus", "prometheus_replica"))
"""Labels that the operator sets: a series' own one of that name is renamed to exported_…, where no rule looks."""


def settings_are_known(release: Installation) -> Iterator[Finding]:
    """A variable that the gateway does not read is a wish that nobody hears."""
    known = {f"SIMSA_{name.upper()}" for name in Settings.model_fields}
    for container in release.containers:
        for variable in container.spec.get("env", ()):
            if variable["name"].startswith("SIMSA_"):
                where = f"{container.where}: {variable['name']}"
                yield where, None if variable["name"] in known else "is no setting"


def settings_are_valid(release: Installation) -> Iterator[Finding]:
    for container in release.containers:
        spelt_out = {v["name"]: v["value"] for v in container.spec.get("env", ()) if "value" in v}
        named = {name.removeprefix("SIMSA_").lower(): value for name, value in spelt_out.items()}
        known = {name: value for name, value in named.items() if name in Settings.model_fields}
        if known:
            yield container.where, _objection(known)


def _objection(values: Mapping[str, str]) -> str | None:
    for name, value in values.items():
        field = Settings.model_fields[name]
        try:
            TypeAdapter(Annotated[field.annotation, field]).validate_python(value)
        except ValidationError as error:
            return f"SIMSA_{name.upper()}={value}: {error.errors()[0]['msg']}"
    return None


def doors_asked_for_exist(release: Installation) -> Iterator[Finding]:
    """Each probe and scrape asks a route of the gateway, with parameters that it has."""
    routes = _routes()
    pod = gateway_pod(release)
    for container in pod.containers:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if action := container.spec.get(probe, {}).get("httpGet"):
                yield f"{container.where}: {probe}", _unknown_door(action["path"], routes)
    for monitor in release.of_kind("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            yield identity(monitor), _unknown_door(endpoint.get("path", "/metrics"), routes)


def _unknown_door(path: str, routes: Mapping[str, set[str]]) -> str | None:
    door, _, query = path.partition("?")
    if door not in routes:
        return f"the gateway has no {door}"
    unknown = {part.partition("=")[0] for part in query.split("&") if part} - routes[door]
    return f"{door} knows no {sorted(unknown)}" if unknown else None


@cache
def _routes() -> Mapping[str, set[str]]:
    """The gateway's GET routes, and which parameters of the query each has."""
    paths = create_app(Settings()).openapi()["paths"]
    return {
        path: {p["name"] for p in operations["get"].get("parameters", ()) if p["in"] == "query"}
        for path, operations in paths.items()
        if "get" in operations
    }


def series_keep_their_labels(release: Installation) -> Iterator[Finding]:
    """What a series says of itself under a target's label is lost, unless the monitor drops the target's."""
    for kind, endpoints, labels in (
        ("ServiceMonitor", "endpoints", gateway_labels()),
        ("PodMonitor", "podMetricsEndpoints", engine_labels()),
    ):
        for monitor in release.of_kind(kind):
            for endpoint in monitor["spec"][endpoints]:
                steps = endpoint.get("relabelings", ())
                dropped = {step["regex"] for step in steps if str(step["action"]).lower() == "labeldrop"}
                hidden = sorted(labels & (OF_TARGETS | OF_PROMETHEUS) - dropped)
                yield identity(monitor), f"hides its series' own labels {hidden}" if hidden else None


RULES: tuple[Check, ...] = (
    settings_are_known,
    settings_are_valid,
    doors_asked_for_exist,
    series_keep_their_labels,
)
