"""An nnU-Net archive without a manifest: its folders, its channels, its names of labels, and the report on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.data.phantoms import phantom
from paperbench.engine.first_look import read_first_look
from paperbench.errors import DataError
from paperbench.rca import folders, nnunet, task
from tests.rca.made import QUICK, SHAPE, grey, write_png

NAMES = {"background": 0, "body": 1, "liver": 2}


def archive(root: Path, *, cases: int = 3, references: int = 3, predictions: str = "predictions") -> Path:
    """Two-dimensional images, as nnU-Net's `NaturalImage2DIO` keeps them."""
    for k in range(references):
        image, truth = phantom(k, shape=SHAPE)
        write_png(root / "imagesTr" / f"ref_{k:03d}_0000.png", grey(image))
        write_png(root / "labelsTr" / f"ref_{k:03d}.png", np.minimum(truth, 2))
    for k in range(cases):
        image, truth = phantom(50 + k, shape=SHAPE)
        write_png(root / "imagesTs" / f"case_{k:03d}_0000.png", grey(image))
        write_png(root / predictions / f"case_{k:03d}.png", np.roll(np.minimum(truth, 2), 6 * k, axis=0))
    (root / predictions / "plans.json").write_text("{}")
    (root / "dataset.json").write_text(
        json.dumps({"labels": NAMES, "channel_names": {"0": "CT"}, "file_ending": ".png"})
    )
    return root


def found(*words: str) -> dict[str, str]:
    return dict(task.plan(compose("rca", [*QUICK[1:], *words]).config))


def test_one_key_names_the_archive(tmp_path: Path) -> None:
    root = archive(tmp_path)
    plan = found(f"images={root}")
    assert plan["data"].startswith("3 images, 3 references, from")
    assert plan["masks"] == "predictions; labels body, liver"
    written_out = found(
        f"images={root}/imagesTs", f"masks={root}/predictions", f"reference.images={root}/imagesTr",
        f"reference.masks={root}/labelsTr",
    )  # fmt: skip
    assert written_out == plan


def test_truth_and_several_folders_of_predictions_are_found(tmp_path: Path) -> None:
    root = archive(tmp_path, predictions="nnUNet/fold_0")
    archive(tmp_path, predictions="nnUNet/fold_1")
    for k in range(2):
        write_png(root / "labelsTs" / f"case_{k:03d}.png", np.minimum(phantom(50 + k, shape=SHAPE)[1], 2))
    plan = found(f"images={root}")
    assert "truth of 2" in plan["data"]
    assert plan["masks"].startswith("fold_0, fold_1;")
    assert found(f"images={root}", f"masks={root}/nnUNet/fold_1")["masks"].startswith("fold_1;")


def test_the_first_channel_is_used_and_the_others_are_said(tmp_path: Path) -> None:
    root = archive(tmp_path)
    for folder in ("imagesTr", "imagesTs"):
        for path in list((root / folder).iterdir()):
            path.with_name(path.name.replace("_0000", "_0001")).write_bytes(path.read_bytes())
    plan = found(f"images={root}")
    assert plan["data"].startswith("3 images, 3 references")
    assert "_0000 is used, 0001 are not" in plan["remark"]


@pytest.mark.parametrize(
    ("labels", "names", "ignored"),
    [
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, {1: "a", 2: "b"}, 3),
        ({"0": "background", "1": "a", "2": "b"}, {1: "a", 2: "b"}, None),
        ({"background": 0, "whole": [1, 2], "a": 1}, {1: "a"}, None),
    ],
)
def test_names_of_labels_in_both_forms(
    tmp_path: Path, labels: dict[str, object], names: dict[int, str], ignored: int | None
) -> None:
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    known = nnunet.label_names(str(tmp_path / "imagesTs"))
    assert (dict(known.names), known.ignored) == (names, ignored)
    assert bool(known.remarks) == ("whole" in labels)
    assert nnunet.label_names(str(tmp_path / "elsewhere")) == nnunet.NO_NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "has no table 'labels'"),
        ('{"labels": {"a": 1, "b": 1}}', "twice"),
        ('{"labels": {"a": "b"}}', "neither"),
    ],
)
def test_a_bad_dataset_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "imagesTs").mkdir()
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        nnunet.label_names(str(tmp_path / "imagesTs"))


@pytest.mark.parametrize(
    ("part", "message"),
    [("labelsTr", "without labelsTr/"), ("imagesTs", "without imagesTs/"), ("predictions", "masks=DIR names")],
)
def test_a_part_that_is_missing_is_named(tmp_path: Path, part: str, message: str) -> None:
    root = archive(tmp_path)
    for path in (root / part).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=message):
        found(f"images={root}")


def test_labels_have_their_names_and_the_ignored_one_is_no_organ(tmp_path: Path) -> None:
    root = archive(tmp_path)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "body": 1, "ignore": 2}}))
    read = folders.find(compose("rca", [*QUICK[1:], f"images={root}"]).config).read()
    assert read.labels.names == ("body",)
    assert folders.find(
        compose("rca", [*QUICK[1:], f"images={root}", "labels.values=[2]"]).config
    ).read().labels.values == (2,)


def test_the_report_opens_with_the_worst_cases(tmp_path: Path) -> None:
    root = archive(tmp_path / "archive")
    run = tmp_path / "run"
    words = [*QUICK[1:], f"images={root}", "calibration.degraded=4", "pictures=2", f"output.root={tmp_path / 'out'}"]
    result = CliRunner().invoke(app, ["estimate", "rca", *words, "--run-dir", str(run)])
    assert result.exit_code == 0, result.output
    listed = read_first_look(run)
    assert listed is not None
    assert [look.caption.partition(",")[0] for look in listed.looks] == ["case_002", "case_001"]
    assert all((run / look.picture).is_file() for look in listed.looks)
    assert " to " in listed.looks[0].caption
    shown = CliRunner().invoke(app, ["report", str(run), "--output", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 0 < page.index("Cases to look at first") < page.index(">Results<")
    assert page.index("case_002, predictions") < page.index("case_001, predictions")
