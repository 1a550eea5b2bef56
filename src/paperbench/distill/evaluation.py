"""Scores of nets, and the bias that corrects for classes a student never saw (section 3).

Logits are computed in float32. A student that never saw a 3 predicts it for few images; a constant added to the logit of 3 corrects
most of it. The number of errors is a step function of that constant, so its minimum is found exactly, by sorting the margins of the
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paperbench.distill.batches import Images
from paperbench.distill.executed_teachers import ExecutedTeacher
from paperbench.distill.losses import hard_loss
from paperbench.distill.torchvision_nets import Classifier
from paperbench.engine.device import as_float64

_MOST_PIXELS = 4_000_000
"""Numbers in a batch of a deep net."""


@torch.inference_mode()
def logits_of(net: nn.Module, images: Images, *, batch_size: int) -> Tensor:
    """Return logits (N, K) float32 of all images, without shifts and dropout; the net stays in its mode."""
    training = net.training
    net.eval()
    try:
        parts = [net(batch).float() for batch in images.batches(_at_once(net, images, batch_size))]
    finally:
        net.train(training)
    return torch.cat(parts).clone()


def _at_once(net: nn.Module, images: Images, batch_size: int) -> int:
    """Return the images of a batch: deep nets keep many times the pixels of their input in memory."""
    if isinstance(net, Classifier | ExecutedTeacher):
        return max(1, min(batch_size, _MOST_PIXELS // images.inputs))
    return batch_size


def scores(logits: Tensor, labels: Tensor, *, split: str = "test") -> dict[str, float]:
    """Return `<split>/errors` in images, `/error` and `/accuracy` in percent, `/nll` in nats per image."""
    exact = as_float64(logits)
    count = errors(logits, labels)
    rate = 100 * count / len(labels)
    return {
        f"{split}/errors": float(count),
        f"{split}/error": rate,
        f"{split}/accuracy": 100 - rate,
        f"{split}/nll": float(hard_loss(exact, labels.to(exact.device))),
    }


def errors(logits: Tensor, labels: Tensor) -> int:
    """Return the number of images whose largest logit is not that of their label."""
    return int((logits.argmax(1) != labels.to(logits.device)).sum())


def class_scores(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> dict[str, float]:
    """Return `errors` and the percentage `right` of the images of `classes`; NaN where there are none."""
    labels = labels.to(logits.device)
    shown = torch.isin(labels, torch.tensor(list(classes), device=labels.device))
    count = int(shown.sum())
    wrong = errors(logits[shown], labels[shown])
    return {"errors": float(wrong), "right": 100 * (1 - wrong / count) if count else float("nan")}


# --- the bias of omitted classes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correction:
    """bias: added to the logits. errors: left with it, on the images on which it was chosen."""

    bias: float
    errors: int


def best_bias(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Correction:
    """Return the constant for the logits of `classes` with the fewest errors.

    logits: (N, K), labels: (N,). Between two margins the number of errors is constant; the result is the middle of the widest
    range with the fewest errors. A range that is open to one side ends 1 beyond the last margin. Raises ValueError when `classes`
    are none or all.
    """
    inside = torch.zeros(logits.shape[1], dtype=torch.bool)
    inside[list(classes)] = True
    if bool(inside.all()) or not bool(inside.any()):
        raise ValueError("the classes to correct must be some, and not all, of the classes")
    z = logits.cpu().double()
    y = labels.cpu()
    own, own_class = z.masked_fill(~inside, -torch.inf).max(1)
    other, other_class = z.masked_fill(inside, -torch.inf).max(1)
    margins, order = torch.sort(other - own)  # with a bias above its margin, an image is classified as one of `classes`
    # Beyond the k-th margin k images are classified as one of the classes: change of errors at each.
    change = (own_class != y).long()[order] - (other_class != y).long()[order]
    errors = int((other_class != y).sum()) + torch.cat([torch.zeros(1, dtype=torch.int64), change.cumsum(0)])
    edges = torch.cat([margins[:1] - 2, margins, margins[-1:] + 2])
    widths = edges.diff()
    candidates = (errors == errors[widths > 0].min()) & (widths > 0)
    at = int(torch.where(candidates, widths, -1.0).argmax())
    return Correction(bias=float((edges[at] + edges[at + 1]) / 2), errors=int(errors[at]))


def add_bias(logits: Tensor, classes: Sequence[int], bias: float) -> Tensor:
    """Return (N, K) float64 with `bias` added to the logits of `classes`."""
    exact = as_float64(logits)
    added = torch.zeros(exact.shape[1], dtype=torch.float64, device=exact.device)
    added[list(classes)] = bias
    return exact + added


def omitted_class_metrics(
    logits: Tensor,
    labels: Tensor,
    classes: Sequence[int],
    unseen: Sequence[int],
    *,
    validation: tuple[Tensor, Tensor] | None,
    prefix: str,
) -> dict[str, float]:
    """Return errors on the `unseen` classes, and the errors that a bias on the logits of `classes` removes (section 3).

    logits: (Nt, K) of the test images. validation: logits and labels of training images that the student did not learn from.
    `<prefix>/omitted/*`: without a bias. `corrected/*`: the bias has the fewest errors on the test images, as in the paper.
    `validated/*`: it has the fewest on the validation images. `<prefix>/validation/errors`, `validated/validation/errors`: errors
    on these without and with it, by which settings can be chosen without the test set.
    """
    chosen: dict[str, Correction] = {"corrected": best_bias(logits, labels, classes)}
    if validation is not None:
        chosen["validated"] = best_bias(*validation, classes)
    out = {f"{prefix}/omitted/{name}": value for name, value in class_scores(logits, labels, unseen).items()}
    before = errors(logits, labels)
    for name, correction in chosen.items():
        after = add_bias(logits, classes, correction.bias)
        out |= {f"{name}/{key}": value for key, value in scores(after, labels).items() if key != "test/nll"}
        out |= {f"{name}/omitted/{key}": value for key, value in class_scores(after, labels, unseen).items()}
        out[f"{name}/bias"] = correction.bias
        # Net percentage: images that become wrong count against those that become correct.
        out[f"{name}/removed"] = 100 * (1 - errors(after, labels) / before) if before else 0.0
    if validation is not None:
        out[f"{prefix}/validation/errors"] = errors(*validation)
        out["validated/validation/errors"] = chosen["validated"].errors
    return out
