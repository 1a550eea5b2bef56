"""A book of all there is: its index, its links, its size, and what it never writes over."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.engine.rundir import FAILED
from paperbench.errors import ConfigError
from paperbench.report.html import book
from paperbench.report.html.book_writing import MOST_BYTES, write_book
from paperbench.report.html.render import to_html
from paperbench.report.outcomes import published_numbers
from tests.report.html import made
from tests.report.html.browser import Browser, chromium

pytestmark = pytest.mark.slow

GRID = [{"lr": lr, "seed": seed} for lr in (0.5, 10.0) for seed in (0, 1)]


class _Links(HTMLParser):
    """Targets of a page's links, style and script, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag in ("a", "link", "script"):
            self.targets += [values[name] for name in ("href", "src") if name in values]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Outputs with a sweep of four runs, a failed run beside it, and a table made by two of the four."""
    folder = tmp_path / "outputs"
    sweep = made.sweep(folder, GRID, pictures=[("samples.png", 30)])
    made.run(folder / "toy" / "failed", state=FAILED, message="error: no more", logged=3)
    reproduction = folder / "reproduce" / "toy-paper" / "table-1" / "paper"
    first, second = sorted(path for path in (folder / "toy").iterdir() if len(path.name) == 12)[:2]
    value = made.cell([51.0, 52.0], 51.7)
    value["values"] = [
        {"seed": seed, "value": 51.0 + seed, "run": f"../../../../toy/{path.name}"}
        for seed, path in enumerate((first, second))
    ]
    made.reproduction(reproduction, ["R"], {"row": {"R": value}})
    made.record(reproduction, [made.entry(reproduction, path, {}) for path in (first, second)])
    assert sweep.is_dir()
    return folder


@pytest.fixture(autouse=True)
def _without_kept_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(book, "shipped_results", lambda: tmp_path / "no-results")


def pages(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def column(page: str, name: str) -> list[str]:
    """The texts of a column of the page's first table that has it."""
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        names = re.findall(r'data-name="([^"]*)"', table)
        if name in names:
            rows = re.findall(r"<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
            cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
            return [re.sub(r"<small.*?</small>|<[^>]*>", "", row[names.index(name)]) for row in cells]
    raise AssertionError(f"no column {name}")


def test_each_run_sweep_and_table_has_a_page_and_every_link_leads_to_one(root: Path) -> None:
    written = write_book(root)

    found = pages(root / "book")
    kinds = [name.partition("/")[0] for name in found]
    assert written.index == root / "book/index.html"
    assert written.pages == len(found) == 8
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"index.html": 1, "runs": 5, "sweeps": 1, "tables": 1}
    reached = set()
    for name, text in found.items():
        links = _Links(text)
        for target in links.targets:
            file, _, anchor = target.partition("#")
            if target.startswith("data:"):
                continue
            path = ((root / "book" / name).parent / file).resolve() if file else root / "book" / name
            assert path.is_file(), f"{name}: {target}"
            assert not anchor or anchor in _Links(path.read_text()).anchors, f"{name}: {target}"
            reached.add(path)
    assert {root / "book" / name for name in found} <= reached


def test_a_table_leads_to_the_runs_behind_its_numbers(root: Path) -> None:
    write_book(root)

    found = pages(root / "book")
    (table,) = (text for name, text in found.items() if name.startswith("tables/"))
    seeds = re.search(r'data-table="measurements".*?</table>', table, re.DOTALL)
    assert seeds is not None
    targets = _Links(seeds[0]).targets
    assert len(targets) == 2
    for seed, target in enumerate(targets):
        page = found[target.removeprefix("../")]
        run = next(run for run in book.contents_of(root).runs if run.name in target)
        assert run.name in page
        assert f'data-value="{51.0 + seed}"' in seeds[0]


def test_a_sweep_leads_to_its_runs(root: Path) -> None:
    write_book(root)

    (text,) = (text for name, text in pages(root / "book").items() if name.startswith("sweeps/"))
    runs = re.search(r'data-table="runs".*?</table>', text, re.DOTALL)
    assert runs is not None
    assert len(set(_Links(runs[0]).targets)) == 4


