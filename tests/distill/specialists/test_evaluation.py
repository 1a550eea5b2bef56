"""The generalist and the specialists as one answer."""

from __future__ import annotations

import pytest
import torch

from paperbench.distill.specialists.evaluation import active_specialists, closed_form, combine, objective
from paperbench.errors import TrainingError

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _case(*, images: int, classes: int, count: int, sureness: float, seed: int = 0) -> Case:
    """Random predictions of any sureness; every specialist knows about a quarter of the classes, all are asked."""
    stream = torch.Generator().manual_seed(seed)
    generalist = torch.softmax(sureness * torch.randn(images, classes, generator=stream, dtype=torch.float64), 1)
    known = torch.rand(count, classes, generator=stream) < 0.25
    known[:, 0], known[:, 1] = False, True
    logits = sureness * torch.randn(images, count, classes + 1, generator=stream, dtype=torch.float64)
    said = torch.cat([known, torch.ones(count, 1, dtype=torch.bool)], 1)
    specialists = torch.softmax(logits.masked_fill(~said, -torch.inf), 2)
    return generalist, specialists, known, torch.ones(images, count, dtype=torch.bool)


@pytest.mark.parametrize("sureness", [0.5, 3.0, 10.0, 30.0])
def test_with_one_specialist_it_is_the_closed_form(sureness: float) -> None:
    generalist, specialists, known, active = _case(images=200, classes=12, count=1, sureness=sureness)
    expected = closed_form(generalist, specialists[:, 0], known[0])
    torch.testing.assert_close(combine(generalist, specialists, known, active), expected, rtol=0, atol=1e-9)


def test_the_closed_form_has_no_gradient() -> None:
    generalist, specialists, known, active = _case(images=5, classes=6, count=1, sureness=1.0)
    z = closed_form(generalist, specialists[:, 0], known[0]).log().requires_grad_()
    objective(torch.softmax(z, 1), generalist, specialists, known, active).sum().backward()
    assert z.grad is not None
    assert float(z.grad.abs().max()) < 1e-12


@pytest.mark.parametrize(("count", "sureness"), [(2, 1.0), (5, 3.0), (8, 10.0), (8, 40.0)])
def test_nothing_better_is_near(count: int, sureness: float) -> None:
    generalist, specialists, known, active = _case(images=60, classes=20, count=count, sureness=sureness)
    q = combine(generalist, specialists, known, active)
    torch.testing.assert_close(q.sum(1), torch.ones(60, dtype=torch.float64))
    best = objective(q, generalist, specialists, known, active)
    stream = torch.Generator().manual_seed(1)
    for size in (1e-3, 0.1, 1.0):
        moved = torch.softmax(q.log() + size * torch.randn(60, 20, generator=stream, dtype=torch.float64), 1)
        assert bool((objective(moved, generalist, specialists, known, active) >= best - 1e-12).all())


def test_gradient_descent_in_logits_as_in_the_paper_ends_there_too() -> None:
    generalist, specialists, known, active = _case(images=4, classes=8, count=3, sureness=1.0)
    active[0] = torch.tensor([True, False, True])
    z = generalist.log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [z], max_iter=400, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(torch.softmax(z, 1), generalist, specialists, known, active).sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(
        combine(generalist, specialists, known, active), torch.softmax(z.detach(), 1), rtol=0, atol=1e-6
    )


def test_images_are_answered_as_if_each_were_alone() -> None:
    generalist, specialists, known, active = _case(images=30, classes=15, count=4, sureness=6.0)
    active = torch.rand(30, 4, generator=torch.Generator().manual_seed(2)) < 0.6
    together = combine(generalist, specialists, known, active)
    alone = [combine(generalist[n : n + 1], specialists[n : n + 1], known, active[n : n + 1]) for n in range(30)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-10)


def test_without_an_active_specialist_it_is_the_generalist() -> None:
    generalist, specialists, known, active = _case(images=10, classes=7, count=3, sureness=2.0)
    torch.testing.assert_close(combine(generalist, specialists, known, ~active), generalist)


def test_specialists_that_agree_with_the_generalist_change_nothing() -> None:
    generalist, _, known, active = _case(images=10, classes=7, count=3, sureness=2.0)
    inside = generalist[:, None, :] * known
    agreeing = torch.cat([inside, 1 - inside.sum(2, keepdim=True)], 2)
    torch.testing.assert_close(combine(generalist, agreeing, known, active), generalist)


def test_a_specialist_is_called_by_the_generalists_likeliest_classes() -> None:
    generalist = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    known = torch.tensor([[True, False, False], [False, True, False], [False, True, True]])
    assert active_specialists(generalist, known, top=1).tolist() == [[True, False, False], [False, False, True]]
    assert active_specialists(generalist, known, top=2).tolist() == [[True, True, True], [False, True, True]]
    assert active_specialists(generalist, known, top=9).all()


def test_too_few_steps_are_no_answer() -> None:
    generalist, specialists, known, active = _case(images=3, classes=8, count=3, sureness=5.0)
    with pytest.raises(TrainingError, match="could not be combined to 1e-12 in 1 steps"):
        combine(generalist, specialists, known, active, most_steps=1)
