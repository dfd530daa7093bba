"""What a round's result says, in sentences made from its numbers alone: no sentence claims more than an interval bears.

When a sentence may be said is decided here; its words are in `conclusion_words`. "Ahead" is said of two candidates
only where their simultaneous interval leaves out zero, and where there are no intervals nothing of the kind is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

from gateway.domain.rounds import Text
from gateway.rounds.conclusion_words import (
    FAILED,
    FEATURES,
    LINE_MOVED,
    LINE_NONE,
    LINE_SAME,
    PRIMARY,
    PROVENANCE,
    RANK,
    SENTENCES,
    SIGNED,
    SIGNS,
    TITLE,
    TITLE_NOT_REAL,
    Language,
)
from gateway.rounds.figure_words import MINUS, counted, number_words, percent, rank_words, share_words

Json = Mapping[str, Any]
HIGH_ALPHA, FAIR_ALPHA = 0.8, 0.667
"""Krippendorff's own bounds: good, and for tentative conclusions (Content Analysis, 4th ed. 2018, section 12.4)."""
CHANCE = 0.5


class Topic(StrEnum):
    """What a sentence is about; the order in which they are told."""

    STANDING = "standing"
    CANDIDATES = "candidates"
    LINE = "line"
    ACCEPTABILITY = "acceptability"
    STYLE = "style"
    POSITION = "position"
    AGREEMENT = "agreement"
    BLINDING = "blinding"
    READINGS = "readings"
    PROCEDURE = "procedure"


@dataclass(frozen=True, slots=True)
class Conclusion:
    key: str
    """Of `SENTENCES`."""
    topic: Topic
    text: str
    is_caution: bool = False


def conclusions(result: Json, *, language: Language) -> tuple[Conclusion, ...]:
    """Everything that is said of a result, as `results.result_object` makes it, in the order of topics."""
    return tuple(_Speaker(result, language).sentences())


def result_title(result: Json, *, language: Language) -> str:
    """What a result is called. One that does not rest on real answers says so here already."""
    analysis, own = result["analysis"], _in(Text(**result["round"]["title"]), language)
    kind = _in(TITLE, language)
    if not analysis["is_ranking"]:
        kind = _in(TITLE_NOT_REAL, language).format(provenance=provenance_words(analysis, language))
    return f"{own} · {kind}"


def provenance_words(analysis: Json, language: Language) -> str:
    """What the answers are, where they are not all real: every kind that is not."""
    kinds = sorted(set(analysis["plan"]["provenance"].values()))
    shown = [kind for kind in kinds if kind != "real"] or kinds
    return ", ".join(_in(PROVENANCE[kind], language) for kind in shown)


def label_of(result: Json, code: str) -> str:
    """A model's name once it is known, its code before."""
    named = (result["names"] or {}).get(code)
    return code if named is None else named["name"] or named["model"]


def primary_estimate(analysis: Json) -> Json:
    """The estimate that the plan named as the result, before anybody voted."""
    found: Json = analysis["overall"] if analysis["plan"]["primary"] == "raw" else analysis["style_controlled"]
    return found


def primary_pairs(analysis: Json) -> Sequence[Json]:
    """Its pairs of models; empty where it is not comparable."""
    is_raw = analysis["plan"]["primary"] == "raw"
    found: Sequence[Json] = analysis["pairs"] if is_raw else analysis["style_controlled"].get("pairs", [])
    return found if primary_estimate(analysis)["is_comparable"] else []


def model_order(analysis: Json) -> list[str]:
    """Codes in the order of the result's strengths; in that of codes where there are none."""
    return [one["model"] for one in primary_estimate(analysis).get("models", ())] or list(
        analysis["plan"]["provenance"]
    )


def _in(text: Text, language: Language) -> str:
    return text.ko if language == "ko" else text.en


