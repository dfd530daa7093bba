"""The style sheet of the feasibility page: light, dark, phone and paper.

From "fits" to "no" the cells go from dark to light, so that the order survives a print in grey; hue and sign come on
top. Every text has at least the contrast of WCAG AA on its ground; `tests/test_matrix_page.py` computes it from here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.markup import Css

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "ink": "#17212b",
    "soft": "#4b5865",
    "rule": "#c9d1d9",
    "band": "#e9eef3",
    "link": "#0a5a94",
    "fits": "#155a8a",
    "fits-ink": "#ffffff",
    "quantised": "#93c6e6",
    "quantised-ink": "#0b2135",
    "short": "#f7e3a1",
    "short-ink": "#3b2c00",
    "no": "#fdf3ef",
    "no-ink": "#8f2a12",
    "no-edge": "#c9593c",
    "hatch": "#f4f6f8",
    "hatch-line": "#c3ccd4",
}
DARK: Mapping[str, str] = {
    "page": "#11161c",
    "ink": "#e8edf2",
    "soft": "#a9b5c1",
    "rule": "#36414d",
    "band": "#1f2831",
    "link": "#7cc0f2",
    "fits": "#6cb6ec",
    "fits-ink": "#05131f",
    "quantised": "#27597c",
    "quantised-ink": "#f0f7fd",
    "short": "#54471a",
    "short-ink": "#ffeeb8",
    "no": "#21181a",
    "no-ink": "#ffb59f",
    "no-edge": "#a8543d",
    "hatch": "#171d24",
    "hatch-line": "#3a4651",
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
body{margin:0 auto;max-width:1420px;padding:28px 24px 48px;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI","Apple SD Gothic Neo","Noto Sans KR","Noto Sans CJK KR",
"Malgun Gothic",sans-serif;
word-break:keep-all;overflow-wrap:anywhere}
.kicker{margin:0;color:var(--soft);font-size:13px}
h1{margin:2px 0 10px;font-size:28px;line-height:1.25;letter-spacing:-.01em}
h2{margin:40px 0 8px;font-size:20px;line-height:1.3}
h3{margin:20px 0 4px;font-size:15px}
p{margin:6px 0;max-width:100ch}
.lead{font-size:17px}
.facts,.note{color:var(--soft);font-size:13px}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:6px 18px;margin:4px 0 0;padding:0;list-style:none}
nav{margin-top:20px}
nav strong{font-size:13px;color:var(--soft)}
.legend{margin:20px 0 0;padding:14px 16px;border:1px solid var(--rule);border-radius:8px}
.legend h2{margin:0 0 10px;font-size:15px}
.legend ul{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:10px 24px;
margin:0;padding:0;list-style:none}
.legend li{display:flex;gap:12px;align-items:center;font-size:13.5px;line-height:1.45}
.sample{flex:none}
.legend p{margin:12px 0 0;font-size:13.5px;max-width:none}
.definitions{position:absolute}
figure{margin:10px 0 0}
.scroll{display:flex;width:fit-content;max-width:100%;overflow-x:auto;border:1px solid var(--rule);border-radius:8px;
background:var(--page)}
.scroll svg{flex:none;display:block}
.heads{position:sticky;left:0;z-index:1;background:var(--page);border-right:1px solid var(--rule)}
svg text{fill:var(--ink);font-size:12.5px}
.band{fill:var(--band)}
svg .group{font-weight:700}
svg .band-gpu{fill:var(--soft);font-size:10.5px;text-anchor:middle}
svg .dim{fill:var(--soft);font-size:11.5px}
svg .gpu{font-size:11.5px;font-weight:600;text-anchor:middle}
svg .small,svg .flag{fill:var(--soft);font-size:11px;text-anchor:middle}
svg .flag,svg .by-size{font-style:italic}
svg .by-size{fill:var(--soft);font-size:11px}
svg .main{font-weight:700;font-size:13px}
svg .tight{font-size:11px}
svg .second{font-size:11px}
svg .sign{font-weight:800;font-size:13px}
.mark{fill:none;stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}
.box{stroke:none}
.edge{fill:none;stroke-width:1.4;stroke-dasharray:4 3}
.ring{fill:none;stroke-width:1.3}
.box.fits{fill:var(--fits)}svg text.fits{fill:var(--fits-ink)}.mark.fits,.edge.fits,.ring.fits{stroke:var(--fits-ink)}
.box.fits_quantised{fill:var(--quantised)}svg text.fits_quantised{fill:var(--quantised-ink)}
.edge.fits_quantised,.ring.fits_quantised{stroke:var(--quantised-ink)}
.box.fits_short_context{fill:var(--short)}svg text.fits_short_context{fill:var(--short-ink)}
.edge.fits_short_context,.ring.fits_short_context{stroke:var(--short-ink)}
.box.no{fill:var(--no);stroke:var(--no-edge);stroke-width:1}svg text.no{fill:var(--no-ink)}
.mark.no,.edge.no,.ring.no{stroke:var(--no-ink)}
.box.unknown,.unknown-bar{fill:url(#hatch);stroke:var(--hatch-line);stroke-width:1}
.hatch-ground{fill:var(--hatch)}
.hatch-line{stroke:var(--hatch-line);stroke-width:1.2;fill:none}
.plate{fill:var(--page)}
svg .why{fill:var(--soft);font-size:11.5px}
details{margin:8px 0 0}
summary{cursor:pointer;color:var(--link);font-size:14px;width:fit-content}
.wide{overflow-x:auto;margin-top:8px;max-width:100%}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:4px 0}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
thead th{border-bottom:2px solid var(--rule);font-weight:600;min-width:84px}
tbody th{font-weight:600}
details td:nth-child(2){white-space:nowrap}
details th[scope=row],details td:nth-child(3){min-width:130px}
.n{text-align:right;white-space:nowrap}
.gap{color:var(--soft)}
.unknowns dt{font-weight:600}
.unknowns dd{margin:0 0 6px;color:var(--soft)}
.unknowns dl{margin:4px 0 0;display:grid;grid-template-columns:minmax(0,280px) minmax(0,1fr);gap:2px 20px;
font-size:13.5px}
ol{margin:6px 0;padding-left:22px;max-width:82ch}
li{margin:4px 0}
@media (max-width:640px){
body{padding:18px 14px 36px;font-size:15px}
h1{font-size:22px}
.lead{font-size:16px}
.legend ul{grid-template-columns:1fr}
.unknowns dl{grid-template-columns:1fr}
.unknowns dd{margin-bottom:8px}
}
@media print{
@page{size:A4 landscape;margin:12mm}
body{max-width:none;padding:0;font-size:11px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.scroll{overflow:visible;width:100%}
.scroll svg{width:auto;height:auto;min-width:0}
.heads{position:static;flex:0 1 13%}
.cells{flex:1 1 87%}
nav,details{display:none}
.unknowns,.legend{break-inside:avoid}
}
"""
