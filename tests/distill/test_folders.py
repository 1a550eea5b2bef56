"""Distillation on folders of classes: from photographs, without labels, and with a teacher in a file."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.data import photographs
from paperbench.data.image_sets import FoldersConfig, TransferFoldersData
from paperbench.distill import task
from paperbench.distill.batches import Images, JitteredBatches
from paperbench.distill.config import Distill
from paperbench.engine.order import BatchKey
from paperbench.errors import ConfigError, DataError
from tests.data.photos import write_photo, write_splits
from tests.distill import runs

SMALL = ("data=folders", "data.side=16", "model.width=8")


def configured(*overrides: str) -> Distill:
    """A tiny configuration; later overrides win."""
    chosen = {text.partition("=")[0]: text for text in (*runs.TINY, *overrides)}
    return compose("distill", list(chosen.values())).config


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_splits(tmp_path_factory.mktemp("photos"), train=10, test=4)
    for number in range(12):
        write_photo(root.with_name("wild") / f"{number}.png", hue=number % 3, seed=2000 + number)
    return root


def streamed(root: Path, cache_mb: int) -> Images:
    config = FoldersConfig(root=str(root), side=16, cache_mb=cache_mb)
    return Images.of(photographs.load(config, "train"), torch.device("cpu"))


def test_streamed_batches_are_those_in_memory(photos: Path) -> None:
    whole, part = streamed(photos, 100), streamed(photos, 0)
    assert isinstance(whole.pixels, torch.Tensor)
    assert not isinstance(part.pixels, torch.Tensor)
    assert whole.fingerprint == part.fingerprint
    rows = torch.tensor([3, 17, 20, 29])
    assert whole.select(rows).fingerprint == part.select(rows).fingerprint
    import numpy as np

    key = BatchKey(epochs=np.array([0, 0, 5]), indices=np.array([2, 0, 1]), step=0)
    for reach in (0, 2):
        for chosen in (None, rows):
            ours, theirs = (JitteredBatches(images, reach=reach, seed=1, rows=chosen)(key) for images in (whole, part))
            assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_run_learns_predicts_and_exports(photos: Path, tmp_path: Path) -> None:
    metrics = runs.train(runs.resolved(tmp_path, *SMALL, f"data.root={photos}"), tmp_path / "run")
    assert metrics["distilled/test/errors"] <= 12
    assert json.loads((tmp_path / "run/classes.json").read_text())["classes"] == ["birne", "chat", "Éclair"]
    image = photos / "test/chat/000.jpg"
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "run"), str(image), "--output", str(tmp_path / "p"), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert '"label": "' in result.output
    exported = CliRunner().invoke(
        app, ["export", str(tmp_path / "run"), "--format", "torchscript", "--output", str(tmp_path / "s.pt")]
    )
    assert exported.exit_code == 0, exported.output


def test_without_labels_only_soft_targets_count(photos: Path, tmp_path: Path) -> None:
    wild = photos.with_name("wild")
    torch.manual_seed(0)
    teacher = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save(teacher.state_dict(), tmp_path / "t.pth")
    words = (*SMALL, "data.side=32", f"data.root={photos}", f"data.unlabelled={wild}", f"teacher={tmp_path / 't.pth'}")
    plan = task.plan(configured(*words))
    assert "12 images without a class; no hard targets" in plan["targets"]
    metrics = runs.train(runs.resolved(tmp_path, *words), tmp_path / "run")
    assert 0 <= metrics["distilled/train/agreement"] <= 100
    assert "distilled/train/accuracy" not in metrics
    assert "baseline/test/errors" in metrics


@pytest.mark.parametrize(
    "word", ["transfer.omit=chat", "transfer.fraction=0.5", "soft_weight=0", "baseline.images=transfer"]
)
def test_keys_that_need_labels_are_refused_without_any(photos: Path, word: str) -> None:
    wild = photos.with_name("wild")
    words = [*SMALL, f"data.root={photos}", f"data.unlabelled={wild}", word]
    with pytest.raises(ConfigError, match=word.partition("=")[0].rpartition(".")[2]):
        task.plan(configured(*words))


def test_a_class_that_is_new_stops_a_run_that_goes_on(photos: Path, tmp_path: Path) -> None:
    root = write_splits(tmp_path / "mine", train=8, test=3)
    runs.train(runs.resolved(tmp_path, *SMALL, f"data.root={root}"), tmp_path / "run")
    for split in ("train", "test"):
        (root / split / "chat").rename(root / split / "cat")
    begun = SimpleNamespace(directory=SimpleNamespace(path=tmp_path / "run"), ranks=SimpleNamespace(is_main=True))
    config = FoldersConfig(root=str(root))
    with pytest.raises(DataError, match=r"the classes of the data have changed since the run began \(cat, chat\)"):
        photographs.record(begun, config)  # type: ignore[arg-type]
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / "chat")
    photographs.record(begun, TransferFoldersData(root=str(root), max_train_images=120, max_test_images=60))  # type: ignore[arg-type]
    write_photo(root / "train/chat/new.jpg", hue=0, seed=0)
    with pytest.raises(DataError, match="the files of the data have changed"):
        photographs.record(begun, config)  # type: ignore[arg-type]
