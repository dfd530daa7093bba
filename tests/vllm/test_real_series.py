"""The committed page of series, which rules and dashboards are held against, names what a real engine sends."""

from __future__ import annotations

from pathlib import Path

from clients import RawClient
from prometheus_client.parser import text_string_to_metric_families
from real_engines import RealEngine

PAGE = Path(__file__).parent.parent / "vllm_0_32_metrics.txt"
LABELLED = ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:generation_tokens", "vllm:request_success")


def kinds(page: str) -> dict[str, str]:
    return {family.name: family.type for family in text_string_to_metric_families(page)}


def label_names(page: str) -> dict[str, set[str]]:
    return {
        family.name: {name for sample in family.samples for name in sample.labels}
        for family in text_string_to_metric_families(page)
        if family.name in LABELLED
    }


async def test_the_committed_series_are_those_of_the_engine(llama: RealEngine) -> None:
    async with RawClient(llama.url) as client:
        await client.request(
            "POST",
            "/v1/completions",
            body={"model": llama.model.serving.served_model_name, "prompt": "가", "max_tokens": 1},
        )
        shown = (await client.request("GET", "/metrics")).body.decode()
    committed = PAGE.read_text(encoding="utf-8")
    missing = {name: kind for name, kind in kinds(committed).items() if kinds(shown).get(name) != kind}
    assert not missing, "the engine sends these no more, or as another kind"
    assert label_names(shown) == label_names(committed)
