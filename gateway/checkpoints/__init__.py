"""Tiny checkpoints with random weights, and the commands that start real vLLM on them or on published weights.

A stand-in checkpoint is a directory of a few small files: architecture, tokenizer, chat template, no weights
(vLLM makes them up with `--load-format dummy`). It shows protocol, memory accounting and process behaviour of the
candidate's architecture, never its quality; the directory's name says so, and vLLM repeats it as `root`, by which the
fleet knows it.
Starting the processes does not belong here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway.checkpoints.architectures import (
    ARCHITECTURES,
    FFN,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    Architecture,
)
from gateway.checkpoints.chat_template import chat_template
from gateway.checkpoints.commands import (
    SERVER,
    extras_of,
    stand_in_arguments,
    stand_in_command,
    stand_in_environment,
    weights_command,
)
from gateway.checkpoints.tokenizer import CONTROL, END, PAD, START, tokenizer_config, tokenizer_json
from gateway.domain.records import Model
from gateway.errors import StartRefused
from gateway.provenance import STAND_IN_PREFIX

__all__ = [
    "ARCHITECTURES",
    "SERVER",
    "chat_template",
    "checkpoint_config",
    "checkpoint_files",
    "extras_of",
    "fingerprint",
    "has_stand_in",
    "lacks_extras",
    "stand_in_arguments",
    "stand_in_command",
    "stand_in_environment",
    "tokenizer_json",
    "weights_command",
    "write_checkpoint",
]

_REMOTE_CODE = Path(__file__).parent / "remote_code"


def write_checkpoint(model: Model, directory: Path, *, max_model_len: int = 2048) -> Path:
    """Write `model`'s stand-in below `directory` and return its path; writing it again gives the same bytes.

    `max_model_len` is the context in tokens that its config claims. Raises StartRefused where `model`'s
    architecture has no stand-in.
    """
    path = directory / (STAND_IN_PREFIX + model.id.replace("/", "--"))
    files = checkpoint_files(model, max_model_len=max_model_len)
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_text(content, encoding="utf-8")
    return path


def checkpoint_files(model: Model, *, max_model_len: int) -> dict[str, str]:
    """The text of each file of `model`'s stand-in, by name. Raises StartRefused where there is none."""
    template = chat_template(model)
    tokenizer = tokenizer_json()
    config = checkpoint_config(model, vocab=len(tokenizer["model"]["vocab"]), max_model_len=max_model_len)
    architecture = _architecture_of(model)
    contents: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": CONTROL.index(END), "pad_token_id": CONTROL.index(PAD)},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config(max_model_len=max_model_len, chat_template=template),
    }
    classes = list(architecture.remote_code.values())
    if architecture.processor is not None:
        contents["processor_config.json"] = {
            "processor_class": architecture.processor.partition(".")[2],
            "auto_map": {"AutoProcessor": architecture.processor},
        }
        classes.append(architecture.processor)
    texts = {name: json.dumps(content, ensure_ascii=False) for name, content in contents.items()}
    modules = {name.partition(".")[0] + ".py" for name in classes}
    code = {name: (_REMOTE_CODE / name).read_text(encoding="utf-8") for name in sorted(modules)}
    return {**texts, "chat_template.jinja": template, **code}


def fingerprint(model: Model) -> str:
    """What tells one stand-in from another: equal where nothing but the names of two candidates' stand-ins differs."""
    nameless = replace(model, serving=replace(model.serving, served_model_name=""))
    files = checkpoint_files(model, max_model_len=1)
    arguments = stand_in_arguments(nameless, Path(), port=0, max_model_len=1)
    return sha256(json.dumps([sorted(files.items()), arguments]).encode()).hexdigest()[:16]


def has_stand_in(model: Model) -> bool:
    return model.weights.architecture in ARCHITECTURES


def lacks_extras(model: Model, python: Path) -> bool:
    """Whether `model`'s stand-in imports what `python`'s environment is without."""
    return ARCHITECTURES[model.weights.architecture or ""].needs_extras and not extras_of(python).is_dir()


def checkpoint_config(model: Model, *, vocab: int, max_model_len: int) -> dict[str, Any]:
    """The config.json of `model`'s stand-in: its architecture, at a size that a laptop core runs."""
    architecture = _architecture_of(model)
    common = {
        "vocab_size": vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": max_model_len,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
        "pad_token_id": CONTROL.index(PAD),
        "bos_token_id": CONTROL.index(START),
        "eos_token_id": CONTROL.index(END),
        "dtype": "bfloat16",
    }
    has_window = model.shape is not None and model.shape.sliding_window is not None
    config = common | dict(architecture.config) | (dict(architecture.windowed) if has_window else {})
    config = {name: value for name, value in config.items() if name not in architecture.without}
    if architecture.text is not None:
        config["text_config"] = common | dict(architecture.text)
    if architecture.remote_code:
        config["auto_map"] = dict(architecture.remote_code)
    return {"architectures": [model.weights.architecture], **config}


def _architecture_of(model: Model) -> Architecture:
    name = model.weights.architecture
    if name is None or name not in ARCHITECTURES:
        raise StartRefused(
            f"{model.id}: no stand-in checkpoint for architecture {name or 'unknown'}; "
            f"there are stand-ins for {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[name]
