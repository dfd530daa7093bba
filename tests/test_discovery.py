"""Replicas behind DNS names and in a file of their own, while they change under a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from clients import RawClient
from engines import DONE, Reply, ScriptedEngine, chat_chunk
from gateways import Entry, RunningGateway, entry, registry_text, running_gateway
from guards import HANG_S
from hypothesis import given
from hypothesis import strategies as st
from name_server import REFUSED, NameServer
from processes_under_test import run_simsa

from gateway.domain.discovery import (
    EMPTY_ROUNDS,
    Answer,
    Found,
    NoneThere,
    Question,
    Standing,
    Unanswered,
    problem_of,
    questions_of,
    with_addresses,
)
from gateway.domain.records import CallStatus, RecordType, Registry
from gateway.errors import RegistryInvalid
from gateway.registry import load_registry, parse_registry
from gateway.registry.replicas_file import add_replicas
from gateway.resolver import Resolver
from gateway.settings import Settings

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
NAME = "engines.test"
GPUS = [
    {
        "id": "h",
        "name": "H",
        "memory": "80 GB",
        "bandwidth_tb_per_s": 3,
        "source": "a data sheet",
        "confidence": "high",
    }
]


def named(model_id: str, port: int, name: str = NAME, **fields: Any) -> dict[str, Any]:
    """A registry entry whose engines stand behind a name."""
    return {"id": model_id, "serving": {"kind": "vllm"}, "replicas": [{"dns": name, "port": port, **fields}]}


@asynccontextmanager
async def discovering(
    directory: Path, models: list[Entry], names: NameServer, **settings: Any
) -> AsyncIterator[RunningGateway]:
    async with running_gateway(directory, models, dns_servers=names.address, dns_refresh_s=0.02, **settings) as gateway:
        yield gateway


@asynccontextmanager
async def two_engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    """Two engines on one port, as the pods of a Deployment have it."""
    async with ScriptedEngine() as first, ScriptedEngine(host="127.0.0.2", port=first.port) as second:
        yield first, second


async def get(gateway: RunningGateway, path: str) -> Any:
    async with RawClient(gateway.url) as client:
        return (await client.request("GET", path)).json()


async def ask(gateway: RunningGateway) -> tuple[int, str | None]:
    """The status of one call and the replica that answered it."""
    async with RawClient(gateway.url) as client:
        answer = await client.request("POST", CHAT, body=ASK)
    return answer.status, answer.header("x-simsa-replica")


def ids(gateway: RunningGateway, model_id: str = "m") -> list[str]:
    return [state.replica.id for state in gateway.services.fleet.states_of(model_id)]


def series(gateway: RunningGateway) -> str:
    return gateway.services.telemetry.render().decode()


# --- what an answer changes ---------------------------------------------------------------------------------


answers = st.one_of(
    st.builds(Found, st.lists(st.ip_addresses(v=4).map(str), unique=True, min_size=1).map(tuple), st.just(5.0)),
    st.builds(NoneThere, st.just("no such name")),
    st.builds(Unanswered, st.just("SERVFAIL")),
)


@given(st.lists(answers))
def test_addresses_are_those_of_the_last_answer_that_has_some_until_enough_in_a_row_have_none(
    given_answers: list[Answer],
) -> None:
    standing = Standing()
    expected: tuple[str, ...] = ()
    empty = 0
    was_answered = False
    for answer in given_answers:
        standing = standing.after(answer)
        was_answered |= not isinstance(answer, Unanswered)
        match answer:
            case Found(addresses):
                expected, empty = addresses, 0
            case NoneThere():
                empty += 1
                expected = () if empty >= EMPTY_ROUNDS else expected
        assert standing.addresses == expected
        assert standing.was_answered is was_answered
        assert standing.is_failing == isinstance(answer, Unanswered)
        assert (standing.why is None) == isinstance(answer, Found)


@pytest.mark.parametrize(
    ("a", "aaaa", "problem"),
    [
        ([], [], "n has no address: it was not asked for yet"),
        ([Found(("1.1.1.1",), 5)], [NoneThere("it has no AAAA record")], None),
        ([NoneThere("no such name")], [NoneThere("no such name")], "n has no address: no such name"),
        ([Unanswered("A: SERVFAIL")], [NoneThere("no")], "n cannot be resolved: A: SERVFAIL"),
        (
            [Found(("1.1.1.1",), 5), Unanswered("A: SERVFAIL")],
            [NoneThere("no")],
            "n cannot be resolved: A: SERVFAIL; its last addresses stay in use",
        ),
        (
            [Found(("1.1.1.1",), 5), NoneThere("no such name")],
            [NoneThere("no such name")],
            "n has no address: no such name; its last ones stay in use for now",
        ),
    ],
)
def test_problem_says_what_is_wrong_with_a_name_and_what_is_used_meanwhile(
    a: list[Answer], aaaa: list[Answer], problem: str | None
) -> None:
    standings = []
    for given_answers in (a, aaaa):
        standing = Standing()
        for answer in given_answers:
            standing = standing.after(answer)
        standings.append(standing)
    assert problem_of("n", standings) == problem


def registry_of(*models: Entry) -> Registry:
    return parse_registry(registry_text(models, gpus=GPUS).encode(), path="r.yaml")


def test_each_address_is_a_replica_with_what_the_entry_says() -> None:
    registry = registry_of(named("m", 8000, gpu="h", gpus=2, weight=0.5, base_path="/llm/v1", max_in_flight=7))
    question = Question(NAME, RecordType.A)
    v6 = Question(NAME, RecordType.AAAA)
    assert questions_of(registry) == {question, v6}
    known = with_addresses(registry, {question: ("10.0.0.1", "10.0.0.2"), v6: ("fd00::a",)}).models["m"].replicas
    assert [one.url for one in known] == ["http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://[fd00::a]:8000"]
    assert [one.id for one in known] == ["m/10.0.0.1:8000", "m/10.0.0.2:8000", "m/[fd00::a]:8000"]
    assert {(one.gpu, one.gpus, one.weight, one.base_path, one.max_in_flight) for one in known} == {
        ("h", 2, 0.5, "/llm/v1", 7)
    }


@pytest.mark.parametrize(
    ("family", "types"),
    [("ipv4", {RecordType.A}), ("ipv6", {RecordType.AAAA}), (None, {RecordType.A, RecordType.AAAA})],
)
def test_family_says_which_records_are_asked_for(family: str | None, types: set[RecordType]) -> None:
    asked = questions_of(registry_of(named("m", 8000, **({"family": family} if family else {}))))
    assert {question.record_type for question in asked} == types


def test_an_engine_is_a_models_once_and_its_gpu_is_paid_for_once() -> None:
    question = Question(NAME, RecordType.A)
    both = named("m", 8000, gpu="h")
    both["replicas"] = [{"url": "http://10.0.0.1:8000", "gpu": "h"}, *both["replicas"]]
    models = with_addresses(
        registry_of(both, named("n", 8000, "other.test", gpu="h")),
        {question: ("10.0.0.1", "10.0.0.2"), Question("other.test", RecordType.A): ("10.0.0.2", "10.0.0.3")},
    ).models
    assert [one.id for one in models["m"].replicas] == ["m/1", "m/10.0.0.2:8000"]
    assert [(one.id, one.gpu) for one in models["n"].replicas] == [
        ("n/10.0.0.2:8000", None),
        ("n/10.0.0.3:8000", "h"),
    ]


# --- entries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replica", "complaint"),
    [
        ({}, "url: missing; expected an address such as http://127.0.0.1:8101, or dns and port"),
        ({"dns": "e"}, "port: missing; expected the port at which the engines listen"),
        ({"dns": "e", "port": 0}, "port: expected a port, 1 to 65535, got 0"),
        ({"dns": "e", "port": "8000"}, "port: expected a port, 1 to 65535, got '8000'"),
        ({"dns": "e", "port": 8000, "url": "http://e"}, "dns: expected either url or dns, got both"),
        ({"dns": "10.0.0.1", "port": 8000}, "dns: expected a DNS name such as engines.models.svc.cluster.local, got"),
        ({"dns": "http://e", "port": 8000}, "dns: expected a DNS name such as"),
        ({"dns": "e:8000", "port": 8000}, "dns: expected a DNS name such as"),
        ({"dns": "a..b", "port": 8000}, "dns: expected a DNS name such as"),
        ({"dns": "a" * 64, "port": 8000}, "dns: expected a DNS name such as"),
        ({"dns": "a." * 127 + "b", "port": 8000}, "dns: expected a DNS name such as"),
        ({"dns": "e", "port": 8000, "scheme": "https"}, "scheme: expected one of http; got 'https'"),
        ({"dns": "e", "port": 8000, "family": "v6"}, "family: expected one of ipv4, ipv6; got 'v6'"),
        ({"dns": "e", "port": 8000, "id": "x"}, "id: expected none beside dns: each engine behind a name is called"),
        (
            {"dns": "e", "port": 8000, "energy": {"url": "http://n:9400", "gpus": [0]}},
            "energy: expected none beside dns: it would be that of one engine",
        ),
        ({"url": "http://e", "port": 8000}, "port: expected only beside dns; an address says it itself"),
        ({"dns": "e", "port": 8000, "gpu": "x"}, "gpu: 'x' is not in gpus"),
    ],
)
def test_entry_that_says_where_engines_are_in_no_sensible_way_is_refused(
    replica: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RegistryInvalid) as refused:
        registry_of({"id": "m", "serving": {"kind": "vllm"}, "replicas": [replica]})
    (problem,) = refused.value.problems
    assert problem.replace(" (x)", "").startswith(f"r.yaml: models[0] (m).replicas[0].{complaint}")


@pytest.mark.parametrize("name", ["engines", "a.b.svc.cluster.local", "a.b.", "_http._tcp.e", "xn--bc.test", "e-1.x"])
def test_names_as_clusters_have_them_are_taken(name: str) -> None:
    (one,) = registry_of(named("m", 8000, name)).models["m"].named_replicas
    assert (one.name, one.port) == (name, 8000)


def test_gpu_behind_one_name_is_paid_for_once() -> None:
    with pytest.raises(RegistryInvalid, match=r"models\[1\] \(n\).replicas\[0\].gpu: expected none: the engine at"):
        registry_of(named("m", 8000, gpu="h"), named("n", 8000, gpu="h"))


BASE = [
    entry("m", "http://10.0.0.1:8000"),
    named("n", 8000),
    {"id": "gone", "serving": {"kind": "none", "reason": "withdrawn"}},
]
TWO = '{replicas: {m: [{url: "http://10.0.0.2:8000"}, {dns: x.test, port: 8001}], n: [{url: "http://10.0.0.3:8000"}]}}'


def test_replicas_file_adds_to_models_of_the_registry() -> None:
    registry = add_replicas(registry_of(*BASE), TWO.encode(), path="f")
    assert [(one.id, one.url) for one in registry.models["m"].replicas] == [
        ("m/1", "http://10.0.0.1:8000"),
        ("m/10.0.0.2:8000", "http://10.0.0.2:8000"),
    ]
    assert [one.name for one in registry.models["m"].named_replicas] == ["x.test"]
    assert [one.id for one in registry.models["n"].replicas] == ["n/10.0.0.3:8000"]
    assert [one.name for one in registry.models["n"].named_replicas] == [NAME]
    assert registry.sha256 == registry_of(*BASE).sha256


@pytest.mark.parametrize("text", ["replicas:", "replicas: {}", "{}", "replicas: {m: []}"])
def test_replicas_file_may_add_nothing(text: str) -> None:
    assert add_replicas(registry_of(*BASE), text.encode(), path="f") == registry_of(*BASE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "f: expected a mapping with `replicas:`, got a list"),
        ("models: []", "f: models: unknown field; known here: replicas (line 1)"),
        ("replicas: []", "f: replicas: expected a mapping of model ids to lists, got a list (line 1)"),
        ("replicas: {mm: []}", "f: replicas.mm: no model 'mm' in the registry, did you mean 'm'? (line 1)"),
        (
            "replicas: {gone: []}",
            "f: replicas.gone: expected no replicas, as the registry says that nothing serves it (line 1)",
        ),
        ("replicas: {m: {url: x}}", "f: replicas.m: expected a list of replicas, got a mapping (line 1)"),
        ("replicas: {m: [x]}", "f: replicas.m[0]: expected a mapping, got 'x' (line 1)"),
        (
            "replicas: {m: [{url: e}]}",
            "f: replicas.m[0].url: expected an address such as http://127.0.0.1:8101, got 'e' (line 1)",
        ),
        ("replicas: {m: [{dns: e}]}", "f: replicas.m[0].port: missing; expected the port at which the engines listen"),
        ("replicas: {m: [{dns: '-', port: 1}]}", "f: replicas.m[0].dns: expected a DNS name such as"),
        ("replicas: {m: [{url: 'http://e', gpu: x}]}", "f: replicas.m[0].gpu: 'x' is not in gpus (line 1)"),
        (
            "replicas: {m: [{url: 'http://10.0.0.1:8000'}]}",
            "f: replicas.m: http://10.0.0.1:8000 stands in it twice, or in the registry as well (line 1)",
        ),
        (
            f"replicas: {{n: [{{dns: {NAME}, port: 8000}}]}}",
            f"f: replicas.n: http://{NAME}:8000 stands in it twice, or in the registry as well (line 1)",
        ),
        (
            "replicas: {m: [{url: 'http://e', id: m/1}]}",
            "f: replicas.m: expected an id of its own; a replica 'm/1' is there already (line 1)",
        ),
        ("replicas: {", "f: not valid YAML: "),
        ("", "f: the file is empty"),
    ],
)
def test_replicas_file_that_is_wrong_is_refused_by_entry(text: str, problem: str) -> None:
    with pytest.raises(RegistryInvalid) as refused:
        add_replicas(registry_of(*BASE), text.encode(), path="f")
    (found,) = refused.value.problems
    assert found.startswith(problem)


def test_gpu_and_counters_of_an_engine_of_the_registry_are_not_named_again_in_the_replicas_file() -> None:
    meter = {"url": "http://node:9400/metrics", "gpus": [0]}
    first = {"url": "http://10.0.0.1:8000", "gpu": "h", "energy": meter}
    registry = registry_of(
        {"id": "m", "serving": {"kind": "vllm"}, "replicas": [first]}, {"id": "n", "serving": {"kind": "vllm"}}
    )
    text = json.dumps({"replicas": {"n": [first]}})
    with pytest.raises(RegistryInvalid) as refused:
        add_replicas(registry, text.encode(), path="f")
    assert [problem.split(":")[1] for problem in refused.value.problems] == [
        " replicas.n[0].energy.gpus",
        " replicas.n[0].gpu",
    ]
    assert all("in an earlier entry" in problem for problem in refused.value.problems)


def test_replicas_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(registry_text(BASE))
    with pytest.raises(RegistryInvalid, match=r"f\.yaml: cannot be read: no such file; .* SIMSA_REPLICAS_FILE"):
        load_registry(tmp_path / "r.yaml", replicas_file=tmp_path / "f.yaml")


# --- asking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("10.0.0.10", (("10.0.0.10", 53),)),
        ("10.0.0.10:5353, [fd00::a]:54,fd00::b", (("10.0.0.10", 5353), ("fd00::a", 54), ("fd00::b", 53))),
    ],
)
def test_name_servers_are_addresses_with_or_without_a_port(text: str, servers: tuple[tuple[str, int], ...]) -> None:
    assert Settings(dns_servers=text).name_servers == servers


@pytest.mark.parametrize("text", ["dns.test", "10.0.0.10:0", "10.0.0.10:65536", "10.0.0:53", "[10.0.0.1", "https://x"])
def test_name_server_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected (an address|a port)"):
        Settings(dns_servers=text)


async def test_answers_are_told_apart() -> None:
    async with NameServer(ttl_s=7) as names:
        resolver = Resolver([("127.0.0.1", names.port)])
        names.set(NAME, "10.0.0.2", "10.0.0.1", "fd00::a")
        names.alias("alias.test", NAME)
        names.fail("failing.test")
        names.fail("closed.test", REFUSED)
        names.set("bare.test")
        assert await resolver.ask(Question(NAME, RecordType.A)) == Found(("10.0.0.1", "10.0.0.2"), 7)
        assert await resolver.ask(Question(f"{NAME}.", RecordType.AAAA)) == Found(("fd00::a",), 7)
        assert await resolver.ask(Question("alias.test", RecordType.A)) == Found(("10.0.0.1", "10.0.0.2"), 7)
        assert await resolver.ask(Question("bare.test", RecordType.A)) == NoneThere("it has no A record")
        assert await resolver.ask(Question("absent.test", RecordType.A)) == NoneThere("no such name")
        for name, word in (("failing.test", "SERVFAIL"), ("closed.test", "REFUSED")):
            answer = await resolver.ask(Question(name, RecordType.A))
            assert isinstance(answer, Unanswered)
            assert word in answer.why
            assert answer.why.startswith("A: ")


async def test_answer_too_long_for_a_datagram_is_fetched_whole() -> None:
    addresses = tuple(sorted(f"10.0.{n // 200}.{n % 200 + 1}" for n in range(400)))
    async with NameServer() as names:
        names.set(NAME, *addresses)
        answer = await Resolver([("127.0.0.1", names.port)]).ask(Question(NAME, RecordType.A))
        assert isinstance(answer, Found)
        assert answer.addresses == addresses
        assert names.over_tcp == 1


async def test_first_server_that_answers_is_enough() -> None:
    async with NameServer() as broken, NameServer() as names:
        broken.fail(NAME)
        names.set(NAME, "10.0.0.1")
        resolver = Resolver([("127.0.0.1", broken.port), ("127.0.0.1", names.port)])
        assert await resolver.ask(Question(NAME, RecordType.A)) == Found(("10.0.0.1",), 0)


async def test_asking_can_be_given_up_at_any_moment() -> None:
    """A library that is cut short leaves sockets behind, with which uvloop's loop does not close: see `ask`."""
    async with NameServer() as names:
        names.set(NAME, "10.0.0.1")
        resolver = Resolver([("127.0.0.1", names.port)])
        for turns in range(100):
            asking = asyncio.create_task(resolver.ask(Question(NAME, RecordType.A)))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_answered = asking.done()
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled() is not is_answered, f"given up after {turns} turns of the loop"
        await resolver.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("ask for")]


