"""The tokenizers and configs that the project writes, read by the library that vLLM reads them with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from real_engines import ROOT

from gateway.checkpoints import has_stand_in, stand_in_environment, write_checkpoint
from gateway.registry import load_registry

TEXT = "안녕하세요, 세계! 뷁\n\t 🙂 1234 漢字  <|end|>"
READ = """
import json, sys
from transformers import AutoConfig, AutoTokenizer
for path in sys.argv[2:]:
    tokenizer, text = AutoTokenizer.from_pretrained(path), sys.argv[1]
    turns = [{"role": "user", "content": text}]
    print(json.dumps({
        "back": tokenizer.decode(tokenizer.encode(text)),
        "tokens": len(tokenizer),
        "vocabulary": AutoConfig.from_pretrained(path).vocab_size,
        "prompt": tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True),
    }))
"""


def test_the_real_tokenizer_library_agrees(vllm_python: Path, tmp_path: Path) -> None:
    """One process for all architectures: importing the library takes far longer than asking it."""
    registry = load_registry(ROOT / "model_registry.yaml")
    by_architecture = {model.weights.architecture: model for model in registry.models.values() if has_stand_in(model)}
    paths = [write_checkpoint(model, tmp_path) for model in by_architecture.values()]
    assert len(paths) >= 3
    run = subprocess.run(
        [vllm_python, "-c", READ, TEXT, *paths], capture_output=True, text=True, env=stand_in_environment(), check=True
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(paths)
    for answer in answers:
        assert answer["back"] == TEXT
        assert answer["tokens"] == answer["vocabulary"]
        assert answer["prompt"] == f"<|start|>user\n{TEXT}<|end|>\n<|start|>assistant\n"
