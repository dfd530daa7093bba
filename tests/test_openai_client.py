"""The official OpenAI client against the gateway, sync and async: what its users read, catch and rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from engines import CLOSE, DONE, Reply, ScriptedEngine, chat_answer, chat_chunk, error_body, usage_body, usage_chunk
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from gateway.domain.records import CallStatus, Usage

CHAT = "/v1/chat/completions"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "안녕하세요"}]
KEY = "sk-of-the-gate"
T = TypeVar("T")


@asynccontextmanager
async def door(
    tmp_path: Path, *, model: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, ScriptedEngine]]:
    """A gateway that asks for KEY, in front of one scripted engine."""
    async with (
        ScriptedEngine() as engine,
        running_gateway(tmp_path, [entry("m", engine.url, **(model or {}))], admin_key=KEY, **settings) as gateway,
    ):
        await gateway.until_live("m")
        yield gateway, engine


def asynchronous(gateway: RunningGateway, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", **{"api_key": KEY, "max_retries": 0, **options})


async def synchronous(gateway: RunningGateway, use: Callable[[OpenAI], T], **options: Any) -> T:
    """What `use` makes of the blocking client, in a thread of its own: the gateway lives in this loop."""

    def work() -> T:
        with OpenAI(base_url=f"{gateway.url}/v1", **{"api_key": KEY, "max_retries": 0, **options}) as client:
            return use(client)

    return await asyncio.to_thread(work)


# --- answers ------------------------------------------------------------------------------------------------


async def test_whole_chat_and_completion_carry_text_usage_and_request_id(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        chat = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=3)
        assert (chat.model, chat.choices[0].message.content) == ("m", "word0 word1 word2 ")
        assert chat.choices[0].finish_reason == "length"
        assert chat.usage is not None
        assert (chat.usage.prompt_tokens, chat.usage.completion_tokens, chat.usage.total_tokens) == (12, 3, 15)
        text = await client.completions.create(model="m", prompt="옛날 옛적에", max_tokens=2)
        assert text.choices[0].text == "word0 word1 "
        assert {call.opened.request_id for call in await gateway.calls(2)} == {chat._request_id, text._request_id}


async def test_stream_is_read_token_by_token_and_ends(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(
            f"word{i} " for i in range(8)
        )
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert all(chunk.usage is None for chunk in chunks), "nobody asked for usage"
        assert (await gateway.call()).usage == Usage(12, 8, None, None, "engine")


async def test_stream_with_include_usage_ends_with_the_usage(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        for create in (
            client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            ),
            client.completions.create(model="m", prompt="hi", stream=True, stream_options={"include_usage": True}),
        ):
            chunks: list[Any] = [chunk async for chunk in await create]
            *others, last = chunks
            assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 12, 8)
            assert all(chunk.usage is None for chunk in others)


async def test_blocking_client_reads_whole_answers_and_streams(tmp_path: Path) -> None:
    def use(client: OpenAI) -> tuple[str | None, str, str]:
        chat = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2)
        with client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2, stream=True) as stream:
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        parts = client.completions.create(model="m", prompt="hi", max_tokens=2, stream=True)
        return chat.choices[0].message.content, streamed, "".join(part.choices[0].text for part in parts)

    async with door(tmp_path) as (gateway, _):
        assert await synchronous(gateway, use) == ("word0 word1 ",) * 3
        assert {call.status for call in await gateway.calls(3)} == {CallStatus.OK}


async def test_several_choices_stay_apart(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        whole = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, max_tokens=2)
        assert [choice.index for choice in whole.choices] == [0, 1]
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, max_tokens=2, stream=True)
        texts = {0: "", 1: ""}
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == {0: "word0 word1 ", 1: "word0 word1 "}


async def test_streamed_tool_call_and_reasoning_arrive_whole(tmp_path: Path) -> None:
    def call(**function: str) -> list[dict[str, Any]]:
        return [{"index": 0, "id": "call-1", "type": "function", "function": function}]

    events = (
        chat_chunk("", role="assistant"),
        chat_chunk(reasoning="날씨를 "),
        chat_chunk(reasoning="알아보자"),
        chat_chunk(tool_calls=call(name="weather", arguments="")),
        chat_chunk(tool_calls=call(arguments='{"city": ')),
        chat_chunk(tool_calls=call(arguments='"서울"}')),
        chat_chunk(finish_reason="tool_calls"),
    )
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, Reply.stream(*events, usage_chunk(9, 5), DONE))
        extra = {"chat_template_kwargs": {"enable_thinking": True}, "priority": 1}
        stream = await client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            stream=True,
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
            extra_body=extra,
        )
        reasoning = arguments = ""
        async for chunk in stream:
            delta = chunk.choices[0].delta
            reasoning += (delta.model_extra or {}).get("reasoning", "")
            arguments += "".join(part.function.arguments or "" for part in delta.tool_calls or () if part.function)
        assert (reasoning, arguments) == ("날씨를 알아보자", '{"city": "서울"}')
        assert chunk.choices[0].finish_reason == "tool_calls"
        assert extra.items() <= engine.requests_to(CHAT)[0].json().items()
        record = await gateway.call()
        assert (record.finish_reason, record.timing.token_events) == ("tool_calls", 5)
        assert record.timing.ttft_s is not None
        assert record.timing.ttfot_s is not None
        assert record.timing.ttft_s <= record.timing.ttfot_s


async def test_whole_tool_call_and_reasoning_survive(tmp_path: Path) -> None:
    body = chat_answer("", usage=usage_body(9, 5), finish_reason="tool_calls")
    function = {"name": "weather", "arguments": '{"city": "서울"}'}
    body["choices"][0]["message"] |= {
        "content": None,
        "reasoning_content": "날씨를 알아보자",
        "tool_calls": [{"id": "call-1", "type": "function", "function": function}],
    }
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, Reply.json(body))
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        message = answer.choices[0].message
        assert message.tool_calls is not None
        assert message.tool_calls[0].to_dict()["function"] == function
        assert message.to_dict()["reasoning_content"] == "날씨를 알아보자"
        assert (await gateway.call()).finish_reason == "tool_calls"


async def test_models_are_listed_and_retrieved(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == ["m"]
        assert await client.models.retrieve("m") == listed[0]
        assert listed[0].to_dict()["max_model_len"] == 4096
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("n")


async def test_raw_and_streamed_responses_show_the_gateways_headers(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        assert raw.headers["x-simsa-model"] == "m"
        assert raw.parse().choices[0].finish_reason == "stop"
        ask = client.chat.completions.with_streaming_response
        async with ask.create(model="m", messages=MESSAGES, stream=True) as response:
            assert response.headers["x-simsa-attempts"] == "1"
            assert response.headers["x-request-id"]
            lines = [line async for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert len(await gateway.calls(2)) == 2


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "raised", "status", "code"),
    [
        (
            Reply.json(error_body("too long", type_="BadRequestError", code=400), status=400),
            openai.BadRequestError,
            400,
            "400",
        ),
        (Reply.json({"error": "no"}, status=401), openai.InternalServerError, 502, "upstream_auth"),
        (Reply.json({"error": {"message": "boom"}}, status=500), openai.InternalServerError, 502, "upstream_error"),
        (Reply.json({"error": {"message": "busy"}}, status=429), openai.InternalServerError, 503, "upstream_busy"),
        (Reply.json({"error": {"message": "odd"}}, status=422), openai.UnprocessableEntityError, 422, None),
    ],
    ids=["400", "401", "500", "429", "422"],
)
async def test_engines_failure_is_the_class_that_the_client_promises(
    tmp_path: Path, reply: Reply, raised: type[openai.APIStatusError], status: int, code: object
) -> None:
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, reply)
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert caught.value.request_id == (await gateway.call()).opened.request_id


async def test_callers_own_mistake_is_the_class_that_the_client_promises(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _), asynchronous(gateway) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="m", messages=MESSAGES, n=0)
        assert (bad.value.param, bad.value.type) == ("n", "invalid_request_error")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="M2", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="m", input="hi")
        with pytest.raises(openai.AuthenticationError) as stranger:
            await client.with_options(api_key="sk-wrong").chat.completions.create(model="m", messages=MESSAGES)
        assert stranger.value.code == "invalid_api_key"


async def test_blocking_client_raises_the_same_classes(tmp_path: Path) -> None:
    def use(client: OpenAI) -> list[type[Exception]]:
        raised: list[type[Exception]] = []
        for model, n in (("M2", 1), ("m", 0)):
            try:
                client.chat.completions.create(model=model, messages=MESSAGES, n=n)
            except openai.OpenAIError as error:
                raised.append(type(error))
        return raised

    async with door(tmp_path) as (gateway, _):
        assert await synchronous(gateway, use) == [openai.NotFoundError, openai.BadRequestError]


async def test_gateway_that_is_gone_is_a_connection_error(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, _):
        url = gateway.url
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="m", messages=MESSAGES)


async def test_stream_that_fails_on_the_way_raises_after_its_tokens(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, Reply.stream(chat_chunk("a"), chat_chunk("b"), CLOSE))
        read: list[str | None] = []

        async def read_on() -> None:
            async for chunk in await client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
                (choice,) = chunk.choices
                read.append(choice.delta.content)

        with pytest.raises(openai.APIError) as caught:
            await read_on()
        assert read == ["a", "b"]
        assert caught.value.code == "upstream_truncated"
        assert "closed" in caught.value.message
        assert (await gateway.call()).status is CallStatus.TRUNCATED


async def test_blocking_stream_that_fails_on_the_way_raises_too(tmp_path: Path) -> None:
    def use(client: OpenAI) -> str:
        with pytest.raises(openai.APIError) as caught:
            list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        return str(caught.value.code)

    async with door(tmp_path) as (gateway, engine):
        engine.script(CHAT, Reply.stream(chat_chunk("a"), CLOSE))
        assert await synchronous(gateway, use) == "upstream_truncated"


# --- retries, leaving, timeouts -----------------------------------------------------------------------------

BUSY = Reply.json({"error": {"message": "busy"}}, status=503, headers=[("retry-after", "1")])


async def test_two_503_are_retried_in_silence_and_recorded_with_their_number(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway, max_retries=2) as client:
        usual = chat_answer("안녕하세요", usage=usage_body(1, 1))
        engine.script(CHAT, BUSY, BUSY, Reply.json(usual))
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        assert answer.choices[0].message.content == "안녕하세요"
        calls = {call.opened.client_retry: call for call in await gateway.calls(3)}
        assert {retry: call.http_status for retry, call in calls.items()} == {0: 503, 1: 503, 2: 200}
        assert [calls[retry].status for retry in range(3)] == [CallStatus.ERROR, CallStatus.ERROR, CallStatus.OK]


async def test_blocking_client_retries_as_well(tmp_path: Path) -> None:
    def use(client: OpenAI) -> str | None:
        answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return next(iter(answer)).choices[0].delta.content

    async with door(tmp_path) as (gateway, engine):
        engine.script(CHAT, BUSY, Reply.stream(chat_chunk("a"), chat_chunk(finish_reason="stop"), DONE))
        assert await synchronous(gateway, use, max_retries=1) == "a"
        assert {call.opened.client_retry for call in await gateway.calls(2)} == {0, 1}


async def test_closing_a_stream_frees_the_engine(tmp_path: Path) -> None:
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()))
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "a"
        await stream.close()
        await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED


async def test_blocking_client_closing_mid_stream_frees_the_engine(tmp_path: Path) -> None:
    def use(client: OpenAI) -> None:
        next(iter(client.chat.completions.create(model="m", messages=MESSAGES, stream=True)))

    async with door(tmp_path) as (gateway, engine):
        engine.script(CHAT, Reply.stream(chat_chunk("a"), asyncio.Event()))
        await synchronous(gateway, use)
        await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED


@pytest.mark.parametrize("stream", [False, True])
async def test_clients_own_timeout_frees_the_engine(tmp_path: Path, stream: bool) -> None:
    async with door(tmp_path) as (gateway, engine), asynchronous(gateway, timeout=0.2) as client:
        engine.script(CHAT, Reply.hang())
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        await asyncio.wait_for(engine.requests_to(CHAT)[0].closed_by_peer.wait(), HANG_S)
        assert (await gateway.call()).status is CallStatus.CANCELLED


async def test_engines_silence_is_an_error_with_a_status(tmp_path: Path) -> None:
    limits = {"timeouts": {"first_token_s": 0.1}}
    async with door(tmp_path, model=limits) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, Reply.hang())
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_many_clients_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    def own(request: Any) -> Reply:
        text = request.json()["messages"][0]["content"]
        return Reply.stream(chat_chunk(text), chat_chunk(finish_reason="stop"), DONE)

    async with door(tmp_path) as (gateway, engine), asynchronous(gateway) as client:
        engine.script(CHAT, own)

        async def ask(number: int) -> str:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"질문 {number}"}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*(ask(number) for number in range(50)))
        assert answers == [f"질문 {number}" for number in range(50)]
