"""The style sheet of a round's report: light, dark, phone and paper.

Nothing is told by colour alone: series differ in shape, cells carry their number. Every text has at least the contrast
of WCAG AA on its ground; `tests/test_round_report.py` computes it from here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.markup import Css

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "ink": "#17212b",
    "soft": "#4b5865",
    "rule": "#cfd6dd",
    "band": "#f1f4f7",
    "link": "#0a5a94",
    "mark": "#0b5c94",
    "other": "#a64b00",
    "grid": "#dbe1e7",
    "middle": "#6b7782",
    "warn": "#fdf1dc",
    "warn-ink": "#5b3600",
    "warn-edge": "#c77700",
    "high2": "#0b5c94",
    "high2-ink": "#ffffff",
    "high1": "#a9d2ee",
    "high1-ink": "#0a2438",
    "even": "#f1f4f7",
    "even-ink": "#17212b",
    "low1": "#f8d3ae",
    "low1-ink": "#3d1f00",
    "low2": "#a64b00",
    "low2-ink": "#ffffff",
}
DARK: Mapping[str, str] = {
    "page": "#11161c",
    "ink": "#e8edf2",
    "soft": "#a9b5c1",
    "rule": "#36414d",
    "band": "#1a222b",
    "link": "#7cc0f2",
    "mark": "#6cb6ec",
    "other": "#f2a65a",
    "grid": "#2a343e",
    "middle": "#8a97a3",
    "warn": "#33270f",
    "warn-ink": "#ffe2ac",
    "warn-edge": "#d99a2b",
    "high2": "#6cb6ec",
    "high2-ink": "#05131f",
    "high1": "#214a68",
    "high1-ink": "#eef7fd",
    "even": "#1f2831",
    "even-ink": "#e8edf2",
    "low1": "#59391b",
    "low1-ink": "#ffeedd",
    "low2": "#f2a65a",
    "low2-ink": "#241000",
}


def style_sheet() -> Css:
    return Css(
        f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}" + _RULES
    )


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_RULES = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1040px;padding:32px 28px 56px;background:var(--page);color:var(--ink);
font:16px/1.65 system-ui,-apple-system,"Segoe UI","Apple SD Gothic Neo","Noto Sans KR","Noto Sans CJK KR",
"Malgun Gothic",sans-serif;word-break:keep-all;overflow-wrap:break-word}
.kicker{margin:0;color:var(--soft);font-size:14px}
h1{margin:2px 0 12px;font-size:28px;line-height:1.3;letter-spacing:-.01em;text-wrap:balance}
h2{margin:48px 0 6px;padding-top:14px;border-top:1px solid var(--rule);font-size:21px;line-height:1.35}
h3{margin:26px 0 6px;font-size:16px}
p{margin:6px 0;max-width:46em}
.note,.facts{color:var(--soft);font-size:14px}
.facts{overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.wide:focus-visible{outline:3px solid var(--link);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:4px 18px;margin:6px 0 0;padding:0;list-style:none;font-size:14.5px}
nav a{display:inline-block;padding:3px 0}
.said{margin:8px 0 0;padding:0;list-style:none;max-width:46em}
.said li{margin:0;padding:7px 0 7px 16px;border-left:3px solid var(--mark)}
.said li+li{margin-top:5px}
.said .caution{border-left-color:var(--warn-edge);background:var(--warn);color:var(--warn-ink);padding-right:14px}
.topic{margin:20px 0 4px;font-size:15px;color:var(--soft);font-weight:600}
figure{margin:14px 0 0}
figcaption{color:var(--soft);font-size:14px;margin-top:8px;max-width:46em}
.plot{display:grid;grid-template-columns:minmax(84px,max-content) minmax(0,1fr) max-content;align-items:center;
grid-auto-flow:row dense;column-gap:14px}
.plot>.name{grid-column:1}
.plot>.drawn{grid-column:2;align-self:stretch;position:relative;min-height:28px}
.plot>.value{grid-column:3}
.plot>.name{font-size:14.5px;line-height:1.3;padding:2px 0;font-weight:600;max-width:210px}
.plot>.name small{display:block;font-weight:400;color:var(--soft);font-size:12.5px}
.plot>.value{font-size:14px;font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
.plot>.value small{color:var(--soft);font-size:13px;margin-left:6px}
.plot svg{display:block;width:100%;overflow:visible}
.plot .row{position:absolute;inset:0;height:100%}
.plot>.cut{grid-column:1/-1;border-top:2px dashed var(--other);font-size:13px;color:var(--other);
text-align:right;line-height:1.4;padding-top:1px}
svg text{fill:var(--soft);font-size:12.5px;text-anchor:middle}
.grid{stroke:var(--grid);stroke-width:1}
.middle{stroke:var(--middle);stroke-width:1.4;stroke-dasharray:4 3}
.whisker{stroke:var(--mark);stroke-width:2.6;stroke-linecap:round}
.dot{fill:var(--mark)}
.whisker.second{stroke:var(--other);stroke-dasharray:5 4;stroke-width:2}
.dot.second{fill:var(--page);stroke:var(--other);stroke-width:2.2}
.range{fill:var(--mark)}
.key{display:flex;flex-wrap:wrap;gap:4px 22px;margin:10px 0 4px;padding:0;list-style:none;font-size:14px}
.key li{display:flex;align-items:center;gap:8px}
.key svg{flex:none}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:6px 34px}
.panels h3{margin-bottom:0}
.wide{overflow-x:auto;margin-top:10px;max-width:100%}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;line-height:1.45}
caption{text-align:left;color:var(--soft);padding:4px 0;font-size:14px}
th,td{padding:6px 10px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--rule);font-weight:600;vertical-align:bottom}
thead th.n{text-align:right}
tbody th{font-weight:600;white-space:nowrap}
.n{text-align:right;white-space:nowrap}
.gap{color:var(--soft)}
details{margin:10px 0 0}
summary{cursor:pointer;color:var(--link);font-size:14.5px;width:fit-content;padding:3px 0}
.heat td,.heat thead th{text-align:center;padding:5px 7px;min-width:62px}
.heat td{border:2px solid var(--page);border-radius:6px;font-size:14.5px}
.heat td small{display:block;font-size:12px;line-height:1.3}
.heat thead th{border-bottom:0;font-size:13px}
.heat tbody th{border-bottom:0;vertical-align:middle;position:sticky;left:0;background:var(--page)}
.high2{background:var(--high2);color:var(--high2-ink)}
.high1{background:var(--high1);color:var(--high1-ink)}
.even{background:var(--even);color:var(--even-ink)}
.low1{background:var(--low1);color:var(--low1-ink)}
.low2{background:var(--low2);color:var(--low2-ink)}
.sample{display:inline-block;min-width:54px;padding:1px 8px;border-radius:4px;text-align:center;font-size:13px}
dl{margin:8px 0 0;display:grid;grid-template-columns:minmax(0,200px) minmax(0,1fr);gap:8px 20px;max-width:58em}
dt{font-weight:600}
dd{margin:0}
code{font:13.5px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
pre{margin:8px 0;padding:12px 14px;background:var(--band);border-radius:6px;white-space:pre-wrap}
ol{margin:6px 0;padding-left:22px;max-width:46em}
@media (max-width:640px){
body{padding:20px 16px 40px}
h1{font-size:23px}
h2{font-size:19px;margin-top:38px}
.plot{grid-template-columns:minmax(0,1fr) max-content;row-gap:0;grid-auto-flow:row}
.plot>.name{grid-column:1;max-width:none;padding-top:8px}
.plot>.name small{display:inline;margin-left:6px}
.plot>.value{grid-column:2;padding-top:8px}
.plot>.drawn{grid-column:1/-1}
dl{grid-template-columns:1fr;gap:2px}
dd{margin-bottom:8px}
}
@media print{
@page{size:A4;margin:14mm 13mm}
body{max-width:none;padding:0;font-size:10.5pt;line-height:1.5}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
nav,summary{display:none}
details::details-content{content-visibility:visible;block-size:auto}
details{break-inside:auto}
h1{font-size:19pt}
h2{margin-top:20pt;font-size:14pt}
h2,h3,.topic,.key,section>.note{break-after:avoid}
p,figure,tr,.said li,.panels>div,dt{break-inside:avoid}
dd{break-before:avoid}
table{font-size:8.8pt}
th,td{padding:3pt 5pt}
.wide{overflow:visible}
.panels{grid-template-columns:1fr 1fr}
.heat td,.heat thead th{min-width:0;padding:3pt}
.plot>.name,.plot>.value{font-size:9.5pt}
.plot>.drawn{min-height:22px}
figcaption,.note,.facts{font-size:9.2pt}
}
"""
