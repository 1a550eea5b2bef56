"""Reverse classifiers that learn from one image and its mask: forest and small U-Net."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.rca.cnn import CnnClassifier, UNet, _augmented, net_inputs
from paperbench.rca.forest import ForestClassifier, box_means, boxes, features
from paperbench.rca.labels import Labels
from paperbench.rca.scoring import ReverseClassifier, score_masks
from tests.rca.made import estimate, make_image

LABELS = Labels("values", (1, 2, 3, 4, 5), tuple("abcde"))


def learners(steps: int = 3) -> dict[str, ReverseClassifier]:
    return {"forest": ForestClassifier(seed=0), "cnn": CnnClassifier(seed=0, steps=steps)}


@pytest.mark.parametrize("shape", [(9, 12), (6, 7, 8)])
def test_box_means_are_means_over_boxes_cut_off_at_the_border(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape)
    total = np.pad(image, [(1, 0)] * len(shape)).cumsum(0).cumsum(1)
    total = total.cumsum(2) if len(shape) == 3 else total
    offset, width = np.full(len(shape), 0.25), np.full(len(shape), 0.15)
    found = box_means(total, shape, offset, width)
    for index in [(0,) * len(shape), tuple(n - 1 for n in shape), tuple(n // 2 for n in shape)]:
        box = []
        for axis, n in enumerate(shape):
            centre, half = index[axis] + round(0.25 * n), round(0.15 * n)
            low = min(max(centre - half, 0), n - 1)
            box.append(slice(low, max(min(centre + half + 1, n), low + 1)))
        assert found[index] == pytest.approx(image[tuple(box)].mean())


def test_features_are_one_row_a_voxel_and_the_same_for_every_image() -> None:
    chosen = boxes(2, seed=0)
    np.testing.assert_array_equal(chosen[0], boxes(2, seed=0)[0])
    image = np.random.default_rng(0).random((10, 14))
    rows = features(image, chosen)
    assert rows.shape == (140, 2 + 1 + 40)
    np.testing.assert_allclose(rows[:, 2], image.ravel(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(13, 17), (9, 10, 11)])
def test_the_net_keeps_the_size_of_its_input(shape: tuple[int, ...]) -> None:
    net = UNet(len(shape), 1 + len(shape), 3)
    assert net(torch.zeros(1, 1 + len(shape), *shape)).shape == (1, 3, *shape)


@pytest.mark.parametrize("name", ["forest", "cnn"])
def test_the_training_mask_is_predicted_on_the_image_itself(name: str) -> None:
    case = make_image(9)
    assert case.truth is not None
    mask = 3 * case.truth  # labels are not the numbers of the classes
    (drawn,) = learners(steps=60)[name].segment(replace(case, masks={"s": mask}), [case])
    assert not drawn.failure
    foreground = case.truth > 0
    assert (drawn.maps["s"].numpy()[foreground] == mask[foreground]).mean() > 0.85


@pytest.mark.parametrize("shape", [(40, 60), (24, 20, 30)])
def test_labels_of_the_net_s_training_move_with_their_image(shape: tuple[int, ...]) -> None:
    """The image is its labels: whatever the shift and the change of intensity, a label has one intensity. Positions stay."""
    target = torch.randint(0, 4, (1, *shape), generator=torch.Generator().manual_seed(0))
    inputs = net_inputs(target[0].double().numpy())
    stream, moved = torch.Generator().manual_seed(1), 0
    for _ in range(6):
        image, labels = _augmented(inputs, target, stream)
        for label in range(4):
            assert image[0, 0][labels[0] == label].std() < 1e-6
        assert torch.equal(image[:, 1:], inputs[:, 1:])
        moved += not torch.equal(labels, target)
    assert moved > 3


@pytest.mark.parametrize("name", ["forest", "cnn"])
def test_the_same_seed_gives_the_same_and_other_masks_do_not_matter(name: str) -> None:
    case, references = make_image(9, masks=2), [make_image(0), make_image(1)]
    whole = {d.reference: d.maps for d in learners()[name].segment(case, references)}
    alone = replace(case, masks={"mask-1": case.masks["mask-1"]})
    for drawn in learners()[name].segment(alone, references[::-1]):
        torch.testing.assert_close(drawn.maps["mask-1"], whole[drawn.reference]["mask-1"])


@pytest.mark.parametrize("name", ["forest", "cnn"])
def test_volumes_lone_labels_and_bad_references(name: str) -> None:
    volume = make_image(9, shape=(24, 24, 24))
    empty = replace(volume, masks={"s": np.zeros((24, 24, 24), np.int64)})
    blank = replace(volume, name="blank", intensities=np.ones((24, 24, 24), np.float32))
    result = score_masks(empty, [make_image(1, shape=(24, 24, 24)), blank], learners()[name], LABELS, ["dsc"])
    assert [score for mask in result.masks for _, score in mask.scores] == [0.0] * 5
    assert [reference for reference, _ in result.failures] == ["blank"]


@pytest.mark.parametrize("name", ["forest", "cnn"])
def test_a_run_with_each(name: str, tmp_path: Path) -> None:
    words = [
        "data.shape=[40,40]",
        "data.cases=2",
        "data.references=2",
        "calibration.kind=none",
        "pictures=1",
        "cnn_steps=2",
    ]
    result, content = estimate("rca", f"classifier={name}", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert content["metrics"]["rca/masks"] == 10
