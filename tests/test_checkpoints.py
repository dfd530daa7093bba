"""Stand-in checkpoints: any text survives the tokenizer, configs are coherent, commands say what they must."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.checkpoints import (
    ARCHITECTURES,
    chat_template,
    extras_of,
    has_stand_in,
    lacks_extras,
    stand_in_command,
    stand_in_environment,
    tokenizer_json,
    weights_command,
    write_checkpoint,
)
from gateway.domain.records import Model, ModelShape, ReasoningSwitch, Serving, ServingKind, Weights
from gateway.errors import StartRefused
from gateway.provenance import STAND_IN_PREFIX

GREETING = "안녕하세요"
SMALL: dict[str, Any] = {"port": 1, "max_model_len": 8}


def candidate(architecture: str | None, *, window: int | None = None, name: str = "candidate", **serving: Any) -> Model:
    return Model(
        id=name,
        serving=Serving(kind=ServingKind.VLLM, served_model_name=name, **serving),
        weights=Weights(repo="maker/weights", architecture=architecture),
        shape=ModelShape(sliding_window=window),
    )


def read(path: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / name).read_text())
    return content


class PlainBpe:
    """Byte-level BPE by the book, without splitting into words: the oracle for our tokenizer.json."""

    def __init__(self, tokenizer: dict[str, Any]) -> None:
        self.vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
        self.tokens = {i: token for token, i in self.vocabulary.items()}
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(tokenizer["model"]["merges"])}
        # The same alphabet by its other definition: bytes in order, the unprintable ones numbered from U+0100.
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        unprintable = [byte for byte in range(256) if byte not in printable]
        self.letters = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(unprintable)}

    def encode(self, text: str) -> list[int]:
        parts = [self.letters[byte] for byte in text.encode()]
        while best := min((p for p in pairwise(parts) if p in self.ranks), key=self.ranks.__getitem__, default=None):
            place = next(i for i, pair in enumerate(pairwise(parts)) if pair == best)
            parts[place : place + 2] = ["".join(best)]
        return [self.vocabulary[part] for part in parts]

    def decode(self, ids: list[int]) -> str:
        values = {letter: byte for byte, letter in self.letters.items()}
        return bytes(values[letter] for i in ids for letter in self.tokens[i]).decode()


BPE = PlainBpe(tokenizer_json())


@given(
    st.text(
        alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("가각힣뷁 \n漢🙂")), max_size=30
    )
)
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text


def test_a_common_syllable_is_one_token_and_a_rare_one_its_bytes() -> None:
    assert len(BPE.encode(GREETING)) == 5
    assert len(BPE.encode("뷁")) in {2, 3}


def test_token_ids_are_every_number_below_the_vocabulary_size(tmp_path: Path) -> None:
    path = write_checkpoint(candidate("LlamaForCausalLM"), tmp_path)
    tokenizer, config = read(path, "tokenizer.json"), read(path, "config.json")
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(config["vocab_size"]))
    for added in tokenizer["added_tokens"]:
        assert tokenizer["model"]["vocab"][added["content"]] == added["id"]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_config_names_the_end_that_the_tokenizer_and_the_generation_use(tmp_path: Path, architecture: str) -> None:
    path = write_checkpoint(candidate(architecture), tmp_path, max_model_len=777)
    config, tokenizer = read(path, "config.json"), read(path, "tokenizer_config.json")
    vocabulary = read(path, "tokenizer.json")["model"]["vocab"]
    assert config["architectures"] == [architecture]
    assert config["max_position_embeddings"] == 777
    assert config["eos_token_id"] == vocabulary[tokenizer["eos_token"]]
    assert config["eos_token_id"] == read(path, "generation_config.json")["eos_token_id"]
    assert f"{tokenizer['eos_token']}\\n" in chat_template(candidate(architecture))


def test_a_window_makes_three_local_layers_to_a_global_one(tmp_path: Path) -> None:
    windowed = read(write_checkpoint(candidate("Exaone4ForCausalLM", window=4096), tmp_path), "config.json")
    assert windowed["layer_types"] == ["sliding_attention"] * 3 + ["full_attention"]
    assert windowed["num_hidden_layers"] == 4
    assert windowed["sliding_window"] < windowed["max_position_embeddings"]
    plain = read(write_checkpoint(candidate("Exaone4ForCausalLM"), tmp_path), "config.json")
    assert set(plain["layer_types"]) == {"full_attention"}
    assert plain["sliding_window"] is None


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    model = candidate("Qwen2ForCausalLM")
    first, second = write_checkpoint(model, tmp_path / "a"), write_checkpoint(model, tmp_path / "b")
    assert write_checkpoint(model, tmp_path / "a") == first
    files = sorted(path.name for path in first.iterdir())
    assert [(first / name).read_bytes() for name in files] == [(second / name).read_bytes() for name in files]


@pytest.mark.parametrize("name", ["EXAONE-4.0-32B", "maker/model"])
def test_the_last_path_part_says_stand_in(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(candidate("LlamaForCausalLM", name=name), tmp_path)
    assert path.parent == tmp_path
    assert path.name.startswith(STAND_IN_PREFIX)


@pytest.mark.parametrize("architecture", [None, "MotifForCausalLM"])
def test_an_architecture_without_a_stand_in_is_refused_with_those_that_have_one(
    tmp_path: Path, architecture: str | None
) -> None:
    model = candidate(architecture)
    assert not has_stand_in(model)
    with pytest.raises(StartRefused, match=f"candidate: .*{architecture or 'unknown'}; .*Exaone4ForCausalLM"):
        write_checkpoint(model, tmp_path)


def after(command: list[str], option: str) -> str:
    """The value of an option that stands exactly once."""
    assert command.count(option) == 1
    return command[command.index(option) + 1]


def test_a_stand_in_is_served_alone_on_loopback_without_weights_or_network(tmp_path: Path) -> None:
    model = candidate("LlamaForCausalLM", name="m")
    command = stand_in_command(Path("python"), model, tmp_path, port=8101, max_model_len=2048)
    assert after(command, "--load-format") == "dummy"
    assert after(command, "--host") == "127.0.0.1"
    assert after(command, "--port") == "8101"
    assert after(command, "--served-model-name") == "m"
    assert after(command, "--shutdown-timeout") == "20"
    environment = stand_in_environment(Path("python"), model, threads=2)
    assert (environment["OMP_NUM_THREADS"], environment["HF_HUB_OFFLINE"]) == ("2", "1")
    assert "PYTHONPATH" not in environment


def test_two_stand_ins_do_not_draw_the_same_random_text(tmp_path: Path) -> None:
    seeds = {
        after(stand_in_command(Path("python"), candidate("LlamaForCausalLM", name=name), tmp_path, **SMALL), "--seed")
        for name in ("a", "b")
    }
    assert len(seeds) == 2


def test_a_stand_in_is_served_with_the_candidates_own_parsers(tmp_path: Path) -> None:
    known = replace(candidate("Exaone4ForCausalLM"), reasoning_parser="deepseek_r1", tool_parser="llama3_json")
    command = stand_in_command(Path("python"), known, tmp_path, **SMALL)
    assert after(command, "--reasoning-parser") == "deepseek_r1"
    assert after(command, "--tool-call-parser") == "llama3_json"
    unknown = stand_in_command(Path("python"), candidate("LlamaForCausalLM"), tmp_path, **SMALL)
    assert after(unknown, "--tool-call-parser") == "hermes"
    assert "--reasoning-parser" not in unknown


@pytest.mark.parametrize("architecture", ["SolarForCausalLM", "KananaVForConditionalGeneration"])
def test_remote_code_lies_beside_the_config_that_names_it_and_is_trusted(tmp_path: Path, architecture: str) -> None:
    model = candidate(architecture)
    path = write_checkpoint(model, tmp_path)
    named = [*read(path, "config.json")["auto_map"].values()]
    if (path / "processor_config.json").exists():
        named += read(path, "processor_config.json")["auto_map"].values()
    for module, _, name in (each.partition(".") for each in named):
        assert f"class {name}(" in (path / f"{module}.py").read_text()
    assert "--trust-remote-code" in stand_in_command(Path("python"), model, path, **SMALL)
    assert "--trust-remote-code" not in stand_in_command(Path("python"), candidate("Qwen2ForCausalLM"), path, **SMALL)


def test_only_the_stand_in_that_sees_needs_what_lies_beside_the_environment(tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    seeing, reading = candidate("KananaVForConditionalGeneration"), candidate("LlamaForCausalLM")
    assert [lacks_extras(model, python) for model in (seeing, reading)] == [True, False]
    extras_of(python).mkdir(parents=True)
    assert not lacks_extras(seeing, python)
    assert stand_in_environment(python, seeing)["PYTHONPATH"] == str(tmp_path / "environment" / "extras")


def test_the_eyes_end_and_the_text_begins_at_the_same_width(tmp_path: Path) -> None:
    config = read(write_checkpoint(candidate("KananaVForConditionalGeneration"), tmp_path), "config.json")
    vision, projector, text = (config[f"{part}_config"] for part in ("vision", "projector", "text"))
    assert vision["embed_dim"] == projector["encoder_hidden_size"]
    assert projector["output_hidden_size"] == text["hidden_size"]
    assert vision["spatial_merge_size"] == projector["merge_size"]
    vocabulary = tokenizer_json()["model"]["vocab"]
    assert text["eos_token_id"] + 1 == vocabulary["<|image|>"]


@pytest.mark.parametrize(("default", "said"), [("false", "false"), ("true", "true"), (None, "false")])
def test_a_reasoning_switch_has_the_candidates_name_and_default(default: str | None, said: str) -> None:
    switch = ReasoningSwitch(name="force_reasoning", place="chat_template_kwargs", default=default)
    template = chat_template(replace(candidate("LlamaForCausalLM"), reasoning=switch))
    assert f"if force_reasoning | default({said}) %}}" in template


def test_a_switch_in_the_body_leaves_the_template_alone() -> None:
    switch = ReasoningSwitch(name="reasoning_effort", place="body", default=None)
    model = candidate("LlamaForCausalLM")
    assert chat_template(replace(model, reasoning=switch)) == chat_template(model)


def test_published_weights_are_served_with_the_registrys_arguments_once() -> None:
    model = candidate("LlamaForCausalLM", args=("--tool-call-parser", "hermes", "--max-model-len=4096"))
    command = weights_command(Path("python"), model, port=8101, memory_share=0.45)
    assert after(command, "--model") == "maker/weights"
    assert after(command, "--tool-call-parser") == "hermes"
    assert after(command, "--gpu-memory-utilization") == "0.45"
    assert command[-1] == "--max-model-len=4096"
    assert not {"--revision", "--trust-remote-code", "--load-format"} & set(command)


def test_weights_that_the_registry_does_not_name_are_refused() -> None:
    nameless = Model(id="m", serving=Serving(kind=ServingKind.VLLM, served_model_name="m"))
    with pytest.raises(StartRefused, match=r"m: .*weights\.repo"):
        weights_command(Path("python"), nameless, port=1, memory_share=0.9)
