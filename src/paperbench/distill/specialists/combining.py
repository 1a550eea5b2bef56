"""The generalist and the specialists as one answer (section 5.5): for every image, the distribution q that minimises

    KL(p_g, q) + sum over its active specialists m of KL(p_m, q),

where p_m gives probabilities to the classes S_m that m knows and one to its dustbin, for which q's probabilities of all
other classes are added up.

The paper descends the gradient in logits, image by image. Here all images are solved at once, to rounding. Setting the gradient
to zero gives, with A active specialists, Q_m the mass of q outside S_m, and f_j the sum of all that is said about class j itself,

    q_j = f_j / (1 + A - sum of u_m over the m that do not know j),    u_m = p_m,dustbin / Q_m.

So only the A numbers u are unknown. They are the minimum of the convex function

    - sum_j f_j log(1 + A - sum_m u_m [j not in S_m]) - sum_m p_m,dustbin log u_m,

which Newton's method finds from u = 1 in a few steps. Where the generalist leaves almost nothing outside S_m, the difference in
the denominator loses digits; a few steps of the iteration q_j <- (f_j + q_j sum_m u_m(q)) / (1 + A), which is expectation
maximisation and has the same fixed point, bring them back.

B images, K classes, M specialists.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paperbench.errors import TrainingError

_TOLERANCE = 1e-12
_MOST_STEPS = 200
_POLISHING_STEPS = 3
_MOST_HALVINGS = 40
_FLOOR = 1e-30
"""Of the generalist's probabilities: with none at all outside S_m the dustbin's mass could go nowhere."""


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
    about an image; without any, the answer is p_g. tolerance: how far the mass of a dustbin may be from what it should be.
    Raises TrainingError when that is not reached.
    """
    problem = _Problem(generalist, specialists, known, active)
    u = problem.live.double()  # everybody's dustbin has the mass that q gives it: always admissible
    for _ in range(most_steps):
        if problem.residual(u) <= tolerance:
            return problem.polished(problem.answer(u))
        u = problem.improved(u)
    raise TrainingError(f"specialists could not be combined to {tolerance:g} in {most_steps} steps of Newton's method")


class _Problem:
    """The convex problem in u (B, M). Entries of specialists that are not asked, or whose dustbin is empty, stay 0."""

    def __init__(self, generalist: Tensor, specialists: Tensor, known: Tensor, active: Tensor) -> None:
        asked = active.double()
        said = torch.einsum("bm,bmk->bk", asked, specialists[..., :-1].double() * known)
        self.fixed = generalist.double().clamp_min(_FLOOR) + said
        self.dust = asked * specialists[..., -1].double()
        self.others = (~known).double()
        self.votes = 1 + asked.sum(1, keepdim=True)
        self.live = self.dust > 0

    def answer(self, u: Tensor) -> Tensor:
        return self.fixed / self._room(u)

    def _room(self, u: Tensor) -> Tensor:
        return self.votes - u @ self.others

    def residual(self, u: Tensor) -> float:
        """The largest difference between a dustbin's mass and that of u times q's mass outside."""
        outside = self.answer(u) @ self.others.T
        return float((u * outside - self.dust).abs().max()) if u.numel() else 0.0

    def improved(self, u: Tensor) -> Tensor:
        """One step of Newton's method with a line search of its own for every image."""
        room = self._room(u)
        q = self.fixed / room
        safe = torch.where(self.live, u, 1.0)
        gradient = torch.where(self.live, q @ self.others.T - self.dust / safe, 0.0)
        curvature = torch.einsum("bk,mk,nk->bmn", q / room, self.others, self.others)
        both = self.live[:, :, None] & self.live[:, None, :]
        diagonal = torch.where(self.live, self.dust / safe.square(), 1.0)
        direction = -torch.linalg.solve(torch.where(both, curvature, 0.0) + torch.diag_embed(diagonal), gradient)
        return self._searched(u, direction, (gradient * direction).sum(1, keepdim=True))

    def _searched(self, u: Tensor, direction: Tensor, slope: Tensor) -> Tensor:
        """u moved as far along `direction` as stays admissible and lowers the function enough (Armijo). slope: (B, 1), < 0."""
        length = torch.minimum(_reach(u, direction), _reach(self._room(u), -(direction @ self.others)))
        length = (0.95 * length).clamp(max=1.0)
        before = self._value(u)
        # So close to the minimum the function no longer tells better from worse, and full steps are right.
        near = slope.abs() < 1e-10
        for _ in range(_MOST_HALVINGS):
            enough = near | (self._value(u + length * direction) <= before + 1e-4 * length * slope)
            if bool(enough.all()):
                break
            length = torch.where(enough, length, length / 2)
        return u + length * direction

    def _value(self, u: Tensor) -> Tensor:
        """(B, 1)."""
        room = (self.fixed * self._room(u).log()).sum(1, keepdim=True)
        return -room - torch.xlogy(self.dust, torch.where(self.live, u, 1.0)).sum(1, keepdim=True)

    def polished(self, q: Tensor) -> Tensor:
        q = q / q.sum(1, keepdim=True)
        for _ in range(_POLISHING_STEPS):
            outside = q @ self.others.T
            share = torch.where(self.live, self.dust / outside.clamp_min(_FLOOR), 0.0)
            q = (self.fixed + q * (share @ self.others)) / self.votes
            q = q / q.sum(1, keepdim=True)
        return q


def _reach(values: Tensor, change: Tensor) -> Tensor:
    """(B, 1): how many times `change` (B, n) can be added to the positive `values` before one of them is 0."""
    ratio = torch.where(change < 0, values / (-change).clamp_min(_FLOOR), torch.inf)
    return ratio.amin(1, keepdim=True)


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
