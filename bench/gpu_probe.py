"""Run by a Python that has torch: measures the first CUDA GPU and prints what it found as one JSON object.

Seconds of every repetition, never an average: what they mean is worked out by `gpu_page`. Nothing of ours is imported,
as the environment is another's. Without torch or a GPU it prints `{"reason": ...}` and measures nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

WARM_UP = 3
REPEATS = 20
PART_S = 8.0
"""Seconds that one measurement may take; it then has fewer repetitions, which its n tells."""
ELEMENT_BYTES = 2
LARGEST_BYTES = 4 * 2**30
MATRICES = ((4096, 4096, 4096), (8192, 8192, 8192), (8192, 28672, 8192), (64, 8192, 8192), (1, 8192, 8192))
"""Rows, columns and inner size: prompts, and decode steps of 64 requests and of one."""
FP8_ROWS = 16
"""The 8-bit product wants at least so many."""
QUERIED = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
STANDING = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit")


def main() -> None:
    orders = json.load(sys.stdin)
    json.dump(probe(orders), sys.stdout)


def probe(orders: Mapping[str, Any]) -> dict[str, Any]:
    """`orders.pages`: KV shapes to gather, each with name, token_elements, block, blocks."""
    try:
        import torch
    except ImportError:
        return {"reason": "it has no torch"}
    if not torch.cuda.is_available():
        return {"reason": "torch sees no CUDA GPU"}
    device = torch.device("cuda", 0)
    free, total = torch.cuda.mem_get_info(device)
    watch = Watch()
    with watch:
        measured = [
            *_memory(torch, device, min(LARGEST_BYTES, free // 4)),
            *_matmuls(torch, device),
            *(_pages(torch, device, shape, free // 4) for shape in orders.get("pages", ())),
        ]
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": torch.cuda.get_device_name(device),
        "memory_bytes": total,
        "free_bytes_before": free,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": _smi(STANDING),
        "watched": watch.samples,
        "measured": measured,
    }


# --- the GPU's work -----------------------------------------------------------------------------------------


def _timed(torch: Any, work: Callable[[], object]) -> list[float]:
    """Seconds of each repetition, by the GPU's own clock."""
    for _ in range(WARM_UP):
        work()
    torch.cuda.synchronize()
    seconds: list[float] = []
    started_s = perf_counter()
    while len(seconds) < REPEATS and perf_counter() - started_s < PART_S:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return seconds


def _measured(kind: str, label: str, amount: float, work: Callable[[], object], torch: Any) -> dict[str, Any]:
    """`amount`: bytes or operations of one repetition."""
    try:
        return {"kind": kind, "label": label, "amount": amount, "seconds": _timed(torch, work)}
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return {
            "kind": kind,
            "label": label,
            "amount": amount,
            "seconds": [],
            "reason": str(error).split("\n")[0][:200],
        }


def _memory(torch: Any, device: Any, size: int) -> list[dict[str, Any]]:
    elements = size // ELEMENT_BYTES
    source = torch.ones(elements, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    words = source.view(torch.int32)
    rows = elements // 8192
    matrix, vector = source[: rows * 8192].view(rows, 8192), source[:8192]
    size_read = rows * 8192 * ELEMENT_BYTES
    return [
        _measured("bandwidth", "copy, read and write", 2 * size, lambda: target.copy_(source), torch),
        _measured("bandwidth", "read, sum of all", size, lambda: words.sum(dtype=torch.int64), torch),
        _measured("bandwidth", "read, matrix × vector", size_read, lambda: torch.mv(matrix, vector), torch),
    ]


def _matmuls(torch: Any, device: Any) -> list[dict[str, Any]]:
    return [one for sizes in MATRICES for one in _matmul(torch, device, *sizes)]


def _matmul(torch: Any, device: Any, rows: int, columns: int, inner: int) -> list[dict[str, Any]]:
    torch.cuda.empty_cache()
    left = torch.randn(rows, inner, dtype=torch.bfloat16, device=device)
    right = torch.randn(columns, inner, dtype=torch.bfloat16, device=device)
    label, operations = f"{rows} × {inner} × {columns}", 2.0 * rows * columns * inner
    found = [_measured("bf16_flops", label, operations, lambda: left @ right.T, torch)]
    if rows >= FP8_ROWS:
        found.append(_measured("fp8_flops", label, operations, _fp8(torch, left, right), torch))
    return found


def _fp8(torch: Any, left: Any, right: Any) -> Callable[[], object]:
    """The product in 8-bit floats; made when it is first called, so that a GPU without them only loses this row."""
    held: list[Any] = []

    def work() -> object:
        if not held:
            one = torch.ones((), device=left.device)
            held.extend((left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).T, one))
        return torch._scaled_mm(held[0], held[1], scale_a=held[2], scale_b=held[2], out_dtype=torch.bfloat16)

    return work


def _pages(torch: Any, device: Any, shape: Mapping[str, Any], room: int) -> dict[str, Any]:
    """One layer's KV pages read in the order of a block table, as paged attention reads them, and written out."""
    torch.cuda.empty_cache()
    page = shape["block"] * shape["token_elements"]
    number = max(1, min(shape["blocks"], room // (page * ELEMENT_BYTES) // 5))
    pool = torch.ones(4 * number, page, dtype=torch.bfloat16, device=device)
    table = torch.randperm(4 * number, device=device)[:number]
    out = torch.empty(number, page, dtype=torch.bfloat16, device=device)
    label = f"{shape['name']}: {number:,} pages of {page * ELEMENT_BYTES:,} B"
    amount = 2 * number * page * ELEMENT_BYTES
    return _measured("gather", label, amount, lambda: torch.index_select(pool, 0, table, out=out), torch)


# --- what the driver tells ----------------------------------------------------------------------------------


class Watch:
    """Clocks, power and temperature while a block runs, every half second."""

    def __init__(self) -> None:
        self.samples: list[dict[str, str]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            if sample := _smi(QUERIED):
                self.samples.append(sample)


def _smi(fields: Sequence[str]) -> dict[str, str]:
    """What nvidia-smi says of the first GPU; nothing where it is not there."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in ended.stdout.strip().split("\n")[0].split(",")]
    return dict(zip(fields, values, strict=False)) if len(values) == len(fields) else {}


if __name__ == "__main__":
    main()
