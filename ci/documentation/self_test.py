"""Plants a mistake of each kind and checks that it is found."""

import shutil

from . import commands, fragments, markdown, programs, refusals, symbols, toolchain

# (the page, part of the expected problem; None for no problem)
PAGES = [
    ("```swift\nprint(try spawn { 42 }.get())\n```\n<!-- prints -->\n```text\n42\n```\n", None),
    ("```swift\nprint(try spawn { 42 }.get())\n```\n<!-- prints -->\n```text\n43\n```\n", "does not print"),
    ("```swift\nlet broken: Int = \"text\"\n```\n", "Page.md:2:19: error: cannot convert"),
    ("```swift\ntry sleep(for: .zero, until: 3)\n```\n", "does not compile"),
    ("```swift\nimport Gevent\nfatalError(\"no\")\n```\n", "fails: status"),
    ("<!-- fails -->\n```swift\nfatalError(\"no\")\n```\n", None),
    ("```swift\nlet answer = 42\n```\nand\n<!-- continues -->\n```swift\nprint(answer)\n```\n", None),
    ("<!-- before:\nfunc fetch() -> Int { 1 }\n-->\n```swift\nprint(fetch())\n```\n", None),
    # Only the replay compares the output of commands.
    ("```swift\nprint(1)\n```\n```\nGEVENT_LOOP=x swift run\n```\n<!-- prints -->\n```text\n2\n```\n", None),
    (
        "```swift\nimport Gevent\nimport GeventTesting\nimport Testing\n@Test func fails() throws {\n"
        "    try withHub { hub in try sleep(for: .seconds(60)); #expect(hub.timerResolution == .zero) }\n}\n```\n",
        "fails: status",
    ),
]
# (a line of a shell block, whether it is valid)
LINES = [
    ("ci/test --quick --filter 'X'", True),
    ("ci/test --quickly", False),
    ("ci/tset", False),
    ("GEVENT_LOOP=libuv swift run -c release gevent-demo --json", True),
    ("swift run gevent-dmeo", False),
    ("swift run --package-path Benchmark Million", False),
    ("ci/consumers/run own-loop", True),
    ("ci/consumers/run no-loop", False),
    ("gevnet-demo", False),
    ("apt-get install libev-dev", True),
]
# A module with a symbol without a comment, a comment with a broken link, and a witness that needs no comment.
SAMPLE = """\
/// A type that says what it is; not ``Nowhere``.
public struct Sample: CustomStringConvertible {
    /// Makes one.
    public init() {}
    public var description: String { "" }
    public func undocumented() {}
}
"""


def check_page(build, text):
    found = programs.programs(markdown.blocks("Page.md", text))
    return programs.check(build, found)


def run(build):
    failures = []

    def expect(what, actual, expected):
        if actual != expected:
            failures.append(f"self-test: error: {what}: {actual!r} and not {expected!r}")

    for text, complaint in PAGES:
        found = "\n".join(check_page(build, text))
        if not (complaint in found if complaint else found == ""):
            failures.append(f"self-test: error: expected {complaint!r}, got {found!r} for\n{text}")
    for line, is_right in LINES:
        expect(line, commands.check_line(line, []) is None, is_right)
    page = "`GEVENT_NONSENSE`, `ci/test --nonsense`, `ci/nonsense`, `ci/test`, [a](ci/test), [b](ci/nonsense)\n"
    found = list(commands.check_prose("Page.md", page, {"GEVENT_LOOP"}))
    expect(page, len(found), 4)
    page = "<!-- absent: NoSuchType, select,\nSocketAddress -->"
    expect(page, ["SocketAddress is no longer missing" in problem for problem in commands.check_absent("Page.md", page)], [True])
    page = "```swift\n.package(url: \"https://github.com/swift-gevent/swift-gevent\", from: \"0.0.9\")\n```\n"
    expect(page, len(list(commands.check_version(markdown.blocks("Page.md", page)))), 1)
    try:
        markdown.blocks("Page.md", "<!-- compile olny -->\n```swift\n```\n")
        expect("an unknown mark", "accepted", "refused")
    except markdown.Misuse:
        pass
    block = markdown.Block("Sample.swift", 7, "swift", "let broken: Int = try fetch()\n")
    expect("a broken block in a comment", "Sample.swift:7:" in "".join(fragments.compile_all(build, [block])), True)
    failures += refused(build)
    failures += planted_module(build)
    print(f"documentation: self-test, {len(PAGES) + len(LINES) + 11} samples, {len(failures)} misjudged")
    return failures


def refused(build):
    """Checks an expected error that does not occur, an unexpected error, and an expected error that occurs."""
    source = build.scratch / "Refused.swift"
    failures = []
    for line, is_right in [
        ("let one: Int = 1  // expected-error {{cannot convert}}", False),
        ('let one: Int = "1"', False),
        ('let one: Int = "1"  // expected-error {{cannot convert}}', True),
    ]:
        source.write_text(f"{line}\n")
        if (refusals.compare(build, source) == []) != is_right:
            failures.append(f"self-test: error: {line} is judged wrongly")
    return failures


def planted_module(build):
    directory = build.scratch / "sample"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "Sample.swift").write_text(SAMPLE)
    toolchain.output_of("swiftc", "-parse-as-library", "-emit-module", "-emit-module-path",
                        directory / "Sample.swiftmodule", "-module-name", "Sample", "Sample.swift", cwd=directory)
    sample = toolchain.Module("Sample", directory, "SwiftTarget", [])
    # The module is in that directory, and not in our build.
    symbols.extract(toolchain.Build(directory, directory), sample, directory / "graphs", [directory])
    missing, _ = symbols.check_comments(directory / "graphs")
    broken = symbols.convert("Sample", None, directory / "graphs", directory / "Sample.doccarchive", [])
    failures = []
    expected = "Sample.swift:6: error: the public instance method Sample.undocumented() has"
    if len(missing) != 1 or expected not in missing[0]:
        failures.append(f"self-test: error: a missing comment gives {missing}")
    if len(broken) != 1 or "'Nowhere' doesn't exist" not in broken[0]:
        failures.append(f"self-test: error: a broken link gives {broken}")
    return failures
