"""Each architecture of the candidates on real vLLM, through the gateway: one candidate for each different stand-in.

What a test shows stands in its `shows` mark and becomes a column of docs/candidates.md. What the engines' parsers make
of an answer is test_real_parsers.py's. Random weights say nothing of quality.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures_shown import EYES, WINDOWED
from clients import RawClient
from doors import CHAT, Door, text_of
from questions import LIMIT, QUESTION, WITH_USAGE, ask, everyone, prompt_length, reasoning_off, said_in, with_picture
from real_engines import HYBRID, LLAMA, MAX_MODEL_LEN, RealEngine, RealEngines, gateway_before, until_running

from gateway.checkpoints.architectures import WINDOW
from gateway.checkpoints.tokenizer import IMAGE, tokenizer_vocabulary
from gateway.domain.records import CallStatus, Provenance

# --- answers and their usage --------------------------------------------------------------------------------


@pytest.mark.shows("architecture")
@everyone
def test_vllm_resolves_the_candidates_own_architecture_or_its_transformers_backend(
    engine: RealEngine, model_id: str
) -> None:
    by_backend = engine.model.serving.backend == "vllm_transformers"
    wanted = "TransformersMoEForCausalLM" if by_backend else engine.model.weights.architecture
    assert f"Resolved architecture: {wanted}\n" in engine.log.read_text()


@pytest.mark.shows("chat")
@everyone
async def test_a_whole_and_a_streamed_chat_say_the_same_and_count_the_same(
    door: Door, engine: RealEngine, model_id: str
) -> None:
    whole = await door.answered(ask(model_id))
    events = await door.streamed(ask(model_id, stream=True, **WITH_USAGE))
    usage = next(event["usage"] for event in events if event.get("usage"))
    sent = await prompt_length(engine, ask(model_id)["messages"])
    for counted in (whole["usage"], usage):
        assert (counted["prompt_tokens"], counted["completion_tokens"]) == (sent, LIMIT)
    assert said_in(whole) == text_of(events, "reasoning") + text_of(events)
    calls = await door.gateway.calls(2)
    assert {call.opened.streamed for call in calls} == {False, True}
    for call in calls:
        assert (call.status, call.finish_reason, call.provenance) == (CallStatus.OK, "length", Provenance.STAND_IN)
        assert (call.usage.source, call.usage.completion_tokens) == ("engine", LIMIT)
        assert call.usage.prompt_tokens == usage["prompt_tokens"]


@pytest.mark.shows("window")
@pytest.mark.parametrize("model_id", WINDOWED)
async def test_a_prompt_and_an_answer_longer_than_the_window_are_read_and_counted_to_the_end(
    door: Door, engine: RealEngine, model_id: str
) -> None:
    turns = [{"role": "user", "content": "가나다라 " * (WINDOW // 4)}]
    long = reasoning_off(model_id) | ask(model_id, messages=turns, max_tokens=WINDOW + LIMIT)
    whole = await door.answered(long)
    events = await door.streamed({**long, "stream": True, **WITH_USAGE})
    sent = await prompt_length(engine, turns, **reasoning_off(model_id))
    assert sent > WINDOW
    for usage in (whole["usage"], events[-1]["usage"]):
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (sent, WINDOW + LIMIT)
    assert said_in(whole) == text_of(events, "reasoning") + text_of(events)


@pytest.mark.shows("logprobs")
@everyone
async def test_every_token_of_a_stream_comes_with_its_log_probabilities(door: Door, model_id: str) -> None:
    events = await door.streamed(ask(model_id, stream=True, logprobs=True, top_logprobs=2))
    choices = [choice for event in events for choice in event["choices"] if choice.get("logprobs")]
    tokens = [token for choice in choices for token in choice["logprobs"]["content"]]
    assert len(tokens) == LIMIT
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)


@pytest.mark.shows("too_long")
@everyone
async def test_a_prompt_that_is_too_long_gets_the_engines_own_400_unchanged(
    door: Door, engine: RealEngine, model_id: str
) -> None:
    body = ask(model_id, messages=[{"role": "user", "content": "가나다라 " * MAX_MODEL_LEN}])
    async with RawClient(engine.url) as client:
        own = await client.request("POST", CHAT, body=body)
    passed = await door.ask(body)
    assert (passed.status, passed.body) == (400, own.body)
    assert "maximum context length" in passed.json()["error"]["message"]
    call = await door.call()
    assert (call.status, call.error_code) == (CallStatus.ERROR, "engine_refused")


# --- leaving, comparing, seeing -----------------------------------------------------------------------------


@pytest.mark.shows("leaving")
@everyone
async def test_a_client_that_leaves_mid_stream_frees_the_engine(
    tmp_path: Path, engine: RealEngine, model_id: str
) -> None:
    long = ask(model_id, max_tokens=MAX_MODEL_LEN - 200, stream=True)
    async with gateway_before(tmp_path, engine) as gateway:
        async with RawClient(gateway.url) as client:
            await client.start("POST", CHAT, body=long)
            for _ in range(4):
                assert await client.next_event()
            await until_running(engine, 1)
            client.leave()
            await until_running(engine, 0)
        call = await gateway.call()
        assert (call.status, call.usage.source) == (CallStatus.CANCELLED, "counted")
        assert call.usage.completion_tokens is not None
        assert call.usage.completion_tokens < long["max_tokens"]


@pytest.mark.shows("comparison")
@everyone
async def test_it_is_one_side_of_a_comparison(
    tmp_path: Path, engines: RealEngines, engine: RealEngine, model_id: str
) -> None:
    other = engines[HYBRID if model_id == LLAMA else LLAMA]
    params = {"max_tokens": LIMIT, "seed": 7, "ignore_eos": True}
    body = {"models": [other.model_id, model_id], "prompt": QUESTION, "params": params}
    async with gateway_before(tmp_path, other, engine) as gateway, RawClient(gateway.url) as client:
        answer = await client.request("POST", "/api/comparisons", body=body)
    assert answer.status == 200, answer.body
    for side in answer.json()["sides"]:
        assert (side["status"], side["provenance"], side["finish_reason"]) == ("ok", "stand_in", "length")
        assert (side["usage"]["completion_tokens"], side["usage"]["source"]) == (LIMIT, "engine")
        assert side["output"]["content"] or side["output"]["reasoning"]
        assert 0 < side["timing"]["ttft_s"] < side["timing"]["e2e_s"]


@pytest.mark.shows("image")
@pytest.mark.parametrize(("size", "tokens"), [((56, 56), 4), ((300, 80), 14)])
@pytest.mark.parametrize("model_id", EYES)
async def test_an_image_as_a_data_url_takes_its_places_in_the_prompt_and_is_counted(
    door: Door, model_id: str, size: tuple[int, int], tokens: int
) -> None:
    """A token for each 28 x 28 pixels of its resized form. What is in it, random weights are too faint to tell."""
    seen = ask(model_id, messages=[with_picture(QUESTION, *size)], return_token_ids=True)
    whole, plain = await door.answered(seen), await door.answered(ask(model_id))
    events = await door.streamed({**seen, "stream": True, **WITH_USAGE})
    assert whole["prompt_token_ids"].count(tokenizer_vocabulary()[IMAGE]) == tokens
    # One more for the line break between image and text.
    assert whole["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"] == tokens + 1
    assert events[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert said_in(whole) == text_of(events)
    assert {call.usage.prompt_tokens for call in await door.gateway.calls(3)} == {
        each["usage"]["prompt_tokens"] for each in (whole, plain)
    }


@pytest.mark.shows("image")
@pytest.mark.parametrize("model_id", EYES)
async def test_a_comparison_about_an_image_has_the_answer_of_who_sees_and_the_refusal_of_who_does_not(
    tmp_path: Path, engines: RealEngines, engine: RealEngine, model_id: str
) -> None:
    blind = engines[LLAMA]
    params = {"max_tokens": LIMIT, "seed": 7, "ignore_eos": True}
    body = {"models": [blind.model_id, model_id], "messages": [with_picture(QUESTION, 56, 56)], "params": params}
    async with gateway_before(tmp_path, blind, engine) as gateway, RawClient(gateway.url) as client:
        answer = await client.request("POST", "/api/comparisons", body=body)
    assert answer.status == 200, answer.body
    refused, seen = answer.json()["sides"]
    assert (refused["status"], seen["status"]) == ("error", "ok")
    assert "not a multimodal model" in refused["error"]["message"]
    assert seen["output"]["content"]
    assert seen["usage"]["completion_tokens"] == LIMIT
