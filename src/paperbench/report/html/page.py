"""The content of a page: sections of blocks. The template draws each kind of block, `render` writes it as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from paperbench.report.html.charts import Chart
from paperbench.report.html.dotplot import DotPlot
from paperbench.report.html.pictures import Gallery
from paperbench.report.tables import Table, Tone


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number worth a glance; `exact` is its value in full, `remark` stands below, such as the paper's number."""

    label: str
    text: str
    exact: str
    unit: str = ""
    remark: str = ""
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    tiles: tuple[Tile, ...]
    kind: Literal["tiles"] = "tiles"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and what it is; `code` for what is typed or computed rather than said."""

    name: str
    text: str
    code: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    facts: tuple[Fact, ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts next to each other; `note` holds for all of them, `key` explains the signs of dot plots."""

    charts: tuple[Chart | DotPlot, ...]
    note: str = ""
    key: bool = False
    kind: Literal["charts"] = "charts"


@dataclass(frozen=True, kw_only=True)
class Code:
    """The text of a file."""

    text: str
    label: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something a reader must not miss; `points` stand below the text."""

    text: str
    tone: Tone = "warn"
    points: tuple[str, ...] = ()
    kind: Literal["notice"] = "notice"


@dataclass(frozen=True, kw_only=True)
class Prose:
    text: str
    kind: Literal["prose"] = "prose"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks that open on demand."""

    summary: str
    blocks: tuple[Block, ...]
    kind: Literal["fold"] = "fold"


Block = Table | Tiles | Facts | Charts | Gallery | Code | Notice | Prose | Fold


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading of the page; `slug` is its anchor."""

    slug: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Badge:
    text: str
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report, or a page of a book. `source` is the folder or file it was made from.

    `book` is the book's index as seen from this page, empty where the page stands by itself.
    """

    subject: Literal["run", "sweep", "reproduction", "benchmark", "book"]
    title: str
    lead: str
    badges: tuple[Badge, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    source: str
    left_out: tuple[str, ...] = field(default=())
    book: str = ""

    def tables(self) -> list[Table]:
        """Return every table, those in folds too, in the order of the page."""
        return [table for section in self.sections for table in _tables(section.blocks)]


def _tables(blocks: Sequence[Block]) -> list[Table]:
    found: list[Table] = []
    for block in blocks:
        if isinstance(block, Table):
            found.append(block)
        elif isinstance(block, Fold):
            found += _tables(block.blocks)
    return found


def section(slug: str, title: str, blocks: Sequence[Block | None]) -> list[Section]:
    """Return the section, or nothing where no block is left of it."""
    present = tuple(block for block in blocks if block is not None)
    return [Section(slug=slug, title=title, blocks=present)] if present else []
