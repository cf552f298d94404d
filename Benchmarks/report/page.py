"""A report as one HTML file: no other file, no script, no network. Readable on a phone, light and dark."""

import html
import math

from . import machine, values
from .model import ANY, median

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --line: #d9dde3; --grid: #e8ebef; --text: #1b1f24; --quiet: #5b6470;
  --good: #1a7f37; --warn: #9a5b00; --warn-page: #fff4de;
  --c0: #2563c9; --c1: #c2570c; --c2: #0f8a6d; --c3: #8b3fc4; --c4: #b3243f; --c5: #6b7280; --c6: #a16207; --c7: #0e7490;
  --c8: #be185d; --c9: #4d7c0f; --c10: #57534e; --c11: #4338ca; --any: #5b6470;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101317; --card: #191d23; --line: #323943; --grid: #272d35; --text: #e6e9ee; --quiet: #9aa5b1;
    --good: #56c271; --warn: #f0b44c; --warn-page: #2e2410;
    --c0: #6ea8ff; --c1: #ff9d5c; --c2: #3fcfa8; --c3: #c792f5; --c4: #ff7b8f; --c5: #a3adba; --c6: #e0b040;
    --c7: #4fc3dc; --c8: #f783b5; --c9: #a3d55d; --c10: #c4bcb4; --c11: #a5b0ff; --any: #9aa5b1;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 1.1rem; margin: 34px 0 10px; }
h2::first-letter { text-transform: uppercase; }
h3 { font-size: .92rem; line-height: 1.3; margin: 0 0 8px; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 6px 0; }
.quiet, figcaption { color: var(--quiet); font-size: .86rem; }
code { font: .86em ui-monospace, monospace; overflow-wrap: anywhere; }
.verdict { border: 1px solid var(--line); border-left: 4px solid var(--good); border-radius: 8px; background: var(--card);
  padding: 8px 12px; margin: 14px 0; }
.verdict.noisy { border-left-color: var(--warn); background: var(--warn-page); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; margin: 10px 0; list-style: none; font-size: .9rem; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; margin: 0;
  min-width: 0; }
.bars { display: grid; gap: 5px 9px; align-items: center; font-size: .86rem;
  grid-template-columns: minmax(3.4em, max-content) 1fr max-content; }
/* Its three parts are in the columns of all bars. */
.bar { display: contents; }
.wide { grid-column: 1 / -1; }
.cases { gap: 7px 12px; grid-template-columns: minmax(0, 22em) minmax(60px, 1fr) max-content; }
@media (max-width: 700px) {
  .cases { grid-template-columns: 1fr max-content; row-gap: 2px; }
  .cases .bar > span:first-child { grid-column: 1 / -1; margin-top: 5px; }
}
.bar svg { display: block; width: 100%; height: 14px; }
.bar b { font-weight: 600; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
.card dl { display: grid; grid-template-columns: 1fr max-content; gap: 1px 10px; margin: 9px 0 0; font-size: .8rem;
  color: var(--quiet); }
.card dd { margin: 0; font-variant-numeric: tabular-nums; text-align: right; }
.unsteady { color: var(--warn); }
.plot { display: block; width: 100%; height: auto; }
.plot text { font: 11px system-ui, sans-serif; fill: var(--quiet); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap; border-top: 1px solid var(--grid); }
thead th { border-top: 0; color: var(--quiet); font-weight: 600; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); font-weight: 400;
  white-space: normal; min-width: 9.5em; max-width: 22em; }
