"""Photographs of one's own in the VAE tasks: colour, sides, streaming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.config.compose import compose
from paperbench.data.image_sets import FoldersData
from paperbench.engine.order import BatchKey
from paperbench.errors import ConfigError
from paperbench.vae import data, task
from paperbench.vae.drawing import tile_images
from paperbench.vae.objectives import has_gaussian_pixels, make_objective
from tests.data.photos import write_splits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("photos"), train=8, test=4)


def test_streamed_pixels_are_those_in_memory(photos: Path) -> None:
    parts = [
        data.load(FoldersData(root=str(photos), side=8, cache_mb=size), "train", binarisation="grey", device=CPU)
        for size in (0, 100)
    ]
    key = BatchKey(epochs=np.array([0, 1]), indices=np.array([20, 3]), step=0)
    assert torch.equal(*(part.train_batch(key, seed=0) for part in parts))
    assert torch.equal(*(part.eval_batch(3, 9) for part in parts))
    assert {part.size for part in parts} == {(3, 8, 8)}
    assert parts[0].width == 192
    grey = data.load(
        FoldersData(root=str(photos), side=8, colour=False, cache_mb=0), "test", binarisation="grey", device=CPU
    )
    assert (grey.size, grey.eval_batch(0, 2).shape) == ((8, 8), (2, 64))


def test_binary_pixels_need_the_memory(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"raise data\.cache_mb"):
        data.load(FoldersData(root=str(photos), side=8, cache_mb=0), "train", binarisation="dynamic", device=CPU)


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("experiment", ["vae", "autoencoder"])
def test_nets_take_three_channels(net: str, experiment: str) -> None:
    config = compose(experiment, ["scale=smoke", "data=folders", "data.side=8", f"model.net={net}"]).config
    objective = make_objective(config, size=data.image_size(config.data), images=4)
    assert has_gaussian_pixels(config) == (experiment == "vae")
    losses = objective(torch.rand(4, 192), torch.Generator().manual_seed(0))
    assert all(bool(torch.isfinite(value)) for value in losses.values())


def test_a_side_that_convolutions_cannot_halve_is_refused(photos: Path) -> None:
    words = ["scale=smoke", "data=folders", f"data.root={photos}", "data.side=10", "model.net=conv"]
    with pytest.raises(ConfigError, match=r"data\.side=10: model\.net=conv"):
        task.plan(compose("vae", words).config)


def test_tiles_are_coloured() -> None:
    images = torch.zeros(3, 3, 2, 2)
    images[1, 2] = 1.0
    tiled = tile_images(images.flatten(1), (3, 2, 2), columns=2)
    assert tiled.shape == (4, 4, 3)
    assert tiled[:2, 2:].reshape(-1, 3).tolist() == [[0, 0, 255]] * 4
    assert int(tiled.sum()) == 4 * 255


def test_a_run_draws_predicts_and_exports_in_colour(photos: Path, tmp_path: Path) -> None:
    run, runner = tmp_path / "run", CliRunner()
    words = ["data=folders", f"data.root={photos}", "data.side=8", "model.net=conv", "device=cpu"]
    result = runner.invoke(app, ["train", "vae", *words, "--smoke", "--run-dir", str(run)])
    assert result.exit_code == 0, result.output
    with Image.open(run / "figures/reconstructions.png") as drawn:
        assert drawn.mode == "RGB"
    image = photos / "test/chat/000.jpg"
    shown = runner.invoke(app, ["predict", str(run), str(image), "--output", str(tmp_path / "p"), "--json"])
    assert shown.exit_code == 0, shown.output
    made = runner.invoke(app, ["export", str(run), "--format", "torchscript", "--output", str(tmp_path / "n.pt")])
    assert made.exit_code == 0, made.output
