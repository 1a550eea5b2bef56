"""The generalist and the specialists as one answer (section 5.5): for every image, the distribution q that minimises

    KL(p_g, q) + sum over its active specialists m of KL(p_m, q),

where p_m gives probabilities to the classes S_m that m knows and one, d_m, to its dustbin, for which q's probabilities of all
other classes are added up.

The paper descends the gradient in logits, image by image. Here all images are solved at once, to rounding. With f_j the sum of all
that is said about class j itself, setting the gradient to zero gives

    q_j = f_j / (v + sum of u_m over the m that know j),    u_m = d_m / (mass of q outside S_m),    v + sum_m u_m = 1 + A,

A being the number of active specialists. So only v and the u are unknown. They are the minimum of the convex function

    v + sum_m u_m - sum_j f_j log(v + sum of u_m over the m that know j) - sum_m d_m log u_m,

whose gradient is 1 - sum_j q_j for v and 1 - (mass of q in S_m) - d_m / u_m for u_m. Newton's method finds it in a few steps.
The denominators are sums of positive numbers and steps are relative to the unknowns, so a generalist that is sure to a hundred
digits does no harm.

B images, K classes, M specialists.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paperbench.errors import TrainingError

_TOLERANCE = 1e-12
_MOST_STEPS = 1000
_MOST_HALVINGS = 40
_SHRINKING = 0.99
_FLOOR = 1e-250
"""Of the generalist's probabilities: with none at all outside S_m the dustbin's mass could go nowhere. And what a dustbin must
hold to count."""

_LEVEL = 1e-10
"""Where the function falls by less, rounding decides which of two values is smaller, and full steps are right."""


def combine(
    generalist: Tensor,
    specialists: Tensor,
    known: Tensor,
    active: Tensor,
    *,
    tolerance: float = _TOLERANCE,
    most_steps: int = _MOST_STEPS,
) -> Tensor:
    """(B, K) float64, the minimiser for every image; rows sum to 1.

    generalist: (B, K), p_g. specialists: (B, M, K + 1): probabilities of the classes a specialist knows, 0 for the others, and
    last that of its dustbin. known: (M, K) bool; no specialist knows every class. active: (B, M) bool, which of them are asked
    about an image; without any, the answer is p_g. tolerance: how far the sum of q, and the mass that goes into a dustbin, may
    be from what they should be. Raises TrainingError when that is not reached.
    """
    problem = _Problem(generalist, specialists, known, active)
    answers = torch.empty_like(problem.fixed)
    left = torch.arange(len(answers), device=answers.device)
    y = problem.start()
    for _ in range(most_steps):
        q = problem.answer(y)
        done = problem.residuals(y, q) <= tolerance
        answers[left[done]] = q[done] / q[done].sum(1, keepdim=True)
        if bool(done.all()):
            return answers
        left, y, q = left[~done], y[~done], q[~done]
        problem.keep(~done)
        y = problem.improved(y, q)
    raise TrainingError(
        f"specialists could not be combined to {tolerance:g} in {most_steps} steps of Newton's method for {len(left)} images"
    )


class _Problem:
    """The convex problem in y = (v, u_1, ..., u_M), (B, M + 1). The u of specialists that are not asked, or whose dustbin is
    empty, stay 0."""

    def __init__(self, generalist: Tensor, specialists: Tensor, known: Tensor, active: Tensor) -> None:
        asked = active.double()
        said = torch.einsum("bm,bmk->bk", asked, specialists[..., :-1].double() * known)
        self.fixed = generalist.double().clamp_min(_FLOOR) + said
        dust = asked * specialists[..., -1].double()
        self.dust = torch.cat([torch.zeros_like(dust[:, :1]), dust], dim=1)
        everywhere = torch.ones_like(known[:1])
        self.inside = torch.cat([everywhere, known]).double()
        self.outside = torch.cat([torch.zeros_like(everywhere), ~known]).double()
        self.live = self.dust > _FLOOR
        self.live[:, 0] = True

    def start(self) -> Tensor:
        return self.live.double()

    def answer(self, y: Tensor) -> Tensor:
        return self.fixed / (y @ self.inside)

    def keep(self, rows: Tensor) -> None:
        """Goes on with these images alone. rows: (B,) bool."""
        self.fixed, self.dust, self.live = self.fixed[rows], self.dust[rows], self.live[rows]

    def residuals(self, y: Tensor, q: Tensor) -> Tensor:
        """(B,), the larger of |sum of q - 1| and of the dustbins' |u_m (mass outside S_m) - d_m|."""
        dustbins = y * (q @ self.outside.T) - self.dust
        return torch.maximum((q.sum(1) - 1).abs(), dustbins.abs().amax(1))

    def improved(self, y: Tensor, q: Tensor) -> Tensor:
        """One step of Newton's method, with a line search of its own for every image. Unknowns are scaled to 1."""
        gradient = torch.where(self.live, y * (1 - q @ self.inside.T) - self.dust, 0.0)
        part = y[:, :, None] * self.inside / (y @ self.inside)[:, None, :]  # (B, M + 1, K), in 0..1
        curvature = torch.einsum("bk,bmk,bnk->bmn", self.fixed, part, part)
        diagonal = curvature.diagonal(dim1=1, dim2=2) + torch.where(self.live, self.dust, 1.0)
        scale = diagonal.rsqrt()
        both = scale[:, :, None] * scale[:, None, :]
        matrix = (curvature + torch.diag_embed(diagonal - curvature.diagonal(dim1=1, dim2=2))) * both
        # A trace on the diagonal of ones: classes that nobody tells apart leave directions without curvature.
        matrix = matrix + 1e-14 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        direction = -scale * torch.linalg.solve(matrix, scale * gradient)
        # Each unknown may shrink a hundredfold at once, and does not hold the others back when it would have to shrink more.
        kept = direction.clamp(min=-_SHRINKING)
        downhill = (gradient * kept).sum(1, keepdim=True) < 0
        shortened = direction * (_SHRINKING / (-direction).amax(1, keepdim=True).clamp_min(_SHRINKING))
        direction = torch.where(downhill, kept, shortened)
        return self._searched(y, direction, (gradient * direction).sum(1, keepdim=True))

    def _searched(self, y: Tensor, direction: Tensor, slope: Tensor) -> Tensor:
        """y (1 + length direction), the length halved from 1 until the function falls enough (Armijo). slope: (B, 1)."""
        length = torch.ones_like(slope)
        before = self._value(y)
        near = slope.abs() < _LEVEL
        for _ in range(_MOST_HALVINGS):
            enough = near | (self._value(y * (1 + length * direction)) <= before + 1e-4 * length * slope)
            if bool(enough.all()):
                break
            length = torch.where(enough, length, length / 2)
        return y * (1 + length * direction)

    def _value(self, y: Tensor) -> Tensor:
        """(B, 1)."""
        logs = torch.xlogy(self.fixed, y @ self.inside).sum(1, keepdim=True)
        return (
            y.sum(1, keepdim=True) - logs - torch.xlogy(self.dust, torch.where(self.live, y, 1.0)).sum(1, keepdim=True)
        )


