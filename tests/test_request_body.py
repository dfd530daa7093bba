from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from clients import RawClient
from engines import ScriptedEngine
from gateways import entry, running_gateway
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.charges import MOST_CHOICES, MOST_PROMPTS, MOST_TOKENS
from gateway.endpoints import ENDPOINTS
from gateway.errors import InvalidRequest
from gateway.request_body import read_request

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["messages", "temperature", "x", "최대", 'quo"te', "back\\slash", ""]), JSON_VALUES, max_size=5
)
STYLES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


def written(pairs: list[tuple[str, Any]], style: tuple[str, str], *, ascii_only: bool) -> bytes:
    """A JSON object as some client writes it; names may repeat."""
    comma, colon = style
    members = (
        f"{json.dumps(k, ensure_ascii=ascii_only)}{colon}{json.dumps(v, ensure_ascii=ascii_only)}" for k, v in pairs
    )
    return ("{" + comma.join(members) + "}").encode()


@given(
    FIELDS,
    STYLES,
    st.booleans(),
    st.booleans(),
    st.none() | st.dictionaries(st.just("continuous_usage_stats"), st.booleans()),
)
def test_only_model_and_stream_options_change(
    fields: dict[str, Any], style: tuple[str, str], ascii_only: bool, stream: bool, options: dict[str, Any] | None
) -> None:
    body = {**fields, "model": "ours", "stream": stream, **({"stream_options": options} if options is not None else {})}
    request = read_request(written(list(body.items()), style, ascii_only=ascii_only))
    usage = {"stream_options": {**(options or {}), "include_usage": True}} if stream else {}
    assert json.loads(request.for_engine("theirs")) == {**body, "model": "theirs", **usage}
    assert (request.model, request.stream, request.choices) == ("ours", stream, 1)
    if not stream:
        assert request.for_engine("ours") == request.raw


@given(FIELDS, STYLES, st.booleans(), st.data())
def test_any_repeated_field_is_refused_by_name(
    fields: dict[str, Any], style: tuple[str, str], ascii_only: bool, data: st.DataObject
) -> None:
    pairs = [("model", "m"), *fields.items()]
    name, value = data.draw(st.sampled_from(pairs))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (name, data.draw(JSON_VALUES | st.just(value))))
    with pytest.raises(InvalidRequest, match="more than once") as caught:
        read_request(written(pairs, style, ascii_only=ascii_only))
    assert caught.value.param == name


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_request(raw)


def test_numbers_keep_their_spelling() -> None:
    raw = b'{"model":"a","temperature":1.50,"seed":12345678901234567890123,"stream":true}'
    assert read_request(raw).for_engine("b") == (
        b'{"model":"b","temperature":1.50,"seed":12345678901234567890123,"stream":true,'
        b'"stream_options":{"include_usage":true}}'
    )


# --- media that an engine would fetch -----------------------------------------------------------------------

REMOTE = st.sampled_from(
    ["http://10.0.0.1/", "https://node-7/metrics", "file:///etc/passwd", "HTTP://x", "ftp://x", "//x", "/etc/x.png", ""]
)
INLINE = st.text(alphabet="AZaz09+/=", max_size=20).map("data:image/png;base64,{}".format)
FIELD = st.sampled_from(["image_url", "video_url", "audio_url", "url", "anything_url"])
SHAPES = st.sampled_from(["text", "object", "list"])
PLAIN_PART = st.fixed_dictionaries(
    {"type": st.just("text"), "text": st.text(max_size=12) | st.just('see "image_url": http://x')}
)


def media_part(field: str, address: str, shape: str) -> dict[str, Any]:
    value: Any = {"text": address, "object": {"url": address, "detail": "auto"}, "list": [{"url": address}]}[shape]
    return {"type": field, field: value}


def hidden(value: Any, chance: float, random: Random) -> str:
    """The value as JSON that writes each character of its texts as an escape with that chance."""
    match value:
        case dict():
            members = (f"{hidden(k, chance, random)}: {hidden(v, chance, random)}" for k, v in value.items())
            return "{" + ", ".join(members) + "}"
        case list():
            return "[" + ",".join(hidden(inner, chance, random) for inner in value) + "]"
        case str():
            return '"' + "".join(_escaped(c) if random.random() < chance else json.dumps(c)[1:-1] for c in value) + '"'
        case _:
            return json.dumps(value)


def _escaped(character: str) -> str:
    pairs = character.encode("utf-16-be").hex()
    return "".join(f"\\u{pairs[at : at + 4]}" for at in range(0, len(pairs), 4))


