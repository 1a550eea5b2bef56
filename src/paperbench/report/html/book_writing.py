"""Write a book: an index, a page for each table, sweep, run and benchmark, one style and one script. No server, no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from paperbench.config.paths import expanded, short
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.engine.outputs import output_folder, refuse_run_folder
from paperbench.errors import ConfigError
from paperbench.report.html.book import INDEX, LEVELS, Contents, at_level, contents_of, pages_of
from paperbench.report.html.page import Page
from paperbench.report.html.render import SCRIPT, STYLE, is_made_by, resource, to_html

GENERATOR = "paperbench book"
FOLDER = "book"
OPTION = "--out"
MOST_BYTES = 18_000_000
"""Of all pages together; a page that would take more than its share leaves out curves and pictures."""
_FOLDERS = ("tables", "sweeps", "runs", "benchmarks")


@dataclass(frozen=True, kw_only=True)
class WrittenBook:
    """A book's index, the number of its pages by kind, and its bytes. `shortened` pages leave something out for its size."""

    index: Path
    contents: Contents
    pages: int
    size: int
    shortened: int


def write_book(
    root: Path, output: Path | None = None, *, benchmarks: Path | None = None, most_bytes: int = MOST_BYTES
) -> WrittenBook:
    """Write a book of all that is below `root` into the folder `output`, by default `<root>/book`.

    benchmarks: a folder whose CSV files get a page each. An earlier book there is replaced, pages that this one lacks are removed.
    Raises `ConfigError` where `root` is no folder or `output` holds anything but a book, and `EnvironmentError_` where it cannot be
    written.
    """
    root = expanded(root)
    if not root.is_dir():
        raise ConfigError(f"{short(root)}: no such folder; name the one that runs were written to, by default outputs")
    folder = output_folder(expanded(output) if output else root / FOLDER, option=OPTION)
    refuse_run_folder(folder, f"{OPTION} {short(folder)}")
    _refuse_foreign(folder)
    contents = contents_of(root, benchmarks)
    made = datetime.now().astimezone()
    count = len(contents.tables) + len(contents.sweeps) + len(contents.runs) + len(contents.benchmarks) + 1
    share = most_bytes // count
    written: set[Path] = set()
    size = shortened = 0
    with explain_os_errors(folder):
        for name in ("", *_FOLDERS):
            (folder / name).mkdir(parents=True, exist_ok=True)
    write_atomic(
        folder / INDEX, _unfinished(made)
    )  # first: by it the folder is known as a book's, should this be interrupted
    for name in (STYLE, SCRIPT):
        write_atomic(folder / name, resource(name))
        size += len(resource(name))
    for place, text, is_short in _texts(contents, made, share):
        write_atomic(folder / place, text)
        written.add(folder / place)
        size += len(text.encode())
        shortened += is_short
    _remove_stale(folder, written)
    return WrittenBook(index=folder / INDEX, contents=contents, pages=count, size=size, shortened=shortened)


def _texts(contents: Contents, made: datetime, share: int) -> Iterator[tuple[PurePosixPath, str, bool]]:
    """Yield places, texts at the first level of detail that takes no more than its share, and whether that leaves something out."""
    begin = 0
    for place, page in pages_of(contents):
        assets = "../" * (len(place.parts) - 1)

        def text_at(level: int, page: Page = page, assets: str = assets) -> str:
            return to_html(at_level(page, level), made=made, generator=GENERATOR, assets=assets)

        if page.subject in ("book", "benchmark"):
            yield place, text_at(0), False
            continue
        level, text = begin, text_at(begin)
        while level and len(text.encode()) <= share and len(more := text_at(level - 1).encode()) <= share:
            level, text = level - 1, more.decode()
        while level < LEVELS - 1 and len(text.encode()) > share:
            level += 1
            text = text_at(level)
        begin = level  # pages that follow each other are much alike
        yield place, text, at_level(page, level) is not page


def _unfinished(made: datetime) -> str:
    page = Page(
        subject="book", title="Not finished", lead="The book was interrupted while it was written; write it again.",
        badges=(), facts=(), sections=(), source="", book=INDEX,
    )  # fmt: skip
    return to_html(page, made=made, generator=GENERATOR, assets="")


def _refuse_foreign(folder: Path) -> None:
    """Raise `ConfigError` for a folder that holds files and is no book."""
    try:
        held = folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{OPTION} {short(folder)}: {error.strerror or error}; name another folder") from error
    if held and not is_made_by(GENERATOR, folder / INDEX):
        raise ConfigError(f"{OPTION} {short(folder)}: holds files and is no book; name an empty folder or a new one")


def _remove_stale(folder: Path, written: set[Path]) -> None:
    for name in _FOLDERS:
        for page in (folder / name).glob("*.html"):
            if page not in written and is_made_by(GENERATOR, page):
                with suppress(OSError):
                    page.unlink()
