"""How the data is shown before a run: lines for a terminal, and preview.html, which needs no network.

Every text from the data is made harmless first: control characters are spelled out, so that no record can steer a
terminal, and the page escapes the rest.
"""

import html
import itertools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from tiny_reasoning_jax.data.preview import Check, Example, Piece
from tiny_reasoning_jax.data.problems import DIFFICULTIES

_MAX_LINES = 60  # of the terminal page, checks and example included
_MAX_CATEGORIES, _MAX_BINS = 7, 8  # rows of the terminal's table and bars of its histogram
_HEAD_PIECES, _TAIL_PIECES = 800, 400  # of a long example on the page; the middle is left out
_JOINERS = "\u200c\u200d"  # invisible, but Persian, Hindi and emoji are not written without them
_BOLD, _DIM, _RED, _GREEN, _BLUE = "1", "2", "31", "32", "36"


def render_terminal(summary: dict, examples: list[Example], checks: list[Check], width: int, colour: bool) -> str:
    """Returns the page as lines of at most `width` cells (never under 80, never over 120), about 60 of them.

    Args:
      summary: the content of summary.json.
      examples: from `choose_examples`; the first one is shown.
      checks: from `run_checks`.
      width: columns of the terminal.
      colour: whether ANSI colours may be used; trained lines have a bar in the margin either way.
    """
    width = min(max(width, 80), 120)
    paint = (lambda text, code: f"\x1b[{code}m{text}\x1b[0m") if colour else (lambda text, code: text)
    heading = lambda text, note="": paint(text, _BOLD) + (paint(f"  {note}", _DIM) if note else "")
    lines = ["", heading("data", f"sources: {_cut(_spell(', '.join(summary['sources'])), width - 16)}")]
    lines += _align(_split_rows(summary))
    lines += ["", heading("training examples by category and difficulty", "1 is the easiest")]
    lines += _align(_category_rows(summary, _MAX_CATEGORIES))
    lines += ["", heading("training examples by length", "in tokens")]
    lines += _bars(summary["splits"]["train"]["length_histogram"], width, lambda bar: paint(bar, _BLUE))
    lines.append("")
    for name, text in _remarks(summary):
        first, *rest = _wrap(text, width - 18, 3)
        lines += [paint(f"{name:<16}", _BOLD) + f"  {first}", *(" " * 18 + line for line in rest)]
    lines += ["", heading("checks")]
    for check in checks:
        mark, code = ("\u2713", _GREEN) if check.passed else ("\u2717", _RED)
        first, *rest = _wrap(_spell(check.detail), width - 22, 3)
        lines += [f"  {paint(f'{mark} {check.name:<16}', code)}  {first}", *(" " * 22 + line for line in rest)]
    if examples:
        title = f"example 1 of {len(examples)}"
        lines += ["", heading(title, _cut(_describe(examples[0]), width - len(title) - 2))]
        lines += _example_lines(examples[0], width, max(6, _MAX_LINES - len(lines) - 1), paint)
    lines.append(paint("  the bar marks what is trained; all, token by token: data/preview.html", _DIM))
    return "\n".join(lines)


def _spell(text: str) -> str:
    """Spells out what a terminal would obey or a person could not see; line breaks too."""
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text)


