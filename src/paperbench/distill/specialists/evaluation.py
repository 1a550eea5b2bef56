"""Generalist and specialists combined (section 5.5), and their gain (tables 3 and 4).

The combination of an image is the distribution q that minimises

    KL(p_g, q) + sum over its active specialists m of KL(p_m, q),

where p_m gives probabilities to the classes S_m that m knows and one, d_m, to its dustbin, which stands for the sum of q over all
other classes.

The paper descends the gradient in logits, image by image. Here all images are solved at once, to rounding. With f_j the sum of all
probabilities given to class j itself, setting the gradient to zero gives

    q_j = f_j / (v + sum of u_m over the m that know j),    u_m = d_m / (mass of q outside S_m),    v + sum_m u_m = 1 + A,

A being the number of active specialists. So only v and the u are unknown. They are the minimum of the convex function

    v + sum_m u_m - sum_j f_j log(v + sum of u_m over the m that know j) - sum_m d_m log u_m,

whose gradient is 1 - sum_j q_j for v and 1 - (mass of q in S_m) - d_m / u_m for u_m. Newton's method finds it in a few steps.
The denominators are sums of positive numbers and steps are relative to the unknowns, so a generalist with probabilities of 1e-100
does no harm.

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
"""Smallest probability of the generalist (without any outside S_m the dustbin's mass could go nowhere), and of a dustbin that
counts."""

_LEVEL = 1e-10
"""Where the function falls by less, rounding decides which of two values is smaller, and full steps are taken."""


def combine(
    generalist: Tensor,
    specialists: Tensor,
    known: Tensor,
    active: Tensor,
    *,
    tolerance: float = _TOLERANCE,
    most_steps: int = _MOST_STEPS,
) -> Tensor:
    """Return the minimiser (B, K) float64 for every image; rows sum to 1.

    generalist: (B, K), p_g. specialists: (B, M, K + 1): probabilities of the classes a specialist knows, 0 for the others, and
    last that of its dustbin. known: (M, K) bool; no specialist knows every class. active: (B, M) bool, the specialists of
    an image; without any, the result is p_g. tolerance: largest error of the sum of q and of the mass in a dustbin. Raises
    TrainingError when it is not reached.
    """
    problem = _Problem(generalist, specialists, known, active)
    out = torch.empty_like(problem.fixed)
    left = torch.arange(len(out), device=out.device)
    y = problem.start()
    for _ in range(most_steps):
        q = problem.solution(y)
        done = problem.residuals(y, q) <= tolerance
        out[left[done]] = q[done] / q[done].sum(1, keepdim=True)
        if bool(done.all()):
            return out
        left, y, q = left[~done], y[~done], q[~done]
        problem.select(~done)
        y = problem.newton_step(y, q)
    raise TrainingError(
        f"specialists could not be combined to {tolerance:g} in {most_steps} steps of Newton's method for {len(left)} images"
    )


class _Problem:
    """The convex problem in y = (v, u_1, ..., u_M), (B, M + 1). The u of inactive specialists, and of those with an
    empty dustbin, stay 0."""

    def __init__(self, generalist: Tensor, specialists: Tensor, known: Tensor, active: Tensor) -> None:
        weights = active.double()
        known_mass = torch.einsum("bm,bmk->bk", weights, specialists[..., :-1].double() * known)
        self.fixed = generalist.double().clamp_min(_FLOOR) + known_mass
        dust = weights * specialists[..., -1].double()
        self.dust = torch.cat([dust.new_zeros(len(dust), 1), dust], dim=1)
        everywhere = known.new_ones(1, known.shape[1])
        self.inside = torch.cat([everywhere, known]).double()
        self.outside = torch.cat([torch.zeros_like(everywhere), ~known]).double()
        self.live = self.dust > _FLOOR
        self.live[:, 0] = True

    def start(self) -> Tensor:
        return self.live.double()

    def solution(self, y: Tensor) -> Tensor:
        return self.fixed / (y @ self.inside)

    def select(self, rows: Tensor) -> None:
        """Continue with these images alone. rows: (B,) bool."""
        self.fixed, self.dust, self.live = self.fixed[rows], self.dust[rows], self.live[rows]

    def residuals(self, y: Tensor, q: Tensor) -> Tensor:
        """Return (B,), the larger of |sum of q - 1| and of the dustbins' |u_m (mass outside S_m) - d_m|."""
        dustbins = y * (q @ self.outside.T) - self.dust
        return torch.maximum((q.sum(1) - 1).abs(), dustbins.abs().amax(1))

    def newton_step(self, y: Tensor, q: Tensor) -> Tensor:
        """Return y after one step of Newton's method, with a line search for every image. Unknowns are scaled to 1."""
        gradient = torch.where(self.live, y * (1 - q @ self.inside.T) - self.dust, 0.0)
        part = y[:, :, None] * self.inside / (y @ self.inside)[:, None, :]  # (B, M + 1, K), in 0..1
        curvature = torch.einsum("bk,bmk,bnk->bmn", self.fixed, part, part)
        diagonal = curvature.diagonal(dim1=1, dim2=2) + torch.where(self.live, self.dust, 1.0)
        scale = diagonal.rsqrt()
        both = scale[:, :, None] * scale[:, None, :]
        matrix = (curvature + torch.diag_embed(diagonal - curvature.diagonal(dim1=1, dim2=2))) * both
        # A little is added to the diagonal of ones: classes that no specialist separates leave directions without curvature.
        matrix = matrix + 1e-14 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        direction = -scale * torch.linalg.solve(matrix, scale * gradient)
        # Each unknown may shrink a hundredfold at once; one that has to shrink more does not shorten the step of the others.
        clamped = direction.clamp(min=-_SHRINKING)
        downhill = (gradient * clamped).sum(1, keepdim=True) < 0
        shortened = direction * (_SHRINKING / (-direction).amax(1, keepdim=True).clamp_min(_SHRINKING))
        direction = torch.where(downhill, clamped, shortened)
        return self._line_search(y, direction, (gradient * direction).sum(1, keepdim=True))

    def _line_search(self, y: Tensor, direction: Tensor, slope: Tensor) -> Tensor:
        """Return y (1 + length direction), the length halved from 1 until the function falls enough (Armijo). slope: (B, 1)."""
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
    """Return the minimiser (B, K) float64 for one active specialist: the mean on the classes that it knows, the rest in proportion
    to the generalist.

    generalist: (B, K). specialist: (B, K + 1). known: (K,) bool.
    """
    p_g, p_m = generalist.double(), specialist.double()
    outside = torch.where(known, 0.0, p_g)
    mass = outside.sum(1, keepdim=True)
    rest = (mass + p_m[:, -1:]) / 2
    return torch.where(known, (p_g + p_m[:, :-1]) / 2, outside / mass.clamp_min(1e-300) * rest)


def objective(q: Tensor, generalist: Tensor, specialists: Tensor, known: Tensor, active: Tensor) -> Tensor:
    """Return the objective of `combine`, (B,) nats. Shapes as there; q: (B, K)."""
    total = _divergence(generalist.double(), q.double())
    for number in range(len(known)):
        outside = torch.where(known[number], 0.0, q.double()).sum(1, keepdim=True)
        combined = torch.cat([torch.where(known[number], q.double(), 1.0), outside], dim=1)
        specialist = torch.cat(
            [specialists[:, number, :-1].double() * known[number], specialists[:, number, -1:].double()], 1
        )
        total = total + active[:, number] * _divergence(specialist, combined)
    return total


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1)


