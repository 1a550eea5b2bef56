"""The first training step of a digit net against the same step written plainly: loss, gradients, weights after it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.testing import assert_close

from paperbench.config.schema import OptimConfig
from paperbench.engine.optim import build_optimizer
from paperbench.stn.config import CnnModel, FcnModel, StCnnModel, StFcnModel
from paperbench.stn.networks import Model, build_net, parameter_groups
from paperbench.stn.training import DigitClassifier
from tests.peers.cases import random

RATE, LOCALISATION = 0.05, 0.1
MODELS: dict[str, Model] = {
    "cnn": CnnModel(filters=4, side=28),
    "fcn": FcnModel(units=7, side=28),
    "st-cnn": StCnnModel(filters=4),
    "st-fcn": StFcnModel(units=7),
    "two transformers": StCnnModel(filters=4, transformers=2),
    "bicubic": StFcnModel(units=7, sampler="bicubic", padding="border"),
}


def batch(rng: np.random.Generator, canvas: int) -> tuple[Tensor, Tensor]:
    """Return images (6, 1, canvas, canvas), smooth so that no pixel lies on a kink, and labels."""
    coarse = torch.from_numpy(rng.random((6, 1, 8, 8))).float()
    return F.interpolate(coarse, (canvas, canvas), mode="bilinear"), torch.from_numpy(rng.integers(0, 10, 6))


def grid_of(theta: Tensor, transform: str, side: int) -> Tensor:
    """Return the sampling grid (B, side, side, 2) of the parameters."""
    if transform == "affine":
        return F.affine_grid(theta.view(-1, 2, 3), [len(theta), 1, side, side], align_corners=False)
    line = (2 * torch.arange(side).double() + 1) / side - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3)
    if transform == "projective":
        matrix = torch.cat([theta.double(), torch.ones(len(theta), 1).double()], 1).view(-1, 3, 3)
        position = points @ matrix.transpose(1, 2)
        return (position[..., :2] / position[..., 2:]).view(-1, side, side, 2).float()
    if transform == "attention":
        s, centre = theta[:, :1].double(), theta[:, 1:].double()
        return (s[:, None] * points[:, :2] + centre[:, None]).view(-1, side, side, 2).float()
    # A spline is linear in its targets: its response to each of them, from SciPy.
    count = theta.shape[1] // 2
    control = np.linspace(-1, 1, math.isqrt(count))
    places = np.array([[a, b] for b in control for a in control])
    share = RBFInterpolator(places, np.eye(count), kernel="thin_plate_spline", degree=1)(points[:, :2].numpy())
    planes = theta.double().view(-1, 2, count) @ torch.from_numpy(share).t()
    return planes.view(-1, 2, side, side).permute(0, 2, 3, 1).float()


def logits_of(p: dict[str, Tensor], images: Tensor, name: str, transform: str, canvas: int) -> Tensor:
    """Return the scores (B, 10) of appendix A.4's nets with the weights `p`."""
    model = MODELS[name]
    x = images
    if isinstance(model, StCnnModel | StFcnModel):
        factor = 2 if canvas > 28 else 1
        warped = []
        for number in range(model.transformers):
            at = f"net.transformers.{number}."
            if isinstance(model, StCnnModel):
                h = F.avg_pool2d(images, 2)
                h = F.relu(F.max_pool2d(F.conv2d(h, p[at + "localisation.2.weight"], p[at + "localisation.2.bias"]), 2))
                h = F.relu(F.conv2d(h, p[at + "localisation.5.weight"], p[at + "localisation.5.bias"])).flatten(1)
                h = F.relu(F.linear(h, p[at + "localisation.8.weight"], p[at + "localisation.8.bias"]))
            else:
                h = images.flatten(1)
                for layer in (1, 3, 5):
                    h = F.relu(F.linear(h, p[f"{at}localisation.{layer}.weight"], p[f"{at}localisation.{layer}.bias"]))
            theta = F.linear(h, p[at + "regression.weight"], p[at + "regression.bias"])
            grid = grid_of(theta, transform, 28 * factor)
            own = F.grid_sample(images, grid, mode=model.sampler, padding_mode=model.padding, align_corners=False)
            warped.append(F.avg_pool2d(own, 2) if factor == 2 else own)
        x = torch.cat(warped, 1)
    elif canvas != 28:
        x = F.interpolate(images, (28, 28), mode="bilinear", align_corners=False, antialias=True)
    at = "net.classifier."
    if isinstance(model, CnnModel | StCnnModel):
        x = F.max_pool2d(F.relu(F.conv2d(x, p[at + "first.weight"], p[at + "first.bias"])), 2)
        x = F.max_pool2d(F.relu(F.conv2d(x, p[at + "second.weight"], p[at + "second.bias"])), 2)
    else:
        x = F.relu(F.linear(x.flatten(1), p[at + "first.weight"], p[at + "first.bias"]))
        x = F.relu(F.linear(x, p[at + "second.weight"], p[at + "second.bias"]))
    return F.linear(x.flatten(1), p[at + "classifier.weight"], p[at + "classifier.bias"])


@pytest.mark.parametrize("canvas", [28, 42])
@pytest.mark.parametrize(
    ("name", "transform"),
    [
        *((name, "affine") for name in MODELS),
        ("st-cnn", "projective"), ("st-cnn", "tps"), ("st-cnn", "attention"), ("st-fcn", "tps"), ("st-fcn", "projective"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trained", [False, True], ids=["first", "later"])
def test_digits(trained: bool, name: str, transform: str, canvas: int) -> None:
    """`first`: from the identity, as training begins; `later`: from other weights of the last localisation layer."""
    rng = random(name + transform + str(canvas), int(trained))
    torch.manual_seed(int(rng.integers(0, 1000)))
    net = build_net(MODELS[name], transform=transform, canvas=canvas)
    if trained:
        with torch.no_grad():
            for key, value in net.named_parameters():
                if "regression" in key:
                    value += 0.02 * torch.randn_like(value)
    elif transform == "tps":
        # On whole pixels the sampler has a kink, and a spline's grid is there but for rounding: begin a little beside them.
        with torch.no_grad():
            for key, value in net.named_parameters():
                if key.endswith("regression.bias"):
                    value += 0.004
    module = DigitClassifier(net, evaluations=1, classes=10, shape=(1, 28, 28))
    images, labels = batch(rng, canvas)
    p = {key: value.detach().clone().requires_grad_() for key, value in module.named_parameters()}

    found = module((images, labels), torch.Generator())["loss"]
    expected = -F.log_softmax(logits_of(p, images, name, transform, canvas).double(), 1)[range(6), labels].mean()

    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    config = OptimConfig(name="sgd", lr=RATE, momentum=0.9)
    optimizer = build_optimizer(config, list(parameter_groups(net, localisation_lr=LOCALISATION)))
    optimizer.zero_grad()
    found.backward()
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    optimizer.step()
    wanted = dict(zip(p, torch.autograd.grad(expected, list(p.values())), strict=True))
    for key, value in module.named_parameters():
        scale = float(wanted[key].abs().max()) + 1e-6
        assert value.grad is not None
        assert_close(value.grad, wanted[key], atol=3e-4 * scale, rtol=1e-3, msg=lambda m, n=key: f"{n}: {m}")
        rate = RATE * (1.0 if key.startswith("net.classifier") else LOCALISATION)
        stepped = before[key] - rate * (wanted[key] + config.weight_decay * before[key])
        assert_close(
            value.detach(), stepped, atol=1e-6 + 3e-4 * rate * scale, rtol=1e-6, msg=lambda m, n=key: f"{n}: {m}"
        )
