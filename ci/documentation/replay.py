"""Follows pages as a reader does: from an empty folder, with the library by URL and version.

The replay writes the files that a page shows, runs the commands that it shows, and compares their output. It gets its
instructions from the prose: the paragraph right before a block.

  ... in `Sources/App/main.swift`:                the block is that file
  ... in `Package.swift`, below ... `some line`:  the block is inserted into that file, below the first such line
  ... in an empty folder ...                      all files made before are removed
  ... in the clone ...                            the next commands run in the repository that the page cloned
  ... the program at the top of this page as `Sources/App/main.swift` ...

A program without a file replaces `Sources/App/main.swift`, and is run. A page without a manifest continues where
"Getting started" ended.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from . import commands, markdown, programs, toolchain

FIRST = "GettingStarted.md"
# The file that a paragraph names for the block after it.
FILE = re.compile(r"(?:\b[Ii]n|\band|folder,) `((?:[\w-]+/)*[\w-]+\.swift)`(?=[,:])")
CODE = re.compile(r"`([^`]+)`")
PROGRAM_ABOVE = re.compile(r"the program at the top of this page\b[^.`]*`([^`]+)`")
# The output of SwiftPM, which precedes the program's.
BUILDING = re.compile(r"\A.*^Build [^\n]*complete![^\n]*\n", re.DOTALL | re.MULTILINE)
# The time limit of a block of commands in seconds; the slowest builds the library with optimisation.
LIMIT = 900


def replace(path, text):
    """Writes the file, with a date at least two seconds after the old one's, so that a build detects the change."""
    before = path.stat().st_mtime if path.exists() else 0
    path.write_text(text)
    date = max(path.stat().st_mtime, before + 2)
    os.utime(path, (date, date))


class Step(programs.Program):
    """A program or commands, and their expected output."""

    @property
    def is_program(self):
        return self.blocks[0].language == "swift"

    @property
    def text(self):
        return "".join(block.text for block in self.blocks)


def introduction(lines, block):
    """The paragraph before a block, as one line."""
    index = block.line - 3  # The line before the fence, from 0.
    paragraph = []
    while index >= 0:
        line = lines[index].strip()
        if line.endswith("-->"):
            while "<!--" not in lines[index]:
                index -= 1
        elif line.startswith("```"):
            break
        elif line:
            paragraph.insert(0, line)
        elif paragraph:
            break
        index -= 1
    return " ".join(paragraph)


def steps(text, blocks):
    """Returns (paragraph, step) for every block of a page that requires an action of the reader."""
    lines = text.split("\n")
    found = []
    for block in blocks:
        if block.marks & {"prints", "prints errors"}:
            attribute = "printed" if "prints" in block.marks else "errors"
            step = found[-1][1]
            setattr(step, attribute, (getattr(step, attribute) or "") + block.text)
        elif "continues" in block.marks:
            found[-1][1].blocks.append(block)
        elif block.language == "swift" or (block.language in commands.LANGUAGES and is_command(block)):
            found.append((introduction(lines, block), Step([block])))
    return found


def is_command(block):
    return all(commands.check_line(line, []) is None for line in block.text.splitlines())


def has_instructions(blocks):
    """Whether a page instructs its reader to make a package or to run a command."""
    return any(
        "manifest" in block.marks or (block.language in commands.LANGUAGES and not block.marks and is_command(block))
        for block in blocks
        if not block.not_run
    )


