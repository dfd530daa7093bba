"""The feasibility page: one HTML file made to be read by a jury, with nothing to fetch and nothing to run.

A matrix in, text out. The figure itself is drawn in `matrix_figure`; what the figures are is decided in
`domain.matrix`. The moment is an argument, so that the same facts give the same page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from gateway.domain.decoding import Decoding
from gateway.domain.feasibility import Estimate, Verdict
from gateway.domain.matrix import Cell, Matrix, Units
from gateway.domain.records import Gpu, Model, Registry
from gateway.markup import Element, document, element
from gateway.matrix_answer import assumed_figures, assumptions
from gateway.matrix_figure import (
    Group,
    common_units,
    cost_words,
    fact_words,
    gib,
    hatching,
    heat_map,
    sample,
    short,
    speed_words,
    unknown_words,
    verdict_words,
)
from gateway.matrix_style import style_sheet
from gateway.matrix_words import WORDS, Language, Words

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may load: nothing."""


def feasibility_page(matrix: Matrix, registry: Registry, *, language: Language, on: date) -> str:
    """The whole page in one language. Columns go from the smallest memory to the largest."""
    words = WORDS[language]
    head = (
        element("meta", {"charset": "utf-8"}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("title", {}, _title(matrix, words)),
        element("style", {}, style_sheet()),
    )
    gpus = sorted(matrix.gpus, key=lambda gpu: (gpu.memory_bytes, gpu.bandwidth_bytes_per_s))
    groups = _groups(matrix, registry, language, words)
    body = (
        hatching(),
        _header(matrix, registry, words, on),
        _legend(matrix, words),
        *_contents(matrix, words),
        element("main", {}, *_panels(matrix, gpus, groups, words), *_below(matrix, gpus, groups, words)),
    )
    return document(language, head, body)


# --- what stands above the figures --------------------------------------------------------------------------


def _header(matrix: Matrix, registry: Registry, words: Words, on: date) -> Element:
    load = matrix.load
    judged = words.load_one if load.concurrency == 1 else words.load_many
    known = sum(not _is_unknown(model, matrix) for model in matrix.models)
    total = len(matrix.models)
    as_of = registry.as_of.isoformat() if registry.as_of is not None else words.no_date
    facts = (
        words.made.format(date=on.isoformat()),
        words.registry.format(as_of=as_of, sha=f"sha256:{registry.sha256[:16]}"),
    )
    return element(
        "header",
        {},
        element("p", {"class": "kicker"}, words.kicker),
        element("h1", {}, _title(matrix, words)),
        _paragraph(
            judged.format(count=f"{load.concurrency:,}", context=f"{load.context:,}"),
            "lead",
        ),
        _paragraph(words.summary.format(known=known, total=total, unknown=total - known)),
        _paragraph(words.brief.format_map(assumed_figures(matrix, words))),
        _paragraph(" · ".join(facts), "facts"),
    )


def _title(matrix: Matrix, words: Words) -> str:
    gpus = matrix.load.gpus
    return words.title if gpus == 1 else words.title_many.format(gpus=gpus)


def _legend(matrix: Matrix, words: Words) -> Element:
    samples = (
        sample(Verdict.FITS, words.at_once.format(count=5), "+8.3 GiB"),
        sample(Verdict.FITS_QUANTISED, "INT4", "−12.0 GiB"),
        sample(Verdict.FITS_SHORT_CONTEXT, words.needs.format(tokens="6.1k"), "−0.4 GiB"),
        sample(Verdict.NO, words.gpus_least.format(count=4), "−98.2 GiB"),
        sample(Verdict.UNKNOWN, ""),
    )
    entries = zip(samples, (words.legend_of[verdict] for verdict in Verdict), strict=True)
    marked = (
        (sample(Verdict.FITS, words.at_once.format(count=1), "+0.6 GiB", is_borderline=True), words.legend_borderline),
        (sample(Verdict.FITS, words.at_once.format(count=9), "+20.1 GiB", is_low=True), words.legend_confidence),
    )
    used = {cell.units for cell in matrix}
    flags = [words.units_of[units] for units in Units if units in used and words.units_of[units]]
    if not all(model.is_servable for model in matrix.models):
        flags.append(words.legend_by_size)
    return element(
        "section",
        {"class": "legend", "aria-labelledby": "legend"},
        element("h2", {"id": "legend"}, words.legend),
        element(
            "ul", {}, *(element("li", {}, drawn, element("span", {}, said)) for drawn, said in (*entries, *marked))
        ),
        _paragraph(words.legend_room),
        *(_paragraph(flag) for flag in flags),
    )


def _contents(matrix: Matrix, words: Words) -> Iterator[Element]:
    if len(matrix.quantisations) == 1:
        return
    links = (
        element("li", {}, element("a", {"href": f"#{_anchor(name)}"}, words.quantisations[name]))
        for name in matrix.quantisations
    )
    yield element(
        "nav", {"aria-label": words.contents}, element("strong", {}, words.contents), element("ul", {}, *links)
    )


# --- the figures --------------------------------------------------------------------------------------------


def _panels(matrix: Matrix, gpus: Sequence[Gpu], groups: Sequence[Group], words: Words) -> Iterator[Element]:
    """One figure a number format. Models that are unknown in all of them are drawn in the first one only."""
    judged = [
        Group(group.name, models)
        for group in groups
        if (models := tuple(model for model in group.models if not _is_unknown(model, matrix)))
    ]
    left_out = len(matrix.models) - sum(len(group.models) for group in judged)
    for n, quantisation in enumerate(matrix.quantisations):
        shown = groups if n == 0 else judged
        common = common_units(matrix, quantisation)
        flag = words.units[common] if common is not None else ""
        yield element(
            "section",
            {"aria-labelledby": _anchor(quantisation)},
            element("h2", {"id": _anchor(quantisation)}, words.quantisations[quantisation]),
            _paragraph(words.panel_units.format(flag=flag), "note") if flag else None,
            _paragraph(words.others_unknown.format(count=left_out), "note") if n and left_out else None,
            element("figure", {}, heat_map(matrix, quantisation, gpus, shown, words)) if shown else None,
            _table(matrix, quantisation, gpus, judged, words) if judged else None,
        )


def _table(matrix: Matrix, quantisation: str, gpus: Sequence[Gpu], groups: Sequence[Group], words: Words) -> Element:
    """The same and more as a table, for screen readers and for copying."""
    names = [name for name in words.columns if name != "reason"]
    rows = (
        _table_row(matrix.cell(model, gpu, quantisation), model, gpu, words)
        for group in groups
        for model in group.models
        for gpu in gpus
    )
    caption = words.table_caption.format(format=words.quantisations[quantisation])
    table = _as_table([words.columns[name] for name in names], rows, caption=caption)
    return element("details", {}, element("summary", {}, words.table), table)


def _table_row(cell: Cell, model: Model, gpu: Gpu, words: Words) -> Element:
    found = cell.estimate
    why = unknown_words(cell.unknown, words) if cell.unknown is not None else words.unknown
    room = found.headroom_bytes
    verdict = verdict_words(cell, words)
    return element(
        "tr",
        {},
        element("th", {"scope": "row"}, model.name or model.id),
        element("td", {}, gpu.name),
        element("td", {}, verdict if model.is_servable else f"{verdict} ({words.by_size})"),
        _number(f"{gib(room.low)} / {gib(room.likely)} / {gib(room.high)}" if room is not None else None, why),
        _number(_count(found.max_context_one_request), why),
        _number(_count(found.max_context_at_concurrency), why),
        _number(_count(found.max_concurrency), why),
        _number(_least_gpus(found, words), why),
        *_speed_cells(cell, gpu, words),
        element("td", {}, words.confidence[found.confidence] if found.confidence is not None else why),
    )


def _speed_cells(cell: Cell, gpu: Gpu, words: Words) -> Iterator[Element]:
    """Speed and cost as asked and when full, or once why there is none."""
    if cell.asked is None or cell.full is None:
        yield element("td", {"class": "gap", "colspan": 4}, _no_speed(cell, words))
        return
    yield from _decoding_cells(cell.asked, gpu, words)
    yield from _decoding_cells(cell.full, gpu, words, load=f", {words.at_once.format(count=f'{cell.full.requests:,}')}")


def _decoding_cells(decoding: Decoding, gpu: Gpu, words: Words, *, load: str = "") -> Iterator[Element]:
    yield _number(f"{speed_words(decoding)}{load}", "")
    cost = decoding.cost_per_mtok
    yield _number(cost_words(cost) if cost is not None else None, words.mixed_prices if gpu.prices else words.no_price)


def _no_speed(cell: Cell, words: Words) -> str:
    if cell.unknown is not None:
        return unknown_words(cell.unknown, words)
    return (
        words.no_speed_facts.format(facts=fact_words(cell.speed_facts, words)) if cell.speed_facts else words.no_speed
    )


# --- what stands below --------------------------------------------------------------------------------------


def _below(matrix: Matrix, gpus: Sequence[Gpu], groups: Sequence[Group], words: Words) -> Iterator[Element]:
    yield element(
        "section",
        {"class": "unknowns", "aria-labelledby": "unknown"},
        element("h2", {"id": "unknown"}, words.unknown_heading),
        *_unknown_list(matrix, groups, words),
    )
    yield element(
        "section",
        {"aria-labelledby": "assumptions"},
        element("h2", {"id": "assumptions"}, words.assumptions_heading),
        element("ol", {}, *(element("li", {}, said) for said in assumptions(matrix, words))),
    )
    yield element(
        "section",
        {"aria-labelledby": "gpus"},
        element("h2", {"id": "gpus"}, words.gpus_heading),
        _as_table(list(words.gpu_columns.values()), (_gpu_row(gpu, words) for gpu in gpus)),
    )


def _unknown_list(matrix: Matrix, groups: Sequence[Group], words: Words) -> Iterator[Element]:
    """Every reason for which some cell is unknown, by consortium and model."""
    lists = [(group, [entry for model in group.models for entry in _gaps(model, matrix, words)]) for group in groups]
    if not any(entries for _, entries in lists):
        yield _paragraph(words.unknown_none)
        return
    yield _paragraph(words.unknown_lead)
    for group, entries in lists:
        if entries:
            yield element("h3", {}, group.name)
            yield element("dl", {}, *(part for name, why in entries for part in _term(name, why)))


def _term(name: str, why: str) -> tuple[Element, Element]:
    return element("dt", {}, name), element("dd", {}, why)


def _gaps(model: Model, matrix: Matrix, words: Words) -> Iterator[tuple[str, str]]:
    """The model's name and a reason; with the number formats where it holds for some only."""
    formats: dict[str, list[str]] = {}
    for quantisation in matrix.quantisations:
        for gpu in matrix.gpus:
            unknown = matrix.cell(model, gpu, quantisation).unknown
            if unknown is not None:
                found = formats.setdefault(unknown_words(unknown, words), [])
                found.extend([quantisation] if quantisation not in found else [])
    for why, names in formats.items():
        only = "" if len(names) == len(matrix.quantisations) else ", ".join(words.quantisations[n] for n in names)
        name = model.name or model.id
        yield (f"{name} ({only})" if only else name), why


def _gpu_row(gpu: Gpu, words: Words) -> Element:
    note = gpu.sourced.note
    return element(
        "tr",
        {},
        element("th", {"scope": "row"}, gpu.name),
        _number(gib(gpu.memory_bytes), ""),
        _number(f"{gpu.bandwidth_bytes_per_s / 1e12:.3g}", ""),
        _number(_teraflops(gpu.bf16_flops), words.unknown),
        _number(_teraflops(gpu.fp8_flops), words.unknown),
        _number(_hourly(gpu, words), words.mixed_prices if gpu.prices else words.no_price),
        element("td", {"lang": "en"}, f"{note or ''} ({gpu.sourced.source})".strip()),
    )


# --- small parts --------------------------------------------------------------------------------------------


def _groups(matrix: Matrix, registry: Registry, language: Language, words: Words) -> list[Group]:
    """Models by consortium in the registry's order; those with a verdict first."""
    members: dict[str | None, list[Model]] = {name: [] for name in (*registry.consortia, None)}
    for model in matrix.models:
        known = model.consortium_id if model.consortium_id in registry.consortia else None
        members[known].append(model)
    groups = []
    for consortium_id, models in members.items():
        consortium = registry.consortia.get(consortium_id or "")
        name = words.no_consortium if consortium is None else consortium.name_ko
        if consortium is not None and language != "ko" and consortium.name_en != name:
            name = f"{name} · {consortium.name_en}"
        if models:
            groups.append(Group(name, tuple(sorted(models, key=lambda model: _is_unknown(model, matrix)))))
    return groups


def _is_unknown(model: Model, matrix: Matrix) -> bool:
    """Whether nothing can be said about it on any GPU in any number format."""
    return all(
        matrix.cell(model, gpu, quantisation).unknown is not None
        for gpu in matrix.gpus
        for quantisation in matrix.quantisations
    )


def _least_gpus(found: Estimate, words: Words) -> str | None:
    if found.min_gpus is not None:
        return str(found.min_gpus)
    return words.gpus_none if found.max_concurrency is not None else None


def _as_table(heads: Sequence[str], rows: Iterable[Element], *, caption: str | None = None) -> Element:
    table = element(
        "table",
        {},
        element("caption", {}, caption) if caption else None,
        element("thead", {}, element("tr", {}, *(element("th", {"scope": "col"}, head) for head in heads))),
        element("tbody", {}, *rows),
    )
    return element("div", {"class": "wide"}, table)


def _number(text: str | None, why: str) -> Element:
    if text is None:
        return element("td", {"class": "gap"}, why)
    return element("td", {"class": "n"}, text)


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _teraflops(flops: float | None) -> str | None:
    return None if flops is None else short(flops / 1e12)


def _hourly(gpu: Gpu, words: Words) -> str | None:
    currencies = {price.currency for price in gpu.prices}
    if len(currencies) != 1:
        return None
    prices = [price.per_hour for price in gpu.prices]
    if min(prices) == max(prices):
        return f"{prices[0]} {gpu.prices[0].currency}"
    return words.per_hour.format(low=min(prices), high=max(prices), currency=gpu.prices[0].currency)


def _paragraph(text: str, name: str | None = None) -> Element:
    return element("p", {"class": name}, text)


def _anchor(quantisation: str) -> str:
    return f"format-{quantisation}"
