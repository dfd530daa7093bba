"""Tiny checkpoints with random weights, and the commands that start real vLLM on them or on published weights.

A stand-in checkpoint is a directory of a few small files: architecture, tokenizer, chat template, no weights
(vLLM makes them up with `--load-format dummy`). It shows protocol, memory accounting and process behaviour of the
candidate's architecture, never its quality; the directory's name says so, and vLLM repeats it as `root`, by which the
fleet knows it.
Starting the processes does not belong here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from gateway.domain.records import Model
from gateway.errors import StartRefused
from gateway.provenance import STAND_IN_PREFIX

_HIDDEN, _FFN, _HEADS, _KV_HEADS, _HEAD_DIM = 128, 256, 4, 2, 32
_LAYERS = 2
_HYBRID_LAYERS, _LOCAL_PER_GLOBAL, _WINDOW = 4, 3, 256

_PAD, _START, _END = "<|pad|>", "<|start|>", "<|end|>"
# transformers adds <|endoftext|> to a Qwen2 tokenizer that lacks it, with an id past the embedding's end.
_CONTROL = (_PAD, _START, _END, "<|endoftext|>")
# The tool and reasoning parsers of vLLM look these up in the vocabulary when the engine starts.
_MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")

CHAT_TEMPLATE = (
    "{%- if tools %}{{ '<|start|>system\\n' }}"
    "{%- for tool in tools %}{{ tool | tojson + '\\n' }}{%- endfor %}{{ '<|end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\\n' + (message['content'] or '') }}"
    "{%- for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>' + (call['function'] | tojson) + '</tool_call>' }}{%- endfor %}"
    "{{ '<|end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{%- endif %}"
)


# --- the checkpoint -----------------------------------------------------------------------------------------


def write_checkpoint(model: Model, directory: Path, *, max_model_len: int = 2048) -> Path:
    """Write `model`'s stand-in below `directory` and return its path; writing it again gives the same bytes.

    `max_model_len` is the context in tokens that its config claims. Raises StartRefused where `model`'s
    architecture has no stand-in.
    """
    config = checkpoint_config(model, vocab=len(tokenizer_vocabulary()), max_model_len=max_model_len)
    path = directory / (STAND_IN_PREFIX + model.id.replace("/", "--"))
    path.mkdir(parents=True, exist_ok=True)
    eos = config["eos_token_id"]
    files: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": eos, "pad_token_id": config["pad_token_id"]},
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": _tokenizer_config(max_model_len),
    }
    for name, content in files.items():
        (path / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (path / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return path


def has_stand_in(model: Model) -> bool:
    return model.weights.architecture in _ARCHITECTURES


def checkpoint_config(model: Model, *, vocab: int, max_model_len: int) -> dict[str, Any]:
    """The config.json of `model`'s stand-in: its architecture, at a size that a laptop core runs."""
    architecture = model.weights.architecture
    if architecture is None or architecture not in _ARCHITECTURES:
        raise StartRefused(
            f"{model.id}: no stand-in checkpoint for architecture {architecture or 'unknown'}; "
            f"there are stand-ins for {', '.join(sorted(_ARCHITECTURES))}"
        )
    config = {
        "architectures": [architecture],
        "vocab_size": vocab,
        "hidden_size": _HIDDEN,
        "intermediate_size": _FFN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": max_model_len,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "pad_token_id": _CONTROL.index(_PAD),
        "bos_token_id": _CONTROL.index(_START),
        "eos_token_id": _CONTROL.index(_END),
        "dtype": "bfloat16",
    }
    return config | _ARCHITECTURES[architecture](model)


def _exaone4(model: Model) -> dict[str, Any]:
    """Global attention throughout, or three local layers to each global one where the candidate has a window."""
    if model.shape is None or model.shape.sliding_window is None:
        return {
            "model_type": "exaone4",
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": ["full_attention"] * _LAYERS,
        }
    layer_types = ["sliding_attention"] * _LOCAL_PER_GLOBAL + ["full_attention"]
    return {
        "model_type": "exaone4",
        "num_hidden_layers": _HYBRID_LAYERS,
        "sliding_window": _WINDOW,
        "sliding_window_pattern": "LLLG",
        "layer_types": layer_types,
    }


def _hyperclovax(_: Model) -> dict[str, Any]:
    return {"model_type": "hyperclovax", "attention_multiplier": _HEAD_DIM**-0.5, "use_post_norm": True}