async def test_server_that_is_not_there_gives_no_answer() -> None:
    async with NameServer() as names:
        gone = ("127.0.0.1", names.port)
    answer = await Resolver([gone]).ask(Question(NAME, RecordType.A))
    assert isinstance(answer, Unanswered)


# --- under a running gateway --------------------------------------------------------------------------------


async def test_new_address_gets_calls_and_is_shown(tmp_path: Path) -> None:
    async with NameServer() as names, two_engines() as (first, second):
        names.set(NAME, "127.0.0.1")
        async with discovering(tmp_path, [named("m", first.port)], names) as gateway:
            await gateway.until_live("m")
            assert await ask(gateway) == (200, f"m/127.0.0.1:{first.port}")
            names.set(NAME, "127.0.0.1", "127.0.0.2")
            await gateway.until_live("m", replicas=2)
            async with asyncio.timeout(HANG_S):
                while not second.requests_to(CHAT):
                    assert (await ask(gateway))[0] == 200
            shown = (await get(gateway, "/api/models"))["data"][0]
            assert [one["id"] for one in shown["replicas"]] == [f"m/127.0.0.{n}:{first.port}" for n in (1, 2)]
            assert shown["replica_names"] == [
                {"dns": NAME, "port": first.port, "addresses": ["127.0.0.1", "127.0.0.2"], "problem": None}
            ]
            for n in (1, 2):
                assert f'simsa_replica_up{{model="m",replica="m/127.0.0.{n}:{first.port}"}} 1.0' in series(gateway)


