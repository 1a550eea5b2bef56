"""What a teacher's answers to labelled images tell of its file: rows or classes in another order, probabilities, other pixels.

Logits carry no names of images and classes, and weights nothing of their pixels. But whoever learned the data agrees with most of
their labels; where a file does not, the reason can be found by trying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from paperbench.distill.batches import Images
from paperbench.distill.executed_teachers import ExecutedTeacher
from paperbench.distill.nets import Net, Pixels, by_pixel
from paperbench.distill.torchvision_nets import IMAGENET, Classifier
from paperbench.engine.device import as_float64

FEWEST: Final = 200
"""Images below which chance is not told from agreement."""
SURE: Final = 4.0
"""Standard deviations above chance from which an agreement is none of chance."""
BLOCKS: Final = 20
FEWEST_OF_CLASS: Final = 10


def are_probabilities(rows: Tensor) -> bool:
    """Return True where every row of (N, K) is nonnegative and has the same sum: 1, or 100 for percent."""
    sums = rows.double().sum(1)
    common = float(sums.median())
    return bool((rows >= -1e-6).all()) and common > 0 and bool(((sums - common).abs() < 0.01 * common).all())


def logits_of_probabilities(rows: Tensor) -> Tensor:
    """Return the logarithms of probabilities (N, K), whatever their sum; those of 0 are taken for 1e-12."""
    values = rows.double()
    return (values / values.sum(1, keepdim=True)).clamp(min=1e-12).log().to(torch.float32)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Share of the images whose largest logit is that of their label, and the share that independent answers would have."""

    share: float
    chance: float
    images: int

    @property
    def by_chance(self) -> bool:
        """True where the answers agree with the labels no more often than answers that know nothing of them."""
        deviation = (self.chance * (1 - self.chance) / max(1, self.images)) ** 0.5
        return self.images >= FEWEST and self.share <= self.chance + SURE * deviation


