"""What the trainer trains and how a net is scored: shared by the tasks that classify digits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.engine.run import Run
from paperbench.stn.build import Net
from paperbench.stn.inputs import Batch, DistortedImages


class Classification(nn.Module):
    """A net with its loss, and the mean of what its classifier saw of each class at each evaluation.

    The means are part of the state: a resumed run draws the same picture of its own training.
    """

    means: Tensor
    evaluations: Tensor

    def __init__(self, net: Net, *, evaluations: int, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("means", torch.zeros(evaluations, classes, *shape))
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy of a batch."""
        inputs, labels = batch
        return {"loss": F.cross_entropy(self.net(inputs), labels)}

    def keep(self, means: Tensor) -> None:
        """Takes the means of one more evaluation, (classes, C, H, W)."""
        at = min(int(self.evaluations), len(self.means) - 1)
        self.means[at] = means
        self.evaluations.fill_(at + 1)


class ErrorCount:
    """Called, it counts the errors on the fixed test set, its batches shared out over the ranks."""

    def __init__(self, learner: Classification, inputs: DistortedImages, run: Run, *, batch_size: int) -> None:
        self.learner = learner
        self.inputs = inputs
        self.run = run
        self.batch_size = batch_size

    @torch.inference_mode()
    def __call__(self) -> dict[str, float]:
        """`test/error` in percent, `test/errors` in images, `test/loss` in nats."""
        net, ranks = self.learner.net, self.run.ranks
        classes, shape = self.inputs.classes, self.learner.means.shape[2:]
        totals = torch.zeros(2, dtype=torch.float64, device=self.run.device)
        seen = torch.zeros(classes, device=self.run.device)
        sums = torch.zeros(classes, shape.numel(), device=self.run.device)
        for images, labels in self.inputs.all(self.batch_size, share=slice(ranks.rank, None, ranks.world)):
            with self.run.autocast():
                warped = net.warped(images)
                logits = net.classifier(warped).float()
            totals[0] += (logits.argmax(1) != labels).sum()
            totals[1] += F.cross_entropy(logits, labels, reduction="sum")
            of_class = F.one_hot(labels, classes).to(sums.dtype)
            seen += of_class.sum(0)
            sums += of_class.t() @ warped.flatten(1).to(sums.dtype)
        parts = ranks.all_gather((totals.cpu(), seen.cpu(), sums.cpu()))
        (errors, loss), seen, sums = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
        self.learner.keep((sums / seen.clamp_min(1)[:, None]).view(classes, *shape).to(self.run.device))
        return {
            "test/error": 100 * float(errors) / len(self.inputs),
            "test/errors": float(errors),
            "test/loss": float(loss) / len(self.inputs),
        }
