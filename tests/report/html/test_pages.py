"""What the pages hold: every number exact, every name escaped, nothing from elsewhere."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from paperbench.engine.rundir import FAILED, STOPPED
from paperbench.report.html.page import Charts
from paperbench.report.html.writing import Written, write_report
from tests.report.html import made
from tests.report.made_runs import paper_config

GRID = [{"lr": lr, "seed": seed} for lr in (0.1, 0.2) for seed in (0, 1, 2)]


class Reader(HTMLParser):
    """Tables as lists of (text, exact value) by name; all tags with their attributes; and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.text = ""
        self._rows: list[list[tuple[str, str]]] | None = None
        self._exact: str | None = None
        self._cell = ""
        self._small = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self._rows = self.tables[given["data-table"] or ""] = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th"):
            self._exact, self._cell = given.get("data-value") or given.get("data-name") or "", ""
        elif tag == "small":
            self._small = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = None
        elif tag in ("td", "th") and self._rows is not None and self._exact is not None:
            self._rows[-1].append((self._cell.strip(), self._exact))
            self._exact = None
        elif tag == "small":
            self._small = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._exact is not None and not self._small:
            self._cell += data

    def columns(self, table: str) -> list[dict[str, tuple[str, str]]]:
        """Rows by the names of the columns, each cell as (text, exact value)."""
        names, *rows = self.tables[table]
        return [dict(zip([name for _, name in names], row, strict=True)) for row in rows]


def written(source: Path, output: Path | None = None) -> tuple[Written, Reader]:
    report = write_report(source, output, metrics=made.METRICS)
    return report, Reader(report.html.read_text(encoding="utf-8"))


def shown(text: str) -> float:
    """The number that a text shows."""
    return float(text.replace("\u2212", "-").replace(",", ""))


def rounds_to(text: str, exact: float) -> bool:
    """Whether a text is a rounding of a number: at most half a unit of its last digit away."""
    mantissa = text.replace("\u2212", "-").replace(",", "").split("e")[0]
    exponent = int(text.replace("\u2212", "-").split("e")[1]) if "e" in text else 0
    digit = 10.0 ** (exponent - len(mantissa.partition(".")[2]))
    if "." not in mantissa and len(mantissa.lstrip("-")) > 4:
        digit = 10.0 ** (exponent + len(mantissa.lstrip("-")) - 4) if abs(exact) >= 1e9 else 1.0
    return abs(shown(text) - exact) <= digit * 0.5000001


def stored(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())["metrics"]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_every_number_of_a_run_is_that_of_its_results(tmp_path: Path) -> None:
    run = made.run(tmp_path / "run")
    _, page = written(run)
    found = {row["metric"][1]: row["value"] for row in page.columns("metrics")}
    for row in page.columns("classes"):
        found |= {f"toy/AP/{row['class'][1]}": row["toy/AP"]}

    numbers = {name: value for name, value in stored(run).items() if value is not None}
    assert {name: float(exact) for name, (_, exact) in found.items()} == numbers
    for name, (text, exact) in found.items():
        assert rounds_to(text, float(exact)), (name, text, exact)


def test_the_tiles_hold_exact_numbers_too(tmp_path: Path) -> None:
    run = made.run(tmp_path / "run")
    _, page = written(run)
    tiles = [given["value"] for tag, given in page.tags if tag == "data"]

    names = [spec.name for spec in made.METRICS.specs if spec.headline]
    assert [float(value or "") for value in tiles] == [stored(run)[name] for name in names]


def test_a_run_page_says_how_it_was_made(tmp_path: Path) -> None:
    _, page = written(made.run(tmp_path / "run", pictures=[("some_samples.png", 30)]))

    for text in (
        "made-up points, 30 train",
        "paperbench train toy",
        "0123456789ab",
        "a processor",
        "sizes:",
        "+a line",
        "12.3 MB",
    ):
        assert text in page.text
    (picture,) = [given for tag, given in page.tags if tag == "img" and given.get("src")]
    assert picture["alt"] == "some samples (run/figures/some_samples.png)"
    assert (picture["src"] or "").startswith("data:image/webp;base64,")


