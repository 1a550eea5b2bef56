"""Losses of distillation against torch's divergences, SciPy in float64, and the paper's equations 1 to 4."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from paperbench.distill.losses import distillation_loss, hard_loss, logit_matching, soft_loss, soft_targets
from tests.peers.cases import grid

Array = NDArray[np.float64]

KINDS = (
    "normal", "one class", "two classes", "many classes", "one image", "ties", "constant", "sure", "hundreds", "tiny",
    "far from zero", "half precision",
)  # fmt: skip
TEMPERATURES = (0.01, 0.5, 1.0, 4.0, 20.0, 1e3)


def logits(kind: str, seed: int, teachers: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits of a student (B, C) and of teachers (M, B, C) in float32, and labels."""
    draws = torch.Generator().manual_seed(1000 * seed + KINDS.index(kind))
    classes = {"one class": 1, "two classes": 2, "many classes": 400}.get(kind, 6)
    images = 1 if kind == "one image" else 5
    student = torch.randn(images, classes, generator=draws)
    teacher = torch.randn(teachers, images, classes, generator=draws) * 2
    match kind:
        case "ties":
            student, teacher = student.round(), teacher.round()
        case "constant":
            student, teacher = torch.full_like(student, 2.5), torch.full_like(teacher, -1.0)
        case "sure":
            teacher = teacher + 60 * F.one_hot(torch.arange(images) % classes, classes)
        case "hundreds":
            student, teacher = student * 300, teacher * 300
        case "tiny":
            student, teacher = student * 1e-5, teacher * 1e-5
        case "far from zero":
            student, teacher = student + 5000, teacher - 3000
        case "half precision":
            student, teacher = student.half().float(), teacher.half().float()
    labels = torch.randint(0, classes, (images,), generator=draws)
    return student, teacher, labels


def softmax(values: Tensor, temperature: float) -> Array:
    return special.softmax(values.double().numpy() / temperature, axis=-1)


def tolerance(values: Tensor, temperature: float) -> float:
    """Return the rounding of float32 logits of this size, at the temperature that divides them."""
    return 2e-6 * (1 + float(values.abs().max()) / temperature)


@pytest.mark.parametrize(("kind", "temperature", "teachers"), grid(KINDS, TEMPERATURES, (1, 3)))
def test_soft_targets_are_scipys_softmax(kind: str, temperature: float, teachers: int) -> None:
    _, teacher, _ = logits(kind, 1, teachers)
    near = 4 * tolerance(teacher, temperature)
    arithmetic = soft_targets(teacher, temperature=temperature).numpy()
    np.testing.assert_allclose(arithmetic, softmax(teacher, temperature).mean(0), atol=near)
    geometric = soft_targets(teacher, temperature=temperature, average="logits").double().numpy()
    # The geometric mean of the probabilities, normalised, with its logarithms: they underflow otherwise.
    logs = special.log_softmax(teacher.double().numpy() / temperature, axis=-1).mean(0)
    np.testing.assert_allclose(geometric, special.softmax(logs, axis=-1), atol=near)
    np.testing.assert_allclose(arithmetic.sum(-1), 1, atol=1e-5)
    if temperature >= 1 and kind in ("normal", "two classes", "half precision"):
        of_probabilities = stats.gmean(softmax(teacher, temperature), axis=0)
        np.testing.assert_allclose(geometric, of_probabilities / of_probabilities.sum(-1, keepdims=True), atol=near)


@pytest.mark.parametrize(("kind", "temperature"), grid(KINDS, TEMPERATURES))
def test_the_soft_loss_is_torchs_divergence_and_scipys(kind: str, temperature: float) -> None:
    """In float32, at temperatures where the divergence is a millionth of the two sums that it is the difference of."""
    student, teacher, _ = logits(kind, 2)
    found = float(soft_loss(student, soft_targets(teacher, temperature=temperature), temperature))
    z, v = student.double() / temperature, teacher[0].double() / temperature
    theirs = temperature**2 * F.kl_div(
        F.log_softmax(z, -1), F.log_softmax(v, -1), reduction="batchmean", log_target=True
    )
    # The rounding of the targets, times the slope of the divergence in them.
    gap = float((z - v - (z - v).mean(-1, keepdim=True)).abs().max())
    size = 4 * temperature**2 * gap * tolerance(teacher, temperature) / 20 + 1e-7
    assert found == pytest.approx(float(theirs), rel=1e-5, abs=size)
    by_hand = special.rel_entr(softmax(teacher[0], temperature), softmax(student, temperature)).sum(-1).mean()
    if math.isfinite(by_hand):
        assert float(theirs) == pytest.approx(temperature**2 * by_hand, rel=1e-6, abs=1e-9 * temperature**2)
    assert found >= -size


