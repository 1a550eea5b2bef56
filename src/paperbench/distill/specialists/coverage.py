"""What the specialists changed: the paper's tables 3 and 4."""

from __future__ import annotations

from torch import Tensor

MOST = 10
"""Table 4 puts ten and more specialists in one row."""


def coverage(before: Tensor, after: Tensor, labels: Tensor, known: Tensor) -> dict[str, float]:
    """By how many specialists know an image's class: images, how many more are right, and the gain relative to before.

    before, after: (B, K) scores of the generalist and of all together. labels: (B,). known: (M, K) bool. Rows without an image are
    left out. `coverage/<n>/relative_gain` is in percent of the images that were right before; it has no entry where none was.
    """
    covering = known.sum(0).to(labels.device)[labels]
    right_before, right_after = before.argmax(1) == labels, after.argmax(1) == labels
    table: dict[str, float] = {}
    for number in range(min(MOST, len(known)) + 1):
        rows = covering >= MOST if number == MOST else covering == number
        images = int(rows.sum())
        if not images:
            continue
        earlier, later = int(right_before[rows].sum()), int(right_after[rows].sum())
        table[f"coverage/{number}/examples"] = float(images)
        table[f"coverage/{number}/more_correct"] = float(later - earlier)
        if earlier:
            table[f"coverage/{number}/relative_gain"] = 100 * (later - earlier) / earlier
    return table


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Percent of (B, K) scores whose largest is the label's."""
    return 100 * float((scores.argmax(1) == labels).double().mean())


def conditional_accuracy(scores: Tensor, labels: Tensor, known: Tensor) -> float:
    """Percent right among the images of a specialist's classes when only these classes may be answered (table 3).

    Of all specialists together: an image counts once for each that knows its class. NaN if no image belongs to any.
    """
    right = images = 0
    for row in known.to(labels.device):
        members = row.nonzero().squeeze(1)
        if not len(members):
            continue
        of_set = row[labels]
        answers = members[scores[of_set][:, members].argmax(1)]
        right += int((answers == labels[of_set]).sum())
        images += int(of_set.sum())
    return 100 * right / images if images else float("nan")