def test_a_published_number_stands_beside_ours(tmp_path: Path) -> None:
    from paperbench.report import published

    entry = published.find("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07", "mAP")
    config = paper_config(*entry.place)
    assert entry.tolerance is not None
    measured = entry.value + 2 * entry.tolerance
    _, page = written(made.run(tmp_path / "run", resolved=config, values={"voc07/mAP": measured, "coco/AP": 1.0}))

    row = next(row for row in page.columns("metrics") if row["metric"][1] == "voc07/mAP")
    assert float(row["paper"][1]) == entry.value
    assert float(row["difference"][1]) == measured - entry.value
    assert row["verdict"][0] == "outside tolerance, better"
    assert "No published number applies" not in page.text

    config["optim"]["lr"] = 0.5
    _, page = written(made.run(tmp_path / "other", resolved=config, values={"voc07/mAP": entry.value}))
    row = next(row for row in page.columns("metrics") if row["metric"][1] == "voc07/mAP")
    assert row["verdict"][0] == "not comparable"
    assert row["difference"][1] == ""
    assert "optim.lr 0.5 instead of 0.001, as shipped" in page.text


@pytest.mark.parametrize("state", [FAILED, STOPPED])
def test_a_run_without_results_is_reported_as_such(tmp_path: Path, state: str) -> None:
    report, page = written(made.run(tmp_path / "run", state=state, logged=12, message="the disk was full"))

    assert report.page.badges[0].text == state
    assert "the disk was full" in page.text or state == STOPPED
    assert "step 12 of 40" in page.text
    assert "metrics" not in page.tables


# --- a sweep ----------------------------------------------------------------------------------------------------------


def test_every_number_of_a_sweep_is_that_of_its_runs(tmp_path: Path) -> None:
    folder = made.sweep(tmp_path, GRID)
    _, page = written(folder)
    rows = page.columns("all-metrics")

    assert len(rows) == len(GRID)
    for row, given in zip(rows, GRID, strict=True):
        numbers = {name: value for name, value in stored(tmp_path / "toy" / row["run"][1]).items() if value is not None}
        assert {name: float(row[name][1]) for name in numbers} == numbers
        assert all(rounds_to(row[name][0], numbers[name]) for name in numbers)
        assert (float(row["optim.lr"][1]), int(row["seed"][1])) == (given["lr"], given["seed"])


def test_means_are_over_the_seeds_of_a_setting(tmp_path: Path) -> None:
    _, page = written(made.sweep(tmp_path, GRID))
    rows = page.columns("settings")

    assert [row["optim.lr"][1] for row in rows] == ["0.1", "0.2"]
    for row, lr in zip(rows, (0.1, 0.2), strict=True):
        values = [made.metrics(seed, lr)["toy/score"] for seed in (0, 1, 2)]
        assert float(row["toy/score"][1]) == pytest.approx(sum(values) / 3, rel=1e-15)
        assert row["seeds"][1] == "3"


def test_the_best_of_a_column_is_marked_where_it_is_known_what_is_better(tmp_path: Path) -> None:
    report, _ = written(made.sweep(tmp_path, GRID))
    runs = next(table for table in report.page.tables() if table.name == "runs")
    marked = {
        column.name: [cell.value for cell in cells if cell.tone == "best"]
        for column, cells in zip(runs.columns, zip(*runs.rows, strict=True), strict=True)
    }

    assert set(marked["toy/error"]) == {min(made.metrics(run["seed"], run["lr"])["toy/error"] for run in GRID)}
    assert marked["toy/score"] == []  # declared without a direction


def test_what_differs_stands_first_and_what_is_shared_is_folded(tmp_path: Path) -> None:
    _, page = written(made.sweep(tmp_path, GRID))

    assert [row["key"][1] for row in page.columns("configuration")] == ["optim.lr"]
    assert "What all runs have in common" in page.text
    assert "seed" not in [row["key"][1] for row in page.columns("configuration")]


def test_a_sweep_with_every_kind_of_run(tmp_path: Path) -> None:
    folder = made.sweep(tmp_path, GRID[:2])
    record = json.loads((folder / "sweep.json").read_text())
    made.run(tmp_path / "toy/failed", resolved=made.config(lr=0.3), state=FAILED, message="CUDA out of memory")
    made.run(tmp_path / "toy/cut", resolved=made.config(lr=0.4))
    (tmp_path / "toy/cut/results.json").write_text('{"metrics":')
    more = [made.entry(folder, tmp_path / "toy" / name, {"optim.lr": name}) for name in ("failed", "cut", "absent")]
    made.record(folder, [*record["runs"], *more])
    report, page = written(folder)

    assert [badge.text for badge in report.page.badges] == ["2 done", "1 failed", "1 damaged", "1 not started"]
    assert "CUDA out of memory" in page.text
    assert "results.json cannot be read" in page.text
    assert "said while it ran" in page.text
    assert [row["state"][1] for row in page.columns("runs")] == ["done", "done", "failed", "damaged", "not started"]
    assert page.columns("runs")[2]["toy/score"] == ("\u2013", "")


