"""Write `docs/results.md`, and the excerpt of it in the README, from the reproductions that are kept in `results/`.

    uv run python -m benchmarks.results_page

A test holds that both are what this writes. What is known about a table beyond its numbers, such as why one lies outside its
tolerance, stands in `note.md` of its folder and follows the table.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from paperbench.catalog import PAPERS
from paperbench.report.outcomes import OUTCOMES, SCALE, PublishedNumber, count_in_words, published_numbers
from paperbench.report.reproduction_document import display_table
from paperbench.report.results import Kept, made_in_words, read_all, run_cells
from paperbench.report.tables import to_markdown

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS, PAGE, README = (REPOSITORY / name for name in ("results", "docs/results.md", "README.md"))
NOTE = "note.md"
BEGIN, END = "<!-- results: begin, by python -m benchmarks.results_page -->", "<!-- results: end -->"
WIDTH = 132
EXCERPT_ROWS = 2
"""Numbers of each table in the README."""


def numbers(kept: Sequence[Kept]) -> list[PublishedNumber]:
    """Return every published number that a table can be made for at the paper's scale, each as it was made: once a cell.

    Tables with overrides of their own (another folder than `paper`) are shown, and count for nothing here.
    """
    return published_numbers((item.name, item.document) for item in kept if item.key == f"{item.name}/{SCALE}")


def page(kept: Sequence[Kept], folder: Path = RESULTS) -> str:
    """Return the document."""
    found = numbers(kept)
    parts = [
        "# Published tables, as they were made",
        "Written by `python -m benchmarks.results_page` from [results](../results); "
        "[reproductions.md](reproductions.md) says what each verdict means.",
        textwrap.fill(count_in_words(found), WIDTH),
        _counts_table(found),
    ]
    if not kept:
        parts.append("No table has been kept yet.")
    for item in kept:
        parts += [_heading(item), f"Made by {made_in_words(item.made)}{_unfinished(item)}.", _body(item)]
        note = folder / item.key / NOTE
        if note.is_file():
            parts.append(note.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def excerpt(kept: Sequence[Kept]) -> str:
    """Return what the README has between the markers, markers included."""
    lines = [
        BEGIN,
        textwrap.fill(count_in_words(numbers(kept)), WIDTH),
        "[docs/results.md](docs/results.md) has them all.",
    ]
    rows = [row for item in kept for row in _excerpt_rows(item)]
    if rows:
        lines += ["", _markdown(("table", "number", "paper", "ours", "verdict"), rows)]
    return "\n".join([*lines, END])


def with_excerpt(readme: str, kept: Sequence[Kept]) -> str:
    """Return the README with the excerpt in place of what stands between the markers. Raises `ValueError` where there are none."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(readme)) != 1:
        raise ValueError(f"README.md needs the two markers once: {BEGIN} and {END}")
    return pattern.sub(lambda _: excerpt(kept), readme)


# --- parts ------------------------------------------------------------------------------------------------------------


def _counts_table(found: Sequence[PublishedNumber]) -> str:
    rows = []
    for paper in dict.fromkeys(number.paper for number in found):
        own = Counter(number.outcome for number in found if number.paper == paper)
        rows.append((PAPERS[paper].title, str(own.total()), *(str(own[name]) for name in OUTCOMES)))
    return _markdown(("paper", "numbers", *OUTCOMES), rows)


def _heading(item: Kept) -> str:
    document = item.document
    special = f" with {' '.join(document['overrides'])}" if item.key != f"{item.name}/{SCALE}" else ""
    return f"## {item.name}{special}: {document['table']}. {document['caption']}"


def _unfinished(item: Kept) -> str:
    count = item.made["unfinished"]
    return f"; {count} of the runs {'is' if count == 1 else 'are'} not at the end" if count else ""


def _body(item: Kept) -> str:
    """Return the table and its notes, without its title."""
    return to_markdown(display_table(item.document)).partition("\n")[2].strip()


def _excerpt_rows(item: Kept) -> list[tuple[str, ...]]:
    made = {
        (row, column) for row, column, cell in run_cells(item.document) if cell["published"] is not None and cell["n"]
    }
    shown = display_table(item.document)
    found = []
    for cells in shown.rows:
        texts = dict(zip((column.name for column in shown.columns), (cell.text for cell in cells), strict=True))
        column = texts.get("column", item.document["columns"][0])
        if (texts["row"], column) in made:
            number = f"{texts['row']}, {column}" if "column" in texts else texts["row"]
            found.append((item.name, number, texts["paper"], texts["ours"], texts["verdict"]))
    return found[:EXCERPT_ROWS]


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def main() -> None:
    """Write both."""
    kept = read_all(RESULTS)
    PAGE.write_text(page(kept), encoding="utf-8")
    README.write_text(with_excerpt(README.read_text(encoding="utf-8"), kept), encoding="utf-8")
    print(count_in_words(numbers(kept)))


if __name__ == "__main__":
    main()
