"""The GPU check without a GPU: what it says then, and the page from a measurement that was made up for these tests."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.gpu_check import main, pages, write
from bench.gpu_engines import has_real_size, real_size_config, run_engine
from bench.gpu_page import Compared, Engine, match_gpu, parse_cache_config, rates_of
from gateway.domain.model_config import shape_of_config
from gateway.registry import load_registry

ROOT = Path(__file__).parent.parent
REGISTRY = load_registry(ROOT / "model_registry.yaml")
H100_BYTES = 81559 * 2**20
MADE_UP: dict[str, Any] = {
    "name": "NVIDIA H100 80GB HBM3",
    "memory_bytes": H100_BYTES,
    "free_bytes_before": H100_BYTES - 2**29,
    "compute_capability": "9.0",
    "torch": "0.0",
    "cuda": "0.0",
    "driver": {"driver_version": "000.00", "memory.total": "81559", "clocks.max.sm": "1980", "power.limit": "700.00"},
    "watched": [{"clocks.sm": "1200", "power.draw": "300.5"}, {"clocks.sm": "1980", "power.draw": "[N/A]"}],
    "measured": [
        {"kind": "bandwidth", "label": "copy", "amount": 3e9, "seconds": [0.001] * 20},
        {"kind": "bf16_flops", "label": "8192", "amount": 1e12, "seconds": [0.0009] * 20},
        {"kind": "fp8_flops", "label": "8192", "amount": 1e12, "seconds": [], "reason": "no such units"},
        {"kind": "gather", "label": "pages", "amount": 2e9, "seconds": [0.001] * 20},
    ],
}


@pytest.mark.parametrize(
    ("python", "reason"), [("/nowhere/python", "there is no Python at"), (sys.executable, "it has no torch")]
)
def test_without_a_gpu_it_says_so_and_writes_nothing(
    python: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "docs" / "gpu-check.md"
    assert main(["--out", str(out), "--python", python]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("gpu-check: nothing was measured and nothing is claimed: ")
    assert reason in said.out
    assert (said.out.count("\n"), said.err) == (1, "")
    assert not out.parent.exists()


def test_a_python_that_fails_is_not_taken_for_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    broken.chmod(0o755)
    assert main(["--out", str(tmp_path / "g.md"), "--python", str(broken)]) == 0
    assert "could not measure: it broke" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "memory_mib", "found"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H200", 143771, "h200-sxm"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40-sxm"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80-sxm"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80-pcie"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA L4", 23034, "l4"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx-4090"),
        ("NVIDIA RTX A6000", 49140, "a6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "rtx-pro-6000"),
        ("NVIDIA B200", 183359, "b200-sxm"),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448, None),
        ("NVIDIA T4", 15360, None),
    ],
)
def test_a_device_is_known_by_its_name_and_its_memory(name: str, memory_mib: int, found: str | None) -> None:
    gpu = match_gpu(name, memory_mib * 2**20, REGISTRY.gpus.values())
    assert (gpu.id if gpu else None) == found


def test_rates_are_medians_with_intervals() -> None:
    seconds = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0]
    (rate,) = rates_of([{"kind": "bandwidth", "label": "x", "amount": 8.0, "seconds": seconds}])
    assert (rate.n, rate.low, rate.median, rate.high) == (10, 4.0, 4.0, 4.0)
    (none,) = rates_of([{"kind": "fp8_flops", "label": "x", "amount": 8.0, "seconds": [], "reason": "why"}])
    assert (none.n, none.median, none.reason) == (0, None, "why")


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (110.0, "above the table"),
        (101.0, "as expected or better"),
        (80.0, "as expected or better"),
        (79.0, "below the expectation"),
        (None, "not comparable"),
    ],
)
def test_a_measurement_is_held_against_table_and_expectation(measured: float | None, verdict: str) -> None:
    assert Compared("bandwidth", 100.0, measured, 0.8).verdict.startswith(verdict)


def test_cache_config_info_is_read_from_metrics() -> None:
    metrics = (
        "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n"
        'vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000",engine="0"} 1.0\n'
    )
    assert parse_cache_config(metrics)["num_gpu_blocks"] == "1000"
    assert parse_cache_config("nothing") == {}


def test_overhead_is_what_the_engine_leaves() -> None:
    engine = Engine("m", 8192, (1, 2, 3), 500, 100, {"num_gpu_blocks": "1000"}, 4, 5000)
    assert (engine.resolved_kv_bytes, engine.overhead_bytes, engine.predicted_concurrency) == (4000, 900, 2.0)
    silent = replace(engine, resolved={})
    assert (silent.resolved_kv_bytes, silent.overhead_bytes, silent.predicted_concurrency) == (None, None, None)


def test_a_page_and_its_json_come_of_a_measurement(tmp_path: Path) -> None:
    gpu = match_gpu(MADE_UP["name"], H100_BYTES, REGISTRY.gpus.values())
    engines = [
        Engine("m", 8192, (2**33, 2**34, 2**35), 500, 2**33, {"num_gpu_blocks": "1000"}, 2**21, 2**36),
        Engine("n", 8192, None, None, None, {}, None, None, reason="it ended | with 1"),
    ]
    origin = "a made-up measurement for the tests"
    write(tmp_path / "g.md", MADE_UP, gpu, engines, taken="2026-01-01", origin=origin)
    page, document = (tmp_path / "g.md").read_text(), json.loads((tmp_path / "g.json").read_text())
    assert origin in page
    assert document["origin"] == origin
    assert "| bandwidth | 3.350 TB/s | 3.000 TB/s | 0.90 | 0.8 | as expected or better |" in page
    assert (
        "| BF16 | 989.0 TFLOPS | 1,111.1 TFLOPS | 1.12 | 0.5 | above the table: the table's value is too low |" in page
    )
    assert "| FP8 | 1,978.0 TFLOPS | unknown | – | 0.5 | not comparable |" in page
    assert "not measured: no such units" in page
    assert "| power.draw | 300.5 | 300.5 | 1 |" in page
    assert "8.00 GiB / 16.00 GiB / 32.00 GiB | 1.95 GiB" in page
    assert "it ended / with 1" in page
    assert [one["verdict"] for one in document["compared"]][2] == "not comparable"


def test_a_device_without_an_entry_is_compared_with_nothing(tmp_path: Path) -> None:
    write(tmp_path / "g.md", MADE_UP, None, [], taken="2026-01-01", origin="a made-up measurement")
    assert "no entry for NVIDIA H100 80GB HBM3, so nothing is compared" in (tmp_path / "g.md").read_text()


@pytest.mark.parametrize("name", [n for n, m in REGISTRY.models.items() if has_real_size(m)])
def test_engines_are_started_in_the_registrys_own_sizes(name: str) -> None:
    model = REGISTRY.models[name]
    shape, real = model.shape, shape_of_config(real_size_config(model, max_model_len=8192))
    assert shape is not None
    for field in ("layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "vocab", "tied_embeddings"):
        assert getattr(real, field) == getattr(shape, field), field
    assert (real.sliding_window, real.global_layers) == (shape.sliding_window, shape.global_layers)
    assert real.params is not None
    assert shape.params is not None
    assert real.params == pytest.approx(shape.params, rel=0.02)


def test_an_engine_that_does_not_come_up_is_a_reason_and_no_figure() -> None:
    model, gpu = REGISTRY.models["Llama-VARCO-8B-Instruct"], REGISTRY.gpus["h100-sxm"]
    engine = run_engine(Path(sys.executable), model, gpu, context=2048, within_s=20.0)
    assert engine.reason is not None
    assert "the engine ended with 1" in engine.reason
    assert engine.resolved_kv_bytes is None
    assert engine.predicted_kv_bytes is not None


def test_pages_have_the_registrys_shapes() -> None:
    by_name = {page["name"]: page["token_elements"] for page in pages(REGISTRY)}
    assert by_name["Llama-VARCO-8B-Instruct"] == 2 * 8 * 128
    assert by_name["A.X-K1"] == 512 + 64
