"""Every key of the nets, of the student's losses and of the specialists changes what it says; each number has its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.data.image_sets import ImageSet
from paperbench.distill import datasets
from paperbench.distill import training as distilling
from paperbench.distill.batches import Batch, LabelledBatches
from paperbench.distill.config import DigitPairsData, EmnistData, NetConfig
from paperbench.distill.evaluation import omitted_class_metrics
from paperbench.distill.losses import logit_matching, soft_loss
from paperbench.distill.nets import Net, build
from paperbench.distill.specialists import training as specialising
from paperbench.distill.specialists.model import as_specialist, membership
from paperbench.distill.specialists.training import SpecialistTraining
from paperbench.distill.stacked import stack_key
from paperbench.engine.order import BatchKey
from tests.distill.test_splits_and_options import a_run, distillation, images


class _CaughtError(Exception):
    pass


def changed(config: Any, key: str, value: Any) -> Any:
    section, _, rest = key.partition(".")
    return replace(config, **{section: changed(getattr(config, section), rest, value) if rest else value})


NETS = {"width": 6, "layers": 1, "dropout": 0.5, "input_dropout": 0.5, "max_norm": 0.05}


@pytest.mark.parametrize("kind", ["mlp", "convnet"])
@pytest.mark.parametrize("key", list(NETS))
def test_every_key_of_a_net_changes_it(kind: Any, key: str) -> None:
    found = []
    config = NetConfig(name=kind, width=8, layers=2)
    for own in (config, replace(config, **{key: NETS[key]})):
        torch.manual_seed(0)
        net = build(own, size=(1, 8, 8), classes=3).train()
        shapes = [tuple(value.shape) for value in net.parameters()]
        torch.manual_seed(1)
        found.append((shapes, net(torch.rand(5, 64)).tolist()))
    assert found[0] != found[1]


STUDENT = {
    "temperature": 3.0,
    "targets": "logits",
    "soft_weight": 0.25,
    "hard_weight": 0.75,
    "teaching.average": "logits",
}


@pytest.mark.parametrize("key", list(STUDENT))
def test_every_key_of_the_student_s_loss_changes_it(tmp_path: Path, key: str) -> None:
    found = []
    base = distillation(tmp_path, "temperature=2", "soft_weight=1", "hard_weight=0.5")
    for config in (base.config, changed(base.config, key, STUDENT[key])):
        own = replace(base, config=config)
        own.teacher_logits = 3 * torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(0))
        loss = own.student().eval()
        rows = torch.arange(6)
        batch = Batch(
            own.data.train.pixels[rows].flatten(1).float() / 255, own.data.train.labels[rows], own.targets()[rows]
        )
        found.append({name: value.item() for name, value in loss(batch, torch.Generator()).items()})
    assert found[0] != found[1]
    if key.endswith("_weight"):
        name = f"loss_{key.removesuffix('_weight')}"
        assert found[1][name] == pytest.approx(found[0][name] * STUDENT[key] / getattr(base.config, key), rel=1e-4)


@pytest.mark.parametrize("kind", ["logits", "soft"])
def test_the_soft_loss_is_the_one_that_the_targets_are_for(tmp_path: Path, kind: str) -> None:
    run = distillation(tmp_path, f"targets={kind}", "temperature=3", "soft_weight=0.5", "hard_weight=0.25")
    run.teacher_logits = 3 * torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(0))
    loss, rows = run.student().eval(), torch.arange(6)
    inputs = run.data.train.pixels[rows].flatten(1).float() / 255
    found = loss(Batch(inputs, run.data.train.labels[rows], run.targets()[rows]), torch.Generator())["loss_soft"]
    own, given = loss.net(inputs), run.teacher_logits[:, rows]
    expected = {
        "logits": logit_matching(own, given.mean(0)),
        "soft": soft_loss(own, (given / 3).softmax(-1).mean(0), 3.0),
    }
    torch.testing.assert_close(found, 0.5 * expected[kind])


def test_the_distilled_student_learns_from_the_transfer_set_alone(tmp_path: Path) -> None:
    run = distillation(tmp_path, "transfer.omit=[3]", "validation.fraction=0.2", "train.batch_size=8")
    run.teacher_logits = torch.zeros(1, 40, 10)
    trainer = run.trainer()
    batches = cast(LabelledBatches, trainer.fetch).images
    seen: set[int] = set()
    for step in range(9):  # two passes
        seen |= set(batches(trainer.order.batch(step))[2].tolist())
    assert seen == set(run.split.transfer.tolist())


def test_the_ensemble_is_averaged_as_the_targets_are(tmp_path: Path) -> None:
    logits = 3 * torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(0))
    plain, averaged = (
        distillation(tmp_path, f"teaching.average={kind}")._ensemble(logits) for kind in ("probabilities", "logits")
    )
    assert not torch.allclose(plain, averaged)


# --- the baseline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "early"), [("all", False), ("all", True), ("transfer", False), ("transfer", True)])
def test_the_images_of_the_baseline(tmp_path: Path, kind: str, early: bool) -> None:
    run = distillation(
        tmp_path, f"baseline.images={kind}", f"baseline.early_stopping={str(early).lower()}", "validation.fraction=0.2",
        "transfer.omit=[3]", "train.evaluate_every=2",
    )  # fmt: skip
    own = run.baseline
    assert own is not None
    expected = {"transfer": run.split.transfer, "all": run.split.rest if early else None}[kind]
    assert (own.rows is None) == (expected is None)
    if own.rows is not None and expected is not None:
        assert torch.equal(own.rows, expected)
        assert not set(own.rows.tolist()) & set(run.split.validation.tolist())
    assert own.recipe.images == run.data.train.select(expected).fingerprint
    chosen = run.data.train.select(run.split.validation).fingerprint
    assert (own.recipe.chosen_on, own.watch) == ((chosen, "validation/errors") if early else ("", None))


def test_training_accuracy_is_over_the_images_that_a_student_saw(tmp_path: Path) -> None:
    run = distillation(tmp_path, "transfer.omit=[0,1,2,3,4,5,6,7,8]")
    student = run.student().net
    assert isinstance(student, Net)
    with torch.no_grad():
        student.head.weight.zero_()
        student.head.bias.copy_(torch.arange(10.0))  # always the last class
    run.baseline = None
    found = run.finish(student, {})
    assert found["distilled/train/accuracy"] == 100
    assert found["distilled/omitted/right"] == 0


def test_a_bias_is_validated_on_validation_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = distillation(tmp_path, "transfer.omit=[3]", "validation.fraction=0.2")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        distilling, "omitted_class_metrics", lambda *given, **more: seen.update(more, given=given) or {}
    )
    student = run.student().net
    run._omitted_class_metrics(student, torch.zeros(40, 10))
    logits, labels = seen["validation"]
    assert labels.tolist() == run.data.train.labels[run.split.validation].tolist()
    assert len(logits) == len(labels)
    assert seen["given"][2:] == ((3,), (3,))


def test_the_errors_of_unseen_classes_are_theirs() -> None:
    """With `only`, the classes to correct are those that were seen, and the unseen ones are all others."""
    logits = torch.full((20, 10), 0.0)
    labels = torch.arange(20) % 10
    logits[torch.arange(20), labels] = 1.0
    logits[:, 7] = 2.0  # everything is called a 7
    logits[0, 5] = 9.0  # and one 0 is a 5 with every bias
    found = omitted_class_metrics(logits, labels, [7], [0, 1], validation=None, prefix="d")
    assert found["d/omitted/errors"] == 4
    assert found["corrected/omitted/errors"] == 1
    assert found["corrected/omitted/right"] == 75


def test_a_teacher_is_normalised_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def teacher(*given: Any, **settings: Any) -> Any:
        seen.update(settings)
        raise _CaughtError

    monkeypatch.setattr(distilling, "PretrainedTeacher", teacher)
    monkeypatch.setattr(distilling, "find_teachers", lambda place: [tmp_path])
    base = distillation(tmp_path)
    config = replace(base.config, teacher=("x",), teacher_mean=0.125, teacher_std=0.375)
    with pytest.raises(_CaughtError):
        replace(base, config=config).prepare_teachers()
    assert (seen["mean"], seen["std"]) == (0.125, 0.375)


def test_students_are_stacked_with_their_like_alone() -> None:
    config = compose("distill", ["scale=smoke"]).config
    others: dict[str, Any] = {
        "jitter": 2, "targets": "logits", "train.samples": 7, "train.batch_size": 3, "optim.weight_decay": 0.5, "model.layers": 1,
        "model.dropout": 0.25, "teaching.average": "logits", "data.max_train_images": 3, "transfer.fraction": 0.5,
        "validation.fraction": 0.5,
    }  # fmt: skip
    for key, value in others.items():
        assert stack_key(changed(config, key, value)) != stack_key(config), key
    for key, value in {"seed": 5, "optim.lr": 0.5, "temperature": 3.0, "soft_weight": 0.5, "hard_weight": 0.5}.items():
        assert stack_key(changed(config, key, value)) == stack_key(config), key


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_options_reach_the_readers(monkeypatch: pytest.MonkeyPatch, split: Any) -> None:
    asked: dict[str, Any] = {}

    def note(*given: Any, **settings: Any) -> ImageSet:
        asked.clear()
        asked.update(settings, given=given)
        return ImageSet(images=torch.zeros(9, 4, 4), labels=torch.zeros(9, dtype=torch.int64), classes=("a",), name="x")

    for module in (datasets.emnist, datasets.digit_pairs):
        monkeypatch.setattr(module, "load", note)
    limits: dict[str, Any] = {"max_train_images": 3, "max_test_images": 5}
    limit = 3 if split == "train" else 5
    found = datasets.load(EmnistData(split="byclass", **limits), split)
    assert (asked["given"][1], asked["variant"], len(found)) == (split, "byclass", limit)
    config = DigitPairsData(source="mnist", train_images=30, test_images=20, data_seed=9)
    datasets.load(config, split)
    assert (asked["given"][0], asked["source"], asked["seed"]) == (split, "mnist", 9)
    assert asked["count"] == (30 if split == "train" else 20)
    datasets.load(replace(config, **limits), split)
    assert asked["count"] == limit


# --- specialists ------------------------------------------------------------------------------------------------------


def specialists(folder: Path, *overrides: str) -> SpecialistTraining:
    config = compose("distill-specialists", ["scale=smoke", *overrides]).config
    return SpecialistTraining(config=config, run=a_run(folder), train=images(0), test=images(1))


def generalist() -> Any:
    torch.manual_seed(0)
    return build(NetConfig(width=8, layers=1), size=(1, 6, 6), classes=10)


def test_specialists_are_trained_by_their_own_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def build_trainer(run: Any, module: Any, **settings: Any) -> Any:
        seen.update(settings, module=module)
        raise _CaughtError

    monkeypatch.setattr(specialising, "build_trainer", build_trainer)
    monkeypatch.setattr(specialising, "stage", lambda run, *_, **__: run)
    own = specialists(
        tmp_path, "specialists.optim.lr=0.25", "optim.lr=0.5", "specialists.soft_weight=0.75", "specialists.temperature=3",
        "specialists.samples=60", "specialists.batch_size=6",
    )  # fmt: skip
    net, members = generalist(), (1, 2)
    logits = own._logits(net, own.train)
    with pytest.raises(_CaughtError):
        own._specialist(0, members, net, logits)
    assert (seen["optim"].lr, seen["loop"].samples, seen["loop"].batch_size) == (0.25, 60, 6)
    assert (seen["module"].soft_weight, seen["module"].temperature) == (0.75, 3)
    targets = seen["fetch"](BatchKey(0, torch.arange(5).numpy(), torch.zeros(5, dtype=torch.int64).numpy())).targets
    # 8 special images and 32 others: corrected, the soft targets are the generalist's probabilities at the temperature.
    p = logits[:5].log_softmax(1)
    dustbin = torch.cat([p[:, :1], p[:, 3:]], 1).logsumexp(1, keepdim=True) - torch.tensor(32 / 8).log()
    expected = torch.softmax(torch.cat([p[:, [1, 2]], dustbin], 1) / 3, 1)
    torch.testing.assert_close(targets, expected)


@pytest.mark.parametrize(("key", "value"), [("fraction", 0.25), ("temperature", 4.0)])
def test_clusters_are_of_predictions_on_training_images(tmp_path: Path, key: str, value: float) -> None:
    net, plain = generalist(), specialists(tmp_path)
    base = plain._covariance(net)
    assert not torch.allclose(specialists(tmp_path, f"clusters.{key}={value}")._covariance(net), base)
    other_test, other_train = specialists(tmp_path), specialists(tmp_path)
    other_test.test, other_train.train = images(7), images(8)
    assert torch.equal(other_test._covariance(net), base)
    assert not torch.equal(other_train._covariance(net), base)


def test_gains_are_from_the_generalist_to_all_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, net = specialists(tmp_path), generalist()
    labels = own.test.labels
    perfect = torch.nn.functional.one_hot(labels, 10).double().clamp(1e-6)
    monkeypatch.setattr(own, "_combined", lambda *_: perfect)
    found = own.finish(net, [(1, 2), (3, 4)], [])
    before = found["generalist/conditional/accuracy"]
    assert found["specialists/conditional/accuracy"] == 100 > before
    assert found["specialists/test/accuracy"] == 100
    more = sum(value for name, value in found.items() if name.endswith("/more_correct"))
    assert more > 0


@pytest.mark.parametrize("top", [1, 3])
def test_as_many_classes_call_specialists_as_the_configuration_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, top: int
) -> None:
    seen: list[int] = []

    def active(generalist: Any, known: Any, *, top: int) -> Any:
        seen.append(top)
        raise _CaughtError

    monkeypatch.setattr(specialising, "active_specialists", active)
    own = specialists(tmp_path, f"specialists.top={top}")
    special = build(NetConfig(width=8, layers=1), size=(1, 6, 6), classes=3)
    assert isinstance(special, Net)
    with pytest.raises(_CaughtError):
        own._combined(torch.rand(40, 10), [(1, 2)], [(special, 0.0)], torch.zeros(1, 10, dtype=torch.bool))
    assert seen == [top]


def test_specialists_that_agree_with_the_generalist_change_none_of_its_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each was trained on images of its classes more often than the data show them; its own correction takes that out."""
    own, logits = specialists(tmp_path, "specialists.top=10"), 3 * torch.randn(40, 10)
    sets, corrections = [(1, 2), (2, 5, 7)], (0.5, 2.0)
    said = [as_specialist(logits, members, correction) for members, correction in zip(sets, corrections, strict=True)]
    monkeypatch.setattr(own, "_logits", lambda number, _: said[number])
    together = own._combined(
        logits.double().softmax(1), sets, cast(Any, list(enumerate(corrections))), membership(sets, 10)
    )
    torch.testing.assert_close(together, logits.double().softmax(1), rtol=0, atol=1e-6)