async def test_address_that_leaves_finishes_its_stream_and_gets_no_other_call(tmp_path: Path) -> None:
    async with NameServer() as names, two_engines() as (first, _):
        names.set(NAME, "127.0.0.1")
        async with discovering(tmp_path, [named("m", first.port)], names) as gateway, RawClient(gateway.url) as client:
            await gateway.until_live("m")
            gate = asyncio.Event()
            word = chat_chunk("word ")
            first.script(CHAT, Reply.stream(word, gate, chat_chunk(finish_reason="stop"), DONE))
            await client.start("POST", CHAT, body={**ASK, "stream": True})
            assert b"word" in await client.next_event()
            names.set(NAME, "127.0.0.2")
            await gateway.until(lambda: ids(gateway) == [f"m/127.0.0.2:{first.port}"])
            await gateway.until_live("m")
            assert await ask(gateway) == (200, f"m/127.0.0.2:{first.port}")
            assert len(first.requests_to(CHAT)) == 1
            assert f"127.0.0.1:{first.port}" not in series(gateway)
            gate.set()
            assert (await client.rest()).endswith(DONE)
            await first.until(lambda: not first.connections_open)
            calls = {call.replica: call.status for call in await gateway.calls(2)}
            assert calls[f"m/127.0.0.1:{first.port}"] is CallStatus.OK