def test_a_sweep_of_nothing(tmp_path: Path) -> None:
    folder = made.sweep(tmp_path, [])

    assert "no runs" in written(folder)[1].text


# --- a reproduction ---------------------------------------------------------------------------------------------------

CELLS = {
    "cnn": {"r": made.cell([50.0, 51.0, 52.25], 51.7)},
    "st-cnn": {"r": made.cell([60.0], 72.0, verdict="outside tolerance, worse", remarks=["1 of 3 seeds"])},
    "new": {"r": made.cell([80.125], None, verdict="not published")},
    "old": {"r": made.cell([], 40.0, verdict="missing")},
}


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    _, page = written(made.reproduction(tmp_path / "r", ["r"], CELLS))
    rows = {row["row"][1]: row for row in page.columns("table")}

    assert rows["cnn"]["paper"] == ("51.7", "51.7")
    assert rows["cnn"]["here"] == ("51.08", repr((50.0 + 51.0 + 52.25) / 3))
    assert rows["cnn"]["verdict"][1] == "within tolerance"
    assert rows["st-cnn"]["difference"] == ("\u221212.00", "-12.0")
    assert (rows["new"]["paper"][1], rows["new"]["here"][1]) == ("", "80.125")
    assert (rows["old"]["here"][1], rows["old"]["verdict"][1]) == ("", "missing")
    assert "1 of 3 seeds" in page.text
    assert "reproduction" in page.text


def test_seed_by_seed(tmp_path: Path) -> None:
    _, page = written(made.reproduction(tmp_path / "r", ["r"], CELLS))
    found = [(row["row"][1], int(row["seed"][1]), float(row["value"][1])) for row in page.columns("measurements")]

    assert found == [("cnn", 0, 50.0), ("cnn", 1, 51.0), ("cnn", 2, 52.25), ("st-cnn", 0, 60.0), ("new", 0, 80.125)]


def test_many_columns_are_laid_out_as_in_the_paper(tmp_path: Path) -> None:
    cells = {row: {name: made.cell([50.0 + i], 50.0) for i, name in enumerate("abc")} for row in ("x", "y")}
    report, page = written(made.reproduction(tmp_path / "r", ["a", "b", "c"], cells))

    assert [row["b"][1] for row in page.columns("table")] == ["51.0", "51.0"]
    table = report.page.tables()[0]
    assert table.rows[0][1].note == "paper 50 ±1.5\nwithin tolerance"


def test_what_is_no_reproduction_says_so_first(tmp_path: Path) -> None:
    cells = {"cnn": {"r": made.cell([50.0], 51.7, verdict="not comparable", departs="other data, other scale")}}
    folder = made.reproduction(tmp_path / "r", ["r"], cells, is_reproduction=False)
    report, page = written(folder)

    assert report.page.badges[0].text == "not a reproduction"
    assert "made with other data, other scale" in page.text
    assert page.text.index("not a reproduction of the paper's") < page.text.index("51.7")
    assert page.columns("table")[0]["difference"][1] == ""


def test_columns_that_are_numbers_make_curves(tmp_path: Path) -> None:
    cells = {"AEVB": {f"{x:.0e} samples": made.cell([x / 1e6, x / 1e6 + 1], 1.0) for x in (1e6, 1e7, 1e8)}}
    report, _ = written(made.reproduction(tmp_path / "r", list(cells["AEVB"]), cells))
    html = report.html.read_text()

    assert html.count("line color-0 dashed") == 1
    assert "samples, logarithmic" in html
    assert "AEVB, here" in html


def test_the_papers_whole_curve_lies_under_ours(tmp_path: Path) -> None:
    from paperbench.report import published

    row = next(iter(published.table("vae", "Figure 2")))
    curve = published.curve("vae", "Figure 2", row)
    cell = made.cell([-150.0, -151.0], curve.ys[0], unit="nats")
    cell["published"]["row"] = row
    folder = made.reproduction(
        tmp_path / "r", ["1e6"], {"ours": {"1e6": cell}}, paper="vae", table="Figure 2", name="vae/figure-2"
    )
    report, page = written(folder)
    charts = [block for section in report.page.sections for block in section.blocks if isinstance(block, Charts)]
    dashed, ours = charts[0].charts[0].lines  # type: ignore[union-attr]

    assert (tuple(dashed.x), tuple(dashed.y)) == (curve.xs, curve.ys)
    assert (ours.x.tolist(), ours.y.tolist()) == ([1e6], [-150.5])
    assert "training samples seen, logarithmic" in page.text


