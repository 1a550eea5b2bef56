"""The losses, against numbers that were computed from the definition and against their limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from paperbench.distill.batches import Batch
from paperbench.distill.losses import (
    DistillationLoss,
    distillation_loss,
    hard_loss,
    logit_matching,
    soft_loss,
    soft_targets,
)
from paperbench.distill.nets import mlp

STUDENT = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.1, -0.2, 0.3, 1.5]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, -2.0, 0.5], [-1.0, 0.0, 0.5, 4.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 3])


def _soft(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    return soft_loss(student, soft_targets(teacher[None], temperature=temperature), temperature)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.2030882867), (4.0, 0.5854748764)])
def test_soft_loss_has_the_value_of_the_definition(temperature: float, expected: float) -> None:
    assert float(_soft(STUDENT, TEACHER, temperature)) == pytest.approx(expected, abs=1e-9)


def test_hard_loss_is_the_cross_entropy() -> None:
    assert float(hard_loss(STUDENT, LABELS)) == pytest.approx(0.4453726731, abs=1e-9)
    assert float(hard_loss(STUDENT, LABELS)) == pytest.approx(float(F.cross_entropy(STUDENT, LABELS)))


def test_the_distillation_loss_is_what_a_student_is_trained_on() -> None:
    net = mlp(inputs=4, classes=4, widths=[5])
    module = DistillationLoss(net, temperature=3.0, soft_weight=0.7, hard_weight=0.2)
    inputs = torch.rand(2, 4)
    batch = Batch(inputs, LABELS, soft_targets(TEACHER.float()[None], temperature=3.0))
    losses = module(batch, torch.Generator())
    expected = distillation_loss(
        net(inputs), TEACHER.float(), LABELS, temperature=3.0, soft_weight=0.7, hard_weight=0.2
    )
    torch.testing.assert_close(losses["loss_soft"] + losses["loss_hard"], expected)


def test_soft_loss_is_torchs_kl_divergence_averaged_over_the_batch_alone() -> None:
    for temperature in (0.5, 1.0, 7.0):
        expected = temperature**2 * F.kl_div(
            F.log_softmax(STUDENT / temperature, 1), F.softmax(TEACHER / temperature, 1), reduction="batchmean"
        )
        torch.testing.assert_close(_soft(STUDENT, TEACHER, temperature), expected)


def test_gradient_is_that_of_section_2_and_sums_to_zero_over_the_classes() -> None:
    temperature = 3.0
    logits = STUDENT.clone().requires_grad_()
    _soft(logits, TEACHER, temperature).backward()
    assert logits.grad is not None
    difference = F.softmax(STUDENT / temperature, 1) - F.softmax(TEACHER / temperature, 1)
    # (q - p) / T times T^2, averaged over the two images
    torch.testing.assert_close(logits.grad, temperature * difference / 2)
    torch.testing.assert_close(logits.grad.sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-15, rtol=0)


def test_logit_matching_is_the_limit_of_high_temperatures_in_value_and_gradient() -> None:
    gradients, values = [], []
    for loss in (lambda z: _soft(z, TEACHER, 1e4), lambda z: logit_matching(z, TEACHER)):
        logits = STUDENT.clone().requires_grad_()
        value = loss(logits)
        value.backward()
        values.append(value.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(values[0], values[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=2e-3, atol=1e-5)


def test_logit_matching_of_zero_mean_logits_has_the_papers_gradient() -> None:
    student, teacher = (z - z.mean(1, keepdim=True) for z in (STUDENT, TEACHER))
    logits = student.clone().requires_grad_()
    logit_matching(logits, teacher).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (student - teacher) / student.shape[1] / len(student))


def test_balance_with_the_hard_loss_does_not_depend_on_the_temperature() -> None:
    norms = []
    for temperature in (10.0, 100.0):
        logits = STUDENT.clone().requires_grad_()
        _soft(logits, TEACHER, temperature).backward()
        assert logits.grad is not None
        norms.append(float(logits.grad.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


def test_low_temperature_ignores_logits_far_below_the_mean() -> None:
    teacher = torch.tensor([[5.0, 4.0, -30.0]], dtype=torch.float64)
    gradients = {}
    for temperature in (1.0, 1e3):
        logits = torch.tensor([[5.0, 4.0, -20.0]], dtype=torch.float64, requires_grad=True)
        _soft(logits, teacher, temperature).backward()
        assert logits.grad is not None
        gradients[temperature] = abs(float(logits.grad[0, 2]))
    assert gradients[1.0] < 1e-8 < 1.0 < gradients[1e3]


def test_ensembles_average_probabilities_or_logits() -> None:
    pair = torch.stack([STUDENT, TEACHER])
    arithmetic = soft_targets(pair, temperature=2.0, average="probabilities")
    geometric = soft_targets(pair, temperature=2.0, average="logits")
    torch.testing.assert_close(arithmetic, (F.softmax(STUDENT / 2, 1) + F.softmax(TEACHER / 2, 1)) / 2)
    product = (F.softmax(STUDENT / 2, 1) * F.softmax(TEACHER / 2, 1)).sqrt()
    torch.testing.assert_close(geometric, product / product.sum(1, keepdim=True))
    assert not torch.allclose(arithmetic, geometric)


def test_stacked_losses_are_those_of_each_student() -> None:
    stacked = torch.stack([STUDENT, TEACHER])
    targets = torch.stack([soft_targets(TEACHER[None], temperature=t) for t in (2.0, 5.0)])
    together = soft_loss(stacked, targets, torch.tensor([2.0, 5.0], dtype=torch.float64))
    alone = [soft_loss(z, p, t) for z, p, t in zip(stacked, targets, (2.0, 5.0), strict=True)]
    torch.testing.assert_close(together, torch.stack(alone))
    torch.testing.assert_close(
        hard_loss(stacked, LABELS.expand(2, 2)), torch.stack([hard_loss(z, LABELS) for z in stacked])
    )


def test_equal_logits_cost_nothing_at_any_temperature() -> None:
    for temperature in (0.1, 1.0, 50.0):
        assert float(_soft(TEACHER, TEACHER, temperature)) == pytest.approx(0, abs=1e-12)
    # A target of zero probability is no trouble either.
    sure = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert math.isfinite(float(soft_loss(torch.tensor([[3.0, -2.0]], dtype=torch.float64), sure, 1.0)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_divides_by_nothing_is_refused(temperature: float) -> None:
    logits = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="above 0"):
        distillation_loss(
            logits, logits, torch.zeros(1, dtype=torch.int64), temperature=temperature, soft_weight=1, hard_weight=1
        )


@pytest.mark.parametrize("temperature", [20.0, 100.0, 1000.0])
def test_the_value_at_high_temperatures_survives_single_precision(temperature: float) -> None:
    """The divergence is then a millionth of the sums that it is the difference of, and T^2 times that is printed."""
    expected = float(_soft(STUDENT, TEACHER, temperature))
    assert float(_soft(STUDENT.float(), TEACHER.float(), temperature)) == pytest.approx(expected, rel=1e-3)
    assert abs(float(_soft(TEACHER.float(), TEACHER.float(), temperature))) < 1e-4
