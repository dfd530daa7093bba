"""The registry file: what it refuses and in which words, what the shipped one says, and what a derived one keeps."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.records import (
    Confidence,
    EnergyMeter,
    MlaShape,
    Model,
    ModelShape,
    Registry,
    ServingKind,
    Sourced,
)
from gateway.errors import RegistryInvalid
from gateway.registry import derive_registry, load_registry, parse_registry, registry_json_schema
from gateway.registry.adapters import VLLM_FIELDS

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "model_registry.yaml"

SIMPLE = """\
models:
  - id: my-candidate
    serving: {kind: vllm}
    replicas: [{url: "http://127.0.0.1:8101"}]
"""


@cache
def shipped() -> Registry:
    return load_registry(SHIPPED)


@cache
def shipped_tree() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    return tree


def problems_of(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(RegistryInvalid) as caught:
        parse_registry(data, path="r.yaml")
    return caught.value.problems


def with_model(lines: str, *, head: str = "") -> str:
    """A registry whose only model has `lines` (flow style entries, one a line) beside id and serving."""
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"{head}models:\n  - id: m\n    serving: {{kind: vllm}}\n{body}"


# --- an entry with three fields -----------------------------------------------------------------------------


def test_an_entry_with_id_kind_and_replicas_is_routable() -> None:
    registry = parse_registry(SIMPLE.encode(), path="r.yaml")
    (model,) = registry.routable()
    assert model.serving.kind is ServingKind.VLLM
    assert model.serving.served_model_name == "my-candidate"
    (replica,) = model.replicas
    assert (replica.id, replica.url, replica.base_path) == ("my-candidate/1", "http://127.0.0.1:8101", "/v1")
    assert model.licence.commercial is None
    assert model.price is None
    assert model.shape is None


def test_a_start_up_time_is_a_measured_fact() -> None:
    entry = "{id: a, serving: {kind: vllm, startup_s: 312.5%s}, consortium: c}"
    head = "consortia: [{id: c, name: {ko: 씨, en: C}, source: a list, confidence: high}]\nmodels:\n  - "
    (model,) = parse_registry(
        (head + entry % ", source: a log, confidence: high").encode(), path="r.yaml"
    ).models.values()
    assert model.serving.startup_s == 312.5
    assert "models[0] (a).serving" in problems_of(head + entry % "")[0]


@pytest.mark.parametrize(
    ("serving", "is_routable"),
    [
        ("{kind: vllm, max_vllm: '0.10.2', reason: No current vLLM serves it.}", True),
        ("{kind: vllm, reason: Nothing serves it.}", False),
    ],
)
def test_a_replica_of_what_only_an_older_vllm_serves_is_one_of_that(serving: str, is_routable: bool) -> None:
    text = f"models:\n  - {{id: a, serving: {serving}, replicas: [{{url: 'http://h'}}]}}\n"
    assert bool(parse_registry(text.encode(), path="r.yaml").routable()) is is_routable


def test_the_sha256_is_of_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(SIMPLE)
    assert load_registry(path).sha256 == hashlib.sha256(SIMPLE.encode()).hexdigest()


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    data = b"\xef\xbb\xbf" + SIMPLE.replace("\n", "\r\n").encode()
    assert list(parse_registry(data, path="r.yaml").models) == ["my-candidate"]


def test_facts_may_be_plain_or_carry_their_source_and_inherit_the_blocks() -> None:
    text = with_model(
        "shape: {params: 2.6B, layers: {value: 32, source: own words here, confidence: high}, "
        "source: block words here, confidence: low}"
    )
    shape = parse_registry(text.encode(), path="r.yaml").models["m"].shape
    assert shape is not None
    assert (shape.params, shape.active_params, shape.layers, shape.global_layers) == (2_600_000_000,) * 2 + (32,) * 2
    assert shape.facts["params"] == Sourced("block words here", Confidence.LOW)
    assert shape.facts["layers"] == Sourced("own words here", Confidence.HIGH)


def test_money_is_exact() -> None:
    text = with_model("price: {currency: USD, input_per_mtok: 0.1, output_per_mtok: '0.30'}")
    price = parse_registry(text.encode(), path="r.yaml").models["m"].price
    assert price is not None
    assert (price.input_per_mtok, price.output_per_mtok) == (Decimal("0.1"), Decimal("0.30"))


def test_an_explicit_null_share_of_a_mixture_stays_unknown() -> None:
    text = with_model("shape: {params: 34.3B, active_params: null}")
    shape = parse_registry(text.encode(), path="r.yaml").models["m"].shape
    assert shape is not None
    assert shape.active_params is None


# --- complaints ---------------------------------------------------------------------------------------------

GPU = "gpus: [{id: g1, name: G, memory: 80 GB, bandwidth_tb_per_s: 2, source: a sheet here, confidence: low}]\n"
LG = "consortia: [{id: lg, name: {ko: 엘지, en: LG}, source: an article here, confidence: low}]\n"

ONE_MODEL = [
    (
        "price: {currency: USD, input_per_mtok: cheap, output_per_mtok: 1}",
        "price.input_per_mtok: expected a number of USD per million tokens, got 'cheap'",
    ),
    (
        "price: {currency: KRW, input_per_mtok: -1, output_per_mtok: 1}",
        "price.input_per_mtok: expected a number of KRW per million tokens, 0 or more, got -1",
    ),
    (
        "price: {currency: EUR, input_per_mtok: 1, output_per_mtok: 1}",
        "price.currency: 'EUR' is not in currencies",
    ),
    (
        "price: {currency: USD, input_per_mtok: .nan, output_per_mtok: 1}",
        "price.input_per_mtok: expected a number of USD per million tokens, got nan",
    ),
    (
        "price: {currency: USD, input_per_mtok: 1}",
        "price.output_per_mtok: missing; expected the price of a million answered tokens",
    ),
    ("replica: []", "replica: unknown field, did you mean 'replicas'?"),
    (
        "shape: {moe: {experts: 8, experts_per_token: 9}}",
        "shape.moe.experts_per_token: expected at most experts (8), got 9",
    ),
    ("shape: {heads: 40, kv_heads: 7}", "shape.kv_heads: expected a divisor of heads (40), got 7"),
    ("shape: {layers: 4, global_layers: 5}", "shape.global_layers: expected at most layers (4), got 5"),
    (
        "shape: {params: 1B, active_params: 2B}",
        "shape.active_params: expected at most params (1000000000), got 2000000000",
    ),
    ("shape: {layers: 4.5}", "shape.layers: expected a whole number, 1 or more, got 4.5"),
    ("shape: {layers: true}", "shape.layers: expected a whole number, 1 or more, got true"),
    ("shape: {layers: {value: 0}}", "shape.layers.value: expected a whole number, 1 or more, got 0"),
    ("shape: {layers: {vlaue: 3, note: a}}", "shape.layers.vlaue: unknown field, did you mean 'value'?"),
    ("shape: {params: many}", "shape.params: expected a number of parameters such as 2597000000 or '2.6B', got 'many'"),
    ("shape: 32", "shape: expected a mapping, got 32"),
    ("licence: {commercial: 'no'}", "licence.commercial: expected true or false, got 'no'"),
    ("released: yesterday", "released: expected a date such as 2026-11-23, got 'yesterday'"),
    ("timeouts: {total_s: 0}", "timeouts.total_s: expected a number, more than 0, got 0"),
    ("timeouts: {total_s: .inf}", "timeouts.total_s: expected a number, more than 0, got inf"),
    (
        "replicas: [{url: 127.0.0.1:8101}]",
        "replicas[0].url: expected an address such as http://127.0.0.1:8101, got '127.0.0.1:8101'",
    ),
    (
        "replicas: [{url: 'ftp://h'}]",
        "replicas[0].url: expected an address such as http://127.0.0.1:8101, got 'ftp://h'",
    ),
    (
        "replicas: [{url: 'http://h:1/v1/'}]",
        "replicas[0].url: expected the address without /v1, which base_path adds, got 'http://h:1/v1/'",
    ),
    ("replicas: [{url: 'http://h', gpu: h100}]", "replicas[0].gpu: 'h100' is not in gpus"),
    ("replicas: [{url: 'http://h', weight: -1}]", "replicas[0].weight: expected a number, 0 or more, got -1"),
    ("consortium: lg", "consortium: 'lg' is not in consortia"),
    (
        "claims: [{id: c, text: t}]",
        "claims[0] (c): a fact without a source; expected source and confidence here or on its block",
    ),
    (
        "shape: {layers: 3, source: some words here}",
        "shape.layers: expected a confidence (high, medium or low) beside its source",
    ),
    ("id: again", "id: given twice, first on line 2"),
]

RULES = [
    ("dorp: [seed]", "dorp: unknown field, did you mean 'drop'?"),
    ("drop: [sede]", "drop[0]: 'sede' is no field of a request, did you mean 'seed'?"),
    ("refuse: {logprob: No.}", "refuse.logprob: 'logprob' is no field of a request, did you mean 'logprobs'?"),
    ("refuse: {logprobs: 3}", "refuse.logprobs: expected text (in quotes where YAML would read something else), got 3"),
    ("drop: [messages]", "drop[0]: expected a field that the gateway does not need itself, got 'messages'"),
    ("drop: ['a b']", "drop[0]: expected the name of a request field such as logprobs, got 'a b'"),
    (
        "drop: [stream_options]",
        "drop[0]: the gateway sends stream_options itself; say stream_usage: always or never instead",
    ),
    (
        "drop: [seed], refuse: {seed: No.}",
        "refuse.seed: 'seed' has a rule under drop already; expected one of drop, refuse and rename",
    ),
    (
        "drop: [max_tokens], rename: {max_completion_tokens: max_tokens}",
        "rename.max_completion_tokens: 'max_tokens' is dropped or refused; expected a field that the API knows",
    ),
    (
        "rename: {max_tokens: max_completion_tokens, max_completion_tokens: longest}",
        "rename.max_tokens: 'max_completion_tokens' is renamed itself; expected the name that the API knows in the end",
    ),
    (
        "rename: {max_tokens: longest, max_completion_tokens: longest}",
        "rename.max_completion_tokens: 'max_tokens' becomes 'longest' already; expected another name",
    ),
    (
        "rename: {max_tokens: model}",
        "rename.max_tokens: expected a name that the gateway does not need itself, got 'model'",
    ),
    (
        "rename: {max_tokens: longest}, limits: {max_tokens: 5}",
        "limits.max_tokens: expected the API's own name of it, 'longest'",
    ),
    ("limits: {max_tokens: many}", "limits.max_tokens: expected a number, got 'many'"),
    ("stream_usage: sometimes", "stream_usage: expected one of asked, always, never; got 'sometimes'"),
    ("models_route: absnt", "models_route: expected one of present, absent; got 'absnt', did you mean 'absent'?"),
    ("health_path: health", "health_path: expected a path such as /health without a slash at its end, got 'health'"),
]


@pytest.mark.parametrize(("rules", "message"), RULES)
def test_a_rule_about_a_hosted_api_that_would_not_act_is_named(rules: str, message: str) -> None:
    text = f"models:\n  - id: m\n    serving: {{kind: openai_api, adapter: {{{rules}}}}}\n"
    assert problems_of(text) == [f"r.yaml: models[0] (m).serving.adapter.{message} (line 3)"]


def test_rules_are_for_hosted_apis_and_those_of_a_consortium_need_a_source() -> None:
    text = "models:\n  - {id: m, serving: {kind: vllm, adapter: {drop: [seed]}}}\n"
    assert problems_of(text) == [
        "r.yaml: models[0] (m).serving.adapter: only for kind openai_api, but kind is vllm (line 2)"
    ]
    text = LG + "models:\n  - {id: m, consortium: lg, serving: {kind: openai_api, adapter: {drop: [seed]}}}\n"
    assert problems_of(text) == [
        "r.yaml: models[0] (m).serving.adapter: a fact without a source; expected source and confidence here or on its "
        "block (line 3)"
    ]


def test_every_shipped_hosted_api_has_rules_with_a_source() -> None:
    for model in shipped().routable():
        assert model.serving.adapter is not None
        assert model.serving.adapter.sourced is not None
        assert model.serving.adapter.requests_per_min in (60, 100)


def test_every_shipped_hosted_api_has_a_rule_for_each_field_that_only_vllm_knows() -> None:
    for model in shipped().routable():
        adapter = model.serving.adapter
        assert adapter is not None
        known = {"repetition_penalty", "top_k"} if model.id.startswith("HCX") else set()
        assert adapter.drop | adapter.refuse.keys() >= VLLM_FIELDS - known
        assert {"ignore_eos", "min_tokens"} <= adapter.refuse.keys(), "lengths that differ make speeds incomparable"
        assert not known & (adapter.drop | adapter.refuse.keys())


@pytest.mark.parametrize(("lines", "message"), ONE_MODEL)
def test_one_fault_in_a_model_is_one_complaint_with_place_and_remedy(lines: str, message: str) -> None:
    assert problems_of(with_model(lines)) == [f"r.yaml: models[0] (m).{message} (line 4)"]


WHOLE_FILE = [
    ("", "r.yaml: the file is empty; expected at least `models:` with one entry"),
    ("# nothing but a comment\n", "r.yaml: the file is empty; expected at least `models:` with one entry"),
    ("- a\n", "r.yaml: expected a mapping with `models:`, got a list"),
    ("models: []\n", "r.yaml: models: expected at least one entry (line 1)"),
    ("models: {}\n", "r.yaml: models: expected a list, got a mapping (line 1)"),
    ("models: [{id: a, serving: {kind: vllm}]\n", "r.yaml: not valid YAML: did not find expected ',' or '}' (line 1)"),
    ("models:\n  - id: a\n   serving: b\n", "r.yaml: not valid YAML: did not find expected '-' indicator (line 3)"),
    (b"models: []\n# \xff\n", "r.yaml: expected UTF-8 text, got byte 0xff (line 2)"),
    (SIMPLE + "gpu: []\n", "r.yaml: gpu: unknown field, did you mean 'gpus'? (line 5)"),
    (SIMPLE + "models: []\n", "r.yaml: models: given twice, first on line 1 (line 5)"),
    (SIMPLE + "as_of: 2026-13-45\n", "r.yaml: as_of: cannot be read as YAML: '2026-13-45' (line 5)"),
    (SIMPLE + "a: &a [*a]\n", "r.yaml: nested deeper than 32 levels (line 5)"),
    ("models: " + "[" * 100_000, "r.yaml: nested deeper than 32 levels (line 1)"),
    (SIMPLE + "---\n{}\n", "r.yaml: not valid YAML: but found another document (line 5)"),
]


@pytest.mark.parametrize(("text", "message"), WHOLE_FILE)
def test_a_broken_file_is_named_with_its_line(text: str | bytes, message: str) -> None:
    assert problems_of(text) == [message]


A_GPU = (
    "gpus:\n  - {id: h, name: H, memory: 81559 MiB, bandwidth_tb_per_s: 3.35, source: t, confidence: low}\nmodels:\n"
)
PAID_TWICE = (
    "expected none: the engine at http://e/v1 has its GPU on line 4 already and would be paid for twice; leave gpu and "
    "gpus out here, and the cost of this entry's calls is unknown"
)


@pytest.mark.parametrize(
    ("second", "where"),
    [
        ("  - {id: b, serving: {kind: vllm}, replicas: [{url: 'http://e', gpu: h}]}\n", "models[1] (b).replicas[0]"),
        ("  - {id: b, serving: {kind: vllm}, replicas: [{url: 'http://e2', gpu: h}]}\n", None),
        ("  - {id: b, serving: {kind: vllm}, replicas: [{url: 'http://e'}, {url: 'http://f', gpu: h}]}\n", None),
    ],
)
def test_the_gpu_of_one_engine_is_named_once(second: str, where: str | None) -> None:
    text = A_GPU + "  - {id: a, serving: {kind: vllm}, replicas: [{url: 'http://e', gpu: h}]}\n" + second
    if where is None:
        assert len(parse_registry(text.encode(), path="r.yaml").models) == 2
    else:
        assert problems_of(text) == [f"r.yaml: {where}.gpu: {PAID_TWICE} (line 5)"]


ENTRIES = [
    (
        "models:\n  - {id: a, serving: {kind: vllm}}\n  - {id: a, serving: {kind: vllm}}\n",
        "r.yaml: models[1] (a).id: expected an id of its own; models already has 'a' on line 2 (line 3)",
    ),
    (
        "models:\n  - {id: a, serving: {kind: vllm}, replicas: [{url: 'http://h', id: b/1}]}\n"
        "  - {id: b, serving: {kind: vllm}, replicas: [{url: 'http://h'}]}\n",
        "r.yaml: models[1] (b).replicas[0].id: expected an id of its own; replicas already has 'b/1' on line 2 "
        "(line 3)",
    ),
    (
        "models: [{id: a, serving: {kind: none}}]",
        "r.yaml: models[0] (a).serving.reason: expected why nothing can serve it, as kind is none (line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: none, reason: gone}, replicas: [{url: 'http://h'}]}]",
        "r.yaml: models[0] (a).replicas: expected no replicas, as serving.kind is none (line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: vlm}}]",
        "r.yaml: models[0] (a).serving.kind: expected one of vllm, openai_api, none; got 'vlm', did you mean 'vllm'? "
        "(line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: vllm, max_vllm: 0.28}}]",
        "r.yaml: models[0] (a).serving.max_vllm: expected a version in quotes such as '0.10.2', got 0.28 (line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: vllm, min_vllm: '0.9.2', max_vllm: '0.9.1'}}]",
        "r.yaml: models[0] (a).serving.max_vllm: expected 0.9.2 (min_vllm) or newer, got 0.9.1 (line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: openai_api, backend: vllm_native}}]",
        "r.yaml: models[0] (a).serving.backend: only for kind vllm, but kind is openai_api (line 1)",
    ),
    (
        "models: [{id: a, serving: {kind: openai_api, startup_s: 60}}]",
        "r.yaml: models[0] (a).serving.startup_s: only for kind vllm, but kind is openai_api (line 1)",
    ),
    (
        GPU + "models:\n  - {id: a, serving: {kind: vllm}, replicas: [{url: 'http://h', gpu: g-1}]}\n",
        "r.yaml: models[0] (a).replicas[0].gpu: 'g-1' is not in gpus, did you mean 'g1'? (line 3)",
    ),
    (
        LG + "models:\n  - {id: a, serving: {kind: vllm}, consortium: lg, shape: {layers: 3}}\n",
        "r.yaml: models[0] (a).shape.layers: a fact without a source; expected source and confidence here or on its "
        "block (line 3)",
    ),
    (
        LG + "models:\n  - {id: a, serving: {kind: vllm}, consortium: lg, released: 2026-01-01}\n",
        "r.yaml: models[0] (a).released: a fact without a source; expected source and confidence here or on its block "
        "(line 3)",
    ),
    (
        "sources: {CARD: the card}\nmodels:\n  - {id: a, serving: {kind: vllm}, "
        "shape: {layers: {value: 3, source: CADR, confidence: low}}}\n",
        "r.yaml: models[0] (a).shape.layers.source: 'CADR' is not in sources, did you mean 'CARD'? (line 3)",
    ),
    (
        "rates: [{base: USD, quote: KRX, rate: 1, date: 2026-11-01, source: a bank page, confidence: high}]\n" + SIMPLE,
        "r.yaml: rates[0].quote: 'KRX' is not in currencies, did you mean 'KRW'? (line 1)",
    ),
    (
        "rates: [{base: USD, quote: KRW, rate: 0, date: 2026-11-01, source: a bank page, confidence: high}]\n" + SIMPLE,
        "r.yaml: rates[0].rate: expected a number, more than 0, got 0 (line 1)",
    ),
]


@pytest.mark.parametrize(("text", "message"), ENTRIES)
def test_what_entries_mean_together_is_checked(text: str, message: str) -> None:
    assert problems_of(text) == [message]


def test_a_capability_that_does_not_exist_is_named_with_the_nearest() -> None:
    (problem,) = problems_of(with_model("capabilities: [chat, tolls]"))
    assert problem.startswith("r.yaml: models[0] (m).capabilities[1]: expected one of chat, completions, ")
    assert problem.endswith("got 'tolls', did you mean 'tools'? (line 4)")


def test_every_problem_of_the_file_is_reported_at_once() -> None:
    problems = problems_of((Path(__file__).parent / "registry" / "broken.yaml").read_text())
    expected = (Path(__file__).parent / "registry" / "broken.txt").read_text().splitlines()
    assert problems == expected


def test_a_wrong_value_that_may_be_a_secret_is_not_repeated() -> None:
    text = with_model(
        "replicas: [{url: 'http://me:hunter2@h', api_key_env: sk-hunter2}, {url: 'http://h', api_key: hunter2}]"
    )
    problems = problems_of(text)
    assert len(problems) == 3
    assert "hunter2" not in "".join(problems)


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = problems_of("\n".join(rows))
    assert "more than 100000 values, aliases counted as often as they are used" in problem


def test_merge_keys_are_refused_and_anchors_are_read() -> None:
    assert "merging with << is not supported" in problems_of(with_model("<<: {notes: x}"))[0]
    text = with_model("replicas: &r [{url: 'http://h'}]") + "  - {id: n, serving: {kind: none, reason: *word}}\n"
    assert len(parse_registry(("sources: {a: &word gone}\n" + text).encode(), path="r.yaml").models) == 2


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "expected at most" in problems_of(b"#" * (8 * 1024 * 1024 + 1))[0]


MISSING = "no such file; run where it is, or name it by SIMSA_REGISTRY"


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", MISSING), (tmp_path, "Is a directory")):
        with pytest.raises(RegistryInvalid) as caught:
            load_registry(path)
        assert caught.value.problems == [f"{path}: cannot be read: {why}"]


# --- arbitrary input ----------------------------------------------------------------------------------------

WORDS = sorted(
    {name for block in registry_json_schema()["$defs"].values() for name in block.get("properties", {})}
    | set(registry_json_schema()["properties"])
    | {"vllm", "none", "openai_api", "chat", "USD", "high", "ko", "en", "80 GB", "2.6B", "http://h", "", "a b", "믿:음"}
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8) | st.dates()
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=40,
)
sections = st.dictionaries(st.sampled_from(sorted(registry_json_schema()["properties"])), trees)


def parses_or_is_refused(data: bytes) -> None:
    try:
        assert parse_registry(data, path="r.yaml").models
        return
    except RegistryInvalid as refused:
        problems = refused.problems
    assert problems
    assert all(problem.startswith("r.yaml:") and "\n" not in problem for problem in problems)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(deadline=None)
def test_arbitrary_bytes_parse_or_are_refused(data: bytes) -> None:
    parses_or_is_refused(data)


@given(sections | trees)
@settings(deadline=None)
def test_arbitrary_structures_parse_or_are_refused(tree: Any) -> None:
    parses_or_is_refused(yaml.safe_dump(tree, allow_unicode=True).encode())


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_shipped_file_with_one_value_replaced_parses_or_is_refused(data: st.DataObject) -> None:
    tree = shipped_tree()
    section = data.draw(st.sampled_from(["gpus", "consortia", "models"]))
    entry = dict(tree[section][data.draw(st.integers(0, len(tree[section]) - 1))])
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(trees)
    small = {**tree, "models": tree["models"][:1], section: [entry]}
    parses_or_is_refused(yaml.safe_dump(small, allow_unicode=True).encode())


# --- the shipped file ---------------------------------------------------------------------------------------

REQUIRED = [
    "EXAONE-4.0-32B",
    "EXAONE-4.0-1.2B",
    "EXAONE-4.0.1-32B",
    "EXAONE-4.5-33B",
    "K-EXAONE-236B",
    "K-EXAONE-2.0",
    "HyperCLOVAX-SEED-Text-Instruct-0.5B",
    "HyperCLOVAX-SEED-Text-Instruct-1.5B",
    "HyperCLOVAX-SEED-Think-14B",
    "HyperCLOVAX-SEED-Vision-Instruct-3B",
    "HyperCLOVAX-SEED-Think-32B",
    "HyperCLOVAX-SEED-Omni-8B",
    "HCX-007",
    "HCX-005",
    "HCX-DASH-002",
    "A.X-4.0",
    "A.X-4.0-Light",
    "A.X-3.1-Light",
    "A.X-K1",
    "A.X-K2",
    "A.X-K2-Light",
    "A.X-4.0-VL-Light",
    "Llama-VARCO-8B-Instruct",
    "VARCO-VISION-2.0-14B",
    "VAETKI",
    "VAETKI-VL-7B-A1B",
    "VAETKI-20B",
    "Midm-2.0-Base-Instruct",
    "Midm-2.0-Mini-Instruct",
    "Midm-K-2.5-Pro",
    "kanana-1.5-2.1b-instruct-2505",
    "kanana-1.5-8b-instruct-2505",
    "kanana-1.5-v-3b-instruct",
    "kanana-1.5-15.7b-a3b-instruct",
    "kanana-2-30b-a3b-instruct",
    "kanana-2-30b-a3b-thinking",
    "kaist-none",
    "solar-pro2",
    "solar-pro3",
    "solar-pro4",
    "solar-mini4",
    "solar-pro-preview-instruct",
    "SOLAR-10.7B-Instruct-v1.0",
    "Solar-Open-100B",
    "Solar-Open2-250B",
    "Konan-LLM-OND",
    "Konan-LLM-ENT-11",
    "Motif-2.6B",
    "Motif-2.6b-v1.1-LC",
    "Motif-2-12.7B",
    "Motif-3",
]


def test_the_shipped_file_has_every_candidate_of_all_ten_consortia() -> None:
    registry = shipped()
    assert set(REQUIRED) <= registry.models.keys()
    assert len(registry.consortia) == 10
    assert {model.consortium_id for model in registry.models.values()} == set(registry.consortia)
    assert registry.as_of == date(2026, 11, 23)


def test_three_consortia_are_still_in_and_each_has_its_dated_way() -> None:
    consortia = shipped().consortia
    assert {c.id for c in consortia.values() if c.programme_status == "in"} == {
        "lg-ai-research",
        "sk-telecom",
        "upstage",
    }
    for consortium in consortia.values():
        days = [event.on for event in consortium.events]
        assert days == sorted(days)
        assert days[0] == date(2025, 7, 25)


@pytest.mark.parametrize("model", shipped().models.values(), ids=lambda model: model.id)
def test_every_fact_of_a_shipped_model_has_a_source(model: Model) -> None:
    shape = model.shape or ModelShape()
    derived = {"facts", "dtype", "active_params", "global_layers"}
    stated = {name for name in ModelShape.__dataclass_fields__ if getattr(shape, name) is not None} - derived
    assert stated <= shape.facts.keys()
    assert not model.released or "released" in model.facts
    assert not model.capabilities or "capabilities" in model.facts
    assert not (model.reasoning_parser or model.tool_parser) or "parsers" in model.facts
    assert model.weights.repo is None or model.weights.sourced is not None
    assert model.licence.id is None or model.licence.sourced is not None
    assert model.price is None or (model.price.sourced is not None and model.price.on is not None)
    assert model.serving.reason is None or "serving" in model.facts


def test_a_shape_nobody_published_is_marked_low_and_inferred() -> None:
    for name in ("HyperCLOVAX-SEED-Think-14B", "Midm-2.0-Base-Instruct", "Motif-2.6B"):
        shape = shipped().models[name].shape
        assert shape is not None
        assert {shape.facts[field].source for field in ("layers", "hidden", "ffn", "heads", "vocab")} == {"inferred"}
        assert shape.facts["layers"].confidence is Confidence.LOW


@pytest.mark.parametrize("name", ["kanana-1.5-8b-instruct-2505", "Midm-2.0-Mini-Instruct", "Konan-LLM-OND"])
def test_a_shape_that_only_memory_knows_stays_unknown(name: str) -> None:
    shape = shipped().models[name].shape
    assert shape is not None
    assert (shape.layers, shape.heads, shape.kv_heads) == (None, None, None)


def test_only_hosted_apis_ship_with_replicas_and_each_names_its_key() -> None:
    for model in shipped().routable():
        assert model.serving.kind is ServingKind.OPENAI_API
        assert all(replica.api_key_env for replica in model.replicas)


def test_the_vendors_addresses_are_those_of_their_chat_routes() -> None:
    models = shipped().models
    addresses = {name: models[name].replicas[0] for name in ("solar-pro2", "HCX-007")}
    routes = {name: replica.url + replica.base_path + "/chat/completions" for name, replica in addresses.items()}
    assert routes == {
        "solar-pro2": "https://api.upstage.ai/v1/chat/completions",
        "HCX-007": "https://clovastudio.stream.ntruss.com/v1/openai/chat/completions",
    }


def test_what_nothing_can_serve_says_why() -> None:
    models = shipped().models
    for name in ("kaist-none", "Motif-2.6B", "VAETKI", "HyperCLOVAX-SEED-Vision-Instruct-3B", "Konan-LLM-ENT-11"):
        assert not models[name].is_servable
        assert models[name].serving.reason
    assert models["Motif-2.6B"].serving.max_vllm == "0.10.2"
    assert models["VAETKI"].serving.min_vllm == models["VAETKI"].serving.max_vllm == "0.11.2"


def test_switches_keep_their_different_defaults() -> None:
    models = shipped().models
    defaults = {name: models[name].reasoning for name in ("EXAONE-4.0-32B", "K-EXAONE-236B")}
    assert {name: switch.default for name, switch in defaults.items() if switch} == {
        "EXAONE-4.0-32B": "false",
        "K-EXAONE-236B": "true",
    }


def test_gpu_facts_are_those_of_the_table() -> None:
    gpus = shipped().gpus
    assert gpus["h200-sxm"].memory_bytes == 143_771 * 2**20
    assert gpus["l40s"].memory_bytes == 46_068 * 2**20
    assert gpus["a100-80-sxm"].fp8_flops is None
    assert gpus["rebel100"].bf16_flops is None
    assert gpus["h100-sxm"].bandwidth_bytes_per_s == pytest.approx(3.35e12)
    assert [price.tier for price in gpus["h100-sxm"].prices] == ["list_median", "list_low", "list_high"]
    assert gpus["h100-sxm"].prices[0].per_hour == Decimal("2.95")
    assert gpus["rtx-4090"].prices == ()
    assert len(gpus) == 15


def test_no_exchange_rate_is_invented() -> None:
    assert shipped().rates == ()


# --- arithmetic over the shipped shapes ---------------------------------------------------------------------


def known(value: int | None) -> int:
    assert value is not None
    return value


def attention_params(shape: ModelShape) -> int:
    return 2 * known(shape.hidden) * known(shape.head_dim) * (known(shape.heads) + known(shape.kv_heads))


def latent_attention_params(shape: ModelShape, mla: MlaShape, *, nope: int, value: int) -> int:
    """DeepSeek-V2's projections: query down and up, latent down, key and value up, output."""
    hidden, heads = known(shape.hidden), known(shape.heads)
    query = known(mla.q_lora_rank) * (hidden + heads * (nope + mla.qk_rope_head_dim))
    latent = hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
    return query + latent + heads * (mla.kv_lora_rank * (nope + value) + value * hidden)


