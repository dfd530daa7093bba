"""Fetches a model's files from the hub once, into the volume that its engines read; what is there is not asked for.

Runs inside the engine's image, whose huggingface_hub it uses. The marker is written last: engines wait for it, and
from then on nothing needs the network.
"""

import sys
from pathlib import Path

OTHER_FORMATS = ("*.gguf", "*.onnx", "*.pth", "original/*")
"""Copies of the same weights that some repositories hold besides."""


def main(repo: str, revision: str, marker: str) -> int:
    done = Path(marker)
    if done.exists():
        return 0
    from huggingface_hub import snapshot_download

    snapshot_download(repo, revision=revision or None, ignore_patterns=OTHER_FORMATS)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(f"{repo}@{revision or 'main'}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
