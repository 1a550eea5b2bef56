"""From a layout and its runs to the document: values, intervals, differences, verdicts, and every reservation in words."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.config.paths import shipped_conf
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import ConfigError, DataError
from paperbench.report import published
from paperbench.report.html import sources
from paperbench.report.layout import Layout, load, names, read
from paperbench.report.preparing import Prepared, prepare
from paperbench.report.reproduction import assemble, targets_of, write
from paperbench.report.reproduction_document import display_table, flat_table
from paperbench.report.tables import to_csv
from paperbench.sweeps.watch import MemberStatus
from tests.report.made_runs import fail, finish, results_of

SHIPPED = names((shipped_conf(),))
TABLE = "faster-rcnn/table-9"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAPERBENCH_DATA", raising=False)


@cache
def planned(name: str = TABLE, scale: str = "smoke", seeds: int | None = None) -> Prepared:
    """The same for every test that asks: the runs' folders are relative to the test's own."""
    return prepare(load(name), scale, seeds=seeds)


def made(prepared: Prepared) -> dict[str, Any]:
    return assemble(prepared, results_of(prepared))


def cell_of(document: dict[str, Any], row: str, column: str = "mAP") -> dict[str, Any]:
    return next(entry for entry in document["rows"] if entry["row"] == row)["cells"][column]


def with_values(name: str = TABLE, *, seeds: int = 1) -> tuple[Prepared, dict[str, Any]]:
    """A table whose run of row i and seed s measured 60 + i + s / 10."""
    prepared = planned(name, seeds=seeds)
    rows = list(dict.fromkeys(item.cell.row for item in prepared.cells))
    for item in prepared.cells:
        for seed, member in item.runs.items():
            if not member.directory.exists():
                finish(member, {"voc07/mAP": 60 + rows.index(item.cell.row) + seed / 10})
    return prepared, made(prepared)


# --- planning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SHIPPED if "smoke" in load(name).scales])
def test_every_shipped_table_can_be_planned_at_smoke_scale(name: str, tmp_path: Path) -> None:
    prepared = planned(name)
    assert len(prepared.cells) == len(prepared.layout.cells("smoke"))
    assert prepared.directory == Path("outputs/reproduce") / name / "smoke"
    assert all(item.conditions.scale for item in prepared.cells)
    assert not list(tmp_path.iterdir())


def test_runs_carry_the_row_and_seed_that_they_are_for() -> None:
    prepared = planned(seeds=2)
    assert [dict(member.request.labels) for member in prepared.sweep.members[:3]] == [
        {"row": "lambda 0.1", "seed": "0"}, {"row": "lambda 0.1", "seed": "1"}, {"row": "lambda 1", "seed": "0"}
    ]  # fmt: skip
    for item in prepared.cells:
        assert [member.composed.config.seed for member in item.runs.values()] == [0, 1]
        wanted = float(item.cell.row.removeprefix("lambda "))
        assert {m.composed.config.model.rpn.loss_weight for m in item.runs.values()} == {wanted}


def test_tables_share_a_run_that_is_the_same() -> None:
    three, eight = planned("faster-rcnn/table-3", "short"), planned("faster-rcnn/table-8", "short")
    assert three.sweep.members[-1].directory == eight.sweep.members[-1].directory


def test_data_that_are_absent_are_one_error_before_any_run(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare(load(TABLE), "paper", overrides=["data.root=nowhere", "model.weights=null"])
    assert str(caught.value).count("no data set 'voc' here") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=3"], "seed=3: cannot be set here, --seeds N makes seeds 0 to N-1"),
        (["scale=paper"], "scale=paper: cannot be set here, --scale NAME"),
        (["optim.lrr=1"], "optim.lrr: no such key.*optim.lr"),
    ],
)
def test_overrides_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(load(TABLE), "smoke", overrides=overrides)


def test_a_mistake_that_all_runs_share_is_said_once() -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(load(TABLE), "smoke", overrides=["optim.lrr=1"])
    assert sum("optim.lrr" in mistake for mistake in caught.value.mistakes) == 1


def test_an_unknown_scale_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--scale smok: no such scale\. Nearest: smoke"):
        prepare(load(TABLE), "smok")
    with pytest.raises(ConfigError, match=r"table-6\.yaml has no scale short; it has paper"):
        prepare(load("faster-rcnn/table-6"), "short")


def test_what_the_user_changes_is_made_elsewhere_and_is_a_deviation() -> None:
    plain = planned()
    changed = prepare(load(TABLE), "smoke", overrides=["optim.lr=0.5", "threads=1"])
    assert changed.directory != plain.directory
    assert changed.directory.name.startswith("smoke-")
    assert "optim.lr 0.5 instead of 0.001, as shipped" in changed.cells[0].conditions.deviations
    assert not any("threads" in sentence for sentence in changed.cells[0].conditions.deviations)
    all_one = prepare(load(TABLE), "smoke", overrides=["model.rpn.sigma=2", "model.rpn.loss_weight=3"])
    assert len(all_one.sweep.members) == 1
    for item in all_one.cells:
        wanted = float(item.cell.row.removeprefix("lambda "))
        assert f"model.rpn.loss_weight 3.0 instead of {wanted}" in item.conditions.settings
        assert "model.rpn.sigma 2.0 instead of 3.0, as shipped" in item.conditions.settings
    moved = prepare(load(TABLE), "smoke", overrides=["output.root=elsewhere", "device=cpu"])
    assert moved.directory == Path("elsewhere/reproduce") / TABLE / "smoke"
    assert moved.cells[0].conditions == plain.cells[0].conditions


def test_a_value_that_follows_from_the_seed_does_not_lose_a_run(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    for name, text in (
        ("experiment/mine", "# @package _global_\ndefaults: [faster-rcnn, _self_]\nseed: 0\ndata: {data_seed: '${seed}'}\n"),
        ("reproduce/mine", yaml.safe_dump({
            "paper": "faster-rcnn", "table": "Table 9", "experiment": "mine", "columns": {"mAP": {}},
            "rows": [{"row": "lambda 10"}], "scales": {"smoke": {"seeds": 2}},
        })),
    ):  # fmt: skip
        file = conf / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
    prepared = prepare(load("mine"), "smoke")
    assert [run.composed.config.data.data_seed for run in prepared.cells[0].runs.values()] == [0, 1]


# --- values -----------------------------------------------------------------------------------------------------------


def test_one_seed_is_shown_as_one_seed() -> None:
    _, document = with_values()
    cell = cell_of(document, "lambda 1")
    assert (cell["n"], cell["mean"], cell["interval"], cell["interval_kind"]) == (1, 61.0, None, "one seed")
    assert cell["values"][0]["seed"] == 0
    assert document["seeds"] == 1


def test_a_few_seeds_keep_all_points_and_more_get_an_interval() -> None:
    _, three = with_values(seeds=3)
    cell = cell_of(three, "lambda 10")
    assert [value["value"] for value in cell["values"]] == [62.0, 62.1, 62.2]
    assert (cell["interval"], cell["interval_kind"]) == ([62.0, 62.2], "range")
    shown = display_table(three)
    assert "62.00 to 62.20 (range: 62.00, 62.10, 62.20)" in [cell.text for row in shown.rows for cell in row]
    _, five = with_values(seeds=5)
    assert cell_of(five, "lambda 10")["interval_kind"] == "Student's t of the mean, 95 %"


def test_the_folder_of_a_value_leads_to_its_run() -> None:
    prepared, document = with_values()
    run = prepared.directory / cell_of(document, "lambda 1")["values"][0]["run"]
    assert run.resolve() == prepared.cells[1].runs[0].directory.resolve()


def test_an_interval_over_test_images_is_taken_from_the_run() -> None:
    prepared = planned("faster-rcnn/table-3")
    finish(prepared.sweep.members[-1], {"voc07/mAP": 60.0, "voc07/mAP/low": 55.0, "voc07/mAP/high": 66.0})
    cell = cell_of(made(prepared), "RPN+VGG shared 300, 07")
    assert (cell["interval"], cell["interval_kind"]) == ([55.0, 66.0], "resampled test images, 95 %")


def test_embedded_data_at_a_small_scale_are_never_a_reproduction() -> None:
    prepared = planned(scale="short")
    for member in prepared.sweep.members:
        finish(member, {"voc07/mAP": 69.9})
    document = made(prepared)
    assert document["is_reproduction"] is False
    for row in document["rows"]:
        for cell in row["cells"].values():
            assert cell["verdict"] == "not comparable"
            assert cell["departs"].startswith("other data, other scale")
            assert cell["difference"] is None
            assert "data.name shapes instead of voc" in cell["deviations"]
    shown = "\n".join(cell.text for row in display_table(document).rows for cell in row)
    assert "tolerance" not in shown
    assert display_table(document).notes[0] == "this table is not a reproduction of the paper's"


def test_failed_and_missing_runs_leave_a_table_that_says_so() -> None:
    prepared = planned(seeds=2)
    first, second, third, *others = prepared.sweep.members
    finish(first, {"voc07/mAP": 60.0})
    fail(second, "loss is not finite")
    finish(third, {"voc07/map": 60.0})
    document = made(prepared)
    cell = cell_of(document, "lambda 0.1")
    assert (cell["n"], cell["mean"], cell["interval"]) == (1, 60.0, None)
    assert "1 of 2 seeds" in cell["remarks"]
    assert any("seed 1 is missing" in text and "failed: loss is not finite" in text for text in cell["remarks"])
    cell = cell_of(document, "lambda 1")
    assert (cell["n"], cell["mean"], cell["verdict"]) == (0, None, "missing")
    assert any("has no metric voc07/mAP; nearest: voc07/map" in text for text in cell["remarks"])
    assert cell_of(document, "lambda 10")["remarks"][-1] == "seed 1 is missing: its run was not started"
    assert cell_of(document, "lambda 10 instead of 1")["verdict"] == "missing"
    assert document["is_reproduction"] is False
    assert len(others) == 5


def test_a_metric_that_may_be_absent_is_one_note_for_all_cells_that_lack_it() -> None:
    prepared = planned("distill/table-4")
    finish(prepared.sweep.members[0], {"coverage/1/examples": 20.0, "coverage/1/more_correct": 1.0})
    document = made(prepared)
    assert cell_of(document, "1 specialist", "examples")["mean"] == 20.0
    assert cell_of(document, "5 specialists", "examples")["verdict"] == "missing"
    notes = [note for note in display_table(document).notes if "missing" in note]
    assert [note.partition("] ")[2] for note in notes] == [
        "seed 0 is missing: no test image shows a class that so many specialists know"
    ]


# --- comparisons ------------------------------------------------------------------------------------------------------


def test_a_comparison_is_made_seed_by_seed_and_held_against_the_papers_difference() -> None:
    _, document = with_values(seeds=3)
    cell = cell_of(document, "lambda 10 instead of 1")
    assert [value["value"] for value in cell["values"]] == pytest.approx([1.0, 1.0, 1.0])
    assert cell["published"]["value"] == 1.0  # 69.9 - 68.9
    assert (cell["published"]["unit"], cell["published"]["tolerance"]) == ("points", round(1.2 * 2**0.5, 3))
    assert "the same direction as in the paper" in cell["remarks"]


def test_a_comparison_leaves_unpaired_seeds_out_and_says_so() -> None:
    prepared = planned(seeds=3)
    by_row = {item.cell.row: item.runs for item in prepared.cells}
    for seed in (0, 1):
        finish(by_row["lambda 1"][seed], {"voc07/mAP": 50.0 + 10 * seed})
    for seed in (1, 2):
        finish(by_row["lambda 10"][seed], {"voc07/mAP": 59.0 if seed == 1 else 99.0})
    cell = cell_of(made(prepared), "lambda 10 instead of 1")
    assert [(value["seed"], value["value"]) for value in cell["values"]] == [(1, -1.0)]
    assert "seeds that only one of the two has are left out: 0, 2" in cell["remarks"]
    assert "not the direction of the paper" in cell["remarks"]


# --- at the paper's scale ---------------------------------------------------------------------------------------------


def at_paper_scale(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float | None,
    *,
    table: str = "faster-rcnn/table-9",
    **changes: Any,
) -> dict[str, Any]:
    """The document of a table at its paper scale, with data that only seem to be there; without a value, the paper's numbers."""
    from paperbench.detection import datasets

    monkeypatch.setattr(datasets, "locate", lambda data: None)
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    content = yaml.safe_load(SHIPPED[table].read_text(encoding="utf-8")) | changes
    file = folder / "table.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    prepared = prepare(read(table, file), "paper")
    for item in prepared.cells:
        assert item.cell.published is not None
        for member in item.runs.values():
            finish(member, {"voc07/mAP": item.cell.published.value if value is None else value})
    return made(prepared)


