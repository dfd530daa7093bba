"""The feasibility page: one HTML file made to be read by a jury, with nothing to fetch and nothing to run.

A matrix in, text out. The figure itself is drawn in `matrix_figure`, its table in `matrix_tables`; what the figures are
is decided in `domain.matrix`. The moment is an argument, so that the same facts give the same page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from gateway.domain.feasibility import Verdict
from gateway.domain.matrix import Matrix, Units
from gateway.domain.records import Gpu, Model, Registry
from gateway.markup import Element, document, element
from gateway.matrix_answer import assumed_figures, assumptions
from gateway.matrix_cell_words import at_most, at_once, unknown_words
from gateway.matrix_figure import Group, common_units, hatching, heat_map, sample
from gateway.matrix_style import style_sheet
from gateway.matrix_tables import figure_table, gpu_table
from gateway.matrix_words import WORDS
from gateway.matrix_words.fields import Language, Words

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
        sample(Verdict.FITS, at_once(5), "+8.3 GiB"),
        sample(Verdict.FITS_QUANTISED, "INT4", "−12.0 GiB"),
        sample(Verdict.FITS_SHORT_CONTEXT, at_most(6_100), "−0.4 GiB"),
        sample(Verdict.NO, words.gpus_least.format(count=4), "−98.2 GiB"),
        sample(Verdict.UNKNOWN, ""),
    )
    entries = zip(samples, (words.legend_of[verdict] for verdict in Verdict), strict=True)
    marked = (
        (sample(Verdict.FITS, at_once(1), "+0.6 GiB", is_borderline=True), words.legend_borderline),
        (sample(Verdict.FITS, at_once(9), "+20.1 GiB", is_low=True), words.legend_confidence),
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
            figure_table(matrix, quantisation, gpus, judged, words) if judged else None,
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
        gpu_table(gpus, words),
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


def _paragraph(text: str, name: str | None = None) -> Element:
    return element("p", {"class": name}, text)


def _anchor(quantisation: str) -> str:
    return f"format-{quantisation}"
