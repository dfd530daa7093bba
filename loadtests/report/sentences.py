"""The sentences of a report's conclusions, in Korean and in English. `conclusions` decides when each may be said.

Names stand behind a colon, in quotes or before an invariable particle, since no Korean particle fits every name.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from gateway.domain.rounds import Text


class Topic(StrEnum):
    STANDING = "standing"
    CLAIMS = "claims"
    KNEE = "knee"
    DOORS = "doors"


TOPICS: Mapping[Topic, Text] = {
    Topic.STANDING: Text("읽기 전에", "Before you read this"),
    Topic.CLAIMS: Text("주장은 사실인가", "Do the claims hold"),
    Topic.KNEE: Text("어디까지 견디는가, 비용은 얼마인가", "How much it takes, and at what cost"),
    Topic.DOORS: Text("게이트웨이가 더하는 시간", "What the gateway adds"),
}
SENTENCES: Mapping[str, Text] = {
    # --- what may be said at all ---
    "not_real": Text(
        "이 보고서의 수치는 실측이 아닙니다({provenance}). 계획을 세우고 시험하는 데에만 쓸 수 있으며, 어떤 주장도 "
        "증명하거나 "
        "반박하지 않습니다.",
        "The figures of this report are not measured on the real model ({provenance}). They serve planning and trials "
        "only, and neither prove nor refute a claim.",
    ),
    "running": Text(
        "시험이 아직 끝나지 않았습니다. 지금까지 측정한 것만 담았습니다.",
        "The run has not ended. This is what was measured so far.",
    ),
    "stopped": Text(
        "시험이 끝까지 진행되지 않고 중단되었습니다. 그때까지 측정한 것만 담았습니다.",
        "The run was stopped early. This is what had been measured by then.",
    ),
    "failed": Text(
        "시험이 오류로 끝났습니다. 그때까지 측정한 것만 담았고, 이유는 아래에 있습니다.",
        "The run failed. This is what had been measured by then; the reason stands below.",
    ),
    "no_cells": Text("측정한 셀이 없습니다.", "No cell was measured."),
    "all_valid": Text(
        "셀 {cells}개가 모두 유효성 점검을 통과했습니다.",
        "All {cells} cells passed the checks of validity.",
    ),
    "one_valid": Text("하나뿐인 셀이 유효성 점검을 통과했습니다.", "The only cell passed the checks of validity."),
    "some_invalid": Text(
        "셀 {cells}개 가운데 {invalid}개는 무효입니다. 무효인 셀의 수치는 보여 주지 않으며 어떤 결론에도 쓰지 "
        "않습니다.",
        "Of {cells} cells {invalid} are invalid. No figure of an invalid cell is shown, and no conclusion rests on "
        "one.",
    ),
    "one_invalid": Text(
        "셀 {cells}개 가운데 하나는 무효입니다. 무효인 셀의 수치는 보여 주지 않으며 어떤 결론에도 쓰지 않습니다.",
        "Of {cells} cells one is invalid. None of its figures is shown, and no conclusion rests on it.",
    ),
    "invalid_cell": Text("무효인 셀: {cell}. 까닭: {why}", "Invalid cell: {cell}. Why: {why}"),
    "more_invalid": Text(
        "그 밖에 무효인 셀이 {n}개 더 있습니다. 아래 ‘유효성’에 모두 적었습니다.",
        "{n} more cells are invalid. “Validity” below names them all.",
    ),
    "different_work": Text(
        "후보들의 작업 부하가 서로 다릅니다. 같은 조건이 아니므로 후보를 서로 비교하지 않습니다.",
        "The candidates met different workloads. They are not compared with each other, because conditions differ.",
    ),
    "different_objectives": Text(
        "후보마다 목표가 다릅니다. 최대 부하를 서로 비교하지 않습니다.",
        "The candidates had different objectives. Their highest loads are not compared with each other.",
    ),
    "note": Text("덧붙임: {text}", "Note: {text}"),
    # --- claims ---
    "no_claims": Text("이 시험이 답하는 주장이 없습니다.", "This run answers no claim."),
    "claim": Text("{who}{verdict}: “{text}”{margin}", "{who}{verdict}: “{text}”{margin}"),
    "claim_invalid": Text(
        "{who}판정하지 않음: “{text}” — 근거가 된 셀이 모두 무효입니다.",
        "{who}no verdict: “{text}” — all cells that it rests on are invalid.",
    ),
    "margin_above": Text(
        " — 가장 불리한 반복에서도 주장한 값까지 {share}의 여유가 있습니다.",
        " — met with {share} to spare, at the worst repeat.",
    ),
    "margin_below": Text(
        " — 가장 불리한 반복은 주장한 값에서 {share} 벗어났습니다.",
        " — missed by {share} of the claimed value, at the worst repeat.",
    ),
    "margin_none": Text(" — 주장한 값과 같습니다.", " — exactly as claimed."),
    "margin_sum_above": Text(" — 주장한 값까지 {share}의 여유가 있습니다.", " — with {share} to spare."),
    "margin_sum_below": Text(" — 가능한 값이 주장한 값에서 {share} 벗어납니다.", " — by {share} of the claimed value."),
    # --- knees ---
    "no_search": Text(
        "목표를 충족하는 최대 부하는 찾지 않았습니다.",
        "The highest load that meets the objectives was not searched for.",
    ),
    "found": Text(
        "모든 목표를 충족한 최대 부하: {highest}. 충족하지 못한 가장 낮은 부하: {lowest}.",
        "Highest load that met every objective: {highest}. Lowest load that did not: {lowest}.",
    ),
    "at_most": Text(
        "계획의 상한인 {highest}까지 모든 목표를 충족했습니다. 한계는 그보다 높을 수 있습니다.",
        "Every objective was met up to the plan's limit, {highest}. The knee may lie higher.",
    ),
    "below_begin": Text(
        "시도한 가장 낮은 부하({lowest})에서도 목표를 충족하지 못했습니다.",
        "Even the least load that was tried ({lowest}) did not meet the objectives.",
    ),
    "below_begin_unsaid": Text(
        "시도한 가장 낮은 부하에서도 목표를 충족하지 못했습니다.",
        "Even the least load that was tried did not meet the objectives.",
    ),
    "invalid": Text(
        "무효인 셀이 있어 최대 부하를 정하지 못했습니다.",
        "The highest load cannot be told, because a cell is invalid.",
    ),
    "stopped_search": Text(
        "최대 부하를 찾다가 중단되었습니다.",
        "The search for the highest load was stopped.",
    ),
    "cost": Text(
        "그 부하에서 출력 100만 토큰당 비용: {cost} {currency}(반복 {n}회의 중앙값, {low}~{high}).",
        "Cost of a million output tokens at that load: {cost} {currency} (middle of {n} repeats, {low} to {high}).",
    ),
    "cost_once": Text(
        "그 부하에서 출력 100만 토큰당 비용: {cost} {currency}(반복 1회).",
        "Cost of a million output tokens at that load: {cost} {currency} (one repeat).",
    ),
    "no_cost": Text(
        "그 부하에서의 비용은 알 수 없습니다. GPU 가격이나 출력 토큰 수를 알 수 없습니다.",
        "The cost at that load is not known: the GPU's price, or the number of output tokens, is unknown.",
    ),
    "beyond": Text(
        "‘{first}’의 최대 부하는 ‘{second}’의 최대 부하보다 높습니다. 두 범위가 겹치지 않습니다.",
        "{first} takes more load than {second}: their ranges do not overlap.",
    ),
    "not_beyond": Text(
        "‘{first}’의 최대 부하와 ‘{second}’의 최대 부하는 범위가 겹쳐 어느 쪽이 높은지 말할 수 없습니다.",
        "Whether {first} or {second} takes more load cannot be said: their ranges overlap.",
    ),
    # --- doors ---
    "adds": Text(
        "p50에 더해지는 시간(셀 {cell}, 짝 {pairs}개, 대괄호는 95% 구간): {figures}.",
        "Added to the p50 (cell {cell}, {pairs} pairs, 95% intervals in brackets): {figures}.",
    ),
    "adds_bounded": Text("{metric} {added} [{low}, {high}]", "{metric} {added} [{low}, {high}]"),
    "adds_nothing": Text(
        "{metric} {added} [{low}, {high}](0과 구별되지 않음)",
        "{metric} {added} [{low}, {high}] (not distinguishable from 0)",
    ),
    "adds_plain": Text("{metric} {added}(구간을 구할 수 없음)", "{metric} {added} (no interval)"),
}
