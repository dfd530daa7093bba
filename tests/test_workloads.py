"""The texts of load tests, and the requests that are made of them."""

from __future__ import annotations

import base64
import itertools
import json
import struct
import subprocess
import sys
import unicodedata
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import TypeAdapter
from servers import serve
from simulated_models import H100, TINY, model_of

from gateway.api.schemas import ComparisonRequest
from gateway.domain.personal_data import personal_data_in
from gateway.prompts import load_prompts
from gateway.simulator import create_engine
from gateway.simulator.text import split_tokens
from loadtests.plan import Lengths, Route, Shape, WorkKind, Workload, exactly
from loadtests.workloads import INDUSTRIES, LANGUAGES, Text, load_texts, passages, texts_of, workload_sha256
from loadtests.workloads.fitting import (
    DEFAULT_FERTILITY,
    Fertility,
    Supply,
    cut_at_word,
    fertility_samples,
    fit_prompt,
    learn_fertility,
)
from loadtests.workloads.lengths import draw_lengths
from loadtests.workloads.pictures import HEIGHT, WIDTH, data_uri, draw
from loadtests.workloads.references import References
from loadtests.workloads.requests import Ask, Conversation, WorkSource
from loadtests.workloads.words import BREAK

ROOT = Path(__file__).parent.parent
LEAST = {WorkKind.CHAT: 6, WorkKind.DOCUMENT_QA: 1}
"""Texts of each language and industry; of other kinds two."""
TEXTS = [text for kind in WorkKind for language in LANGUAGES for text in load_texts(kind, language)]
CHAT = Workload(language="ko")
SPREAD = Lengths(Shape.LOGNORMAL, 200, 4000, 900, 0.7)


def everything_in(text: Text) -> list[str]:
    return [*text.questions, *text.paragraphs, *filter(None, [text.title])]


