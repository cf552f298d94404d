"""Builds and runs run-case: one case, one process, one result."""

import json
import os
import pathlib
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent.parent
SCRATCH = FOLDER / ".build"


class Failed(Exception):
    """Something that makes going on pointless; the text is for the user."""


def progress(text):
    """What is going on, for who waits: on standard error, on one line if that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:118]}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def progress_is_over():
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def build(*products):
    """Builds the products with optimisation and returns the folder they are in."""
    command = ["swift", "build", "-c", "release", "--package-path", str(FOLDER)]
    progress(f"building {', '.join(products)}; the first time takes a minute or two")
    started = time.monotonic()
    for product in products:
        result = subprocess.run(
            [*command, "--product", product], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if result.returncode != 0:
            progress_is_over()
            raise Failed(f"{product} does not build:\n{result.stdout}{result.stderr}")
    found = subprocess.run([*command, "--show-bin-path"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    progress_is_over()
    if time.monotonic() - started > 5:
        print(f"built in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return pathlib.Path(found.stdout.strip())


class RunCase:
    """The program that runs one case."""

    def __init__(self, path=None):
        self.path = pathlib.Path(path) if path else build("run-case") / "run-case"

    def _output(self, *arguments, loop=None, settings=None, processor=None, timeout=60):
        environment = {name: value for name, value in os.environ.items() if name != "GEVENT_LOOP"} | (settings or {})
        if loop:
            environment["GEVENT_LOOP"] = loop
        return subprocess.run(
            [self.path, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            preexec_fn=None if processor is None else lambda: os.sched_setaffinity(0, {processor}),
        )

    def _lines(self, *arguments):
        result = self._output(*arguments)
        if result.returncode != 0:
            raise Failed(f"run-case {' '.join(arguments)}: status {result.returncode}\n{result.stderr}")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def list(self):
        """The cases, in the order of the table."""
        return self._lines("--list")

    def loops(self):
        """The linked loops: name to what they say of themselves."""
        return {loop["name"]: loop["features"] for loop in self._lines("--facts")[0]["loops"]}

    def reference(self):
        """The reference loop alone: to be added to a report's Disturbance beside a run of something else."""
        return self._lines("--reference")[0]

    def run(
        self,
        case,
        loop=None,
        quick=False,
        operations=None,
        instructions=False,
        settings=None,
        processor=None,
        timeout=180,
    ):
        """One result, as run-case prints it; of a run that fails, "failed" with the reason and nothing else.

        `settings` are environment variables of the run.
        """
        arguments = [case]
        if quick:
            arguments.append("--quick")
        if operations:
            arguments += ["--operations", str(operations)]
        if instructions:
            arguments.append("--instructions")
        try:
            result = self._output(*arguments, loop=loop, settings=settings, processor=processor, timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"failed": f"it was not over after {timeout} s"}
        if result.returncode != 0:
            return {"failed": f"status {result.returncode}: {result.stderr.strip()[-400:]}"}
        return json.loads(result.stdout)


def chosen(cases, pattern):
    """Those whose id or title matches the regular expression."""
    found = [case for case in cases if pattern.search(case["id"]) or pattern.search(case["title"])]
    if not found:
        raise Failed(f"no case matches {pattern.pattern}; there are {', '.join(case['id'] for case in cases)}")
    return found
