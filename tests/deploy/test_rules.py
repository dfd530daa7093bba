"""The shipped rules: valid, each alert tried by promtool and explained in the runbook, all about series that exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import watched
import yaml
from charts import Release
from clients import RawClient
from deploy_tools import program
from engines import ScriptedEngine
from fixtures import OWN_CASES, RELEASES, install
from gateways import entry, running_gateway
from manifests import of_kind

from gateway.app import GROUPS

ALERTS = watched.alerts()
RUNBOOK = watched.RUNBOOK.read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^### (.+)$", RUNBOOK, flags=re.MULTILINE)[1:])] * 2, strict=True))
PARTS = ("Means", "Callers see", "Look", "Causes", "Do", "Over")
NEVER_MISSED = {
    "up": "Prometheus' own",
    "simsa_registry_info": "its absence is SimsaGatewayAbsent",
    "simsa_calls_total": "there is none before the first call",
    "simsa_background_failures_total": "there is none before the first failure: its absence is health",
    "simsa_name_failing": "there is none where no replica is found by a name",
    "simsa_spans_total": "there is none where nothing is traced",
}
SEVERAL_GATEWAYS = next(case for case in OWN_CASES if case.values.stem == "several-gateways")
TOLD = {
    "exp_labels": {"severity": "page", "namespace": "judging", "job": "simsa"},
    "exp_annotations": {
        "summary": "No gateway of judging/simsa is scraped",
        "description": "Prometheus has had no series of any gateway of the release simsa in judging for 5 minutes. "
        "Either none runs, or none is scraped; nothing else of this release can alert meanwhile.",
        "runbook_url": "docs/runbook.md#simsareleaseabsent",
    },
}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


async def gateway_page(directory: Path) -> str:
    async with (
        ScriptedEngine() as engine,
        running_gateway(directory, [entry("m", engine.url)]) as gateway,
        RawClient(gateway.url) as client,
    ):
        await gateway.until_live("m")
        await client.request("GET", "/metrics")  # the next one counts it
        return (await client.request("GET", "/metrics")).body.decode()


async def gateway_series(directory: Path) -> set[str]:
    return watched.series_on(await gateway_page(directory))


async def known_series(directory: Path) -> set[str]:
    own = await gateway_series(directory)
    return own | watched.engine_series() | set(watched.records()) | watched.PROMETHEUS_OWN


# --- valid, and tried -----------------------------------------------------------------------------------------


def test_rules_are_valid() -> None:
    answer = promtool("check", "rules", *watched.RULES)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", answer.stdout)))
    assert found == len(watched.rules()) > 50


def test_a_broken_rule_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(watched.RULES[0].read_text(encoding="utf-8").replace("> 0.95", "> > 0.95"), encoding="utf-8")
    assert promtool("check", "rules", broken).returncode != 0


@pytest.mark.parametrize("path", watched.RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    answer = promtool("test", "rules", path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "SUCCESS" in answer.stdout


def test_an_alert_that_does_not_fire_as_expected_is_told(tmp_path: Path) -> None:
    replicas = next(path for path in watched.RULE_TESTS if path.stem == "replicas")
    text = replicas.read_text(encoding="utf-8").replace("../../../deploy", str(watched.CHART.parent))
    changed = tmp_path / "changed.yaml"
    changed.write_text(text, encoding="utf-8")
    assert promtool("test", "rules", changed).returncode == 0
    changed.write_text(text.replace("severity: page", "severity: ticket", 1), encoding="utf-8")
    assert promtool("test", "rules", changed).returncode != 0


def test_every_alert_is_tried_firing_and_not_firing() -> None:
    fires: dict[tuple[str, str], bool] = {}
    for check in watched.rule_checks():
        key = check.alert, check.test
        fires[key] = fires.get(key, False) or bool(check.fired)
    assert {alert for (alert, _), fired in fires.items() if fired} == set(ALERTS)
    quiet = {alert for (alert, _), fired in fires.items() if not fired}
    assert quiet == set(ALERTS), "each needs a situation in which it never fires"


def test_an_alert_speaks_only_of_labels_that_it_has() -> None:
    for check in watched.rule_checks():
        spoken_of = set(re.findall(r"\$labels\.(\w+)", " ".join(ALERTS[check.alert].annotations.values())))
        assert all(spoken_of <= set(fired["exp_labels"]) for fired in check.fired), check


def test_the_alert_about_our_own_routes_knows_all_their_groups() -> None:
    (named,) = re.findall(r'endpoint=~"([^"]+)"', ALERTS["SimsaOwnRoutesFailing"].expr)
    assert named.split("|") == [group for _, group in GROUPS]


# --- of one release -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scraped", "is_told"), [(RELEASES[0], False), (RELEASES[1], True)], ids=["its own gateway", "another's gateway"]
)
def test_a_release_without_gateways_is_told_whatever_another_one_does(
    scraped: Release, is_told: bool, tmp_path: Path
) -> None:
    """Two releases in one Prometheus: the rules of `RELEASES[0]`, and the series of either."""
    own = of_kind(install(SEVERAL_GATEWAYS).manifests, "PrometheusRule")
    (service,) = (
        service
        for service in of_kind(install(SEVERAL_GATEWAYS, scraped).manifests, "Service")
        if service["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    )
    labels = f'namespace="{scraped.namespace}",job="{service["metadata"]["name"]}"'
    for rule in own:
        (tmp_path / f"{rule['metadata']['name']}.yaml").write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    situation = {
        "interval": "1m",
        "input_series": [{"series": f"simsa_registry_info{{{labels}}}", "values": "1+0x60"}],
        "alert_rule_test": [
            {"eval_time": "10m", "alertname": "SimsaGatewayAbsent", "exp_alerts": []},
            {"eval_time": "10m", "alertname": "SimsaReleaseAbsent", "exp_alerts": [TOLD] if is_told else []},
        ],
    }
    questions = tmp_path / "questions.yaml"
    files = [f"{rule['metadata']['name']}.yaml" for rule in own]
    questions.write_text(yaml.safe_dump({"rule_files": files, "tests": [situation]}), encoding="utf-8")
    answer = promtool("test", "rules", questions)
    assert answer.returncode == 0, answer.stdout + answer.stderr


# --- what an alert says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_it_is_about_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule.hold
    assert set(rule.labels) == {"severity"}
    assert rule.labels["severity"] in {"page", "ticket"}
    assert set(rule.annotations) == {"summary", "description", "runbook_url"}
    assert len(re.sub(r"\{\{.+?\}\}", "a-replica/0", rule.annotations["summary"])) <= 80
    assert rule.annotations["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_names_of_alerts_records_and_groups_are_used_once() -> None:
    rules = watched.rules()
    for names in (_named(rule.alert for rule in rules), _named(rule.record for rule in rules)):
        assert len(names) == len(set(names))
    groups = {(rule.file, rule.group) for rule in rules}
    assert len(groups) == len({group for _, group in groups})


def _named(names: object) -> Sequence[str]:
    return [name for name in names if name is not None]  # type: ignore[attr-defined]


def test_recorded_series_are_named_level_metric_operation_and_used() -> None:
    texts = [rule.expr for rule in watched.rules()] + [RUNBOOK]
    texts += [query for board in watched.dashboards().values() for query in watched.dashboard_queries(board)]
    used = {name for text in texts for name in watched.SERIES_NAME.findall(text)}
    for name in watched.records():
        assert re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", name), name
        assert name in used, f"{name} is recorded and nobody asks for it"


# --- the runbook ----------------------------------------------------------------------------------------------


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    assert set(SECTIONS) == set(ALERTS) | watched.template_alerts()
    assert len(SECTIONS) == RUNBOOK.count("\n### ")


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_answers_what_somebody_asks_at_night(alert: str) -> None:
    parts = re.findall(r"^\*\*([\w, ]+)\.\*\*", SECTIONS[alert], flags=re.MULTILINE)
    assert [part.split(" and ")[0] for part in parts] == list(PARTS)


def test_queries_of_the_runbook_are_queries_and_not_only_words() -> None:
    spans = [span.replace("\n", " ") for text in SECTIONS.values() for span in re.findall(r"`([^`]+)`", text)]
    queries = [span for span in spans if watched.SERIES_NAME.search(span) and not re.match(r"kubectl|curl|ask", span)]
    assert len(queries) > 50
    for query in queries:
        assert watched.selected(query), query


def test_logs_of_several_pods_are_asked_for_whole() -> None:
    """By selector kubectl prints the last 10 lines of each pod, whatever --since says."""
    asked = [line for text in RUNBOOK.split("`") for line in text.splitlines() if "kubectl logs" in line]
    assert len(asked) > 10
    by_selector = [line for line in asked if re.search(r"\$(GATEWAYS|ENGINES)| -l |--selector", line)]
    assert [line for line in by_selector if "--tail" not in line] == []


def test_links_of_the_runbook_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        assert (watched.RUNBOOK.parent / path).exists() if path else anchor in anchors, target


# --- about series that exist ----------------------------------------------------------------------------------


async def test_every_series_of_rules_scalers_and_runbook_exists(tmp_path: Path) -> None:
    known = await known_series(tmp_path)
    for rule in watched.rules():
        assert watched.selected(rule.expr) <= known, rule.alert or rule.record
    assert watched.scaler_series() <= known
    assert set(watched.SERIES_NAME.findall(RUNBOOK)) <= watched.families(known)


async def test_the_gateways_series_have_the_labels_that_it_declares(tmp_path: Path) -> None:
    labels = watched.labels_on(await gateway_page(tmp_path))
    assert {"endpoint", "model", "replica"} < labels
    assert labels - {"le"} <= watched.gateway_labels()


def test_the_absence_of_every_alerts_and_scalers_series_is_an_alert() -> None:
    missing = " ".join(ALERTS[name].expr for name in ("SimsaSeriesMissing", "SimsaEngineSeriesMissing"))
    noticed = set(re.findall(r"absent\(([\w:]+)", missing))
    told = set(re.findall(r'"series", "([\w:]+)"', missing))
    assert noticed == told, "each absence carries the name of its own series"
    wanted = {name for rule in ALERTS.values() for name in watched.sources(rule.expr)} | watched.scaler_series()
    assert wanted - set(NEVER_MISSED) - noticed == set()
    assert set(NEVER_MISSED) <= wanted


def test_a_parser_that_sees_no_names_would_be_told() -> None:
    expr = "sum by (a) (rate(b_total[5m])) / (c > 0) unless on (a) max_over_time(d:e:f[10m:1m] offset 1h)"
    assert watched.selected(expr) == {"b_total", "c", "d:e:f"}
    with pytest.raises(ValueError):
        watched.selected("sum by (a (b)")
