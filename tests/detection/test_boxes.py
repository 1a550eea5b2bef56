from __future__ import annotations

import math

import pytest
import torch

from paperbench.detection import boxes


def random_boxes(count: int, *, seed: int, side: float = 100.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * side], dim=1)


def test_decoding_with_clip_gives_the_published_numbers() -> None:
    # detectron's and mmdetection's common example: three unit boxes and one without area, image of 32 x 32.
    rois = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5]])
    deltas = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, -1], [0.7, -1.9, -0.5, 0.3]])
    found = boxes.clip(boxes.decode(rois, deltas)[None], torch.tensor([[32, 32]]))[0]
    expected = [[0, 0, 1, 1], [0.1409, 0.1409, 2.8591, 2.8591], [0, 0.3161, 4.1945, 0.6839], [5, 5, 5, 5]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("std", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_decode_undoes_encode(std: tuple[float, float, float, float]) -> None:
    reference, target = random_boxes(50, seed=1), random_boxes(50, seed=2)
    deltas = boxes.encode(reference, target, std)
    torch.testing.assert_close(boxes.decode(reference, deltas, std), target, atol=1e-3, rtol=1e-5)


def test_encode_is_equation_2() -> None:
    anchor, box = torch.tensor([10.0, 20, 30, 60]), torch.tensor([15.0, 20, 55, 40])
    expected = [(35 - 20) / 20, (30 - 40) / 40, math.log(40 / 20), math.log(20 / 40)]
    torch.testing.assert_close(boxes.encode(anchor, box), torch.tensor(expected))


def test_iou_of_known_boxes_and_of_nothing() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 5]])
    torch.testing.assert_close(boxes.iou(a, b), torch.tensor([[1, 1 / 3, 0, 0], [0.0, 0, 0, 0]]))


def test_iou_is_batched_and_symmetric() -> None:
    a, b = random_boxes(12, seed=3).view(2, 6, 4), random_boxes(8, seed=4).view(2, 4, 4)
    found = boxes.iou(a, b)
    assert found.shape == (2, 6, 4)
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(found, boxes.iou(b, a).transpose(1, 2))
    torch.testing.assert_close(found[1], boxes.iou(a[1], b[1]))


def test_huge_deltas_stay_finite() -> None:
    found = boxes.decode(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 1e4, 1e4]]))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0, 2] - found[0, 0], torch.tensor(10 * 1000 / 16), rtol=1e-4, atol=0)


def test_clip_and_inside_use_each_images_own_size() -> None:
    box = torch.tensor([[0.0, 0, 50, 20]])
    sizes = torch.tensor([[20, 50], [20, 40]])
    assert boxes.inside(box, sizes).tolist() == [[True], [False]]
    clipped = boxes.clip(box.expand(2, 1, 4), sizes)
    assert clipped[:, 0, 2].tolist() == [50, 40]
