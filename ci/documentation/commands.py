"""Checks that the commands, options, variables and files named on pages exist."""

import re
import shlex

from . import markdown, toolchain

# Blocks with one of these languages, or without one, contain commands. Other content is marked `text`.
LANGUAGES = {"", "sh", "shell", "console", "bash"}
# External programs, whose arguments are not checked.
OTHERS = {"apt-get", "cd", "curl", "docker", "echo", "git", "kill", "lldb", "mkdir", "nc", "python3"}
# Subcommands of `swift` that a page may use.
SWIFT = {"build", "format", "package", "run", "test"}
VARIABLE = re.compile(r"\bGEVENT_[A-Z_]*[A-Z]\b")
LINK = re.compile(r"\]\((?!https?:|#|doc:)([^)#\s]+)\)")
ABSENT = re.compile(r"<!--\s*absent:\s*(.*?)\s*-->", re.DOTALL)
# Packages that ci/test installs.
NEEDED = re.compile(r"^\s*(?:.* )?need ([\w.+-]+) ", re.MULTILINE)
# A path in this repository: it starts with one of the folders and contains no placeholder.
OUR_PATH = re.compile(r"^(?:Packages|Tests|Benchmarks|ci)/[\w./-]*$")


def known_variables():
    """The variables that the project reads."""
    names = set()
    for place in ("Package.swift", "Packages/*/Sources/**/*.swift", "Tests/**/*.swift", "ci/test", "ci/*/*"):
        for file in toolchain.ROOT.glob(place):
            if file.is_file() and file.suffix != ".md":
                names.update(VARIABLE.findall(file.read_text(encoding="utf-8", errors="replace")))
    return names


def check_line(line, own_programs):
    """Returns the problem with a command, or None. `own_programs` are the programs of the page's package."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return f"not valid shell syntax: {error}"
    while words and re.match(r"^\w+=", words[0]):
        words.pop(0)
    if not words:
        return None
    program, *arguments = words
    if program.startswith(("ci/", "Benchmarks/")):
        return check_script(program, arguments)
    if program == "swift":
        return check_swift(arguments, own_programs)
    if program not in OTHERS and program not in own_programs:
        return f"unknown command {program}; if the block is not commands, mark it ```text"
    return None


def check_script(program, arguments):
    path = toolchain.ROOT / program
    if not path.is_file():
        return f"there is no {program}"
    text = path.read_text()
    for argument in arguments:
        if argument.startswith("--"):
            option = argument.partition("=")[0]
            if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
                return f"{program} has no option {option}"
    if program == "ci/consumers/run":
        for argument in arguments:
            if not argument.startswith("-") and not (path.parent / argument).is_dir():
                return f"ci/consumers has no {argument}"
    return None


def check_swift(arguments, own_programs):
    if not arguments or arguments[0] not in SWIFT:
        return f"swift has no subcommand {' '.join(arguments[:1])}"
    package, positional, options = toolchain.ROOT, [], iter(arguments[1:])
    for word in options:
        if word == "--package-path":
            package = toolchain.ROOT / next(options, "")
            if not (package / "Package.swift").is_file():
                return f"there is no package at {package.relative_to(toolchain.ROOT)}"
        elif word in ("-c", "--product", "--filter"):
            value = next(options, None)
            if word == "--product":
                positional.append(value)
        elif not word.startswith("-"):
            positional.append(word)
    if arguments[0] == "run" and positional:
        name = positional[0]
        manifest = (package / "Package.swift").read_text()
        if f'"{name}"' not in manifest and name not in own_programs:
            return f"there is no program {name} to run"
    return None


def check_blocks(blocks, own_programs):
    for block in blocks:
        if block.language not in LANGUAGES or block.marks & {"prints", "prints errors"}:
            continue
        for number, line in enumerate(block.text.splitlines(), block.line):
            problem = check_line(line.removeprefix("$ "), own_programs)
            if problem:
                yield f"{block.file}:{number}: error: {problem}"


def check_variables(blocks, known):
    for block in blocks:
        for number, line in enumerate(block.text.splitlines(), block.line):
            for name in VARIABLE.findall(line):
                if name not in known:
                    yield f"{block.file}:{number}: error: nothing reads {name}"


def check_absent(name, text):
    """Checks that features a page lists as missing are missing: <!-- absent: NAME, … --> lists their declarations."""
    for match in ABSENT.finditer(text):
        for word in re.split(r",\s*", match[1].strip()):
            kinds = "class|struct|enum|actor|protocol|func|typealias"
            # A declaration that is marked unavailable only explains that the feature is missing.
            declaration = re.compile(
                rf"^(@available\(\*, unavailable.*\n)?[ ]*(?:public|open) [^({{=]*\b(?:{kinds}) {word}\b", re.MULTILINE
            )
            for file in toolchain.ROOT.glob("Packages/*/Sources/**/*.swift"):
                if any(not found[1] for found in declaration.finditer(file.read_text(encoding="utf-8"))):
                    line = text.count("\n", 0, match.start()) + 1
                    yield f"{name}:{line}: error: {word} is no longer missing: {file.relative_to(toolchain.ROOT)}"


def check_release():
    """Checks that files which repeat the version, or names of modules, agree with the sources."""
    version = toolchain.version()
    changes = (toolchain.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"\n## {version}\n" not in changes:
        yield f"CHANGELOG.md:1: error: there is no section {version}, which is the version in Exports.swift"
    index = (toolchain.ROOT / ".spi.yml").read_text(encoding="utf-8")
    for name in re.search(r"documentation_targets: \[(.*)\]", index)[1].split(", "):
        if name not in toolchain.modules():
            yield f".spi.yml:1: error: there is no target {name}"
    # If the image lacked a package, every start of a container would install it.
    image = (toolchain.ROOT / ".devcontainer" / "Dockerfile").read_text(encoding="utf-8")
    for package in NEEDED.findall((toolchain.ROOT / "ci" / "test").read_text(encoding="utf-8")):
        if not re.search(rf"(?<!\S){re.escape(package)}(?!\S)", image):
            yield f".devcontainer/Dockerfile:1: error: ci/test needs {package}"


def check_version(blocks):
    """Checks that manifests on pages require the current version."""
    version = toolchain.version()
    for block in blocks:
        for number, line in enumerate(block.text.splitlines(), block.line):
            for asked in re.findall(r'swift-gevent/swift-gevent".*from: "([^"]+)"', line):
                if asked != version:
                    yield f"{block.file}:{number}: error: requires version {asked}; this is {version}"


def check_prose(name, text, known):
    """For pages about the project itself: checks the code in backticks and the targets of links."""
    for line, code in markdown.spans(text):
        problem = None
        if re.match(r"^ci/\S+( |$)", code) and not re.search(r"[<>*…]", code):
            path, *arguments = shlex.split(code)
            if path.endswith("/") or arguments or (toolchain.ROOT / path).is_file():
                problem = check_script(path, arguments) if arguments else None
        if problem is None and OUR_PATH.match(code) and not re.search(r"/X(/|$)", code):
            if not (toolchain.ROOT / code).exists():
                problem = f"there is no {code}"
        for variable in VARIABLE.findall(code):
            if variable not in known:
                problem = f"nothing reads {variable}"
        if problem:
            yield f"{name}:{line}: error: {problem}"
    folder = (toolchain.ROOT / name).parent
    for line, content in enumerate(markdown.without_blocks(text), 1):
        for target in LINK.findall(content):
            if not (folder / target).exists():
                yield f"{name}:{line}: error: broken link: {target}"
