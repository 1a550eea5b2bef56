"""Every parameter that a stage asks a gradient of gets one: ranks on GPUs exchange gradients of all of them, and stop otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine.trainer import Trainer


@pytest.fixture
def exchanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All training goes through the exchange of gradients, as on GPUs, among the one process that there is."""

    def distributed(trainer: Trainer) -> nn.Module:
        return DistributedDataParallel(trainer.module)

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    monkeypatch.setattr(Trainer, "_distributed", distributed)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("exchanging")
@pytest.mark.parametrize(
    "words",
    [["rcnn"], ["sppnet"], ["fast-rcnn", "model.boxes=stage-wise"], ["fast-rcnn", "model.boxes=none"]],
    ids=" ".join,
)
def test_no_stage_leaves_a_parameter_without_a_gradient(words: list[str], tmp_path: Path) -> None:
    run = ["--smoke", "--run-dir", str(tmp_path / "run"), "threads=1", "precision=float32"]
    result = CliRunner().invoke(app, ["train", *words, "device=cpu", *run])
    assert result.exit_code == 0, result.output