@st.composite
def conversations(draw: st.DrawFn, addresses: st.SearchStrategy[str]) -> tuple[bytes, str]:
    """A request that names media once, however it is written, and where it does."""
    field = draw(FIELD)
    parts: list[dict[str, Any]] = list(draw(st.lists(PLAIN_PART, max_size=2)))
    parts.insert(place := draw(st.integers(0, len(parts))), media_part(field, draw(addresses), draw(SHAPES)))
    where = f".content[{place}].{field}"
    if draw(st.booleans()):
        parts, where = [{"type": "tool_result", "content": parts}], f".content[0]{where}"
    messages: list[Any] = [
        {"role": "system", "content": draw(st.text(max_size=8))} for _ in range(draw(st.integers(0, 2)))
    ]
    messages.append({"role": "user", "content": parts})
    where = f"messages[{len(messages) - 1}]{where}"
    chance, random = draw(st.sampled_from([0, 0.1, 1])), draw(st.randoms(use_true_random=False))
    return hidden({"model": "m", "messages": messages, "n": 1}, chance, random).encode(), where


@given(conversations(REMOTE))
def test_address_in_a_message_is_found_however_it_is_written(request_at: tuple[bytes, str]) -> None:
    raw, where = request_at
    with pytest.raises(InvalidRequest, match="data: URL") as caught:
        read_request(raw)
    assert (caught.value.param, caught.value.code) == (where, "remote_url_not_allowed")
    assert read_request(raw, allow_remote_media=True).raw == raw


@given(conversations(INLINE))
def test_media_that_come_as_data_pass_untouched(request_at: tuple[bytes, str]) -> None:
    raw, _ = request_at
    assert read_request(raw).for_engine("m") == raw


@pytest.mark.parametrize(
    ("part", "is_refused"),
    [
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, False),
        ({"type": "input_audio", "input_audio": {"data": "data:audio/wav;base64,UklGRg==", "format": "wav"}}, False),
        ({"type": "input_audio", "input_audio": {"data": "http://10.0.0.1/a.wav", "format": "wav"}}, True),
        ({"type": "text", "text": "x", "image_url": None}, False),
        ({"image_url": "http://10.0.0.1/"}, True),
        ({"type": "text", "text": "x", "image_url": {"url": "http://10.0.0.1/"}}, True),
        ({"type": "image_url", "image_url": {"url": 7}}, False),
        ({"type": "image_url", "image_url": [["http://10.0.0.1/"]]}, True),
        ({"type": "text", "text": '{"image_url": "http://10.0.0.1/"}'}, False),
    ],
)
def test_only_what_an_engine_may_fetch_is_refused(part: dict[str, Any], is_refused: bool) -> None:
    raw = written([("model", "m"), ("messages", [{"role": "user", "content": [part]}])], (",", ":"), ascii_only=True)
    if is_refused:
        with pytest.raises(InvalidRequest, match=r"messages\[0\]\.content\[0\]\.(image_url|input_audio)"):
            read_request(raw)
    else:
        assert read_request(raw).raw == raw


@pytest.mark.parametrize(
    "messages",
    [
        b'[{"content":[{"image_url":' + b'{"url":' * 900 + b'"http://x"' + b"}" * 900 + b"}]}]",
        b'[{"content":' * 400 + b'[{"image_url":"http://x"}]' + b"}]" * 400,
        b'[{"content":[{"image_url":"\\ud800"}]}]',
        b'[{"seed":1e999,"content":[{"image_url":"http://x"}]}]',
        b'{"content":{"image_url":"http://x"}}',
        b'[[{"image_url":"http://x"}],7,null,"url"]',
        b'[{"content":"url"},{"content":null},{"content":7},{"content":[7,null,"url",[]]}]',
    ],
    ids=["deep address", "deep parts", "half a pair", "number", "no list", "no messages", "no parts"],
)
def test_messages_of_any_shape_are_refused_or_left_to_the_engine(messages: bytes) -> None:
    raw = b'{"model":"m","messages":' + messages + b"}"
    with suppress(InvalidRequest):
        assert read_request(raw).raw == raw


