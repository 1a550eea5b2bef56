"""A loss or a gradient that is not finite stops the run before the weights are touched, and names the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperbench.engine.launch import resume, start
from paperbench.engine.order import EpochOrder
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import TrainingError
from tests.engine import toy


@pytest.mark.parametrize(("fault", "named"), [("nan", "second=nan"), ("inf", "norm of the gradient=")])
def test_stops_before_the_step_and_names_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, named: str
) -> None:
    toy.register(monkeypatch)
    weights: list[dict[str, torch.Tensor]] = []
    steps: list[int] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> None:
        original(self)
        steps.append(len(steps))
        weights[:] = [{str(i): p.detach().clone() for i, p in enumerate(self.param_groups[0]["params"])}]

    held: list[torch.nn.Module] = []
    module_init = toy.Toy.__init__

    def init(self: toy.Toy, *arguments: object) -> None:
        module_init(self, *arguments)  # type: ignore[arg-type]
        held.append(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    monkeypatch.setattr(toy.Toy, "__init__", init)
    run_dir = tmp_path / "run"
    config = toy.config(fault=f"{fault}@4", evaluate=False, train__checkpoint_every=100)
    with pytest.raises(TrainingError) as caught:
        start(config, run_dir=run_dir, reporter=SilentReporter())

    indices = EpochOrder(12, 4, 3).batch(4).indices.tolist()
    assert f"not finite at step 4 (epoch 1): {named}" in str(caught.value)
    assert f"samples {indices}" in str(caught.value)
    assert steps == [0, 1, 2, 3], "the step of the bad batch was not made"
    for name, parameter in enumerate(held[0].parameters()):
        assert torch.equal(parameter, weights[0][str(name)])
    assert not (run_dir / "checkpoints").exists(), "what is not finite is never saved"
    assert "not finite at step 4" in (run_dir / "log.txt").read_text()

    assert resume(run_dir, SilentReporter()).status == "done"
