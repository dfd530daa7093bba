"""The shipped rules for Upstage and CLOVA Studio, held against stand-ins that behave as their vendors publish."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from clients import RawClient
from gateways import RunningGateway, running_gateway
from openai import AsyncOpenAI
from remote_apis import KEY, ClovaStudio, HostedApi, Upstage, with_shipped_rules
from scripted_replies import Reply

from gateway.domain.records import Call, Usage

MESSAGES: Any = [{"role": "user", "content": "안녕하세요"}]


@asynccontextmanager
async def door(
    api: HostedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *models: str
) -> AsyncIterator[tuple[RunningGateway, AsyncOpenAI]]:
    """A gateway in front of the stand-in, with the shipped rules, and the official client at its door."""
    monkeypatch.setenv("VENDOR_KEY", KEY)
    async with api, running_gateway(tmp_path, [with_shipped_rules(name, api.url) for name in models]) as gateway:
        await gateway.until_live(*models)
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            yield gateway, client


async def post(gateway: RunningGateway, body: dict[str, Any]) -> Any:
    async with RawClient(gateway.url) as client:
        return await client.request("POST", "/v1/chat/completions", body={"messages": MESSAGES, **body})


# --- CLOVA Studio -------------------------------------------------------------------------------------------


async def test_clova_gets_only_fields_that_it_supports_and_the_caller_hears_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clova = ClovaStudio()
    async with door(clova, tmp_path, monkeypatch, "HCX-005") as (_, client):
        raw = await client.chat.completions.with_raw_response.create(
            model="HCX-005",
            messages=MESSAGES,
            user="someone",
            store=False,
            metadata={"a": "b"},
            frequency_penalty=0,
            logprobs=False,
            temperature=0.3,
            seed=7,
        )
        answer = raw.parse()
        assert answer.choices[0].message.content == "안녕하세요"
        dropped = raw.headers["x-simsa-dropped"].split(",")
        assert sorted(dropped) == ["frequency_penalty", "logprobs", "metadata", "store", "user"]
        assert clova.asked() == [{"model": "HCX-005", "messages": MESSAGES, "temperature": 0.3, "seed": 7}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logprobs", True),
        ("logit_bias", {"5": 1}),
        ("response_format", {"type": "json_object"}),
    ],
)
async def test_what_clova_cannot_honour_is_refused_by_name_before_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    clova = ClovaStudio()
    async with door(clova, tmp_path, monkeypatch, "HCX-005") as (gateway, _):
        answer = await post(gateway, {"model": "HCX-005", field: value})
        error = answer.json()["error"]
        assert (answer.status, error["type"], error["code"], error["param"]) == (
            400,
            "invalid_request_error",
            "unsupported_field",
            field,
        )
        assert "HCX-005" in error["message"]
        assert field in error["message"]
        assert clova.asked() == []


async def test_clova_streams_without_being_asked_for_usage_and_nothing_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clova = ClovaStudio()
    async with door(clova, tmp_path, monkeypatch, "HCX-DASH-002") as (gateway, client):
        stream = await client.chat.completions.create(
            model="HCX-DASH-002", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert stream.response.headers["x-simsa-dropped"] == "stream_options"
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "안녕하세요"
        assert clova.asked() == [{"model": "HCX-DASH-002", "messages": MESSAGES, "stream": True}]
        call = await gateway.call()
        assert call.usage == Usage(None, 3, None, None, "counted")
        assert (call.cost.amount, call.cost.reason) == (None, "the number of prompt tokens is unknown")


async def test_without_the_rules_clova_refuses_every_stream_and_its_words_arrive_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    async with ClovaStudio() as clova:
        bare = {**with_shipped_rules("HCX-005", clova.url), "serving": {"kind": "openai_api"}}
        async with running_gateway(tmp_path, [bare]) as gateway:
            await gateway.until_live("HCX-005")
            answer = await post(gateway, {"model": "HCX-005", "stream": True})
            assert answer.status == 400
            assert answer.json()["error"] == {
                "message": "Unsupported parameter",
                "type": None,
                "param": None,
                "code": "40002",
            }


async def test_the_reasoning_model_gets_its_own_name_for_the_longest_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clova = ClovaStudio()
    async with door(clova, tmp_path, monkeypatch, "HCX-007") as (gateway, client):
        await client.chat.completions.create(model="HCX-007", messages=MESSAGES, max_tokens=900)
        await client.chat.completions.create(
            model="HCX-007", messages=MESSAGES, max_completion_tokens=800, extra_body={"max_tokens": None}
        )
        assert [asked.get("max_completion_tokens") for asked in clova.asked()] == [900, 800]
        assert all("max_tokens" not in asked for asked in clova.asked())
        both = await post(gateway, {"model": "HCX-007", "max_tokens": 1, "max_completion_tokens": 2})
        assert (both.status, both.json()["error"]["param"]) == (400, "max_tokens")
        assert "send one of them" in both.json()["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("ignore_eos", True), ("min_tokens", 64), ("structured_outputs", {"a": 1})]
)
async def test_what_upstage_would_ignore_and_what_it_changes_is_refused_before_anyone_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path, monkeypatch, "solar-pro2", "solar-pro4") as (gateway, _):
        answer = await post(gateway, {"model": "solar-pro2", field: value})
        assert (answer.status, answer.json()["error"]["param"]) == (400, field)
        if field != "structured_outputs":
            body = {"models": ["solar-pro2", "solar-pro4"], "prompt": "x", "params": {"max_tokens": 64, field: value}}
            async with RawClient(gateway.url) as client:
                refused = await client.request("POST", "/api/comparisons", body=body)
            assert (refused.status, refused.json()["error"]["code"]) == (400, "unsupported_field")
        assert upstage.asked() == []


async def test_options_of_a_chat_template_that_an_api_has_not_are_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path, monkeypatch, "solar-pro2", "solar-pro4") as (gateway, _):
        params = {"chat_template_kwargs": {"enable_thinking": False}, "ignore_eos": False}
        body = {"models": ["solar-pro2", "solar-pro4"], "prompt": "x", "params": params}
        async with RawClient(gateway.url) as client:
            whole = (await client.request("POST", "/api/comparisons", body=body)).json()
        assert [sorted(side["dropped"]) for side in whole["sides"]] == [["chat_template_kwargs", "ignore_eos"]] * 2
        assert all("chat_template_kwargs" not in asked for asked in upstage.asked())


@pytest.mark.parametrize(
    ("field", "value", "most"),
    [("max_tokens", 40000, 32768), ("temperature", 1.5, 1), ("n", 2, 1), ("seed", 2**32, 2**32 - 1)],
)
async def test_a_value_above_the_published_limit_is_refused_never_cut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: float, most: int
) -> None:
    clova = ClovaStudio()
    async with door(clova, tmp_path, monkeypatch, "HCX-007") as (gateway, _):
        answer = await post(gateway, {"model": "HCX-007", field: value})
        error = answer.json()["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "above_limit", field)
        assert f"at most {most} for 'HCX-007', got {value}" in error["message"]
        assert (await post(gateway, {"model": "HCX-007", field: most})).status == 200
        assert len(clova.asked()) == 1


async def test_a_whole_answer_of_clova_is_billed_in_won_by_its_list_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door(ClovaStudio(), tmp_path, monkeypatch, "HCX-DASH-002") as (gateway, _):
        answer = await post(gateway, {"model": "HCX-DASH-002"})
        assert answer.header("x-simsa-cost") == "0.008000 KRW; basis=api_price"  # (20 × 250 + 3 × 1000) / 10^6


# --- Upstage ------------------------------------------------------------------------------------------------


async def test_upstage_would_ignore_a_seed_so_the_caller_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path, monkeypatch, "solar-pro2") as (gateway, client):
        raw = await client.chat.completions.with_raw_response.create(
            model="solar-pro2", messages=MESSAGES, seed=7, reasoning_effort="high"
        )
        assert raw.headers["x-simsa-dropped"] == "seed"
        assert upstage.asked() == [{"model": "solar-pro2", "messages": MESSAGES, "reasoning_effort": "high"}]
        refused = await post(gateway, {"model": "solar-pro2", "logprobs": True})
        assert (refused.status, refused.json()["error"]["param"]) == (400, "logprobs")


async def test_upstages_usage_is_asked_for_kept_from_who_did_not_ask_and_billed_with_its_cached_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path, monkeypatch, "solar-pro2") as (gateway, client):
        stream = await client.chat.completions.create(model="solar-pro2", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
        assert all(chunk.usage is None for chunk in chunks)
        assert upstage.asked()[0]["stream_options"] == {"include_usage": True}
        assert (await gateway.call()).usage == Usage(20, 3, None, None, "engine")
        whole = await post(gateway, {"model": "solar-pro2"})
        # (12 × 0.15 + 8 × 0.015 + 3 × 0.60) / 10^6
        assert whole.header("x-simsa-cost") == "0.000003720 USD; basis=api_price"


# --- what both may answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("api", [Upstage, ClovaStudio])
async def test_a_key_that_stops_working_is_the_operators_matter_and_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: type[HostedApi]
) -> None:
    vendor, model = api(), "solar-pro2" if api is Upstage else "HCX-005"
    async with door(vendor, tmp_path, monkeypatch, model) as (gateway, client):
        vendor.script(f"{vendor.base_path}/chat/completions", vendor.unauthorised())
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=model, messages=MESSAGES)
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_auth")
        assert KEY not in json.dumps(caught.value.body)
        call: Call = await gateway.call()
        assert KEY not in repr(call)


async def test_a_spent_credit_at_upstage_is_the_operators_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path, monkeypatch, "solar-pro2") as (gateway, _):
        upstage.script("/v1/chat/completions", upstage.out_of_credit())
        answer = await post(gateway, {"model": "solar-pro2"})
        assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_auth")


async def test_a_vendors_429_becomes_503_with_its_retry_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstage = Upstage()
    async with door(upstage, tmp_path / "upstage", monkeypatch, "solar-pro2") as (gateway, _):
        upstage.script("/v1/chat/completions", upstage.too_many(17))
        answer = await post(gateway, {"model": "solar-pro2"})
        assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_busy")
        assert answer.header("retry-after") == "17"
        assert len(upstage.asked()) == 1
        assert gateway.services.fleet.live("solar-pro2"), "busy is not dead"
    clova = ClovaStudio()
    async with door(clova, tmp_path / "clova", monkeypatch, "HCX-005") as (gateway, _):
        clova.script("/v1/openai/chat/completions", clova.too_many())
        answer = await post(gateway, {"model": "HCX-005", "stream": True})
        assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_busy")


async def test_a_comparison_says_for_each_side_what_was_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", KEY)
    async with Upstage() as upstage, ClovaStudio() as clova:
        models = [with_shipped_rules("solar-pro2", upstage.url), with_shipped_rules("HCX-005", clova.url)]
        async with running_gateway(tmp_path, models) as gateway, RawClient(gateway.url) as client:
            await gateway.until_live("solar-pro2", "HCX-005")
            body = {"models": ["solar-pro2", "HCX-005"], "prompt": "안녕하세요", "params": {"seed": 7}}
            done = (await client.request("POST", "/api/comparisons", body=body)).json()
            assert [(side["status"], side["dropped"]) for side in done["sides"]] == [("ok", ["seed"]), ("ok", [])]
            assert {side["provenance"] for side in done["sides"]} == {"unknown"}
            body["params"] = {"frequency_penalty": 1.0}
            refused = await client.request("POST", "/api/comparisons", body=body)
            assert (refused.status, refused.json()["error"]["param"]) == (400, "frequency_penalty")
            assert "HCX-005" in refused.json()["error"]["message"]
            assert len(upstage.asked()) == 1, "nobody is asked when one side cannot be"


# --- an API without a list of models ------------------------------------------------------------------------


def unlisted(url: str, **rules: Any) -> dict[str, Any]:
    adapter = {"models_route": "absent", **rules}
    return {"id": "m", "serving": {"kind": "openai_api", "adapter": adapter}, "replicas": [{"url": url}]}


async def test_an_api_without_a_list_of_models_is_judged_by_its_health_path(tmp_path: Path) -> None:
    async with Upstage() as api:
        api.script("/v1/status", Reply.json({}, status=500), Reply.json({}))
        async with running_gateway(tmp_path, [unlisted(api.url, health_path="/status")]) as gateway:
            await gateway.until_live("m")
            assert api.requests_to("/v1/models") == []
            assert len(api.requests_to("/v1/status")) == 2


@pytest.mark.parametrize(("status", "is_live"), [(404, True), (405, True), (401, False), (500, False)])
async def test_an_api_with_neither_is_well_when_it_answers_and_takes_the_key(
    tmp_path: Path, status: int, is_live: bool
) -> None:
    async with Upstage() as api:
        api.script("/v1", Reply.json({}, status=status))
        async with running_gateway(tmp_path, [unlisted(api.url)]) as gateway:
            if is_live:
                await gateway.until_live("m")
            else:
                await gateway.until(lambda: gateway.services.fleet.states_of("m")[0].reason.endswith(str(status)))
                assert gateway.services.fleet.live("m") == []
