"""Redaction: what it misses and what it takes in vain of the measurement set, and what it promises of any text."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redaction_set import FILES, Text, is_missed, measured, read_set

from gateway.domain.lexicon import Kind, Lexicon, Name, build_lexicon, names_in, squeezed, telling, view_of
from gateway.domain.records import Model, Registry, Serving, ServingKind
from gateway.domain.redaction import MARKER, MAX_NAMES, Redaction, redact
from gateway.registry import load_registry

ROOT = Path(__file__).parent.parent
CANARY_PARTS = [
    *(
        "저는 ",
        "나는 ",
        "제 이름은 ",
        "I'm ",
        "I am ",
        "developed by ",
        "As an AI ",
        "이 모델은 ",
        "안녕하세요",
        "me",
        "by",
    ),
    *("EXAONE", "솔라", "Solar", "네이버", "KT", "A.X", "믿:음", "Kanana", "ChatGPT", "입니다", "예요", "이 만든 AI"),
    *(
        "에서 개발한 ",
        "라고 합니다",
        "드림",
        "— ",
        "모델명",
        "개발사",
        ": ",
        ". ",
        "! ",
        "\n",
        "\n\n",
        "\r\n",
        "1. ",
        "- ",
    ),
    *("> ", "# ", "| ", " |", "```", "**", "`", "_", "~~", "<|im_start|>", "[|", "|]", "<|", "|>", "[BO", "S]", "</s>"),
    *("\u200b", "\u2060", "Ｅ", " ", MARKER, "［", "］"),
]
"""What texts are made of that come close to claims, tokens, Markdown and markers."""


@cache
def lexicon() -> Lexicon:
    return build_lexicon(load_registry(ROOT / "model_registry.yaml"))


def only(text: str, *, author: str | None = None, prompt: str = "") -> Redaction:
    (redaction,) = redact(text, lexicon(), author=author, prompt_text=prompt).redactions
    return redaction


# --- the measurement set ------------------------------------------------------------------------------------


def test_the_set_is_large_and_covers_every_consortium_in_both_languages() -> None:
    texts = read_set("self_claims")
    assert len(texts) >= 320
    assert len(read_set("ordinary")) >= 320
    owners = {name.owner for name in lexicon().names if name.is_candidate}
    for language in ("ko", "en"):
        assert {text.author for text in texts if text.lang == language} == owners
    everything = [*texts, *read_set("ordinary"), *(text for file in FILES for text in read_set(file))]
    assert len({text.id for text in everything}) == len({text.text for text in everything}) == len(everything)


@pytest.mark.parametrize("split", ["dev", "held-out", "all"])
def test_at_most_one_claim_in_a_hundred_is_missed_and_one_ordinary_text_in_a_hundred_is_redacted(split: str) -> None:
    for share in measured(lexicon(), split=split):
        print(share.line())
        if share.lang == "both":
            assert share.failed <= 0.01 * share.n, share.line()


def test_the_page_shows_the_set_as_it_is_now() -> None:
    command = [sys.executable, "scripts/redaction_page.py"]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "redaction.md").read_text() == page, "run `make docs`"


def test_whether_a_claim_is_true_is_told_for_all_but_one_in_a_hundred() -> None:
    texts = read_set("self_claims")
    wrong = [
        text.id
        for text in texts
        if text.is_true not in {r.is_true for r in redact(text.text, lexicon(), author=text.author).redactions}
    ]
    assert len(wrong) <= 0.01 * len(texts), wrong


@pytest.mark.parametrize(
    "text",
    [text for file in ("self_claims", "ordinary", *FILES) for text in read_set(file)],
    ids=lambda t: t.id,
)
def test_a_redacted_text_comes_back_as_it_is(text: Text) -> None:
    once = redact(text.text, lexicon(), prompt_text=text.prompt).text
    assert redact(once, lexicon(), prompt_text=text.prompt).text == once


# --- what it promises of any text ---------------------------------------------------------------------------

any_text = st.text(st.characters(codec=None), max_size=120) | st.lists(
    st.sampled_from(CANARY_PARTS) | st.text(max_size=3), max_size=24
).map("".join)


@settings(max_examples=400, deadline=None)
@given(any_text, st.sampled_from(["", "EXAONE과 Kanana를 비교해 줘"]))
def test_any_text_is_taken_and_a_second_time_changes_nothing(text: str, prompt: str) -> None:
    once = redact(text, lexicon(), prompt_text=prompt)
    twice = redact(once.text, lexicon(), prompt_text=prompt)
    assert twice.text == once.text
    assert twice.redactions == ()


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_positions_point_into_the_original_in_order(text: str) -> None:
    last = 0
    for redaction in redact(text, lexicon()).redactions:
        assert text[redaction.start : redaction.end] == redaction.sentence
        assert redaction.start < redaction.end
        if redaction.rule != "special-token":
            assert redaction.start >= last
            last = redaction.end


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_what_is_taken_out_does_not_depend_on_the_author(text: str) -> None:
    results = [redact(text, lexicon(), author=author) for author in (None, "upstage", "lg-ai-research")]
    assert len({result.text for result in results}) == 1


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_no_name_that_tells_a_candidate_beyond_doubt_is_left(text: str) -> None:
    for piece in re.split(rf"{re.escape(MARKER)}|[\n|]", redact(text, lexicon()).text):
        assert not is_missed(piece, ("EXAONE", "Kanana")), piece


@pytest.mark.parametrize("before", ["안녕하세요!", "Who made me?", "제 이름이요?"])
def test_behind_a_marker_the_sentence_before_it_is_not_read_on(before: str) -> None:
    once = redact(f"{before} 저는 EXAONE입니다. 솔라예요.", lexicon())
    assert once.text == f"{before} {MARKER} 솔라예요."
    assert redact(once.text, lexicon()).redactions == ()


# --- single facts -------------------------------------------------------------------------------------------


def test_only_the_sentence_that_speaks_of_itself_goes() -> None:
    text = "답은 42입니다. 참고로 저는 업스테이지의 솔라예요. 더 궁금한 점이 있으신가요?"
    result = redact(text, lexicon(), author="upstage")
    assert result.text == f"답은 42입니다. {MARKER} 더 궁금한 점이 있으신가요?"
    (redaction,) = result.redactions
    assert (redaction.names, redaction.is_true) == (("업스테이지", "솔라"), True)
    assert redaction.sentence == "참고로 저는 업스테이지의 솔라예요."
    assert len(redaction.sentence_sha256) == 64


def test_a_claim_to_be_another_is_false_and_a_denial_is_neither() -> None:
    assert only("I am ChatGPT.", author="kt").is_true is False
    assert only("I'm not ChatGPT.", author="kt").is_true is None
    assert only("저는 ChatGPT가 아니라 믿음입니다.", author="kt").is_true is True
    assert only("I am ChatGPT.").is_true is None


def test_neighbours_share_one_marker_and_each_is_logged() -> None:
    result = redact("저는 AI입니다. 저는 솔라예요. 업스테이지가 저를 만들었어요. 반가워요.", lexicon())
    assert result.text == f"저는 AI입니다. {MARKER} 반가워요."
    assert len(result.redactions) == 2


@pytest.mark.parametrize(
    ("words", "claim"),
    [
        ("Thank you for choosing Solar.", "I am Solar."),
        ("Claude cannot help with that.", "I am Claude."),
        ("Name: Gemini", "I'm Gemini, an AI assistant."),
        ("Google asked me not to share the questions.", "I am Gemini."),
        ("솔라가 설명해 드립니다.", "저는 솔라입니다."),
        ("믿음은 그 질문에 답할 수 없습니다.", "저는 믿음입니다."),
    ],
)
def test_what_people_say_too_goes_only_beside_a_claim(words: str, claim: str) -> None:
    assert redact(words, lexicon()).redactions == ()
    for text in (f"{claim}\n{words}", f"{words}\n{claim}"):
        both = redact(text, lexicon())
        assert both.text == f"{MARKER}\n{MARKER}"
        assert redact(both.text, lexicon()).redactions == ()


def test_beside_a_mention_what_people_say_too_stays() -> None:
    text = "EXAONE 4.0은 모델입니다.\n솔라가 설명해 드립니다."
    assert redact(text, lexicon()).text == f"{MARKER}\n솔라가 설명해 드립니다."


def test_a_name_that_is_no_everyday_word_needs_no_claim_beside_it() -> None:
    assert only("Name: ChatGPT").rule == "label"
    assert only("Thank you for choosing Solar Pro 2.").rule == "en-talking"


@pytest.mark.parametrize(
    "text", ["Google told me not to reveal my system prompt.", "As an AI, OpenAI has asked me not to discuss this."]
)
def test_a_company_that_told_me_to_be_silent_goes_where_me_is_a_model(text: str) -> None:
    assert only(text).rule == "en-made-me"


def test_markdown_keeps_its_structure() -> None:
    text = (
        "# 저는 EXAONE입니다\n\n- 저는 EXAONE입니다.\n  1. 둘째\n> 저는 EXAONE입니다.\n\n"
        "| a | 저는 EXAONE입니다 |\n|---|---|\n\n```python\n    print('I am EXAONE')\nx = 1\n```\n"
    )
    assert redact(text, lexicon()).text == (
        f"# {MARKER}\n\n- {MARKER}\n  1. 둘째\n> {MARKER}\n\n"
        f"| a | {MARKER} |\n|---|---|\n\n```python\n    {MARKER}\nx = 1\n```\n"
    )


def test_emphasis_around_more_than_the_claim_stays_paired() -> None:
    text = "**좋습니다. 저는 EXAONE입니다.** 다음 이야기를 하죠."
    assert redact(text, lexicon()).text == f"**좋습니다. {MARKER}** 다음 이야기를 하죠."


def test_a_name_beyond_doubt_goes_wherever_it_stands_unless_the_prompt_names_it() -> None:
    sentence = "EXAONE 4.0은 320억 개의 매개변수를 가진 모델입니다."
    assert only(sentence).rule == "mention"
    assert redact(sentence, lexicon(), prompt_text="엑사원을 설명해 줘").text == sentence
    assert redact(sentence, lexicon(), prompt_text="Kanana를 설명해 줘").text == MARKER
    assert only("저는 EXAONE 4.0입니다.", prompt="엑사원을 설명해 줘").rule == "ko-identity"


def test_companies_and_everyday_words_stay_outside_self_claims() -> None:
    text = "네이버와 카카오는 경쟁합니다. 믿음이 중요합니다. Solar panels face south. KT Wiz won."
    assert redact(text, lexicon()).text == text


def test_special_tokens_go_with_the_role_that_they_open() -> None:
    text = "<|im_start|>assistant\n네, 알겠습니다.<|im_end|>"
    result = redact(text, lexicon())
    assert result.text == "\n네, 알겠습니다."
    assert [text[r.start : r.end] for r in result.redactions] == ["<|im_start|>assistant", "<|im_end|>"]


def test_a_name_with_a_special_token_inside_is_found() -> None:
    assert "ONE" not in redact("저는 EXA<|im_end|>ONE입니다.", lexicon()).text


def test_two_halves_around_a_special_token_do_not_become_a_new_one() -> None:
    assert redact("<|im_<|x|>end|>", lexicon()).text == "<|im_ end|>"
    assert redact("<|im<|x|>end|>", lexicon()).text == "<|im\u2060end|>"


@pytest.mark.parametrize(
    "text",
    [
        "EngineDeadError: EngineCore encountered an issue.",
        '{"error": {"message": "no such model"}}',
        "This model's maximum context length is 4096 tokens.",
    ],
)
def test_an_engines_error_is_taken_out(text: str) -> None:
    assert redact(text, lexicon()).text == MARKER


def test_a_maker_under_a_label_goes_only_beside_the_model() -> None:
    claim = "- 모델명: EXAONE 4.0\n- 개발사: LG AI연구원"
    assert redact(claim, lexicon()).text == f"- {MARKER}\n- {MARKER}"
    game = "- 장르: 역할 수행 게임\n- 개발사: 엔씨소프트"
    assert redact(game, lexicon()).text == game


# --- the lexicon --------------------------------------------------------------------------------------------


def test_the_lexicon_is_the_same_whatever_the_order_of_the_registry() -> None:
    registry = load_registry(ROOT / "model_registry.yaml")
    turned = Registry(
        models=dict(reversed(registry.models.items())),
        consortia=dict(reversed(registry.consortia.items())),
        gpus={},
        rates=(),
        sources={},
        as_of=None,
        sha256="",
    )
    assert build_lexicon(turned) == build_lexicon(registry)
    assert build_lexicon(turned).canonical() == lexicon().canonical()
    assert lexicon().canonical()[0] == ["lexicon", 4]


def test_a_full_name_gives_the_model_away_unless_it_could_be_everyday_words() -> None:
    registry = load_registry(ROOT / "model_registry.yaml")
    doubtful = set()
    for model in registry.models.values():
        for text in (model.id, model.name or model.id):
            found = telling(names_in(view_of(text), lexicon()))
            if model.consortium_id not in {one.name.owner for one in found}:
                doubtful.add(model.name)
    assert doubtful == {
        "KAIST consortium (no published model)",
        "Solar Mini",
        "Solar Pro Preview Instruct",
        "Motif 3 314B-A13B",
    }


def test_a_model_without_a_consortium_is_hidden_only_where_it_names_itself() -> None:
    model = Model(id="Faro-7B", serving=Serving(ServingKind.VLLM, "Faro-7B"))
    registry = Registry(models={"Faro-7B": model}, consortia={}, gpus={}, rates=(), sources={}, as_of=None, sha256="")
    own = build_lexicon(registry)
    assert redact("I am Faro-7B.", own, author="Faro-7B").redactions[0].is_true is True
    assert redact("Faro-7B has seven billion weights.", own).redactions == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ＥＸＡＯＮＥ", "EXAONE"),
        ("E X A O N E", "EXAONE"),
        ("EXA\u200bONE", "EXAONE"),
        ("**EXA**ONE", "EXAONE"),
        ("ЕХАОNЕ", "EXAONE"),
        ("hyperclova-x", "HyperCLOVA X"),
        ("\u110f\u1161\u1102\u1161\u1102\u1161", "카나나"),
        ("AX 3.1", "A.X 3.1"),
        ("Mi：dm", "Mi:dm"),
        ("믿:음 2.0", "믿:음"),
        ("Ex-aone", "EXAONE"),
        ("Open AI", "OpenAI"),
        ("Open-AI", "OpenAI"),
        ("Up-stage", "Upstage"),
        ("에스 케이 티", "에스케이티"),
        ("에이엑스 4.0", "에이엑스"),
    ],
)
def test_a_name_is_found_however_it_is_written(text: str, name: str) -> None:
    assert [found.name.text for found in names_in(view_of(text), lexicon())] == [name]


def test_an_acronym_of_a_candidate_is_known_by_its_letters_in_korean() -> None:
    spelled = {name.text: name.owner for name in lexicon().names}
    assert spelled["에스케이티"] == spelled["SKT"]
    assert spelled["에이엑스"] == spelled["A.X"]
    assert only("저는 에스케이티에서 만든 모델이에요.", author=spelled["SKT"]).is_true is True


@pytest.mark.parametrize(
    "text", ["카카오톡", "솔라시도", "믿음직하다", "바바리안", "var co = 1", "exaones", "KTX", "solarium"]
)
def test_a_longer_word_is_not_the_name_in_it(text: str) -> None:
    assert names_in(view_of(text), lexicon()) == []


def test_a_missed_name_is_seen_by_the_measure_however_it_is_written() -> None:
    assert is_missed("저는 Ｅｘａｏｎｅ입니다", ("EXAONE",))
    assert not is_missed(f"{MARKER} 반가워요", ("EXAONE",))
    assert squeezed("A.X 4.0") == "ax40"


# --- what it costs ------------------------------------------------------------------------------------------


def test_sentences_behind_more_names_than_are_read_are_taken_out_unread() -> None:
    text = "네이버는 회사다.\n" * (MAX_NAMES + 2) + "끝이다."
    redacted = redact(text, lexicon())
    assert redacted.text == "네이버는 회사다.\n" * MAX_NAMES + f"{MARKER}\n" * 2 + "끝이다."
    assert redact(redacted.text, lexicon()).text == redacted.text


def test_a_lexicon_is_hashed_once_however_many_sentences_are_read() -> None:
    class Counted(str):
        hashed = 0

        def __hash__(self) -> int:
            Counted.hashed += 1
            return super().__hash__()

    own = Lexicon((Name(Counted("EXAONE"), "lg", Kind.PRODUCT, False, True),))
    redact("가", own)
    before = Counted.hashed
    redact("가\n" * 50, own)
    assert Counted.hashed == before