def counted_params(shape: ModelShape, attention: int) -> int:
    """Gated feed-forward, norms left out."""
    hidden, layers = known(shape.hidden), known(shape.layers)
    embeddings = known(shape.vocab) * hidden * (1 if shape.tied_embeddings else 2)
    dense, mixture = layers, 0
    if shape.moe:
        dense = shape.moe.dense_layers
        experts = shape.moe.experts + shape.moe.shared_experts
        mixture = (layers - dense) * experts * 3 * hidden * known(shape.moe.expert_ffn)
    feed_forward = dense * 3 * hidden * (shape.ffn or 0)
    return embeddings + layers * attention + feed_forward + mixture


FULL = [
    "EXAONE-4.0-32B",
    "EXAONE-4.0.1-32B",
    "EXAONE-4.0-1.2B",
    "HyperCLOVAX-SEED-Think-14B",
    "Midm-2.0-Base-Instruct",
    "solar-pro-preview-instruct",
    "Solar-Open-100B",
    "Motif-2.6B",
]


@pytest.mark.parametrize("name", FULL)
def test_a_full_shape_reproduces_the_published_parameter_count(name: str) -> None:
    shape = shipped().models[name].shape
    assert shape is not None
    assert counted_params(shape, attention_params(shape)) == pytest.approx(shape.params, rel=0.03)


