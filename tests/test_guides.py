"""The integrators' guides: what stands in them runs, prints what they show, and says the same in both languages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from dialect_shapes import embedding_body
from engines import Reply, Request, ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S
from guide_examples import (
    WENT_OUT,
    Ended,
    Example,
    PythonNursery,
    differs_from_shown,
    examples_of,
    numbered,
    run_shell,
    variables_of,
    without_words,
)
from servers import serve
from simulated_models import H100, LLAMA_8B, model_of

from gateway.domain.accounts import Budget, Limits, Period, Terms
from gateway.registry import derive_registry
from gateway.registry.text import read_document
from gateway.simulator import create_engine

ROOT = Path(__file__).parent.parent
GUIDES = ROOT / "docs" / "guides"
LANGUAGES = ("en", "ko")
PAGES = {language: (GUIDES / f"integrators.{language}.md").read_text() for language in LANGUAGES}
EXAMPLES = {language: dict(numbered(examples_of(page))) for language, page in PAGES.items()}
ADMIN_KEY = "the-operators-own-key"
CHAT, REASONER, SEER = "Midm-2.0-Base-Instruct", "EXAONE-4.0-32B", "HyperCLOVAX-SEED-Think-32B"
EMBEDDER = "an-embedding-model"
FASTER = 200.0


# --- a gateway as an integrator meets it ----------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A gateway with simulated engines, and the key that the guide's own commands made."""

    gateway: RunningGateway
    loop: asyncio.AbstractEventLoop
    python: PythonNursery
    directory: Path
    commands: list[Ended]
    environment: dict[str, str]

    def run(self, example: Example, *, name: str = "example.py", key: str | None = None) -> Ended:
        environment = self.environment | ({"OPENAI_API_KEY": key} if key else {})
        if example.language == "bash":
            return run_shell(example.code, environment, self.directory)
        return self.python.run(example.code, environment, self.directory, name=name)

    def key_with(self, name: str, limits: Limits) -> str:
        """A key with these limits, of an organisation of its own."""
        made = self.gateway.key_of(name, Terms(limits=limits))
        return asyncio.run_coroutine_threadsafe(made, self.loop).result(HANG_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The gateway runs in a thread of its own, so that examples are simply called, one after the other."""
    directory = tmp_path_factory.mktemp("guides")
    (directory / "photo.png").write_bytes(small_png())
    ready, over = threading.Event(), threading.Event()
    found: list[tuple[RunningGateway, asyncio.AbstractEventLoop]] = []
    failed: list[BaseException] = []

    async def live() -> None:
        async with served_models(directory) as gateway:
            found.append((gateway, asyncio.get_running_loop()))
            ready.set()
            await asyncio.to_thread(over.wait)

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # told to the test, which waits
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    with PythonNursery() as python:
        thread.start()
        try:
            assert ready.wait(HANG_S)
            if found:
                yield furnished(*found[0], python, directory)
        finally:
            over.set()
            thread.join(HANG_S)
    if failed:
        raise failed[0]


def furnished(gateway: RunningGateway, loop: asyncio.AbstractEventLoop, python: PythonNursery, directory: Path) -> Site:
    """The operator's commands done, and one call made with the key, so that there is use to show."""
    commands = operators_commands(gateway, directory)
    values = {
        "OPENAI_BASE_URL": f"{gateway.url}/v1",
        "OPENAI_API_KEY": secret_in(commands[-1].out),
        "MODEL": CHAT,
        "EMBEDDING_MODEL": EMBEDDER,
    }
    named = {name: values[name] for name in variables_of(PAGES["en"])}
    asyncio.run_coroutine_threadsafe(use_once(gateway, named["OPENAI_API_KEY"]), loop).result(HANG_S)
    return Site(gateway, loop, python, directory, commands, named)


@asynccontextmanager
async def served_models(directory: Path) -> AsyncIterator[RunningGateway]:
    """The registry's own entries in front of simulated engines, which run a good deal faster than a GPU would."""
    shapes = {
        CHAT: model_of(LLAMA_8B, model_id=CHAT),
        REASONER: model_of(LLAMA_8B, model_id=REASONER, reasons=True),
        SEER: replace(model_of(LLAMA_8B, model_id=SEER), capabilities=frozenset({"chat", "vision"})),
    }
    replicas: dict[str, list[dict[str, str]]] = {}
    with ExitStack() as engines:
        for model_id, shape in shapes.items():
            url = engines.enter_context(serve(create_engine(shape, H100, max_model_len=8192, speed=FASTER)))
            replicas[model_id] = [{"url": url, "gpu": "h100-sxm"}]
        derived = derive_registry((ROOT / "model_registry.yaml").read_bytes(), replicas)
        sections = json.loads(json.dumps(read_document(derived, path="registry").value, default=str))  # days as text
        models = sections.pop("models")
        async with ScriptedEngine([EMBEDDER]) as embedder:
            embedder.script("/v1/embeddings", embed)
            models.append(entry(EMBEDDER, embedder.url))
            async with running_gateway(directory, models, sections=sections, admin_key=ADMIN_KEY) as gateway:
                await gateway.until_live(*shapes, EMBEDDER)
                yield gateway


def embed(request: Request) -> Reply:
    """A vector for each text; token numbers, which nobody but OpenAI could read, are refused as nonsense."""
    texts = request.json()["input"]
    assert all(isinstance(text, str) for text in texts)
    body = embedding_body(model=EMBEDDER)
    return Reply.json({**body, "data": [{**body["data"][0], "index": place} for place in range(len(texts))]})


def operators_commands(gateway: RunningGateway, directory: Path) -> list[Ended]:
    """What the guide tells the operator to do: the organisation, then the key."""
    programs = directory / "bin"
    programs.mkdir()
    command = programs / "simsa"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SIMSA_ADMIN_KEY": ADMIN_KEY}
    environment["SIMSA_PORT"] = gateway.url.rpartition(":")[2]
    block = next(example for example in EXAMPLES["en"].values() if "simsa org create" in example.code)
    each = re.split(r"^(?=simsa )", block.code, flags=re.MULTILINE)
    return [run_shell(code, environment, directory) for code in each if code]


def secret_in(printed: str) -> str:
    secret: str = json.loads(printed)["secret"]
    return secret


async def use_once(gateway: RunningGateway, key: str) -> None:
    body = {"model": CHAT, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
    async with RawClient(gateway.url, key=key) as client:
        assert (await client.request("POST", "/v1/chat/completions", body=body)).status == 200
    await gateway.calls()


def small_png() -> bytes:
    """One grey dot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )


def runnable() -> list[Any]:
    """Every block but the operator's, which made the key."""
    return [
        pytest.param(example, f"integrators.{language}.md:{example.line}", id=f"{language}-{name}")
        for language in LANGUAGES
        for name, example in EXAMPLES[language].items()
        if "simsa org create" not in example.code
    ]


def the_example(words: str) -> Example:
    """The block of the English guide that has these words."""
    (found,) = (example for example in EXAMPLES["en"].values() if words in example.code)
    return found


# --- tests ----------------------------------------------------------------------------------------------------


def test_the_operators_commands_make_an_organisation_and_a_key(site: Site) -> None:
    assert [(ended.code, ended.err) for ended in site.commands] == [(0, ""), (0, "")]
    assert secret_in(site.commands[1].out).startswith("simsa-")


@pytest.mark.parametrize(("example", "place"), runnable())
def test_a_block_runs_and_prints_what_the_guide_shows(site: Site, example: Example, place: str) -> None:
    ended = site.run(example, name=place)
    assert ended.code == 0, f"{place} ({example.heading}):\n{ended.err}{ended.out}"
    assert not ended.err
    if example.shown is not None and example.shown_language is not None:
        problem = differs_from_shown(ended.out, example.shown, example.shown_language)
        assert problem is None, f"{place} ({example.heading}): {problem}\n{ended.out}"
    else:
        assert not ended.out, f"{place} prints what the guide does not show"


def test_both_guides_have_the_same_structure_and_code() -> None:
    levels = {language: re.findall(r"^#+(?= )", page, re.MULTILINE) for language, page in PAGES.items()}
    assert levels["en"] == levels["ko"]
    assert variables_of(PAGES["en"]) == variables_of(PAGES["ko"])
    assert EXAMPLES["en"].keys() == EXAMPLES["ko"].keys()
    for name, english in EXAMPLES["en"].items():
        korean = EXAMPLES["ko"][name]
        assert without_words(korean) == without_words(english), f"integrators.ko.md:{korean.line}"
        assert (korean.shown_language, korean.shown is None) == (english.shown_language, english.shown is None)


def test_both_guides_name_the_same_codes_headers_and_settings() -> None:
    """Whatever stands between backticks in the tables is said in both languages."""
    rows = {
        language: [re.findall(r"`[^`]+`", row) for row in re.findall(r"^\|.*\|$", page, re.MULTILINE)]
        for language, page in PAGES.items()
    }
    assert [sorted(row) for row in rows["ko"]] == [sorted(row) for row in rows["en"]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_of_a_guide_leads_somewhere(language: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[language]):
        path, _, place = target.partition("#")
        page = (GUIDES / path).resolve() if path else GUIDES / f"integrators.{language}.md"
        assert page.exists(), target
        if place:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            assert place in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_guides_stand_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"docs/guides/integrators.{language}.md" in readme for language in LANGUAGES)


def test_the_error_example_tells_a_used_up_budget_from_a_full_minute(site: Site) -> None:
    example = the_example("except openai.RateLimitError")
    broke = site.key_with("broke", Limits(budgets=(Budget(Period.DAY, "tokens", Decimal(1)),)))
    assert site.run(example, key=broke).out.startswith("the budget is used up, no use in trying again: ")
    hasty = site.key_with("hasty", Limits(requests_per_min=1))
    without_retries = replace(example, code=example.code.replace("max_retries=2", "max_retries=0"))
    assert without_retries != example
    assert site.run(without_retries, key=hasty).out.startswith("answered: ")
    assert re.fullmatch(r"too fast, again after \d+ s\n", site.run(without_retries, key=hasty).out)
    assert site.run(example, key="simsa-nobodys").out.startswith("ask the operator, invalid_api_key: ")


def test_an_example_that_turns_to_another_machine_is_ended(site: Site) -> None:
    code = "import socket\nsocket.create_connection(('example.invalid', 443))"
    ended = site.python.run(code, {}, site.directory, name="astray.py")
    assert (ended.code, ended.err) == (WENT_OUT, "the example turned to example.invalid\n")


def test_embeddings_as_langchain_makes_them_by_default_would_ask_the_internet(site: Site) -> None:
    """Why the guide says `check_embedding_ctx_length=False`."""
    example = the_example("check_embedding_ctx_length")
    usual = replace(example, code=example.code.replace(", check_embedding_ctx_length=False", ""))
    assert usual != example
    assert site.run(usual).code == WENT_OUT


def test_langchain_asks_for_the_usage_of_streams_only_when_told(site: Site) -> None:
    """Why the guide says `stream_usage=True`."""
    code = (
        "import os\nfrom langchain_openai import ChatOpenAI\n"
        "model = ChatOpenAI(model=os.environ['MODEL'], max_tokens=8)\n"
        "print([chunk.usage_metadata for chunk in model.stream('Hello') if chunk.usage_metadata])\n"
    )
    assert site.python.run(code, site.environment, site.directory, name="usual.py").out == "[]\n"


@pytest.mark.parametrize(
    ("printed", "shown", "language", "fits"),
    [
        ("12 tokens\n", "7 tokens\n", "text", True),
        ("0.25 s\n", "1.5 s\n", "text", True),
        ("anything\nat all\n", "…\n", "text", True),
        ("12 words\n", "7 tokens\n", "text", False),
        ("12 tokens\nand more\n", "7 tokens\n", "text", False),
        ('{"a": 1, "b": 2}', '{"a": 5}', "json", True),
        ('{"b": 2}', '{"a": 5}', "json", False),
        ('{"a": "1"}', '{"a": 5}', "json", False),
        ('{"a": [{"b": 1}]}', '{"a": [{"b": 0}]}', "json", True),
        ('{"a": []}', '{"a": [{"b": 0}]}', "json", False),
        ("oops", '{"a": 5}', "json", False),
    ],
)
def test_output_is_compared_by_its_form(printed: str, shown: str, language: str, fits: bool) -> None:
    assert (differs_from_shown(printed, shown, language) is None) is fits