# --- all of them ------------------------------------------------------------------------------------------------------


def subjects(tmp_path: Path, *, hostile: bool) -> Iterator[Path]:
    words = made.HOSTILE if hostile else "plain"
    more = {
        "resolved": made.config(experiment=words, task=words, scale=words, model={"name": words, words: words}),
        "data": words,
        "hostile": hostile,
        "pictures": [("a <b> picture.png", 9)],
        "values": {words: 1.0, f"{words}/{words}/a": 2.0, f"{words}/{words}/b": 3.0},
    }
    yield made.run(tmp_path / "run", **more)
    yield made.run(tmp_path / "failed", state=FAILED, message=words, **more)
    folder = tmp_path / "sweep"
    folder.mkdir()
    labels = [{words: words, "seed": "1"}, {words: "b"}]
    entries = [
        made.entry(folder, tmp_path / name, label) for name, label in zip(("run", "failed"), labels, strict=True)
    ]
    made.record(folder, entries, name=words)
    yield folder
    cell = made.cell([50.0, 51.0], 50.0, departs=words, remarks=[words], verdict=words, unit=words)
    folder = made.reproduction(
        tmp_path / "reproduction", [words], {words: {words: cell}}, name=words, caption=words, source=words, table=words
    )
    made.record(folder, [])
    yield folder


def test_nothing_that_a_file_says_becomes_markup(tmp_path: Path) -> None:
    for plain, hostile in zip(
        subjects(tmp_path / "plain", hostile=False), subjects(tmp_path / "hostile", hostile=True), strict=True
    ):
        _, tame = written(plain)
        report, wild = written(hostile)

        assert {tag for tag, _ in wild.tags} <= {tag for tag, _ in tame.tags} | {"wbr"}
        assert not [
            given for tag, given in wild.tags if tag == "img" and not (given.get("src") or "data:").startswith("data:")
        ]
        assert sum(tag == "script" for tag, _ in wild.tags) == 1
        assert not [given for _, given in wild.tags if any(name.startswith("on") for name in given)]
        assert made.HOSTILE in wild.text  # it is said, as text
        prose = re.sub(r"^(`{3,})$.*?^\1$|`[^`]*`", "", report.markdown.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"(?<!\\)<(?!!--)", prose)


def test_a_page_refers_to_nothing_outside_of_it(tmp_path: Path) -> None:
    for source in subjects(tmp_path, hostile=False):
        _, page = written(source)
        links = [value or "" for _, given in page.tags for name, value in given.items() if name in ("src", "href")]

        assert links
        assert all(link.startswith(("#", "data:")) for link in links)
        ids = [given["id"] for _, given in page.tags if "id" in given]
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_markdown_and_csv_hold_the_same_tables(tmp_path: Path) -> None:
    for source in subjects(tmp_path, hostile=False):
        report, page = written(source)
        document = report.markdown.read_text()

        assert len(report.tables) == len(page.tables)
        for path in report.tables:
            name = path.stem.removeprefix("report-")
            (_, *rows) = csv.reader(path.read_text().splitlines())
            assert rows == [[exact for _, exact in row] for row in page.tables[name][1:]]
        for table in report.page.tables():
            assert table.title.replace("_", "\\_") in document


def test_a_hundred_runs_stay_below_five_megabytes(tmp_path: Path) -> None:
    first = made.run(tmp_path / "first", steps=150, pictures=[(f"{name}.png", 330) for name in "abcd"])
    (folder := tmp_path / "sweep").mkdir()
    entries = []
    for index in range(100):
        shutil.copytree(first, tmp_path / f"run{index}")
        resolved = made.config(lr=index / 100)
        (tmp_path / f"run{index}/config.yaml").write_text(json.dumps(resolved))  # which is YAML as well
        entries.append(made.entry(folder, tmp_path / f"run{index}", {"optim.lr": str(index / 100)}))
    made.record(folder, entries)
    report, page = written(folder)

    pictures = sum(len(given.get("src") or "") for tag, given in page.tags if tag == "img")
    assert 2_000_000 < pictures < 3_700_000  # they fill their budget, and no more
    assert report.size < 5_000_000
    assert len(page.columns("runs")) == 100
    assert "376 more pictures of the same kinds lie in the runs' figures folders" in page.text
