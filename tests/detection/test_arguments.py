"""What one part hands to the next: the split, the flips, the count, the seed, the rate and the layer that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from paperbench.config.compose import compose
from paperbench.data.detection import DetectionSet
from paperbench.detection import predict as predicting
from paperbench.detection.build import build
from paperbench.detection.evaluation import analysis, inference
from paperbench.detection.evaluation.inference import InferenceResult, Scorer
from paperbench.detection.proposals import source
from paperbench.detection.proposals.sets import ProposalSet
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.detection.rpn import Proposals
from paperbench.detection.tasks import train_rcnn
from paperbench.detection.training import alternating, joint, linear, multi_stage
from paperbench.detection.training.alternating import AlternatingTraining
from paperbench.detection.training.features import RegionFeatures
from paperbench.detection.training.linear import fit_ridges, fit_svms
from paperbench.detection.training.multi_stage import MultiStageTraining
from paperbench.engine.order import BatchKey
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from tests.data.sets import in_memory, record

CPU = torch.device("cpu")
SMOKE = ("scale=smoke", "data.max_train_images=3", "data.max_test_images=2")


class _CaughtError(Exception):
    pass


def a_run(folder: Path | None = None) -> Any:
    return SimpleNamespace(
        ranks=Ranks(), device=CPU, precision="float32", seed=3, reporter=SilentReporter(), stop=False, config_hash="x",
        autocast=lambda: torch.autocast("cpu", enabled=False), raise_if_stopped=lambda: None,
        directory=SimpleNamespace(path=folder), checkpoints=SimpleNamespace(exists=lambda: False, directory=folder),
    )  # fmt: skip


def config_of(experiment: str, *overrides: str) -> Any:
    last = {text.partition("=")[0]: text for text in (*SMOKE, *overrides)}
    return compose(experiment, list(last.values())).config


def net_of(config: Any) -> Any:
    torch.manual_seed(0)
    return build(config.model, classes=["a", "b", "c"], pretrained=False)


def scenes() -> DetectionSet:
    return in_memory(*(record(k, 96, 96, [(4, 4, 40, 40), (30, 40, 80, 90)]) for k in range(3)))[0]


def boxes(count: int, images: int = 3) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (images, count, 2))
    return list(np.concatenate([corners, corners + rng.uniform(20, 50, (images, count, 2))], axis=2).astype(np.float32))


def caught(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Any]:
    """Replace `build_trainer` of a module; return what it is called with."""
    seen: dict[str, Any] = {}

    def build_trainer(run: Any, net: Any, **settings: Any) -> Any:
        seen.update(settings, run=run)
        raise _CaughtError

    monkeypatch.setattr(module, "build_trainer", build_trainer)
    return seen


def mirrored(fetch: Any) -> bool:
    """True if every image of a batch is mirrored: the first object lies at the right."""
    own = fetch(BatchKey(0, np.arange(3), np.zeros(3, int)))
    left = own.boxes[:, 0, 0].tolist()
    assert len(set(left)) == 1, "all alike"
    return left[0] > 40


def rates(groups: Any) -> list[float]:
    return [group["lr_scale"] for group in groups]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_joint_training(monkeypatch: pytest.MonkeyPatch, flip: float) -> None:
    config = config_of("faster-rcnn", f"data.flip={flip}", "optim.backbone_lr_scale=0.25")
    seen = caught(monkeypatch, joint)
    with pytest.raises(_CaughtError):
        joint.trainer(config, net_of(config), scenes(), a_run(), None)
    assert rates(seen["groups"]) == [1.0, 0.25]
    assert mirrored(seen["fetch"]) == bool(flip)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_stages(monkeypatch: pytest.MonkeyPatch, flip: float) -> None:
    config = config_of("fast-rcnn", f"data.flip={flip}", "optim.backbone_lr_scale=0.25")
    seen = caught(monkeypatch, multi_stage)
    training = MultiStageTraining(config, net_of(config), scenes(), boxes(5), a_run())
    unused: Any = SimpleNamespace()
    with pytest.raises(_CaughtError):
        training._train("2-net", training.model, 4, unused)
    assert rates(seen["groups"]) == [1.0, 0.25]
    assert mirrored(seen["fetch"]) == bool(flip)
    given = seen["fetch"](BatchKey(0, np.arange(3), np.zeros(3, int))).proposals.boxes.numpy()
    plain = np.stack(boxes(5))
    turned = np.stack([96 - plain[..., 2], plain[..., 1], 96 - plain[..., 0], plain[..., 3]], axis=-1)
    np.testing.assert_allclose(given, turned if flip else plain, atol=1e-4)


ALTERNATION = (
    "train.schedule=alternating", "optim.backbone_lr_scale=0.25", "train.samples=8", "train.batch_size=2",
    "train.alternation.rpn_samples=12", "train.alternation.rpn_batch_size=3", "train.alternation.milestones=[0.5,0.8]",
)  # fmt: skip


def an_alternation(tmp_path: Path, *overrides: str) -> AlternatingTraining:
    config = config_of("faster-rcnn", *ALTERNATION, *overrides)
    unused: Any = SimpleNamespace()
    return AlternatingTraining(config, net_of(config), scenes(), a_run(tmp_path), unused)


def test_the_steps_of_an_alternation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = an_alternation(tmp_path)
    assert training.batch_sizes == [3, 2, 3, 2]
    assert training.steps == [4, 4, 4, 4]
    assert an_alternation(tmp_path, "train.alternation.rpn_samples=30").steps == [10, 4, 10, 4]
    seeds: list[int] = []

    def stage(run: Any, name: str, *, seed: int, **_: Any) -> Any:
        seeds.append(seed)
        return run

    monkeypatch.setattr(alternating, "stage", stage)
    for index in range(4):
        training._view(index)
    assert len(set(seeds)) == 4
    seen = caught(monkeypatch, alternating)
    with pytest.raises(_CaughtError):
        training._make(0, a_run(tmp_path))
    assert rates(seen["groups"]) == [1.0, 0.25]
    assert seen["optim"].milestones == (0.5, 0.8)
    assert (seen["loop"].batch_size, seen["loop"].steps, seen["loop"].evaluate_every) == (3, 4, 0)


def test_proposals_of_an_alternation_are_as_many_as_training_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    training = an_alternation(
        tmp_path, "model.shared=false", "train.alternation.detector_proposals=selective-search",
        "model.rpn.post_nms_topk_train=31", "model.rpn.post_nms_topk_test=17",
    )  # fmt: skip
    counts: list[int] = []

    def proposals_of(dataset: Any, config: Any, run: Any, *, count: int, **_: Any) -> Any:
        counts.append(count)
        return SimpleNamespace(boxes=[])

    monkeypatch.setattr(alternating, "proposals_of", proposals_of)
    training._proposals(a_run(tmp_path))
    assert counts == [31]


def test_proposals_of_an_alternation_s_own_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = an_alternation(
        tmp_path, "data.flip=1.0", "model.rpn.post_nms_topk_train=31", "model.rpn.post_nms_topk_test=17",
        "model.rpn.nms_iou=0.95",
    )  # fmt: skip
    torch.nn.init.normal_(training.model.rpn.deltas.weight, std=0.1)
    assert [len(own) for own in training._proposals(a_run(tmp_path))] == [31] * 3
    made: list[Any] = []
    monkeypatch.setattr(alternating, "propose_all", lambda model, make, **_: made.append(make))
    training._proposals(a_run(tmp_path))
    assert not mirrored(lambda key: made[0](key.indices, key.epochs)), "they are of the images as they are stored"


def test_an_alternation_always_begins_with_the_weights_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps begin anew from them, also in a run that is resumed."""
    from paperbench.detection.tasks import train

    asked: list[bool] = []

    def built(model: Any, *, classes: Any, pretrained: bool) -> Any:
        asked.append(pretrained)
        raise _CaughtError

    monkeypatch.setattr(train, "build", built)
    for schedule in ("joint", "alternating"):
        for begun in (False, True):
            run = a_run()
            run.checkpoints.exists = lambda begun=begun: begun
            with pytest.raises(_CaughtError):
                train.run(config_of("faster-rcnn", f"train.schedule={schedule}"), run)
    assert asked == [True, False, True, True]


