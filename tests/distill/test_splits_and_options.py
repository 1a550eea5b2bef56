"""Which images and which options decide a net, and by which key it is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.config.schema import OptimConfig
from paperbench.distill import teachers
from paperbench.distill.batches import JITTER, Images, LabelledBatches
from paperbench.distill.config import NetConfig
from paperbench.distill.evaluation import omitted_class_metrics
from paperbench.distill.supervised import Recipe, machine_of
from paperbench.distill.training import Data, Distillation, StageSteps
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.seeding import hashed
from paperbench.engine.signals import StopFlag

CPU = torch.device("cpu")


def images(seed: int, count: int = 40) -> Images:
    pixels = torch.randint(0, 256, (count, 1, 6, 6), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple("0123456789"), f"images {seed}")


class QuietRun(Run):
    """A run that draws nothing and is never asked to stop."""

    def draw(self, figure: Callable[..., object], *arguments: Any, **named: Any) -> None:
        pass

    def raise_if_stopped(self) -> None:
        pass


def a_run(folder: Path, precision: str = "float32") -> Run:
    reporter = SilentReporter()
    return QuietRun(
        directory=RunDirectory(folder), device=CPU, precision=precision, ranks=Ranks(), reporter=reporter, stop=StopFlag(),
        log=MetricLog(), checkpoints=CheckpointStore(folder / "checkpoints", reporter), seed=0, config_hash="x",
    )  # fmt: skip


RECIPE = Recipe(
    net=NetConfig(), optim=OptimConfig(), samples=40, batch_size=10, clip_norm=0.0, jitter=0, seed=1, images="a"
)


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_everything_in_a_recipe_is_in_its_key(name: str) -> None:
    changes: dict[str, Any] = {
        "net": replace(RECIPE.net, width=77),
        "optim": replace(RECIPE.optim, momentum=0.1),
        "machine": ("cpu", "bfloat16", 0),
        "images": "b",
        "chosen_on": "b",
    }
    changed = changes.get(name, getattr(RECIPE, name) + 1 if name not in changes else None)
    assert replace(RECIPE, **{name: changed}).digest() != RECIPE.digest()


def test_the_machine_names_its_precision(tmp_path: Path) -> None:
    assert machine_of(a_run(tmp_path, "bfloat16")) != machine_of(a_run(tmp_path, "float32"))


def distillation(folder: Path, *overrides: str) -> Distillation:
    config = compose("distill", ["scale=smoke", *overrides, f"output.root={folder}"]).config
    return Distillation.of(config, a_run(folder / "run"), Data(images(0), images(1)))


def _width(net: Any) -> int:
    assert isinstance(net, NetConfig)
    return net.width


def test_teacher_and_student_have_the_options_of_their_own_sections(tmp_path: Path) -> None:
    run = distillation(
        tmp_path, "teaching.jitter=1", "jitter=2", "teaching.optim.lr=0.25", "optim.lr=0.5", "train.clip_norm=3",
        "teaching.members=3", "teaching.net.width=9", "model.width=7",
    )  # fmt: skip
    recipes = [run._teacher(number).recipe for number in range(3)]
    assert {(r.jitter, r.optim.lr, r.clip_norm, _width(r.net)) for r in recipes} == {(1, 0.25, 3, 9)}
    assert len({r.seed for r in recipes}) == 3
    assert run.baseline is not None
    student = run.baseline.recipe
    assert (student.jitter, student.optim.lr, student.clip_norm, _width(student.net)) == (2, 0.5, 3, 7)


def test_every_option_of_a_recipe_arrives_where_the_net_is_trained(tmp_path: Path) -> None:
    run = distillation(
        tmp_path, "teaching.samples=60", "teaching.batch_size=30", "train.samples=80", "train.batch_size=20",
        "train.clip_norm=3", "teaching.jitter=1", "jitter=2", "teaching.optim.lr=0.25", "optim.lr=0.5", "teaching.seed=7",
        "teaching.optim.momentum=0.3", "optim.momentum=0.6", "optim.weight_decay=0.1", "teaching.optim.name=sgd",
        "optim.name=sgd", "train.evaluate_every=3", "optim.schedule=cosine", "teaching.optim.schedule=constant",
    )  # fmt: skip
    run.teacher_logits = torch.zeros(1, 40, 10)
    assert run.baseline is not None
    teacher, baseline, student = (part.trainer() for part in (run._teacher(0), run.baseline, run))
    found = [
        (
            t.steps, t.order.batch_size, t.order.seed, t.clip_norm, t.optimizer.param_groups[0]["base_lr"],
            t.optimizer.param_groups[0]["momentum"], t.optimizer.param_groups[0]["weight_decay"], t.evaluate_every,
            t.lr_factor(t.steps - 1) < 1, cast(LabelledBatches, t.fetch).images.identity[1:3],
        )
        for t in (teacher, baseline, student)
    ]  # fmt: skip
    assert found[0] == (2, 30, 7, 3, 0.25, 0.3, 0.0, 3, False, (1, hashed(7, JITTER)))
    assert found[1] == found[2] == (4, 20, 0, 3, 0.5, 0.6, 0.1, 3, True, (2, hashed(0, JITTER)))
    assert run.steps == StageSteps(teachers=2, baseline=4, distilled=4)


def test_test_scores_are_of_test_images(tmp_path: Path) -> None:
    run = distillation(tmp_path)
    torch.manual_seed(0)
    net = run.student().net
    before = run._test_scores(net)
    other_train = replace(run, data=Data(images(5), images(1)))
    other_test = replace(run, data=Data(images(0), images(6)))
    assert other_train._test_scores(net) == before
    assert other_test._test_scores(net)["test/nll"] != before["test/nll"]


def test_logits_are_stored_by_both_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    entry = teachers.StoreEntry

    def remembered(folder: Path, key: str, **options: Any) -> Any:
        keys.append(key)
        return entry(folder, key, **options)

    monkeypatch.setattr(teachers, "StoreEntry", remembered)
    net = distillation(tmp_path).student().net
    for train, test in ((0, 1), (2, 1), (0, 3)):
        teachers.compute_logits(
            net, train=images(train), test=images(test), run=a_run(tmp_path), folder=tmp_path, batch_size=20
        )
    assert len(set(keys)) == 3


def test_the_errors_on_validation_images_are_counted_without_and_with_the_bias() -> None:
    labels = torch.tensor([0, 1, 2, 2])
    held = torch.tensor(
        [[2.0, 0, 0], [0, 2.0, 0], [1.0, 0, 0], [0, 0.5, 0]]
    )  # 2 loses by 1 and by 0.5, and needs 2 to harm others
    test = torch.zeros(4, 3)
    found = omitted_class_metrics(test, labels, [2], [2], validation=(held, labels), prefix="d")
    assert found["d/validation/errors"] == 2
    assert found["validated/validation/errors"] == 0
    assert 1 < found["validated/bias"] < 2
    without = omitted_class_metrics(test, labels, [2], [2], validation=None, prefix="d")
    assert not any("validation" in name for name in without)


def test_a_validated_bias_does_not_look_at_test_labels() -> None:
    stream = torch.Generator().manual_seed(0)
    logits, held = torch.randn(60, 10, generator=stream), torch.randn(60, 10, generator=stream)
    labels = torch.arange(60) % 10
    biases = {
        omitted_class_metrics(logits, own, [3], [3], validation=(held, labels), prefix="d")["validated/bias"]
        for own in (labels, labels.roll(3), labels.flip(0))
    }
    assert len(biases) == 1