_ARCHITECTURES: Mapping[str, Callable[[Model], dict[str, Any]]] = {
    "Exaone4ForCausalLM": _exaone4,
    "HyperCLOVAXForCausalLM": _hyperclovax,
    "LlamaForCausalLM": lambda _: {"model_type": "llama"},
    "Qwen2ForCausalLM": lambda _: {"model_type": "qwen2"},
    "Qwen3ForCausalLM": lambda _: {"model_type": "qwen3"},
}


# --- the tokenizer ------------------------------------------------------------------------------------------


def tokenizer_vocabulary() -> dict[str, int]:
    """Token to id: control tokens, every byte, then the common Hangul syllables and what they merge from."""
    merged = [left + right for left, right in _merges()]
    return {token: i for i, token in enumerate([*_CONTROL, *_MARKERS, *_byte_letters(), *merged])}


def tokenizer_json() -> dict[str, Any]:
    """A byte-level BPE tokenizer: any text goes through unchanged, and a common syllable is one token.

    Random weights pick tokens at random, so whole syllables also keep most of their output readable as Korean.
    """
    vocabulary = tokenizer_vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": vocabulary[token],
            "content": token,
            "special": token in _CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for token in (*_CONTROL, *_MARKERS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in _merges()],
        },
    }


def _tokenizer_config(max_model_len: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _START,
        "eos_token": _END,
        "pad_token": _PAD,
        "model_max_length": max_model_len,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte value in byte-level BPE.

    Printable Latin-1 characters stand for themselves, the rest for U+0100 onwards in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


def _merges() -> list[tuple[str, str]]:
    """Merges that build each of the 2,350 syllables of KS X 1001 from its three UTF-8 bytes."""
    letters = _byte_letters()
    rows = (bytes((row, cell)) for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF))
    syllables = [[letters[b] for b in pair.decode("euc_kr").encode()] for pair in rows]
    heads = sorted({(first, second) for first, second, _ in syllables})
    return heads + [(first + second, third) for first, second, third in syllables]


# --- the engine ---------------------------------------------------------------------------------------------


def stand_in_command(python: Path, checkpoint: Path, *, model_id: str, port: int, max_model_len: int) -> list[str]:
    """The command that serves a stand-in on the CPU, listening on 127.0.0.1:`port` as `model_id`."""
    options = {
        "--max-model-len": str(max_model_len),
        "--load-format": "dummy",
        "--distributed-executor-backend": "uni",
        "--kv-cache-memory-bytes": str(64 * 1024 * 1024),
        "--tool-call-parser": "hermes",
        # vLLM makes the same weights for every model: without a seed each would give the same random text.
        "--seed": str(crc32(model_id.encode())),
    }
    return [
        *_server(python, str(checkpoint), model_id=model_id, port=port),
        *(word for option in options.items() for word in option),
        "--enforce-eager",
        "--enable-auto-tool-choice",
    ]


def stand_in_environment(*, threads: int = 1) -> dict[str, str]:
    """What `stand_in_command` needs in its environment: one process, no network, `threads` of computation."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Else the first request for log probabilities compiles a kernel, and nobody gets a token for half a minute.
        "TORCHDYNAMO_DISABLE": "1",
    }


def weights_command(python: Path, model: Model, *, port: int, memory_share: float) -> list[str]:
    """The command that serves `model`'s published weights on the local GPU with the registry's own arguments.

    `memory_share` is the part of the GPU's memory that this engine may take. Raises StartRefused where the
    registry knows no weights.
    """
    weights, serving = model.weights, model.serving
    if weights.repo is None:
        raise StartRefused(f"{model.id}: the registry names no weights to serve (weights.repo)")
    defaults = {
        "--revision": weights.revision,
        "--reasoning-parser": model.reasoning_parser,
        "--tool-call-parser": model.tool_parser,
        "--gpu-memory-utilization": f"{memory_share:.2f}",
    }
    flags = {
        "--enable-auto-tool-choice": model.tool_parser is not None,
        "--trust-remote-code": serving.trust_remote_code,
    }
    given = {word.partition("=")[0] for word in serving.args}
    return [
        *_server(python, weights.repo, model_id=serving.served_model_name, port=port),
        *(word for key, value in defaults.items() if value and key not in given for word in (key, value)),
        *(flag for flag, wanted in flags.items() if wanted and flag not in given),
        *serving.args,
    ]


def _server(python: Path, model: str, *, model_id: str, port: int) -> Sequence[str]:
    return (
        *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", model_id, "--host", "127.0.0.1", "--port", str(port)),
        # Without a timeout, SIGTERM leaves connections in flight open and silent.
        *("--shutdown-timeout", "20", "--disable-uvicorn-access-log"),
    )
