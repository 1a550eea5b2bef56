"""A run's numbers are judged against the shipped configuration that makes the published number, wherever they are shown."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from paperbench.cli.summary import Summary, summarise
from paperbench.config.compose import compose
from paperbench.config.paths import shipped_conf
from paperbench.report import published
from paperbench.report.judgement import Judged, conditions_of_run, judge_run, reference, shipped_config
from paperbench.report.layout import load, names
from paperbench.report.preparing import Prepared, prepare
from paperbench.report.published import Published
from paperbench.report.reproduction import assemble
from paperbench.report.verdict import Verdict
from tests.report.made_runs import finish, paper_config, results_of

FCN = ("stn", "Table 1", "FCN", "R")
MNIST_20 = ("vae", "Figure 2", "MNIST, 20 latent, AEVB, test", "1e+08")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAPERBENCH_DATA", raising=False)


def judged(config: dict[str, Any], **metrics: float) -> Judged:
    (found,) = judge_run(config, metrics, precision="float32").values()
    return found


# --- what differs from the shipped configuration ----------------------------------------------------------------------


def summary_of(folder: Path, changes: list[str], **results: Any) -> Summary:
    config = compose("stn-mnist", ["scale=paper", "data=mnist", "distortion=r", "model=fcn", *changes]).resolved
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    common = {"metrics": {"test/error": 1.94}, "task": "stn-mnist", "precision": "float32", "scale": "paper"}
    return summarise({**common, **results}, str(run))


def test_a_changed_setting_is_a_deviation_in_the_summary_of_a_training_too(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, ["model.units=1024"])
    assert summary.lines[0].paper == "2.1 +-0.3 %"
    assert summary.lines[0].verdict == "within tolerance, other settings"
    assert "model.units 1024 instead of 349, as shipped" in summary.remarks


@pytest.mark.parametrize(
    ("changes", "results", "said"),
    [
        (
            ["optim.name=adamw", "optim.lr=0.003", "optim.schedule=cosine", "train.samples=3840000"],
            {},
            ["optim.name adamw instead of sgd, as shipped", "train.samples 3840000 instead of 38400000, as shipped"],
        ),
        (["train.batch_size=32"], {}, ["train.batch_size 32 instead of 256, as shipped"]),
        ([], {"data_departures": ["train: 2,000 of 60,000 images"]}, ["train: 2,000 of 60,000 images"]),
    ],
)
def test_by_another_schedule_or_on_other_data_no_published_number_is_held_against_a_run(
    tmp_path: Path, changes: list[str], results: dict[str, Any], said: list[str]
) -> None:
    summary = summary_of(tmp_path, changes, **results)
    assert summary.lines[0].paper == summary.lines[0].verdict == ""
    (remark,) = summary.remarks
    assert remark.startswith("no published number is held against it (Table 1, ")
    assert all(text in remark for text in said)


def test_the_shipped_configuration_deviates_in_nothing_and_its_choices_travel_with_the_verdict() -> None:
    found = judge_run(paper_config(*FCN), {"test/error": 2.0}, precision="bfloat16")["test/error"]
    assert found.conditions.deviations == ()
    assert found.verdict is Verdict.WITHIN
    assert any(text.startswith("precision=bfloat16") for text in found.conditions.choices)
    choices = len(found.conditions.choices)
    assert found.text == f"within tolerance, 1 of the paper's 3 seeds, with {choices} choices"


@pytest.mark.parametrize("name", [name for name in names((shipped_conf(),)) if "paper" in load(name).scales])
def test_every_number_of_a_shipped_table_is_judged_alike_by_its_run_alone(name: str) -> None:
    layout = load(name)
    for cell in layout.cells("paper")[::7]:
        number = cell.published
        if number is None or number.axis is not None or number.metric != cell.metric:
            continue
        found = reference(number, "paper")
        assert found is not None
        alone = conditions_of_run(number, shipped_config(found.cell))
        assert not [text for text in alone.settings if "as shipped" in text or "could not" in text], (
            name,
            alone.settings,
        )


def test_a_circumstance_is_no_deviation() -> None:
    config = paper_config(*FCN)
    config |= {"seed": 3, "device": "cuda", "threads": 4, "output": {"root": "elsewhere"}}
    config["data"]["root"] = "/somewhere"
    assert judged(config, **{"test/error": 2.0}).conditions.deviations == ()


def test_an_evaluation_is_judged_with_the_training_of_its_checkpoint(tmp_path: Path) -> None:
    number = published.find("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07", "mAP")
    trained = paper_config(*number.place)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.pt").touch()
    evaluation = {**trained, "task": "detect-eval", "checkpoint": str(run / "checkpoints" / "last.pt")}
    del evaluation["optim"], evaluation["train"]
    unknown = conditions_of_run(number, evaluation)
    assert "how its checkpoint was trained is not known here" in unknown.settings
    (run / "config.yaml").write_text(yaml.safe_dump(trained), encoding="utf-8")
    assert conditions_of_run(number, evaluation).deviations == conditions_of_run(number, trained).deviations
    trained["optim"]["lr"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(trained), encoding="utf-8")
    assert "optim.lr 0.5 instead of 0.001, as shipped" in conditions_of_run(number, evaluation).deviations


def test_a_run_of_an_earlier_version_is_read_with_todays_keys() -> None:
    config = paper_config(*FCN)
    del config["threads"]
    assert judged(config, **{"test/error": 2.0}).conditions.deviations == ()


# --- the user's own configurations ------------------------------------------------------------------------------------


def test_a_shadowed_schedule_is_a_deviation_of_every_number(tmp_path: Path) -> None:
    shipped = prepare(load("faster-rcnn/table-9"), "smoke")
    assert not [text for item in shipped.cells for text in item.conditions.deviations if "as shipped" in text]
    own = tmp_path / "conf" / "preset" / "faster-rcnn"
    own.mkdir(parents=True)
    text = (shipped_conf() / "preset" / "faster-rcnn" / "smoke.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    content["train"]["samples"] = 11
    (own / "smoke.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content), encoding="utf-8")
    shadowed = prepare(load("faster-rcnn/table-9"), "smoke")
    for item in shadowed.cells:
        if item.cell.published is not None:
            assert any(text.startswith("train.samples 11 instead of") for text in item.conditions.deviations)


def test_a_shadowed_table_is_held_against_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "reproduce" / "faster-rcnn"
    own.mkdir(parents=True)
    text = (shipped_conf() / "reproduce" / "faster-rcnn" / "table-9.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    content["overrides"] = {"all": ["optim.lr=0.5"]}
    (own / "table-9.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    prepared = prepare(load("faster-rcnn/table-9"), "smoke")
    assert all("optim.lr 0.5 instead of 0.001, as shipped" in item.conditions.deviations for item in prepared.cells)


def test_a_table_of_ones_own_experiment_says_that_nothing_was_compared(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    (conf / "experiment").mkdir(parents=True)
    shutil.copy(shipped_conf() / "experiment" / "faster-rcnn.yaml", conf / "experiment" / "mine.yaml")
    (conf / "reproduce").mkdir()
    layout = {
        "paper": "faster-rcnn", "table": "Table 11", "experiment": "mine", "columns": {"mAP": {}},
        "rows": [{"row": "1 scale, 1 ratio", "published": None}], "scales": {"smoke": {}}, "metric": "voc07/mAP",
    }  # fmt: skip
    (conf / "reproduce" / "mine.yaml").write_text(yaml.safe_dump(layout), encoding="utf-8")
    assert prepare(load("mine"), "smoke").cells[0].conditions.settings == ()  # nothing is printed, nothing is judged
    number = published.find("faster-rcnn", "Table 9", "lambda 1", "mAP")
    assert reference(number, "short", layout="mine") is not None  # the shipped table stands in


# --- curves -----------------------------------------------------------------------------------------------------------


def test_a_shorter_run_at_a_constant_rate_deviates_at_no_point_that_it_passes() -> None:
    prepared = prepare_curve(["train.samples=10000000", "evaluation.at_samples=[500000,1000000,3200000]"])
    passed = [item for item in prepared.cells if item.cell.samples is not None and item.cell.samples <= 10_000_000]
    assert passed
    assert all(item.conditions.settings == () for item in passed)


def test_a_point_that_an_unfinished_run_has_passed_is_judged() -> None:
    prepared = prepare_curve([])
    first = prepared.cells[0]
    (member,) = first.runs.values()
    member.directory.mkdir(parents=True)
    batch = member.composed.resolved["train"]["batch_size"]
    (member.directory / "metrics.jsonl").write_text(
        f'{{"step": 0, "rates/chosen": 0.02}}\n{{"step": {1_000_000 // batch}, "{first.cell.metric}": -152.0}}\n',
        encoding="utf-8",
    )
    document = assemble(prepared, results_of(prepared))
    cells = document["rows"][0]["cells"]
    assert cells["1e6"]["verdict"] == "within tolerance"
    assert any("is not at its end" in text for text in cells["1e6"]["remarks"])
    assert "optim.lr=0.02 was chosen by the run" in cells["1e6"]["remarks"]
    assert cells["3.2e6"]["verdict"] == "missing"


def test_figures_of_the_same_models_share_their_runs() -> None:
    one_length = ["train.samples=100000000"]
    runs = {
        name: {member.hash for member in prepare_curve(overrides, f"vae/{name}").sweep.members}
        for name, overrides in (("figure-2", one_length), ("figure-2-frey", []), ("figure-4", []), ("figure-5", []))
    }
    assert len(runs["figure-2"] & runs["figure-5"]) == 3  # 5, 10 and 20 dimensions
    assert len(runs["figure-2-frey"] & runs["figure-4"]) == 1
    assert len(runs["figure-4"] & runs["figure-5"]) == 1


def prepare_curve(overrides: list[str], name: str = "vae/figure-2") -> Prepared:
    """The lower bounds of MNIST at the paper's scale, or another figure, planned without the data."""
    from paperbench.sweeps import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_refusals", lambda members: [])
        return prepare(load(name), "paper", overrides=overrides)