def hangul_share(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    return sum("가" <= c <= "힣" for c in letters) / len(letters)


def shingles(text: str, size: int = 12) -> set[str]:
    flat = "".join(text.split())
    return {flat[i : i + size] for i in range(len(flat) - size + 1)}


def prompt_of(ask: Ask) -> str:
    content = ask.body["messages"][0]["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def asks_of(workload: Workload, count: int, *, seed: int = 1, worker: int = 0, workers: int = 1) -> list[Ask]:
    source = WorkSource(workload, Route.CHAT, seed, worker, workers)
    return [source.next() for _ in range(count)]


def whole(conversation: Conversation, answer: str = "네.") -> list[Ask]:
    asks, ask = [], conversation.first()
    while ask is not None:
        asks.append(ask)
        ask = conversation.next(answer)  # type: ignore[assignment]
    return asks


def common_length(one: str, other: str) -> int:
    same, different = 0, min(len(one), len(other)) + 1
    while different - same > 1:
        middle = (same + different) // 2
        same, different = (middle, different) if one[:middle] == other[:middle] else (same, middle)
    return same


# --- the texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WorkKind)
def test_every_industry_has_texts_of_every_kind_in_both_languages(kind: WorkKind) -> None:
    counts = Counter((text.language, text.industry) for text in TEXTS if text.kind is kind)
    assert set(counts) == set(itertools.product(LANGUAGES, INDUSTRIES))
    assert min(counts.values()) >= LEAST.get(kind, 2)
    assert len(set(counts.values())) == 1, "industries weigh alike"


def test_ids_are_unique_and_say_what_the_text_is() -> None:
    assert len({text.id for text in TEXTS}) == len(TEXTS)
    for text in TEXTS:
        assert text.id.startswith(f"{text.language}-{text.industry}-{text.kind}-".replace("_", "-"))


@pytest.mark.parametrize("kind", WorkKind)
def test_texts_are_clean_and_free_of_personal_data(kind: WorkKind) -> None:
    for text in filter(lambda text: text.kind is kind, TEXTS):
        for part in everything_in(text):
            assert part == part.strip(), text.id
            assert part == unicodedata.normalize("NFC", part), text.id
            assert "  " not in part, text.id
            assert all(sign == "\n" or sign.isprintable() for sign in part), text.id
            assert personal_data_in(part) == [], text.id


@pytest.mark.parametrize("kind", WorkKind)
def test_texts_are_in_their_language(kind: WorkKind) -> None:
    shares = {text.id: hangul_share(" ".join(everything_in(text))) for text in TEXTS if text.kind is kind}
    assert [name for name, share in shares.items() if not (share > 0.9 if name.startswith("ko") else share == 0)] == []


def test_texts_have_what_their_kind_needs_and_nothing_else() -> None:
    for text in TEXTS:
        assert (len(text.paragraphs) > 0) == (text.kind in (WorkKind.DOCUMENT_QA, WorkKind.SUMMARY)), text.id
        assert (len(text.tools) > 0) == (text.kind is WorkKind.TOOLS), text.id
        assert (text.schema is not None) == (text.kind is WorkKind.STRUCTURED), text.id
        assert (text.picture is not None) == (text.kind is WorkKind.IMAGE), text.id
        assert (text.title is not None) == (text.kind is WorkKind.DOCUMENT_QA), text.id
        least = {WorkKind.DOCUMENT_QA: 3, WorkKind.MULTI_TURN: 5}.get(text.kind, 1)
        assert len(text.questions) >= least, text.id
        assert least > 1 or len(text.questions) == 1, text.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_are_long(language: str) -> None:
    for text in load_texts(WorkKind.DOCUMENT_QA, language):
        assert sum(map(len, text.paragraphs)) >= 1500


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_repeats_another_nor_a_prompt_of_the_core_set(language: str) -> None:
    ours = [(text.id, shingles(" ".join(everything_in(text)))) for text in TEXTS if text.language == language]
    seen = ours + [(prompt.id, shingles(prompt.text)) for prompt in load_prompts(language=language)]
    alike = [(a, b) for (a, x), (b, y) in itertools.combinations(seen, 2) if len(x & y) / min(len(x), len(y)) > 0.2]
    assert alike == []


def test_no_sentence_stands_twice() -> None:
    counts = Counter(part for text in TEXTS for part in everything_in(text))
    assert [part for part, count in counts.items() if count > 1] == []


def test_schemas_of_tools_and_forms_are_json_schemas() -> None:
    schemas = [tool["function"]["parameters"] for text in TEXTS for tool in text.tools]
    schemas += [text.schema["schema"] for text in TEXTS if text.schema is not None]
    assert schemas
    for schema in schemas:
        jsonschema_rs.meta.validate(schema)
        assert set(schema["required"]) <= set(schema["properties"])


# --- pictures -----------------------------------------------------------------------------------------------


def pixels(uri: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A PNG of ours, read back by the standard's own rules: chunks with checksums, rows without a filter."""
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        kind, content = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + content),)
        chunks[kind], at = content, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (width, height, depth, colour) == (WIDTH, HEIGHT, 8, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    assert rows[:, 1:].max() < len(chunks[b"PLTE"]) // 3
    return rows[:, 1:]


@pytest.mark.parametrize("text", [text for text in TEXTS if text.picture], ids=lambda text: text.id)
def test_picture_is_a_png_that_its_number_alone_makes_another(text: Text) -> None:
    assert text.picture is not None
    canvas = draw(text.picture)
    one, same, other = (pixels(data_uri(canvas, number)) for number in ("123456789", "123456789", "123456780"))
    assert (one == same).all()
    assert 0 < (one != other).sum() < 60
    assert len(np.unique(canvas)) >= 3


def test_pictures_differ() -> None:
    drawn = [draw(text.picture).tobytes() for text in TEXTS if text.picture]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("picture", [{"form": "pie"}, {"form": "shapes", "shapes": [["star", "red", 50, 50]]}])
def test_a_picture_that_cannot_be_drawn_says_what_can(picture: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        draw(picture)


# --- lengths ------------------------------------------------------------------------------------------------


@st.composite
def any_lengths(choose: st.DrawFn) -> Lengths:
    least, median, most = sorted(choose(st.tuples(*[st.integers(1, 200_000)] * 3)))
    shape = choose(st.sampled_from(Shape))
    if shape is Shape.FIXED:
        return exactly(median)
    return Lengths(shape, least, most, median, choose(st.floats(0, 5)))


@given(any_lengths(), st.integers(0, 2**32), st.integers(0, 200))
def test_lengths_stay_within_their_bounds_and_follow_from_the_seed(lengths: Lengths, seed: int, count: int) -> None:
    drawn = draw_lengths(lengths, np.random.default_rng(seed), count)
    assert len(drawn) == count
    assert ((lengths.least <= drawn) & (drawn <= lengths.most)).all()
    assert (drawn == draw_lengths(lengths, np.random.default_rng(seed), count)).all()


@given(any_lengths(), st.integers(0, 2**32))
def test_lengths_drawn_one_by_one_are_those_drawn_at_once(lengths: Lengths, seed: int) -> None:
    at_once = draw_lengths(lengths, np.random.default_rng(seed), 8)
    rng = np.random.default_rng(seed)
    one_by_one = [int(draw_lengths(lengths, rng, 1)[0]) for _ in range(8)]
    if lengths.shape is not Shape.UNIFORM:  # numpy takes several small whole numbers out of one word
        assert one_by_one == at_once.tolist()


def test_uniform_lengths_reach_both_bounds_and_prefer_none() -> None:
    drawn = draw_lengths(Lengths(Shape.UNIFORM, 5, 14, 9), np.random.default_rng(3), 20_000)
    counts = np.bincount(drawn)[5:]
    assert len(counts) == 10
    assert (abs(counts - 2000) < 5 * 2000**0.5).all()


def test_lognormal_lengths_have_the_median_and_spread_asked_for() -> None:
    drawn = draw_lengths(Lengths(Shape.LOGNORMAL, 1, 10**9, 500, 0.8), np.random.default_rng(4), 20_000)
    assert abs(np.median(drawn) - 500) < 15
    assert abs(np.log(drawn).std() - 0.8) < 0.02


def test_truncated_lengths_do_not_pile_up_at_the_bounds() -> None:
    """As rejection would have it: what is drawn from the untruncated distribution, without what lies outside."""
    bounded = Lengths(Shape.LOGNORMAL, 300, 800, 500, 0.8)
    ours = draw_lengths(bounded, np.random.default_rng(5), 20_000)
    free = np.rint(np.random.default_rng(6).lognormal(np.log(500), 0.8, 80_000))
    rejected = free[(free >= 300) & (free <= 800)]
    for share in (5, 25, 50, 75, 95):
        assert abs(np.percentile(ours, share) - np.percentile(rejected, share)) < 12
    assert (ours == 800).sum() < 100


@pytest.mark.parametrize(
    "lengths",
    [
        Lengths(Shape.UNIFORM, 0, 5, 3),
        Lengths(Shape.UNIFORM, 5, 4, 4),
        Lengths(Shape.LOGNORMAL, 5, 10, 11, 1.0),
        Lengths(Shape.FIXED, 5, 10, 7),
        Lengths(Shape.LOGNORMAL, 5, 10, 7, -1.0),
        Lengths(Shape.LOGNORMAL, 5, 10, 7, float("nan")),
    ],
)
def test_lengths_that_contradict_themselves_are_refused(lengths: Lengths) -> None:
    with pytest.raises(ValueError, match="lengths: "):
        draw_lengths(lengths, np.random.default_rng(1), 1)
    with pytest.raises(ValueError, match="lengths: "):
        WorkSource(replace(CHAT, output_tokens=lengths), Route.CHAT, 1)


# --- text of any length -------------------------------------------------------------------------------------


@given(st.text("가나 b\n", max_size=60), st.integers(-3, 70))
def test_a_cut_is_a_beginning_that_ends_with_a_word(text: str, characters: int) -> None:
    kept = cut_at_word(text, characters)
    assert text.startswith(kept)
    assert len(kept) <= max(0, characters)
    if len(kept) < len(text):
        assert kept == kept.rstrip()
        assert kept == "" or text[len(kept)].isspace()


@pytest.mark.parametrize("language", LANGUAGES)
@given(start=st.integers(0, 10**6), characters=st.integers(0, 400_000))
def test_the_supply_gives_any_length_to_within_a_word(language: str, start: int, characters: int) -> None:
    supply = Supply(passages(language))
    longest = max(len(word) for paragraph in passages(language) for word in paragraph.split())
    cut = supply.cut(start, characters)
    assert characters - longest - len(BREAK) <= len(cut) <= characters
    assert passages(language)[start % len(supply)].startswith(cut[:20])


def test_a_supply_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        Supply([])


@given(
    language=st.sampled_from(LANGUAGES),
    head=st.sampled_from(["접수번호 1", "Reference 2"]),
    passage=st.sampled_from(["", "가나 다라 마바 사아", "word " * 200 + "end"]),
    characters=st.integers(0, 2000),
)
def test_a_fitted_prompt_keeps_its_head_and_gives_up_the_passage_before_the_question(
    language: str, head: str, passage: str, characters: int
) -> None:
    question = "이 질문은 얼마나 길까요?"
    prompt = fit_prompt(language, head=head, passage=passage, question=question, characters=characters)
    assert prompt.startswith(head)
    assert len(prompt) <= max(characters, len(head))
    if len(head + BREAK + question) <= characters:
        assert prompt.endswith(question)


@pytest.mark.parametrize("language", LANGUAGES)
def test_fertility_is_learnt_exactly_where_tokens_are_a_straight_line(language: str) -> None:
    counted = [(len(prompt), 20 + len(prompt) // 2) for prompt in fertility_samples(language)]
    learnt = learn_fertility({language: counted})
    assert learnt.characters_per_token[language] == pytest.approx(2, abs=0.01)
    assert learnt.overhead_tokens[language] == pytest.approx(20, abs=1)
    other = next(each for each in LANGUAGES if each != language)
    assert learnt.characters_per_token[other] == DEFAULT_FERTILITY.characters_per_token[other]


@pytest.mark.parametrize("counted", [[], [(5, 2), (5, 3)], [(5, 9), (50, 9)]])
def test_fertility_cannot_be_learnt_from_too_little(counted: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="ko: expected"):
        learn_fertility({"ko": counted})


def simulated_tokens(prompt: str) -> int:
    return len(split_tokens(f"<|user|>{prompt}\n<|assistant|>"))


@pytest.mark.parametrize("kind", [WorkKind.CHAT, WorkKind.DOCUMENT_QA, WorkKind.SUMMARY, WorkKind.REASONING])
@pytest.mark.parametrize("language", LANGUAGES)
def test_with_learnt_fertility_prompts_have_about_the_tokens_asked_for(language: str, kind: WorkKind) -> None:
    """By a tokenizer that knows nothing of characters per token: that of the simulated engine."""
    samples = [(len(prompt), simulated_tokens(prompt)) for prompt in fertility_samples(language)]
    fertility = learn_fertility({language: samples})
    for tokens, tolerance in ((256, 0.12), (1024, 0.06), (8192, 0.04)):
        workload = Workload(kind=kind, language=language, input_tokens=exactly(tokens))
        source = WorkSource(workload, Route.CHAT, 1, fertility=fertility)
        asks = [source.next() for _ in range(20)]
        assert {ask.asked_input_tokens for ask in asks} == {tokens}
        for ask in asks:
            assert simulated_tokens(prompt_of(ask)) == pytest.approx(tokens, rel=tolerance)


# --- one request after the other ----------------------------------------------------------------------------

WORKLOADS = [
    Workload(kind=kind, language=language, input_tokens=lengths, output_tokens=exactly(64), is_pinned=False)
    for kind in WorkKind
    for language in (*LANGUAGES, "mixed")
    for lengths in (None, SPREAD)
]


def name_of(workload: Workload) -> str:
    return f"{workload.kind}-{workload.language}-{'fitted' if workload.input_tokens else 'as-is'}"


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_the_same_seed_gives_the_same_requests_and_no_two_are_alike(workload: Workload) -> None:
    asks = asks_of(workload, 60)
    assert asks == asks_of(workload, 60)
    bodies = [json.dumps(ask.body) for ask in asks + asks_of(workload, 60, seed=2)]
    assert len(set(bodies)) == len(bodies)


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_workers_of_one_seed_send_different_requests(workload: Workload) -> None:
    bodies = [json.dumps(ask.body) for worker in range(3) for ask in asks_of(workload, 40, worker=worker, workers=3)]
    assert len(set(bodies)) == len(bodies)


def test_workers_take_numbers_of_their_own_whatever_else_is_equal() -> None:
    first = [prompt_of(ask).split(BREAK)[0] for ask in asks_of(CHAT, 9)]
    shared_out = [
        [prompt_of(ask).split(BREAK)[0] for ask in asks_of(CHAT, 3, worker=worker, workers=3)] for worker in range(3)
    ]
    assert [line for lines in zip(*shared_out, strict=True) for line in lines] == first


@given(st.integers(0, 2**63), st.lists(st.integers(0, 10**9 - 1), min_size=2, max_size=50, unique=True))
def test_references_never_repeat(seed: int, numbers: list[int]) -> None:
    references = References(seed)
    digits = [references.digits(number) for number in numbers]
    assert len(set(digits)) == len(numbers)
    assert {len(each) for each in digits} == {9}


@pytest.mark.parametrize("kind", [WorkKind.CHAT, WorkKind.SUMMARY, WorkKind.MULTI_TURN, WorkKind.REASONING])
@pytest.mark.parametrize("lengths", [None, SPREAD])
def test_without_a_shared_part_prompts_differ_from_their_first_words(kind: WorkKind, lengths: Lengths | None) -> None:
    workload = Workload(kind=kind, language="ko", input_tokens=lengths)
    prompts = [prompt_of(ask) for seed in (1, 2) for ask in asks_of(workload, 40, seed=seed)]
    longest = max(common_length(a, b) for a, b in itertools.combinations(prompts, 2))
    assert longest < len("접수번호 123-456")


def test_texts_of_all_industries_come_and_mixed_is_half_and_half() -> None:
    asks = asks_of(Workload(language="mixed"), 400)
    known = {text.id: text for text in TEXTS}
    assert Counter(known[ask.item].language for ask in asks) == {"ko": 200, "en": 200}
    assert {known[ask.item].industry for ask in asks} == set(INDUSTRIES)


def test_only_the_industries_asked_for_come() -> None:
    asks = asks_of(replace(CHAT, industries=("law", "health")), 60)
    assert {ask.item.split("-")[1] for ask in asks} == {"law", "health"}


def test_the_question_stands_at_the_end() -> None:
    known = {text.id: text for text in TEXTS}
    for ask in asks_of(replace(CHAT, input_tokens=exactly(2000)), 20):
        assert prompt_of(ask).endswith(known[ask.item].questions[0])


def test_a_trace_can_say_how_long_each_request_is() -> None:
    source = WorkSource(CHAT, Route.CHAT, 1)
    short, long = (source.next(input_tokens=tokens, output_tokens=7) for tokens in (300, 3000))
    assert (short.asked_input_tokens, short.asked_output_tokens) == (300, 7)
    assert len(prompt_of(long)) > 9 * len(prompt_of(short))


def test_fertility_decides_how_many_characters_a_prompt_has() -> None:
    workload = replace(CHAT, input_tokens=exactly(1000))
    dense = Fertility({"ko": 1.0, "en": 1.0}, {"ko": 0.0, "en": 0.0})
    source = WorkSource(workload, Route.CHAT, 1, fertility=dense)
    assert 985 <= len(prompt_of(source.next())) <= 1000


# --- shared prefixes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [WorkKind.CHAT, WorkKind.DOCUMENT_QA, WorkKind.MULTI_TURN, WorkKind.TOOLS])
@pytest.mark.parametrize("language", [*LANGUAGES, "mixed"])
def test_prompts_share_their_beginning_exactly_within_a_group_and_nowhere_else(kind: WorkKind, language: str) -> None:
    workload = Workload(
        kind=kind, language=language, input_tokens=exactly(2000), shared_prefix_tokens=1200, prefix_groups=4
    )
    groups: dict[str, list[str]] = {}
    for worker in range(2):
        for ask in asks_of(workload, 60, worker=worker, workers=2):
            groups.setdefault(prompt_of(ask).split(BREAK)[0], []).append(prompt_of(ask))
    assert len(groups) == 4
    for prompts in groups.values():
        expected = DEFAULT_FERTILITY.text_characters("ko" if prompts[0][0] == "자" else "en", 1200)
        shared = [common_length(a, b) for a, b in itertools.combinations(prompts, 2)]
        assert min(shared) >= expected - 30
        assert max(shared) <= expected + 30
    for one, other in itertools.combinations(groups.values(), 2):
        assert common_length(one[0], other[0]) < 14


def test_another_seed_shares_no_prefix_even_in_its_groups() -> None:
    workload = replace(CHAT, shared_prefix_tokens=500, prefix_groups=2)
    one, other = (asks_of(workload, 20, seed=seed) for seed in (1, 2))
    assert max(common_length(prompt_of(a), prompt_of(b)) for a in one for b in other) < 14


@pytest.mark.parametrize("lengths", [None, exactly(4000)])
def test_all_questions_about_one_document_share_it_as_their_beginning(lengths: Lengths | None) -> None:
    workload = Workload(kind=WorkKind.DOCUMENT_QA, language="ko", input_tokens=lengths)
    documents: dict[str, list[str]] = {}
    for ask in asks_of(workload, 80):
        documents.setdefault(ask.item.rpartition(".")[0], []).append(prompt_of(ask))
    assert len(documents) == len(INDUSTRIES)
    for prompts in documents.values():
        assert min(common_length(a, b) for a, b in itertools.combinations(prompts, 2)) > 1500


def test_a_document_and_its_question_belong_together() -> None:
    documents = {text.id: text for text in load_texts(WorkKind.DOCUMENT_QA, "en")}
    for ask in asks_of(Workload(kind=WorkKind.DOCUMENT_QA, language="en"), 60):
        name, _, question = ask.item.rpartition(".")
        assert documents[name].title in prompt_of(ask)  # type: ignore[operator]
        assert prompt_of(ask).endswith(documents[name].questions[int(question) - 1])


# --- conversations ------------------------------------------------------------------------------------------

TALK = Workload(kind=WorkKind.MULTI_TURN, language="ko", turns=Lengths(Shape.UNIFORM, 2, 12, 6), output_tokens=SPREAD)


def test_a_conversation_grows_by_the_answer_and_the_next_question() -> None:
    source = WorkSource(TALK, Route.CHAT, 1)
    for _ in range(20):
        asks = whole(source.conversation(), "알겠습니다.")
        assert [ask.turn for ask in asks] == list(range(len(asks)))
        assert len({ask.item for ask in asks}) == 1
        for before, after in itertools.pairwise(asks):
            *kept, answer, question = after.body["messages"]
            assert kept == before.body["messages"]
            assert answer == {"role": "assistant", "content": "알겠습니다."}
            assert question["role"] == "user"


def test_conversations_have_the_turns_drawn_even_more_than_their_text_has() -> None:
    source = WorkSource(TALK, Route.CHAT, 1)
    lengths = [len(whole(source.conversation())) for _ in range(60)]
    assert set(lengths) == set(range(2, 13))
    long = WorkSource(replace(TALK, turns=exactly(12)), Route.CHAT, 1).conversation()
    says = [ask.body["messages"][-1]["content"] for ask in whole(long)]
    assert len(set(says)) == 12


def test_conversations_do_not_depend_on_each_other() -> None:
    alone, together = WorkSource(TALK, Route.CHAT, 1), WorkSource(TALK, Route.CHAT, 1)
    one_by_one = [whole(alone.conversation()) for _ in range(2)]
    first, second = together.conversation(), together.conversation()
    assert [whole(second), whole(first)] == one_by_one[::-1]
    assert whole(first) == one_by_one[0], "it can begin again"


def test_only_the_first_turn_has_an_input_length_asked_for() -> None:
    source = WorkSource(replace(TALK, input_tokens=exactly(500), turns=exactly(3)), Route.CHAT, 1)
    assert [ask.asked_input_tokens for ask in whole(source.conversation())] == [500, None, None]


def test_a_plain_conversation_begins_as_its_last_turn_did() -> None:
    asks = whole(WorkSource(replace(TALK, turns=exactly(4)), Route.COMPLETIONS, 1).conversation())
    for before, after in itertools.pairwise(asks):
        assert after.body["prompt"].startswith(before.body["prompt"])


def test_other_kinds_are_conversations_of_one_turn() -> None:
    conversation = WorkSource(replace(CHAT, turns=exactly(5)), Route.CHAT, 1).conversation()
    assert len(conversation) == len(whole(conversation)) == 1


# --- bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize("is_pinned", [True, False])
@pytest.mark.parametrize("output", [None, exactly(33)])
def test_only_a_pinned_length_is_forced(route: Route, is_pinned: bool, output: Lengths | None) -> None:
    workload = replace(CHAT, is_pinned=is_pinned, output_tokens=output, max_output_tokens=400, temperature=0.5)
    ask = WorkSource(workload, route, 1).next()
    fields = ask.body["params"] if route is Route.COMPARISON else ask.body
    assert fields["max_tokens"] == (33 if output else 400)
    assert fields["temperature"] == 0.5
    is_forced = is_pinned and output is not None
    assert (fields.get("min_tokens"), fields.get("ignore_eos")) == ((33, True) if is_forced else (None, None))
    assert ask.asked_output_tokens == (33 if is_forced else None)
    assert not {"model", "models", "stream", "stream_options"} & ask.body.keys()


@pytest.mark.parametrize("route", [Route.CHAT, Route.COMPARISON])
@pytest.mark.parametrize("kind", WorkKind)
def test_bodies_are_what_the_openai_client_and_our_comparisons_take(kind: WorkKind, route: Route) -> None:
    messages, tools, form = (
        TypeAdapter(each)
        for each in (list[ChatCompletionMessageParam], list[ChatCompletionToolParam], ResponseFormatJSONSchema)
    )
    source = WorkSource(Workload(kind=kind, language="mixed", extra={"seed": 5}), route, 1)
    for _ in range(30):
        body = source.next().body
        fields = body["params"] if route is Route.COMPARISON else body
        messages.validate_python(body["messages"], strict=True)
        assert ("tools" in fields) == (kind is WorkKind.TOOLS)
        assert ("response_format" in fields) == (kind is WorkKind.STRUCTURED)
        if kind is WorkKind.TOOLS:
            tools.validate_python(fields["tools"], strict=True)
        if kind is WorkKind.STRUCTURED:
            form.validate_python(fields["response_format"], strict=True)
        assert fields["seed"] == 5
        if route is Route.COMPARISON:
            ComparisonRequest.model_validate({"models": ["a", "b"], **body})


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A tiny model that sees, fast enough not to be waited for."""
    model = replace(model_of(TINY), capabilities=frozenset({"vision"}))
    with serve(create_engine(model, H100, max_model_len=2048, speed=50)) as url:
        yield url


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", WorkKind)
def test_an_engine_answers_every_kind(engine: str, kind: WorkKind) -> None:
    source = WorkSource(Workload(kind=kind, language="mixed", input_tokens=exactly(900)), Route.CHAT, 1)
    for _ in range(4):
        answer = post(f"{engine}/v1/chat/completions", source.next(output_tokens=40).body | {"ignore_eos": False})
        assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("kind", [WorkKind.CHAT, WorkKind.DOCUMENT_QA, WorkKind.MULTI_TURN])
def test_an_engine_gives_exactly_the_tokens_that_are_pinned(engine: str, kind: WorkKind) -> None:
    workload = Workload(kind=kind, language="ko", input_tokens=exactly(400), output_tokens=exactly(23))
    for route, path in ((Route.CHAT, "chat/completions"), (Route.COMPLETIONS, "completions")):
        answer = post(f"{engine}/v1/{path}", WorkSource(workload, route, 1).next().body)
        assert answer["usage"]["completion_tokens"] == 23


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (Workload(language="fr"), "language: expected ko, en, mixed"),
        (Workload(industries=("farming",)), "industries: expected names of .*got 'farming'"),
        (Workload(shared_prefix_tokens=500, input_tokens=exactly(500)), "no room for 500 shared ones"),
        (Workload(shared_prefix_tokens=500, prefix_groups=0), "at least one of prefix_groups"),
        (Workload(kind=WorkKind.STRUCTURED, output_tokens=exactly(50)), "length cannot be pinned"),
    ],
)
def test_a_workload_that_no_request_can_be_made_of_says_why(workload: Workload, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WorkSource(workload, Route.CHAT, 1)


@pytest.mark.parametrize("kind", [WorkKind.TOOLS, WorkKind.IMAGE])
def test_tools_and_images_need_messages(kind: WorkKind) -> None:
    with pytest.raises(ValueError, match="needs messages"):
        WorkSource(Workload(kind=kind), Route.COMPLETIONS, 1)


@pytest.mark.parametrize(("worker", "workers"), [(2, 2), (-1, 2), (0, 0)])
def test_a_worker_that_is_not_one_of_them_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match="worker: expected"):
        WorkSource(CHAT, Route.CHAT, 1, worker, workers)


# --- the workload's hash ------------------------------------------------------------------------------------


def test_the_hash_knows_what_is_asked_and_not_how_it_was_written() -> None:
    every_industry = replace(CHAT, industries=INDUSTRIES[::-1])
    assert workload_sha256(every_industry) == workload_sha256(CHAT)
    assert workload_sha256(replace(CHAT, extra={"a": 1, "b": 2})) == workload_sha256(
        replace(CHAT, extra={"b": 2, "a": 1})
    )


def test_every_value_of_the_workload_changes_the_hash() -> None:
    others = {
        "kind": WorkKind.SUMMARY,
        "language": "en",
        "industries": ("law",),
        "input_tokens": exactly(9),
        "output_tokens": exactly(9),
        "is_pinned": False,
        "max_output_tokens": 9,
        "shared_prefix_tokens": 9,
        "prefix_groups": 9,
        "turns": exactly(9),
        "temperature": 0.9,
        "extra": {"top_p": 0.9},
    }
    assert set(others) == set(Workload.__slots__)
    hashes = [workload_sha256(replace(CHAT, **{name: value})) for name, value in others.items()]
    assert len({workload_sha256(CHAT), *hashes}) == 1 + len(others)


def test_hash_and_requests_are_the_same_in_every_process() -> None:
    script = (
        "from loadtests.plan import *; from loadtests.workloads import *; from loadtests.workloads.requests import *\n"
        "w = Workload(language='mixed', input_tokens=exactly(300), shared_prefix_tokens=100, prefix_groups=3)\n"
        "print(workload_sha256(w), WorkSource(w, Route.CHAT, 1).next().body['messages'])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_the_texts_of_a_workload_are_those_of_its_languages_and_industries() -> None:
    texts = texts_of(Workload(kind=WorkKind.TOOLS, language="mixed", industries=("law", "finance")))
    assert [(text.language, text.industry) for text in texts] == [
        (language, industry) for language in LANGUAGES for industry in ("finance", "law") for _ in range(2)
    ]
