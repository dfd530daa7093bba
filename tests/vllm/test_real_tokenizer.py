"""The tokenizers and configs that the project writes, read by the library that vLLM reads them with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from architectures_shown import CANDIDATES
from real_engines import LLAMA

from gateway.checkpoints import stand_in_environment, write_checkpoint
from gateway.domain.records import Model

TEXT = "안녕하세요, 세계! 뷁\n\t 🙂 1234 漢字  <|end|>"
READ = """
import json, sys
from transformers import AutoConfig, AutoTokenizer
text = sys.argv[1]
for path, switch in json.loads(sys.argv[2]):
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    def prompt(**switches):
        turns = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **switches)
    print(json.dumps({
        "back": tokenizer.decode(tokenizer.encode(text)),
        "tokens": len(tokenizer),
        "vocabulary": config.get_text_config().vocab_size,
        "prompts": [prompt(), prompt(**{switch: False}), prompt(**{switch: True})] if switch else [prompt()],
    }))
"""


def test_the_real_tokenizer_library_agrees(vllm_python: Path, tmp_path: Path) -> None:
    """One process for all stand-ins: importing the library takes far longer than asking it."""
    paths = {model.id: write_checkpoint(model, tmp_path) for model in CANDIDATES.values()}
    asked = [(str(paths[name]), switch_of(model)) for name, model in CANDIDATES.items()]
    environment = stand_in_environment(vllm_python, CANDIDATES[LLAMA])
    run = subprocess.run(
        [vllm_python, "-c", READ, TEXT, json.dumps(asked)], capture_output=True, text=True, env=environment, check=True
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    for model, answer in zip(CANDIDATES.values(), answers, strict=True):
        assert answer["back"] == TEXT, model.id
        assert answer["tokens"] == answer["vocabulary"], model.id
        assert answer["prompts"] == prompts_of(model), model.id


def prompts_of(model: Model) -> list[str]:
    """Without saying anything, switched off, switched on; only the first where there is no switch."""
    prompt = f"<|start|>user\n{TEXT}<|end|>\n<|start|>assistant\n"
    off, on = prompt + "<think>\n\n</think>\n\n", prompt + "<think>\n"
    if model.reasoning is None:
        return [prompt]
    return [on if model.reasoning.default == "true" else off, off, on]


def switch_of(model: Model) -> str | None:
    return model.reasoning.name if model.reasoning is not None else None
