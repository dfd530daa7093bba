"""The house rules that a machine can check: reading order, purity of the middle, documented settings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = (ROOT / "gateway", ROOT / "loadtests")

# The reading order is the import order: a module imports only from what stands above it.
HOUSE = [
    "gateway",
    "gateway.domain",
    "gateway.domain.records",
    "gateway.domain.engine_errors",
    "gateway.domain.model_name",
    "gateway.domain.dialects",
    "gateway.domain.dialects.choices",
    "gateway.domain.dialects.responses",
    "gateway.domain.dialects.messages",
    "gateway.domain.sse",
    "gateway.domain.meter",
    "gateway.domain.stats",
    "gateway.domain.cost",
    "gateway.domain.settlement",
    "gateway.domain.token_cost",
    "gateway.domain.energy",
    "gateway.domain.accounts",
    "gateway.domain.charges",
    "gateway.domain.limits",
    "gateway.domain.comparability",
    "gateway.domain.observations",
    "gateway.domain.paired",
    "gateway.domain.ranking",
    "gateway.domain.ranking.reasons",
    "gateway.domain.ranking.votes",
    "gateway.domain.ranking.vote_rows",
    "gateway.domain.ranking.connectivity",
    "gateway.domain.ranking.contests",
    "gateway.domain.ranking.bradley_terry",
    "gateway.domain.ranking.clustered",
    "gateway.domain.ranking.jackknife",
    "gateway.domain.ranking.ranks",
    "gateway.domain.ranking.estimates",
    "gateway.domain.ranking.rao_kupper",
    "gateway.domain.ranking.style",
    "gateway.domain.ranking.position",
    "gateway.domain.ranking.sensitivity",
    "gateway.domain.ranking.fragility",
    "gateway.domain.ranking.figures",
    "gateway.domain.ranking.agreement",
    "gateway.domain.ranking.anomalies",
    "gateway.domain.ranking.blinding",
    "gateway.domain.ranking.analysis",
    "gateway.domain.ranking.document",
    "gateway.domain.kv_layers",
    "gateway.domain.kv_groups",
    "gateway.domain.kv_cache",
    "gateway.domain.shapes",
    "gateway.domain.weights",
    "gateway.domain.model_config.fields",
    "gateway.domain.model_config.families",
    "gateway.domain.model_config.layers",
    "gateway.domain.model_config.parts",
    "gateway.domain.model_config.formats",
    "gateway.domain.model_config",
    "gateway.domain.safetensors",
    "gateway.domain.tensor_sums",
    "gateway.domain.checkpoint",
    "gateway.domain.memory",
    "gateway.domain.serving_plan",
    "gateway.domain.memory_case",
    "gateway.domain.derivation",
    "gateway.domain.fit_case",
    "gateway.domain.fit_reasons",
    "gateway.domain.feasibility",
    "gateway.domain.engine_facts",
    "gateway.domain.predicted_column",
    "gateway.domain.settled_fit",
    "gateway.domain.column_reasons",
    "gateway.domain.columns",
    "gateway.domain.calibration",
    "gateway.domain.routing",
    "gateway.domain.queueing",
    "gateway.domain.breaker",
    "gateway.domain.roofline",
    "gateway.domain.decoding",
    "gateway.domain.matrix",
    "gateway.domain.engine_model",
    "gateway.domain.pace",
    "gateway.domain.ceilings",
    "gateway.domain.ceiling_lines",
    "gateway.domain.claim_terms",
    "gateway.domain.claim_evidence",
    "gateway.domain.claim_outcome",
    "gateway.domain.engine_evidence",
    "gateway.domain.claim_workings",
    "gateway.domain.claim_fit",
    "gateway.domain.claim_speed",
    "gateway.domain.claim_arithmetic",
    "gateway.domain.claims",
    "gateway.domain.rounds",
    "gateway.domain.canonical_json",
    "gateway.domain.seeded_stream",
    "gateway.domain.fair_rounding",
    "gateway.domain.pair_dealing",
    "gateway.domain.side_dealing",
    "gateway.domain.prompt_dealing",
    "gateway.domain.review_design",
    "gateway.domain.assignment",
    "gateway.domain.design_facts",
    "gateway.domain.planner",
    "gateway.domain.merkle",
    "gateway.domain.sealing",
    "gateway.domain.hash_chain",
    "gateway.domain.withheld",
    "gateway.domain.evidence_cards",
    "gateway.domain.lexicon",
    "gateway.domain.self_claims.rules",
    "gateway.domain.self_claims.korean",
    "gateway.domain.self_claims.korean_turns",
    "gateway.domain.self_claims.english",
    "gateway.domain.self_claims.english_turns",
    "gateway.domain.self_claims.english_beside",
    "gateway.domain.self_claims",
    "gateway.domain.sentences",
    "gateway.domain.redaction",
    "gateway.domain.personal_data",
    "gateway.errors",
    "gateway.error_shapes",
    "gateway.settings",
    "gateway.calibration_file",
    "gateway.asgi",
    "gateway.review_address",
    "gateway.registry.text",
    "gateway.registry.values",
    "gateway.registry.schema",
    "gateway.registry.complaints",
    "gateway.registry.adapters",
    "gateway.registry.claims",
    "gateway.registry.energy",
    "gateway.registry.records",
    "gateway.registry.claims_file",
    "gateway.registry",
    "gateway.tables",
    "gateway.file_lock",
    "gateway.sqlite",
    "gateway.postgresql",
    "gateway.database",
    "gateway.long_work",
    "gateway.cost_tables",
    "gateway.day_sums",
    "gateway.use_by_day",
    "gateway.gpu_days",
    "gateway.settled_shares",
    "gateway.store",
    "gateway.window_terms",
    "gateway.settled_costs",
    "gateway.settlements",
    "gateway.kept_minutes",
    "gateway.cost_sums",
    "gateway.answer_lengths",
    "gateway.accounts",
    "gateway.batch_store",
    "gateway.engine_records",
    "gateway.rounds",
    "gateway.rounds.tables",
    "gateway.rounds.rows",
    "gateway.rounds.reading",
    "gateway.rounds.store",
    "gateway.token_buckets",
    "gateway.rounds.limits",
    "gateway.rounds.markdown",
    "gateway.rounds.redacting",
    "gateway.rounds.links",
    "gateway.rounds.judgement",
    "gateway.rounds.visits",
    "gateway.rounds.conflicts",
    "gateway.rounds.chain",
    "gateway.rounds.clearing",
    "gateway.rounds.voting",
    "gateway.energy_records",
    "gateway.call_traces",
    "gateway.series",
    "gateway.log",
    "gateway.background",
    "gateway.telemetry",
    "gateway.http_reply",
    "gateway.upstream",
    "gateway.hub",
    "gateway.checkpoint_facts",
    "gateway.registry_entry",
    "gateway.spool",
    "gateway.recorder",
    "gateway.provenance",
    "gateway.engine_answers",
    "gateway.metrics_text",
    "gateway.engine_reports",
    "gateway.energy_reports",
    "gateway.first_token",
    "gateway.replica_state",
    "gateway.engine_look",
    "gateway.fleet",
    "gateway.live_registry",
    "gateway.settler",
    "gateway.retention",
    "gateway.energy_watch",
    "gateway.evidence",
    "loadtests",
    "loadtests.plan",
    "loadtests.cells",
    "loadtests.run_evidence",
    "gateway.claim_checks",
    "gateway.engine_sightings",
    "gateway.engine_diary",
    "gateway.key_ring",
    "gateway.access",
    "gateway.run_names",
    "gateway.model_lookup",
    "gateway.request_body",
    "gateway.request_adapter",
    "gateway.endpoints",
    "gateway.limits",
    "gateway.admission",
    "gateway.dispatch",
    "gateway.approach",
    "gateway.active_call",
    "gateway.exchange",
    "gateway.downstream",
    "gateway.reply_homes",
    "gateway.relay",
    "gateway.stored_replies",
    "gateway.answer_text",
    "gateway.comparison_object",
    "gateway.comparison",
    "gateway.spreadsheet",
    "gateway.comparison_export",
    "gateway.matrix_words.fields",
    "gateway.matrix_words.english",
    "gateway.matrix_words.korean",
    "gateway.matrix_words",
    "gateway.matrix_cell_words",
    "gateway.matrix_answer",
    "gateway.markup",
    "gateway.matrix_style",
    "gateway.matrix_figure",
    "gateway.matrix_tables",
    "gateway.matrix_page",
    "gateway.batch_outcomes",
    "gateway.batch_order",
    "gateway.batch_verdicts",
    "gateway.batches",
    "gateway.batch_report",
    "gateway.gateway_client",
    "gateway.comparison_client",
    "gateway.checkpoints.architectures",
    "gateway.checkpoints.tokenizer",
    "gateway.checkpoints.chat_template",
    "gateway.checkpoints.commands",
    "gateway.checkpoints",
    "gateway.web",
    "gateway.simulator.text",
    "gateway.simulator.json_values",
    "gateway.simulator.bodies",
    "gateway.simulator.requests",
    "gateway.simulator.answers",
    "gateway.simulator.metrics",
    "gateway.simulator.engine",
    "gateway.simulator.replies",
    "gateway.simulator.response_reply",
    "gateway.simulator.message_reply",
    "gateway.simulator.as_chat",
    "gateway.simulator.delivery",
    "gateway.simulator",
    "gateway.guard",
    "gateway.processes",
    "gateway.near_names",
    "gateway.prompts",
    "gateway.rounds.defaults",
    "gateway.rounds.answering",
    "gateway.rounds.card_words",
    "gateway.rounds.cards",
    "gateway.rounds.life",
    "gateway.rounds.sealed",
    "gateway.rounds.closing",
    "gateway.rounds.contents",
    "gateway.rounds.archive",
    "gateway.rounds.sheets",
    "gateway.rounds.bundle",
    "gateway.rounds.bundle_view",
    "gateway.rounds.verify_seal",
    "gateway.rounds.verify_records",
    "gateway.rounds.verify_people",
    "gateway.rounds.verify",
    "gateway.rounds.rehearsal",
    "gateway.rounds.desk",
    "gateway.rounds.views",
    "gateway.rounds.answer_style",
    "gateway.rounds.ballots",
    "gateway.rounds.results",
    "gateway.rounds.standings",
    "gateway.rounds.conclusion_words",
    "gateway.rounds.figure_words",
    "gateway.rounds.conclusions",
    "gateway.rounds.report.style",
    "gateway.rounds.report.charts",
    "gateway.rounds.report.tables",
    "gateway.rounds.report.words",
    "gateway.rounds.report.glossary",
    "gateway.rounds.report.view",
    "gateway.rounds.report.sections",
    "gateway.rounds.report.page",
    "gateway.rounds.report",
    "gateway.rounds.chair_sessions",
    "gateway.rounds.chair_steps",
    "gateway.rounds.chair_view",
    "gateway.rounds.planner_page",
    "gateway.rounds.bundle_tools",
    "loadtests.records",
    "loadtests.columns",
    "loadtests.figures",
    "loadtests.objectives",
    "loadtests.differences",
    "loadtests.readings",
    "loadtests.exports",
    "gateway.console",
    "loadtests.report.terms",
    "loadtests.report.columns",
    "loadtests.report.words",
    "loadtests.report.sentences",
    "loadtests.report.formulas",
    "loadtests.report.figure_words",
    "loadtests.report.conclusions",
    "loadtests.report.spreads",
    "loadtests.report.buckets",
    "loadtests.report.charts",
    "loadtests.report.style",
    "loadtests.report.tables",
    "loadtests.report.view",
    "loadtests.report.overview",
    "loadtests.report.latency_figures",
    "loadtests.report.cost_figures",
    "loadtests.report.spread_figures",
    "loadtests.report.over_time",
    "loadtests.report.doors",
    "loadtests.report.results",
    "loadtests.report.setup",
    "loadtests.report.page",
    "loadtests.report",
    "gateway.load_runs",
    "gateway.api",
    "gateway.api.deps",
    "gateway.api.bodies",
    "gateway.api.schemas",
    "gateway.api.refusals",
    "gateway.api.account_schemas",
    "gateway.api.batch_schemas",
    "gateway.api.round_schemas",
    "gateway.api.cost_schemas",
    "gateway.api.files",
    "gateway.api.review_door",
    "gateway.api.openai",
    "gateway.api.models",
    "gateway.api.feasibility",
    "gateway.api.claims",
    "gateway.api.columns",
    "gateway.api.load_runs",
    "gateway.api.comparisons",
    "gateway.api.batches",
    "gateway.api.ops",
    "gateway.api.day_queries",
    "gateway.api.usage",
    "gateway.api.energy",
    "gateway.api.cost_lines",
    "gateway.api.token_figures",
    "gateway.api.costs",
    "gateway.api.rounds",
    "gateway.api.token_costs",
    "gateway.api.round_results",
    "gateway.api.round_comments",
    "gateway.api.round_export",
    "gateway.api.admin",
    "gateway.api.review",
    "gateway.api.chair_door",
    "gateway.api.chair_comments",
    "gateway.api.chair",
    "gateway.api.chair_steps",
    "gateway.app",
    "gateway.server",
    "gateway.matrix_view",
    "gateway.comparison_view",
    "gateway.batch_view",
    "gateway.batch_command",
    "gateway.engine_plans",
    "gateway.up_board",
    "gateway.up",
    "gateway.account_commands",
    "gateway.feasibility_command",
    "gateway.claim_commands",
    "gateway.columns_command",
    "gateway.costs_command",
    "gateway.facts_command",
    "gateway.round_verify_command",
    "gateway.round_door",
    "gateway.round_comment_commands",
    "gateway.round_commands",
    "loadtests.presets",
    "loadtests.plan_schema",
    "loadtests.plan_file",
    "loadtests.load_words",
    "loadtests.workloads",
    "loadtests.workloads.words",
    "loadtests.workloads.references",
    "loadtests.workloads.fitting",
    "loadtests.workloads.bodies",
    "loadtests.workloads.groups",
    "loadtests.workloads.lengths",
    "loadtests.workloads.pictures",
    "loadtests.workloads.requests",
    "loadtests.arrivals",
    "loadtests.traces",
    "loadtests.asks",
    "loadtests.cell_order",
    "loadtests.endings",
    "loadtests.record_file",
    "loadtests.heard_text",
    "loadtests.answers",
    "loadtests.comparison_answers",
    "loadtests.lost_worker",
    "loadtests.host_clocks",
    "loadtests.hosts",
    "loadtests.streams",
    "loadtests.sending",
    "loadtests.users",
    "loadtests.cell_run",
    "loadtests.distributed",
    "loadtests.following",
    "loadtests.leading",
    "loadtests.worker",
    "loadtests.stand_in",
    "loadtests.calibration",
    "loadtests.steadiness",
    "loadtests.validity",
    "loadtests.agreement",
    "loadtests.engine_view",
    "loadtests.doorways",
    "loadtests.sighting",
    "loadtests.search",
    "loadtests.repeat_run",
    "loadtests.measured",
    "loadtests.doors",
    "loadtests.journal",
    "loadtests.keeping",
    "loadtests.campaign",
    "loadtests.outset",
    "loadtests.capacity",
    "loadtests.view",
    "loadtests.difference_view",
    "loadtests.written",
    "loadtests.commands",
    "gateway.cli",
    "gateway.__main__",
]
# Run by Alembic, and by an engine in its own environment.
OUTSIDE_ORDER = ("gateway.migrations", "gateway.checkpoints.remote_code")
PURE_LIBRARIES = {"numpy", "scipy"}
IMPURE_STDLIB = {"asyncio", "os", "pathlib", "random", "secrets", "socket", "subprocess", "threading", "time", "io"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    found = {module_name(path): path for package in PACKAGES for path in sorted(package.rglob("*.py"))}
    return {name: path for name, path in found.items() if not name.startswith(OUTSIDE_ORDER)}


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports, resolved to the deepest module of ours that exists."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            names.update(f"{module}.{a.name}" if f"{module}.{a.name}" in HOUSE else module for a in node.names)
    return names


def test_every_module_has_its_place_in_the_reading_order() -> None:
    assert sorted(modules()) == sorted(HOUSE)


@pytest.mark.parametrize("name", HOUSE)
def test_module_imports_only_from_above(name: str) -> None:
    above = set(HOUSE[: HOUSE.index(name)])
    ours = {i for i in imports_of(modules()[name]) if i.split(".")[0] in ("gateway", "loadtests")}
    assert ours <= above, f"{name} imports from below itself: {sorted(ours - above)}"


@pytest.mark.parametrize("name", [n for n in HOUSE if n.startswith("gateway.domain")])
def test_domain_is_pure(name: str) -> None:
    path = modules()[name]
    foreign = {i.split(".")[0] for i in imports_of(path)} - {"gateway"}
    assert foreign <= (set(sys.stdlib_module_names) - IMPURE_STDLIB) | PURE_LIBRARIES
    tree = ast.parse(path.read_text())
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.Await, ast.AsyncFunctionDef))]
    calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert not {"open", "datetime.now", "datetime.utcnow", "date.today"} & set(calls)


@pytest.mark.parametrize("name", HOUSE)
def test_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(ast.parse(modules()[name].read_text())), f"{name} has no docstring"


def test_only_settings_reads_the_environment() -> None:
    allowed = {"gateway.settings"}
    for name, path in modules().items():
        if name not in allowed:
            text = path.read_text()
            assert "os.environ" not in text, f"{name} reads the environment"
            assert "getenv(" not in text, f"{name} reads the environment"


def test_commands_that_serve_nothing_start_without_web_framework_and_database() -> None:
    """`simsa up` starts an interpreter for every engine: what only the gateway needs would more than double each."""
    heavy = "{'fastapi', 'sqlalchemy', 'alembic', 'asyncpg'}"
    listing = f"import sys, gateway.cli; print(*{heavy} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_every_setting_is_documented() -> None:
    page = subprocess.run(
        [sys.executable, "scripts/settings_page.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "settings.md").read_text() == page, "run `make docs`"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert not missing


def test_requirements_name_no_host_and_pin_by_hash() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text, f"{path.name} names a host"
        assert not re.search(r"^\s*--(?!hash)", text, re.M), f"{path.name} has option lines"
        pins = re.findall(r"^[A-Za-z0-9].*==", text, re.M)
        assert len(pins) == len(re.findall(r"^[A-Za-z0-9].*\\$", text, re.M)), f"{path.name} has a pin without a hash"