def closed_form(generalist: Tensor, specialist: Tensor, known: Tensor) -> Tensor:
    """(B, K) float64, the minimiser with one active specialist: the mean on what it knows; the rest as the generalist has it.

    generalist: (B, K). specialist: (B, K + 1). known: (K,) bool.
    """
    p_g, p_m = generalist.double(), specialist.double()
    outside = torch.where(known, 0.0, p_g)
    mass = outside.sum(1, keepdim=True)
    of_rest = (mass + p_m[:, -1:]) / 2
    return torch.where(known, (p_g + p_m[:, :-1]) / 2, outside / mass.clamp_min(1e-300) * of_rest)


def objective(q: Tensor, generalist: Tensor, specialists: Tensor, known: Tensor, active: Tensor) -> Tensor:
    """(B,) nats: what `combine` minimises. Shapes as there; q: (B, K)."""
    total = _divergence(generalist.double(), q.double())
    for number in range(len(known)):
        outside = torch.where(known[number], 0.0, q.double()).sum(1, keepdim=True)
        seen = torch.cat([torch.where(known[number], q.double(), 1.0), outside], dim=1)
        asked = torch.cat(
            [specialists[:, number, :-1].double() * known[number], specialists[:, number, -1:].double()], 1
        )
        total = total + active[:, number] * _divergence(asked, seen)
    return total


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1)


def called(generalist: Tensor, known: Tensor, *, top: int) -> Tensor:
    """(B, M) bool: the specialists that know one of the `top` likeliest classes of the generalist. generalist: (B, K)."""
    likeliest = generalist.topk(min(top, generalist.shape[1]), dim=1).indices
    return known.T.to(generalist.device)[likeliest].any(1)
