"""Listings, `show`, and the parts of running that need no run."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from paperbench.catalog import DATASETS, MODELS, PAPERS, TASKS
from paperbench.cli.app import app
from paperbench.config.compose import compose
from tests.user_folder import write


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def document(*arguments: str, exit_code: int = 0) -> Any:
    """The JSON on stdout; anything beside it would not parse."""
    result = call(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


# --- ls ---------------------------------------------------------------------------------------------------------------


def test_ls_names_the_command_of_each_experiment() -> None:
    result = call("ls")

    assert "paperbench train faster-rcnn" in result.stdout
    assert "paperbench eval detections" in result.stdout


def test_ls_fits_a_screen_and_groups_by_paper() -> None:
    lines = call("ls").stdout.splitlines()

    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    below = lines.index("Spatial Transformer Networks")
    assert "stn-" in lines[below + 1]
    for line in lines:
        if line.startswith("  paperbench"):
            assert 2 <= len(line.split("  ")[-1].split()) <= 10, line


@pytest.mark.parametrize("what", ["tasks", "models", "datasets", "papers", "faster-rcnn", "vae", "distill-omitted"])
def test_no_list_is_wider_than_a_page(what: str) -> None:
    assert max(map(len, call("ls", what).stdout.splitlines())) <= 118


def test_ls_of_an_experiment_says_what_its_file_says() -> None:
    text = call("ls", "stn-mnist").stdout

    assert text.startswith("stn-mnist: distorted digits")
    for part in ("Jaderberg", "section 4.1", "paperbench train stn-mnist", "test/error", "stn-mnist.yaml"):
        assert part in text
    assert document("ls", "stn-mnist")["verb"] == "train"


def test_ls_of_an_unknown_name_says_what_is_near() -> None:
    result = call("ls", "stn-mist")

    assert result.exit_code == 2
    assert "stn-mist: no list of `paperbench ls`, and no experiment. Nearest: stn-mnist" in result.stderr


def test_ls_as_json() -> None:
    experiments = {entry["name"]: entry for entry in document("ls", "experiments")}

    assert experiments["faster-rcnn"]["task"] == "detect-train"
    assert experiments["faster-rcnn"]["verb"] == "train"
    assert "TPAMI 2016" in experiments["faster-rcnn"]["paper"]


@pytest.mark.parametrize(
    ("what", "catalogue"), [("tasks", TASKS), ("models", MODELS), ("datasets", DATASETS), ("papers", PAPERS)]
)
def test_ls_of_the_catalogue(what: str, catalogue: dict[str, Any]) -> None:
    assert [entry["name"] for entry in document("ls", what)] == list(catalogue)
    assert all(name in call("ls", what).stdout for name in catalogue)


def test_ls_shows_whose_an_experiment_is(conf: Path) -> None:
    mine = next(line for line in call("ls").stdout.splitlines() if "mine" in line)

    assert mine.endswith("conf/experiment/mine.yaml")
    assert {e["name"]: e["shipped"] for e in document("ls")} | {"mine": False, "faster-rcnn": True} == {
        e["name"]: e["shipped"] for e in document("ls")
    }


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_prints_the_resolved_configuration() -> None:
    composed = compose("faster-rcnn", ["data=voc", "seed=3"])

    assert yaml.safe_load(call("show", "faster-rcnn", "data=voc", "--seed", "3").stdout) == composed.resolved
    assert document("show", "faster-rcnn", "data=voc", "--seed", "3") == composed.resolved


def test_overrides_may_stand_before_and_after_options() -> None:
    shown = document(
        "show", "--seed", "3", "faster-rcnn", "optim.lr=0.5", "--device", "cpu", "--nproc", "2", "train.samples=9"
    )

    assert (shown["seed"], shown["device"], shown["nproc"]) == (3, "cpu", 2)
    assert (shown["optim"]["lr"], shown["train"]["samples"]) == (0.5, 9)


def test_show_diff_is_what_differs_and_nothing_else() -> None:
    result = call("show", "faster-rcnn", "optim.lr=0.5", "seed=0", "--diff")

    assert result.stdout == "optim.lr: 0.5  # 0.001 by default\n"
    assert document("show", "faster-rcnn", "optim.lr=0.5", "--diff") == {"optim.lr": {"default": 0.001, "now": 0.5}}
    assert "nothing differs" in call("show", "faster-rcnn", "--diff").stdout


def test_show_diff_across_data_sets_is_still_yaml() -> None:
    text = call("show", "faster-rcnn", "data=voc", "--diff").stdout

    assert yaml.safe_load(text)["data.year"] == "2007"
    assert "# data.size: 160  (by default; no such key here)" in text


def test_smoke_is_a_scale() -> None:
    assert document("show", "faster-rcnn", "--smoke")["scale"] == "smoke"
    error = document("show", "faster-rcnn", "--smoke", "scale=paper", exit_code=2)
    assert "given twice, as scale=paper and as scale=smoke" in error["error"]


def test_conf_dir(conf: Path, tmp_path: Path) -> None:
    elsewhere = conf.rename(tmp_path / "elsewhere")

    assert call("show", "mine").exit_code == 2
    assert document("show", "mine", "--conf-dir", str(elsewhere))["optim"]["lr"] == 0.5


# --- verbs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "experiment", "advice"),
    [
        ("train", "detections", "use `paperbench eval detections`"),
        ("estimate", "faster-rcnn", "use `paperbench train faster-rcnn`"),
        ("train", "faster-rcn", "Nearest: faster-rcnn"),
    ],
)
def test_the_wrong_verb_names_the_right_one(verb: str, experiment: str, advice: str) -> None:
    result = call(verb, experiment)

    assert result.exit_code == 2
    assert advice in result.stderr
    assert result.stdout == ""


def test_errors_are_documents_too() -> None:
    error = document("train", "faster-rcnn", "optim.lrr=1", "sede=2", exit_code=2)

    assert error["exit_code"] == 2
    assert len(error["mistakes"]) == 2
    assert error["error"] == "\n".join(error["mistakes"])


def test_training_takes_no_checkpoint() -> None:
    assert "paperbench eval faster-rcnn" in call("train", "faster-rcnn", "checkpoint=a").stderr


def test_several_mistakes_stand_under_each_other() -> None:
    lines = call("train", "faster-rcnn", "optim.lrr=1", "sede=2").stderr.splitlines()

    assert lines[0].startswith("error: optim.lrr")
    assert lines[1].startswith("       sede")


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_ls_finds_layouts_below_the_root(tmp_path: Path) -> None:
    for folder in ("VOCdevkit/VOC2007", "VOCdevkit/VOC2012", "PennFudanPed"):
        (tmp_path / "sets" / folder).mkdir(parents=True)

    found = {entry["name"]: entry["found"] for entry in document("data", "ls", "--root", "sets")["datasets"]}
    assert found["voc"] == [str(tmp_path / "sets/VOCdevkit" / name) for name in ("VOC2007", "VOC2012")]
    assert found["pennfudan"] == [str(tmp_path / "sets/PennFudanPed")]
    assert found["coco"] == found["shapes"] == []
    assert "VOCdevkit/VOC2012" in call("data", "ls", "--root", "sets").stdout


def test_data_ls_takes_the_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERBENCH_DATA", str(tmp_path / "elsewhere"))

    assert document("data", "ls")["root"] == str(tmp_path / "elsewhere")


def test_data_get_knows_its_limits() -> None:
    assert "nothing to download" in call("data", "get", "shapes").stderr
    assert "Nearest: voc" in call("data", "get", "vocc").stderr


def test_data_get_fetches_every_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, Path]] = []

    def get_one(archive: str, root: Path, reporter: Any) -> Path:
        fetched.append((archive, root))
        return root / "VOCdevkit"

    stand_in = types.ModuleType("paperbench.data.downloads")
    vars(stand_in)["get"] = get_one
    monkeypatch.setitem(sys.modules, "paperbench.data.downloads", stand_in)
    monkeypatch.setattr("paperbench.data.downloads", stand_in, raising=False)

    report = document("data", "get", "voc", "--root", "sets")
    assert fetched == [(archive, tmp_path / "sets") for archive in DATASETS["voc"].archives]
    assert report["root"] == str(tmp_path / "sets")
    assert f"data=voc data.root={tmp_path / 'sets'}" in call("data", "get", "voc", "--root", "sets").stdout


def test_data_check_of_an_unknown_name() -> None:
    result = call("data", "check", "pennfudann")

    assert result.exit_code == 2
    assert "no such data set or experiment. Nearest: pennfudan" in result.stderr
    assert "reads no data set" in call("data", "check", "detections").stderr


def test_data_check_of_a_missing_root_is_about_the_environment(tmp_path: Path) -> None:
    result = call("data", "check", "voc", f"data.root={tmp_path / 'nothing'}")

    assert result.exit_code == 4, result.output
    assert "nothing" in result.stderr


@pytest.mark.parametrize("name", ["shapes", "faster-rcnn"])
def test_data_check_counts(name: str) -> None:
    counts = document("data", "check", name, "data.size=32", "data.train_images=2", "data.test_images=1")

    assert counts


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_names_what_is_missing(tmp_path: Path) -> None:
    assert "no such run" in call("predict", "nowhere", "a.png").stderr

    write(tmp_path / "run/config.yaml", yaml.safe_dump(compose("faster-rcnn").resolved))
    result = call("predict", "run", "a.png", "b.png")
    assert result.exit_code == 4
    assert "a.png: no such image file" in result.stderr
    assert "b.png: no such image file" in result.stderr


@pytest.mark.parametrize("experiment", ["vae", "stn-mnist"])
def test_a_threshold_where_nothing_has_one_is_refused(experiment: str, tmp_path: Path) -> None:
    write(tmp_path / "run/config.yaml", yaml.safe_dump(compose(experiment).resolved))
    (tmp_path / "a.png").touch()

    result = call("predict", "run", "a.png", "--score-threshold", "0.5")
    assert result.exit_code == 2
    assert "score_threshold: prediction with the run" in result.stderr
    assert "no such option" in result.stderr


def test_predict_needs_a_task_that_predicts(tmp_path: Path) -> None:
    write(tmp_path / "run/config.yaml", yaml.safe_dump(compose("detections").resolved))
    (tmp_path / "a.png").touch()

    result = call("predict", "run", "a.png")
    assert result.exit_code == 2
    assert "runs of task detect-score have no model that predicts on images" in result.stderr
