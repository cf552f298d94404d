"""A report: rows by columns, cells of samples, and what may be concluded from them."""

import dataclasses

# A run counts as disturbed if the reference loop beside it lost its processor for more than this share of its time, or
# took so much longer than at its best: something else used the processor, its caches, or its clock.
LOST_TIME, SLOWED = 0.03, 1.15
# A machine with more than this share of disturbed runs supports no conclusion, nor does a cell whose samples spread
# further than this around their median.
TOO_MANY, UNSTEADY = 0.25, 0.20
# The column of a case in which no column takes part: all share the figure.
ANY = ""


def quantile(ordered, share):
    """Of an ascending list, with interpolation."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values):
    return quantile(sorted(values), 0.5)


class Cell:
    """What one column has of one row."""

    def __init__(self):
        # Each with the number of its run in Report.runs.
        self.samples = []
        # Further figures: (name, unit) to values.
        self.extras = {}
        # Why there are no samples; and whether one has to do.
        self.missing, self.is_single = None, False
        self.left_out = 0

    def add(self, result, run):
        self.samples.append((result["value"], run))
        for extra in result["extras"]:
            self.extras.setdefault((extra["name"], extra["unit"]), []).append(extra["value"])

    def settle(self, disturbed):
        """Leaves out the samples of disturbed runs, if three others are left."""
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
        # Column to Cell.
        self.cells = {}

    def cell(self, column):
        return self.cells.setdefault(column, Cell())

    @property
    def spans(self):
        """Whether all columns share one figure."""
        return list(self.cells) == [ANY]

    @property
    def best(self):
        """The cell with the least value, if there is any."""
        return min((cell for cell in self.cells.values() if cell.samples), key=lambda cell: cell.value, default=None)

    def ratio(self, column):
        return self.cells[column].value / self.best.value if self.best.value else None

    def is_tied(self, column):
        """Whether it cannot be told from the best: the samples of the two overlap."""
        return self.cells[column].low <= self.best.high

    @property
    def is_unsteady(self):
        return any(cell.is_unsteady for cell in self.cells.values())


@dataclasses.dataclass
class Column:
    key: str
    title: str
    # Such as its version.
    note: str = ""


class Report:
    def __init__(self, command, date, machine, columns, cases):
        self.command, self.date, self.machine, self.columns = command, date, machine, columns
        # One group after the other, in the order in which they first come.
        groups = list(dict.fromkeys(case["group"] for case in cases))
        self.rows = [Row(case) for case in sorted(cases, key=lambda case: groups.index(case["group"]))]
        # Of each run: the reference loop's steps beside it, and its share of the processor.
        self.runs = []
        # Sentences for the end.
        self.notes = []

    def add_run(self, result):
        """Takes the reference loop's figures out of a result of run-case; returns the number of the run."""
        self.runs.append((max(result["reference"]), result["referenceShare"]))
        return len(self.runs) - 1

    def settle(self):
        """To be called when all samples are there: only then the reference loop's best is known."""
        steps = sorted(step for step, _ in self.runs)
        # Not the very best, which may be one lucky moment.
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
        """What the noise lets one conclude, in a sentence or two."""
        seen = f"the reference loop was disturbed beside {self.disturbed_share:.0%} of {len(self.runs)} runs"
        if self.is_too_noisy:
            return (
                f"TOO NOISY TO CONCLUDE: {seen}, so something else was busy on this machine. No figure here is worth "
                "quoting and no ratio is a finding; repeat it when the machine is idle."
            )
        text = f"The machine was quiet enough: {seen}."
        if any(0 < len(cell.samples) < 3 and not cell.is_single for cell in self.cells()):
            text += " The spread of fewer than three samples is unknown: small differences are no finding."
        if unsteady := [row.id for row in self.rows if row.is_unsteady]:
            text += f" Too noisy to conclude all the same, each on its own: {', '.join(unsteady)}."
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