@pytest.mark.parametrize("begun", range(4))
def test_an_alternation_goes_on_from_what_the_step_before_ended_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: int
) -> None:
    training = an_alternation(tmp_path)
    views = [
        SimpleNamespace(number=number, checkpoints=SimpleNamespace(exists=lambda number=number: number <= begun))
        for number in range(4)
    ]
    loaded: list[tuple[int, int]] = []
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(training, "_view", lambda index: views[index])
    monkeypatch.setattr(training, "_load_step", lambda index, run: loaded.append((index, run.number)) or True)
    monkeypatch.setattr(training, "_make", lambda index, run: made.append((index, run.number)) or {})
    training.fit()
    assert loaded == ([(begun - 1, begun - 1)] if begun else [])
    assert made == [(number, number) for number in range(begun, 4)]


@pytest.mark.parametrize("schedule", ["joint", "alternating"])
def test_a_detector_learns_from_one_split_and_is_scored_on_the_other(
    monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    from paperbench.detection.tasks import train

    seen: list[str] = []

    def begun(config: Any, net: Any, train_set: Any, run: Any, scorer: Any) -> Any:
        seen.append(train_set.split)
        raise _CaughtError

    monkeypatch.setattr(train, "Scorer", lambda config, dataset, *_: seen.append(dataset.split))
    monkeypatch.setattr(train, "trainer", begun)
    monkeypatch.setattr(train, "AlternatingTraining", begun)
    with pytest.raises(_CaughtError):
        train.run(config_of("faster-rcnn", f"train.schedule={schedule}"), a_run())
    assert seen == ["test", "train"]


# --- proposals --------------------------------------------------------------------------------------------------------


class Proposer:
    """In place of a net: three boxes an image, one of them small, and a note of the images that it was shown."""

    multiple, square = 32, False

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def propose(self, batch: Any) -> Proposals:
        self.seen.append(batch.images)
        own = torch.tensor([[0.0, 0, 50, 50], [10, 10, 16, 60], [20, 20, 90, 90]]).expand(len(batch), -1, -1)
        return Proposals(own, torch.ones(own.shape[:2]), torch.ones(own.shape[:2], dtype=torch.bool))


def test_proposals_of_another_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net, trained = Proposer(), config_of("faster-rcnn")
    monkeypatch.setattr(source, "network", lambda *_: (trained, net))
    dataset = scenes()
    config = ProposalConfig(method="rpn", run="x", min_side=1)
    sizes = [
        [len(own) for own in source.proposals_of(dataset, asked, a_run(), root=tmp_path, count=count).boxes]
        for asked, count in ((config, 0), (config, 1), (replace(config, min_side=10), 0))
    ]
    assert sizes == [[3] * 3, [1] * 3, [2] * 3]
    shown = torch.cat(net.seen[: -(-3 // trained.evaluation.batch_size)])
    stored = np.stack([dataset.decode(k) for k in range(3)]).transpose(0, 3, 1, 2)
    assert np.array_equal(shown.numpy(), stored), "not mirrored"


def a_set(dataset: Any, count: int) -> ProposalSet:
    own = boxes(count, len(dataset))
    return ProposalSet(
        images=tuple(str(r.image_id) for r in dataset.records), sizes=np.array([(96, 96)] * len(dataset)), boxes=own,
        scores=[np.linspace(1, 0.1, count, dtype=np.float32)] * len(dataset), method="m",
    )  # fmt: skip


def test_each_split_has_its_own_proposals_and_none_is_mirrored_at_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = config_of(
        "fast-rcnn", "data.flip=1.0", "proposals.train_count=7", "proposals.test_count=4",
        "data.max_train_images=2", "data.max_test_images=2",
    )  # fmt: skip

    def proposals_of(dataset: Any, own: Any, run: Any, *, root: Any, file: Any, count: int) -> ProposalSet:
        return a_set(dataset, count)

    class Training:
        def __init__(self, config: Any, model: Any, train_set: Any, given: Any, run: Any) -> None:
            assert [len(own) for own in given] == [7, 7]
            assert train_set.split == "train"

        def fit(self, scorer: Scorer) -> Any:
            assert scorer.dataset.split == "test"
            made: Any = scorer.make(np.arange(2), np.zeros(2, int))
            np.testing.assert_allclose(made.proposals.boxes.numpy(), np.stack(boxes(4, 2)), atol=1e-4)
            raise _CaughtError

    monkeypatch.setattr(source, "proposals_of", proposals_of)
    monkeypatch.setattr(train_rcnn, "MultiStageTraining", Training)
    with pytest.raises(_CaughtError):
        train_rcnn.run(config, a_run(tmp_path))


# --- SVMs and ridges --------------------------------------------------------------------------------------------------


def test_features_are_those_of_test_mode() -> None:
    config = config_of("fast-rcnn", "model.head.dropout=0.5")
    net = net_of(config).train()
    make = inference.BatchMaker(
        scenes(), inference.datasets.store(config.data, scenes(), CPU), flip=0.0, seed=0, multiple=net.multiple,
        training=False,
    )  # fmt: skip
    features = RegionFeatures(net, make, a_run())
    first, second = (features(0, boxes(4)[0], "fc7") for _ in range(2))
    assert np.array_equal(first, second)
    assert net.training


@pytest.mark.parametrize("features", ["fc6", "fc7"])
def test_boxes_are_regressed_from_pooled_regions_whatever_svms_look_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, features: Any
) -> None:
    config = config_of("sppnet", f"model.features={features}")
    asked: list[str] = []

    class Features:
        def __init__(self, *_: Any) -> None: ...

        def __call__(self, image: int, own: Any, layer: str) -> Any:
            asked.append(layer)
            raise _CaughtError

    monkeypatch.setattr(multi_stage, "RegionFeatures", Features)
    monkeypatch.setattr(multi_stage, "fit_ridges", lambda dataset, proposals, pooled, **_: pooled(0, proposals[0]))
    monkeypatch.setattr(MultiStageTraining, "_svms", lambda *_: (np.zeros((3, 8)), np.zeros(3), 1.0))
    net = net_of(config)
    monkeypatch.setattr(net.svm, "set", lambda *_: None)
    with pytest.raises(_CaughtError):
        MultiStageTraining(config, net, scenes(), boxes(5), a_run(tmp_path))._fit_linear()
    assert asked == ["pool5"]


def solved_svms(config: Any, *, difficult: bool = False) -> Any:
    flags = {"difficult": [difficult, False]}
    dataset, _ = in_memory(*(record(k, 96, 96, [(4, 4, 40, 40), (30, 40, 80, 90)], **flags) for k in range(3)))
    proposals = [np.concatenate([own, [[4, 4, 34, 40], [30, 40, 75, 80]]]).astype(np.float32) for own in boxes(12)]
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(14 + (1 if difficult else 2), 5)).astype(np.float32) for _ in range(3)]
    if config.__class__.__name__ == "SvmConfig":
        return fit_svms(dataset, proposals, lambda image: rows[image], config=config, order=np.arange(3))
    fixed = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    return fit_ridges(dataset, proposals, lambda image, own: own @ fixed, config=config, order=np.arange(3))


SVM = {
    "c": 0.1, "negative_iou": 0.05, "positive_weight": 20.0, "bias_scale": 0.3, "feature_norm": 3.0, "start_images": 3,
    "refit_every": 1,
}  # fmt: skip
RIDGE = {"weight": 1.0, "iou": 0.2, "max_examples": 1}


@pytest.mark.parametrize(("section", "key"), [*(("svm", key) for key in SVM), *(("ridge", key) for key in RIDGE)])
def test_every_key_of_what_is_fitted_changes_it(section: str, key: str) -> None:
    config = getattr(compose("rcnn", ["scale=smoke"]).config.model, section)
    config = replace(config, **({"start_images": 1, "refit_every": 2000} if section == "svm" else {}))
    one, other = (solved_svms(own) for own in (config, replace(config, **{key: (SVM | RIDGE)[key]})))
    assert any(not np.allclose(a, b, rtol=1e-3) for a, b in zip(one, other, strict=True))


def test_scaled_features_give_the_same_margins() -> None:
    """With a mean norm that is asked for, features in another unit are the same features."""
    config = compose("rcnn", ["scale=smoke"]).config.model.svm
    rng, dataset = np.random.default_rng(1), scenes()
    rows = [rng.normal(size=(12 + 2, 5)).astype(np.float32) for _ in range(3)]
    found = [
        fit_svms(dataset, boxes(12), lambda image, unit=unit: rows[image] * unit, config=config, order=np.arange(3))
        for unit in (1.0, 8.0)
    ]
    (w1, b1, s1), (w2, b2, s2) = found
    np.testing.assert_allclose(w1, w2, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(b1, b2, rtol=1e-3, atol=1e-5)
    assert s1 == pytest.approx(8 * s2)
    assert linear.HARD > linear.EASY


# --- evaluation -------------------------------------------------------------------------------------------------------


def a_scorer(config: Any, net: Any, dataset: DetectionSet | None = None) -> Scorer:
    return Scorer(config, dataset or scenes(), net, a_run())


@pytest.mark.parametrize(("asked", "resamples"), [(True, 0), (False, 30)])
def test_a_scorer_measures_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, asked: bool, resamples: int) -> None:
    engine = "pycocotools" if asked else "numpy"
    config = config_of(
        "faster-rcnn",
        f"evaluation.proposals={asked}",
        f"evaluation.bootstrap={resamples}",
        f"evaluation.engine={engine}",
    )
    seen: dict[str, Any] = {}

    def measure(dataset: Any, detections: Any, proposals: Any, **settings: Any) -> Any:
        seen.update(proposals=proposals, **settings)
        return SimpleNamespace(metrics={})

    found = InferenceResult(detections=[], proposals=boxes(2), seconds_per_image=1.0)
    monkeypatch.setattr(inference, "measure", measure)
    monkeypatch.setattr(inference, "detect_all", lambda *_, **__: found)
    a_scorer(config, net_of(config))()
    assert (seen["proposals"] is not None, seen["resamples"], seen["engine"]) == (asked, resamples, engine)


def test_studies_have_the_options_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        "faster-rcnn", "evaluation.ablations=true", "evaluation.bootstrap=30", "seed=9", "evaluation.batch_size=3",
        "model.rpn.pre_nms_topk_train=500", "model.rpn.pre_nms_topk_test=60",
    )  # fmt: skip
    seen: dict[str, Any] = {}
    monkeypatch.setattr(analysis.ablations, "measure", lambda *_, **settings: seen.update(settings) or {})
    analysis.measure(config, a_scorer(config, net_of(config)))
    assert (seen["options"].share, seen["options"].seed) == (60 / 6000, 9)
    assert (seen["resamples"], seen["batch_size"]) == (30, 3)
    config.evaluation.ablation_share = 0.5
    analysis.measure(config, a_scorer(config, net_of(config)))
    assert seen["options"].share == 0.5


