"""Every experiment file runs, from composition to results, at the scale that is meant for that."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from paperbench.catalog import TASKS
from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.config.paths import shipped_conf
from paperbench.config.validate import load_file
from paperbench.records.metrics import MetricRegistry, declared_for

EXPERIMENTS = sorted(file.stem for file in (shipped_conf() / "experiment").glob("*.yaml"))
WITHOUT_NET = {"rca-estimate", "rca-scores", "rca-segmenters", "detect-score", "detect-proposals"}
"""Tasks that train no net, or none of their own."""
RESULT_KEYS = {
    "schema_version", "experiment", "task", "scale", "seed", "status", "data", "metrics", "seconds", "device", "precision",
}  # fmt: skip


def voc_files(folder: Path) -> list[str]:
    """A devkit of one image and the detections of its one object, as overrides of the experiment `detections`."""
    devkit = folder / "VOCdevkit" / "VOC2012"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / part).mkdir(parents=True)
    (devkit / "ImageSets/Main/val.txt").write_text("one\n")
    (devkit / "Annotations/one.xml").write_text(
        "<annotation><filename>one.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>"
        "<object><name>cat</name><difficult>0</difficult>"
        "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox></object></annotation>"
    )
    from PIL import Image

    Image.new("RGB", (40, 30)).save(devkit / "JPEGImages/one.jpg")
    (folder / "comp4_det_val_cat.txt").write_text("one 0.9 5 5 20 25\n")
    return ["format=voc", f"gt={devkit}", f"dt={folder}", "split=val", "classes=[cat]"]


def scores_file(folder: Path) -> list[str]:
    """Scores of two references for a handful of cases with their truth, as overrides of the experiment `rca-scores`."""
    rows = [
        f"case{case},organ,{reference},{0.1 * case + 0.05 * position},{0.1 * case + 0.02}"
        for case in range(8)
        for position, reference in enumerate(("a", "b"))
    ]
    file = folder / "scores.csv"
    file.write_text("\n".join(["case,label,reference,score,truth", *rows]) + "\n", encoding="utf-8")
    return [f"scores={file}"]


def trained_proposals(folder: Path) -> list[str]:
    """A detector that has seen a few images, as an override of the experiment `rpn-proposals`."""
    CliRunner().invoke(
        app, ["train", "faster-rcnn", "--smoke", "--run-dir", str(folder / "rpn")], catch_exceptions=False
    )
    return [f"proposals.run={folder / 'rpn'}"]


def check_model(run: Path) -> None:
    """The trained net is back from the folder of the run alone, in evaluation mode, with the weights of a checkpoint."""
    task, config, _ = load_file(run / "config.yaml")
    module = importlib.import_module(task.module)
    assert hasattr(module, "load_model") == (task.name not in WITHOUT_NET)
    if task.name in WITHOUT_NET:
        return
    model = module.load_model(config, run)
    assert isinstance(model, torch.nn.Module)
    assert not any(part.training for part in model.modules())
    saved = [
        value
        for file in run.rglob("last.pt")
        for part in torch.load(file, weights_only=True).values()
        if isinstance(part, dict)
        for value in part.values()
        if isinstance(value, torch.Tensor)
    ]
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1:
            assert any(value.shape == other.shape and torch.equal(value, other) for other in saved), name


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_experiment_runs_at_smoke_scale(experiment: str, tmp_path: Path) -> None:
    needs = {"detections": voc_files, "rca-scores": scores_file, "rpn-proposals": trained_proposals}
    overrides = needs[experiment](tmp_path) if experiment in needs else []
    verb = TASKS[compose(experiment, overrides).task.name].verb
    directory = tmp_path / "run"
    overrides.append(f"output.root={tmp_path / 'outputs'}")
    result = CliRunner().invoke(app, [verb, experiment, *overrides, "--smoke", "--json", "--run-dir", str(directory)])
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    assert results.keys() >= RESULT_KEYS
    assert results["status"] == "done"
    assert results["scale"] == "smoke"
    assert results["experiment"] == experiment
    assert results["metrics"]
    assert all(isinstance(value, int | float) for value in results["metrics"].values())
    declared = MetricRegistry(declared_for(results["task"]))
    assert [name for name in results["metrics"] if name not in declared] == [], "not declared by the package"
    assert (
        json.loads((directory / "results.json").read_text()).items()
        >= {"status": "done", "experiment": experiment}.items()
    )
    assert (directory / "config.yaml").is_file()
    assert (directory / "env.json").is_file()
    check_model(directory)
