"""Fenced code blocks of Markdown files, with the marks that control their checks."""

import dataclasses
import pathlib
import re
import textwrap

FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})[ ]*(?P<language>[^\s`]*)[ ]*$")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")

# The marks: HTML comments before a block, which readers do not see.
MARKS = {
    "continues": "the block continues the program before it; both are one program",
    "compile only": "the block is compiled but not run",
    "fails": "the program exits with a status other than 0",
    "manifest": "the block is Package.swift, or part of it",
    "prints": "the block is the output of the program before it",
    "prints errors": "the block is the standard error of the program before it; … stands for any text",
    "part": "the block is part of a file, which only the replay assembles",
}
# Marks with text: Swift code that the block needs and the reader does not, or a reason.
TEXT_MARKS = {
    "before": "code before the block",
    "after": "code after the block",
    "not run": "the reason why the replay does not run these commands",
}


class Misuse(Exception):
    """An unknown mark, or a fence that is not closed."""


@dataclasses.dataclass
class Block:
    file: str
    line: int  # The number of its first line of text, from 1.
    language: str
    text: str
    marks: set = dataclasses.field(default_factory=set)
    before: str = ""
    after: str = ""
    not_run: str = ""

    def __str__(self):
        return f"{self.file}:{self.line}"


def read_marks(comments, block):
    """Adds the marks in the comments before a block to the block."""
    for comment in comments:
        stripped = comment.strip()
        keyword, colon, text = stripped.partition(":")
        if stripped in MARKS:
            block.marks.add(stripped)
        elif colon and keyword in TEXT_MARKS:
            attribute = keyword.replace(" ", "_")
            setattr(block, attribute, getattr(block, attribute) + textwrap.dedent(text.strip("\n")) + "\n")
        else:
            known = ", ".join([*MARKS, *(f"{name}: …" for name in TEXT_MARKS)])
            raise Misuse(f"{block}: unknown mark <!-- {stripped.splitlines()[0]} -->; known are: {known}")
    return block


def blocks(name, text):
    """The fenced code blocks of a Markdown text, in order."""
    found = []
    lines = text.split("\n")
    index = 0
    comments = []
    while index < len(lines):
        opening = FENCE.match(lines[index])
        if not opening:
            if lines[index].lstrip().startswith("<!--"):
                start = index
                while index < len(lines) and "-->" not in lines[index]:
                    index += 1
                comment = "\n".join(lines[start : index + 1])
                comments.append(comment.strip().removeprefix("<!--").removesuffix("-->"))
            elif lines[index].strip():
                comments = []
            index += 1
            continue
        indent = len(opening["indent"])
        first = index + 1
        index = first
        while index < len(lines) and lines[index].strip() != opening["fence"]:
            index += 1
        if index == len(lines):
            raise Misuse(f"{name}:{first}: this block is never closed")
        body = [line[indent:] if not line[:indent].strip() else line for line in lines[first:index]]
        block = Block(name, first + 1, opening["language"], "".join(f"{line}\n" for line in body))
        found.append(read_marks(comments, block))
        comments = []
        index += 1
    return found


def without_blocks(text):
    """The same lines, with fenced blocks and HTML comments blanked out."""
    result = []
    fence = None
    text = re.sub(r"<!--.*?-->", lambda match: re.sub(r"[^\n]", "", match.group()), text, flags=re.DOTALL)
    for line in text.split("\n"):
        match = FENCE.match(line)
        if fence is None and match:
            fence = match["fence"]
            result.append("")
        elif fence is not None:
            if line.strip() == fence:
                fence = None
            result.append("")
        else:
            result.append(line)
    return result


def spans(text):
    """Yields (line, code) for all code in backticks outside of blocks. A span may extend over two lines."""
    prose = "\n".join(without_blocks(text))
    for match in SPAN.finditer(prose):
        if len(match[1]) == 1:
            yield prose.count("\n", 0, match.start()) + 1, " ".join(match[2].split())


def read(root, path):
    path = pathlib.Path(path)
    return str(path.relative_to(root)), path.read_text(encoding="utf-8")
