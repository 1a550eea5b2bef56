"""What a document shows in fenced blocks: commands to type, and files to write.

A block marked `sh`, `bash`, `shell` or `console`, and a block without a mark, is read line by line. In a block with lines that
begin with `$ `, those are the commands and the others what they print; in a `sh` block every line is a command; in one without
a mark, every line that begins with the name of a program. A block whose first line is a comment that holds nothing but a path,
such as `# conf/experiment/mine.yaml`, is that file. After `# FILE, in NAME` follows what is to be put at the beginning of the
collection `NAME` in that file, after `# FILE, in place of TEXT` what is to replace the one line of it that begins with TEXT.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELL = ("sh", "bash", "shell", "console")
PROGRAMS = (
    "bash", "cd", "docker", "export", "git", "kill", "mkdir", "mpirun", "paperbench", "pip", "pipx", "pytest", "python",
    "python3", "ray", "sbatch", "scancel", "sh", "squeue", "srun", "ssh", "torchrun", "uv", "uvx", "watch",
)  # fmt: skip
"""First words that make a line of an unmarked block a command."""

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
_NOTE = re.compile(r"^<!--\s*(?P<text>.*?)\s*-->$")
_FILE = re.compile(
    r"^(?:#|//)\s*(?P<path>[\w./-]+/[\w.-]+\.\w+|pyproject\.toml)(?:, in place of (?P<old>.+)|, in (?P<name>\w+))?\s*$"
)
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line. `note` is the HTML comment right above it."""

    document: str
    line: int
    language: str
    lines: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Command:
    """One command. `variables` are set for it alone; `printed` is what the document says it prints, empty if nothing."""

    document: str
    line: int
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    printed: str
    note: str

    @property
    def text(self) -> str:
        return shlex.join(self.words)

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class WrittenFile:
    """A file shown in full, or text for one: for the collection `name`, or in place of the line that begins with `old`."""

    document: str
    line: int
    path: Path
    text: str
    name: str = ""
    old: str = ""

    @property
    def whole(self) -> bool:
        return not self.name and not self.old

    def put(self, folder: Path) -> None:
        """Writes the file below `folder`, or changes the one that is there. Raises `ValueError` if the place is not there."""
        file = folder / self.path
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.whole:
            file.write_text(self.text, encoding="utf-8")
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        at = _opening(lines, self.name) if self.name else _only(lines, self.old)
        if at is None:
            raise ValueError(f"{self.document}:{self.line}: {self.path} has not one place for {self.name or self.old}")
        lines[at : at + 1] = [lines[at], self.text] if self.name else [self.text]
        file.write_text("".join(lines), encoding="utf-8")


def _only(lines: list[str], start: str) -> int | None:
    found = [index for index, line in enumerate(lines) if line.lstrip().startswith(start)]
    return found[0] if len(found) == 1 else None


def _opening(lines: list[str], name: str) -> int | None:
    """The line after which the entries of the collection `name` begin."""
    at = _only(lines, name)
    if at is None:
        return None
    generated = (index for index in range(at, min(at + 3, len(lines))) if lines[index].strip() == "for spec in (")
    return next(generated, at)


def blocks(document: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order. Raises `ValueError` for one that is never closed."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at].lstrip())
        if opened is None:
            at += 1
            continue
        start = at + 1
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        at = start
        while at < len(lines) and not lines[at].lstrip().startswith(opened["fence"]):
            at += 1
        if at == len(lines):
            raise ValueError(f"{document}:{start}: the fenced block is never closed")
        note = _NOTE.match(above.strip())
        indent = len(lines[start - 1]) - len(lines[start - 1].lstrip())
        body = tuple(line[indent:] if line[:indent].isspace() else line for line in lines[start:at])
        yield Block(document, start + 1, opened["language"], body, note["text"] if note else "")
        at += 1


def written_file(block: Block) -> WrittenFile | None:
    """The file that a block shows, if it is one."""
    match = _FILE.match(block.lines[0]) if block.lines else None
    if match is None or block.language in SHELL:
        return None
    text = "\n".join(block.lines[1:]) + "\n"
    place = {key: match[key] or "" for key in ("name", "old")}
    return WrittenFile(block.document, block.line, Path(match["path"]), text, **place)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: one for each part of a line between `&&`, `||`, `;` and `|`."""
    if block.language not in ("", *SHELL) or written_file(block):
        return
    prompted = any(line.startswith("$ ") for line in block.lines)
    for number, line, printed in _logical_lines(block, prompted=prompted):
        if prompted or block.language or _first_word(line) in PROGRAMS:
            for words in _simple_commands(line):
                own = next((i for i, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
                variables = tuple((name, value) for name, _, value in (word.partition("=") for word in words[:own]))
                if words[own:]:
                    yield Command(block.document, number, tuple(words[own:]), variables, printed, block.note)


def _logical_lines(block: Block, *, prompted: bool) -> Iterator[tuple[int, str, str]]:
    """Line number, command line with continuations joined, and what follows it up to the next prompt."""
    at = 0
    while at < len(block.lines):
        start, line = at, block.lines[at]
        at += 1
        if prompted and not line.startswith("$ "):
            continue
        line = line.removeprefix("$ ")
        while line.endswith("\\") and at < len(block.lines):
            line = line[:-1] + " " + block.lines[at].strip()
            at += 1
        printed = []
        while prompted and at < len(block.lines) and not block.lines[at].startswith("$ "):
            printed.append(block.lines[at])
            at += 1
        if line.strip() and not line.lstrip().startswith("#"):
            yield block.line + start, line, "".join(f"{text}\n" for text in printed)


def _first_word(line: str) -> str:
    return next((word for word in line.split() if not _ASSIGNMENT.match(word)), "")


def _simple_commands(line: str) -> Iterator[list[str]]:
    """Words between separators that stand alone; a redirection takes the word after it along."""
    words: list[str] = []
    redirected = False
    for token in shlex.split(line, comments=True):
        if token in ("|", "||", "&&", ";", "&"):
            if words:
                yield words
            words = []
        elif token in (">", ">>", "<", "2>"):
            redirected = True
        elif redirected or token == "2>&1":
            redirected = False
        else:
            words.append(token)
    if words:
        yield words