async def test_name_server_that_fails_takes_no_address_away_and_is_shown_counted_and_logged_once(
    tmp_path: Path,
) -> None:
    async with NameServer() as names, ScriptedEngine() as engine:
        names.set(NAME, "127.0.0.1")
        async with discovering(tmp_path, [named("m", engine.port)], names) as gateway:
            await gateway.until_live("m")
            with structlog.testing.capture_logs() as log:
                names.fail(NAME)
                await names.until_asked(NAME, 2 * EMPTY_ROUNDS)
                await names.until_asked(NAME, 2 * EMPTY_ROUNDS, "AAAA")
            assert (await ask(gateway))[0] == 200
            failing = [line for line in log if line["event"] == "name cannot be resolved"]
            assert sorted((line["record_type"], line["kept"]) for line in failing) == [("A", 1), ("AAAA", 0)]
            (shown,) = (await get(gateway, "/api/models"))["data"][0]["replica_names"]
            assert shown["addresses"] == ["127.0.0.1"]
            assert "SERVFAIL" in shown["problem"]
            assert shown["problem"].endswith("; its last addresses stay in use")
            assert (await get(gateway, "/ready"))["name_problems"] == {NAME: shown["problem"]}
            assert f'simsa_name_failing{{name="{NAME}"}} 1.0' in series(gateway)
            assert 'simsa_name_lookups_total{outcome="unanswered"}' in series(gateway)
            names.set(NAME, "127.0.0.1")
            await gateway.until(lambda: gateway.services.names.problems == {})
            assert f'simsa_name_failing{{name="{NAME}"}} 0.0' in series(gateway)


