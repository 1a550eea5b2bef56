"""Every experiment file runs, from composition to results, at the scale that is meant for that."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from paperbench.config.validate import load_file
from paperbench.records.metrics import MetricRegistry, declared_for
from tests.golden.smoke import EXPERIMENTS, differences, run_smoke

WITHOUT_NET = {"rca-estimate", "rca-scores", "rca-segmenters", "detect-score", "detect-proposals"}
"""Tasks that train no net, or none of their own."""
RESULT_KEYS = {
    "schema_version", "experiment", "task", "scale", "seed", "status", "data", "metrics", "seconds", "device", "precision",
}  # fmt: skip


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
    # NCCL sends no other tensor between ranks.
    assert [name for name, value in model.named_buffers() if not value.is_contiguous()] == []
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
    results, directory = run_smoke(experiment, tmp_path)
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
    assert differences(results) == [], "python -m tests.golden.smoke renews what is kept, where the change is meant"
