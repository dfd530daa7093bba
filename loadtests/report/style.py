"""The style sheet of a load report: that of a round's report, and what its drawings need besides.

Series differ in colour, shape and dashes, verdicts and validity in a sign and a word, so that nothing is told by colour
alone. Marks and lines have at least three times the contrast of the page, as WCAG asks of graphics.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.markup import Css
from gateway.rounds.report.style import style_sheet as base_sheet

LIGHT: Mapping[str, str] = {
    "s0": "#0b5c94",
    "s1": "#a64b00",
    "s2": "#1d7a3f",
    "s3": "#8a2e8f",
    "s4": "#6b5a00",
    "s5": "#b3223a",
    "limit": "#9a2015",
    "good": "#14652f",
    "bad": "#9a2015",
}
DARK: Mapping[str, str] = {
    "s0": "#6cb6ec",
    "s1": "#f2a65a",
    "s2": "#6fce8f",
    "s3": "#dd9be2",
    "s4": "#d8c34a",
    "s5": "#ff8fa1",
    "limit": "#ff9d92",
    "good": "#7ed79b",
    "bad": "#ff9d92",
}


def style_sheet() -> Css:
    return Css(
        base_sheet().text
        + f":root{{{_variables(LIGHT)}}}@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
        + "".join(_series(number, dashes) for number, dashes in enumerate(_DASHES))
        + _RULES
    )


_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "4 2", "1 4")


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def _series(number: int, dashes: str) -> str:
    colour = f"var(--s{number})"
    return (
        f".line.s{number}{{stroke:{colour};stroke-dasharray:{dashes}}}.bar.s{number}{{stroke:{colour}}}"
        f".mark.s{number}{{fill:{colour};stroke:{colour}}}"
    )


_RULES = """
header .said{margin-top:12px}
.chart{margin:4px 0 14px;min-width:0}
.chart .around{padding:10px 14px 24px 58px}
.chart .around.bare{padding-bottom:4px}
.field{display:block;width:100%;overflow:visible}
.field .stretched{x:0;y:0;width:100%;height:100%;overflow:hidden}
.dots{padding:0 16px}
.at{overflow:visible;width:1px;height:1px}
.key .at{x:50%;y:50%}
.line{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.line.faint{stroke-width:1;opacity:.55}
.lanes .line{stroke-dasharray:none;stroke-linecap:round}
.lanes .chart{margin-bottom:2px}
.bar{stroke-width:1.6;stroke-opacity:.75}
.mark{stroke-width:1.6}
.mark.hollow{fill:var(--page)}
.limit{stroke:var(--limit);stroke-width:1.5;stroke-dasharray:6 4}
.limit.up{stroke-dasharray:2 3}
.field text{font-size:12px;text-anchor:middle;fill:var(--soft)}
.field .y-tick{text-anchor:end}
.field .limit-name{text-anchor:end;fill:var(--limit);paint-order:stroke;stroke:var(--page);stroke-width:4px;
stroke-linejoin:round}
.field .limit-name.right{text-anchor:start}
.y-name,.x-name{font-size:13px;color:var(--soft)}
.x-name{text-align:center;padding-left:58px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:4px 30px}
.pair>*{min-width:0}
.pair h4,h4{margin:14px 0 2px;font-size:14.5px}
.good{color:var(--good);font-weight:600;white-space:nowrap}
.bad{color:var(--bad);font-weight:600}
td.invalid{color:var(--bad)}
.numbers td,.numbers th{white-space:nowrap}
.numbers .text,.numbers .invalid{white-space:normal;min-width:13em;overflow-wrap:anywhere}
.numbers .several{min-width:24em}
.numbers thead th{white-space:normal;min-width:3.5em}
.below{display:block;font-weight:400;color:var(--soft)}
header .facts{max-width:none;overflow-wrap:break-word}
sup{font-size:.75em;line-height:0;margin-left:1px}
.whys{margin:6px 0 0;padding:0;list-style:none;color:var(--soft);font-size:13px}
.whys sup{margin-right:4px}
td small{color:var(--soft);font-size:12.5px;white-space:nowrap}
dd,dd code,.formula{overflow-wrap:anywhere}
.stands{font-weight:400;font-size:.72em;color:var(--soft)}
.formula{display:block;margin-bottom:2px}
.off-screen{display:none}
pre code{white-space:pre-wrap}
tbody td ul{margin:0;padding-left:16px}
@media (max-width:640px){
.chart .around{padding-left:46px}
.x-name{padding-left:46px}
}
@media print{
.chart,.pair>*,.one{break-inside:avoid}
.pair{grid-template-columns:1fr 1fr;gap:2px 18px}
.field text{font-size:8pt}
.screen-only{display:none}
.off-screen{display:block}
h3,h4,.y-name{break-after:avoid}
.numbers td,.numbers th{white-space:normal;overflow-wrap:anywhere}
.numbers thead th{min-width:0}
.numbers .text,.numbers .invalid{min-width:9em}
.numbers .several{min-width:18em}
.numbers .n{overflow-wrap:normal}
.numbers .n small{display:block;white-space:normal}
.numbers table,.numbers small{font-size:7.4pt}
}
"""
