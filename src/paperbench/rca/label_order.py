"""Labels that stand for each other: masks whose label 1 lies where all others have label 2. Every label is known, all scores are
low, and the segmentation may be perfect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from torch import Tensor

from paperbench.rca.cases import Remark
from paperbench.rca.mask_metrics import counts, overlap

LEAST: Final = 0.5
"""Dice overlap that a label must have with another one to be taken for it, and twice what it has with its own."""

Exchange = tuple[tuple[int, int], ...]
"""(label, the label in whose place it lies), by their places among the labels."""


def exchange(predicted: Tensor, truth: Tensor) -> Exchange:
    """Return the labels of binary masks (L, ...) that lie where the truth has others, one to one; nothing where none does."""
    count = len(predicted)
    if count < 2:
        return ()
    own = [_dice(predicted[k : k + 1], truth[k : k + 1]) for k in range(count)]
    if min(own) >= LEAST:
        return ()
    table = np.array(
        [
            [_dice(predicted[k : k + 1], truth[j : j + 1]) if j != k else own[k] for j in range(count)]
            for k in range(count)
        ]
    )
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(table, maximize=True)
    moved = tuple((k, int(column)) for k, column in enumerate(columns) if column != k and table[k].any())
    clear = all(table[k, column] >= LEAST and table[k, column] > 2 * own[k] for k, column in moved)
    return moved if clear else ()


def _dice(one: Tensor, other: Tensor) -> float:
    (row,) = counts(one, other)
    value = overlap("dsc", *row)
    return 0.0 if np.isnan(value) else value


def remarks_on_exchange(
    by_segmenter: dict[str, list[Exchange]], truths: dict[str, Exchange], names: Sequence[str]
) -> list[Remark]:
    """Return a remark for each segmenter whose labels lie where most references, or the truth, have others.

    by_segmenter: what `exchange` found on each reference. truths: and with the truth, where there is one.
    """
    remarks = []
    for segmenter, found in by_segmenter.items():
        (common, times), *_ = Counter(found).most_common(1) or [((), 0)]
        if common and 2 * times > len(found):
            where = "the references have"
        elif common := truths.get(segmenter, ()):
            where = "the truth has"
        else:
            continue
        own, other = (", ".join(names[pair[side]] for pair in common) for side in (0, 1))
        text = f"its labels {own} lie where {where} {other}: do they mean the same? A mirrored mask looks like this too"
        remarks.append(Remark(text=text, segmenter=segmenter))
    return remarks