def test_the_latent_attention_shape_of_ax_k1_reproduces_its_parameter_count() -> None:
    shape = shipped().models["A.X-K1"].shape
    assert shape is not None
    assert shape.mla is not None
    attention = latent_attention_params(shape, shape.mla, nope=128, value=128)
    assert counted_params(shape, attention) == pytest.approx(519e9, rel=0.01)
    assert known(shape.layers) * (shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim) * 2 == 70_272


def test_no_other_shipped_shape_is_full_and_unchecked() -> None:
    needed = ("params", "layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "tied_embeddings")
    full = {
        model.id
        for model in shipped().models.values()
        if model.shape and all(getattr(model.shape, name) is not None for name in needed)
    }
    assert full == {*FULL, "A.X-K1"}


# --- schema and derived files -------------------------------------------------------------------------------


def test_the_schema_file_is_the_exported_one() -> None:
    on_disk = json.loads((ROOT / "model_registry.schema.json").read_text())
    assert on_disk == registry_json_schema(), "write it anew: simsa registry schema > model_registry.schema.json"


def test_a_derived_registry_gives_replicas_only_where_it_was_told() -> None:
    given_replicas = {"EXAONE-4.0-32B": [{"url": "http://127.0.0.1:9001", "gpu": "h100-sxm", "gpus": 1}]}
    derived = parse_registry(
        derive_registry(SHIPPED.read_bytes(), given_replicas, keep_remote=["HCX-007"]), path="derived"
    )
    assert {model.id for model in derived.routable()} == {"EXAONE-4.0-32B", "HCX-007"}
    (replica,) = derived.models["EXAONE-4.0-32B"].replicas
    assert (replica.url, replica.gpu) == ("http://127.0.0.1:9001", "h100-sxm")
    assert derived.models["HCX-007"].replicas == shipped().models["HCX-007"].replicas


def test_a_derived_registry_says_everything_else_unchanged() -> None:
    own = {
        model.id: [{"url": replica.url, "base_path": replica.base_path, "api_key_env": replica.api_key_env}]
        for model in shipped().routable()
        for replica in model.replicas
    }
    derived = parse_registry(derive_registry(SHIPPED.read_bytes(), own), path="derived")
    assert derived.models == shipped().models
    assert (derived.consortia, derived.gpus, derived.sources) == (
        shipped().consortia,
        shipped().gpus,
        shipped().sources,
    )


def test_deriving_for_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(RegistryInvalid) as caught:
        derive_registry(SIMPLE.encode(), {"my-candidte": []})
    assert caught.value.problems == ["no model 'my-candidte' in the registry, did you mean 'my-candidate'?"]


# --- what gives a candidate away in an answer ---------------------------------------------------------------


def with_names(names: str) -> str:
    return LG.replace("source:", f"names: {names}, source:") + SIMPLE


def test_a_consortium_may_say_what_gives_it_away() -> None:
    text = with_names("{latin: [EXAONE, Solar], hangul: [엑사원], company: [LG, 엘지], ordinary: [Solar]}")
    names = parse_registry(text.encode(), path="r.yaml").consortia["lg"].names
    assert (names.latin, names.hangul) == (("EXAONE", "Solar"), ("엑사원",))
    assert (names.company, names.ordinary) == (("LG", "엘지"), ("Solar",))
    assert parse_registry((LG + SIMPLE).encode(), path="r.yaml").consortia["lg"].names.latin == ()


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            "{latin: [Solar], ordinary: [Sola]}",
            "ordinary[0]: 'Sola' is not among latin and hangul, did you mean 'Solar'?",
        ),
        ("{latin: [솔라]}", "latin[0]: expected a name in Latin letters, two signs or more, got '솔라'"),
        ("{hangul: [Solar]}", "hangul[0]: expected a name in Hangul, two signs or more, got 'Solar'"),
        ("{company: [L]}", "company[0]: expected a name in Latin letters or Hangul, two signs or more, got 'L'"),
        ("{latin: [Solar, Solar]}", "latin: expected each name once, got 'Solar' more often"),
        ("{latn: [Solar]}", "latn: unknown field"),
    ],
)
def test_a_wrong_name_is_told(names: str, complaint: str) -> None:
    (problem,) = problems_of(with_names(names))
    assert f"names.{complaint}" in problem


