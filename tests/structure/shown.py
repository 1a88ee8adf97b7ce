"""What the Markdown pages show: fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = sorted(
    path
    for pattern in ("*.md", "*/*.md", "*/*/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") or part in ("build", "generated") for part in path.relative_to(ROOT).parts)
)
"""Every page of the repository."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(r"(?:\w+=\S+ )*(?:\S*/bin/)?(?:hwc-onnx|python[\d.]*|pip|make|docker|git|apt-get|pytest) \S")
"""How a command begins in a block that is not only commands."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the block that follows it with no other text than blank lines between."""

    kind: str
    text: str
    follower: str = ""


@dataclass(frozen=True)
class Shown:
    """One command of a page, in a block of this kind; "indented" and "inline" are Markdown's other two ways to write code."""

    page: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"

    @property
    def words(self) -> list[str]:
        """As a shell splits it, without comments, variables before it and what is behind a pipe."""
        words = shlex.split(self.text.split(" | ")[0], comments=True)
        while words and re.fullmatch(r"\w+=\S+", words[0]):
            words.pop(0)
        return words


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    made = []
    for number, match in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        close = after is not None and not text[match.end() : after.start()].strip()
        made.append(Block(match[1], match[2], after[2] if after is not None and close else ""))
    return made


def lines(text: str) -> list[str]:
    """Whole commands: a line that ends in a backslash goes on."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines()]


def commands_of(page: Path, block: Block) -> list[Shown]:
    """The commands of one block: each line of a ```sh block, elsewhere the lines that begin with a program."""
    if block.kind in ("python", "yaml"):
        return []
    told = [line.removeprefix("$ ") for line in lines(block.text) if line and not line.startswith("#")]
    kept = told if block.kind == "sh" else [line for line in told if PROGRAM.match(line)]
    return [Shown(name_of(page), block.kind or "plain", line) for line in kept]


def shown(page: Path) -> list[Shown]:
    """Every command of a page's blocks, fenced or indented."""
    fenced = [command for block in blocks(page) for command in commands_of(page, block)]
    rest = FENCE.sub("", page.read_text(encoding="utf-8"))
    indented = [line.strip() for line in re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)]
    return fenced + [Shown(name_of(page), "indented", line) for line in indented if PROGRAM.match(line)]


def inline(page: Path) -> list[Shown]:
    """Commands with their arguments in the running text, between backticks."""
    rest = FENCE.sub("", page.read_text(encoding="utf-8")).replace("\\|", "|")
    spans = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)]
    return [Shown(name_of(page), "inline", span) for span in spans if PROGRAM.match(span)]
