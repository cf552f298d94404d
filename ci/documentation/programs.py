"""Assembles Swift blocks to programs, compiles and runs them, and compares their output with the page."""

import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import subprocess

from . import toolchain
from .markdown import Misuse

IMPORTS = re.compile(r"^(?:\w+ )?import ", re.MULTILINE)
OPTIONAL_IMPORT = re.compile(r"^(?:\w+ )?import (CLibev|CLibuv|GeventLibev|GeventLibuv|GeventLoops)$", re.MULTILINE)
IMPORTS_TESTING = re.compile(r"^import Testing$", re.MULTILINE)
# The settings of our own sources, so that code on a page also compiles under strict settings.
FLAGS = ["-swift-version", "6", "-warnings-as-errors"] + [
    word for feature in ("ExistentialAny", "MemberImportVisibility") for word in ("-enable-upcoming-feature", feature)
]
# The time limit of a program in seconds. Waits on pages take milliseconds.
LIMIT = 20
# Makes a program of a test file: calls the entry point that `swift test` calls.
TEST_RUNNER = """\
import Testing
@main struct Runner {
    static func main() async { await Testing.__swiftPMEntryPoint() as Never }
}
"""


@dataclasses.dataclass
class Program:
    """The blocks of one program, and its expected output."""

    blocks: list
    printed: str | None = None
    errors: str | None = None

    @property
    def marks(self):
        return set().union(*(block.marks for block in self.blocks))

    @property
    def name(self):
        first = self.blocks[0]
        return re.sub(r"\W+", "_", first.file.removesuffix(".md").rsplit("/", 1)[-1]) + f"_{first.line}"

    @property
    def missing(self):
        """An imported module that this build leaves out because its C library is not installed, or None."""
        imported = OPTIONAL_IMPORT.findall(self.source)
        return next((name for name in imported if name not in toolchain.modules()), None)

    @property
    def source(self):
        parts = []
        for block in self.blocks:
            # Makes the compiler report lines of the page.
            location = f'#sourceLocation(file: "{block.file}", line: {block.line})\n'
            parts.append(f"{block.before}{location}{block.text}#sourceLocation()\n{block.after}")
        # A page that shows imports must show all of them.
        if not any(IMPORTS.search(block.text) for block in self.blocks):
            parts.insert(0, "import Gevent\n")
        return "".join(parts)


def programs(blocks):
    """The programs of one file, in order."""
    found = []
    is_for_command = False
    for block in blocks:
        if block.marks & {"prints", "prints errors"}:
            if is_for_command:
                continue
            if not found:
                raise Misuse(f"{block}: there is no program above that could print this")
            if "prints" in block.marks:
                found[-1].printed = (found[-1].printed or "") + block.text
            else:
                found[-1].errors = (found[-1].errors or "") + block.text
        elif block.language == "":
            # Only the replay runs commands, except `swift run`, which means the program above.
            is_for_command = block.text != "swift run\n"
        elif block.language == "swift" and not block.marks & {"manifest", "part"}:
            if "continues" in block.marks:
                if not found:
                    raise Misuse(f"{block}: there is no program above that it could continue")
                found[-1].blocks.append(block)
            else:
                found.append(Program([block]))
            is_for_command = False
    return found


def environment():
    """Our environment without gevent's settings, because pages assume the defaults, and without Swift's backtraces,
    because programs on pages fail on purpose."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GEVENT_")}
    return {**others, "SWIFT_BACKTRACE": "enable=no"}


def compile_and_run(build, program):
    """Returns the problem with a program, or None."""
    directory = build.scratch / "programs" / program.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    source = program.source
    executable = directory / program.name
    if IMPORTS_TESTING.search(source):
        files = {"Tests.swift": source, "Runner.swift": TEST_RUNNER}
        arguments = ["--testing-library", "swift-testing"]
    else:
        files = {"main.swift": source}
        arguments = []
    for name, text in files.items():
        (directory / name).write_text(text)
    compiled = toolchain.run(
        *["swiftc", "-g", *FLAGS, *build.search_paths, "-module-name", program.name, "-o", executable],
        *[directory / name for name in files],
        *[build.library, "-Xlinker", "-rpath", "-Xlinker", build.library.parent],
    )
    if compiled.returncode != 0:
        return f"does not compile:\n{compiled.stderr.strip()}"
    if "compile only" in program.marks:
        return None
    try:
        result = toolchain.run(executable, *arguments, cwd=directory, env=environment(), limit=LIMIT)
    except subprocess.TimeoutExpired:
        return f"runs for longer than {LIMIT} s"
    return judge(program, result)


def judge(program, result):
    printed = f"status {result.returncode}\n{result.stdout}{result.stderr}".rstrip()
    if (result.returncode != 0) != ("fails" in program.marks):
        return f"{'does not fail' if 'fails' in program.marks else 'fails'}: {printed}"
    if program.printed is not None and result.stdout != program.printed:
        return f"does not print what the page says:\n{printed}"
    if program.errors is not None:
        pattern = ".*?".join(re.escape(part) for part in program.errors.split("…"))
        if not re.fullmatch(pattern, result.stderr, re.DOTALL):
            return f"does not print what the page says on standard error:\n{printed}"
    return None


def check(build, found):
    """Compiles and runs all programs, as many in parallel as there are processors."""
    problems = []
    names = [program.name for program in found]
    for program in found:
        if names.count(program.name) > 1:
            raise Misuse(f"{program.blocks[0]}: another page also has a program {program.name}")
        if program.missing:
            print(f"{program.blocks[0]}: left out, because {program.missing} is not built here")
    found = [program for program in found if not program.missing]
    _ = build.library
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for program, problem in zip(found, pool.map(lambda program: compile_and_run(build, program), found)):
            if problem:
                problems.append(f"{program.blocks[0]}: error: this program {problem}")
    return problems


# --- Manifests -------------------------------------------------------------------------------------------------------


def check_manifest(build, block):
    """Returns the problems with a Package.swift on a page."""
    directory = build.scratch / "manifests" / re.sub(r"\W+", "_", str(block))
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    text = block.text
    if "swift-tools-version" not in text:
        arguments = text.strip().rstrip(",")
        head = "// swift-tools-version: 6.3\nimport PackageDescription\n"
        text = f'{head}let package = Package(name: "part", {arguments})\n'
    (directory / "Package.swift").write_text(text)
    try:
        manifest = json.loads(toolchain.output_of("swift", "package", "dump-package", "--package-path", directory))
    except toolchain.Failed as failure:
        return [f"{block}: error: invalid manifest:\n{failure}"]
    problems = []
    for target in manifest["targets"]:
        for dependency in target["dependencies"]:
            name, package, *_ = dependency.get("product") or [None, None]
            if package == "swift-gevent" and name not in toolchain.products():
                problems.append(f"{block}: error: swift-gevent has no product {name}")
    return problems


def declared_programs(block):
    """The programs that a manifest on a page declares for `swift run`."""
    return re.findall(r'\.executableTarget\(\s*name: "([^"]+)"', block.text)
