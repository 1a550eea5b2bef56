"""Bounds and likelihoods on a model whose log p(x) is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperbench.vae import hmc
from paperbench.vae.config import MarginalConfig
from paperbench.vae.likelihood import estimate_marginal, fit_gaussian, fit_kde, importance_sampled_likelihood
from paperbench.vae.objectives import bound, posterior_density
from tests.vae.linear_gaussian import LinearGaussian


def noise(samples: int, case: LinearGaussian) -> Tensor:
    return torch.randn(samples, len(case.x), case.latent, generator=torch.Generator().manual_seed(7))


def test_every_estimator_is_exact_where_the_encoder_is_the_posterior() -> None:
    case = LinearGaussian(1)
    exact, encoder, eps = case.log_likelihood(), case.encoder(), noise(3, case)
    with torch.no_grad():
        for form in ("sampled", "importance"):
            values = bound(form, case.model, encoder, case.x, eps)
            torch.testing.assert_close(values, exact, atol=1e-4, rtol=0)
    estimate = importance_sampled_likelihood(
        case.model, encoder, case.x, samples=10, stream=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(estimate.log_likelihood, exact, atol=1e-4, rtol=0)
    assert float(estimate.standard_error.max()) < 1e-3


def test_bounds_are_ordered_and_rise_with_the_number_of_samples() -> None:
    case = LinearGaussian(2, images=4, variance=2.0)
    encoder, draws = case.encoder(widened=2.0), 4000
    x = case.x.repeat(draws, 1)
    means = []
    with torch.no_grad():
        for count in (1, 2, 5, 20):
            eps = torch.randn(count, len(x), 2, generator=torch.Generator().manual_seed(count))
            means.append(bound("importance", case.model, encoder, x, eps).view(draws, -1).mean(0))
        analytic = bound("analytic", case.model, encoder, case.x, noise(20_000, case))
    exact = case.log_likelihood()
    for lower, higher in zip([*means], [*means[1:], exact], strict=True):
        assert bool((lower < higher + 0.01).all())
    assert bool((means[-1] > exact - 0.03).all())
    # Estimators A (one sample) and B have one expectation.
    torch.testing.assert_close(analytic, means[0], atol=0.05, rtol=0)


def test_importance_sampling_agrees_with_the_closed_form_within_its_standard_error() -> None:
    case = LinearGaussian(3, images=40)
    stream = torch.Generator().manual_seed(1)
    estimate = importance_sampled_likelihood(
        case.model, case.encoder(widened=1.5), case.x, samples=2000, stream=stream, rows=500
    )
    deviations = (estimate.log_likelihood - case.log_likelihood()) / estimate.standard_error
    assert float(estimate.standard_error.max()) < 0.1
    assert float(deviations.abs().max()) < 4
    assert 0.6 < float(deviations.square().mean()) < 1.6  # the errors have the stated size


def test_the_standard_error_of_one_sample_is_unknown() -> None:
    case = LinearGaussian(2)
    estimate = importance_sampled_likelihood(case.model, case.encoder(), case.x, samples=1, stream=torch.Generator())
    assert bool(torch.isinf(estimate.standard_error).all())
    with pytest.raises(ValueError, match="samples is 0"):
        importance_sampled_likelihood(case.model, case.encoder(), case.x, samples=0, stream=torch.Generator())


@pytest.mark.parametrize("density", ["gaussian", "kde"])
def test_appendix_d_agrees_with_the_closed_form(density: str) -> None:
    case = LinearGaussian(3, images=60)
    config = MarginalConfig(samples=150, leapfrog_steps=5, burn_in=60, density=density)  # type: ignore[arg-type]
    marginal = estimate_marginal(
        posterior_density(case.model, case.x), torch.zeros(60, 3), config, torch.Generator().manual_seed(5)
    )
    error = marginal.log_likelihood - case.log_likelihood()
    assert float(error.mean().abs()) < 0.03
    assert float(error.abs().max()) < 6 * float(marginal.standard_error.max())
    assert marginal.acceptance == pytest.approx(0.9, abs=0.04)


def test_appendix_d_needs_samples_to_fit_a_density_to() -> None:
    with pytest.raises(ValueError, match="samples is 4"):
        estimate_marginal(
            lambda z: -z.square().sum(-1), torch.zeros(2, 3), MarginalConfig(samples=4), torch.Generator()
        )


def test_fitted_densities_integrate_to_one() -> None:
    stream = torch.Generator().manual_seed(2)
    z = torch.randn(200, 1, 1, generator=stream) * 0.7 + 0.4
    grid = torch.linspace(-8, 8, 4001)[:, None, None]
    for fit in (fit_gaussian, fit_kde):
        mass = torch.trapezoid(fit(z)(grid).exp().squeeze(), grid.squeeze())
        assert float(mass) == pytest.approx(1.0, abs=1e-3)


# --- Hamiltonian Monte Carlo ------------------------------------------------------------------------------------------


def bent(z: Tensor) -> Tensor:
    """A density that is no Gaussian."""
    return -0.25 * z.square().square().sum(-1) - 0.5 * (z[:, 0] - z[:, 1]).square()


def test_leapfrog_runs_backwards_to_where_it_came_from() -> None:
    start = hmc.evaluate(bent, torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))
    momentum = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    end, momentum = hmc.leapfrog(bent, start, momentum, 0.1, 20)
    back, _ = hmc.leapfrog(bent, end, -momentum, 0.1, 20)
    assert float((end.z - start.z).abs().min()) > 1e-3
    torch.testing.assert_close(back.z, start.z, atol=1e-4, rtol=0)


def test_the_energy_error_of_leapfrog_is_of_second_order() -> None:
    def error(step_size: float, steps: int) -> float:
        start = hmc.evaluate(bent, torch.tensor([[0.3, -0.9]], dtype=torch.float64))
        momentum = torch.tensor([[0.7, 0.2]], dtype=torch.float64)
        end, last = hmc.leapfrog(bent, start, momentum, step_size, steps)
        change = end.log_density - start.log_density + 0.5 * (momentum.square() - last.square()).sum(-1)
        return abs(float(change))

    assert math.log2(error(0.1, 10) / error(0.05, 20)) == pytest.approx(2.0, abs=0.2)


def test_chains_find_the_posterior_and_the_step_size_its_acceptance() -> None:
    case = LinearGaussian(2, images=4)
    density = posterior_density(case.model, case.x)
    stream = torch.Generator().manual_seed(3)
    state = hmc.evaluate(density, torch.zeros(4, 2))
    step_size = torch.full((4, 1), 1e-3)
    drawn, accepted = [], []
    for number in range(2500):
        state, probability = hmc.transition(density, state, step_size, 5, stream)
        if number < 600:
            rate = 0.1 if number < 200 else 0.01
            step_size = hmc.adapt_step_size(step_size, probability[:, None], target=0.9, rate=rate)
        else:
            drawn.append(state.z)
            accepted.append(probability.mean())
    samples = torch.stack(drawn)
    mean, covariance = case.posterior()
    assert float(torch.stack(accepted).mean()) == pytest.approx(0.9, abs=0.03)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.06, rtol=0)
    for number in range(4):
        torch.testing.assert_close(torch.cov(samples[:, number].T), covariance, atol=0.05, rtol=0)


def test_a_proposal_that_is_not_finite_is_rejected() -> None:
    def cliff(z: Tensor) -> Tensor:
        return torch.where(z.squeeze(-1) < 10, -0.5 * z.square().squeeze(-1), torch.nan)

    state = hmc.evaluate(cliff, torch.full((3, 1), 9.0))
    moved, probability = hmc.transition(cliff, state, torch.tensor(50.0), 1, torch.Generator().manual_seed(0))
    assert torch.isfinite(moved.z).all()
    assert torch.isfinite(probability).all()
