"""Co-localisation: the objective by hand, what is trained and what is not, and a set that it can solve."""

from __future__ import annotations

import pytest
import torch

from paperbench.stn.colocalise import Colocaliser, triplet_loss
from paperbench.stn.networks import ConvolutionalNet


def test_the_objective_by_hand() -> None:
    windows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    random = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 6.0]])
    total = 0.0
    for n in range(3):
        for m in range(3):
            if n != m:
                between = float((windows[n] - windows[m]).square().sum())
                to_random = float((windows[n] - random[n]).square().sum())
                total += max(0.0, between - to_random + 1)
    assert float(triplet_loss(windows, random, margin=1.0)) == pytest.approx(total / 6)


def test_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    random = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, r: triplet_loss(w, r, margin=1.0), (windows, random))


def test_equal_windows_have_a_gradient() -> None:
    windows = torch.ones(3, 2, requires_grad=True)
    triplet_loss(windows, torch.zeros(3, 2), margin=5.0).backward()
    assert windows.grad is not None
    assert torch.isfinite(windows.grad).all()


def colocaliser(**options: float) -> Colocaliser:
    torch.manual_seed(0)
    encoder = ConvolutionalNet(channels=1, side=28, filters=2, classes=10)
    return Colocaliser(encoder, canvas=84, window=28, **{"start": 0.7, "margin": 1.0, **options})


def test_the_encoder_is_neither_trained_nor_saved() -> None:
    module = colocaliser()
    assert all(name.startswith("transformer.") for name in module.state_dict())
    losses = module(torch.rand(4, 1, 84, 84), torch.Generator().manual_seed(0))
    losses["loss"].backward()
    assert module.transformer.regression.weight.grad is not None
    assert module.transformer.regression.bias.grad is not None
    weights = sum(p.numel() for p in module.parameters())
    assert weights == 5_947  # as the layers that the paper describes have; it says 100 k


def test_random_windows_follow_from_the_generator() -> None:
    module = colocaliser()
    images = torch.rand(4, 1, 84, 84)
    first, again, other = (module(images, torch.Generator().manual_seed(seed))["loss"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_overlaps_of_the_window_with_the_truth() -> None:
    module = colocaliser(start=0.5)
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    overlaps = module.overlaps(torch.rand(2, 1, 84, 84), boxes)
    torch.testing.assert_close(overlaps, torch.tensor([1.0, 0.25 / 1.75]))
