"""values.schema.json is strict: every key that the chart reads is in it; an unknown key or kind of value is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import pytest
import yaml
from charts import CHART
from fixtures import CASES, Case

OPEN_MAPS = {
    "global": "belongs to the parent chart",
    "gateway.settings": "names of settings",
    "gateway.nodeSelector": "labels of nodes",
    "gpus": "ids of the registry",
    "gpus.*.nodeSelector": "labels of nodes",
    "models": "ids of the registry",
    "engines.image.digests": "versions",
    "exposure.annotations": "annotations",
    "monitoring.labels": "labels",
    "monitoring.dashboardLabels": "labels",
    "loadtest.nodeSelector": "labels of nodes",
}
"""The only mappings whose keys the schema cannot know, and what the keys are."""
WITHOUT_DEFAULT = {"gateway.resources.limits.cpu"}
"""Keys that may be given and are not by default."""


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return found


def defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part with what it refers to, by $ref or by allOf."""
    referred = [part] if "$ref" in part else part.get("allOf", ())
    for reference in referred:
        target: Any = schema()
        for step in reference["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = {**part, **resolved(target)}
    return part


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the schema is asked about: values put over the defaults, as Helm does it."""
    return over(defaults(), values)


def over(value: Any, change: Any) -> Any:
    if not isinstance(value, Mapping) or not isinstance(change, Mapping):
        return change
    return {**value, **{key: over(value.get(key), inner) for key, inner in change.items()}}


def mappings(part: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of the schema that describes a mapping, by its dotted path; * for any key."""
    part = resolved(part)
    if "properties" in part or "additionalProperties" in part or part.get("type") == "object":
        yield path, part
    for key, inner in part.get("properties", {}).items():
        yield from mappings(inner, f"{path}.{key}".lstrip("."))
    if isinstance(part.get("additionalProperties"), Mapping):
        yield from mappings(part["additionalProperties"], f"{path}.*".lstrip("."))


def leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value and ".".join((*path, key)) not in OPEN_MAPS:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    values = defaults()
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


def test_only_known_mappings_are_open() -> None:
    found = {path for path, part in mappings(schema()) if part.get("additionalProperties") is not False}
    assert found == set(OPEN_MAPS)


def test_each_key_of_the_values_is_in_the_schema_and_the_other_way() -> None:
    read = {".".join(path) for path, _ in leaves(defaults())} | WITHOUT_DEFAULT
    described = {
        f"{path}.{key}".lstrip(".")
        for path, part in mappings(schema())
        if "*" not in path
        for key, inner in part.get("properties", {}).items()
        if not resolved(inner).get("properties")
    }
    assert read == described


def test_defaults_and_every_example_are_valid() -> None:
    validator = jsonschema_rs.validator_for(schema())
    assert validator.is_valid(defaults())
    assert [str(case) for case in CASES if not validator.is_valid(given(case.given))] == []


@pytest.mark.parametrize("path", [path for path, _ in leaves(defaults())], ids=".".join)
def test_a_value_of_another_kind_is_refused(path: tuple[str, ...]) -> None:
    validator = jsonschema_rs.validator_for(schema())
    value: Any = defaults()
    for key in path:
        value = value[key]
    other: Any = ["no", {"such": "value"}, 1] if not isinstance(value, list) else {"no": "list"}
    assert not validator.is_valid(changed(path, other))


@pytest.mark.parametrize(
    "path", [path for path, part in mappings(schema()) if part.get("additionalProperties") is False]
)
def test_an_unknown_key_is_refused_wherever_it_stands(path: str) -> None:
    values = defaults()
    place = values
    for key in path.split(".") if path else ():
        place = place.setdefault("some-key" if key == "*" else key, {})
    place["surprise"] = 1
    messages = [error.message for error in jsonschema_rs.validator_for(schema()).iter_errors(values)]
    assert any("surprise" in message for message in messages), messages


@pytest.mark.parametrize(
    "values", [{"global": {"imageRegistry": "mirror.example.org", "other": 1}}, {"enabled": False}]
)
def test_what_a_parent_chart_gives_is_allowed(values: dict[str, Any]) -> None:
    assert jsonschema_rs.validator_for(schema()).is_valid(given(values))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_examples_say_what_they_are_for(case: Case) -> None:
    assert case.values.read_text(encoding="utf-8").startswith("# ")
