"""The reverse classifier: taught by one image and its mask alone, it draws the labels on the references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from paperbench.rca.cases import Picture


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a classifier drew on one reference: a map (...) for each segmenter whose mask taught it. `failure` says why it could
    not; there are then no maps."""

    reference: str
    maps: dict[str, Tensor]
    failure: str = ""


class ReverseClassifier(Protocol):
    """One way to carry labels from an image to references (Valindria et al., section III-B)."""

    def draw(self, picture: Picture, references: Sequence[Picture]) -> Iterator[Drawn]:
        """Labels on each of `references`, in their order; a reference that fails does not end the others."""
        ...
