"""`paperbench export`: a trained digit net in a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from paperbench.data import labelled
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.exportable import Exportable, Output
from paperbench.stn.data import evaluation_digits
from paperbench.stn.distortions import make_distortion
from paperbench.stn.networks import Net
from paperbench.stn.training import DigitConfig, digits_per_input, load_weights, make_net

EXAMPLES = (4, 3)
"""Test inputs in each batch that the exported net is compared on."""


class TupleOutput(nn.Module):
    """A net whose output is a tuple, as exporters expect it."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the logits."""
        return (self.net(images),)


def export_model(config: DigitConfig, run_dir: Path) -> Exportable:
    """Return the net of a run: (N, C, canvas, canvas) float32 in 0..1 with background 0 -> (N, classes) logits."""
    state, step, _ = load_for_evaluation(run_dir, which="last")
    net = load_weights(make_net(config), state).requires_grad_(False)
    images = labelled.load(config.data, "test")
    distortion, cpu = make_distortion(config.distortion), torch.device("cpu")
    source = evaluation_digits(images, distortion, config.evaluation.seed, cpu, digits_per_input(config))
    batches = [source(torch.arange(count), torch.zeros(count, dtype=torch.int64))[0] for count in EXAMPLES]
    return Exportable(
        module=TupleOutput(net).eval(),
        weights="net",
        inputs=[(batch,) for batch in batches],
        input_names=("images",),
        outputs=(
            Output(
                name="logits", meaning=f"(N, {source.classes}) scores of the classes, before softmax", tolerance=1e-3
            ),
        ),
        meaning=f"images: (N, {source.digits}, {source.side}, {source.side}) float32, light digits on black, from 0 to 1",
        step=step,
        dynamic={"images": {0: "batch"}},
    )