tr.group th { color: var(--quiet); font-weight: 600; padding-top: 14px; }
tr.group th::first-letter { text-transform: uppercase; }
td.best { font-weight: 650; }
/* Where it is seen however far the table is scrolled out of sight. */
td.across { text-align: left; }
td small { color: var(--quiet); font-weight: 400; }
"""


def render(report):
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(report.title)}</title><style>{STYLE}</style></head><body><main>",
        _head(report),
        *_scaling(report),
        *_groups(report),
        _table(report),
        _foot(report),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def text(value):
    return html.escape(str(value))


# --- Top and bottom --------------------------------------------------------------------------------------------------


def _verdict(report):
    noisy = " noisy" if report.is_too_noisy or report.unsteady else ""
    return f'<p class="verdict{noisy}" role="note">{text(report.verdict)}</p>'


def _head(report):
    return "\n".join(
        [
            f"<h1>{text(report.title)}</h1>",
            f'<p class="quiet">{text(machine.sentence(report.machine))}</p>',
            f'<p class="quiet">{text(report.date)} · <code>{text(report.command)}</code></p>',
            _verdict(report),
            _legend(report),
        ]
    )


def _legend(report):
    entries = [
        f'<li><i style="background:{_color(report, column.key)}"></i>{text(column.title)} '
        f'<span class="quiet">{text(column.note)}</span></li>'
        for column in report.columns
    ]
    if any(row.spans and row.exists for row in report.rows):
        entries.append('<li><i style="background:var(--any)"></i>the same on all: none takes part</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _foot(report):
    left_out = sum(cell.left_out for row in report.rows for cell in row.cells.values())
    lines = [
        "Bars and points are medians; a thin line spans the 10th to the 90th percentile. Less is better everywhere."
    ]
    if left_out:
        lines.append(f"{values.plural(left_out, 'sample')} of disturbed runs left out, where three others remained.")
    for row in report.rows:
        for key, cell in row.cells.items():
            if cell.missing and not cell.exists:
                lines.append(f"Not measured: {row.id}{f' on {key}' if key else ''}: {cell.missing}.")
    lines += report.notes
    return f'<h2>Notes</h2>{"".join(f"<p class=quiet>{text(line)}</p>" for line in lines)}'


# --- Colours ---------------------------------------------------------------------------------------------------------

COLORS = 12


def _color(report, key):
    if key == ANY:
        return "var(--any)"
    return f"var(--c{[column.key for column in report.columns].index(key) % COLORS})"


def _name(report, key):
    return next((column.title for column in report.columns if column.key == key), "any")


def _keys(report, row):
    """Of the columns that have a figure, in the report's order."""
    keys = [ANY] if row.spans else [column.key for column in report.columns]
    return [key for key in keys if key in row.cells and row.cells[key].exists]


# --- Bars: one card for each case ------------------------------------------------------------------------------------


_UNSTEADY = ' <span class="unsteady" title="too unsteady to conclude from">~</span>'


def _groups(report):
    groups = dict.fromkeys(row.group for row in report.rows)
    for group in groups:
        rows = [row for row in report.rows if row.group == group and row.exists]
        if not rows:
            continue
        # With nothing to be compared with, a case is compared with its neighbours.
        alone = [row for row in rows if row.spans]
        cards = [_card_of_cases(report, alone)] if alone else []
        cards += [_card(report, row) for row in rows if not row.spans]
        yield f'<h2>{text(group)}</h2><div class="cards">{"".join(cards)}</div>'


def _card_of_cases(report, rows):
    most = max(row.cells[ANY].high for row in rows) or 1
    # Of different units, such as bytes beside nanoseconds, the lengths would mean nothing.
    same = len({row.unit for row in rows}) == 1
    bars = "".join(_bar(report, row, ANY, most if same else row.cells[ANY].high, row.title) for row in rows)
    extras = "".join(_extras(report, row) for row in rows)
    return f'<article class="card wide"><div class="bars cases">{bars}</div>{extras}</article>'


def _card(report, row):
    keys = _keys(report, row)
    most = max(row.cells[key].high for key in keys) or 1
    bars = "".join(_bar(report, row, key, most) for key in keys)
    heading = text(row.title) + (_UNSTEADY if row.is_unsteady else "")
    return f'<article class="card"><h3>{heading}</h3><div class="bars">{bars}</div>{_extras(report, row)}</article>'


