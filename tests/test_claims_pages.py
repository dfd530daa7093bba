"""The pages about claims show what the command prints, and the two languages show the same."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from gateway.claim_checks import check_claims, registry_claims
from gateway.claim_commands import render_claims
from gateway.domain.claim_terms import METRICS
from gateway.domain.claims import CheckedClaim, ClaimVerdict
from gateway.registry import load_registry
from gateway.registry.claims_file import parse_claims

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / f"claims.{language}.md" for language in ("en", "ko")]
REGISTRY = load_registry(ROOT / "model_registry.yaml")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)


def printed(found: list[CheckedClaim]) -> list[str]:
    screen = Console(file=StringIO(), width=2000)
    screen.print(render_claims(found, in_full=True))
    return [line.strip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_line_shown_is_one_that_the_command_prints(page: Path) -> None:
    example = ROOT / "docs" / "examples" / "claims.yaml"
    stated = parse_claims(example.read_bytes(), path=example.name, registry=REGISTRY)
    lines = printed(check_claims(registry_claims(REGISTRY, about={"Motif-2.6B"}), REGISTRY))
    lines += printed(check_claims(stated, REGISTRY))
    shown = [line for block in blocks(page, "text") for line in block.splitlines()]
    assert len(shown) == 14
    for line in shown:
        start = line.removesuffix(" …")
        assert any(one == line or (start != line and one.startswith(start)) for one in lines), line


def test_both_languages_show_the_same_output() -> None:
    assert blocks(PAGES[0], "text") == blocks(PAGES[1], "text")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_claim_to_copy_is_one_that_can_be_checked(page: Path) -> None:
    (text,) = blocks(page, "yaml")
    (one,) = parse_claims(text.encode(), path=page.name, registry=REGISTRY)
    assert check_claims([one], REGISTRY)[0].verdict in (ClaimVerdict.OPEN, ClaimVerdict.REFUTED_ARITHMETIC)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_and_every_verdict_stands_on_the_page(page: Path) -> None:
    text = page.read_text()
    assert all(f"`{name}`" in text for name in METRICS)
    for verdict in ClaimVerdict:
        assert verdict.value.split(" (")[0] in text
