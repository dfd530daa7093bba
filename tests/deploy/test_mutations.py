"""A safeguard taken out of a copy of the chart is missed by the check that mutations.yaml names; else nothing held it.

A mutation is a text of one template and what takes its place. Where the text is no longer there the mutation says so:
then the safeguard has moved, or is gone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from charts import CHART, Refused, Release, helm, render_text
from checks import Installation, look
from fixtures import HERE, OWN_CASES, Case, declared
from manifests import read_stream
from rules import BY_NAME
from test_refusals import FAULTS, GOOD, Fault


@dataclass(frozen=True, slots=True)
class Mutation:
    """`missed_by` is the name of a rule, or of the fault that would render."""

    file: str
    old: str
    new: str
    missed_by: str
    case: str = "everything"

    def apply(self, text: str) -> str:
        """What ends with a line's end goes with the line's beginning too, where nothing takes its place."""
        if self.old.endswith("\n") and not self.new:
            return re.sub(rf"^ *{re.escape(self.old)}", "", text, flags=re.M)
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        return f"{self.file}-{self.old.strip().splitlines()[0][:40]}-{self.missed_by}"


CASE = {case.values.stem: case for case in OWN_CASES}
FAULT = {fault.name: fault for fault in FAULTS}
MUTATIONS = [Mutation(**row) for row in yaml.safe_load((HERE / "mutations.yaml").read_text(encoding="utf-8"))]


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart without links, so that it stands by itself."""
    return shutil.copytree(CHART, tmp_path_factory.mktemp("chart") / "simsa", ignore=shutil.ignore_patterns("ci"))


@pytest.fixture
def mutated(copied: Path) -> Iterator[Callable[[Mutation], Path]]:
    """Takes a safeguard out of the copy; it is put back after the test."""
    taken: list[tuple[Path, str]] = []

    def take_out(mutation: Mutation) -> Path:
        path = copied / "templates" / mutation.file
        text = path.read_text(encoding="utf-8")
        assert mutation.old in text, f"{mutation.file} has no {mutation.old!r} any more: has the safeguard moved?"
        taken.append((path, text))
        path.write_text(mutation.apply(text), encoding="utf-8")
        return copied

    yield take_out
    for path, text in taken:
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_missing_safeguard_is_noticed(mutation: Mutation, mutated: Callable[[Mutation], Path], tmp_path: Path) -> None:
    chart = mutated(mutation)
    if mutation.missed_by in FAULT:
        assert not is_refused(FAULT[mutation.missed_by], chart, tmp_path)
    else:
        assert look(BY_NAME[mutation.missed_by], install_from(chart, CASE[mutation.case])).complaints != []


def test_the_copy_without_mutations_is_as_good_as_the_chart(copied: Path) -> None:
    release = install_from(copied, CASE["everything"])
    assert [complaint for rule in BY_NAME.values() for complaint in look(rule, release).complaints] == []


def is_refused(fault: Fault, chart: Path, directory: Path) -> bool:
    """Whether the test of the fault would pass: refused, with its words."""
    try:
        release = Release(name=fault.release)
        render_text(fault.values, release, base=GOOD, registry=fault.registry_in(directory), chart=chart)
    except Refused as refusal:
        return all(word in str(refusal) for word in fault.words)
    return False


def install_from(chart: Path, case: Case) -> Installation:
    release = Release()
    options = ["--namespace", release.namespace, "--kube-version", f"{release.kubernetes}.0"]
    options += ["--values", str(case.values), "--set-file", f"registryYaml={case.registry}"]
    manifests = read_stream(helm(release.helm, "template", release.name, chart, *options))
    return Installation(
        tuple(manifests),
        name=release.name,
        namespace=release.namespace,
        external=declared(case.given),
        registry=case.registry_bytes,
        values=case.given,
    )


def test_every_mutation_names_a_check() -> None:
    assert {mutation.missed_by for mutation in MUTATIONS} <= FAULT.keys() | BY_NAME.keys()