def test_the_index_tells_state_result_and_cost(root: Path) -> None:
    write_book(root)
    index = (root / "book/index.html").read_text()

    assert sorted(column(index, "state")) == ["done"] * 4 + ["failed"]
    assert column(index, "commit") == ["0123456"]
    assert column(index, "machine") == ["a processor, 2 cores"]
    assert column(index, "made") == ["here"]
    assert column(index, "states") == ["4 done"]


def _shipped(name: str, cell: Callable[[], dict[str, Any]], **more: Any) -> dict[str, Any]:
    rows = [{"row": "MNIST, 3 latent, AEVB, test", "kind": "runs", "cells": {"1e+06": cell()}}]
    return {"name": name, "paper": "vae", "scale": "paper", "overrides": [], "rows": rows, **more}


def test_the_index_counts_each_published_number_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of the shipped tables by their verdicts; a table of somebody's own, and another scale, count for nothing."""
    nothing = published_numbers([])
    first = nothing[0]
    cell = made.cell([1.0], 1.0)
    document = {"name": first.table, "rows": [{"row": first.row, "cells": {first.column: cell}}]}
    outside = {
        "name": first.table,
        "rows": [
            {"row": first.row, "cells": {first.column: made.cell([9.0], 1.0, verdict="outside tolerance, worse")}}
        ],
    }
    empty = {
        "name": first.table,
        "rows": [{"row": first.row, "cells": {first.column: made.cell([], 1.0, verdict="missing")}}],
    }

    def outcomes(*documents: dict[str, Any]) -> list[str]:
        found = published_numbers([(text["name"], text) for text in documents])
        assert len(found) == len(nothing)
        assert found[1:] == nothing[1:]
        return [found[0].outcome]

    assert {number.outcome for number in nothing} == {"not made"}
    assert outcomes(document) == ["within tolerance"]
    assert outcomes(document, outside) == ["within tolerance"]
    assert outcomes(outside, document) == ["outside"]
    assert outcomes(empty, document) == ["within tolerance"]
    assert outcomes(document, empty) == ["within tolerance"]

    def counted(place: str, **changes: Any) -> int:
        cells = {first.row: {first.column: made.cell([1.0], 1.0)}}
        changes |= {"name": first.table, "paper": first.paper}
        made.reproduction(root / "reproduce/vae/figure-2" / place, [first.column], cells, **changes)
        write_book(root)
        index = (root / "book/index.html").read_text()
        return sum(map(int, column(index, "within tolerance")[: len({n.paper for n in nothing})]))

    assert counted("other-scale", scale="short") == 0
    assert counted("own-settings", overrides=["optim.lr=1"]) == 0
    assert counted("paper") == 1


def test_what_travels_with_the_program_is_said_to_be_made_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    target = kept / "toy-paper/table-1/paper"
    value = made.cell([51.0], 51.7)
    value["values"] = [{"seed": 0, "value": 51.0, "run": "toy/0123"}]
    who = {
        "commits": ["fedcba9876"], "local_changes": False, "machines": ["Z80, 1 core"], "first_day": "2001-02-03",
        "last_day": "2001-02-03", "runs": 1, "unfinished": 0, "seconds": 7200,
    }  # fmt: skip
    made.reproduction(target, ["R"], {"row": {"R": value}}, made=who)
    run = {"name": "toy/0123", "metrics": {"toy/score": 51.0}, "curve": [], "seed": 0}
    (target / "runs.json").write_text(json.dumps({"schema_version": 1, "runs": [run]}))
    (target / "note.md").write_text("Its\nfirst half.\n\nIts <second> half.\n")
    monkeypatch.setattr(book, "shipped_results", lambda: kept)

    written = write_book(root)

    assert written.contents.left_out == ()
    index = (root / "book/index.html").read_text()
    assert sorted(column(index, "made")) == ["elsewhere", "here"]
    page = pages(root / "book")["tables/toy-paper-table-1-paper-elsewhere.html"]
    assert "<dt>made elsewhere</dt>" in page
    assert "commit fedcba9 on Z80, 1 core; 2001-02-03; 1 run, 2.0 hours" in page
    assert "<p>Its first half.</p>" in page
    assert "<p>Its &lt;second&gt; half.</p>" in page


