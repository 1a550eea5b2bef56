"""Errors on a test set of photographs, its batches shared out over the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from paperbench.engine.run import Run
from paperbench.stn.pixels import Photographs


class ErrorRate:
    """Called, it gives `test/error` and `test/accuracy` in percent, `test/errors` in images and `seconds_per_image` of the net.

    wrong: (logits, labels) -> (B,) bool.
    """

    def __init__(
        self,
        net: nn.Module,
        test_set: Photographs,
        run: Run,
        *,
        batch_size: int,
        wrong: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.net = net
        self.test_set = test_set
        self.run = run
        self.batch_size = batch_size
        self.wrong = wrong

    @torch.inference_mode()
    def __call__(self) -> dict[str, float]:
        """The same on every rank."""
        ranks, device = self.run.ranks, self.run.device
        errors = torch.zeros((), dtype=torch.int64, device=device)
        seconds, seen = 0.0, 0
        for images, labels in self.test_set.all(self.batch_size, share=slice(ranks.rank, None, ranks.world)):
            _wait(device)
            began = time.perf_counter()
            with self.run.autocast():
                logits = self.net(images)
            _wait(device)
            seconds, seen = seconds + time.perf_counter() - began, seen + len(labels)
            errors += self.wrong(logits.float(), labels).sum()
        parts = ranks.all_gather((int(errors), seconds, seen))
        wrong, seconds, seen = (sum(part[k] for part in parts) for k in range(3))
        error = 100 * wrong / len(self.test_set)
        return {
            "test/error": error,
            "test/accuracy": 100 - error,
            "test/errors": float(wrong),
            "seconds_per_image": seconds / max(1, seen),
        }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
