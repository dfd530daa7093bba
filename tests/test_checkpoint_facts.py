"""A checkpoint's facts from folders and from servers: headers alone are read, only where allowed, and within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from known_configs import THIN
from processes_under_test import run_simsa
from range_server import RangeServer
from safetensors_files import Shapes, data_bytes, file_head, whole_file
from scripted_replies import CLOSE, Reply, Request

from gateway.checkpoint_facts import read_checkpoint
from gateway.domain.model_config import count_params
from gateway.domain.records import Model, ServingKind
from gateway.errors import CheckpointUnreadable
from gateway.registry import parse_registry
from gateway.registry.text import write_document
from gateway.registry_entry import registry_entry
from gateway.settings import Settings

CONFIG = {**THIN["llama"], "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "head_dim": 16}
HIDDEN, FFN, VOCAB = 96, 202, 1009


def layer(n: int) -> dict[str, Any]:
    at = f"model.layers.{n}"
    shapes = {"self_attn.q_proj": [96, HIDDEN], "self_attn.k_proj": [32, HIDDEN], "self_attn.v_proj": [32, HIDDEN]}
    shapes |= {"self_attn.o_proj": [HIDDEN, 96], "mlp.gate_proj": [FFN, HIDDEN], "mlp.up_proj": [FFN, HIDDEN]}
    shapes |= {"mlp.down_proj": [HIDDEN, FFN], "input_layernorm": [HIDDEN], "post_attention_layernorm": [HIDDEN]}
    return {f"{at}.{name}.weight": ("BF16", shape) for name, shape in shapes.items()}


FIRST: dict[str, Any] = {"model.embed_tokens.weight": ("BF16", [VOCAB, HIDDEN]), **layer(0), **layer(1), **layer(2)}
SECOND: dict[str, Any] = {
    **layer(3),
    **layer(4),
    **layer(5),
    "model.norm.weight": ("BF16", [HIDDEN]),
    "lm_head.weight": ("BF16", [VOCAB, HIDDEN]),
}
ONE: Shapes = {**FIRST, **SECOND}
NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = {
    "metadata": {"total_size": data_bytes(ONE)},
    "weight_map": {**dict.fromkeys(FIRST, NAMES[0]), **dict.fromkeys(SECOND, NAMES[1])},
}


def sharded() -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": json.dumps(INDEX).encode(),
        NAMES[0]: whole_file(FIRST),
        NAMES[1]: whole_file(SECOND),
    }


def single() -> dict[str, bytes]:
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": whole_file(ONE)}


def lay(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def at(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}/{name}": data for name, data in files.items()}


async def refusal(source: str, settings: Settings | None = None) -> str:
    with pytest.raises(CheckpointUnreadable) as refused:
        await read_checkpoint(source, settings or Settings())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def check_whole(model: Model) -> None:
    counted = count_params(CONFIG)
    assert counted is not None
    assert model.shape is not None
    assert model.serving.kind is ServingKind.VLLM
    assert (model.shape.params, model.shape.active_params) == (counted.total, counted.total)
    assert (model.weights.size_bytes, model.weights.dtype) == (2 * counted.total, "bfloat16")
    assert model.weights.architecture == "LlamaForCausalLM"
    assert model.weights.sourced is not None
    assert model.weights.sourced.source.startswith("safetensors headers of ")


@pytest.mark.parametrize("files", [sharded(), single()], ids=["sharded", "single"])
async def test_a_folder_is_read_exactly(files: dict[str, bytes], tmp_path: Path) -> None:
    model = await read_checkpoint(str(lay(files, tmp_path / "My Model!")), Settings())
    assert model.id == "My-Model"
    check_whole(model)


async def test_a_folder_without_weights_is_its_configuration(tmp_path: Path) -> None:
    model = await read_checkpoint(str(lay({"config.json": single()["config.json"]}, tmp_path / "m")), Settings())
    assert model.weights.size_bytes is None
    assert model.shape is not None
    assert model.shape.facts["params"].source == "arithmetic"
    alone = await read_checkpoint(str(tmp_path / "m" / "config.json"), Settings(), model_id="x")
    assert (alone.id, alone.shape and alone.shape.params) == ("x", model.shape.params)


async def test_weights_without_a_configuration_still_have_their_size(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(whole_file(ONE))
    model = await read_checkpoint(str(tmp_path / "w.safetensors"), Settings())
    assert model.weights.size_bytes == data_bytes(ONE)
    assert model.shape is not None
    assert (model.shape.layers, model.shape.active_params, model.shape.tied_embeddings) == (None, None, False)


async def test_a_hub_is_asked_for_headers_only() -> None:
    async with RangeServer(at("/org/m", sharded())) as server:
        model = await read_checkpoint(f"{server.url}/org/m", Settings(hub_urls=server.url))
        for name, shapes in zip(NAMES, (FIRST, SECOND), strict=True):
            end = len(file_head(shapes)) - 1
            assert server.ranges_of(f"/org/m/{name}") == ["bytes=0-7", f"bytes=8-{end}"]
    check_whole(model)
    assert model.id == "m"


async def test_a_server_that_ignores_ranges_is_cut_off_behind_the_header() -> None:
    big: Shapes = {**ONE, "model.layers.5.big.weight": ("BF16", [64, 1024, 1024])}
    files = {"config.json": single()["config.json"], "model.safetensors": whole_file(big)}
    async with RangeServer(at("/m", files), knows_ranges=False) as server:
        model = await read_checkpoint(f"{server.url}/m", Settings(hub_urls=server.url))
        (request,) = server.requests_to("/m/model.safetensors")
        await server.until(request.closed_by_peer.is_set)
        assert request.sent_bytes < 32 * 1024 * 1024 < data_bytes(big)
    assert model.weights.size_bytes == data_bytes(big)


async def test_no_hub_may_be_asked_unless_the_operator_says_so() -> None:
    async with RangeServer(at("/m", single())) as server:
        message = await refusal(f"{server.url}/m")
        assert f"name {server.url} in SIMSA_HUB_URLS" in message
        below = Settings(hub_urls=f"{server.url}/models")
        for path in ("/m", "/modelsx/m", "/models/../m", "/models/%2e%2e/m"):
            await refusal(f"{server.url}{path}", below)
        assert server.requests == []


async def test_redirects_lead_to_allowed_places_only() -> None:
    async with RangeServer(at("/real", single())) as files, RangeServer({}) as door:
        for name in single():
            moved = Reply(302, (("location", f"{files.url}/real/{name}?signed=a%2Fb"),))
            door.script(f"/m/{name}", moved)
        assert "SIMSA_HUB_URLS" in await refusal(f"{door.url}/m", Settings(hub_urls=door.url))
        assert files.requests == []
        both = Settings(hub_urls=f"{door.url}, {files.url}")
        check_whole(await read_checkpoint(f"{door.url}/m", both))
        assert files.requests[0].query == "signed=a%2Fb"


async def test_redirects_end() -> None:
    async with RangeServer({}) as server:
        server.script("/m/config.json", Reply(301, (("location", "config.json?signature=SECRET"),)))
        message = await refusal(f"{server.url}/m", Settings(hub_urls=server.url))
        assert f"{server.url}/m/config.json: more than 5 redirects" in message
        assert "SECRET" not in message


@pytest.mark.parametrize("tail", ["?token=SECRET", "#SECRET", "/?token=SECRET", "?", "#"])
async def test_the_address_of_a_folder_has_no_query(tail: str) -> None:
    async with RangeServer(at("/m", single())) as server:
        message = await refusal(f"{server.url}/m{tail}", Settings(hub_urls=server.url))
        assert "expected the address of a folder" in message
        assert "SECRET" not in message
        assert server.requests == []


class PrefixesOnly(RangeServer):
    """Never answers for what comes behind the first eight bytes of a file of weights."""

    def usual(self, request: Request) -> Reply:
        is_rest = request.path.endswith(".safetensors") and request.header("range") != "bytes=0-7"
        return Reply.hang() if is_rest else super().usual(request)


async def test_headers_are_not_fetched_beyond_what_all_may_take_together() -> None:
    """The prefixes alone say that eight headers of 99 MB are too much: at most two of them are asked for."""
    names = [f"m{n}.safetensors" for n in range(8)]
    index = json.dumps({"weight_map": {name: name for name in names}}).encode()
    prefix = (99_000_000).to_bytes(8, "little")
    files = {"model.safetensors.index.json": index, **dict.fromkeys(names, prefix)}
    async with PrefixesOnly(at("/m", files)) as server:
        message = await refusal(f"{server.url}/m", Settings(hub_urls=server.url))
        asked = [one for name in names for one in server.ranges_of(f"/m/{name}") if one != "bytes=0-7"]
    assert "expected at most 268,435,456 bytes of headers in all" in message
    assert len(asked) <= 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply.text("no", status=401), "asks for permission (401)"),
        (Reply.text("no", status=500), "answered 500"),
        (Reply.text("{"), "expected JSON"),
        (Reply.text("[]"), "expected a JSON object"),
        (Reply.text("x" * 5_000_000), "too long"),
        (Reply.text("{" + " " * 999).cut(20, CLOSE), "cut short"),
        (Reply.hang(), "SIMSA_HUB_TIMEOUT_S"),
        (Reply.hang_after_head(), "SIMSA_HUB_TIMEOUT_S"),
    ],
)
async def test_what_a_hub_does_wrong_is_one_sentence(reply: Reply, said: str) -> None:
    async with RangeServer({}) as server:
        server.script("/m/config.json", reply)
        assert said in await refusal(f"{server.url}/m", Settings(hub_urls=server.url, hub_timeout_s=0.5))


async def test_a_hub_that_is_not_there_is_named() -> None:
    assert "cannot be reached" in await refusal("http://127.0.0.1:9/m", Settings(hub_urls="http://127.0.0.1:9"))


async def test_credentials_and_other_schemes_are_refused() -> None:
    allowed = Settings(hub_urls="http://127.0.0.1:9")
    message = await refusal("http://user:secret@127.0.0.1:9/m", allowed)
    assert "without credentials" in message
    assert "secret" not in message


async def test_a_partial_answer_that_is_not_the_asked_part_is_refused() -> None:
    async with RangeServer(at("/m", {"config.json": single()["config.json"]})) as server:
        for headers in ((), (("content-range", "bytes 9-16/99"),)):
            server.script("/m/model.safetensors", Reply(206, headers, (b"x" * 8,)))
            message = await refusal(f"{server.url}/m", Settings(hub_urls=server.url))
            assert "does not send the bytes that were asked for" in message


async def test_files_that_are_not_whole_are_told(tmp_path: Path) -> None:
    folder = lay(single(), tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "it is not whole" in await refusal(str(folder))
    weights.write_bytes(weights.read_bytes()[:100])
    assert "cut short" in await refusal(str(folder))


async def test_an_index_and_its_files_have_to_agree(tmp_path: Path) -> None:
    folder = lay(sharded(), tmp_path / "m")
    (folder / NAMES[1]).write_bytes(whole_file({**layer(3), "lm_head.weight": ("BF16", [VOCAB, HIDDEN])}))
    assert "is said to be in" in await refusal(str(folder))
    (folder / NAMES[1]).unlink()
    assert f"expected {NAMES[1]} beside it" in await refusal(str(folder))


async def test_several_files_without_an_index_are_refused(tmp_path: Path) -> None:
    folder = lay({name: data for name, data in sharded().items() if "index" not in name}, tmp_path / "m")
    assert "expected model.safetensors.index.json beside 2" in await refusal(str(folder))


@pytest.mark.parametrize("name", ["nothing", "empty"])
async def test_what_is_no_checkpoint_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "expected a" in await refusal(str(tmp_path / name))


@pytest.mark.parametrize("files", [sharded(), {"config.json": single()["config.json"]}], ids=["weights", "config"])
async def test_the_registry_reads_an_entry_back(files: dict[str, bytes], tmp_path: Path) -> None:
    model = await read_checkpoint(str(lay(files, tmp_path / "m")), Settings())
    document = write_document({"models": [registry_entry(model)]})
    read = parse_registry(document, path="r.yaml").models["m"]
    assert read.weights == model.weights
    assert read.shape is not None
    assert model.shape is not None
    for name in ("params", "active_params", "layers", "heads", "kv_heads", "head_dim", "context", "global_layers"):
        assert getattr(read.shape, name) == getattr(model.shape, name), name
        assert read.shape.facts[name] == model.shape.facts[name], name


@pytest.mark.parametrize("name", sorted(THIN))
async def test_every_family_becomes_an_entry_that_the_registry_takes(name: str, tmp_path: Path) -> None:
    folder = lay({"config.json": json.dumps(THIN[name]).encode()}, tmp_path / "m")
    model = await read_checkpoint(str(folder), Settings())
    read = parse_registry(write_document({"models": [registry_entry(model)]}), path="r.yaml").models["m"]
    assert read.shape is not None
    assert model.shape is not None
    assert (read.shape.mla, read.shape.moe, read.shape.linear) == (model.shape.mla, model.shape.moe, model.shape.linear)
    assert (read.shape.params, read.shape.global_layers) == (model.shape.params, model.shape.global_layers)


async def test_the_command_prints_an_entry_or_one_line(tmp_path: Path) -> None:
    folder = lay(single(), tmp_path / "m")
    ended = await run_simsa("registry", "facts", str(folder), "--id", "mine")
    assert (ended.code, ended.err) == (0, "")
    assert parse_registry(ended.out.encode(), path="r.yaml").models["mine"].weights.size_bytes == data_bytes(ONE)
    printed = await run_simsa("registry", "facts", str(folder), "--json")
    assert json.loads(printed.out)["shape"]["layers"] == 6
    refused = await run_simsa("registry", "facts", "https://hub.example.org/m")
    assert refused.code == 2
    assert "SIMSA_HUB_URLS" in refused.error_line
