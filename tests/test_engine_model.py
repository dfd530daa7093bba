"""Step times by the rooflines, and continuous batching as a state machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_models import H100, LLAMA_8B, MIXTURE, TINY, WINDOWED, gpu_with_blocks, model_of

from gateway.domain.engine_model import EngineLimits, Scheduler, max_concurrency, resident_blocks, resolve_limits
from gateway.domain.memory import kv_layout
from gateway.domain.roofline import PEAK, Work, build_roofline, causal_pairs

LIMITS = EngineLimits(num_gpu_blocks=64, max_model_len=512, max_num_batched_tokens=256, max_num_seqs=8)


def scheduler_of(limits: EngineLimits = LIMITS, *, shape=TINY) -> Scheduler:
    return Scheduler(limits, build_roofline(model_of(shape), H100))


def decode(count: int, context: int = 1000) -> list[Work]:
    return [Work(1, context)] * count


def run_until_done(scheduler: Scheduler, wanted: dict[str, int]) -> tuple[float, int, dict[str, int]]:
    """Step until every request has its tokens: seconds, preemptions, tokens by request."""
    spent, preemptions, got = 0.0, 0, dict.fromkeys(wanted, 0)
    while scheduler.has_work:
        step = scheduler.begin_step()
        spent += step.duration_s
        preemptions += len(step.preempted)
        for request_id in scheduler.end_step():
            got[request_id] += 1
            if got[request_id] == wanted[request_id]:
                scheduler.finish(request_id)
    return spent, preemptions, got


# --- rooflines ----------------------------------------------------------------------------------------------


def test_a_lone_decode_step_takes_the_weights_over_the_bandwidth():
    roofline = build_roofline(model_of(LLAMA_8B), H100, efficiency=PEAK)
    read = 2 * (8_030_261_248 - 128_256 * 4096) + 1000 * 131_072
    assert roofline.step_seconds(decode(1)) == pytest.approx(read / 3.35e12)


def test_expected_speed_is_four_fifths_of_the_bandwidth_and_half_of_the_operations():
    expected, peak = build_roofline(model_of(LLAMA_8B), H100), build_roofline(model_of(LLAMA_8B), H100, efficiency=PEAK)
    assert expected.step_seconds(decode(1)) == pytest.approx(peak.step_seconds(decode(1)) / 0.8)
    prompt = [Work(8192, 0)]
    assert expected.step_seconds(prompt) == pytest.approx(peak.step_seconds(prompt) / 0.5)


def test_a_long_prompt_is_bound_by_operations_of_weights_and_attention():
    roofline = build_roofline(model_of(LLAMA_8B), H100, efficiency=PEAK)
    tokens, head = 8192, 128_256 * 4096
    flops = 2 * (8_030_261_248 - 2 * head) * tokens + 2 * 32 * 4096 * tokens**2 + 2 * head
    assert roofline.step_seconds([Work(tokens, 0)]) == pytest.approx(flops / 989e12)


def test_a_mixture_reads_k_experts_for_one_token_and_nearly_all_for_many():
    roofline = build_roofline(model_of(MIXTURE), H100)
    head = 128_256 * 4096
    assert roofline.weights_read_bytes(1) == pytest.approx(2 * (3_000_000_000 - head))
    assert roofline.weights_read_bytes(2000) == pytest.approx(2 * (30_000_000_000 - head), rel=1e-6)


def test_a_window_bounds_what_is_read_of_the_cache():
    windowed, full = build_roofline(model_of(WINDOWED), H100), build_roofline(model_of(LLAMA_8B), H100)
    assert windowed.step_seconds(decode(1, 512)) == pytest.approx(full.step_seconds(decode(1, 512)))
    assert windowed.step_seconds(decode(1, 50_000)) < full.step_seconds(decode(1, 50_000))


@given(st.integers(1, 300), st.integers(0, 300), st.one_of(st.none(), st.integers(1, 200)))
def test_causal_pairs_are_those_counted_one_by_one(new, past, window):
    counted = sum(min(at + 0.5, window or at + 1) for at in range(past, past + new))
    assert causal_pairs(new, past, window) == pytest.approx(counted, abs=0.5)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 5000)), min_size=1, max_size=20))
def test_a_step_never_gets_shorter_by_more_work(batch):
    for shape in (LLAMA_8B, MIXTURE, WINDOWED):
        roofline = build_roofline(model_of(shape), H100)
        works = [Work(new, past) for new, past in batch]
        assert roofline.step_seconds(works) >= roofline.step_seconds(works[:-1])
        longer = [replace(works[0], new_tokens=works[0].new_tokens + 1), *works[1:]]
        assert roofline.step_seconds(longer) >= roofline.step_seconds(works)


def test_throughput_rises_with_the_batch_and_then_saturates():
    roofline = build_roofline(model_of(LLAMA_8B), H100)
    rates = [size / roofline.step_seconds(decode(size, 2000)) for size in (1, 8, 64, 512, 4096)]
    assert rates == sorted(rates)
    assert rates[1] / rates[0] > 6
    assert rates[4] / rates[3] < 1.2


def test_a_model_without_facts_names_them_all():
    with pytest.raises(ValueError, match="the speed of candidate on h100-sxm cannot be computed: unknown shape"):
        build_roofline(model_of(None), H100)
    lame = replace(LLAMA_8B, heads=None, kv_heads=None, head_dim=None)
    with pytest.raises(ValueError, match="unknown heads, kv_heads, head_dim"):
        resolve_limits(model_of(lame), H100)


def test_an_unknown_embedding_makes_a_step_longer_but_little():
    known, unknown = (build_roofline(model_of(s), H100) for s in (LLAMA_8B, replace(LLAMA_8B, hidden=None)))
    assert 1 < unknown.step_seconds(decode(1)) / known.step_seconds(decode(1)) < 1.1


def test_a_mixture_with_unknown_active_share_is_refused():
    with pytest.raises(ValueError, match="active_params"):
        build_roofline(model_of(replace(MIXTURE, active_params=None)), H100)


# --- what an engine resolves at start -----------------------------------------------------------------------


def test_limits_are_vllms_defaults_for_the_gpu():
    limits = resolve_limits(model_of(LLAMA_8B), H100, max_model_len=8192)
    assert (limits.max_num_batched_tokens, limits.max_num_seqs, limits.block_size) == (8192, 1024, 16)
    layout = kv_layout(LLAMA_8B)
    assert layout is not None
    assert max_concurrency(limits, layout) == limits.num_gpu_blocks / 512


def test_the_context_shrinks_to_what_the_cache_holds_unless_a_length_is_asked():
    model = model_of(TINY)
    gpu = gpu_with_blocks(model, 40)
    assert resolve_limits(model, gpu).max_model_len == 640
    with pytest.raises(ValueError, match="candidate does not run on one small"):
        resolve_limits(model, gpu, max_model_len=641)


def test_an_unknown_context_is_assumed_to_be_short():
    unknown = model_of(replace(LLAMA_8B, context=None))
    assert resolve_limits(unknown, H100).max_model_len == 8192
    assert resolve_limits(unknown, H100, max_model_len=20_000).max_model_len == 20_000


@pytest.mark.parametrize("length", [0, 131_073])
def test_a_length_beyond_the_models_own_is_refused(length):
    with pytest.raises(ValueError, match="max_model_len must be 1 to 131072"):
        resolve_limits(model_of(LLAMA_8B), H100, max_model_len=length)


def test_weights_that_leave_no_room_are_refused_with_figures():
    with pytest.raises(ValueError, match="GiB"):
        resolve_limits(model_of(replace(LLAMA_8B, params=70_000_000_000, active_params=70_000_000_000, ffn=None)), H100)


# --- continuous batching ------------------------------------------------------------------------------------


def test_a_prompt_gives_its_first_token_at_the_end_of_its_last_chunk():
    scheduler = scheduler_of()
    scheduler.add("long", 500)
    steps = [(scheduler.begin_step().tokens, scheduler.end_step()) for _ in range(3)]
    assert steps == [(256, ()), (244, ("long",)), (1, ("long",))]


def test_running_requests_decode_while_a_prompt_is_taken_in_by_chunks():
    scheduler = scheduler_of()
    scheduler.add("early", 10)
    scheduler.begin_step()
    scheduler.end_step()
    scheduler.add("late", 400)
    assert scheduler.begin_step().works == (("early", Work(1, 10)), ("late", Work(255, 0, samples=False)))


def test_no_more_run_than_max_num_seqs():
    scheduler = scheduler_of()
    for number in range(12):
        scheduler.add(f"r{number}", 5)
    scheduler.begin_step()
    assert (scheduler.running, scheduler.waiting) == (8, 4)


def test_a_prompt_waits_until_all_of_it_has_room_and_nobody_overtakes_it():
    scheduler = scheduler_of(replace(LIMITS, num_gpu_blocks=40, max_num_batched_tokens=1024))
    for name, prompt_tokens in (("first", 400), ("second", 300), ("third", 5)):
        scheduler.add(name, prompt_tokens)
    assert scheduler.begin_step().admitted == ("first",)
    scheduler.end_step()
    scheduler.finish("first")
    assert scheduler.begin_step().admitted == ("second", "third")


def test_the_newest_is_preempted_when_blocks_run_out_and_all_still_finish():
    scheduler = scheduler_of(replace(LIMITS, num_gpu_blocks=32))
    for name in ("first", "second", "third"):
        scheduler.add(name, 100)
    _, preemptions, got = run_until_done(scheduler, {"first": 200, "second": 200, "third": 200})
    assert preemptions >= 1
    assert got == {"first": 200, "second": 200, "third": 200}
    assert scheduler.free_blocks == 32


def test_preemption_takes_the_newest_and_puts_it_first_in_line():
    scheduler = scheduler_of(replace(LIMITS, num_gpu_blocks=14))
    scheduler.add("old", 100)
    scheduler.add("new", 100)
    preempted: tuple[str, ...] = ()
    while not preempted:
        preempted = scheduler.begin_step().preempted
        scheduler.end_step()
    assert preempted == ("new",)
    assert (scheduler.running, scheduler.waiting) == (1, 1)


def test_who_leaves_during_a_step_gets_no_token_and_frees_its_blocks():
    scheduler = scheduler_of()
    scheduler.add("a", 50)
    scheduler.add("b", 50)
    scheduler.begin_step()
    scheduler.finish("a")
    assert scheduler.end_step() == ("b",)
    scheduler.finish("b")
    assert (scheduler.free_blocks, scheduler.kv_usage, scheduler.has_work) == (64, 0.0, False)


@pytest.mark.parametrize("prompt_tokens", [0, 513])
def test_a_prompt_that_can_never_run_is_refused(prompt_tokens):
    with pytest.raises(ValueError, match="expected 1 to 512 prompt tokens"):
        scheduler_of().add("r", prompt_tokens)


def test_a_second_request_of_the_same_id_is_refused():
    scheduler = scheduler_of()
    scheduler.add("r", 5)
    with pytest.raises(ValueError, match="already"):
        scheduler.add("r", 5)


def test_a_window_lets_go_of_the_blocks_that_it_has_passed():
    layout = kv_layout(WINDOWED)
    assert layout is not None
    groups_full, groups_window = 1, 3
    assert resident_blocks(layout, 16, 0, 1600) == (groups_full + groups_window) * 100
    assert resident_blocks(layout, 16, 10_000, 1) == groups_full * 626 + groups_window * 33


ACTION = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 300)),
    st.tuples(st.just("leave"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 20)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ACTION, max_size=40),
    st.integers(20, 60),
    st.sampled_from([TINY, replace(TINY, sliding_window=64, global_layers=1)]),
)
def test_blocks_are_conserved_whoever_comes_and_leaves(actions, blocks, shape):
    layout = kv_layout(shape)
    assert layout is not None
    shortest = EngineLimits(blocks, 1, max_num_batched_tokens=64, max_num_seqs=4)
    longest = layout.longest_context(blocks, shortest.paging, limit=512)
    scheduler = scheduler_of(replace(shortest, max_model_len=longest), shape=shape)
    wanted: dict[str, int] = {}
    got: dict[str, int] = {}
    for kind, number in actions:
        if kind == "add" and number < longest:
            name = f"r{len(wanted)}"
            scheduler.add(name, number)
            wanted[name], got[name] = min(100, longest - number), 0
        elif kind == "leave":
            scheduler.finish(f"r{number}")
        elif kind == "step":
            for _ in range(number):
                step = scheduler.begin_step()
                assert step.tokens <= 64
                assert 0 <= scheduler.free_blocks <= blocks
                for name in scheduler.end_step():
                    got[name] += 1
                    if got[name] == wanted[name]:
                        scheduler.finish(name)
    for _ in range(200_000):
        if not scheduler.has_work:
            break
        scheduler.begin_step()
        for name in scheduler.end_step():
            got[name] += 1
            if got[name] >= wanted[name]:
                scheduler.finish(name)
    assert not scheduler.has_work
    assert scheduler.free_blocks == blocks
