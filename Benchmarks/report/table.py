"""A report as text."""

from . import machine, values
from .model import ANY, median

TITLE_WIDTH = 46


def show(report):
    """The whole report, the machine in the first line, what may be concluded in the last."""
    columns = "; ".join(f"{column.title} {column.note}".strip() for column in report.columns)
    lines = [f"{machine.sentence(report.machine)}; {columns}", f"{report.date}, {report.command}", ""]
    cells = {row.id: {key: _cell(row, key) for key in row.cells} for row in report.rows}
    extras = {row.id: _extras(row) for row in report.rows}
    width = _column_width(report, cells, extras)
    lines.append(" " * TITLE_WIDTH + "".join(f"{column.title:>{width}}" for column in report.columns))
    group = None
    for row in report.rows:
        if row.group != group:
            group = row.group
            lines += ["", group.upper()]
        lines += _row_lines(report, row, cells[row.id], extras[row.id], width)
    lines += ["", *_legend(report), *report.notes, "", report.verdict]
    return "\n".join(lines)


def _column_width(report, cells, extras):
    texts = [text for row in cells.values() for key, text in row.items() if key != ANY]
    texts += [text for row in extras.values() for found in row.values() for key, text in found.items() if key != ANY]
    return 3 + max([len(text) for text in texts] + [len(column.title) for column in report.columns] + [12])


def _row_lines(report, row, cells, extras, width):
    head = _wrapped(row.title)
    lines = [f"{line:{TITLE_WIDTH}}" for line in head]
    lines[-1] += _across(report, row, cells, width)
    for name, found in extras.items():
        lines.append(f"{'  · ' + name:{TITLE_WIDTH}}" + _across(report, row, found, width))
    return [line.rstrip() for line in lines]


def _across(report, row, texts, width):
    if row.spans:
        return f"   {texts.get(ANY, '')}"
    return "".join(f"{texts.get(column.key, ''):>{width}}" for column in report.columns)


def _cell(row, key):
    cell = row.cells[key]
    if not cell.exists:
        return "–"
    mark = "~" if cell.is_unsteady else ""
    text = f"{mark}{values.show(cell.value, row.unit)}"
    if row.compares:
        same = "=" if row.ratio(key) > 1 and row.is_tied(key) else " "
        text += f" {same}{row.ratio(key):.2f}"
    # Two samples have no spread to speak of.
    return f"{text} ±{cell.spread / 2 * 100:>2.0f}%" if len(cell.samples) > 2 else text


def _extras(row):
    """Name to the texts of the cells."""
    found = {}
    for key, cell in row.cells.items():
        for (name, unit), numbers in cell.extras.items():
            found.setdefault(name, {})[key] = values.show(median(numbers), unit)
    return found


def _wrapped(title):
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + 1 + len(word) > TITLE_WIDTH - 1:
            lines.append("  " + word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip() if len(lines) == 1 else f"{lines[-1]} {word}"
    return lines


def _legend(report):
    left_out = sum(cell.left_out for row in report.rows for cell in row.cells.values())
    lines = [
        "Medians; then the ratio to the best, after = if what the two took overlaps; then half of what lies between the "
        "10th and the 90th percentile. ~: that is too much to conclude from."
    ]
    missing = [
        f"{row.id}{f' on {key}' if key else ''}: {cell.missing}"
        for row in report.rows
        for key, cell in row.cells.items()
        if cell.missing and not cell.exists
    ]
    lines += [f"Not measured: {reason}." for reason in missing]
    if left_out:
        lines.append(f"Left out: {values.plural(left_out, 'sample')} of disturbed runs, where three others remained.")
    return lines
