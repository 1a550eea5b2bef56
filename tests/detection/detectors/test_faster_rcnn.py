from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paperbench.config.compose import compose
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, build_faster_rcnn
from paperbench.errors import CheckpointError


@pytest.fixture
def detector() -> FasterRCNN:
    torch.manual_seed(0)
    return build_faster_rcnn(compose("faster-rcnn", ["scale=smoke"]).config.model, classes=["cat", "dog"])


def batch(*, objects: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.tensor([[[8.0, 8, 50, 60], [20, 30, 80, 90]], [[5, 5, 40, 40], [0, 0, 0, 0]]])
    labels = torch.tensor([[1, 2], [2, 0]])
    return Batch(
        images=torch.randint(0, 256, (2, 3, 96, 96), generator=generator, dtype=torch.uint8),
        sizes=torch.tensor([[96, 96], [80, 96]]),
        scales=torch.ones(2),
        boxes=boxes if objects else torch.zeros_like(boxes),
        labels=labels if objects else torch.zeros_like(labels),
        indices=torch.arange(2),
    )


def losses(detector: FasterRCNN, images: Batch, seed: int = 0) -> dict[str, torch.Tensor]:
    return detector(images, torch.Generator().manual_seed(seed))


def test_the_same_generator_samples_the_same_losses(detector: FasterRCNN) -> None:
    detector.train()
    first, again, other = (losses(detector, batch(), seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_images_without_objects_train_without_harm(detector: FasterRCNN) -> None:
    found = losses(detector.train(), batch(objects=False))
    assert found["loss_rpn_box"] == 0
    assert found["loss_box"] == 0
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


class HostReads(TorchDispatchMode):
    """Counts values that Python asks a tensor for: each would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_training_step_reads_nothing_back_to_the_host(detector: FasterRCNN) -> None:
    detector.train()
    with HostReads() as reads:
        torch.stack(list(losses(detector, batch()).values())).sum().backward()
        assert reads.count == 0
        torch.zeros(1).item()
    assert reads.count == 1  # the counter counts


def test_detections_are_inside_their_image_sorted_and_named(detector: FasterRCNN) -> None:
    detector.eval()
    detector.head_config.score_threshold = 0.2
    found, proposals = detector.detect(batch())
    assert found.valid.any()
    for image, (height, width) in enumerate([(96, 96), (80, 96)]):
        boxes = found.boxes[image][found.valid[image]]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        scores = found.scores[image][found.valid[image]]
        assert (scores.diff() <= 0).all()
        assert set(found.labels[image][found.valid[image]].tolist()) <= {1, 2}
    assert proposals.valid.any(1).all()


def test_nothing_found_is_an_answer(detector: FasterRCNN) -> None:
    detector.eval()
    detector.head_config.score_threshold = 1.0
    found, _ = detector.detect(batch())
    assert not found.valid.any()


def test_padding_is_the_mean_colour(detector: FasterRCNN) -> None:
    x = detector.normalise(batch().images, torch.tensor([[96, 96], [80, 64]]))
    assert (x[1, :, 80:] == 0).all()
    assert (x[1, :, :, 64:] == 0).all()
    expected = (batch().images[1, 0, 3, 3] / 255 - 0.485) / 0.229
    torch.testing.assert_close(x[1, 0, 3, 3], expected)
    # What is masked are the rows beyond the height and the columns beyond the width, and nothing within either.
    for sizes in ([[96, 96], [80, 64]], [[96, 96], [64, 80]]):
        x, whole = (detector.normalise(batch().images, torch.tensor(own)) for own in (sizes, [[96, 96]] * 2))
        height, width = sizes[1]
        assert torch.equal(x[1, :, :height, :width], whole[1, :, :height, :width])
        assert x[1].count_nonzero() == whole[1, :, :height, :width].count_nonzero()


def test_weights_of_another_label_set_are_refused(detector: FasterRCNN) -> None:
    other = build_faster_rcnn(compose("faster-rcnn", ["scale=smoke"]).config.model, classes=["cat", "cow"])
    with pytest.raises(CheckpointError, match=r"classes cat, cow.*cat, dog"):
        detector.load_state_dict(other.state_dict())
