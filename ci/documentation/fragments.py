"""Swift blocks in doc comments of public symbols. They are parts of programs, so they are compiled but not run."""

import pathlib
import re
import urllib.parse

from . import markdown, symbols, toolchain
from .programs import FLAGS

ASSUMED = pathlib.Path(__file__).parent / "assumed.swift"
IMPORTS = ["Glibc", "Testing"]
# A declaration that is not allowed in a function is put into a type.
IS_MEMBER = re.compile(r"^\s*@Test\b")
# Names that a block may use without declaring them.
PARAMETERS = {
    "socket": "Socket", "stream": "any ByteStream", "greenlet": "Greenlet<Int>", "hub": "Hub", "queue": "Queue<Job>",
    "body": "[UInt8]", "bytes": "inout [UInt8]",
}
# A block with a declaration that cannot be local stands at the top level.
IS_GLOBAL = re.compile(r"^(?:extension|@section)\b", re.MULTILINE)
# A block that returns a value becomes a closure whose type the compiler infers.
RETURNS = re.compile(r"^return \S", re.MULTILINE)


def blocks_in_comments(graph):
    for symbol in graph["symbols"]:
        comment = symbol.get("docComment", {})
        if comment.get("module") != graph["module"]["name"] and "uri" not in comment:
            continue
        lines = comment["lines"]
        path = pathlib.Path(urllib.parse.unquote(comment["uri"].removeprefix("file://")))
        name = str(path.relative_to(toolchain.ROOT)) if path.is_relative_to(toolchain.ROOT) else str(path)
        text = "".join(f"{line['text']}\n" for line in lines)
        for block in markdown.blocks(name, text):
            if block.language == "swift":
                # The range of a line contains its position in the file.
                block.line = lines[block.line - 1]["range"]["start"]["line"] + 1
                yield block


def as_declaration(number, block):
    location = f'#sourceLocation(file: "{block.file}", line: {block.line})\n'
    body = f"{location}{block.text.replace('…', '')}#sourceLocation()\n"
    if IS_GLOBAL.search(block.text):
        return body
    if IS_MEMBER.match(block.text):
        return f"struct Fragment{number} {{\n{body}}}\n"
    parameters = ", ".join(
        f"{name}: {type}"
        for name, type in PARAMETERS.items()
        if re.search(rf"\b{name}\b", block.text) and not re.search(rf"\b(?:let|var)\s+{name}\b", block.text)
    )
    if RETURNS.search(block.text):
        body = f"_ = {{ () throws in\n{body}}}\n"
    return f"func fragment{number}({parameters}) throws {{\n{body}}}\n"


def check(build):
    found = {}
    for module in toolchain.swift_modules():
        for graph in symbols.graphs(build.scratch / "graphs" / module.name):
            for block in blocks_in_comments(graph):
                found[str(block)] = block
    print(f"documentation: {len(found)} blocks in doc comments", flush=True)
    return compile_all(build, found.values())


def compile_all(build, blocks):
    modules = [module.name for module in toolchain.swift_modules()]
    modules += [module.name for module in toolchain.modules().values() if module.kind == "SystemLibraryTarget"]
    directory = build.scratch / "fragments"
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "Fragments.swift"
    source.write_text(
        "".join(f"import {name}\n" for name in sorted([*IMPORTS, *modules]))
        + "".join(as_declaration(number, block) for number, block in enumerate(blocks))
    )
    # Unused results are acceptable in a fragment.
    result = toolchain.run(
        *["swiftc", "-typecheck", "-suppress-warnings", *(flag for flag in FLAGS if flag != "-warnings-as-errors")],
        *[*build.search_paths, "-module-name", "Fragments", source, ASSUMED],
    )
    return [] if result.returncode == 0 else [f"error: blocks in doc comments do not compile:\n{result.stderr.strip()}"]
