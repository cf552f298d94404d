"""Builds and runs the programs that measure: one case, one process, one result."""

import json
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent
SCRATCH = FOLDER / ".build"


class Failed(Exception):
    """An error that ends the command; the text is for the user."""


def progress(text=""):
    """Shows the progress on standard error. On a terminal it uses one line, which an empty text clears."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:118]}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def output(*command, **options):
    """Returns a command's output. Raises Failed with all its output if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if result.returncode != 0:
        progress()
        raise Failed(f"{' '.join(words)}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def build(*products):
    """Builds the products with optimisation and returns the folder they are in."""
    command = ["swift", "build", "-c", "release", "--package-path", FOLDER]
    progress(f"building {', '.join(products)}; the first time takes a minute or two")
    for product in products:
        output(*command, "--product", product)
    progress()
    return pathlib.Path(output(*command, "--show-bin-path").strip())


def bound_to(processor):
    """A preexec_fn that binds a child process to the processor; None for any."""
    return None if processor is None else lambda: os.sched_setaffinity(0, {processor})


def result_of(command, timeout, processor=None, environment=None):
    """The JSON in the last line of a program's output. For a run that fails, only "failed" with the reason."""
    try:
        result = subprocess.run(
            [str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, preexec_fn=bound_to(processor),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"it did not end within {timeout} s"}
    if result.returncode != 0:
        return {"failed": f"status {result.returncode}: {result.stderr.strip()[-400:]}"}
    return json.loads(result.stdout.splitlines()[-1])


class RunCase:
    """The program run-case, which runs one case."""

    def __init__(self, path=None):
        self.path = pathlib.Path(path) if path else build("run-case") / "run-case"

    def _lines(self, *arguments):
        return [json.loads(line) for line in output(self.path, *arguments).splitlines()]

    def list(self):
        """The cases, in the order of the table."""
        return self._lines("--list")

    def loops(self):
        """The linked loops: maps each name to its features."""
        return {loop["name"]: loop["features"] for loop in self._lines("--facts")[0]["loops"]}

    def reference(self):
        """Runs the reference loop alone, to be merged into the result of another program."""
        return self._lines("--reference")[0]

    def run(self, case, loop=None, quick=False, operations=None, instructions=False, settings=None, processor=None):
        """Runs a case and returns run-case's result. `settings` are environment variables of the run."""
        environment = {name: value for name, value in os.environ.items() if name != "GEVENT_LOOP"} | (settings or {})
        if loop:
            environment["GEVENT_LOOP"] = loop
        command = [self.path, case] + ["--quick"] * quick + ["--instructions"] * instructions
        if operations:
            command += ["--operations", operations]
        return result_of(command, 180, processor, environment)


def chosen(cases, pattern):
    """The cases whose id or title matches the regular expression."""
    found = [case for case in cases if pattern.search(case["id"]) or pattern.search(case["title"])]
    if not found:
        raise Failed(f"no case matches {pattern.pattern}; the cases are {', '.join(case['id'] for case in cases)}")
    return found
