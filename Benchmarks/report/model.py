"""A report: rows by columns, cells of samples, and what may be concluded from them."""

import dataclasses

from . import machine

# What varies by more than this around its median supports no conclusion.
UNSTEADY = 0.20


def quantile(ordered, share):
    """Of an ascending list, with interpolation."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(values):
    return quantile(sorted(values), 0.5)


@dataclasses.dataclass
class Sample:
    value: float
    # The run's number in the report's Disturbance; None for a run without a reference loop beside it.
    run: int | None = None


@dataclasses.dataclass
class Cell:
    """What one column has of one row."""

    samples: list = dataclasses.field(default_factory=list)
    # Further figures: (name, unit) to values.
    extras: dict = dataclasses.field(default_factory=dict)
    # Why there are no samples.
    missing: str | None = None
    # Whether one sample has to do.
    is_single: bool = False

    def add(self, value, run=None, extras=()):
        self.samples.append(Sample(value, run))
        for extra in extras:
            self.extras.setdefault((extra["name"], extra["unit"]), []).append(extra["value"])

    def settle(self, disturbed):
        """Leaves out the samples of disturbed runs, if three others are left."""
        quiet = [s.value for s in self.samples if s.run is None or not disturbed[s.run]]
        values = sorted(quiet if len(quiet) >= 3 else [s.value for s in self.samples])
        self.left_out = len(self.samples) - len(values)
        if values:
            self.value = quantile(values, 0.5)
            self.low, self.high = quantile(values, 0.1), quantile(values, 0.9)

    @property
    def exists(self):
        return bool(self.samples)

    @property
    def spread(self):
        """From the 10th to the 90th percentile, as a share of the median."""
        return (self.high - self.low) / self.value if self.value else 0

    @property
    def is_unsteady(self):
        return self.spread > UNSTEADY


# Where a case that no column has a part in has its figure.
ANY = ""


@dataclasses.dataclass
class Row:
    id: str
    title: str
    group: str
    unit: str
    figure: str
    family: str | None = None
    axis: str | None = None
    x: int | None = None
    cells: dict = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(case):
        """From a line of run-case --list."""
        keys = ["id", "title", "group", "unit", "figure", "family", "axis", "x"]
        return Row(**{key: case.get(key) for key in keys})

    def cell(self, column=ANY):
        return self.cells.setdefault(column, Cell())

    @property
    def spans(self):
        """Whether all columns share one figure."""
        return list(self.cells) == [ANY]

    @property
    def exists(self):
        return any(cell.exists for cell in self.cells.values())

    @property
    def best(self):
        return min((cell.value for cell in self.cells.values() if cell.exists), default=None)

    @property
    def compares(self):
        """Whether there are ratios: not of one figure for all, nor to nothing."""
        return not self.spans and bool(self.best)

    def ratio(self, column):
        return self.cells[column].value / self.best

    def is_tied(self, column):
        """Whether it cannot be told from the best: what the two were seen to take overlaps."""
        cell, best = self.cells[column], self.best
        winners = [c for c in self.cells.values() if c.exists and c.value == best]
        return cell.exists and any(cell.low <= winner.high for winner in winners)

    @property
    def is_unsteady(self):
        return any(cell.exists and cell.is_unsteady for cell in self.cells.values())


@dataclasses.dataclass
class Column:
    key: str
    title: str
    # Such as its version.
    note: str = ""


@dataclasses.dataclass
class Report:
    title: str
    command: str
    date: str
    machine: dict
    columns: list
    rows: list
    disturbance: machine.Disturbance = dataclasses.field(default_factory=machine.Disturbance)
    # Sentences for the end.
    notes: list = dataclasses.field(default_factory=list)
    # Key of the column to set off from the others.
    ours: str | None = None

    def settle(self):
        """To be called when all samples are there."""
        # One group after the other, in the order in which they first come.
        groups = list(dict.fromkeys(row.group for row in self.rows))
        self.rows.sort(key=lambda row: groups.index(row.group))
        disturbed = self.disturbance.disturbed()
        for row in self.rows:
            for cell in row.cells.values():
                cell.settle(disturbed)

    @property
    def is_too_noisy(self):
        return self.disturbance.share() > machine.TOO_MANY

    @property
    def unsteady(self):
        return [row.id for row in self.rows if row.is_unsteady]

    @property
    def singles(self):
        cells = [(row.id, key, cell) for row in self.rows for key, cell in row.cells.items()]
        return [f"{name} on {key}" for name, key, cell in cells if cell.is_single and cell.exists]

    @property
    def verdict(self):
        """What the noise lets one conclude, in a sentence or two."""
        runs, share = len(self.disturbance.runs), self.disturbance.share()
        seen = f"the reference loop was disturbed beside {share:.0%} of {runs} runs"
        if self.is_too_noisy:
            return (
                f"TOO NOISY TO CONCLUDE: {seen}, so something else was busy on this machine. No figure here is worth "
                "quoting and no ratio is a finding; repeat it when the machine is idle."
            )
        steady = f"The machine was quiet enough: {seen}."
        if any(0 < len(c.samples) < 3 and not c.is_single for row in self.rows for c in row.cells.values()):
            steady += " With fewer than three samples nobody knows how far they spread: small differences are no finding."
        if self.unsteady:
            return f"{steady} Too noisy to conclude all the same, each on its own: {', '.join(self.unsteady)}."
        return steady

    def as_json(self):
        return {
            "title": self.title,
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "columns": [dataclasses.asdict(column) for column in self.columns],
            "tooNoisy": self.is_too_noisy,
            "disturbedShare": self.disturbance.share(),
            "verdict": self.verdict,
            "notes": self.notes,
            "cases": [_row_as_json(row) for row in self.rows],
        }


def _row_as_json(row):
    keys = ["id", "title", "group", "unit", "figure", "family", "axis", "x"]
    return {key: getattr(row, key) for key in keys} | {
        "unsteady": row.is_unsteady,
        "cells": {column or "any": _cell_as_json(row, column) for column in row.cells},
    }


def _cell_as_json(row, column):
    cell = row.cells[column]
    if not cell.exists:
        return {"missing": cell.missing or "not measured"}
    return {
        "value": cell.value,
        "p10": cell.low,
        "p90": cell.high,
        "ratio": row.ratio(column) if row.best else None,
        "samples": [sample.value for sample in cell.samples],
        "leftOut": cell.left_out,
        "extras": [
            {"name": name, "unit": unit, "value": median(values)} for (name, unit), values in cell.extras.items()
        ],
    }