def test_every_shipped_consortium_has_a_name_to_be_hidden() -> None:
    for consortium in shipped().consortia.values():
        assert consortium.names.company, consortium.id
        assert consortium.names.latin or consortium.id == "kaist"


# --- energy -------------------------------------------------------------------------------------------------

METER = "{url: 'http://node:9400/metrics', gpus: [0]}"


def metered_models(*meters: str, gpus: int = 1, kind: str = "vllm") -> str:
    """A file with one model a meter, each on a line of its own."""
    replicas = [f"[{{url: 'http://e{n}', gpus: {gpus}, energy: {meter}}}]" for n, meter in enumerate(meters)]
    entries = [f"  - {{id: m{n}, serving: {{kind: {kind}}}, replicas: {each}}}" for n, each in enumerate(replicas)]
    return "\n".join(["models:", *entries, ""])


def meters_of(text: str) -> list[EnergyMeter | None]:
    models = parse_registry(text.encode(), path="r.yaml").models
    return [model.replicas[0].energy for model in models.values()]


def test_energy_counters_are_named_by_address_and_index_or_uuid() -> None:
    uuid, other = "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43", "GPU-1f027ee8-6e1e-2b8c-0108-3d370e5f0418"
    text = metered_models(
        "{url: 'http://node:9400', gpus: [0, '1']}", f"{{url: 'http://o', gpus: [{uuid}, {other}]}}", gpus=2
    )
    assert meters_of(text) == [
        EnergyMeter("http://node:9400/metrics", ("0", "1")),
        EnergyMeter("http://o/metrics", (uuid, other)),
    ]
    joules = metered_models("{url: 'http://o/m', gpus: [0], metric: energy_joules_total, unit: J}")
    assert meters_of(joules) == [EnergyMeter("http://o/m", ("0",), "energy_joules_total", 1000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            metered_models("{url: node, gpus: [0]}"),
            "url: expected the address of an exporter's page such as http://node:9400/metrics, got 'node' (line 2)",
        ),
        (metered_models("{url: 'http://u:p@h', gpus: [0]}"), "url: expected an address without credentials (line 2)"),
        (metered_models("{url: 'http://h', gpus: []}"), "gpus: expected at least one GPU's index or UUID (line 2)"),
        (
            metered_models("{url: 'http://h', gpus: [first]}"),
            "gpus[0]: expected a GPU's index such as 0, or its UUID such as "
            "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43, got 'first' (line 2)",
        ),
        (metered_models("{url: 'http://h', gpus: [0, 0]}", gpus=2), "gpus: expected each GPU once (line 2)"),
        (
            metered_models(METER, gpus=2),
            "gpus: expected as many as the replica's gpus (2), got 1: the energy of some would pass for that of all "
            "(line 2)",
        ),
        (
            metered_models("{url: 'http://h', gpus: [0], metric: other_total}"),
            "unit: missing; expected mJ or J, the unit of other_total (line 2)",
        ),
        (
            metered_models("{url: 'http://h', gpus: [0], unit: J}"),
            "unit: expected mJ, in which DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counts, or nothing (line 2)",
        ),
        (
            metered_models("{url: 'http://h', gpus: [0], unit: kWh}"),
            "unit: expected one of mJ, J; got 'kWh' (line 2)",
        ),
        (
            metered_models(METER, kind="openai_api"),
            "expected none: the GPUs behind a hosted API are not seen from here (line 2)",
        ),
    ],
)
def test_a_fault_of_an_energy_block_is_one_complaint_with_place_and_remedy(text: str, message: str) -> None:
    dot = "" if message.startswith("expected none") else "."
    place = f"r.yaml: models[0] (m0).replicas[0].energy{dot or ': '}"
    assert problems_of(text) == [place + message]


