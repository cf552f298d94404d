"""A report as text."""

import textwrap

from . import machine, values
from .model import ANY, median

TITLE_WIDTH = 46


def show(report):
    """The whole report, with the machine in the first line and the conclusion in the last."""
    columns = "; ".join(f"{column.title} {column.note}".strip() for column in report.columns)
    lines = [f"{machine.sentence(report.machine)}; {columns}", f"{report.date}, {report.command}", ""]
    rows = [(row, list(_lines(row))) for row in report.rows]
    texts = [text for row, found in rows if not row.spans for _, cells in found for text in cells.values()]
    width = 3 + max(map(len, texts + [column.title for column in report.columns]), default=12)
    lines.append(" " * TITLE_WIDTH + "".join(f"{column.title:>{width}}" for column in report.columns))
    group = None
    for row, found in rows:
        if row.case["group"] != group:
            group = row.case["group"]
            lines += ["", group.upper()]
        for title, cells in found:
            *head, last = textwrap.wrap(title, TITLE_WIDTH - 1, subsequent_indent="  ")
            across = f"   {cells.get(ANY, '')}"
            if not row.spans:
                across = "".join(f"{cells.get(column.key, ''):>{width}}" for column in report.columns)
            lines += [*head, f"{last:{TITLE_WIDTH}}{across}".rstrip()]
    return "\n".join([*lines, "", *_legend(report), *report.notes, "", report.verdict])


def _lines(row):
    """Yields (title, texts by column) for the row, and for each further figure."""
    yield row.case["title"], {key: _cell(row, key) for key in row.cells}
    extras = {}
    for key, cell in row.cells.items():
        for (name, unit), numbers in cell.extras.items():
            extras.setdefault(name, {})[key] = values.show(median(numbers), unit)
    for name, found in extras.items():
        yield f"  · {name}", found


def _cell(row, key):
    cell = row.cells[key]
    if not cell.samples:
        return "–"
    text = "~" * cell.is_unsteady + values.show(cell.value, row.unit)
    if not row.spans and row.best.value:
        text += f" {'=' if row.ratio(key) > 1 and row.is_tied(key) else ' '}{row.ratio(key):.2f}"
    # The spread of two samples means nothing.
    return f"{text} ±{cell.spread / 2 * 100:>2.0f}%" if len(cell.samples) > 2 else text


def _legend(report):
    yield (
        "Medians; then the ratio to the best, with = if the samples of the two overlap; then half the distance of the "
        "10th and the 90th percentile. ~: that distance is too large to conclude."
    )
    for row in report.rows:
        for key, cell in row.cells.items():
            if cell.missing and not cell.samples:
                yield f"Not measured: {row.id}{f' on {key}' if key else ''}: {cell.missing}."
    if left_out := sum(cell.left_out for cell in report.cells()):
        yield f"Discarded: {values.plural(left_out, 'sample')} of disturbed runs, where three others remained."