def _bar(report, row, key, most, name=None):
    cell = row.cells[key]
    shown = values.show(cell.value, row.unit)
    name = name or _name(report, key)
    width, low, high = (max(0.4, value / most * 100) for value in (cell.value, cell.low, cell.high))
    ratio = "" if not row.compares or len(_keys(report, row)) < 2 else f' <span class="quiet">{row.ratio(key):.2f}×</span>'
    told = f"{name}: {shown}, {values.show(cell.low, row.unit)} to {values.show(cell.high, row.unit)}"
    if row.compares and row.ratio(key) == 1 and len(_keys(report, row)) > 1:
        shown = f"<b>{shown}</b>"
    label = text(name)
    if key == report.ours:
        label = f"<b>{label}</b>"
    if row.spans and row.is_unsteady:
        label += _UNSTEADY
    # Lengths in percent: the bar is as wide as there is room, and nothing in it is scaled.
    return (
        f'<div class="bar"><span>{label}</span>'
        f'<svg role="img" aria-label="{text(told)}"><title>{text(told)}</title>'
        '<rect x="0" y="1" width="100%" height="12" rx="3" fill="var(--grid)"/>'
        f'<rect x="0" y="1" width="{width:.2f}%" height="12" rx="3" fill="{_color(report, key)}"/>'
        f'<line x1="{low:.2f}%" x2="{high:.2f}%" y1="7" y2="7" stroke="var(--text)" stroke-width="1.5"/></svg>'
        f'<span class="number">{shown}{ratio}</span></div>'
    )


def _extras(report, row):
    lines = []
    names = dict.fromkeys(name for key in _keys(report, row) for name in row.cells[key].extras)
    for name, unit in names:
        found = [
            median(row.cells[key].extras[name, unit])
            for key in _keys(report, row)
            if (name, unit) in row.cells[key].extras
        ]
        # Many would not fit on a line of a phone.
        if len(found) > 4:
            shown = [f"{values.show(min(found), unit)} to {values.show(max(found), unit)}"]
        else:
            shown = [values.show(value, unit) for value in found]
        lines.append(f"<dt>{text(name)}</dt><dd>{text(' · '.join(shown))}</dd>")
    return f"<dl>{''.join(lines)}</dl>" if lines else ""


# --- Lines: how cost grows -------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 360, 215
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 34


def _scaling(report):
    families = {}
    for row in report.rows:
        if row.family and row.exists:
            families.setdefault((row.family, row.axis, row.unit), []).append(row)
    plots = [_plot(report, key, rows) for key, rows in families.items() if len(rows) > 1]
    if plots:
        yield f'<h2>How cost grows</h2><div class="cards">{"".join(plots)}</div>'


def _plot(report, key, rows):
    family, axis, unit = key
    rows = sorted(rows, key=lambda row: row.x)
    cells = [row.cells[k] for row in rows for k in _keys(report, row)]
    least, most = min(cell.low for cell in cells), max(cell.high for cell in cells)
    # Linear as long as the lower lines can be told from the axis.
    is_linear = least <= 0 or most / least < 12
    if is_linear:
        steps = [_round_up(most, unit) * step / 4 for step in range(5)]
    else:
        steps = [10.0**power for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)]
    # Zero has a place on the axis, before one; from there on, each tenfold is as wide as the next.
    places = [math.log10(1 + row.x) for row in rows]
    first, last = places[0], places[-1]

    def x(row):
        return LEFT + (math.log10(1 + row.x) - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value):
        low, high = steps[0], steps[-1]
        share = (value - low) / (high - low) if is_linear else math.log(value / low) / math.log(high / low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(steps, unit, is_linear, y), _ticks(rows, axis, x)]
    series = {}
    for row in rows:
        for column in _keys(report, row):
            series.setdefault(column, []).append(row)
    for column, members in series.items():
        parts.append(_line(report, column, members, x, y))
    told = f"{family}: " + "; ".join(f"{row.x:,} {axis}: {_told(report, row)}" for row in rows)
    return (
        f'<figure class="card"><h3>{text(family)}</h3>'
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(told)}">{"".join(parts)}</svg>'
        "</figure>"
    )


