"""`stn-birds` on folders of classes: training, streaming, prediction and export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.data import photographs
from paperbench.data.image_sets import FoldersConfig
from paperbench.engine.order import BatchKey
from paperbench.stn.data import Photographs
from tests.data.photos import write_splits


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("photos"), train=8, test=4)


def test_streamed_crops_are_those_in_memory(photos: Path) -> None:
    sets = []
    for cache_mb in (0, 100):
        found = photographs.load(FoldersConfig(root=str(photos), side=18, cache_mb=cache_mb), "train")
        sets.append(Photographs(found.images, found.labels, size=16, key=5, device=torch.device("cpu"), mirror=True))
    assert [isinstance(part.images, torch.Tensor) for part in sets] == [False, True]
    key = BatchKey(epochs=np.array([0, 0, 3, 7]), indices=np.array([2, 23, 2, 11]), step=0)
    for one, other in ((part.fetch(key) for part in sets), (next(part.batches(5)) for part in sets)):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_run_predicts_and_exports(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["data=folders", f"data.root={photos}", "data.cache_mb=0", "device=cpu", f"output.root={tmp_path / 'out'}"]
    runner = CliRunner()
    result = runner.invoke(app, ["train", "stn-birds", *words, "--smoke", "--run-dir", str(run)])
    assert result.exit_code == 0, result.output
    image = photos / "test/birne/001.jpg"
    shown = runner.invoke(app, ["predict", str(run), str(image), "--output", str(tmp_path / "p"), "--json"])
    assert shown.exit_code == 0, shown.output
    assert any(
        f'"label": "{name}"' in shown.stdout for name in json.loads((run / "classes.json").read_text())["classes"]
    )
    made = runner.invoke(app, ["export", str(run), "--format", "torchscript", "--output", str(tmp_path / "n.pt")])
    assert made.exit_code == 0, made.output