# --- one number, one verdict ------------------------------------------------------------------------------------------


def test_figures_that_show_one_number_judge_it_alike() -> None:
    one = prepare_curve([])
    number = published.find(*MNIST_20)
    in_figure_2 = next(i for i in one.cells if i.cell.published is not None and i.cell.published.place == number.place)
    two = load("vae/figure-5").cells("paper")
    cell = next(c for c in two if c.published is not None and c.published.place == number.place)
    alone = conditions_of_run(number, shipped_config(cell))
    assert in_figure_2.conditions.deviations == alone.deviations == ()
    assert set(in_figure_2.conditions.choices) == set(alone.choices)


def test_a_number_printed_twice_under_the_same_conditions_has_one_tolerance() -> None:
    seen: dict[Any, Published] = {}
    for entry in published.all_published():
        if not entry.when or entry.doubt:
            continue
        key = (entry.paper, entry.metric, repr(sorted(entry.when.items(), key=str)), entry.x, entry.value, entry.unit)
        first = seen.setdefault(key, entry)
        assert first.tolerance == entry.tolerance, (first.place, entry.place)


# --- choices, remarks, seeds ------------------------------------------------------------------------------------------


def test_a_value_that_was_tuned_on_the_printed_numbers_is_a_deviation() -> None:
    number = published.find("distill", "Section 3", "distilled without 3s", "errors")
    config = paper_config(*number.place)
    found = conditions_of_run(number, config)
    tuned = [text for text in found.settings if "was chosen by the errors that the paper prints" in text]
    assert bool(tuned) == (config["hard_weight"] == 10.0)
    config["hard_weight"] = 10.0
    assert any("was chosen by the errors" in text for text in conditions_of_run(number, config).settings)