def agreement(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Agreement:
    """Return the agreement of answers with labels, (N,) both."""
    known, answered = (np.bincount(part, minlength=classes) / max(1, len(part)) for part in (labels, answers))
    return Agreement(share=float((answers == labels).mean()), chance=float(known @ answered), images=len(labels))


def fault_of_logits(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> str:
    """Return in half a sentence why logits (N, K) are not those of images with these labels (N,), in this order; empty where
    nothing speaks against it."""
    answers, known = logits.argmax(1).cpu().numpy(), labels.cpu().numpy()
    found = agreement(answers, known, len(classes))
    turned = agreement((-logits).argmax(1).cpu().numpy(), known, len(classes))
    if found.images >= FEWEST and turned.share > max(0.5, 2 * found.share):
        return (
            f"the smallest value of a row is that of its label for {100 * turned.share:.1f} % of the images, the largest for "
            f"{100 * found.share:.1f} %: these are negative logits or losses; store their negatives"
        )
    if order := permutation(answers, known, len(classes)):
        moved = [f"{classes[k]} in column {column}" for k, column in enumerate(order) if k != column]
        return (
            f"its classes are in another order than the data's ({', '.join(moved[:10])}{' and more' if len(moved) > 10 else ''}): "
            f"store logits[:, {list(order)}]"
        )
    percent = f"{100 * found.share:.1f} %, where chance gives {100 * found.chance:.1f} %"
    if found.by_chance:
        return (
            f"its answers agree with the labels of {percent}: its rows are in another order than the images, as after shuffling, "
            "or of other images; store them in the order of the data set"
        )
    size = max(FEWEST, -(-found.images // BLOCKS))
    for start in range(0, found.images - size + 1, size):
        part = slice(start, start + size)
        block = agreement(answers[part], known[part], len(classes))
        # Labels that are sorted make blocks of one class, in which chance is agreement.
        if block.by_chance and block.share < found.share / 2:
            return (
                f"its rows {start} to {start + size - 1} agree with {100 * block.share:.1f} % of their labels, all together with "
                f"{percent}: a part of its rows is in another order than the images"
            )
    return ""


def permutation(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> tuple[int, ...]:
    """Return the column of each class where some classes are consistently answered by another column; empty where none is."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, answers), 1)
    _, columns = linear_sum_assignment(table, maximize=True)
    totals = table.sum(1)
    moved = [k for k in range(classes) if columns[k] != k and table[k].any()]
    for k in moved:
        if totals[k] < FEWEST_OF_CLASS or 2 * table[k, columns[k]] <= totals[k]:
            return ()
    return tuple(map(int, columns)) if moved else ()


# --- pixels -----------------------------------------------------------------------------------------------------------


NORMALISATIONS: Final = (
    (0.0, 1.0, "pixels in 0..1"),
    (0.1307, 0.3081, "MNIST's mean and standard deviation"),
    (0.5, 0.5, "pixels in -1..1"),
    (0.0, 1 / 255, "pixels in 0..255"),
    (0.1736, 0.3317, "EMNIST's mean and standard deviation"),
)
"""Mean, divisor and their meaning: what is usually done to pixels before a net sees them."""
_OF_COLOUR: Final = (*IMAGENET, "ImageNet's means and standard deviations")
MOST_IMAGES: Final = 2000
"""Images of each split on which normalisations are compared."""
MOST_OF_LARGE_NETS: Final = 100
"""The same for nets of convolutions, which take a thousand times as long."""
_AT_ONCE: Final = 4096
_SCALES: Final = tuple(0.05 * 400 ** (k / 24) for k in range(25))
"""Factors on logits, 0.05 to 20, of which the best one takes a net's confidence out of a comparison."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Answers of a net to pixels of one normalisation. wrong: (N,) bool; nll: (N,) nats; scaled: the same with the logits times
    the factor that suits all of them best."""

    wrong: Tensor
    nll: Tensor
    scaled: Tensor

    def suits_better_than(self, other: Trial) -> bool:
        """Return True for no more errors and a likelihood of the labels that is clearly higher, and not only by more confidence: by
        four standard errors, and with the best factor on the logits of both still by one."""
        return (
            int(self.wrong.sum()) <= int(other.wrong.sum())
            and _deviations(other.nll - self.nll) > SURE
            and _deviations(other.scaled - self.scaled) > 1
        )


def _deviations(gain: Tensor) -> float:
    """Return the mean of (N,) in its standard errors."""
    error = float(gain.std()) / len(gain) ** 0.5
    return float(gain.mean()) / error if error > 0 else 0.0


@torch.inference_mode()
def better_normalisation(
    net: Net | Classifier | ExecutedTeacher, sets: Sequence[Images], *, mean: Pixels, std: Pixels
) -> str:
    """Return in half a sentence which normalisation suits a net better than `mean` and `std`; empty where none clearly does.

    net: takes pixels in 0..1, and has absorbed `mean` and `std`. sets: the splits whose images it answers.
    """
    most = MOST_IMAGES if isinstance(net, Net) else MOST_OF_LARGE_NETS
    some = [images.select(_spread(images, most)) for images in sets if len(images.labelled)]
    size = sets[0].size
    pixels = torch.cat([next(images.batches(len(images))) for images in some])
    labels = torch.cat([images.labels for images in some])
    exact = as_float64(pixels)
    own = float(exact.mean()), float(exact.std()), "the mean and standard deviation of these images"
    net.eval()

    def number(value: Pixels) -> float | Tensor:
        return by_pixel(value, size).to(pixels.device) if isinstance(value, tuple) else value

    def trial(middle: Pixels, scale: Pixels) -> Trial:
        changed = (pixels - number(middle)) / number(scale) * number(std) + number(mean)
        at_once = _AT_ONCE if isinstance(net, Net) else max(1, _AT_ONCE * 784 // changed.shape[1])
        logits = as_float64(torch.cat([net(part) for part in changed.split(at_once)]))
        truth = labels.to(logits.device)
        losses = [cross_entropy(factor * logits, truth, reduction="none") for factor in (1.0, *_SCALES)]
        return Trial(
            wrong=logits.argmax(1) != truth,
            nll=losses[0],
            scaled=min(losses, key=lambda loss: float(loss.mean())),
        )

    given = trial(mean, std)
    usual = (*NORMALISATIONS, _OF_COLOUR) if size[0] == len(IMAGENET[0]) else NORMALISATIONS
    trials = [(trial(*place[:2]), place) for place in (*usual, own)]
    better = [pair for pair in trials if pair[0].suits_better_than(given)]
    # Those of these images are near those of the data set: a usual one is named first.
    better = [pair for pair in better if pair[1] is not own] or better
    if not better:
        return ""
    best, (middle, scale, meaning) = min(better, key=lambda pair: float(pair[0].nll.mean()))
    before, after = (100 * int(found.wrong.sum()) / len(labels) for found in (given, best))
    return (
        f"{meaning} suit its training better than the pixels that it gets: of {len(labels)} images it answers {before:.1f} % "
        f"wrongly, with them {after:.1f} %, at {float(given.nll.mean()):.3g} and {float(best.nll.mean()):.3g} nats; "
        f"teacher_mean={_shown(middle)} teacher_std={_shown(scale)}"
    )


def _shown(value: Pixels) -> str:
    return f"[{','.join(f'{part:.4g}' for part in value)}]" if isinstance(value, tuple) else f"{value:.4g}"


def _spread(images: Images, most: int) -> Tensor:
    """Return the rows of up to `most` images with a class, evenly spread."""
    known = images.labelled
    rows = torch.linspace(0, len(known) - 1, min(len(known), most)).long()
    return known[rows.to(known.device)]