async def test_name_that_is_gone_for_some_rounds_takes_its_replicas_away_until_it_is_back(tmp_path: Path) -> None:
    async with NameServer() as names, ScriptedEngine() as engine:
        names.set(NAME, "127.0.0.1")
        async with discovering(tmp_path, [named("m", engine.port)], names) as gateway:
            await gateway.until_live("m")
            names.remove(NAME)
            await gateway.until(lambda: not ids(gateway))
            assert names.asked[NAME, "A"] >= EMPTY_ROUNDS + 1
            assert await ask(gateway) == (503, None)
            (shown,) = (await get(gateway, "/api/models"))["data"]
            assert shown["reason"] == f"{NAME} has no address: no such name"
            assert "simsa_replica_up{" not in series(gateway)
            names.set(NAME, "127.0.0.1")
            await gateway.until_live("m")
            assert (await ask(gateway))[0] == 200


async def test_one_empty_answer_takes_no_address_away(tmp_path: Path) -> None:
    """A name server that has just started may not know its zone yet."""
    async with NameServer() as names, ScriptedEngine() as engine:
        names.set(NAME, "127.0.0.1")
        async with discovering(tmp_path, [named("m", engine.port, family="ipv4")], names) as gateway:
            await gateway.until_live("m")
            state = gateway.services.fleet.states_of("m")[0]
            names.empty_once(NAME)
            await names.until_asked(NAME, EMPTY_ROUNDS + 1)
            assert gateway.services.fleet.states_of("m") == [state]


