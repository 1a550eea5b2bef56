from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from paperbench.vae.bounds import (
    bernoulli_log_prob,
    elbo,
    elbo_analytic,
    importance_bound,
    kl_to_standard_normal,
    normal_log_prob,
    standard_normal_log_prob,
)


def test_kl_of_known_values() -> None:
    mean = torch.tensor([[0.0, 1.0, -0.5], [0.2, -2.0, 0.0]])
    log_variance = torch.tensor([[0.0, -1.0, 0.5], [-0.3, 0.2, -4.0]])
    assert kl_to_standard_normal(mean, log_variance).tolist() == pytest.approx([0.8833003559, 3.5602683089], rel=1e-6)


@pytest.mark.parametrize("exponent", range(-12, 2))
def test_a_kl_is_never_negative_and_keeps_its_digits_near_zero(exponent: int) -> None:
    stream = torch.Generator().manual_seed(exponent + 100)
    log_variance = torch.randn(20_000, 1, generator=stream) * 10.0**exponent
    kl = kl_to_standard_normal(torch.zeros_like(log_variance), log_variance)
    assert float(kl.min()) >= 0.0
    exact = 0.5 * (log_variance.double().expm1() - log_variance.double()).squeeze(-1)
    torch.testing.assert_close(kl.double(), exact, rtol=1e-2 if exponent < -2 else 1e-3, atol=1e-6 * 10.0**exponent)


def test_the_gradient_of_the_kl_is_that_of_its_formula() -> None:
    mean, log_variance = torch.randn((2, 50, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_variance.requires_grad_()
    kl_to_standard_normal(mean, log_variance).sum().backward()
    assert log_variance.grad is not None
    torch.testing.assert_close(log_variance.grad, 0.5 * (log_variance.detach().exp() - 1))


def test_bernoulli_of_known_values() -> None:
    x, logits = torch.tensor([0.0, 1.0, 1.0, 0.3]), torch.tensor([-2.0, 0.5, 3.0, -0.1])
    assert float(bernoulli_log_prob(x, logits)) == pytest.approx(-1.3239890069, rel=1e-6)


def test_normal_of_known_values() -> None:
    x, mean = torch.tensor([0.0, 1.0, 1.0, 0.3]), torch.tensor([0.1, 0.5, 0.9, 0.2])
    log_variance = torch.tensor([-4.0, -2.0, 0.0, -6.0])
    assert float(normal_log_prob(x, mean, log_variance)) == pytest.approx(-0.8945208628, rel=1e-6)


def test_densities_are_those_of_torch() -> None:
    stream = torch.Generator().manual_seed(0)
    x, mean, log_variance = torch.randn((3, 2, 4, 7), generator=stream)
    scale = (0.5 * log_variance).exp()
    torch.testing.assert_close(normal_log_prob(x, mean, log_variance), Normal(mean, scale).log_prob(x).sum(-1))
    torch.testing.assert_close(standard_normal_log_prob(x), Normal(0.0, 1.0).log_prob(x).sum(-1))
    kl = kl_divergence(Normal(mean, scale), Normal(torch.zeros(()), torch.ones(()))).sum(-1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), kl)
    black_or_white = (x > 0).float()
    torch.testing.assert_close(
        bernoulli_log_prob(black_or_white, mean), Bernoulli(logits=mean).log_prob(black_or_white).sum(-1)
    )


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    value = bernoulli_log_prob(torch.tensor([0.0, 1.0]), logits)
    value.backward()
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_padding_adds_nothing() -> None:
    mean = torch.tensor([[0.3, -1.0]])
    log_variance = torch.tensor([[0.1, -0.4]])
    wide_mean, wide_log_variance = (torch.nn.functional.pad(t, (0, 3)).requires_grad_() for t in (mean, log_variance))
    kl = kl_to_standard_normal(wide_mean, wide_log_variance)
    torch.testing.assert_close(kl, kl_to_standard_normal(mean, log_variance))
    kl.sum().backward()
    assert wide_mean.grad is not None
    assert wide_log_variance.grad is not None
    assert not wide_mean.grad[:, 2:].any()
    assert not wide_log_variance.grad[:, 2:].any()
    torch.testing.assert_close(
        standard_normal_log_prob(torch.nn.functional.pad(mean, (0, 3)), 2), standard_normal_log_prob(mean)
    )


def test_bounds_of_known_values() -> None:
    log_joint = torch.tensor([[-100.0, -3.0], [-102.0, -3.0]])  # two samples of two images
    log_q = torch.tensor([[-1.0, -2.0], [-2.0, -2.0]])
    assert elbo(log_joint, log_q).tolist() == [-99.5, -1.0]
    assert importance_bound(log_joint, log_q).tolist() == pytest.approx([-99.3798855, -1.0])
    assert elbo_analytic(log_joint, torch.tensor([2.0, 0.5])).tolist() == [-103.0, -3.5]
    assert torch.equal(importance_bound(log_joint[:1], log_q[:1]), elbo(log_joint[:1], log_q[:1]))


def test_the_example_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "vae.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    assert names["bound"].shape == (100,)
    assert bool((names["bound"] < 0).all())