class _Speaker:
    """Says one result in one language."""

    def __init__(self, result: Json, language: Language) -> None:
        self._result = result
        self._analysis: Json = result["analysis"]
        self._language: Language = language

    def sentences(self) -> Iterator[Conclusion]:
        yield from self._standing()
        yield from self._candidates()
        yield from self._line()
        yield from self._acceptability()
        yield from self._style()
        yield from self._position()
        yield from self._agreement()
        yield from self._blinding()
        yield from self._readings()
        yield from self._procedure()

    # --- small parts ----------------------------------------------------------------------------------------

    def _say(self, key: str, topic: Topic, *, is_caution: bool = False, **values: object) -> Conclusion:
        return Conclusion(key, topic, _in(SENTENCES[key], self._language).format(**values), is_caution)

    def _count(self, n: int, noun: str) -> str:
        return counted(n, noun, self._language)

    def _names(self, codes: Sequence[str]) -> str:
        return ", ".join(label_of(self._result, code) for code in codes)

    @property
    def _confidence(self) -> str:
        return percent(self._analysis["plan"]["confidence"])

    def _span(self, interval: Sequence[float], *, is_share: bool = False) -> str:
        low, high = (percent(end) if is_share else number_words(end) for end in interval)
        return f"{low}–{high}" if MINUS not in low + high else f"{low} ~ {high}"

    # --- the result itself ----------------------------------------------------------------------------------

    def _standing(self) -> Iterator[Conclusion]:
        topic, found = Topic.STANDING, primary_estimate(self._analysis)
        if not self._analysis["is_ranking"]:
            words = provenance_words(self._analysis, self._language)
            yield self._say("not_real", topic, is_caution=True, provenance=words)
        if not found["is_comparable"]:
            key = found["reason"] if found["reason"] in ("no_votes", "not_connected") else "not_comparable"
            groups = " / ".join(self._names(group) for group in found["components"])
            yield self._say(key, topic, is_caution=True, groups=groups)
            return
        if found["degrees"] is None:
            yield self._say("no_intervals", topic, is_caution=True)
        # `cautions` come from the intervals; where there are none the counts say it themselves
        few = {"few_reviewers": (found["reviewers"], 30), "few_prompts": (found["prompts"], 100)}
        for key, (n, fewest) in few.items():
            if n < fewest:
                yield self._say(key, topic, is_caution=True, n=n)
        if "clipped" in found["cautions"]:
            yield self._say("clipped", topic, is_caution=True)

    def _candidates(self) -> Iterator[Conclusion]:
        topic, found = Topic.CANDIDATES, primary_estimate(self._analysis)
        if not found["is_comparable"] or found["degrees"] is None:
            return
        yield self._apart(primary_pairs(self._analysis))
        models = found["models"]
        may_be_first = [one["model"] for one in models if one["best_rank"] == 1]
        if models[0]["worst_rank"] == 1:
            yield self._say("first", topic, model=self._names(may_be_first))
        elif 1 < len(may_be_first) < len(models):
            yield self._say("may_be_first", topic, models=self._names(may_be_first))
        for one in models:
            others = self._surely_below(one["model"])
            if others:
                yield self._say("ahead", topic, model=self._names([one["model"]]), others=self._names(others))
        for group in found["not_distinguishable"]:
            if 1 < len(group) < len(models):
                yield self._say("group", topic, models=self._names(group))
        ranges = ", ".join(self._rank(one) for one in models)
        yield self._say("ranks", topic, ranges=ranges)

    def _apart(self, pairs: Sequence[Json]) -> Conclusion:
        apart = sum(bool(pair["is_distinguishable"]) for pair in pairs)
        key = (
            "none_distinguished" if apart == 0 else "all_distinguished" if apart == len(pairs) else "some_distinguished"
        )
        return self._say(
            key,
            Topic.CANDIDATES,
            pairs=self._count(len(pairs), "pairs"),
            apart=self._count(apart, "pairs") if self._language == "ko" else apart,
            together=self._count(len(pairs) - apart, "pairs") if self._language == "ko" else len(pairs) - apart,
            confidence=self._confidence,
        )

    def _surely_below(self, model: str) -> list[str]:
        """Those that this model is ahead of: their pair's whole simultaneous interval lies on its side of zero."""
        return [
            pair["second"]
            for pair in primary_pairs(self._analysis)
            if pair["first"] == model and pair["is_distinguishable"] and pair["simultaneous_interval"][0] > 0
        ]

    def _rank(self, one: Json) -> str:
        rank = rank_words(one["best_rank"], one["worst_rank"])
        return _in(RANK, self._language).format(model=self._names([one["model"]]), rank=rank)

    # --- the cut line ---------------------------------------------------------------------------------------

    def _line(self) -> Iterator[Conclusion]:
        found = primary_estimate(self._analysis)
        line = found.get("line")
        if line is not None:
            open_pairs = sum(not pair["is_separated"] for pair in line["pairs"])
            yield self._say(
                "line_clear" if line["is_clear"] else "line_unclear",
                Topic.LINE,
                is_caution=not line["is_clear"],
                keep=line["keep"],
                above=self._names(line["above"]),
                pairs=self._count(len(line["pairs"]), "pairs"),
                together=self._count(open_pairs, "pairs") if self._language == "ko" else open_pairs,
                contested=self._names([one["model"] for one in found["models"] if one["model"] in line["contested"]]),
            )
        if found is self._analysis["overall"]:
            yield from self._fragility()

    def _fragility(self) -> Iterator[Conclusion]:
        found = self._analysis["fragility"]
        if found is None or found["reason"] == "no_cut_line":
            return
        if found["reason"] == "line_holds":
            yield self._say("line_holds", Topic.LINE)
        everybody = {"votes": found["n"], "reviewers": self._analysis["overall"].get("reviewers", 0)}
        for noun, n in everybody.items():
            removal = found[noun]
            if removal is not None:
                yield self._say(
                    f"fragile_{noun}",
                    Topic.LINE,
                    n=self._count(n, noun),
                    removed=self._removed(removal["at_most"], noun),
                    share=share_words(removal["share"]),
                    left=self._names([removal["left"]]),
                    entered=self._names([removal["entered"]]),
                )

    def _removed(self, n: int, noun: str) -> str:
        """Behind what they are taken of, which names them already."""
        return self._count(n, "votes" if noun == "votes" and self._language == "ko" else "people")

    # --- beside it ------------------------------------------------------------------------------------------

    def _acceptability(self) -> Iterator[Conclusion]:
        topic, found = Topic.ACCEPTABILITY, self._analysis["acceptability"]
        if not found["is_comparable"]:
            key = "no_both_bad" if found["reason"] == "no_both_bad" else "acceptability_unknown"
            yield self._say(key, topic)
            return
        keys = {"acceptable": "acceptable", "not_acceptable": "not_acceptable", "unclear": "acceptable_unclear"}
        for line, key in keys.items():
            models = [one["model"] for one in found["models"] if (one["line"] or "unclear") == line]
            if models:
                yield self._say(key, topic, models=self._names(models), confidence=self._confidence)

    def _style(self) -> Iterator[Conclusion]:
        topic, raw, found = Topic.STYLE, self._analysis["overall"], self._analysis["style_controlled"]
        if not found["is_comparable"]:
            key = "style_not_recorded" if found["reason"] == "not_recorded" else "style_unknown"
            yield self._say(key, topic)
            return
        if raw["is_comparable"]:
            turned, moved = style_shift(raw, found)
            yield self._say(
                "style_turned",
                topic,
                pairs=self._count(len(self._analysis["pairs"]), "pairs"),
                turned=self._count(turned, "pairs") if self._language == "ko" else turned,
                points=f"{100 * moved:.1f}",
                primary=_in(PRIMARY[self._analysis["plan"]["primary"]], self._language),
            )
        spans = {name: effect["interval"] for name, effect in found["effects"].items() if effect["interval"]}
        more = [name for name, (low, _) in spans.items() if low > 0]
        less = [name for name, (_, high) in spans.items() if high < 0]
        for key, names in (("style_more", more), ("style_less", less)):
            if names:
                words = ", ".join(_in(FEATURES.get(name, Text(name, name)), self._language) for name in names)
                yield self._say(key, topic, features=words, confidence=self._confidence)
        if spans and not more and not less:
            yield self._say("style_none", topic)

    def _position(self) -> Iterator[Conclusion]:
        found = self._analysis["position"]
        span = found.get("share_interval")
        if span is None:
            return
        is_found = not span[0] <= CHANCE <= span[1]
        is_first = found["share_for_a"] >= CHANCE or not is_found
        low, high = span if is_first else (1 - span[1], 1 - span[0])
        yield self._say(
            "position_found" if is_found else "position_not_found",
            Topic.POSITION,
            is_caution=is_found,
            side="A" if is_first else "B",
            share=percent(found["share_for_a"] if is_first else 1 - found["share_for_a"], 1),
            confidence=self._confidence,
            interval=f"{percent(low, 1)}–{percent(high, 1)}",
        )

    def _agreement(self) -> Iterator[Conclusion]:
        topic, found = Topic.AGREEMENT, self._analysis["agreement"]
        alpha = found["alpha"]
        if alpha["value"] is None:
            yield self._say("agreement_unknown", topic)
        elif alpha["interval"] is None:
            yield self._say("agreement_point", topic, value=number_words(alpha["value"]))
        else:
            key = f"agreement_{rate_alpha(*alpha['interval'])}"
            yield self._say(key, topic, value=number_words(alpha["value"]), interval=self._span(alpha["interval"]))
        for key, figure, noun in (
            ("consistent", found["consistent"], "repeats"),
            ("attention", self._analysis["attention"], "items"),
        ):
            yield from self._share(key, topic, figure, noun)

    def _share(self, key: str, topic: Topic, figure: Json, noun: str) -> Iterator[Conclusion]:
        if figure["value"] is not None and figure["interval"] is not None:
            yield self._say(
                key,
                topic,
                share=share_words(figure["value"]),
                n=self._count(figure["n"], noun),
                interval=self._span(figure["interval"], is_share=True),
            )

    def _blinding(self) -> Iterator[Conclusion]:
        topic, found = Topic.BLINDING, self._analysis["blinding"]
        james = found["james"]
        if james["interval"] is None:
            yield self._say("blinding_unknown" if self._analysis["is_opened"] else "blinding_after_reveal", topic)
        else:
            low, high = james["interval"]
            state = "broken" if high < CHANCE else "held" if low > CHANCE else "unclear"
            words = {"value": number_words(james["value"]), "interval": self._span(james["interval"])}
            yield self._say(f"blinding_{state}", topic, is_caution=state == "broken", **words)
        bang = {code: found["bang"][code]["interval"] for code in model_order(self._analysis)}
        known = [code for code, interval in bang.items() if interval is not None and interval[0] > 0]
        if known:
            yield self._say(
                "recognised_models", topic, is_caution=True, models=self._names(known), confidence=self._confidence
            )
        yield from self._share("recognised", topic, found["recognised"], "votes")

    def _readings(self) -> Iterator[Conclusion]:
        for one in self._analysis["sensitivity"]:
            left_out, moved = self._count(one["left_out"], "votes"), one["moved"]
            if moved is None:
                yield self._say("variation_unknown", Topic.READINGS, left_out=left_out)
                continue
            turned = self._count(moved["turned_pairs"], "pairs" if self._language == "ko" else "people")
            line = self._moved_line(moved)
            yield self._say(one["variation"], Topic.READINGS, left_out=left_out, turned=turned, line=line)
        if self._analysis["criteria"]:
            yield self._say("criteria", Topic.READINGS)
        if self._analysis["industries"]:
            yield self._say("industries", Topic.READINGS)

    def _moved_line(self, moved: Json) -> str:
        if self._analysis["plan"]["keep"] is None:
            return _in(LINE_NONE, self._language)
        if not moved["left"]:
            return _in(LINE_SAME, self._language)
        left, entered = self._names(moved["left"]), self._names(moved["entered"])
        return _in(LINE_MOVED, self._language).format(left=left, entered=entered)

    def _procedure(self) -> Iterator[Conclusion]:
        order = model_order(self._analysis)
        failed = [
            _in(FAILED, self._language).format(
                model=self._names([one["model"]]), asked=self._count(one["asked"], "prompts"), failed=one["failed"]
            )
            for one in sorted(self._analysis["reliability"], key=lambda one: order.index(one["model"]))
            if one["failed"]
        ]
        if failed:
            yield self._say("failures", Topic.PROCEDURE, models=", ".join(failed))
        signs = Counter(flag["sign"] for flag in self._analysis["anomalies"])
        if signs:
            words = ", ".join(self._sign(sign, n) for sign, n in sorted(signs.items()))
            yield self._say("anomalies", Topic.PROCEDURE, signs=words)
        late = self._analysis["reviewers"]["voted_not_submitted"]
        if late:
            yield self._say("not_submitted", Topic.PROCEDURE, reviewers=self._count(late, "reviewers"))

    def _sign(self, sign: str, n: int) -> str:
        reviewers = self._count(n, "reviewers")
        return _in(SIGNED, self._language).format(sign=_in(SIGNS[sign], self._language), reviewers=reviewers)


def rate_alpha(low: float, high: float) -> str:
    """What Krippendorff's α may be called, by the whole of its interval: high, fair, low, or unclear."""
    if low >= HIGH_ALPHA:
        return "high"
    if low >= FAIR_ALPHA:
        return "fair"
    return "low" if high < FAIR_ALPHA else "unclear"


def style_shift(raw: Json, controlled: Json) -> tuple[int, float]:
    """Pairs of models in another order, and the most by which an expected win rate differs."""
    before = {one["model"]: one for one in raw["models"]}
    after = {one["model"]: one for one in controlled["models"]}
    turned = sum(
        (before[a]["strength"] - before[b]["strength"]) * (after[a]["strength"] - after[b]["strength"]) < 0
        for a, b in combinations(before, 2)
    )
    return turned, max(abs(before[code]["win_rate"] - after[code]["win_rate"]) for code in before)
