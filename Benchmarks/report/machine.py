"""A description of the machine."""

import os
import platform
import re
import subprocess


def _first_match(text, pattern):
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else None


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _swift_version():
    try:
        return subprocess.run(["swift", "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return ""


def facts():
    """The properties of the machine that affect figures, for reports and baselines."""
    memory = _first_match(_read("/proc/meminfo"), r"^MemTotal:\s*(\d+) kB")
    cpu = _first_match(_read("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$")
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": cpu or platform.processor() or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory": f"{int(memory) / 2**20:.0f} GiB" if memory else "unknown",
        "swift": _first_match(_swift_version(), r"Swift version (\S+)") or "unknown",
    }


def sentence(machine):
    processors = f"{machine['processors']} processor" + ("" if machine["processors"] == 1 else "s")
    return (
        f"{machine['kernel']} {machine['architecture']}, {machine['cpu']}, {processors}, {machine['memory']}, "
        f"Swift {machine['swift']}"
    )
