"""What is read out of an engine's metrics and version, whatever is in them: names, labels, restarts, spans."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.engine_facts import (
    COUNTERS,
    EngineGlance,
    ObservedLoad,
    ResolvedEngine,
    joined_loads,
    most_at_once,
    one_after_the_other,
    one_look,
    side_by_side,
)
from gateway.engine_reports import (
    LONGEST_WORD,
    MOST_LABELS,
    cache_config_lines,
    read_glance,
    read_version,
    resolve_engine,
)

SHOWN = (Path(__file__).parent / "vllm_0_32_metrics.txt").read_bytes()
"""What vLLM 0.32 showed for the Llama stand-in on a CPU, the histograms left out."""
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NUMBERS = st.integers(0, 2**40)
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)


def line_of(labels: dict[str, str]) -> bytes:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    pairs = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"vllm:cache_config_info{{{pairs}}} 1.0\n".encode()


def resolved(body: bytes, version: str | None = None) -> ResolvedEngine:
    return resolve_engine(cache_config_lines(body), version=version)


# --- what an engine resolved --------------------------------------------------------------------------------


def test_what_vllm_showed_is_read_whole() -> None:
    found = resolved(SHOWN, "0.32.0")
    assert (found.num_gpu_blocks, found.block_size, found.kv_cache_size_tokens) == (1024, 128, 131072)
    assert (found.kv_cache_max_concurrency, found.gpu_memory_utilization) == (128.0, 0.92)
    assert (found.cache_dtype, found.enable_prefix_caching, found.kv_cache_memory_bytes) == ("auto", True, 67108864)
    assert (found.sliding_window, found.num_gpu_blocks_override, found.engines) == (None, None, 1)
    assert len(found.labels) == 36
    assert found.why_unknown("sliding_window") == "the engine says sliding_window=None"
    glance = read_glance(SHOWN)
    assert (glance.running, glance.waiting, glance.kv_usage, glance.preemptions) == (0, 0, 0.0, 0)
    assert (glance.prefix_queries, glance.prefix_hits, glance.started_at_s) == (24, 0, 1795837793.5)


@given(
    labels=st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True), WORDS, max_size=20),
    blocks=NUMBERS,
    tokens=NUMBERS,
)
def test_known_labels_are_read_among_any_others_in_any_words(labels: dict[str, str], blocks: int, tokens: int) -> None:
    known = {"num_gpu_blocks": str(blocks), "kv_cache_size_tokens": str(tokens), "engine": "0"}
    found = resolved(b"# HELP x\n" + line_of({**labels, **known}) + b"other 1\n")
    assert (found.num_gpu_blocks, found.kv_cache_size_tokens, found.engines) == (blocks, tokens, 1)
    said = dict(found.labels)
    assert all(said[name] == value for name, value in labels.items() if name not in known)


@given(st.binary(max_size=2000))
def test_no_bytes_make_the_readers_fail_but_by_saying_that_no_gauge_is_there(body: bytes) -> None:
    assert isinstance(resolved(body), ResolvedEngine)
    assert read_version(body) is None or isinstance(read_version(body), str)
    with suppress(ValueError):
        read_glance(body)


@given(st.lists(st.sampled_from([*'{}"\\=, \nvllm:', "vllm:cache_config_info{", 'a="', "b", "\x00"]), max_size=60))
def test_labels_that_are_cut_or_misquoted_are_read_as_far_as_they_are_labels(pieces: list[str]) -> None:
    found = resolved(("vllm:cache_config_info{" + "".join(pieces) + '"} 1').encode())
    assert len(found.labels) <= MOST_LABELS
    assert all("\x00" not in value and len(value) <= LONGEST_WORD for _, value in found.labels)


@pytest.mark.parametrize(
    ("labels", "name", "expected"),
    [
        ({"device_memory_utilization": "0.5"}, "gpu_memory_utilization", 0.5),
        ({"kv_cache_dtype": "fp8"}, "cache_dtype", "fp8"),
        ({"gpu_memory_utilization": "0.7", "device_memory_utilization": "0.5"}, "gpu_memory_utilization", 0.7),
        ({"num_gpu_blocks": "None"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "many"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "-1"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "nan"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "1e400"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "12.5"}, "num_gpu_blocks", None),
        ({"num_gpu_blocks": "12.0"}, "num_gpu_blocks", 12),
        ({}, "num_gpu_blocks", None),
    ],
)
def test_renamed_labels_are_found_and_senseless_ones_are_unknown(
    labels: dict[str, str], name: str, expected: object
) -> None:
    found = resolved(line_of({**labels, "engine": "0"}))
    assert getattr(found, name) == expected
    assert expected is not None or name in found.why_unknown(name)


def test_of_several_engines_behind_an_address_only_what_all_say_is_taken() -> None:
    both = [line_of({"num_gpu_blocks": n, "block_size": "16", "engine": e}) for n, e in (("5", "0"), ("6", "1"))]
    found = resolved(b"".join(both))
    assert (found.engines, found.block_size, found.num_gpu_blocks) == (2, 16, None)
    assert "differ" in found.why_unknown("num_gpu_blocks")
    assert "no vllm:cache_config_info" in ResolvedEngine().why_unknown("num_gpu_blocks")


@pytest.mark.parametrize(
    ("body", "version"),
    [(b'{"version":"0.32.0"}', "0.32.0"), (b'{"version":3}', None), (b"[]", None), (b"<html>", None), (b"", None)],
)
def test_a_version_is_taken_from_an_answer_that_has_one(body: bytes, version: str | None) -> None:
    assert read_version(body) == version


# --- a look, and what looks add up to -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_total"])
@given(preempted=NUMBERS, hits=NUMBERS)
def test_counters_are_read_with_and_without_total_and_summed_over_engines(
    suffix: str, preempted: int, hits: int
) -> None:
    body = f"""vllm:num_requests_running{{engine="0"}} 3
