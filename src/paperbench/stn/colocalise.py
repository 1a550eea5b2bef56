"""Co-localisation (appendix A.2): a transformer finds the common object of a set of images, without labels or boxes.

An encoder that was trained on single digits encodes windows. Windows of two images of the set should be more alike than a window
and a random one of its size in the same image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paperbench.engine.precision import full_precision
from paperbench.stn.grids import Attention
from paperbench.stn.networks import ConvolutionalNet
from paperbench.stn.transformer import SpatialTransformer, strided_convolutional


def triplet_loss(windows: Tensor, random: Tensor, *, margin: float, attraction: float = 1.0) -> Tensor:
    """Return the mean over all ordered pairs n != m of max(0, attraction |e_n - e_m|^2 - |e_n - r_n|^2 + margin).

    windows, random: (N, D) encodings e of the N windows and r of a random window of the same size in each image. The paper
    sums over the pairs; the mean leaves the rate the same for any N.
    """
    count = len(windows)
    lengths = windows.square().sum(1)
    between = (lengths[:, None] + lengths - 2 * windows @ windows.t()).clamp_min(0)
    to_random = (windows - random).square().sum(1)
    hinge = (attraction * between - to_random[:, None] + margin).clamp_min(0)
    return (hinge.sum() - hinge.diagonal().sum()) / (count * (count - 1))


def search_windows(encodings: Tensor, *, rounds: int = 5) -> Tensor:
    """Return (N,), for each image the one of its C windows, encoded as (N, C, D), that minimises the objective.

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
    """Attention with a scale of `min_scale` to 1 and a centre at most `reach` from the middle in either direction.

    Without bounds windows leave the image or shrink to a black spot, since all such windows are alike. The bounds pass gradients
    on, so that a parameter beyond one returns as soon as the objective says so.
    """

    def __init__(self, *, min_scale: float, reach: float, **options: Any) -> None:
        super().__init__(**options)
        self.min_scale = min_scale
        self.reach = reach

    def theta(self, features: Tensor) -> Tensor:
        """Return scale, x, y, (B, 3)."""
        unbounded = super().theta(features)
        scale, centre = unbounded.split([1, 2], dim=1)
        bounded = [scale.clamp(self.min_scale, 1), centre.clamp(-self.reach, self.reach)]
        return unbounded + (torch.cat(bounded, dim=1) - unbounded).detach()


def make_transformer(*, canvas: int, window: int, initial_scale: float, min_scale: float) -> BoundedWindow:
    """Return the untrained transformer; arguments as of `Colocaliser`."""
    localisation, features = strided_convolutional(1, canvas)
    return BoundedWindow(
        min_scale=min_scale,
        reach=1 - window / canvas,
        localisation=localisation,
        features=features,
        grid=Attention((window, window)),
        start=torch.tensor([initial_scale, 0.0, 0.0]),
    )


class Colocaliser(nn.Module):
    """The trained transformer and the fixed encoder, whose weights are no part of the state.

    digits: (M, 1, window, window) in 0..1, training digits of the encoder: the lengths of its activations are measured on them.
    canvas: side of the images. window: side of the encoder's input. initial_scale, min_scale: of the window. margin,
    attraction: of `triplet_loss`. search_weight: of the distance from the windows that `search` finds.
    """

    def __init__(
        self,
        encoder: ConvolutionalNet,
        digits: Tensor,
        *,
        canvas: int,
        window: int,
        initial_scale: float,
        min_scale: float,
        margin: float,
        attraction: float,
        search_weight: float,
    ) -> None:
        super().__init__()
        self.window = window / canvas
        self.reach = 1 - self.window
        self.transformer = make_transformer(
            canvas=canvas, window=window, initial_scale=initial_scale, min_scale=min_scale
        )
        self.margin = margin
        self.attraction = attraction
        self.search_weight = search_weight
        self._encoder = [encoder.eval().requires_grad_(False)]  # in lists: neither submodules nor state
        with torch.no_grad():
            self._black = self._layers(torch.zeros_like(digits[:1]))
            self._lengths = [
                (layer - black).square().sum(1).mean().sqrt().clamp_min(1e-6)  # a layer may never be active
                for layer, black in zip(self._layers(digits), self._black, strict=True)
            ]

    def _layers(self, windows: Tensor) -> list[Tensor]:
        """Return (B, D) float32 of each of the encoder's three layers."""
        return [part.flatten(1).float() for part in self._encoder[0].activations(windows)]

    def encode(self, windows: Tensor) -> Tensor:
        """Return the encoding (B, D) float32 of windows (B, 1, H, W): all three layers, less their activations for black.

        Each layer has the same weight, and digits have a length of about 1. Squared distances of plain activations are in the
        thousands, far beyond a margin of 1: the lowest loss would be that of black windows.
        """
        parts = zip(self._layers(windows), self._black, self._lengths, strict=True)
        return torch.cat([(layer - black) / length for layer, black, length in parts], dim=1) / 3**0.5

    @torch.no_grad()
    def search(self, images: Tensor, *, places: int = 12) -> Tensor:
        """Return centres (N, 2), each the best of `places` x `places` windows of the encoder's own size; see `search_windows`."""
        line = torch.linspace(-self.reach, self.reach, places, device=images.device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        theta = torch.stack([torch.full_like(x, self.window), x, y], dim=2).view(-1, 3)
        encodings = [
            self.encode(self.transformer.warp(image.expand(len(theta), -1, -1, -1), theta)) for image in images
        ]
        return theta[search_windows(torch.stack(encodings)), 1:]

    def forward(self, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the triplet loss of a set of images (N, 1, canvas, canvas), with random windows from `generator`, and the squared
        distance from the centres (N, 2) of the search."""
        images, centres = batch
        theta = self.transformer.theta(images)
        windows = self.encode(self.transformer.warp(images, theta))
        with torch.no_grad():
            place = self.reach * (2 * torch.rand(len(images), 2, generator=generator, device=images.device) - 1)
            random = self.encode(self.transformer.warp(images, torch.cat([theta[:, :1], place], dim=1)))
        with full_precision(images.device):
            return {
                "triplet": triplet_loss(windows, random, margin=self.margin, attraction=self.attraction),
                "coarse": self.search_weight * (theta[:, 1:] - centres).square().sum(1).mean(),
            }

    @torch.no_grad()
    def overlaps(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the IoU (N,) of the predicted windows with the true boxes (N, 4), normalised."""
        return box_iou(window_boxes(self.transformer.theta(images)), boxes)


def window_boxes(theta: Tensor) -> Tensor:
    """Return x1, y1, x2, y2, normalised, (B, 4), of the windows of attention parameters scale, x, y (B, 3)."""
    half = theta[:, :1].abs()
    return torch.cat([theta[:, 1:] - half, theta[:, 1:] + half], dim=1)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union (B,) of boxes (B, 4) in pairs; 0 where both are empty."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    intersection = (high - low).clamp_min(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (first, second)]
    union = areas[0] + areas[1] - intersection
    return torch.where(
        union > 0, intersection / union.clamp_min(torch.finfo(union.dtype).tiny), torch.zeros_like(union)
    )