def test_no_error_of_distillation_on_mnist_stands_beside_a_tuned_setting() -> None:
    rows = published.table("distill", "Section 3")
    numbers = [number for row in rows.values() for number in row.values()]
    assert len(numbers) == 12
    for number in numbers:
        found = conditions_of_run(number, paper_config(*number.place))
        assert found.deviations == (), number.place
        assert any("300 passes for the teacher" in text for text in found.choices)


@pytest.mark.parametrize(
    "place",
    [
        ("vae", "Figure 2", "MNIST, 20 latent, AEVB, test", "2.5e8"),
        ("vae", "Figure 2", "Frey, 10 latent, wake-sleep, train", "1e8"),
        ("vae", "Figure 3", "N = 50000, MCEM, test", "6e7"),
    ],
    ids=["MNIST", "Frey", "MCEM"],
)
def test_the_rate_by_the_papers_rule_is_a_choice_and_a_fixed_one_a_deviation(place: tuple[str, str, str, str]) -> None:
    number = published.find(*place)
    config = paper_config(*number.place)
    found = conditions_of_run(number, config)
    assert found.deviations == ()
    assert any(text.startswith("the rate is the best of 0.01, 0.02 and 0.1") for text in found.choices)
    config["optim"]["lr"] = 0.02
    found = conditions_of_run(number, config)
    assert found.scale == ("optim.lr 0.02 instead of auto, as shipped",)
    assert not any(text.startswith("the rate is") for text in found.choices)


