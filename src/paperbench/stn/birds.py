"""Fine-grained classes by parts (section 4.3, appendix A.6): windows that one localisation net places, a net of its own for each.

Every window has half the image's side and may only be moved: in the paper more general transformations overfit. The windows are
placed as tiles of the image at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.stn.grids import Window
from paperbench.stn.networks import Resized
from paperbench.stn.sampling import sample
from paperbench.stn.trunks import make_trunk

HALF = 0.5
"""Side of a window, as a share of the image's."""


def tiles(count: int) -> Tensor:
    """(count, 2) centres of windows of half the side that tile the image as well as so many can: x, y, normalised."""
    if count == 2:
        return torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    if count == 4:
        return torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    raise ValueError(f"{count} windows: the paper tiles with 2 or 4")


class WindowPlacer(nn.Module):
    """(B, 3, h, w) -> (B, count, 2) centres: a trunk, a 1x1 convolution to `features`, a fully connected layer, a regression.

    `side` is that of the input; the trunk's last pooling is left away, so that the map keeps its positions.
    """

    def __init__(self, count: int, *, backbone: str, weights: str | None, side: int, features: int = 128) -> None:
        super().__init__()
        self.side = side
        self.resize = Resized(side)
        self.trunk = make_trunk(backbone, weights)
        self.reduce = nn.Conv2d(self.trunk.channels, features, 1)
        with torch.no_grad():
            was = self.trunk.training
            cells = self.trunk.eval()(torch.zeros(1, 3, side, side)).shape[2:].numel()
            self.trunk.train(was)
        self.hidden = nn.Linear(features * cells, features)
        self.regression = nn.Linear(features, 2 * count)
        nn.init.zeros_(self.regression.weight)
        with torch.no_grad():
            self.regression.bias.copy_(tiles(count).flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Centres in float32."""
        found = self.hidden(self.reduce(self.trunk(self.resize(images))).relu().flatten(1)).relu()
        with torch.autocast(images.device.type, enabled=False):
            return self.regression(found.float()).unflatten(1, (-1, 2))


class PartsNet(nn.Module):
    """(B, 3, H, W) in 0..1 -> (B, classes) logits. windows: 0 (the plain CNN on the whole image), 2 or 4.

    Windows are cut out of the input at its own resolution and handed on with side `side`; each is described by a trunk of its
    own, and the pooled features stand side by side for the classifier.
    """

    def __init__(
        self, *, windows: int, classes: int, backbone: str, weights: str | None, side: int, dropout: float
    ) -> None:
        super().__init__()
        self.placer = WindowPlacer(windows, backbone=backbone, weights=weights, side=side) if windows else None
        self.window = Window((side, side), scale=HALF)
        self.whole = Resized(side)
        self.trunks = nn.ModuleList(make_trunk(backbone, weights) for _ in range(max(1, windows)))
        features = sum(trunk.channels for trunk in self.trunks)  # type: ignore[misc]
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, classes)

    def centres(self, images: Tensor) -> Tensor:
        """(B, windows, 2) where the windows are."""
        assert self.placer is not None
        return self.placer(images)

    def parts(self, images: Tensor) -> list[Tensor]:
        """What each trunk sees, (B, 3, side, side) each."""
        if self.placer is None:
            return [self.whole(images)]
        centres = self.centres(images)
        with torch.autocast(images.device.type, enabled=False):
            return [sample(images.float(), self.window(centre), padding="border") for centre in centres.unbind(1)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        seen = self.parts(images)
        described = [trunk.describe(part) for trunk, part in zip(self.trunks, seen, strict=True)]  # type: ignore[operator]
        return self.classifier(self.dropout(torch.cat(described, dim=1)))

    def parameter_groups(self, *, localisation_lr: float) -> Iterator[dict[str, Any]]:
        """What places the windows with a rate of its own, and the rest."""
        if self.placer is not None:
            yield {"params": list(self.placer.parameters()), "lr_scale": localisation_lr}
        yield {"params": [*self.trunks.parameters(), *self.classifier.parameters()]}