def test_damaged_records_are_named_and_stop_nothing(root: Path) -> None:
    (root / "toy/sweeps/0123/sweep.json").write_text("{")
    (root / "reproduce/toy-paper/table-1/paper/reproduction.json").write_text("[]")
    written = write_book(root)

    assert len(written.contents.runs) == 5
    assert len(written.contents.left_out) == 2
    index = (root / "book/index.html").read_text()
    assert "sweep.json" in index
    assert "reproduction.json" in index


def test_measurements_get_a_page_each(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "measured"
    folder.mkdir()
    (folder / "speed-cpu.csv").write_text(
        "net,images,machine,commit,date\n<b>,2.50,Z80,0123456,2026-01-02\nb,3,Z80,0123456,2026-01-03\n"
    )
    (folder / "none.csv").write_text("net,images\n")
    (folder / "bytes.csv").write_bytes(b"net\n\xff\xfe\n")
    write_book(root, benchmarks=folder)

    found = pages(root / "book")
    page = found["benchmarks/speed-cpu.html"]
    assert column(page, "images") == ["2.50", "3"]
    assert 'data-value="2.5"' in page
    assert column(page, "net") == ["&lt;b&gt;", "b"]
    assert "has no rows" in found["benchmarks/none.html"]
    assert "cannot be read" in found["benchmarks/bytes.html"]
    index = found["index.html"]
    assert column(index, "rows") == ["0", "0", "2"]
    assert column(index, "last day") == ["\u2013", "\u2013", "2026-01-03"]


def test_a_column_is_of_numbers_where_every_row_has_one(tmp_path: Path) -> None:
    (tmp_path / "mixed.csv").write_text("net,images,factor\n1,2,3\nb,3,2 to 4\n")
    page = book._page_of_benchmark(book.read_measurements(tmp_path / "mixed.csv"))
    (table,) = (block for part in page.sections for block in part.blocks if isinstance(block, book.Table))
    assert [column.numeric for column in table.columns] == [False, True, False]


def test_a_second_book_replaces_the_first_and_what_it_lacks(root: Path) -> None:
    write_book(root)
    (root / "book/runs/notes.html").write_text("mine")
    shutil.rmtree(root / "toy/failed")
    write_book(root)

    found = pages(root / "book")
    assert not any("failed" in name for name in found)
    assert found["runs/notes.html"] == "mine"


def test_a_folder_of_somebody_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "site"
    other.mkdir()
    (other / "index.html").write_text("mine")

    with pytest.raises(ConfigError, match=r"--out .*site: holds files and is no book"):
        write_book(root, other)
    with pytest.raises(ConfigError, match="no folder"):
        write_book(root, other / "index.html")
    assert [path.name for path in other.iterdir()] == ["index.html"]
    assert (other / "index.html").read_text() == "mine"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no such folder; name the one"):
        write_book(tmp_path / "nowhere")


def test_names_of_every_kind_make_pages_of_their_own(root: Path) -> None:
    """Two runs whose names differ in signs alone, and one whose name is none of the letters a page's name has."""
    for name in ("a b", "a-b", "\u00e9\u4e2d", "x" * 200):
        made.run(root / "more" / name, steps=2)
    write_book(root)

    names = [name for name in pages(root / "book") if name.startswith("runs/more")]
    assert len(names) == 4
    assert all(re.fullmatch(r"runs/[a-z0-9-]{1,84}\.html", name) for name in names)


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_page_beyond_its_share_leaves_out_pictures_and_curves_and_says_so(root: Path) -> None:
    made.run(root / "large" / "0", pictures=[(f"{number}.png", 400) for number in range(6)], steps=400)
    whole = write_book(root)
    before = pages(root / "book")["runs/large-0.html"]
    thin = write_book(root, most_bytes=9 * 24_000)
    after = pages(root / "book")["runs/large-0.html"]

    assert whole.shortened == 0
    assert "Left out here" not in before
    assert thin.shortened >= 1
    assert len(after.encode()) <= 24_000 < len(before.encode())
    assert "Left out here, so that the book stays small" in after
    assert f"paperbench report {root / 'large/0'}" in after
    assert column(after, "metric") == column(before, "metric")


def test_every_level_is_smaller_and_keeps_the_numbers(root: Path) -> None:
    made.run(root / "large" / "0", pictures=[(f"{number}.png", 200) for number in range(6)], steps=400)
    page = dict(book.pages_of(book.contents_of(root)))[book.PurePosixPath("runs/large-0.html")]
    moment = datetime(2026, 1, 2)
    sizes = [len(to_html(book.at_level(page, level), made=moment, assets="../")) for level in range(book.LEVELS)]

    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == book.LEVELS
    assert book.at_level(page, 0) is page
    assert {item.slug for item in book.at_level(page, book.LEVELS - 1).sections} == {"results", "left-out"}


def test_the_share_of_five_hundred_runs_is_enough_for_each(tmp_path: Path) -> None:
    """Twenty runs with curves and pictures, at the share that a page has where there are 500: less than 20 MB for 500."""
    first = made.run(tmp_path / "outputs/toy/0", pictures=[("a.png", 300), ("b.png", 300)], steps=400)
    for number in range(1, 20):
        shutil.copytree(first, first.with_name(str(number)))
    written = write_book(tmp_path / "outputs", most_bytes=MOST_BYTES * 21 // 501)

    sizes = {path: path.stat().st_size for path in (tmp_path / "outputs/book").rglob("*") if path.is_file()}
    runs = [size for path, size in sizes.items() if path.parent.name == "runs"]
    index = sizes[written.index]
    assert written.size == sum(sizes.values())
    assert len(runs) == 20
    assert 500 * max(runs) + 25 * index < 20_000_000


# --- the command ------------------------------------------------------------------------------------------------------


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["book", *arguments])


def test_it_says_what_it_wrote(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    result = call()

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "book of 1 table, 1 sweep, 5 runs, 0 benchmarks\n  index   outputs/book/index.html (open it in a browser)\n"
    )
    (root.parent / "benchmarks/results").mkdir(parents=True)
    (root.parent / "benchmarks/results/a.csv").write_text("a\n1\n")
    document = json.loads(call("--out", "site", "--json").stdout)
    assert document["index"] == "site/index.html"
    assert (document["tables"], document["runs"], document["benchmarks"], document["left_out"]) == (1, 5, 1, [])


def test_without_any_run_it_holds_what_travels_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = call()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "outputs/book/index.html").is_file()
    assert call("nowhere").exit_code == 2


