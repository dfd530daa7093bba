"""The stand-ins' tokenizer: byte-level BPE in which any text survives and a common Hangul syllable is one token.

It is written here, not learnt: random weights pick tokens at random, so whole syllables keep most of their output
readable as Korean. Which text a chat becomes is `chat_template`'s.
"""

from __future__ import annotations

from typing import Any

PAD, START, END, IMAGE = "<|pad|>", "<|start|>", "<|end|>", "<|image|>"
# KananaV takes the token after the end for an image's place. transformers adds <|endoftext|> to a Qwen2 tokenizer that
# lacks it, with an id past the embedding's end.
CONTROL = (PAD, START, END, IMAGE, "<|endoftext|>")
# The tool and reasoning parsers of vLLM look these up in the vocabulary when the engine starts.
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>")


def tokenizer_vocabulary() -> dict[str, int]:
    """Token to id: control tokens, every byte, then the common Hangul syllables and what they merge from."""
    merged = [left + right for left, right in _merges()]
    return {token: i for i, token in enumerate([*CONTROL, *MARKERS, *_byte_letters(), *merged])}


def tokenizer_json() -> dict[str, Any]:
    """The content of tokenizer.json."""
    vocabulary = tokenizer_vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": vocabulary[token],
            "content": token,
            "special": token in CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for token in (*CONTROL, *MARKERS)
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


def tokenizer_config(*, max_model_len: int, chat_template: str) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": max_model_len,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
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
