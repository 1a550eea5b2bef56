"""Co-localisation (appendix A.2): a transformer finds what the images of a set have in common, without labels or boxes.

An encoder that was trained on single digits describes what a window shows. Windows on two images of the set should look more alike
than a window and a random one of its size in the same image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paperbench.stn.geometry import box_iou, boxes_of
from paperbench.stn.grids import Attention
from paperbench.stn.localisation import strided
from paperbench.stn.networks import ConvolutionalNet
from paperbench.stn.transformer import SpatialTransformer


def triplet_loss(windows: Tensor, random: Tensor, *, margin: float) -> Tensor:
    """Mean over all ordered pairs n != m of max(0, |e_n - e_m|^2 - |e_n - r_n|^2 + margin).

    windows, random: (N, D) encodings e of the N windows and r of a random window of the same size in each image. The paper
    sums over the pairs; the mean leaves the rate the same for any N.
    """
    count = len(windows)
    between = torch.cdist(windows, windows, compute_mode="donot_use_mm_for_euclid_dist").square()
    to_random = (windows - random).square().sum(1)
    hinge = (between - to_random[:, None] + margin).clamp_min(0)
    return (hinge.sum() - hinge.diagonal().sum()) / (count * (count - 1))


class Colocaliser(nn.Module):
    """The transformer that is trained, with the encoder that is not: its weights are no part of the state."""

    def __init__(self, encoder: ConvolutionalNet, *, canvas: int, window: int, start: float, margin: float) -> None:
        super().__init__()
        localisation, features = strided(1, canvas)
        self.transformer = SpatialTransformer(
            localisation=localisation,
            features=features,
            grid=Attention((window, window)),
            start=torch.tensor([start, 0.0, 0.0]),
        )
        self.margin = margin
        self._encoder = [encoder.eval().requires_grad_(False)]  # in a list: not a submodule

    def encode(self, windows: Tensor) -> Tensor:
        """(B, D) float32: what all three layers of the encoder make of (B, 1, H, W), one after the other."""
        return torch.cat([part.flatten(1).float() for part in self._encoder[0].activations(windows)], dim=1)

    def forward(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The triplet loss of a set of images (N, 1, canvas, canvas); random windows come from `generator`."""
        theta = self.transformer.theta(images)
        windows = self.encode(self.transformer.warp(images, theta))
        with torch.no_grad():
            scale = theta[:, :1].detach()
            place = torch.rand(len(images), 2, generator=generator, device=images.device) * 2 - 1
            elsewhere = torch.cat([scale, place * (1 - scale.abs()).clamp_min(0)], dim=1)
            random = self.encode(self.transformer.warp(images, elsewhere))
        with torch.autocast(images.device.type, enabled=False):
            return {"loss": triplet_loss(windows, random, margin=self.margin)}

    @torch.no_grad()
    def overlaps(self, images: Tensor, boxes: Tensor) -> Tensor:
        """(N,) IoU of the predicted windows with the true boxes (N, 4), normalised."""
        return box_iou(boxes_of(self.transformer.theta(images)), boxes)
