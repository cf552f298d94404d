"""A report: rows by columns, cells of samples, and the conclusion that they allow."""

import dataclasses

# A run counts as disturbed if its reference loop lost the processor for more than this share of the time, or took that
# many times its best: another program used the processor or its caches, or the clock rate changed.
LOST_TIME, SLOWED = 0.03, 1.15
# With more than this share of disturbed runs the report allows no conclusion. Nor does a cell whose spread exceeds this
# share of its median.
TOO_MANY, UNSTEADY = 0.25, 0.20
# The column of a case that does not depend on the column: all share the figure.
ANY = ""


def quantile(ordered, share):
    """The quantile of an ascending list, interpolated."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(values):
    return quantile(sorted(values), 0.5)


class Cell:
    """The samples of one column in one row."""

    def __init__(self):
        # (value, index of the run in Report.runs).
        self.samples = []
        # Further figures: maps (name, unit) to values.
        self.extras = {}
        # The reason why there are no samples; and whether the case runs only once.
        self.missing, self.is_single = None, False
        self.left_out = 0

    def add(self, result, run):
        self.samples.append((result["value"], run))
        for extra in result["extras"]:
            self.extras.setdefault((extra["name"], extra["unit"]), []).append(extra["value"])

    def settle(self, disturbed):
        """Discards the samples of disturbed runs if at least three others remain."""
        quiet = [value for value, run in self.samples if not disturbed[run]]
        values = sorted(quiet if len(quiet) >= 3 else [value for value, _ in self.samples])
        self.left_out = len(self.samples) - len(values)
        if values:
            self.low, self.value, self.high = (quantile(values, share) for share in (0.1, 0.5, 0.9))

    @property
    def spread(self):
        """From the 10th to the 90th percentile, as a share of the median."""
        return (self.high - self.low) / self.value if self.samples and self.value else 0

    @property
    def is_unsteady(self):
        return self.spread > UNSTEADY


class Row:
    def __init__(self, case):
        self.case, self.id, self.unit = case, case["id"], case["unit"]
        # Maps columns to cells.
        self.cells = {}

    def cell(self, column):
        return self.cells.setdefault(column, Cell())

    @property
    def spans(self):
        """Whether all columns share one figure."""
        return list(self.cells) == [ANY]

    @property
    def best(self):
        """The cell with the smallest value, or None."""
        return min((cell for cell in self.cells.values() if cell.samples), key=lambda cell: cell.value, default=None)

    def ratio(self, column):
        return self.cells[column].value / self.best.value if self.best.value else None

    def is_tied(self, column):
        """Whether it is indistinguishable from the best, because their samples overlap."""
        return self.cells[column].low <= self.best.high

    @property
    def is_unsteady(self):
        return any(cell.is_unsteady for cell in self.cells.values())


@dataclasses.dataclass
class Column:
    key: str
    title: str
    # For example its version.
    note: str = ""


class Report:
    def __init__(self, command, date, machine, columns, cases):
        self.command, self.date, self.machine, self.columns = command, date, machine, columns
        # Sorted by group, in the order of the groups' first cases.
        groups = list(dict.fromkeys(case["group"] for case in cases))
        self.rows = [Row(case) for case in sorted(cases, key=lambda case: groups.index(case["group"]))]
        # For each run: the step time of its reference loop, and that loop's share of the processor.
        self.runs = []
        # Sentences to print at the end.
        self.notes = []

    def add_run(self, result):
        """Records the reference loop's figures from a result of run-case. Returns the index of the run."""
        self.runs.append((max(result["reference"]), result["referenceShare"]))
        return len(self.runs) - 1

    def settle(self):
        """Evaluates the samples. Call it after the last one, when the reference loop's best time is known."""
        steps = sorted(step for step, _ in self.runs)
        # Not the minimum, which may be an outlier.
        best = steps[len(steps) // 20] if steps else 0
        disturbed = [share < 1 - LOST_TIME or step > best * SLOWED for step, share in self.runs]
        self.disturbed_share = sum(disturbed) / len(disturbed) if disturbed else 0
        self.is_too_noisy = self.disturbed_share > TOO_MANY
        for cell in self.cells():
            cell.settle(disturbed)

    def cells(self):
        return [cell for row in self.rows for cell in row.cells.values()]

    @property
    def verdict(self):
        """The conclusion that the noise allows, in a sentence or two."""
        noise = f"the reference loop was disturbed in {self.disturbed_share:.0%} of {len(self.runs)} runs"
        if self.is_too_noisy:
            return (
                f"TOO NOISY TO CONCLUDE: {noise}, so other programs used this machine. Do not quote these figures or "
                "ratios; repeat the measurement when the machine is idle."
            )
        text = f"The machine was quiet enough: {noise}."
        if any(0 < len(cell.samples) < 3 and not cell.is_single for cell in self.cells()):
            text += " The spread of fewer than three samples is unknown: small differences mean nothing."
        if unsteady := [row.id for row in self.rows if row.is_unsteady]:
            text += f" These cases are still too noisy to conclude: {', '.join(unsteady)}."
        return text

    def as_json(self):
        return {
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "columns": [dataclasses.asdict(column) for column in self.columns],
            "tooNoisy": self.is_too_noisy,
            "disturbedShare": self.disturbed_share,
            "verdict": self.verdict,
            "notes": self.notes,
            "cases": [
                row.case
                | {"unsteady": row.is_unsteady}
                | {"cells": {column or "any": _cell_as_json(row, column) for column in row.cells}}
                for row in self.rows
            ],
        }


def _cell_as_json(row, column):
    cell = row.cells[column]
    if not cell.samples:
        return {"missing": cell.missing or "not measured"}
    extras = [{"name": name, "unit": unit, "value": median(values)} for (name, unit), values in cell.extras.items()]
    return {
        "value": cell.value,
        "p10": cell.low,
        "p90": cell.high,
        "ratio": row.ratio(column),
        "samples": [value for value, _ in cell.samples],
        "leftOut": cell.left_out,
        "extras": extras,
    }