def test_benchmarks_that_are_not_there(root: Path) -> None:
    result = call(str(root), "--benchmarks", "nowhere")

    assert result.exit_code == 2
    assert "--benchmarks nowhere: no such folder" in result.output


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_disk_with_its_style_and_fits_every_screen(root: Path, browser: Browser, scheme: Any) -> None:
    long = made.HOSTILE + "x" * 90
    made.run(root / "hostile" / "0", resolved=made.config(experiment=long), values={long: 1.0}, data=long, hostile=True)
    written = write_book(root)
    folder = written.index.parent
    index = pages(folder)
    some = [
        written.index,
        *(folder / name for name in index if name.startswith(("tables/", "sweeps/", "runs/hostile"))),
    ]
    for file in some:
        with browser.visit(file, scheme=scheme, beside=folder) as visit:
            assert [visit.overflow(width) for width in (320, 390, 768, 1280)] == [0, 0, 0, 0]
            # The index' first table has a row for each paper: none is hidden in a box that scrolls.
            box = visit.page.locator(".table > .scroll").first
            assert box.evaluate("(box) => box.scrollHeight - box.clientHeight") <= 0
            red, green, blue, _ = visit.colour("body", "backgroundColor")
            assert (max(red, green, blue) < 60) == (scheme == "dark")
            assert visit.page.evaluate("window.stolen") is None
    with browser.visit(written.index, scheme=scheme, beside=folder) as visit:
        visit.page.click("table[data-table=runs] tbody tr:first-child th a")
        assert visit.page.url.startswith(f"{folder.resolve().as_uri()}/runs/")
        visit.page.click("nav a:first-child")
        assert visit.page.url == written.index.resolve().as_uri()
        visit.heading("runs", "state").locator("button").click()
        assert visit.column("runs", "state") == sorted(visit.column("runs", "state"))
