"""What compare-loops and compare-peers share: their options, the rounds in which everybody takes turns, and where the
results go."""

import datetime
import json
import pathlib
import re
import shlex
import sys
import time

from . import cases as running
from . import machine, page, table
from .model import Report, Row


def add_options(parser, budget, quick_budget, rounds, quick_rounds):
    parser.add_argument("--filter", metavar="REGEX", default="", help="only cases whose name or title matches")
    parser.add_argument("--quick", action="store_true", help="a tenth of the operations, fewer rounds, no million")
    parser.add_argument("--rounds", type=int, help=f"how often each case runs; {rounds}, or {quick_rounds} if quick")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help=f"begin no round that would not be over by then; {budget}, or {quick_budget} if quick",
    )
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; - is standard output, without a table")
    parser.add_argument(
        "--html", metavar="FILE", help=f"where the page goes; Benchmarks/.build/{parser.prog}.html unless said otherwise"
    )
    parser.set_defaults(command=parser.prog, defaults=(budget, rounds), quick_defaults=(quick_budget, quick_rounds))


def parsed(parser):
    options = parser.parse_args()
    budget, rounds = options.quick_defaults if options.quick else options.defaults
    options.budget = options.budget or budget
    options.rounds = options.rounds or rounds
    try:
        options.filter = re.compile(options.filter)
    except re.error as error:
        parser.error(f"--filter: {error}")
    return options


def without_long_ones(cases, options):
    """What is left of the cases if --quick was given, and the names of the others."""
    skipped = [case["id"] for case in cases if options.quick and case.get("quickOperations") is None]
    return [case for case in cases if case["id"] not in skipped], skipped


def new_report(title, options, columns, cases, ours=None):
    return Report(
        title=title,
        command=shlex.join([f"Benchmarks/{options.command}", *sys.argv[1:]]),
        date=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        machine=machine.facts(),
        columns=columns,
        rows=[Row.of(case) for case in cases],
        ours=ours,
    )


def measure(report, cases, columns, run, options, long=float("inf")):
    """Fills the report's rows, round by round. Returns what failed.

    `columns(case)` are those who take part, and `run(column, case)` is one result. What took more than `long` seconds is not
    repeated.
    """
    rows = {row.id: row for row in report.rows}
    failures, started, expected = {}, time.monotonic(), 0
    for number in range(options.rounds):
        if number and time.monotonic() - started + expected > options.budget:
            report.notes.append(f"Time was up after {number} of {options.rounds} rounds.")
            break
        # What the next round takes: this one without what is not repeated.
        expected = 0
        for index, case in enumerate(cases):
            taking_part = columns(case)
            # Nobody is always first.
            turn = number % len(taking_part)
            for column in taking_part[turn:] + taking_part[:turn]:
                cell = rows[case["id"]].cell(column)
                if cell.missing or cell.is_single:
                    continue
                name = f"{case['id']} {column}".rstrip()
                running.progress(f"round {number + 1} of {options.rounds}, case {index + 1} of {len(cases)}: {name}")
                begun = time.monotonic()
                result = run(column, case)
                seconds = time.monotonic() - begun
                cell.is_single = seconds > long
                if not cell.is_single:
                    expected += seconds
                cell.missing = result.get("failed") or result.get("unavailable")
                if "failed" in result:
                    failures[name] = result["failed"]
                elif not cell.missing:
                    cell.add(result["value"], report.disturbance.add(result), result["extras"])
    running.progress_is_over()
    return failures


def finish(report, failures, options):
    """Shows and writes what was measured. Returns the exit status."""
    report.settle()
    if options.json == "-":
        print(json.dumps(report.as_json(), indent=1))
    else:
        print(table.show(report))
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(report.as_json(), indent=1) + "\n")
    path = pathlib.Path(options.html) if options.html else running.SCRATCH / f"{options.command}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(report))
    print(f"the same with plots: {path}", file=sys.stderr)
    for name, reason in failures.items():
        print(f"{options.command}: {name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0