def test_only_the_papers_own_data_scale_and_settings_are_held_to_the_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = at_paper_scale(tmp_path, monkeypatch, 69.0)
    verdicts = {row["row"]: row["cells"]["mAP"]["verdict"] for row in document["rows"]}
    assert verdicts == {
        "lambda 0.1": "outside tolerance, better",
        "lambda 1": "within tolerance",
        "lambda 10": "within tolerance",
        "lambda 100": "within tolerance",
        "lambda 10 instead of 1": "within tolerance",
    }
    assert cell_of(document, "lambda 10")["difference"] == pytest.approx(-0.9)
    assert document["is_reproduction"] is False  # one of its numbers lies outside
    every = at_paper_scale(tmp_path / "second", monkeypatch, None)
    assert {row["cells"]["mAP"]["verdict"] for row in every["rows"]} == {"within tolerance"}
    assert every["is_reproduction"] is True
    assert not any("not a reproduction" in note for note in display_table(every).notes)


def test_a_note_of_the_published_number_keeps_it_from_being_a_reproduction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = published.find
    monkeypatch.setattr(published, "find", lambda *place: replace(find(*place), deviation="measured by candlelight"))
    document = at_paper_scale(tmp_path, monkeypatch, 69.0, table="faster-rcnn/table-3")
    cell = cell_of(document, "RPN+VGG shared 300, 07")
    assert cell["verdict"] == "within tolerance, other settings"
    assert any("candlelight" in text for text in cell["deviations"])
    assert document["is_reproduction"] is False