def test_a_counter_belongs_to_one_replica() -> None:
    assert problems_of(metered_models(METER, METER)) == [
        "r.yaml: models[1] (m1).replicas[0].energy.gpus: the counter of GPU 0 at http://node:9400/metrics belongs to "
        "the replica on line 2 already and would be counted twice; leave energy out here (line 3)"
    ]


@pytest.mark.parametrize(
    "spelling",
    [
        "{url: 'http://NODE:9400/metrics', gpus: [0]}",
        "{url: 'HTTP://node:9400//metrics/', gpus: [0]}",
        "{url: 'http://node:9400', gpus: [0], metric: my_joules, unit: J}",
    ],
)
def test_another_spelling_of_a_counters_place_is_the_same_counter(spelling: str) -> None:
    (problem,) = problems_of(metered_models(METER, spelling))
    assert "the counter of GPU 0 at http://node:9400/metrics belongs to the replica on line 2 already" in problem


def test_indexes_and_uuids_are_not_mixed_at_one_exporter_where_they_could_name_one_card() -> None:
    by_uuid = "{url: 'http://node:9400/metrics', gpus: [GPU-aaa]}"
    assert problems_of(metered_models(METER, by_uuid)) == [
        "r.yaml: models[1] (m1).replicas[0].energy.gpus: expected indexes, as on line 2, or UUIDs in both places: an "
        "index and a UUID may name one card, which would be counted twice (line 3)"
    ]
    mixed = "{url: 'http://node:9400/metrics', gpus: [0, GPU-aaa]}"
    assert problems_of(metered_models(mixed, gpus=2)) == [
        "r.yaml: models[0] (m0).replicas[0].energy.gpus: expected indexes alone or UUIDs alone: an index and a UUID "
        "may name one card, which would be counted twice (line 2)"
    ]
    elsewhere = "{url: 'http://other:9400/metrics', gpus: [GPU-aaa]}"
    assert len(meters_of(metered_models(METER, elsewhere))) == 2


def test_a_price_of_electricity_is_optional_and_needs_currency_day_and_source() -> None:
    block = "electricity: {per_kwh: 182.7, currency: KRW, date: 2026-01-02, source: a bill, confidence: high}\n"
    assert parse_registry(SIMPLE.encode(), path="r.yaml").electricity is None
    found = parse_registry((SIMPLE + block).encode(), path="r.yaml").electricity
    assert found is not None
    assert (found.per_kwh, found.currency, found.sourced.source) == (Decimal("182.7"), "KRW", "a bill")
    assert problems_of(SIMPLE + "electricity: {per_kwh: 0, currency: KRW}\n") == [
        "r.yaml: electricity.per_kwh: expected a number, more than 0, got 0 (line 5)",
        "r.yaml: electricity.date: missing; expected the day of the price (line 5)",
    ]
    unsourced = block.replace("KRW", "CHF").replace(", source: a bill, confidence: high", "")
    assert [line.split(": ", 2)[1] for line in problems_of(SIMPLE + unsourced)] == [
        "electricity.currency",
        "electricity",
    ]
