"""What the chart refuses to render (refusals.yaml), each with the words that tell an operator what to do.

A values file that is wrong must fail here, on a laptop, and not as a pod that is Pending on Friday night. Each fault
stands alone over values that render.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from charts import HELMS, Refused, Release, render_text
from fixtures import HERE, SMALL_REGISTRY

GOOD = HERE / "values" / "one-model.yaml"


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    words: Sequence[str]
    """All of them must be in the error."""
    values: str
    """Put over values that render."""
    registry: Mapping[str, str]
    """What to replace in the small registry, `old` by `new`; empty = nothing."""
    release: str

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    def registry_in(self, directory: Path) -> Path:
        if not self.registry:
            return SMALL_REGISTRY
        text = SMALL_REGISTRY.read_text(encoding="utf-8")
        assert self.registry["old"] in text
        edited = directory / "registry.yaml"
        edited.write_text(text.replace(self.registry["old"], self.registry["new"]), encoding="utf-8")
        return edited


def read_faults() -> list[Fault]:
    rows = yaml.safe_load((HERE / "refusals.yaml").read_text(encoding="utf-8"))
    return [
        Fault(
            name=row["fault"],
            words=row["words"],
            values=yaml.safe_dump(row.get("values", {})),
            registry=row.get("registry", {}),
            release=row.get("release", "simsa"),
        )
        for row in rows
    ]


FAULTS = read_faults()


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_is_refused_with_what_to_do(fault: Fault, helm: str, tmp_path: Path) -> None:
    release = Release(name=fault.release, helm=helm)
    with pytest.raises(Refused) as refusal:
        render_text(fault.values, release, base=GOOD, registry=fault.registry_in(tmp_path))
    said = re.sub(r"\s+", " ", str(refusal.value))
    assert [word for word in fault.words if word not in said] == [], said


def test_what_the_faults_are_put_over_renders() -> None:
    assert render_text("{}", base=GOOD, registry=SMALL_REGISTRY)


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("name", "resource", "image"),
    [
        ("AMD Instinct 24 GB", "amd.com/gpu", "rocm/vllm"),
        ("L4 of ours", "nvidia.com/gpu", "vllm/vllm-openai"),
        ("NVIDIA L4 24 GB", "example.com/shared-gpu", "vllm/vllm-openai"),
    ],
)
def test_an_accelerator_whose_maker_is_known_is_placed(
    name: str, resource: str, image: str, helm: str, tmp_path: Path
) -> None:
    """By its name in the registry, or by what nodes offer it as; another maker's needs another maker's vLLM."""
    registry = tmp_path / "registry.yaml"
    registry.write_text(SMALL_REGISTRY.read_text(encoding="utf-8").replace("NVIDIA L4 24 GB", name), encoding="utf-8")
    own = "" if image == "vllm/vllm-openai" else f", image: {{repository: {image}}}"
    values = f"gpus: {{l4: {{resource: {resource}}}}}\nmodels: {{tiny: {{gpu: l4{own}}}}}"
    made = render_text(values, Release(helm=helm), base=GOOD, registry=registry)
    assert f"image: {image}:v0.32.0" in made
    assert f'{resource}: "1"' in made


@pytest.mark.parametrize("helm", HELMS)
def test_one_image_for_all_engines_may_be_another_makers(helm: str, tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    named = SMALL_REGISTRY.read_text(encoding="utf-8").replace("NVIDIA L4 24 GB", "AMD Instinct 24 GB")
    registry.write_text(named, encoding="utf-8")
    places = "gpus: {l4: {resource: amd.com/gpu}}\nmodels: {tiny: {gpu: l4}}"
    values = f"{places}\nengines: {{image: {{repository: rocm/vllm-openai}}}}"
    made = render_text(values, Release(helm=helm), base=GOOD, registry=registry)
    assert "image: rocm/vllm-openai:v0.32.0" in made


@pytest.mark.parametrize("helm", HELMS)
def test_another_image_may_know_settings_that_the_chart_does_not(helm: str) -> None:
    values = "gateway: {image: {tag: 9.0.0}, settings: {SIMSA_OF_TOMORROW: 'on'}}"
    assert "SIMSA_OF_TOMORROW" in render_text(values, Release(helm=helm), base=GOOD, registry=SMALL_REGISTRY)