@pytest.mark.parametrize(
    ("place", "choices"),
    [
        (("ssd", "Table 2", "nothing", "mAP"), ["default boxes end at the border", "objects with the same best box"]),
        (("yolo", "Table 1", "YOLO VGG-16", "mAP"), []),
    ],
    ids=["ssd", "yolo"],
)
def test_what_detectors_of_one_stage_do_otherwise_or_by_choice_is_named(
    place: tuple[str, str, str, str], choices: list[str]
) -> None:
    number = published.find(*place)
    found = conditions_of_run(number, paper_config(*number.place), precision="float32")
    assert [text for text in found.settings if text.startswith("images keep their shape")]
    assert len(found.choices) == len(choices)
    assert all(any(wanted in text for text in found.choices) for wanted in choices)


def test_a_remark_about_the_print_takes_nothing_from_a_verdict() -> None:
    number = published.find("vae", "Figure 2", "Frey, 2 latent, wake-sleep, test", "1e8")
    assert number.remark
    found = conditions_of_run(number, paper_config(*number.place))
    assert found.deviations == ()
    assert number.remark in found.remarks


def test_masks_of_other_segmenters_are_other_data() -> None:
    for item in prepare(load("in-context-rca/8-references"), "smoke").cells:
        assert any("the masks are those of the segmenters here" in text for text in item.conditions.data)


def test_a_run_in_another_precision_says_so_in_the_table(tmp_path: Path) -> None:
    prepared = prepare(load("faster-rcnn/table-9"), "smoke")
    for member in prepared.sweep.members:
        finish(member, {"voc07/mAP": 60.0})
    cell = assemble(prepared, results_of(prepared))["rows"][0]["cells"]["mAP"]
    assert not any(
        text.startswith("precision=") for text in cell["choices"]
    )  # these computed in float32, whatever was asked


def test_what_runs_chose_by_themselves_is_said_by_seed(tmp_path: Path) -> None:
    prepared = prepare(load("vae/figure-5"), "smoke", seeds=3)
    for number, member in enumerate(prepared.sweep.members):
        finish(member, {"test/bound": -120.0, "rates/chosen": 0.01 if number % 3 else 0.02})
    (cell, *_) = assemble(prepared, results_of(prepared))["rows"][0]["cells"].values()
    said = [text for text in cell["remarks"] if "chosen by the run" in text]
    assert sorted(said) == [
        "optim.lr=0.01 was chosen by the runs of seed 1, 2",
        "optim.lr=0.02 was chosen by the run of seed 0",
    ]


# --- several sets as one ----------------------------------------------------------------------------------------------


def voc_rows(*overrides: str) -> set[tuple[str, str, str]]:
    config = compose("faster-rcnn", ["scale=paper", "data=voc", "train.schedule=alternating", *overrides]).resolved
    return {(item.paper, item.table, item.row) for item in published.matching(config) if item.metric == "voc07/mAP"}


def test_a_run_on_one_year_and_one_on_both_stand_beside_their_own_rows() -> None:
    assert voc_rows() == {("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07")}
    both = "data.train=[2007/trainval,2012/trainval]"
    assert voc_rows(both) == {("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07+12")}
    assert voc_rows("data.train=[2007/trainval]") == set()


@pytest.mark.parametrize(
    ("paper", "layout", "row", "column"),
    [
        ("ssd", "Table 2", "nothing", "mAP"),
        ("rfcn", "VOC07 test", "R-FCN", "mAP"),
        ("yolo", "Table 1", "YOLO VGG-16", "mAP"),
        ("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07+12", "mAP"),
        ("dcn", "repository, VOC07", "R-FCN", "mAP@0.5"),
    ],
)
def test_rows_on_two_years_of_voc_are_made_on_them(paper: str, layout: str, row: str, column: str) -> None:
    number = published.find(paper, layout, row, column)
    found = reference(number, "paper")
    assert found is not None
    config = shipped_config(found.cell)
    assert config["data"]["train"] == ["2007/trainval", "2012/trainval"]
    conditions = conditions_of_run(number, config, precision="float32")
    assert not conditions.data
    assert not conditions.scale
    alone = {**config, "data": {key: value for key, value in config["data"].items() if key != "train"}}
    assert any("data.train" in text for text in conditions_of_run(number, alone, precision="float32").data)
    assert not any("one of them" in text for text in conditions.deviations)
