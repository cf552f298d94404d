"""What the machine is, and whether something else was running on it meanwhile."""

import dataclasses
import os
import platform
import re
import subprocess


def _first_match(path, pattern):
    try:
        with open(path) as file:
            found = re.search(pattern, file.read(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1).strip() if found else None


def _cpu():
    return _first_match("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.processor() or platform.machine()


def _swift():
    try:
        text = subprocess.run(["swift", "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return "unknown"
    found = re.search(r"Swift version (\S+)", text)
    return found.group(1) if found else "unknown"


def facts():
    """What a figure depends on, as it goes into reports and baselines."""
    memory = _first_match("/proc/meminfo", r"^MemTotal:\s*(\d+) kB")
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _cpu(),
        "processors": len(os.sched_getaffinity(0)),
        "memory": f"{int(memory) / 2**20:.0f} GiB" if memory else "unknown",
        "swift": _swift(),
    }


def sentence(machine):
    count = machine["processors"]
    processors = f"{count} processor" + ("" if count == 1 else "s")
    return (
        f"{machine['kernel']} {machine['architecture']}, {machine['cpu']}, {processors}, {machine['memory']}, "
        f"Swift {machine['swift']}"
    )


# A run counts as disturbed if the reference loop beside it lost its processor for more than this share of its time, or
# took so much longer than at its best: something else used the processor, its caches, or its clock.
LOST_TIME = 0.03
SLOWED = 1.15
# And a machine as too noisy, if this share of the runs was disturbed.
TOO_MANY = 0.25


@dataclasses.dataclass
class Disturbance:
    """Which runs were disturbed. Decided at the end, when the reference loop's best is known."""

    runs: list = dataclasses.field(default_factory=list)

    def add(self, result):
        """Takes a result of run-case; what is returned tells later whether it was disturbed."""
        self.runs.append((result["reference"], result["referenceShare"]))
        return len(self.runs) - 1

    def best(self):
        steps = sorted(step for reference, _ in self.runs for step in reference)
        # Not the very best, which may be one lucky moment.
        return steps[len(steps) // 20] if steps else 0

    def disturbed(self):
        """One truth value for each run, in order."""
        best = self.best()
        return [
            share < 1 - LOST_TIME or (best > 0 and max(reference) > best * SLOWED) for reference, share in self.runs
        ]

    def share(self):
        found = self.disturbed()
        return sum(found) / len(found) if found else 0
