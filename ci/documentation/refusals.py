"""Code that the compiler must reject: parking calls in async functions, confined objects passed to another thread, and
gevent's names, for which it suggests ours. A test that compiles can't check this."""

import pathlib

from . import toolchain

REFUSED = pathlib.Path(__file__).parent / "refused.swift"


def check(build):
    return compare(build, REFUSED)


def compare(build, source):
    """Compares the compiler's diagnostics for `source` with the expectations in it, line by line."""
    # Ignores notes on the library's own declarations.
    result = toolchain.run(
        *["swiftc", "-frontend", "-typecheck", "-swift-version", "6", "-verify", "-verify-ignore-unrelated"],
        *[*build.search_paths, source],
    )
    if result.returncode == 0:
        return []
    own = [line for line in result.stderr.splitlines() if line.startswith(str(source))]
    return ["\n".join(own) or f"error: {source.name} cannot be checked:\n{result.stderr.strip()}"]