async def test_engine_is_never_asked_to_fetch_what_a_client_names(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": [media_part("image_url", "http://10.0.0.1/", "object")]}]
    chat: dict[str, Any] = {"model": "m", "messages": messages}
    comparison = {"models": ["m", "k"], "messages": messages}
    for allowed, status in ((False, 400), (True, 200)):
        async with (
            ScriptedEngine(["m", "k"]) as engine,
            running_gateway(
                tmp_path / str(allowed), [entry("m", engine.url), entry("k", engine.url)], allow_remote_media=allowed
            ) as gateway,
            RawClient(gateway.url) as client,
        ):
            await gateway.until_live("m", "k")
            for path, body in (("/v1/chat/completions", chat), ("/api/comparisons", comparison)):
                answer = await client.request("POST", path, body=body)
                assert answer.status == status
                if not allowed:
                    assert answer.json()["error"]["code"] == "remote_url_not_allowed"
                    assert answer.json()["error"]["param"] == "messages[0].content[0].image_url"
            assert len(engine.requests_to("/v1/chat/completions")) == (3 if allowed else 0)


# --- the other routes ---------------------------------------------------------------------------------------

IMAGE = {"type": "input_image", "image_url": "http://10.0.0.1/a.png"}
SOURCE = {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/a.png"}}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
FILE = {"type": "input_file", "file_url": "https://10.0.0.1/a.pdf"}
SCREENSHOT = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "http://10.0.0.1"}}
ADDRESSES: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/responses", {"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0].image_url"),
    ("/v1/responses", {"input": [{"role": "user", "content": [FILE]}]}, "input[0].content[0].file_url"),
    ("/v1/responses", {"input": [{"type": "function_call_output", "output": [IMAGE]}]}, "input[0].output[0].image_url"),
    ("/v1/responses", {"input": [SCREENSHOT]}, "input[0].output.image_url"),
    ("/v1/responses", {"previous_input_messages": [{"content": [CHAT_IMAGE]}]},
     "previous_input_messages[0].content[0].image_url"),
    ("/v1/responses", {"input": "x", "tools": [{"type": "mcp", "server_url": "http://h"}]}, "tools[0].server_url"),
    ("/v1/messages", {"messages": [{"role": "user", "content": [SOURCE]}]}, "messages[0].content[0].source.url"),
    ("/v1/messages", {"system": [SOURCE], "messages": []}, "system[0].source.url"),
    ("/v1/messages", {"messages": [{"content": [{"type": "tool_result", "content": [SOURCE]}]}]},
     "messages[0].content[0].content[0].source.url"),
    ("/v1/messages", {"messages": [], "mcp_servers": [{"type": "url", "url": "http://h"}]}, "mcp_servers[0].url"),
    ("/v1/messages", {"messages": [], "tools": [{"type": "mcp", "server_url": "http://h"}]}, "tools[0].server_url"),
    ("/v1/messages/count_tokens", {"messages": [], "mcp_servers": [{"url": "http://h"}]}, "mcp_servers[0].url"),
    ("/v1/chat/completions", {"messages": [{"content": CHAT_IMAGE}]}, "messages[0].content.image_url"),
    ("/v1/chat/completions", {"messages": {"content": [CHAT_IMAGE]}}, "messages.content[0].image_url"),
    ("/v1/messages/count_tokens", {"messages": [{"content": [SOURCE]}]}, "messages[0].content[0].source.url"),
    ("/v1/embeddings", {"messages": [{"content": [CHAT_IMAGE]}]}, "messages[0].content[0].image_url"),
    ("/v1/embeddings", {"input": [{"role": "user", "content": [CHAT_IMAGE]}]}, "input[0].content[0].image_url"),
    ("/v1/rerank", {"query": {"content": [CHAT_IMAGE]}, "documents": ["a"]}, "query.content[0].image_url"),
    ("/rerank", {"query": "a", "documents": {"content": [CHAT_IMAGE]}}, "documents.content[0].image_url"),
    ("/score", {"text_1": "a", "text_2": [{"content": [CHAT_IMAGE]}]}, "text_2[0].content[0].image_url"),
    ("/v1/score", {"data_1": {"content": [CHAT_IMAGE]}, "data_2": "a"}, "data_1.content[0].image_url"),
    ("/tokenize", {"messages": [{"content": [CHAT_IMAGE]}]}, "messages[0].content[0].image_url"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "where"), ADDRESSES, ids=[row[2] for row in ADDRESSES])
