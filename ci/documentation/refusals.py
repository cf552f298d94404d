"""What the compiler is to refuse: parking calls in async functions, confined objects on their way to another thread,
and names of gevent's, which it answers with ours. No test that compiles can tell."""

import pathlib

from . import toolchain

REFUSED = pathlib.Path(__file__).parent / "refused.swift"


def check(build):
    return compare(build, REFUSED)


def compare(build, source):
    """Whether what the compiler says of `source` is what that expects, line by line."""
    # Of the library's own declarations, which are mentioned too, nothing is expected.
    result = toolchain.run(
        *["swiftc", "-frontend", "-typecheck", "-swift-version", "6", "-verify", "-verify-ignore-unrelated"],
        *[*build.search_paths, source],
    )
    if result.returncode == 0:
        return []
    own = [line for line in result.stderr.splitlines() if line.startswith(str(source))]
    return ["\n".join(own) or f"error: {source.name} cannot be checked:\n{result.stderr.strip()}"]
