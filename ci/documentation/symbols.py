"""Checks that the public API is documented, and that DocC builds the documentation without a warning."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import urllib.parse

from . import toolchain

# Kinds that need no comment. An extension of another module's type is documented by its members.
EXEMPT_KINDS = {"swift.extension"}


def extract(build, module, directory, search=()):
    """Writes the symbol graphs of a module."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    reexported = toolchain.exported(module)
    toolchain.output_of(
        toolchain.toolchain_program("swift-symbolgraph-extract"),
        *["-module-name", module.name, "-output-dir", directory, "-target", toolchain.target_triple()],
        *["-minimum-access-level", "public", "-emit-extension-block-symbols"],
        # Symbols of the modules that Gevent exports are documented as Gevent's.
        *([f"-experimental-allowed-reexported-modules={','.join(reexported)}"] if reexported else []),
        *build.search_paths,
        *[word for path in search for word in ("-I", path)],
    )


# --- Comments --------------------------------------------------------------------------------------------------------


def undocumented(graph):
    """Yields (place, kind, name) for each symbol without a comment. Inherited documentation counts."""
    for symbol in graph["symbols"]:
        # Members inherited from a protocol or class have no location, and are documented where they are declared.
        if "docComment" in symbol or "location" not in symbol or symbol["kind"]["identifier"] in EXEMPT_KINDS:
            continue
        yield place(symbol), symbol["kind"]["displayName"].lower(), ".".join(symbol["pathComponents"])


def place(symbol):
    path = pathlib.Path(urllib.parse.unquote(symbol["location"]["uri"].removeprefix("file://")))
    if path.is_relative_to(toolchain.ROOT):
        path = path.relative_to(toolchain.ROOT)
    return f"{path}:{symbol['location']['position']['line'] + 1}"


def graphs(directory):
    return [json.loads(file.read_text()) for file in sorted(directory.glob("*.symbols.json"))]


def check_comments(directory):
    """Returns the problems, and the number of symbols."""
    problems, count = [], 0
    for graph in graphs(directory):
        count += sum("location" in symbol for symbol in graph["symbols"])
        for where, kind, name in undocumented(graph):
            problems.append(f"{where}: error: the public {kind} {name} has no documentation")
    return problems, count


# --- Building --------------------------------------------------------------------------------------------------------


def convert(name, catalog, graph_directory, archive, dependencies):
    """Runs DocC and returns its warnings and errors as problems.

    DocC itself must not treat warnings as errors: it would write no archive for the modules that link to this one.
    """
    shutil.rmtree(archive, ignore_errors=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    result = toolchain.run(
        *[toolchain.toolchain_program("docc"), "convert", *([catalog] if catalog else [])],
        *["--additional-symbol-graph-dir", graph_directory, "--output-dir", archive],
        *["--fallback-display-name", name, "--fallback-bundle-identifier", f"swift-gevent.{name}"],
        *["--fallback-default-module-kind", "Module"],
        *["--emit-fixits", "--enable-experimental-external-link-support"],
        *[word for dependency in dependencies for word in ("--dependency", dependency)],
    )
    output = result.stdout + result.stderr
    found = [shorten(complaint) for complaint in complaints(output)]
    if result.returncode != 0 and not found:
        found = [f"{name}: error: docc: status {result.returncode}\n{output}"]
    return found


def complaints(output):
    """DocC's warnings and errors, each with the lines that suggest a correction."""
    found, is_continued = [], False
    for line in output.splitlines():
        if re.search(r"(?:^|: )(?:error|warning): ", line):
            found.append(line)
            is_continued = True
        elif re.search(r": (?:fixit|note): ", line):
            is_continued = False
        elif is_continued:
            found[-1] += f"\n    {line}"
    return found


def shorten(line):
    return line.replace(f"{toolchain.ROOT}/", "").replace(" warning: ", " error: ", 1)


def merge(archives, result):
    shutil.rmtree(result, ignore_errors=True)
    toolchain.output_of(
        toolchain.toolchain_program("docc"), "merge", *archives, "--output-path", result,
        "--synthesized-landing-page-name", "swift-gevent", "--synthesized-landing-page-kind", "Package",
    )


def check(build):
    """Extracts, checks and converts every module; returns the problems."""
    problems, total, archives = [], 0, {}
    modules = toolchain.swift_modules()
    places = {module.name: build.scratch / "graphs" / module.name for module in modules}
    _ = build.search_paths
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda module: extract(build, module, places[module.name]), modules))
    for module in modules:
        directory = places[module.name]
        missing, count = check_comments(directory)
        problems += missing
        total += count
        archive = build.scratch / "archives" / f"{module.name}.doccarchive"
        below = [archives[name] for name in toolchain.needs(module) if name in archives]
        problems += convert(module.name, module.catalog, directory, archive, below)
        archives[module.name] = archive
    print(f"documentation: {total} public symbols in {len(archives)} modules", flush=True)
    if not problems:
        result = build.scratch / "swift-gevent.doccarchive"
        merge(archives.values(), result)
        shown = result.relative_to(toolchain.ROOT)
        print(f"documentation: python3 -m http.server --directory {shown}; then http://localhost:8000/documentation/")
    return problems