def _told(report, row):
    """For who cannot see it."""
    return ", ".join(
        f"{_name(report, key)} {values.show(row.cells[key].value, row.unit)}" for key in _keys(report, row)
    )


def _round_up(value, unit):
    """A number for the top of the axis that divides into four well, in the unit it will be shown in."""
    shown, name = values.scaled(value, unit)
    factor = value / shown if shown else 1
    if shown <= 0:
        return 1
    size = 10 ** math.floor(math.log10(shown))
    for step in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10):
        if shown <= step * size:
            return step * size * factor
    return shown * factor


def _grid(steps, unit, is_linear, y):
    """Lines at the steps: of a linear axis in one unit, which the top one names, of another each in its own."""
    parts = []
    for value in steps:
        at = y(value)
        shown, name = values.scaled(steps[-1] if is_linear else value, unit)
        if is_linear:
            shown *= value / steps[-1]
        label = f"{shown:.3g}" + (f" {name}" if not is_linear or value == steps[-1] else "")
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="var(--grid)"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{text(label)}</text>')
    return "".join(parts)


def _short(number):
    for size, name in [(10**6, "M"), (10**3, "k")]:
        if number >= size and number % size == 0:
            return f"{number // size}{name}"
    return f"{number:,}"


def _ticks(rows, axis, x):
    parts, taken = [], -100
    for row in rows:
        at = x(row)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}" stroke="var(--quiet)"/>'
        )
        # Labels that would touch the one before are left out; the point is there all the same.
        if at - taken < 16:
            continue
        taken = at
        anchor = "end" if at > WIDTH - RIGHT - 10 else "middle"
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{_short(row.x)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{text(axis)}</text>')
    return "".join(parts)


def _line(report, column, rows, x, y):
    color = _color(report, column)
    points = [(x(row), y(row.cells[column].value)) for row in rows]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>']
    for row, (px, py) in zip(rows, points):
        cell = row.cells[column]
        told = f"{_name(report, column)}, {row.x:,} {row.axis}: {values.show(cell.value, row.unit)}"
        parts.append(
            f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{y(cell.low):.1f}" y2="{y(cell.high):.1f}" stroke="{color}" '
            'stroke-width="1.2"/>'
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.4" fill="{color}"><title>{text(told)}</title></circle>'
        )
    return "".join(parts)


# --- All figures -----------------------------------------------------------------------------------------------------


def _table(report):
    count = len(report.columns)
    rows, group = [], None
    for row in report.rows:
        if row.group != group:
            group = row.group
            rows.append(f'<tr class="group"><th>{text(group)}</th>{"<td></td>" * count}</tr>')
        if row.spans:
            cells = f'<td class="across" colspan="{count}">{_table_cell(row, ANY)}</td>'
        else:
            cells = "".join(_table_data(row, column.key) for column in report.columns)
        rows.append(f"<tr><th>{text(row.title)}</th>{cells}</tr>")
    heads = "".join(f"<th>{text(column.title)}</th>" for column in report.columns)
    return (
        '<h2>All figures</h2><div class="scroll" tabindex="0" role="region" aria-label="All figures"><table>'
        f'<thead><tr><th>case</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _table_data(row, key):
    if key not in row.cells or not row.cells[key].exists:
        return '<td class="quiet">–</td>'
    best = ' class="best"' if not row.compares or row.ratio(key) == 1 else ""
    return f"<td{best}>{_table_cell(row, key)}</td>"


def _table_cell(row, key):
    cell = row.cells[key]
    if not cell.exists:
        return '<span class="quiet">–</span>'
    shown = text(values.show(cell.value, row.unit))
    if cell.is_unsteady:
        shown = f'<span class="unsteady">~{shown}</span>'
    ratio = "" if not row.compares else f" {'=' if row.ratio(key) > 1 and row.is_tied(key) else ''}{row.ratio(key):.2f}×"
    # Two samples have no spread to speak of.
    spread = f" ±{cell.spread / 2 * 100:.0f} %" if len(cell.samples) > 2 else ""
    return f"{shown}<small>{ratio}{spread}</small>"