async def test_engine_at_an_ipv6_address_is_called(tmp_path: Path) -> None:
    async with NameServer() as names, ScriptedEngine(host="::1") as engine:
        names.set(NAME, "::1")
        async with discovering(tmp_path, [named("m", engine.port)], names) as gateway:
            await gateway.until_live("m")
            assert await ask(gateway) == (200, f"m/[::1]:{engine.port}")
            assert engine.requests_to(CHAT)[0].header("host") == f"[::1]:{engine.port}"


async def test_new_address_is_tried_out_before_it_gets_calls(tmp_path: Path) -> None:
    async with NameServer() as names, two_engines() as (first, second):
        second.script("/v1/completions", Reply.text("dead", status=500))
        names.set(NAME, "127.0.0.1", "127.0.0.2")
        async with discovering(tmp_path, [named("m", first.port)], names) as gateway:
            await gateway.until_live("m")
            await second.received("/v1/completions", 2)
            assert [state.is_up for state in gateway.services.fleet.states_of("m")] == [True, False]
            for _ in range(4):
                assert await ask(gateway) == (200, f"m/127.0.0.1:{first.port}")
            assert not second.requests_to(CHAT)


async def test_replica_that_stays_keeps_its_state_whatever_comes_and_goes(tmp_path: Path) -> None:
    async with NameServer() as names, two_engines() as (first, _):
        names.set(NAME, "127.0.0.2")
        async with discovering(tmp_path, [named("m", first.port)], names) as gateway:
            await gateway.until_live("m")
            (kept,) = gateway.services.fleet.states_of("m")
            names.set(NAME, "127.0.0.1", "127.0.0.2")
            await gateway.until_live("m", replicas=2)
            assert gateway.services.fleet.states_of("m")[1] is kept
            names.set(NAME, "127.0.0.2")
            await gateway.until(lambda: len(ids(gateway)) == 1)
            assert gateway.services.fleet.states_of("m") == [kept]