@pytest.mark.parametrize(("kind", "temperature"), grid(KINDS, TEMPERATURES))
def test_the_gradient_of_the_soft_loss_is_that_of_section_2(kind: str, temperature: float) -> None:
    """(q - p) / T of equation 2, times T^2, for each of B images."""
    student, teacher, _ = (part.double() for part in logits(kind, 3))
    student.requires_grad_()
    soft_loss(student, soft_targets(teacher, temperature=temperature), temperature).backward()
    q, p = softmax(student.detach(), temperature), softmax(teacher[0], temperature)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), temperature * (q - p) / len(q), atol=1e-9 * temperature)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(2)))
def test_the_hard_loss_is_the_cross_entropy(kind: str, seed: int) -> None:
    student, _, labels = logits(kind, 10 + seed)
    found = float(hard_loss(student, labels))
    expected = float(F.cross_entropy(student.double(), labels))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6 * (1 + float(student.abs().max())))
    log_q = special.log_softmax(student.double().numpy(), axis=1)
    by_hand = -np.mean([row[label] for row, label in zip(log_q, labels.tolist(), strict=True)])
    assert expected == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(
    "kind", ["normal", "two classes", "many classes", "one image", "ties", "tiny", "far from zero"]
)
def test_matching_logits_is_the_limit_of_high_temperatures(kind: str) -> None:
    """Equation 4, for logits whose mean is taken away: dC/dz_i -> (z_i - v_i) / N, when T^2 is put back."""
    student, teacher, _ = (part.double() for part in logits(kind, 4))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(logit_matching(student, teacher[0]), student)
    z, v = (part - part.mean(-1, keepdim=True) for part in (student.detach(), teacher[0]))
    torch.testing.assert_close(gradient, (z - v) / student.shape[1] / len(student), rtol=1e-9, atol=1e-12)
    for temperature, near in ((1e3, 2e-2), (1e5, 2e-4)):
        loss = soft_loss(student, soft_targets(teacher, temperature=temperature), temperature)
        (limit,) = torch.autograd.grad(loss, student)
        assert float((limit - gradient).norm()) <= near * float(gradient.norm()) + 1e-9
        value = float(loss.detach())
        assert value == pytest.approx(float(logit_matching(student, teacher[0]).detach()), rel=near, abs=1e-5)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(2)))
def test_matching_logits_is_half_a_variance(kind: str, seed: int) -> None:
    student, teacher, _ = (part.double() for part in logits(kind, 30 + seed))
    gap = student.numpy() - teacher[0].numpy()
    expected = 0.5 * np.mean([np.var(row) for row in gap])
    assert float(logit_matching(student, teacher[0])) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "temperature", "hard_weight", "soft_weight"), grid(KINDS, (1.0, 5.0), (0.0, 0.1, 2.0), (0.0, 1.0))
)
def test_the_whole_loss_is_the_weighted_sum_in_value_and_gradient(
    kind: str, temperature: float, hard_weight: float, soft_weight: float
) -> None:
    student, teacher, labels = logits(kind, 5)
    student, teacher = student.double().requires_grad_(), teacher.double()
    weights: dict[str, Any] = {"soft_weight": soft_weight, "hard_weight": hard_weight}
    found = distillation_loss(student, teacher[0], labels, temperature=temperature, **weights)
    (gradient,) = torch.autograd.grad(found, student)
    theirs = soft_weight * temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher[0] / temperature, -1),
        reduction="batchmean",
        log_target=True,
    ) + hard_weight * F.cross_entropy(student, labels)
    (expected,) = torch.autograd.grad(theirs, student)
    torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "students"), grid(KINDS, (1, 4)))
def test_stacked_students_have_the_losses_of_each(kind: str, students: int) -> None:
    parts = [logits(kind, 50 + number) for number in range(students)]
    temperatures = torch.tensor([0.5 * 3**number for number in range(students)])
    student = torch.stack([part[0] for part in parts])
    targets = [soft_targets(part[1], temperature=float(heat)) for part, heat in zip(parts, temperatures, strict=True)]
    together = soft_loss(student, torch.stack(targets), temperatures)
    alone = [soft_loss(p[0], t, float(h)) for p, t, h in zip(parts, targets, temperatures, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)
    labels = torch.stack([part[2] for part in parts])
    expected = torch.stack([F.cross_entropy(part[0], part[2]) for part in parts])
    torch.testing.assert_close(hard_loss(student, labels), expected, rtol=1e-5, atol=1e-5)
