"""Co-localisation (appendix A.2): a transformer finds what the images of a set have in common, without labels or boxes.

An encoder that was trained on single digits describes what a window shows. Windows on two images of the set should look more alike
than a window and a random one of its size in the same image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paperbench.stn.geometry import box_iou, boxes_of
from paperbench.stn.grids import Attention
from paperbench.stn.localisation import strided
from paperbench.stn.networks import ConvolutionalNet
from paperbench.stn.transformer import SpatialTransformer


def triplet_loss(windows: Tensor, random: Tensor, *, margin: float, attraction: float = 1.0) -> Tensor:
    """Mean over all ordered pairs n != m of max(0, attraction |e_n - e_m|^2 - |e_n - r_n|^2 + margin).

    windows, random: (N, D) encodings e of the N windows and r of a random window of the same size in each image. The paper
    sums over the pairs; the mean leaves the rate the same for any N.
    """
    count = len(windows)
    lengths = windows.square().sum(1)
    between = (lengths[:, None] + lengths - 2 * windows @ windows.t()).clamp_min(0)
    to_random = (windows - random).square().sum(1)
    hinge = (attraction * between - to_random[:, None] + margin).clamp_min(0)
    return (hinge.sum() - hinge.diagonal().sum()) / (count * (count - 1))


def most_alike(encodings: Tensor, *, rounds: int = 5) -> Tensor:
    """(N,) for each image the one of its C windows, encoded as (N, C, D), that the objective likes best.

    First the one that differs most from the others of its image; then, `rounds` times, the one with the lowest mean of
    |e_n - e_m|^2 over the windows chosen in the other images less that of |e_n - r_n|^2 over the other windows of its own.
    """
    own = encodings.square().sum(2)
    to_others = own + own.mean(1, keepdim=True) - 2 * (encodings @ encodings.mean(1).unsqueeze(2)).squeeze(2)
    chosen = to_others.argmax(1)
    for _ in range(rounds):
        windows = encodings[torch.arange(len(encodings), device=encodings.device), chosen]
        between = own + windows.square().sum(1).mean() - 2 * encodings @ windows.mean(0)
        chosen = (between - to_others).argmin(1)
    return chosen


class BoundedWindow(SpatialTransformer):
    """Attention with a scale of `smallest` to 1 and a centre at most `reach` from the middle in either direction.

    Nothing else keeps a window from the black outside of the image, or from shrinking to a black spot: all such windows look
    alike. The bounds do not stop gradients; a parameter beyond one comes back as soon as the objective asks for it.
    """

    def __init__(self, *, smallest: float, reach: float, **options: Any) -> None:
        super().__init__(**options)
        self.smallest = smallest
        self.reach = reach

    def theta(self, features: Tensor) -> Tensor:
        """(B, 3) scale, x, y."""
        free = super().theta(features)
        scale, centre = free.split([1, 2], dim=1)
        within = [scale.clamp(self.smallest, 1), centre.clamp(-self.reach, self.reach)]
        return free + (torch.cat(within, dim=1) - free).detach()


class Colocaliser(nn.Module):
    """The transformer that is trained, with the encoder that is not: its weights are no part of the state.

    digits: (M, 1, window, window) in 0..1, some of those that the encoder was trained on: they say how long its activations are.
    canvas: side of the images, window: side of what the encoder sees, start: scale at the beginning, smallest: the least.
    margin, attraction: of the loss. coarse: weight of the distance from the windows that `search` finds.
    """

    def __init__(
        self,
        encoder: ConvolutionalNet,
        digits: Tensor,
        *,
        canvas: int,
        window: int,
        start: float,
        smallest: float,
        margin: float,
        attraction: float,
        coarse: float,
    ) -> None:
        super().__init__()
        localisation, features = strided(1, canvas)
        self.window = window / canvas
        self.reach = 1 - self.window
        self.transformer = BoundedWindow(
            smallest=smallest,
            reach=self.reach,
            localisation=localisation,
            features=features,
            grid=Attention((window, window)),
            start=torch.tensor([start, 0.0, 0.0]),
        )
        self.margin = margin
        self.attraction = attraction
        self.coarse = coarse
        self._encoder = [encoder.eval().requires_grad_(False)]  # in lists: neither submodules nor state
        with torch.no_grad():
            self._nothing = self._layers(torch.zeros_like(digits[:1]))
            self._lengths = [
                (layer - nothing).square().sum(1).mean().sqrt().clamp_min(1e-6)  # of a layer that never answers
                for layer, nothing in zip(self._layers(digits), self._nothing, strict=True)
            ]

    def _layers(self, windows: Tensor) -> list[Tensor]:
        """(B, D) float32 of each of the encoder's three layers."""
        return [part.flatten(1).float() for part in self._encoder[0].activations(windows)]

    def encode(self, windows: Tensor) -> Tensor:
        """(B, D) float32 for (B, 1, H, W): what all three layers make of it beyond what they make of black.

        Each layer counts alike, and digits have a length of about 1. As they are, squared distances of activations are in
        the thousands, among which a margin of 1 is nothing: then the lowest loss is that of windows that show nothing.
        """
        parts = zip(self._layers(windows), self._nothing, self._lengths, strict=True)
        return torch.cat([(layer - nothing) / length for layer, nothing, length in parts], dim=1) / 3**0.5

    @torch.no_grad()
    def search(self, images: Tensor, *, places: int = 12) -> Tensor:
        """(N, 2) centres, each the best of `places` x `places` windows of the encoder's own size; see `most_alike`."""
        line = torch.linspace(-self.reach, self.reach, places, device=images.device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        theta = torch.stack([torch.full_like(x, self.window), x, y], dim=2).view(-1, 3)
        encodings = [
            self.encode(self.transformer.warp(image.expand(len(theta), -1, -1, -1), theta)) for image in images
        ]
        return theta[most_alike(torch.stack(encodings)), 1:]

    def forward(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The triplet loss of a set of images (N, 1, canvas, canvas), random windows from `generator`, and the squared
        distance from the centres (N, 2) that were found for them."""
        images, centres = batch
        theta = self.transformer.theta(images)
        windows = self.encode(self.transformer.warp(images, theta))
        with torch.no_grad():
            place = self.reach * (2 * torch.rand(len(images), 2, generator=generator, device=images.device) - 1)
            random = self.encode(self.transformer.warp(images, torch.cat([theta[:, :1], place], dim=1)))
        with torch.autocast(images.device.type, enabled=False):
            return {
                "triplet": triplet_loss(windows, random, margin=self.margin, attraction=self.attraction),
                "coarse": self.coarse * (theta[:, 1:] - centres).square().sum(1).mean(),
            }

    @torch.no_grad()
    def overlaps(self, images: Tensor, boxes: Tensor) -> Tensor:
        """(N,) IoU of the predicted windows with the true boxes (N, 4), normalised."""
        return box_iou(boxes_of(self.transformer.theta(images)), boxes)