def active_specialists(generalist: Tensor, known: Tensor, *, top: int) -> Tensor:
    """Return (B, M) bool: the specialists that know one of the `top` most likely classes of the generalist, (B, K)."""
    likeliest = generalist.topk(min(top, generalist.shape[1]), dim=1).indices
    return known.T.to(generalist.device)[likeliest].any(1)


# --- tables 3 and 4 ---------------------------------------------------------------------------------------------------


MOST = 10
"""Table 4 puts ten and more specialists in one row."""


def coverage(before: Tensor, after: Tensor, labels: Tensor, known: Tensor) -> dict[str, float]:
    """Return, for each number of specialists that know a class: images, how many more are correct, and the relative gain.

    before, after: (B, K) scores of the generalist and of all together. labels: (B,). known: (M, K) bool. Rows without an image are
    left out. `coverage/<n>/relative_gain` is in percent of the images that were correct before; it is left out where none was.
    """
    covering = known.sum(0).to(labels.device)[labels]
    right_before, right_after = before.argmax(1) == labels, after.argmax(1) == labels
    table: dict[str, float] = {}
    for number in range(min(MOST, len(known)) + 1):
        rows = covering >= MOST if number == MOST else covering == number
        images = int(rows.sum())
        if not images:
            continue
        earlier, later = int(right_before[rows].sum()), int(right_after[rows].sum())
        table[f"coverage/{number}/examples"] = float(images)
        table[f"coverage/{number}/more_correct"] = float(later - earlier)
        if earlier:
            table[f"coverage/{number}/relative_gain"] = 100 * (later - earlier) / earlier
    return table


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the percentage of scores (B, K) whose largest is that of the label."""
    return 100 * int((scores.argmax(1) == labels).sum()) / max(1, len(labels))


def conditional_accuracy(scores: Tensor, labels: Tensor, known: Tensor) -> float:
    """Return the percentage correct of the images of a specialist's classes when only these classes may be predicted (table 3).

    Over all specialists together: an image counts once for each that knows its class. NaN without such an image.
    """
    right = images = 0
    for row in known.to(labels.device):
        members = row.nonzero().squeeze(1)
        if not len(members):
            continue
        of_specialist = row[labels]
        predicted = members[scores[of_specialist][:, members].argmax(1)]
        right += int((predicted == labels[of_specialist]).sum())
        images += int(of_specialist.sum())
    return 100 * right / images if images else float("nan")
