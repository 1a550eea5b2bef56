"""How a net is scored: logits in float32, then counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperbench.distill.inputs import Images
from paperbench.distill.losses import hard_loss


@torch.inference_mode()
def logits_of(net: nn.Module, images: Images, *, batch_size: int) -> Tensor:
    """(N, K) float32 for all images as they are, without dropout; the net is left in the mode it was in."""
    training = net.training
    net.eval()
    try:
        parts = [net(batch).float() for batch in images.batches(batch_size)]
    finally:
        net.train(training)
    return torch.cat(parts).clone()


def scores(logits: Tensor, labels: Tensor, *, split: str = "test") -> dict[str, float]:
    """`<split>/errors` in images, `/error` and `/accuracy` in percent, `/nll` in nats per image."""
    wrong = errors(logits, labels)
    rate = 100 * wrong / len(labels)
    return {
        f"{split}/errors": float(wrong),
        f"{split}/error": rate,
        f"{split}/accuracy": 100 - rate,
        f"{split}/nll": float(hard_loss(logits.double(), labels)),
    }


def errors(logits: Tensor, labels: Tensor) -> int:
    """Images whose largest logit is not that of their label."""
    return int((logits.argmax(1) != labels).sum())


def of_classes(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> dict[str, float]:
    """`errors` and the percentage that is `right` of the images that show one of `classes`; NaN where none does."""
    shown = torch.isin(labels, torch.tensor(list(classes), device=labels.device))
    count = int(shown.sum())
    wrong = errors(logits[shown], labels[shown])
    return {"errors": float(wrong), "right": 100 * (1 - wrong / count) if count else float("nan")}