async def test_name_that_leaves_the_registry_is_asked_for_no_more_and_its_series_go(tmp_path: Path) -> None:
    async with NameServer() as names, ScriptedEngine() as engine:
        names.set(NAME, "127.0.0.1")
        names.set("other.test", "127.0.0.1")
        async with discovering(tmp_path, [named("m", engine.port)], names) as gateway:
            await gateway.until_live("m")
            gateway.write_registry([named("m", engine.port, "other.test")])
            await names.until_asked("other.test", 1)
            await gateway.until_live("m")
            asked = names.asked[NAME, "A"]
            await names.until_asked("other.test", 5)
            assert names.asked[NAME, "A"] == asked
            assert f'name="{NAME}"' not in series(gateway)
            assert gateway.services.names.addresses.keys() == {
                Question("other.test", RecordType.A),
                Question("other.test", RecordType.AAAA),
            }


async def test_caller_who_sees_no_replicas_is_told_no_wrong_reason_and_no_address(tmp_path: Path) -> None:
    """It said that the key of a hosted API was missing, of an engine of our own that was down."""
    async with NameServer() as names:
        models = [entry("m", "http://127.0.0.1:9"), named("n", 9)]
        async with discovering(tmp_path, models, names, admin_key="admin-key") as gateway:
            await gateway.until(lambda: "no such name" in str(gateway.services.names.problems))
            async with RawClient(gateway.url, key=await gateway.key_of("guests")) as client:
                shown = (await client.request("GET", "/api/models")).json()["data"]
            assert [one["reason"] for one in shown] == ["no engine of it answers at the moment"] * 2
            assert [(one["replicas"], one["replica_names"]) for one in shown] == [(None, None)] * 2


async def test_a_file_of_replicas_is_checked_with_its_registry(tmp_path: Path) -> None:
    registry, replicas = tmp_path / "r.yaml", tmp_path / "f.yaml"
    registry.write_text(registry_text(BASE))
    replicas.write_text(TWO)
    assert (await run_simsa("registry", "check", str(registry), "--replicas", str(replicas))).code == 0
    replicas.write_text(replicas_text("http://e", model="mm"))
    refused = await run_simsa("registry", "check", str(registry), "--replicas", str(replicas), "--json")
    assert refused.code == 1
    assert json.loads(refused.out) == {
        "file": str(replicas),
        "valid": False,
        "problems": [f"{replicas}: replicas.mm: no model 'mm' in the registry, did you mean 'm'? (line 1)"],
    }


