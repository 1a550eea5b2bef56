"""M1 and M2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.errors import ConfigError, DataError, Stopped
from paperbench.vae.config import M2Model, SemiTrain, VaeTrain
from paperbench.vae.semi import M2, JointFeatures, SemiBatch
from paperbench.vae.semi_task import choose_labelled, plan, run
from tests.vae.runs import DECLARED, StopAfter, losses, make_run


def m2(alpha: float = 0.1) -> M2:
    torch.manual_seed(0)
    config = M2Model(latent=2, hidden=5, activation="tanh", alpha=alpha)
    return M2(config, pixels=6, classes=3, labelled_fraction=0.25)


def configured(*overrides: str) -> tuple[Any, dict[str, Any]]:
    quick = ("scale=smoke", "device=cpu", "precision=float32", "threads=1", "train.log_every=1")
    composed = compose("vae-semi", [*quick, *overrides])
    return composed.config, composed.resolved


def test_a_joint_layer_is_one_on_the_concatenation() -> None:
    layer = JointFeatures(inputs=4, classes=3, hidden=5, activation="tanh")
    x, y = torch.randn(2, 4), torch.eye(3)[[0, 2]]
    joint = torch.cat([layer.of_input.weight, layer.of_class.weight], 1)
    expected = torch.tanh(torch.cat([x, y], 1) @ joint.T + layer.of_input.bias)
    torch.testing.assert_close(layer(x, y), expected)


def test_the_bound_without_a_label_sums_the_classes_out() -> None:
    model = m2()
    x, noise = torch.rand(4, 6), torch.randn(3, 4, 2)
    with torch.no_grad():
        log_q = model.log_q_classes(x)
        by_hand = torch.zeros(4)
        for number in range(3):
            y = torch.eye(3)[number].expand(1, 4, 3)
            bound = model.labelled_bound(x, y, noise[number : number + 1])[0]
            by_hand += log_q[:, number].exp() * (bound - log_q[:, number])
        torch.testing.assert_close(model.unlabelled_bound(x, noise), by_hand)


def test_losses_are_weighted_by_the_fraction_of_labels() -> None:
    batch = SemiBatch(torch.rand(4, 6), torch.rand(2, 6), torch.tensor([0, 2]))
    first = m2()(batch, torch.Generator().manual_seed(1))
    second = m2(alpha=0.2)(batch, torch.Generator().manual_seed(1))
    assert first["loss_unlabelled"] > first["loss_labelled"]
    torch.testing.assert_close(second["loss_classes"], 2 * first["loss_classes"])
    torch.testing.assert_close(second["loss_labelled"], first["loss_labelled"])


def test_labels_are_balanced_and_a_function_of_the_seed() -> None:
    labels = torch.arange(60) % 3
    chosen = choose_labelled(labels, 12, classes=3, seed=4)
    assert torch.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert torch.equal(chosen, choose_labelled(labels, 12, classes=3, seed=4))
    assert not torch.equal(chosen, choose_labelled(labels, 12, classes=3, seed=5))
    with pytest.raises(DataError, match="class 0 has 20 training images, and 30 labels of it"):
        choose_labelled(labels, 90, classes=3, seed=0)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        plan(cast(SemiTrain, configured("labels=15", "labelled_batch_size=50")[0]))
    assert len(refused.value.mistakes) == 2


def test_m2_resumes_bit_for_bit(tmp_path: Path) -> None:
    config, resolved = configured("train.checkpoint_every=3")
    of = cast(VaeTrain, config)  # the runs of these tests ask for its seed alone
    whole = make_run(tmp_path / "whole", of, resolved)
    expected = run(config, whole)
    assert all(name in DECLARED for name in expected)
    with pytest.raises(Stopped):
        run(config, make_run(tmp_path / "part", of, resolved, stop=StopAfter(5)))
    again = make_run(tmp_path / "part", of, resolved, again=True)
    assert run(config, again)["test/error"] == expected["test/error"]
    assert losses(again) == losses(whole)
    first, second = (CheckpointStore(r.directory.checkpoints, sweep=False).load() for r in (whole, again))
    assert first is not None
    assert second is not None
    assert all(torch.equal(w, second[0]["module"][name]) for name, w in first[0]["module"].items())
    assert (tmp_path / "part" / "figures" / "styles.png").is_file()


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_m1_classifies_better_than_chance(classifier: str, tmp_path: Path) -> None:
    config, resolved = configured("model=m1", f"model.classifier={classifier}", "train.samples=2000", "labels=50")
    metrics = run(config, make_run(tmp_path / "run", cast(VaeTrain, config), resolved))
    assert metrics["test/error"] < 80
    assert metrics["test/errors"] == round(metrics["test/error"] * 40 / 100)
    assert metrics["test/bound"] < 0
    assert all(name in DECLARED for name in metrics)