class Reader:
    """A reader with a new machine, which has only Swift."""

    def __init__(self, place):
        self.place = place
        self.package = place / "App"
        self.clone = place / "elsewhere" / "swift-gevent"
        for folder in (self.package, self.clone.parent, place / "home"):
            folder.mkdir()
        self.environment = {
            "PATH": f"{toolchain.toolchain_program('swift').parent}:{os.environ['PATH']}",
            "HOME": str(place / "home"),
            # Foundation, and so SwiftPM, reads this. Without it, SwiftPM would record the revision of this version in
            # the caller's home, and reject the next one.
            "CFFIXED_USER_HOME": str(place / "home"),
            "GIT_CONFIG_GLOBAL": str(place / "gitconfig"),
            "LANG": "C.UTF-8",
            # Programs on pages crash only on purpose.
            "SWIFT_BACKTRACE": "enable=no",
        }

    def follow(self, name, text, blocks):
        """Follows one page. Stops at the first problem, because the rest of the page depends on the failed step."""
        # Articles continue in the package of the first one. Pages about the project start in another folder.
        self.directory = self.package if "/" in name else self.clone.parent
        self.top = None
        for paragraph, step in steps(text, blocks):
            problem = self.act(paragraph, step)
            if problem:
                return [f"{step.blocks[0]}: error: a reader who follows this page gets stuck: {problem}"]
        return []

    @property
    def main(self):
        path = self.package / "Sources" / "App" / "main.swift"
        return path if path.parent.is_dir() else None

    def act(self, paragraph, step):
        block = step.blocks[0]
        if any(part.before or part.after for part in step.blocks):
            return "the program needs lines that the page hides"
        if "empty folder" in paragraph:
            self.start_over()
        if "in the clone" in paragraph.lower():
            self.directory = self.clone
        named = PROGRAM_ABOVE.search(paragraph)
        if named:
            if self.top is None:
                return "there is no program at the top of this page"
            self.write(named[1], self.top)
        if block.not_run:
            return None
        if not step.is_program:
            return self.run(step, block.text)
        if paragraph.endswith(":"):
            names = FILE.findall(paragraph)
            if names:
                return self.put(names[-1], paragraph, step)
        if self.main is None or self.directory != self.package:
            if self.top is not None:
                return "no file is named for this program"
            # A later paragraph may name its file.
            self.top = step.text
            return None
        imports = "" if programs.IMPORTS.search(step.text) else "import Gevent\n\n"
        replace(self.main, imports + step.text)
        return self.run(step, "swift build" if "compile only" in step.marks else "swift run")

    def start_over(self):
        """Empties the folder except for .build, because the next package has the same dependency."""
        self.directory = self.package
        for entry in self.package.iterdir():
            if entry.name == ".build":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text)

    def put(self, name, paragraph, step):
        _, _, place = paragraph.partition(f"`{name}`, below")
        if not place:
            self.write(name, step.text)
            return None
        line = CODE.findall(place)[0]
        path = self.directory / name
        if not path.is_file():
            return f"there is no {name} yet"
        lines = path.read_text().split("\n")
        index = next((index for index, each in enumerate(lines) if each.strip() == line), None)
        if index is None:
            return f"{name} has no line {line}"
        added = step.text.rstrip("\n").split("\n")
        # An earlier page may have added these lines already.
        if lines[index + 1 : index + 1 + len(added)] != added:
            replace(path, "\n".join([*lines[: index + 1], *added, *lines[index + 1 :]]))
        return None

    def run(self, step, script):
        problem = None
        lines = []
        for line in script.splitlines():
            # Only root can install packages. ci/test has done so: check that these are installed.
            if line.startswith("apt-get install "):
                problem = problem or self.not_installed(line.split()[2:])
            else:
                lines.append(line)
        if problem or not lines:
            return problem
        where = self.place / "where"
        try:
            result = toolchain.run(
                "bash", "-ec", "\n".join([*lines, f"pwd >'{where}'"]),
                cwd=self.directory, env=self.environment, limit=LIMIT,
            )
        except subprocess.TimeoutExpired:
            return f"{lines[0]}: takes longer than {LIMIT} s"
        if result.returncode == 0:
            self.directory = pathlib.Path(where.read_text().strip())
        result.stderr = BUILDING.sub("", result.stderr)
        return (problem := programs.judge(step, result)) and f"{lines[0]}: {problem}"

    @staticmethod
    def not_installed(packages):
        if shutil.which("dpkg-query") is None:
            return None
        names = [name for name in packages if not name.startswith("-")]
        result = toolchain.run("dpkg-query", "-W", "-f", "${Package}: ${db:Status-Status}\n", *names)
        missing = [name for name in names if f"{name}: installed" not in result.stdout]
        return f"not installed here: {' '.join(missing)}" if missing else None