vllm:num_requests_running{{engine="1"}} 4
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:kv_cache_usage_perc{{engine="1"}} 0.5
vllm:num_preemptions{suffix}{{engine="0",model_name="a}}b\\""}} {preempted}
vllm:num_preemptions{suffix}{{engine="1"}} 1
vllm:prefix_cache_hits{suffix} {hits}
vllm:prefix_cache_hits_created 1.7e9
"""
    glance = read_glance(body.encode())
    assert (glance.running, glance.waiting, glance.kv_usage) == (7, None, 0.5)
    assert (glance.preemptions, glance.prefix_hits, glance.prefix_queries) == (preempted + 1, hits, None)


def test_old_names_count_only_where_the_new_ones_are_not() -> None:
    old = b"vllm:gpu_cache_usage_perc 0.5\nvllm:gpu_prefix_cache_hits_total 7\n"
    assert (read_glance(old).kv_usage, read_glance(old).prefix_hits) == (0.5, 7)
    new = old + b"vllm:kv_cache_usage_perc 0.25\nvllm:prefix_cache_hits_total 9\n"
    assert (read_glance(new).kv_usage, read_glance(new).prefix_hits) == (0.25, 9)


def test_a_counter_that_is_no_quantity_is_unknown_and_spoils_nothing_else() -> None:
    glance = read_glance(b"vllm:num_requests_running 2\nvllm:num_preemptions_total NaN\n")
    assert (glance.running, glance.preemptions) == (2, None)


GLANCES = st.builds(
    EngineGlance,
    **{name: st.none() | NUMBERS for name in ("running", "waiting", *COUNTERS)},
    kv_usage=st.none() | st.floats(0, 1),
)


def loads(glances: list[EngineGlance], start: datetime = NOON) -> list[ObservedLoad]:
    before: EngineGlance | None = None
    found = []
    for number, glance in enumerate(glances):
        found.append(one_look(before, glance, at=start + timedelta(seconds=2 * number), own_calls=number))
        before = glance
    return found


def added_up(parts: list[ObservedLoad]) -> ObservedLoad:
    whole = parts[0]
    for part in parts[1:]:
        whole = one_after_the_other(whole, part)
    return whole


@given(st.lists(GLANCES, min_size=2, max_size=12), st.data())
def test_looks_add_up_to_the_same_wherever_the_span_is_cut(glances: list[EngineGlance], data: st.DataObject) -> None:
    parts = loads(glances)
    cut = data.draw(st.integers(1, len(parts) - 1))
    whole = added_up(parts)
    assert one_after_the_other(added_up(parts[:cut]), added_up(parts[cut:])) == whole
    assert (whole.looks, whole.first_look, whole.last_look) == (len(parts), parts[0].first_look, parts[-1].last_look)
    seen = [glance.running for glance in glances if glance.running is not None]
    assert whole.peak_running == (max(seen) if seen else None)
    for name in COUNTERS:
        is_ever_there = any(getattr(glance, name) is not None for glance in glances)
        assert (getattr(whole, name) is not None) == is_ever_there, "what was never there is unknown, not 0"


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_counter_goes_on_across_restarts_of_its_engine(lives: list[list[int]]) -> None:
    """Each life counts from 0 by its increments; all that was counted after the first look is found."""
    glances, wanted = [], 0
    for number, increments in enumerate(lives):
        total = 0
        for step, increment in enumerate(increments):
            total += increment
            if number or step:
                wanted += increment
            glances.append(EngineGlance(running=0, preemptions=total, started_at_s=float(number)))
    whole = added_up(loads(glances))
    assert (whole.preemptions, whole.restarts) == (wanted, len(lives) - 1)


def test_a_counter_that_falls_is_a_restart_where_the_process_says_nothing_of_its_start() -> None:
    whole = added_up(loads([EngineGlance(running=0, preemptions=n) for n in (5, 9, 2, 4)]))
    assert (whole.preemptions, whole.restarts) == (4 + 2 + 2, 1)


@given(st.lists(GLANCES, min_size=1, max_size=8))
def test_two_gateways_that_look_at_once_count_nothing_twice(glances: list[EngineGlance]) -> None:
    whole = added_up(loads(glances))
    twice = joined_loads([("a", whole), ("b", whole)])
    assert twice is not None
    assert twice == side_by_side(whole, whole)
    assert all(getattr(twice, name) == getattr(whole, name) for name in (*COUNTERS, "peak_running", "restarts"))
    later = added_up(loads(glances, NOON + timedelta(hours=1)))
    assert joined_loads([("a", whole), ("b", later)]) == one_after_the_other(whole, later)
    assert joined_loads([]) is None


def test_a_load_is_saturating_only_by_preemptions_a_full_cache_or_a_queue_that_stood() -> None:
    calm = ObservedLoad(9, NOON, NOON, peak_running=64, peak_waiting=1, peak_kv_usage=0.9, looks_waiting=2)
    assert not calm.is_saturated
    for name, value in (("preemptions", 1), ("peak_kv_usage", 0.96), ("looks_waiting", 3)):
        facts = {"looks": 9, "first_look": NOON, "last_look": NOON, name: value}
        assert ObservedLoad(**facts).is_saturated  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_most_at_once_is_the_most_spans_over_any_moment(spans: list[tuple[int, int]]) -> None:
    counts = [sum(a <= second < b for a, b in spans) for second in range(31)]
    assert most_at_once([a for a, _ in spans], [b for _, b in spans]) == max(counts)