@given(chance=st.sampled_from([0, 0.1, 1]), random=st.randoms(use_true_random=False))
def test_an_address_is_found_in_the_shapes_of_every_route(
    path: str, fields: dict[str, Any], where: str, chance: float, random: Random
) -> None:
    raw = hidden({"model": "m", **fields}, chance, random).encode()
    with pytest.raises(InvalidRequest, match="data: URL") as caught:
        read_request(raw, ENDPOINTS[path].fields)
    assert caught.value.param == where
    assert read_request(raw, ENDPOINTS[path].fields, allow_remote_media=True).raw == raw


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (
            "/v1/responses",
            {"input": [{"content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]},
        ),
        ("/v1/responses", {"input": [{"content": [{"type": "input_file", "file_data": "data:;base64,AA=="}]}]}),
        ("/v1/responses", {"input": [{"type": "web_search_call", "action": {"url": "https://example.org"}}]}),
        ("/v1/responses", {"input": [{"content": [{"text": "a", "annotations": [{"url": "https://example.org"}]}]}]}),
        ("/v1/messages", {"messages": [{"content": [{"source": {"type": "base64", "data": "AA=="}}], "x": "url"}]}),
        ("/v1/messages", {"messages": [{"content": [{"type": "tool_use", "input": {"url": "https://example.org"}}]}]}),
        ("/v1/messages", {"messages": [], "tools": [{"name": "f", "input_schema": {"url": "https://example.org"}}]}),
        ("/v1/embeddings", {"input": ["see http://10.0.0.1 as image_url"]}),
        ("/detokenize", {"tokens": [1], "image_url": "http://10.0.0.1"}),
    ],
)
def test_what_no_engine_fetches_passes(path: str, fields: dict[str, Any]) -> None:
    raw = json.dumps({"model": "m", **fields}).encode()
    assert read_request(raw, ENDPOINTS[path].fields).raw == raw


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/chat/completions", {"max_completion_tokens": 7, "max_tokens": 9}),
        ("/v1/completions", {"max_tokens": 7}),
        ("/v1/responses", {"max_output_tokens": 7}),
        ("/v1/messages", {"max_tokens": 7}),
    ],
)
def test_every_dialect_limits_its_answers_in_its_own_way(path: str, limit: dict[str, int]) -> None:
    body = read_request(json.dumps({"model": "m", **limit}).encode(), ENDPOINTS[path].fields)
    assert body.max_tokens == max(limit.values())


@pytest.mark.parametrize("path", [path for path in ENDPOINTS if not path.endswith("completions")])
def test_fields_of_the_chat_mean_nothing_elsewhere(path: str) -> None:
    raw = b'{"model":"m","n":"many","stream":false,"stream_options":7}'
    body = read_request(raw, ENDPOINTS[path].fields)
    assert (body.stream, body.choices, body.for_engine("m")) == (False, 1, raw)
    streamed = read_request(b'{"model":"m","stream":true}', ENDPOINTS[path].fields)
    assert streamed.stream is (path in ("/v1/responses", "/v1/messages"))
    assert b"stream_options" not in streamed.for_engine("k")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/chat/completions", "max_tokens", MOST_TOKENS + 1),
        ("/v1/chat/completions", "max_completion_tokens", 2**62),
        ("/v1/chat/completions", "max_completion_tokens", 2**200),
        ("/v1/completions", "max_tokens", 2**63),
        ("/v1/responses", "max_output_tokens", 2**62),
        ("/v1/messages", "max_tokens", 2**62),
        ("/v1/chat/completions", "n", MOST_CHOICES + 1),
        ("/v1/completions", "n", 2**63),
        ("/v1/chat/completions", "n", 0),
        ("/v1/completions", "prompt", ["x"] * (MOST_PROMPTS + 1)),
    ],
)
def test_what_no_model_could_answer_is_refused_by_the_name_of_the_field(path: str, field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"'{field}'") as caught:
        read_request(json.dumps({"model": "m", field: value}).encode(), ENDPOINTS[path].fields)
    assert caught.value.param == field


@pytest.mark.parametrize("value", [-(2**200), -1, 0, 1, MOST_TOKENS])
def test_limits_below_one_are_the_engines_own_to_complain_of(value: int) -> None:
    assert read_request(json.dumps({"model": "m", "max_tokens": value}).encode()).max_tokens == value


def test_of_two_limits_the_greater_counts_whichever_the_engine_heeds() -> None:
    asked = {"model": "m", "max_completion_tokens": 0, "max_tokens": 100_000}
    assert read_request(json.dumps(asked).encode()).max_tokens == 100_000


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("[1,2", 1), (["가", "나"], 2), ([" ", "["], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1), (None, 1), ({}, 1)],
)
def test_prompts_are_counted_where_they_are_several(prompt: object, prompts: int) -> None:
    for indent in (None, 1):
        raw = json.dumps({"model": "m", "prompt": prompt}, indent=indent).encode()
        assert read_request(raw, ENDPOINTS["/v1/completions"].fields).prompts == prompts
        assert read_request(raw, ENDPOINTS["/v1/chat/completions"].fields).prompts == 1
