"""The simulated engine over real sockets: vLLM's protocol, honest token counts, and the behaviour of a full engine."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from guards import HANG_S
from prometheus_client.parser import text_string_to_metric_families
from servers import serve
from simulated_models import H100, LLAMA_8B, TINY, gpu_with_blocks, model_of

from gateway.domain.roofline import Work, build_roofline
from gateway.engine_reports import cache_config_lines, read_glance, resolve_engine
from gateway.errors import StartRefused
from gateway.simulator import create_engine, run_engine

QUESTION = "전기요금이 오르면 소상공인은 어떻게 대응해야 하나요?"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
                "required": ["city", "days"],
            },
        },
    }
    for name in ("get_weather", "find_route")
]


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A tiny model that reasons when asked, fast enough not to be waited for."""
    model = model_of(TINY, reasons=True)
    with serve(create_engine(model, H100, max_model_len=1024, speed=20)) as url:
        yield url


@contextmanager
def slow_engine(blocks: int = 200, *, max_num_seqs: int = 2, step_s: float = 0.005) -> Iterator[str]:
    """An engine that a few requests fill."""
    model = model_of(TINY)
    gpu = gpu_with_blocks(model, blocks, step_s=step_s)
    with serve(create_engine(model, gpu, max_num_seqs=max_num_seqs)) as url:
        yield url


def post(url: str, path: str, body: object, *, content_type: str = "application/json") -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, raw, {"content-type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=HANG_S) as response:
        return response.read()


def ask(question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], **fields}


