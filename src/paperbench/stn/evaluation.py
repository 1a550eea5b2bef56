"""Scores on a test set, its batches shared by the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.engine.run import Run
from paperbench.stn.data import DistortedDigits, Photographs
from paperbench.stn.training import DigitClassifier


class DigitEvaluator:
    """Scores a classifier on the fixed test set and records the mean classifier input of each class.

    `split`: what `inputs` are, the first part of the metrics' names.
    """

    def __init__(
        self,
        classifier: DigitClassifier,
        inputs: DistortedDigits,
        run: Run,
        *,
        batch_size: int,
        split: Literal["test", "validation"] = "test",
    ) -> None:
        self.classifier = classifier
        self.inputs = inputs
        self.run = run
        self.batch_size = batch_size
        self.split = split

    @torch.inference_mode()
    def __call__(self) -> dict[str, float]:
        """Return `test/error` in percent, `test/errors` in images and `test/loss` in nats, or the same of `validation/`."""
        net, ranks = self.classifier.net, self.run.ranks
        classes, shape = self.inputs.classes, self.classifier.means.shape[2:]
        errors = torch.zeros((), dtype=torch.int64, device=self.run.device)
        losses: list[Tensor] = []
        counts = torch.zeros(classes, device=self.run.device)
        sums = torch.zeros(classes, shape.numel(), device=self.run.device)
        for images, labels in self.inputs.batches(self.batch_size, share=slice(ranks.rank, None, ranks.world)):
            with self.run.autocast():
                classifier_input = net.classifier_input(images)
                logits = net.classifier(classifier_input).float()
            errors += (logits.argmax(1) != labels).sum()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            one_hot = F.one_hot(labels, classes).to(sums.dtype)
            counts += one_hot.sum(0)
            sums += one_hot.t() @ classifier_input.flatten(1).to(sums.dtype)
        # Added up on the host: not every device has the float64 that a sum over many batches needs.
        loss = torch.stack(losses).cpu().double().sum() if losses else torch.zeros((), dtype=torch.float64)
        parts = ranks.all_gather((errors.cpu(), loss, counts.cpu(), sums.cpu()))
        errors, loss, counts, sums = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
        means = (sums / counts.clamp_min(1)[:, None]).view(classes, *shape)
        self.classifier.record_means(means.to(self.run.device))
        return {
            f"{self.split}/error": 100 * float(errors) / len(self.inputs),
            f"{self.split}/errors": float(errors),
            f"{self.split}/loss": float(loss) / len(self.inputs),
        }


class PhotographEvaluator:
    """Scores a net on photographs. `wrong` maps logits and labels to (B,) bool."""

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
        """Return `test/error` and `test/accuracy` in percent, `test/errors` in images and `seconds_per_image` of the net.

        The values are the same on every rank.
        """
        ranks, device = self.run.ranks, self.run.device
        errors = torch.zeros((), dtype=torch.int64, device=device)
        seconds, images_seen = 0.0, 0
        for images, labels in self.test_set.batches(self.batch_size, share=slice(ranks.rank, None, ranks.world)):
            _synchronize(device)
            began = time.perf_counter()
            with self.run.autocast():
                logits = self.net(images)
            _synchronize(device)
            seconds, images_seen = seconds + time.perf_counter() - began, images_seen + len(labels)
            errors += self.wrong(logits.float(), labels).sum()
        parts = ranks.all_gather((int(errors), seconds, images_seen))
        wrong, seconds, images_seen = (sum(part[k] for part in parts) for k in range(3))
        error = 100 * wrong / len(self.test_set)
        return {
            "test/error": error,
            "test/accuracy": 100 - error,
            "test/errors": float(wrong),
            "seconds_per_image": seconds / max(1, images_seen),
        }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
