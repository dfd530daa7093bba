"""Fetches a model's files from the hub once, into the volume that its engines read; what is there is not asked for.

Runs inside the engine's image, whose huggingface_hub it uses. The marker is written last: engines wait for it, and
from then on nothing needs the network. The volume is the model's own: where it has no room for another revision beside
the former one, the former one goes first.
"""

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

OTHER_FORMATS = ("*.gguf", "*.onnx", "*.pth", "original/*")
"""Copies of the same weights that some repositories hold besides."""


def main(repo: str, revision: str, marker: str) -> int:
    done = Path(marker)
    if done.exists():
        return 0
    from huggingface_hub import HfApi, constants, snapshot_download

    # Where the hub does not answer it ends here: some snapshot_downloads would take a broken try for the whole.
    wanted = HfApi().model_info(repo, revision=revision or None, files_metadata=True)
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    if bytes_missing(wanted.siblings or (), blobs) > shutil.disk_usage(cache).free:
        remove_others(cache, wanted.sha, done.parent)
    snapshot_download(repo, revision=revision or None, ignore_patterns=OTHER_FORMATS)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(f"{repo}@{revision or 'main'}\n", encoding="utf-8")
    return 0


def bytes_missing(files, blobs: Path) -> int:  # type: ignore[no-untyped-def]
    """What is still to be fetched; 0 where the hub does not say how large its files are."""
    missing = 0
    for file in files:
        if any(fnmatch(file.rfilename, pattern) for pattern in OTHER_FORMATS):
            continue
        if file.size is None:
            return 0
        name = file.lfs.sha256 if file.lfs else file.blob_id
        if not (blobs / str(name)).exists():
            missing += file.size
    return missing


def remove_others(cache: Path, kept: str, markers: Path) -> None:
    """Removes every other revision with what belongs to it alone, and the pieces of downloads that broke off."""
    from huggingface_hub import scan_cache_dir

    # Markers first: one that stood beside weights that are gone would let an engine start on them.
    for marker in markers.glob("*"):
        marker.unlink()
    for piece in cache.glob("*/blobs/*.incomplete"):
        piece.unlink()
    found = scan_cache_dir(cache)
    others = {
        revision.commit_hash: f"{repo.repo_id}@{revision.commit_hash}"
        for repo in found.repos
        for revision in repo.revisions
        if revision.commit_hash != kept
    }
    plan = found.delete_revisions(*others)
    plan.execute()
    removed = ", ".join(others.values()) or "nothing but pieces"
    sys.stdout.write(f"no room for {kept} beside what was there; removed {removed} ({plan.expected_freed_size_str})\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