def chat(url: str, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    status, body = post(url, "/v1/chat/completions", ask(question, **fields))
    assert status == 200, body
    return body


def said(body: dict[str, Any], index: int = 0) -> str:
    return body["choices"][index]["message"]["content"]


@contextmanager
def opened(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> Iterator[HTTPResponse]:
    """A stream whose headers have come; leaving the block closes the socket."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=HANG_S)
    try:
        payload = json.dumps({**body, "stream": True})
        connection.request("POST", path, payload, {"content-type": "application/json"})
        with connection.getresponse() as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield response
    finally:
        connection.close()


def events_of(response: HTTPResponse) -> list[dict[str, Any]]:
    """All events up to [DONE], which has to be there."""
    lines = response.read().decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def stream(url: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    with opened(url, body, path) as response:
        return events_of(response)


def joined(events: list[dict[str, Any]], field: str = "content", index: int = 0) -> str:
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(field) or "" for choice in choices)


def count(url: str, text: str) -> int:
    status, body = post(url, "/tokenize", {"prompt": text})
    assert status == 200
    assert len(body["tokens"]) == body["count"]
    return body["count"]


def metric(url: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(get(url, "/metrics").decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no series {name} {labels}")


def wait_for(holds: Callable[[], bool]) -> None:
    """Look until `holds`; each look is a request, so the engine gets on meanwhile."""
    end = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < end, "it never came to be"


# --- who it says it is --------------------------------------------------------------------------------------


def test_it_says_itself_that_it_is_simulated(engine):
    (card,) = json.loads(get(engine, "/v1/models"))["data"]
    assert card["id"] == "candidate"
    assert card["owned_by"] == "simsa-simulator"
    assert card["root"] == "simulated:candidate@h100-sxm"
    assert card["max_model_len"] == 1024
    assert json.loads(get(engine, "/version")) == {"version": "0.32.0+simsa-simulated"}
    assert get(engine, "/health") == b""


def test_another_served_name_can_be_given():
    with serve(create_engine(model_of(TINY), H100, served_name="other", speed=20)) as url:
        assert chat(url, model="other")["model"] == "other"
        assert post(url, "/v1/chat/completions", ask(model="candidate"))[0] == 404


def test_a_model_without_a_shape_cannot_be_simulated():
    with pytest.raises(ValueError, match="candidate cannot be simulated on h100-sxm: unknown shape"):
        create_engine(model_of(None), H100)


# --- streams ------------------------------------------------------------------------------------------------


def test_a_stream_has_vllms_shape_and_exact_usage(engine):
    events = stream(engine, ask(stream_options={"include_usage": True}))
    first, *middle, last, usage = events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["finish_reason"] is None for event in (first, *middle))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert all("usage" not in event for event in events[:-1])
    text = joined(events)
    _, prompt = post(engine, "/tokenize", ask())
    end_token = 1
    assert usage["usage"]["prompt_tokens"] == prompt["count"]
    assert usage["usage"]["completion_tokens"] == count(engine, text) + end_token
    assert text == said(chat(engine))


def test_without_stream_options_no_usage_is_sent(engine):
    assert all(event["choices"] and "usage" not in event for event in stream(engine, ask(max_tokens=5)))


def test_continuous_usage_counts_up_to_the_final_one(engine):
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [
        event["usage"]["completion_tokens"] for event in stream(engine, ask(max_tokens=30, stream_options=options))
    ]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 30)


def test_a_completion_streams_text(engine):
    body = {"prompt": "Plan a hospital", "max_tokens": 12, "stream_options": {"include_usage": True}}
    *chunks, usage = stream(engine, body, "/v1/completions")
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == {
        "prompt_tokens": count(engine, body["prompt"]),
        "total_tokens": 16,
        "completion_tokens": 12,
    }
    assert count(engine, text) == 12


# --- length and endings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_cut_at_its_limit(engine, field):
    body = chat(engine, **{field: 7})
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 7 == count(engine, said(body))


def test_a_pinned_length_is_kept_to_the_token(engine):
    body = chat(engine, max_tokens=700, min_tokens=700, ignore_eos=True)
    assert body["usage"]["completion_tokens"] == 700
    assert body["choices"][0]["finish_reason"] == "length"


def test_min_tokens_holds_the_end_back(engine):
    assert chat(engine, min_tokens=600)["usage"]["completion_tokens"] >= 600


def test_more_than_the_context_leaves_is_cut_to_it(engine):
    body = chat(engine, max_tokens=1024, ignore_eos=True)
    assert body["usage"]["total_tokens"] == 1024


def test_a_stop_string_ends_the_text_before_it_and_is_named(engine):
    whole = said(chat(engine))
    stop = whole[20:26]
    for events in (stream(engine, ask(stop=[stop])), stream(engine, ask(stop=stop, max_tokens=900))):
        assert joined(events) == whole[: whole.index(stop)]
        final = events[-1]["choices"][0]
        assert (final["finish_reason"], final["stop_reason"]) == ("stop", stop)
    kept = said(chat(engine, stop=stop, include_stop_str_in_output=True))
    assert kept == whole[: whole.index(stop) + len(stop)]


def test_a_stop_string_does_not_count_before_min_tokens(engine):
    assert chat(engine, stop=[" "], min_tokens=50)["usage"]["completion_tokens"] >= 50


# --- what is said -------------------------------------------------------------------------------------------


def test_answers_are_in_the_language_of_the_question(engine):
    assert "전기요금" in said(chat(engine))
    english = said(chat(engine, "How should a hospital plan its staffing for the winter?"))
    assert "hospital" in english
    assert not any("가" <= letter <= "힣" for letter in english)


def test_different_models_answer_differently():
    answers = set()
    for name in ("one", "two", "three"):
        with serve(create_engine(model_of(TINY, model_id=name), H100, speed=20)) as url:
            answers.add(said(chat(url)))
    assert len(answers) == 3


def test_the_same_seed_gives_the_same_answer_and_another_one_another(engine):
    assert said(chat(engine, seed=1)) == said(chat(engine, seed=1))
    assert len({said(chat(engine, seed=seed)) for seed in range(5)}) > 1


def test_n_answers_come_apart_and_are_counted_together(engine):
    events = stream(engine, ask(n=2, max_tokens=20, stream_options={"include_usage": True}))
    texts = [joined(events, index=index) for index in (0, 1)]
    assert texts[0] != texts[1]
    assert events[-1]["usage"]["completion_tokens"] == 40
    assert [said(chat(engine, n=2, max_tokens=20), index) for index in (0, 1)] == texts


def test_reasoning_is_shown_apart_when_it_is_turned_on(engine):
    on = {"chat_template_kwargs": {"enable_thinking": True}}
    events = stream(engine, ask(**on, stream_options={"include_usage": True}))
    thought = joined(events, "reasoning")
    assert thought
    assert joined(events)
    usage = events[-1]["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == count(engine, thought)
    assert chat(engine, **on)["choices"][0]["message"]["reasoning"] == thought
    assert chat(engine)["choices"][0]["message"]["reasoning"] is None


def test_several_prompts_get_an_answer_each(engine):
    status, body = post(engine, "/v1/completions", {"prompt": ["hello", "world"], "n": 2, "max_tokens": 4})
    assert status == 200
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"] == {
        "prompt_tokens_details": None,
        "prompt_tokens": 2,
        "total_tokens": 18,
        "completion_tokens": 16,
    }


def test_logprobs_have_one_entry_a_token(engine):
    events = stream(engine, ask(max_tokens=9, logprobs=True, top_logprobs=2))
    entries = [entry for event in events for entry in (event["choices"][0]["logprobs"] or {}).get("content", [])]
    assert "".join(entry["token"] for entry in entries) == joined(events)
    assert len(entries) == 9
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in entries)


# --- structured output and tools ----------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 12},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 4},
        "nested": {"$ref": "#/$defs/point"},
    },
    "required": ["title", "score", "tags", "nested"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


def test_a_json_schema_is_followed(engine):
    form = {"type": "json_schema", "json_schema": {"name": "card", "schema": SCHEMA}}
    value = json.loads(said(chat(engine, response_format=form)))
    assert list(value) == ["title", "score", "tags", "nested"]
    assert isinstance(value["title"], str)
    assert len(value["title"]) <= 12
    assert value["score"] in range(1, 6)
    assert 2 <= len(value["tags"]) <= 4
    assert set(value["tags"]) <= {"a", "b"}
    assert isinstance(value["nested"]["x"], (int, float))
    assert json.loads(said(chat(engine, structured_outputs={"json": SCHEMA}))) == value
    assert isinstance(json.loads(said(chat(engine, response_format={"type": "json_object"}))), dict)
    assert said(chat(engine, structured_outputs={"choice": ["예", "아니요"]})) in {"예", "아니요"}


def test_a_required_tool_is_called_with_arguments_that_fit(engine):
    events = stream(engine, ask(tools=TOOLS, tool_choice="required"))
    calls = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    arguments = json.loads("".join(call["function"]["arguments"] for call in calls))
    assert isinstance(arguments["city"], str)
    assert arguments["days"] in (1, 2, 3)
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_named_tool_is_called_and_ends_with_stop(engine):
    named = {"type": "function", "function": {"name": "find_route"}}
    choice = chat(engine, tools=TOOLS, tool_choice=named)["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "find_route"
    assert choice["finish_reason"] == "stop"


def test_auto_calls_only_a_tool_that_the_question_names(engine):
    assert chat(engine, tools=TOOLS)["choices"][0]["message"]["tool_calls"] == []
    named = chat(engine, "Use find_route to Busan", tools=TOOLS)["choices"][0]
    assert named["message"]["tool_calls"][0]["function"]["name"] == "find_route"
    assert named["finish_reason"] == "tool_calls"


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [QUESTION, "A plain sentence, 12345 words.\n\n", "뷁 emoji 👩‍💻 e\u0301 \x00\t끝"])
def test_tokenize_and_detokenize_are_inverse(engine, text):
    _, body = post(engine, "/tokenize", {"prompt": text, "return_token_strs": True})
    assert "".join(body["token_strs"]) == text
    assert body["max_model_len"] == 1024
    assert post(engine, "/detokenize", {"tokens": body["tokens"]}) == (200, {"prompt": text})


def test_a_prompt_of_token_ids_is_the_prompt_of_their_text(engine):
    _, tokens = post(engine, "/tokenize", {"prompt": "Plan a hospital"})
    by_text, by_ids = (
        post(engine, "/v1/completions", {"prompt": prompt, "max_tokens": 9})[1]["choices"][0]["text"]
        for prompt in ("Plan a hospital", tokens["tokens"])
    )
    assert by_text == by_ids


# --- refusals -----------------------------------------------------------------------------------------------


def test_a_prompt_over_the_context_is_refused_in_vllms_words(engine):
    status, body = post(engine, "/v1/chat/completions", ask("가나 " * 2000))
    assert status == 400
    error = body["error"]
    assert error["message"].startswith("This model's maximum context length is 1024 tokens. However, your prompt")
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", "input_tokens", 400)


def test_an_unknown_model_is_refused_and_an_absent_one_accepted(engine):
    status, body = post(engine, "/v1/chat/completions", ask(model="nobody"))
    assert (status, body["error"]["type"], body["error"]["code"]) == (404, "NotFoundError", 404)
    assert body["error"]["message"].startswith("The model `nobody` does not exist.")
    assert chat(engine, max_tokens=1)["model"] == "candidate"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"max_tokens": 5000}, "max_tokens=5000 cannot be greater than max_model_len=1024."),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens must be less than or equal to max_tokens=8, got 9."),
        ({"temperature": -1}, "temperature must be non-negative, got -1.0."),
        ({"temperature": 3}, "temperature must be in [0, 2], got 3.0."),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0."),
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`."),
        ({"tools": []}, "`tools` must not be an empty array."),
        ({"tool_choice": "required"}, "When using `tool_choice`, `tools` must be set."),
        ({"tools": TOOLS, "tool_choice": "always"}, "Invalid value for `tool_choice`: always!"),
        ({"top_logprobs": 3}, "when using `top_logprobs`, `logprobs` must be set to true."),
        ({"response_format": {"type": "json_schema"}}, "When response_format type is 'json_schema'"),
        ({"structured_outputs": {"json": {"type": "string", "pattern": "a+"}}}, "The JSON schema cannot be followed"),
    ],
)
def test_values_that_vllm_refuses_are_refused(engine, fields, words):
    status, body = post(engine, "/v1/chat/completions", ask(**fields))
    assert (status, body["error"]["type"], body["error"]["code"]) == (400, "BadRequestError", 400)
    assert body["error"]["message"].startswith(words)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "body.messages"),
        (b'{"messages": "hi"}', "body.messages"),
        (b'{"messages": [], "max_tokens": "many"}', "body.max_tokens"),
        (b'{"messages": ["hi"]}', "body.messages.0"),
        (b"[" * 5000, "body"),
    ],
)
def test_what_is_not_a_request_is_a_validation_error(engine, raw, param):
    status, body = post(engine, "/v1/chat/completions", raw)
    assert (status, body["error"]["type"], body["error"]["param"]) == (400, "Bad Request", param)
    assert "validation error" in body["error"]["message"]


def test_framework_errors_have_detail_instead_of_error(engine):
    assert post(engine, "/nowhere", {}) == (404, {"detail": "Not Found"})
    assert post(engine, "/v1/models", {}) == (405, {"detail": "Method Not Allowed"})
    assert post(engine, "/v1/chat/completions", b"\xff") == (400, {"detail": "There was an error parsing the body"})
    status, body = post(engine, "/v1/chat/completions", {}, content_type="text/plain")
    assert (status, body["error"]["type"]) == (400, "Bad Request")


# --- a full engine ------------------------------------------------------------------------------------------


def test_more_requests_than_places_wait_and_those_who_leave_make_room():
    with slow_engine(max_num_seqs=2) as url, ExitStack() as streams:
        for _ in range(5):
            streams.enter_context(opened(url, ask(ignore_eos=True)))
        wait_for(lambda: metric(url, "vllm:num_requests_running") == 2)
        wait_for(lambda: metric(url, "vllm:num_requests_waiting") == 3)
        assert metric(url, "vllm:kv_cache_usage_perc") > 0
        streams.close()
        wait_for(lambda: metric(url, "vllm:num_requests_running") == 0)
        assert metric(url, "vllm:num_requests_waiting") == 0
        assert metric(url, "vllm:kv_cache_usage_perc") == 0
        assert metric(url, "vllm:request_success_total", finished_reason="abort") == 5


def test_a_client_that_leaves_before_its_whole_answer_frees_the_engine():
    with slow_engine() as url:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=HANG_S)
        body = json.dumps(ask(ignore_eos=True))
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        wait_for(lambda: metric(url, "vllm:num_requests_running") == 1)
        connection.close()
        wait_for(lambda: metric(url, "vllm:num_requests_running") == 0)


def test_a_cache_that_runs_out_preempts_and_every_answer_still_comes_whole():
    with slow_engine(blocks=24, max_num_seqs=8, step_s=0.001) as url:
        alone = said(chat(url, max_tokens=200, ignore_eos=True))
        with ThreadPoolExecutor(4) as pool:
            several = list(pool.map(lambda _: chat(url, max_tokens=200, ignore_eos=True), range(4)))
        assert [said(body) for body in several] == [alone] * 4
        assert [body["usage"]["completion_tokens"] for body in several] == [200] * 4
        assert metric(url, "vllm:num_preemptions_total") > 0
        assert metric(url, "vllm:generation_tokens_total") == 1000


def test_answers_take_no_less_than_the_simulated_time():
    model = model_of(LLAMA_8B)
    step_s = build_roofline(model, H100).step_seconds([Work(1, 30)])
    with serve(create_engine(model, H100, max_model_len=4096)) as url:
        began = time.perf_counter()
        chat(url, max_tokens=50, ignore_eos=True)
        assert time.perf_counter() - began >= 0.95 * 50 * step_s
        assert metric(url, "vllm:inter_token_latency_seconds_count") == 49


def test_the_cache_facts_are_told_as_vllm_tells_them():
    with slow_engine(blocks=40) as url:
        (family,) = (
            family
            for family in text_string_to_metric_families(get(url, "/metrics").decode())
            if family.name == "vllm:cache_config_info"
        )
    facts = family.samples[0].labels
    assert (facts["num_gpu_blocks"], facts["block_size"]) == ("40", "16")
    assert (facts["kv_cache_size_tokens"], float(facts["kv_cache_max_concurrency"])) == ("640", 1.0)
    assert (facts["cache_dtype"], facts["gpu_memory_utilization"], facts["engine"]) == ("auto", "0.92", "0")


def test_the_official_client_reads_its_streams(engine):
    with openai.OpenAI(base_url=f"{engine}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="candidate",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        collected = list(chunks)
        assert "".join(c.choices[0].delta.content or "" for c in collected if c.choices) == said(chat(engine))
        assert collected[-1].usage is not None
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])


SERVE = """
from simulated_models import TINY, gpu_with_blocks, model_of
from gateway.simulator import run_engine
model = model_of(TINY)
run_engine(model, gpu_with_blocks(model, 100, step_s=0.005), port={port}, shutdown_grace_s=20)
"""


def test_a_stream_in_flight_ends_after_sigterm_and_the_process_goes_quietly():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(port=port)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    with process:
        try:
            wait_for(lambda: is_healthy(url))
            with opened(url, ask(max_tokens=100, ignore_eos=True)) as response:
                first = response.readline()
                process.send_signal(signal.SIGTERM)
                rest = response.read()
            assert (first + rest).endswith(b"data: [DONE]\n\n")
            output, _ = process.communicate(timeout=HANG_S)
            assert (output, process.returncode) == (b"", 0)
        finally:
            process.kill()


def test_a_port_that_is_taken_is_said_to_be():
    words = "cannot listen on 127.0.0.1:.* choose another one"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartRefused, match=words):
        run_engine(model_of(TINY), H100, port=taken.getsockname()[1])


def is_healthy(url: str) -> bool:
    try:
        get(url, "/health")
    except OSError:
        return False
    return True


def test_the_cache_facts_have_the_labels_that_vllm_has():
    real = (Path(__file__).parent / "vllm_0_32_metrics.txt").read_bytes()
    with slow_engine(blocks=40) as url:
        shown = get(url, "/metrics")
    ours, theirs = (resolve_engine(cache_config_lines(body), version=None) for body in (shown, real))
    assert [name for name, _ in ours.labels] == [name for name, _ in theirs.labels]
    assert (ours.num_gpu_blocks, ours.kv_cache_size_tokens, ours.enable_prefix_caching) == (40, 640, False)
    assert read_glance(shown).started_at_s is not None
