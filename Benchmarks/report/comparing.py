"""Shared by compare-loops and compare-peers: their options, the rounds of measurements, and the output."""

import datetime
import json
import pathlib
import re
import shlex
import sys
import time

from . import cases as running
from . import machine, table
from .model import Report


def add_options(parser, budget, quick_budget, rounds, quick_rounds):
    """Adds the options. Each pair of numbers is a default and the default with --quick."""
    parser.add_argument("--filter", metavar="REGEX", default="", help="only cases whose name or title matches")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations, fewer rounds, no million")
    parser.add_argument("--rounds", type=int, help=f"how often each case runs; {rounds}, or {quick_rounds} if quick")
    limit = f"start no round that would exceed this time; {budget}, or {quick_budget} if quick"
    parser.add_argument("--budget", type=float, metavar="SECONDS", help=limit)
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; - is standard output, without a table")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    parser.set_defaults(command=parser.prog, defaults=[(budget, rounds), (quick_budget, quick_rounds)])


def parsed(parser):
    options = parser.parse_args()
    budget, rounds = options.defaults[options.quick]
    options.budget, options.rounds = options.budget or budget, options.rounds or rounds
    try:
        options.filter = re.compile(options.filter)
    except re.error as error:
        parser.error(f"--filter: {error}")
    return options


def compare(options, columns, cases, columns_of, run, notes=(), long=float("inf")):
    """Measures the cases, shows and writes the result, and returns the exit status.

    `columns_of(case)` returns the keys of columns, and `run(key, case)` one result. A run that took more than `long`
    seconds is not repeated.
    """
    skipped = [case["id"] for case in cases if options.quick and case.get("quickOperations") is None]
    report = Report(
        command=shlex.join([f"Benchmarks/{options.command}", *sys.argv[1:]]),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        machine=machine.facts(),
        columns=columns,
        cases=[case for case in cases if case["id"] not in skipped],
    )
    report.notes += notes
    if skipped:
        report.notes.append(f"Skipped by --quick: {', '.join(skipped)}.")
    failures = _measure(report, columns_of, run, options, long)
    report.settle()
    singles = [f"{row.id} on {key}" for row in report.rows for key, cell in row.cells.items() if cell.is_single]
    if singles:
        report.notes.append(f"Measured once, because it takes long: {', '.join(singles)}.")
    if options.json != "-":
        print(table.show(report))
    if options.json:
        text = json.dumps(report.as_json(), indent=1) + "\n"
        sys.stdout.write(text) if options.json == "-" else pathlib.Path(options.json).write_text(text)
    for name, reason in failures.items():
        print(f"{options.command}: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _measure(report, columns_of, run, options, long):
    """Fills the report's rows, round by round. Returns the failures."""
    failures, started, expected = {}, time.monotonic(), 0
    for number in range(options.rounds):
        if number and time.monotonic() - started + expected > options.budget:
            report.notes.append(f"The time limit was reached after {number} of {options.rounds} rounds.")
            break
        # The expected duration of the next round: this one without runs that are not repeated.
        expected = 0
        for index, row in enumerate(report.rows):
            columns = columns_of(row.case)
            # Each round starts with another column.
            first = number % len(columns)
            for column in columns[first:] + columns[:first]:
                cell = row.cell(column)
                if cell.missing or cell.is_single:
                    continue
                name = f"{row.id} {column}".rstrip()
                running.progress(f"round {number + 1} of {options.rounds}, case {index + 1} of {len(report.rows)}: {name}")
                start = time.monotonic()
                result = run(column, row.case)
                seconds = time.monotonic() - start
                cell.missing = result.get("failed") or result.get("unavailable")
                cell.is_single = seconds > long and not cell.missing
                expected += 0 if cell.is_single else seconds
                if "failed" in result:
                    failures[name] = result["failed"]
                elif not cell.missing:
                    cell.add(result, report.add_run(result))
    running.progress()
    return failures