# --- the replicas file --------------------------------------------------------------------------------------

BARE = {"id": "m", "serving": {"kind": "vllm"}}


def replicas_text(*urls: str, model: str = "m") -> str:
    return json.dumps({"replicas": {model: [{"url": url} for url in urls]}})


async def test_replicas_file_is_watched_and_a_bad_one_leaves_the_former(tmp_path: Path) -> None:
    async with ScriptedEngine() as first, ScriptedEngine() as second:
        path = tmp_path / "replicas.yaml"
        path.write_text(replicas_text(first.url))
        async with running_gateway(tmp_path, [BARE], replicas_file=path) as gateway:
            await gateway.until_live("m")
            assert await ask(gateway) == (200, f"m/{first.url.removeprefix('http://')}")
            path.write_text(replicas_text(first.url, second.url))
            await gateway.until_live("m", replicas=2)
            path.write_text(replicas_text(second.url, model="mm"))
            await gateway.until(lambda: gateway.services.registry.problem is not None)
            problem = (await get(gateway, "/ready"))["registry_problem"]
            assert f"{path}: replicas.mm: no model 'mm' in the registry, did you mean 'm'?" in problem
            assert "simsa_registry_valid 0.0" in series(gateway)
            assert len(ids(gateway)) == 2
            path.write_text(replicas_text(second.url))
            await gateway.until(lambda: len(ids(gateway)) == 1)
            assert gateway.services.registry.problem is None
            assert await ask(gateway) == (200, f"m/{second.url.removeprefix('http://')}")


async def test_replicas_file_that_vanishes_leaves_the_former(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine:
        path = tmp_path / "replicas.yaml"
        path.write_text(replicas_text(engine.url))
        async with running_gateway(tmp_path, [BARE], replicas_file=path) as gateway:
            await gateway.until_live("m")
            path.unlink()
            await gateway.until(lambda: "cannot be read" in (gateway.services.registry.problem or ""))
            assert (await ask(gateway))[0] == 200


async def test_gateway_with_a_broken_replicas_file_does_not_start(tmp_path: Path) -> None:
    registry, replicas = tmp_path / "r.yaml", tmp_path / "f.yaml"
    registry.write_text(registry_text([BARE]))
    replicas.write_text(replicas_text("http://10.0.0.1", model="mm"))
    ended = await run_simsa("serve", registry=registry, replicas_file=replicas, data_dir=tmp_path / "data", port=0)
    assert ended.code == 2
    assert f"{replicas}: replicas.mm: no model 'mm' in the registry" in ended.err


async def test_mounted_directory_that_is_swapped_is_seen(tmp_path: Path) -> None:
    """As Kubernetes renews a ConfigMap: `..data` is a link to a directory of its own, and is replaced at once."""
    mount = tmp_path / "mount"
    async with ScriptedEngine() as first, ScriptedEngine() as second:
        swap(mount, "1", replicas_text(first.url))
        path = mount / "replicas.yaml"
        path.symlink_to("..data/replicas.yaml")
        async with running_gateway(tmp_path, [BARE], replicas_file=path) as gateway:
            await gateway.until_live("m")
            swap(mount, "2", replicas_text(second.url))
            await gateway.until(lambda: ids(gateway) == [f"m/{second.url.removeprefix('http://')}"])
            await gateway.until_live("m")


def swap(mount: Path, version: str, text: str) -> None:
    directory = mount / f"..{version}"
    directory.mkdir(parents=True)
    (directory / "replicas.yaml").write_text(text)
    fresh = mount / "..data_tmp"
    fresh.symlink_to(directory.name)
    fresh.replace(mount / "..data")


async def test_name_in_the_replicas_file_is_watched_too(tmp_path: Path) -> None:
    async with NameServer() as names, ScriptedEngine() as engine:
        names.set(NAME, "127.0.0.1")
        path = tmp_path / "replicas.yaml"
        path.write_text(json.dumps({"replicas": {"m": [{"dns": NAME, "port": engine.port}]}}))
        async with discovering(tmp_path, [BARE], names, replicas_file=path) as gateway:
            await gateway.until_live("m")
            assert await ask(gateway) == (200, f"m/127.0.0.1:{engine.port}")