def _cells(text: str) -> int:
    """Returns how many cells of a terminal a text takes; East Asian characters take two."""
    takes_none = lambda c: c in _JOINERS or unicodedata.combining(c)
    return sum(0 if takes_none(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _cut(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text
    text = text[: width - 1]
    while _cells(text) > width - 1:
        text = text[:-1]
    return text + "\u2026"


def _wrap(text: str, width: int, max_lines: int) -> list[str]:
    """Breaks a text between words, and words that are longer than a line; what is left out shows as an ellipsis."""
    lines = [""]
    for word in text.split():
        if lines[-1] and _cells(f"{lines[-1]} {word}") > width:
            lines.append("")
        for char in " " * bool(lines[-1]) + word:
            if _cells(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], _cut(lines[max_lines - 1] + "\u2026", width)]


def _align(rows: list[list[str]]) -> list[str]:
    """Returns a table's lines: the first column to the left, the others to the right."""
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = ([" " * (width - _cells(cell)), cell] for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(["", "".join(reversed(first)), *map("".join, others)]).rstrip())
    return lines


def _split_rows(summary: dict) -> list[list[str]]:
    rows = [["", "examples", "tokens", "trained", "mean", "median", "p90", "p99", "longest"]]
    for name, facts in summary["splits"].items():
        length = facts["length"]
        marks = [f"{length[key]:,}" for key in ("p50", "p90", "p99", "max")]
        rows.append(
            [name, f"{facts['kept']:,}", f"{facts['tokens']:,}", _share(facts), f"{length['mean']:,.0f}", *marks]
        )
    return rows


def _share(facts: dict) -> str:
    """Of the test set only prompts are counted, and nothing is trained."""
    return f"{facts['trained_tokens'] / max(facts['tokens'], 1):.1%}" if "trained_tokens" in facts else "prompts"


def _category_rows(summary: dict, max_rows: int) -> list[list[str]]:
    """Returns the table of training examples, the largest categories first and the smallest in one row."""
    table = summary["splits"]["train"]["by_category"]
    names = sorted(table, key=lambda name: (-sum(table[name].values()), name))
    levels = [str(level) for level in DIFFICULTIES]
    count = lambda group: [sum(table[name].get(level, 0) for name in group) for level in levels]
    shown, others = (names, []) if len(names) <= max_rows else (names[: max_rows - 1], names[max_rows - 1 :])
    groups = [(_cut(_spell(name), 24), [name]) for name in shown]
    groups += [(f"{len(others)} others", others)] if others else []
    rows = [["", *levels, "all"]]
    for label, group in [*groups, ("all", names)]:
        counts = count(group)
        rows.append([label, *(f"{num:,}" if num else "\u00b7" for num in counts), f"{sum(counts):,}"])
    return rows


def _bins(histogram: dict, max_bins: int) -> list[tuple[int, int, int]]:
    """Returns (from, below, examples) without empty bins at the ends, neighbours joined where there are too many."""
    edges = histogram["edges"]
    bins = list(zip(edges, edges[1:], histogram["counts"], strict=False))
    while bins and not bins[0][2]:
        bins.pop(0)
    while bins and not bins[-1][2]:
        bins.pop()
    size = -(-len(bins) // max_bins) or 1
    groups = [bins[start : start + size] for start in range(0, len(bins), size)]
    return [(group[0][0], group[-1][1], sum(num for *_, num in group)) for group in groups]


def _bars(histogram: dict, width: int, paint) -> list[str]:
    """Returns a line for each bin, its bar drawn in eighths of a cell."""
    bins = _bins(histogram, _MAX_BINS)
    if not bins:
        return []
    pad = max(len(f"{low:,}") for low, *_ in bins)
    labels = _align([[f"{low:,}".rjust(pad), "\u2013", f"{high - 1:,}", f"{num:,}"] for low, high, num in bins])
    most, room = max(num for *_, num in bins), width - len(labels[0]) - 2
    lines = []
    for label, (*_, num) in zip(labels, bins, strict=True):
        eighths = max(round(8 * room * num / most), num > 0)
        bar = "\u2588" * (eighths // 8) + ("", *"\u258f\u258e\u258d\u258c\u258b\u258a\u2589")[eighths % 8]
        lines.append(f"{label}  {paint(bar)}")
    return lines


def _remarks(summary: dict) -> Iterable[tuple[str, str]]:
    packing = summary["packing"]
    yield "packing", f"rows of {packing['seq_len']:,} tokens are {packing['efficiency']:.1%} full"
    dropped = [
        f"from {split} " + ", ".join(f"{num:,} {_spell(reason)}" for reason, num in facts["dropped"].items())
        for split, facts in summary["splits"].items()
        if facts["dropped"]
    ]
    yield "dropped", "; ".join(dropped) + " (data/dropped.jsonl names each)" if dropped else "nothing"
    for name in ("near_duplicates", "contaminated"):
        yield name.replace("_", " "), _list(summary[name])


def _list(facts: dict) -> str:
    show = lambda value: f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _spell(str(value))
    return ", ".join(f"{key.replace('_', ' ')} {show(value)}" for key, value in facts.items()) or "none"


def _describe(example: Example) -> str:
    kind = f"{_cut(_spell(example.id), 30)}, {_cut(_spell(example.category), 20)}, difficulty {example.difficulty}"
    return f"{kind}; {example.num_trained:,} of {example.num_tokens:,} tokens trained"


def _example_lines(example: Example, width: int, max_lines: int, paint) -> list[str]:
    """Returns the example's text in lines with a bar before those that are trained; the middle may be left out."""
    lines: list[tuple[bool, list[tuple[str, bool]]]] = [(False, [])]  # (has the bar, characters, each trained or not)
    used = 0  # cells of the last line
    for piece in example.pieces:
        for place, part in enumerate(piece.text.split("\n")):
            for char in (["\n"] if place else []) + list(_spell(part)):
                cells = _cells(char)
                if char == "\n" or used + cells > width - 4:
                    lines.append((piece.trained, []))
                    used = 0
                if char != "\n":
                    lines[-1] = (lines[-1][0] or piece.trained, [*lines[-1][1], (char, piece.trained)])
                    used += cells
    shown = [_paint_line(*line, paint) for line in lines]
    if len(shown) > max_lines:
        tail = max_lines // 3
        left_out = paint(f"    \u2026 {len(shown) - max_lines + 1:,} lines left out \u2026", _DIM)
        shown = [*shown[: max_lines - tail - 1], left_out, *shown[-tail:]]
    return shown


def _paint_line(has_bar: bool, chars: list[tuple[str, bool]], paint) -> str:
    runs = itertools.groupby(chars, key=lambda char: char[1])
    text = "".join(paint("".join(c for c, _ in run), _GREEN if trained else _DIM) for trained, run in runs)
    return f"  {paint(chr(0x258C), _GREEN) if has_bar else ' '} {text}".rstrip()


def write_page(folder: Path, summary: dict, examples: list[Example], checks: list[Check]) -> Path:
    """Writes `folder`/preview.html, one file that needs no other and no network, and returns its path.

    Args: as for `render_terminal`.
    """
    train = summary["splits"]["train"]
    body = f"""<header>
<p class="note">Data before training</p>
<h1>{train["kept"]:,} training examples, {train["tokens"]:,} tokens, {_share(train)} of them trained</h1>
<p class="note">From {_escape(", ".join(summary["sources"]))}. Difficulty: {_escape(summary["difficulty_rule"])}.</p>
</header>
<section><h2>Checks</h2><ul class="checks">{"".join(map(_render_check, checks))}</ul></section>
<section><h2>Training examples by category and difficulty <small>1 is the easiest</small></h2>
{_render_heat(summary)}</section>
<section><h2>Splits</h2>{_render_table(_split_rows(summary))}
<dl>{"".join(f"<dt>{name}</dt><dd>{_escape(text)}</dd>" for name, text in _remarks(summary))}</dl></section>
<section><h2>Length of training examples, in tokens</h2>{_render_bars(train["length_histogram"])}</section>
<section><h2>Examples, token by token</h2>
<p class="note"><span class="t">trained</span> <span>prompt, not trained</span> <span class="t s">special token</span>
Each box is a token; its id shows on hover. Some characters take several tokens and have one box.</p>
{"".join(map(_render_example, examples))}</section>
<section><h2>Made from</h2>{_render_facts(summary["fingerprint"] | summary["manifest"])}</section>"""
    path = folder / "preview.html"
    path.write_text(_PAGE.replace("{body}", body), encoding="utf-8")
    return path


def _escape(text: str) -> str:
    return html.escape(_spell(text))


def _render_check(check: Check) -> str:
    kind, mark = ("good", "\u2713") if check.passed else ("bad", "\u2717")
    return f'<li class="{kind}"><b>{mark} {_escape(check.name)}</b><span>{_escape(check.detail)}</span></li>'


def _render_table(rows: list[list[str]]) -> str:
    head, *body = [[html.escape(cell) for cell in row] for row in rows]
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += [f"<th>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) for row in body]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _render_heat(summary: dict) -> str:
    """The table of categories, each cell as dark as the root of its share of the fullest one."""
    table = summary["splits"]["train"]["by_category"]
    most = max((num for counts in table.values() for num in counts.values()), default=1)
    head, *rows, total = _category_rows(summary, len(table))
    lines = ["<th></th>" + "".join(f"<th>{cell}</th>" for cell in head[1:])]
    for label, *cells, in_all in rows:
        heats = [(int(cell.replace(",", "")) / most) ** 0.5 if cell[0].isdigit() else 0 for cell in cells]
        boxes = "".join(f'<td style="--heat:{h:.3f}">{c}</td>' for h, c in zip(heats, cells, strict=True))
        lines.append(f"<th>{html.escape(label)}</th>{boxes}<td>{in_all}</td>")
    lines.append(f"<th>{total[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in total[1:]))
    return f'<div class="wide"><table class="heat">{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _render_bars(histogram: dict) -> str:
    bins = _bins(histogram, 24)
    most = max((num for *_, num in bins), default=1)
    rows = [
        f'<span>{low:,} \u2013 {high - 1:,}</span><p><i style="--share:{num / most:.4f}"></i>{num:,}</p>'
        for low, high, num in bins
    ]
    return f'<div class="bars">{"".join(f"<div>{row}</div>" for row in rows)}</div>'


def _render_example(example: Example) -> str:
    pieces, left_out = example.pieces, len(example.pieces) - _HEAD_PIECES - _TAIL_PIECES
    if left_out <= 0:
        text = "".join(map(_render_piece, pieces))
    else:
        middle = sum(len(piece.ids) for piece in pieces[_HEAD_PIECES:-_TAIL_PIECES])
        head, tail = ("".join(map(_render_piece, x)) for x in (pieces[:_HEAD_PIECES], pieces[-_TAIL_PIECES:]))
        text = f"{head}<em>{middle:,} tokens left out here</em>{tail}"
    return f"<article><h3>{html.escape(_describe(example))}</h3><pre>{text}</pre></article>"


def _render_piece(piece: Piece) -> str:
    kinds = "t" * piece.trained + " s" * piece.special
    kind = f' class="{kinds.strip()}"' if kinds else ""
    text = "<i></i>\n".join(_escape(part) for part in piece.text.split("\n"))
    return f'<span{kind} title="{", ".join(map(str, piece.ids))}">{text}</span>'


def _render_facts(facts: dict) -> str:
    rows = "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(str(value))}</dd>" for key, value in facts.items())
    return f"<details><summary>settings, files and code</summary><dl>{rows}</dl></details>"


# {body} is replaced by write_page.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data before training</title>
<style>
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #16191f; --muted: #626b7a; --line: #dfe3ea;
  --blue: #2f6fed; --good: #14804a; --bad: #c4314b; --warm: #b4540a; --rgb: 47, 111, 237; --cut: rgba(0, 0, 0, .13); }
@media (prefers-color-scheme: dark) { :root { --page: #0f1216; --card: #181c22; --ink: #e8ebf0; --muted: #98a2b3;
  --line: #2b313b; --blue: #6f9dff; --good: #4cc38a; --bad: #f2708a; --warm: #f2954a; --rgb: 84, 136, 255;
  --cut: rgba(255, 255, 255, .16); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 28px; line-height: 1.25; letter-spacing: -.015em; margin: 0 0 12px; text-wrap: balance; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 0 0 14px; }
h2 small { color: var(--muted); font-size: 14px; font-weight: 400; letter-spacing: 0; }
h3 { font-size: 14.5px; font-weight: 500; margin: 22px 0 8px; overflow-wrap: anywhere; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 26px 32px; margin-bottom: 20px; }
.note { color: var(--muted); font-size: 14px; margin: 0 0 6px; max-width: 96ch; overflow-wrap: anywhere; }
.checks { list-style: none; margin: 0; padding: 0; }
.checks li { display: grid; grid-template-columns: 180px 1fr; gap: 2px 16px; padding: 8px 0 8px 12px;
  border-left: 3px solid var(--good); margin-bottom: 6px; font-size: 14.5px; overflow-wrap: anywhere; }
.checks b { font-weight: 600; color: var(--good); }
.checks .bad { border-color: var(--bad); } .checks .bad b { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: left; } tr:first-child th { color: var(--muted); font-size: 13px; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
td, tr:first-child th:not(:first-child) { text-align: right; }
.heat { border-collapse: separate; border-spacing: 4px; } .heat th, .heat td { border: 0; }
.heat td, .heat tr:first-child th:not(:first-child) { text-align: center; }
.heat td[style] { border-radius: 8px; background: rgba(var(--rgb), calc(.05 + .5 * var(--heat))); }
.heat tr:last-child > *, .heat td:last-child { font-weight: 650; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 18px 0 0; font-size: 14.5px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
.bars > div { display: grid; grid-template-columns: 120px 1fr; gap: 12px; align-items: center; font-size: 14px;
  font-variant-numeric: tabular-nums; }
.bars span { color: var(--muted); text-align: right; }
.bars p { display: flex; align-items: center; gap: 8px; margin: 2px 0; }
.bars i { height: 18px; min-width: 1px; border-radius: 0 4px 4px 0; background: var(--blue);
  width: calc((100% - 90px) * var(--share)); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: 14px 16px; background: var(--page);
  border-radius: 8px; font: 13px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre span, .note span { color: var(--muted); border-right: 1px solid var(--cut); border-radius: 2px; padding: 1px 0; }
pre .t, .note .t { color: var(--ink); background: rgba(var(--rgb), .16); }
pre .s, .note .s { color: var(--warm); font-weight: 600; } .note span { padding: 1px 4px; }
pre i::before { content: "\\21b5"; opacity: .4; font-style: normal; }
pre em { display: block; margin: 10px 0; color: var(--muted); }
summary { cursor: pointer; color: var(--muted); font-size: 14px; }
@media (max-width: 600px) { main { padding: 12px; } section, header { padding: 18px 14px; } h1 { font-size: 22px; }
  .checks li, dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } pre { padding: 10px; }
  .heat { border-spacing: 2px; font-size: 12px; } .heat th, .heat td { padding: 5px 3px; }
  .heat th { white-space: normal; hyphens: auto; }
  .bars > div { grid-template-columns: 96px 1fr; font-size: 12.5px; } }
@media print { body { background: none; } }
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
