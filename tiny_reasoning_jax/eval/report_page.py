"""How report.html looks: the page around its parts, their common pieces, and any JSON value as a table."""

import base64
import hashlib
import html
import re

MAX_COLUMNS = 8  # of a grid; what has more is shown as tables inside a table


def make_page(title: str, body: str, script: str) -> str:
    """The whole page around its body (HTML); its policy loads nothing, and runs no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    parts = {"title": html.escape(title), "body": body, "policy": policy}
    # In one pass: what a part holds is never taken for a place to fill.
    return re.sub(r"\{(title|body|policy)\}", lambda match: parts[match[1]], PAGE)


def percent(value: float) -> str:
    """A share in [0, 1] with one decimal."""
    return f"{100 * value:.1f}\u202f%"


def figure(plot: str, caption: str) -> str:
    """A plot with what it shows."""
    return f"<figure>{plot}<figcaption>{caption}</figcaption></figure>"


def wide(content: str) -> str:
    """A box that scrolls by itself where the screen is narrower than its content."""
    return f'<div class="wide">{content}</div>'


def render(value) -> str:
    """Renders a JSON value as HTML: a dict as a table, a dict of dicts as a grid, a list in one line."""
    if isinstance(value, dict):
        return _render_dict(value)
    if isinstance(value, list):
        return ", ".join(render(item) for item in value) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def depth(value) -> int:
    """How many dicts lie inside each other, at most."""
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


def _render_dict(value: dict) -> str:
    if not value:
        return "none"
    parts = list(value.values())
    columns = list(dict.fromkeys(key for part in parts if isinstance(part, dict) for key in part))
    columns.sort(key=lambda column: max(depth(part.get(column)) for part in parts if isinstance(part, dict)))
    is_grid = len(parts) > 1 and all(isinstance(part, dict) for part in parts) and 0 < len(columns) <= MAX_COLUMNS
    head, rows = "", []
    if is_grid:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        head = f"<thead><tr><th></th>{head}</tr></thead>"
    for key, part in value.items():
        cells = [render(part[column]) if column in part else "" for column in columns] if is_grid else [render(part)]
        rows.append(f"<tr><th>{html.escape(key)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<table class="facts">{head}<tbody>{"".join(rows)}</tbody></table>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #16191f; --muted: #626b7a;
  --line: #dfe3ea; --before: #a9b2c1; --after: #2f6fed; --warm: #e0701a; --good: #14804a; --bad: #c4314b;
  --heat-rgb: 47, 111, 237;
  --level-1: #79cdb9; --level-2: #3fa9c0; --level-3: #2f78d0; --level-4: #4a4fb4; --level-5: #5c2382; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1216; --card: #181c22; --ink: #e8ebf0;
  --muted: #98a2b3; --line: #2b313b; --before: #7c889e; --after: #6f9dff; --warm: #f2954a;
  --good: #4cc38a; --bad: #f2708a; --heat-rgb: 84, 136, 255;
  --level-1: #b6f0dd; --level-2: #63c9dd; --level-3: #5298f2; --level-4: #7470e6; --level-5: #9a4fc0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 30px; line-height: 1.25; letter-spacing: -.015em; margin: 0 0 24px; text-wrap: balance; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 0 0 16px; }
h3 { font-size: 16px; margin: 28px 0 10px; }
h3 small { color: var(--muted); font-weight: 400; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 28px 32px; margin-bottom: 22px; }
.run { color: var(--muted); margin: 0 0 6px; font-size: 14px; }
.figures { display: flex; flex-wrap: wrap; gap: 16px 28px; align-items: center; margin-bottom: 12px; }
.figures span, .figures small { display: block; color: var(--muted); font-size: 14px; }
.figures b { font-size: 46px; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; }
.figures .after b, .figures .model b { color: var(--after); } .figures .before b { color: var(--muted); }
.figures i { font-style: normal; font-size: 30px; color: var(--muted); }
.note, figcaption, .missing { color: var(--muted); font-size: 14px; margin: 8px 0 0; max-width: 96ch; }
figure { margin: 18px 0 22px; } figure:last-child { margin-bottom: 0; } h2 + figure { margin-top: 0; }
figure { overflow-x: auto; }
.plot { display: block; width: 100%; min-width: 640px; height: auto; } .plot * { stroke-linejoin: round; }
.plot text { font-family: inherit !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14.5px; }
th { font-weight: 500; text-align: left; } thead th { color: var(--muted); font-size: 13px; }
.numbers { width: 100%; } .numbers th:first-child { min-width: 130px; }
.numbers th, .numbers td { padding: 7px 10px; border-bottom: 1px solid var(--line); }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.numbers small { display: inline-block; min-width: 76px; color: var(--muted); font-weight: 400; }
.numbers .all > tr > * { font-weight: 650; }
.numbers tbody + tbody tr:first-child > * { border-top: 2px solid var(--line); }
.heat { border-spacing: 4px; border-collapse: separate; width: 100%; margin-left: -4px; }
.heat th { padding: 4px 8px; } .heat thead th { text-align: center; }
.heat td { text-align: center; padding: 8px 6px; border-radius: 8px; min-width: 92px;
  background: rgba(var(--heat-rgb), calc(.05 + .5 * var(--heat, 0))); }
.heat b { font-size: 17px; } .heat small { color: var(--ink); opacity: .75; font-size: 12.5px; }
.heat small:last-child { display: block; }
.heat a { display: block; color: inherit; text-decoration: none; } .heat a:hover b { text-decoration: underline; }
.task { margin: 44px 0 14px; padding-top: 28px; border-top: 1px solid var(--line); font-size: 19px; }
h2 + .task { margin-top: 0; padding-top: 0; border-top: 0; }
.task ~ h3:not(.task) { font-size: 15px; }
form { display: flex; flex-wrap: wrap; gap: 10px 16px; margin-top: 16px; }
label { color: var(--muted); font-size: 13px; } label[hidden] { display: none; } label.text { flex: 1 1 220px; }
select, input, button { display: block; font: inherit; font-size: 15px; color: var(--ink); background: var(--page);
  border: 1px solid var(--line); border-radius: 8px; padding: 6px 8px; max-width: 100%; }
input { width: 100%; } button { padding: 8px 20px; margin: 0 auto; cursor: pointer; } button[hidden] { display: none; }
#count { margin: 12px 0; }
article { border: 1px solid var(--line); border-left: 3px solid var(--bad); border-radius: 8px;
  padding: 12px 16px; margin-bottom: 12px; }
.tags span { overflow-wrap: anywhere; } details { margin-top: 6px; }
article.correct { border-left-color: var(--good); } article.unparsed { border-left-color: var(--warm); }
.tags { display: flex; flex-wrap: wrap; gap: 4px 12px; margin: 0 0 8px; font-size: 13px;
  color: var(--muted); }
.tags b { color: var(--bad); }
.correct .tags b { color: var(--good); } .unparsed .tags b { color: var(--warm); }
.answers { margin: 8px 0; font-size: 14.5px; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit; font-size: 14.5px; }
details pre { padding: 10px 12px; background: var(--page); border-radius: 8px; margin-top: 8px;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--muted); font-size: 14px; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--page);
  border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }
.facts th, .facts td { padding: 4px 14px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
.facts th { color: var(--muted); } .facts tbody > tr:last-child > * { border-bottom: 0; }
@media (max-width: 600px) {
  main { padding: 12px; } section, header { padding: 20px 16px; } h1 { font-size: 24px; }
  .numbers th, .numbers td { padding: 6px 5px; } .numbers small { display: block; min-width: 0; } }
@media print { body { background: none; } section, header { break-inside: avoid; } }
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
