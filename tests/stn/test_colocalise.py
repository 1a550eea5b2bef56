"""Co-localisation: the objective by hand, what is trained and what is not, and a set that it solves."""

from __future__ import annotations

import pytest
import torch

from paperbench.stn.colocalise import Colocaliser, search_windows, triplet_loss
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


def bright_encoder() -> ConvolutionalNet:
    """An encoder that responds to anything bright."""
    torch.manual_seed(0)
    encoder = ConvolutionalNet(channels=1, side=28, filters=2, classes=10)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_()
    return encoder


def colocaliser(**options: float) -> Colocaliser:
    encoder = bright_encoder()
    chosen = {"initial_scale": 0.7, "min_scale": 0.2, "margin": 1.0, "attraction": 1.0, "search_weight": 2.0, **options}
    return Colocaliser(encoder, torch.rand(5, 1, 28, 28), canvas=84, window=28, **chosen)


CENTRES = torch.zeros(4, 2)


def test_the_encoder_is_neither_trained_nor_saved() -> None:
    module = colocaliser()
    assert all(name.startswith("transformer.") for name in module.state_dict())
    losses = module((torch.rand(4, 1, 84, 84), CENTRES), torch.Generator().manual_seed(0))
    (losses["triplet"] + losses["coarse"]).backward()
    assert module.transformer.regression.weight.grad is not None
    assert module.transformer.regression.bias.grad is not None
    weights = sum(p.numel() for p in module.parameters())
    assert weights == 5_947  # as the layers that the paper describes have; it says 100 k


def test_random_windows_follow_from_the_generator() -> None:
    module = colocaliser()
    images = torch.rand(4, 1, 84, 84)
    first, again, other = (
        module((images, CENTRES), torch.Generator().manual_seed(seed))["triplet"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_overlaps_of_the_window_with_the_truth() -> None:
    module = colocaliser(initial_scale=0.5)
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    overlaps = module.overlaps(torch.rand(2, 1, 84, 84), boxes)
    torch.testing.assert_close(overlaps, torch.tensor([1.0, 0.25 / 1.75]))


def test_windows_stay_within_bounds_and_return() -> None:
    module = colocaliser()
    bias = module.transformer.regression.bias
    with torch.no_grad():
        bias.copy_(torch.tensor([0.01, 5.0, -5.0]))
    theta = module.transformer.theta(torch.zeros(1, 1, 84, 84))
    torch.testing.assert_close(theta, torch.tensor([[0.2, 2 / 3, -2 / 3]]))
    theta.sum().backward()
    torch.testing.assert_close(bias.grad, torch.ones(3))
    with torch.no_grad():
        bias[0] = 3.0
    assert float(module.transformer.theta(torch.zeros(1, 1, 84, 84))[0, 0].detach()) == pytest.approx(1)


def test_layers_have_equal_weight_and_black_encodes_as_zero() -> None:
    digits = torch.rand(5, 1, 28, 28)
    module = Colocaliser(
        bright_encoder(),
        digits,
        canvas=84,
        window=28,
        initial_scale=1,
        min_scale=0.3,
        margin=1,
        attraction=1,
        search_weight=0,
    )
    with torch.no_grad():
        encoded, black = module.encode(digits), module.encode(torch.zeros(1, 1, 28, 28))
    for layer in encoded.split([2 * 10 * 10, 2 * 2 * 2, 10], dim=1):
        assert float(layer.square().sum(1).mean()) == pytest.approx(1 / 3, rel=1e-4)
    assert float(black.abs().max()) == 0


def test_the_search_finds_what_images_share_and_most_windows_do_not() -> None:
    shared, common, noise = torch.tensor([3.0, 0, 0]), torch.zeros(3), torch.tensor([0, 3.5, 0])
    # Three images of four windows: nothing twice, what is shared, and in the first something unlike anything else.
    encodings = torch.stack([
        torch.stack([common, noise, common, shared]),
        torch.stack([shared, common, common, common]),
        torch.stack([common, common, shared, common]),
    ])  # fmt: skip
    assert search_windows(encodings, rounds=0).tolist() == [1, 0, 2]
    assert search_windows(encodings).tolist() == [3, 0, 2]


def test_the_search_finds_a_bright_square() -> None:
    module = colocaliser()
    images = torch.zeros(3, 1, 84, 84)
    lefts = [7, 28, 49]
    for image, left in zip(images, lefts, strict=True):
        image[:, 21 + 4 : 49 - 4, left + 4 : left + 24] = 1
    centres = module.search(images)
    expected = torch.tensor([[(left + 14) / 42 - 1, 35 / 42 - 1] for left in lefts])
    assert float((centres - expected).abs().max()) < 0.2


def test_the_distance_from_the_search_is_a_loss() -> None:
    module = colocaliser()
    losses = module(
        (torch.zeros(2, 1, 84, 84), torch.tensor([[0.5, 0.0], [0.0, -0.1]])), torch.Generator().manual_seed(0)
    )
    assert float(losses["coarse"].detach()) == pytest.approx(2.0 * (0.25 + 0.01) / 2)


def test_a_layer_without_activations_is_harmless() -> None:
    encoder = ConvolutionalNet(channels=1, side=28, filters=2, classes=10)
    with torch.no_grad():
        encoder.second.weight.zero_()
    module = Colocaliser(
        encoder,
        torch.rand(5, 1, 28, 28),
        canvas=84,
        window=28,
        initial_scale=1,
        min_scale=0.3,
        margin=1,
        attraction=1,
        search_weight=0,
    )
    assert torch.isfinite(module.encode(torch.rand(2, 1, 28, 28))).all()