def test_a_pyramid_is_that_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("faster-rcnn", "model.stages=1", "evaluation.pyramid=[0.5,2]", "evaluation.pyramid_side=77")
    seen: list[Any] = []

    def detect_all(net: Any, *_: Any, **__: Any) -> InferenceResult:
        seen.append((net.pyramid, net.pyramid_side))
        raise _CaughtError

    monkeypatch.setattr(analysis, "detect_all", detect_all)
    net = net_of(config)
    before = net.pyramid, net.pyramid_side
    with pytest.raises(_CaughtError):
        analysis.measure(config, a_scorer(config, net))
    assert seen == [((0.5, 2.0), 77.0)]
    assert (net.pyramid, net.pyramid_side) == before


# --- pictures ---------------------------------------------------------------------------------------------------------


def pictures(folder: Path, factor: int) -> list[Path]:
    """Two pictures of blocks of `factor` pixels."""
    paths = []
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        folder.mkdir(exist_ok=True)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(paths[-1])
    return paths


@pytest.mark.parametrize("experiment", ["faster-rcnn", "mask-rcnn"])
def test_a_picture_stored_at_two_sizes_has_the_same_detections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, experiment: str
) -> None:
    config = config_of(experiment, "data.short_side=64", "data.max_side=96")
    net = net_of(config).eval()
    torch.nn.init.normal_(net.predictor.scores.weight, std=0.5)
    monkeypatch.setattr(predicting, "load_detector", lambda *_, **__: (net, 0))
    blocks = "paperbench.data.image_store.resize"
    monkeypatch.setattr(
        blocks, lambda image, height, width: image[:, :: image.shape[1] // height, :: image.shape[2] // width]
    )
    one, other = (
        predicting.predict(config, tmp_path, pictures(tmp_path / str(k), k), tmp_path / f"o{k}", score_threshold=0.1)
        for k in (1, 2)
    )
    assert sum(len(entry["detections"]) for entry in one) > 0
    for first, second in zip(one, other, strict=True):
        for a, b in zip(first["detections"], second["detections"], strict=True):
            assert np.array(b["box"]) / 2 == pytest.approx(np.array(a["box"]), abs=0.02)
            assert a["class"] == b["class"]
            if "mask" in a:
                assert (a["mask"]["size"], b["mask"]["size"]) == ([64, 96], [128, 192])


def test_pictures_are_shown_with_as_many_proposals_as_at_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_of("fast-rcnn", "proposals.test_count=4", "proposals.train_count=9")
    monkeypatch.setattr(predicting, "load_detector", lambda *_, **__: (net_of(config), 0))
    monkeypatch.setattr(predicting, "_search_proposals", lambda *_: boxes(12, 2))

    def proposal_batches(*given: Any, training: bool) -> Any:
        lengths: Sequence[int] = [len(own) for own in given[3]]
        assert (lengths, training) == ([4, 4], False)
        raise _CaughtError

    monkeypatch.setattr(predicting, "proposal_batches", proposal_batches)
    with pytest.raises(_CaughtError):
        predicting.predict_on_proposals(config, tmp_path, pictures(tmp_path / "p", 1), tmp_path / "o")


def test_files_of_masks_have_the_shape_of_their_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = replace(in_memory(record(1, 40, 60), record(2, 20, 30))[0], category_ids=(1, 2, 3))
    config = config_of("faster-rcnn")
    scorer = a_scorer(config, net_of(config), dataset)
    scorer.found = InferenceResult(detections=[], proposals=None, seconds_per_image=1.0)
    seen: list[Any] = []
    monkeypatch.setattr(inference, "write_coco", lambda *given: seen.append(given[-1]))
    scorer.write(tmp_path)
    assert seen == [[(40, 60), (20, 30)]]


def test_ridges_move_boxes_by_plain_shares_of_their_sides() -> None:
    """Their targets are not divided by the deviations of a head's targets, so neither are their answers multiplied by them."""
    config = config_of("sppnet", "model.classifier=softmax", "model.boxes=ridge", "model.head.score_threshold=0.0")
    net = net_of(config).eval()
    net.ridge.bias[:, 0] = 0.25
    own = inference.BatchMaker(
        scenes(), inference.datasets.store(config.data, scenes(), CPU), flip=0.0, seed=0, multiple=net.multiple,
        training=False,
    )(np.arange(1), np.zeros(1, int))  # fmt: skip
    given = Proposals(torch.tensor([[[10.0, 20, 30, 60]]]), torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool))
    found, _ = net.detect(replace(own, proposals=given))
    assert found.boxes[0][found.valid[0]].tolist() == [[15.0, 20.0, 35.0, 60.0]] * int(found.valid.sum())
    assert found.valid.any()