def test_a_declared_deviation_keeps_it_from_being_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = at_paper_scale(tmp_path, monkeypatch, 60.0, deviations={"paper": ["by moonlight"]})
    assert cell_of(document, "lambda 10")["verdict"] == "outside tolerance, other settings"
    assert cell_of(document, "lambda 10")["departs"] == "other settings"


# --- curves and units -------------------------------------------------------------------------------------------------


def test_a_point_of_a_curve_is_read_from_the_record_and_taken_to_the_papers_unit(tmp_path: Path) -> None:
    file = tmp_path / "curve.yaml"
    columns = {
        "near": {"samples": 1000, "published": None, "factor": 1000},
        "far": {"samples": 5000, "published": None},
        "beyond": {"samples": 60000, "published": None},
        "end": {"published": None},
    }
    layout = {
        "paper": "faster-rcnn", "table": "Table 9", "experiment": "faster-rcnn", "metric": "test/bound",
        "columns": columns, "rows": [{"row": "one run"}], "scales": {"smoke": {}}, "overrides": ["train.samples=5000"],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(layout), encoding="utf-8")
    prepared = prepare(read("faster-rcnn/curve", file), "smoke")
    (member,) = prepared.sweep.members
    assert member.composed.config.train.batch_size == 2
    finish(member, {"test/bound": 3.0})
    records = [{"step": 100, "test/bound": 9.0}, {"step": 495, "test/bound": 0.5}, {"step": 500, "loss": 7.0}]
    (member.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    document = made(prepared)
    assert cell_of(document, "one run", "near")["mean"] == 500.0
    assert cell_of(document, "one run", "near")["verdict"] == "not published"
    assert cell_of(document, "one run", "end")["mean"] == 3.0
    far = cell_of(document, "one run", "far")
    assert far["verdict"] == "missing"
    assert "test/bound was not measured near 5,000 training samples" in far["remarks"][-1]
    assert set(document["columns"]) == {"near", "far", "end"}
    assert any(
        "no run sees that many training samples: beyond; the runs see 5,000" in said for said in document["remarks"]
    )


def curve(folder: Path, **more: Any) -> Layout:
    """Two curves of 500 steps of 2 samples, with points after 100, 400 and at the end, and the last value of a third run."""
    file = folder / "curve.yaml"
    layout = {
        "paper": "vae", "table": "Curve", "caption": "none", "experiment": "vae", "metric": "test/bound",
        "columns": {
            "early": {"samples": 100, "published": None}, "late": {"samples": 400, "published": None},
            "end": {"samples": 1000, "published": None}, "last": {"published": None},
        },
        "rows": [
            {"row": "a, test", "published": None, "columns": ["early", "late", "end"]},
            {"row": "a, train", "published": None, "columns": ["early", "late"], "metric": "train/bound"},
            {"row": "b", "published": None, "overrides": ["model.latent=7"], "columns": ["early", "late", "last"]},
        ],
        "scales": {"smoke": {}}, "overrides": ["train.samples=1000", "train.batch_size=2"],
    }  # fmt: skip
    file.write_text(yaml.safe_dump({**layout, **more}, sort_keys=False), encoding="utf-8")
    return read("vae/curve", file)


def test_selected_rows_and_columns_are_the_runs_that_are_made(tmp_path: Path) -> None:
    layout = curve(tmp_path)

    def targets(rows: list[str], columns: list[str]) -> Any:
        return targets_of(prepare(layout, "smoke", rows=rows, columns=columns))

    a, b = (member.hash for member in prepare(layout, "smoke").sweep.members)
    assert targets([], []) is None
    assert targets(["b"], []) == {b: 0}
    assert targets([], ["early"]) == {a: 50, b: 50}
    assert targets([], ["early", "late"]) == {a: 200, b: 200}
    assert targets([], ["end"]) == {a: 0}
    assert targets(["b", "a, train"], ["late", "last"]) == {a: 200, b: 0}


def test_a_curve_that_has_the_selected_points_is_not_run_again(tmp_path: Path) -> None:
    layout = curve(tmp_path)
    prepared = prepare(layout, "smoke", columns=["late"])
    a, b = prepared.sweep.members
    for member in (a, b):
        directory = RunDirectory.create("", "vae", member.composed.resolved, member.directory)
        directory.update_status(state="stopped", step=200, steps=500)
        directory.release()
    records = [{"step": 200, "test/bound": -1.0, "train/bound": -2.0}]
    (a.directory / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert targets_of(prepared) == {b.hash: 200}
    document = assemble(prepared, [MemberStatus(member=member, state="stopped") for member in (a, b)])
    assert cell_of(document, "a, test", "late")["mean"] == -1.0
    assert "is not at its end (stopped)" in cell_of(document, "a, test", "late")["remarks"][0]
    assert cell_of(document, "a, test", "early")["verdict"] == "missing"


def test_rows_and_columns_that_are_not_there_are_answered_with_the_nearest(tmp_path: Path) -> None:
    layout = curve(tmp_path)
    with pytest.raises(ConfigError) as caught:
        prepare(layout, "smoke", rows=["a, tset"], columns=["never"])
    assert caught.value.mistakes == (
        "--row 'a, tset': vae/curve has none of this name that is made of runs. Nearest: a, test",
        "--column 'never': vae/curve has none of this name that is made of runs. There are: early; late; end; last",
    )
    with pytest.raises(ConfigError, match="vae/curve has no number in these rows and columns"):
        prepare(layout, "smoke", rows=["b"], columns=["end"])


def test_a_table_of_which_no_run_reaches_a_column_keeps_them_all(tmp_path: Path) -> None:
    file = tmp_path / "curve.yaml"
    layout = {
        "paper": "faster-rcnn", "table": "Table 9", "experiment": "faster-rcnn", "metric": "test/bound",
        "columns": {"far": {"samples": 60000, "published": None}}, "rows": [{"row": "one run"}], "scales": {"smoke": {}},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(layout), encoding="utf-8")
    document = made(prepare(read("faster-rcnn/curve", file), "smoke"))
    assert document["columns"] == ["far"]
    assert cell_of(document, "one run", "far")["verdict"] == "missing"


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_files_hold_every_number_in_full(tmp_path: Path) -> None:
    prepared, document = with_values(seeds=3)
    write(document, prepared.directory)
    assert json.loads((prepared.directory / "reproduction.json").read_text()) == json.loads(json.dumps(document))
    shown = sources.load(prepared.directory)
    assert isinstance(shown, sources.ReproductionRecord)
    assert shown.document["schema_version"] == document["schema_version"]
    rows = list(csv.DictReader(io.StringIO((prepared.directory / "table.csv").read_text())))
    assert len(rows) == 5
    for row in rows:
        cell = cell_of(document, row["row"])
        assert float(row["mean"]) == cell["mean"]
        assert [float(text) for text in row["values"].split()] == [value["value"] for value in cell["values"]]
        assert row["verdict"] == cell["verdict"]
    text = (prepared.directory / "table.md").read_text()
    assert text.startswith("# faster-rcnn/table-9, scale=smoke: Table 9")
    assert "not comparable" in text


def test_the_document_has_the_keys_that_others_read() -> None:
    _, document = with_values()
    assert {
        "schema_version", "kind", "name", "paper", "table", "caption", "source", "scale", "columns", "rows", "remarks",
        "is_reproduction",
    } <= document.keys()  # fmt: skip
    assert document["kind"] == "reproduction"
    for row in document["rows"]:
        for cell in row["cells"].values():
            assert {
                "published", "metric", "values", "n", "mean", "interval", "interval_kind", "difference", "verdict",
                "remarks",
            } <= cell.keys()  # fmt: skip
    assert to_csv(flat_table(document)).count("\n") == 6


def test_rows_of_the_paper_that_are_not_made_are_named_with_the_reason() -> None:
    _, document = with_values("faster-rcnn/table-3")
    (said,) = [text for text in document["remarks"] if "SS 2000, 07+12" in text]
    assert said.startswith("numbers of the paper that are not made here: ")