def check(pages, only=None):
    """Follows all pages that have instructions: "Getting started" first, pages about the project last."""
    for name in ("GEVENT_WITH_LIBEV", "GEVENT_WITH_LIBUV"):
        if os.environ.get(name) == "0":
            print(f"documentation: no page is followed, because pages use the loop that {name}=0 leaves out")
            return []
    chosen = [page for page in pages if has_instructions(page[2])]
    chosen.sort(key=lambda page: (pathlib.Path(page[0]).name != FIRST, "/" not in page[0], page[0]))
    with tempfile.TemporaryDirectory(prefix="replay-") as directory:
        place = pathlib.Path(directory)
        print(toolchain.output_of("ci/consumers/publish", place), end="", flush=True)
        reader = Reader(place)
        problems = []
        for name, text, blocks in chosen:
            # All other pages need the package made by the first one.
            if only and only not in name and pathlib.Path(name).name != FIRST:
                continue
            start = time.monotonic()
            problems += reader.follow(name, text, blocks)
            print(f"documentation: followed {name}, {time.monotonic() - start:.0f} s", flush=True)
        return problems + self_test(reader)


# --- Self-test -------------------------------------------------------------------------------------------------------

MANIFEST = """\
In an empty folder, `Package.swift`:
```swift
// swift-tools-version: 6.3
import PackageDescription
let package = Package(
    name: "App",
    dependencies: [.package(url: "https://github.com/swift-gevent/swift-gevent", from: "0.1.0")],
    targets: [
        .executableTarget(
            name: "App",
            dependencies: [
                .product(name: "Gevent", package: "swift-gevent"),
            ]),
    ])
```
and `Sources/App/main.swift`:
```swift
import Gevent
print(Hub.current.loopName)
```
"""
TEST_TARGET = "In `Package.swift`, below the target's last line, `]),`:\n```swift\n.testTarget(name: \"AppTests\"),\n```\n"
LIBUV = """\
In `Package.swift`, below the line `.product(name: "Gevent", package: "swift-gevent"),`:
```swift
.product(name: "GeventLibuv", package: "swift-gevent"),
```
"""
RUN_ON_LIBUV = "```\nGEVENT_LOOP=libuv swift run\n```\n<!-- prints -->\n```text\nlibuv\n```\n"
# (the page, part of the expected problem; None for no problem)
SAMPLES = [
    (MANIFEST + RUN_ON_LIBUV, "depend on the product GeventLibuv"),
    (MANIFEST + LIBUV + RUN_ON_LIBUV, None),
    (MANIFEST + TEST_TARGET + "```\nswift build\n```\n", "AppTests"),
    (MANIFEST + LIBUV.replace('"Gevent"', '"Gevnet"'), "has no line"),
    ("In an empty folder, `a/b.swift`:\n```swift\nlet a = 1\n```\n```\necho $(<a/b.swift)\n```\n"
     "<!-- prints -->\n```text\nlet a = 1\n```\n", None),
    # A mention of a file without the form above does not assign it to the block.
    ("In an empty folder, `a.swift`:\n```swift\n1\n```\nWhen `a.swift` ends:\n```swift\n2\n```\n```\necho $(<a.swift)\n```\n"
     "<!-- prints -->\n```text\n1\n```\n", None),
    ("```\necho one\n```\n<!-- prints -->\n```text\ntwo\n```\n", "does not print"),
    ("```\ncd nowhere\n```\n", "fails: status 1"),
    ("```\nmkdir inside\ncd inside\n```\n```\necho ${PWD##*/}\n```\n<!-- prints -->\n```text\ninside\n```\n", None),
    ("```\napt-get install no-such-package\n```\n", "not installed here: no-such-package"),
    ("<!-- not run: it fails -->\n```\ncd nowhere\n```\n", None),
    ("In an empty folder:\n```\necho\n```\n<!-- before:\nlet a = 1\n-->\n```swift\nprint(a)\n```\n", "page hides"),
    ("In an empty folder:\n```\necho\n```\n```swift\nprint(1)\n```\nand\n```swift\nprint(2)\n```\n", "no file is named"),
    ("```swift\nprint(1)\n```\nIn an empty folder, the program at the top of this page as `a.swift`:\n"
     "```\necho $(<a.swift)\n```\n<!-- prints -->\n```text\nprint(1)\n```\n", None),
]


def self_test(reader):
    failures = []
    for text, complaint in SAMPLES:
        found = "\n".join(reader.follow("Page.md", text, markdown.blocks("Page.md", text)))
        if not (complaint in found if complaint else found == ""):
            failures.append(f"self-test: error: expected {complaint!r}, got {found!r} for\n{text}")
    print(f"documentation: replay's self-test, {len(SAMPLES)} samples, {len(failures)} misjudged")
    return failures
