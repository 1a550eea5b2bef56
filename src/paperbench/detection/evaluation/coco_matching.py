"""COCO's matching and its precision-recall curves on arrays of all images together: the numbers of pycocotools, without its loops.

pycocotools visits each image, class, range of areas and threshold in turn. Here the surest detections of all images that could meet
an object are matched in one step, for every range and threshold at once, then the second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

IOUS: Final = np.linspace(0.5, 0.95, 10)
RECALLS: Final = np.linspace(0.0, 1.0, 101)
AREAS: Final = np.array([(0, 1e5**2), (0, 32**2), (32**2, 96**2), (96**2, 1e5**2)], np.float64)
"""Square pixels, both ends included: all, small, medium, large."""
DETECTIONS: Final = (1, 10, 100)
"""The surest detections of an image and class that are counted."""
_MOST_PAIRS: Final = 2_000_000
"""Pairs of a detection and an object that are measured at once: about 200 MiB."""

Overlap = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""The overlaps, (P,), of P detections, by place and ascending, and objects; in a crowd, the share of the detection within it."""


class Truth(NamedTuple):
    """N objects: image (N,) int64; label (N,) int64 in 1..C; area (N,) float64, by which they are small or large; crowd (N,) bool;
    ignored (N,) bool: neither found nor missed, as every crowd is."""

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


class Found(NamedTuple):
    """D detections: image (D,) int64; label (D,) int64 in 1..C; area (D,) float64; score (D,) float64, higher is surer."""

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    area: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """The K detections that count, at most 100 of an image and class, by label, image and falling score.

    places: (K,) among all detections; rank: (K,) from 0 within image and class; matched: (K, A, T) bool, whether it met an object,
    of `AREAS` and `IOUS`; ignored: (K, A, T) bool, whether it counts as neither right nor wrong; outside: (N, A) bool, which
    objects do not have to be found.
    """

    places: NDArray[np.int64]
    rank: NDArray[np.int64]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    outside: NDArray[np.bool_]


class Curves(NamedTuple):
    """precision: (T, R, C, A, M) at `RECALLS`; recall: (T, C, A, M), the highest that is reached; -1 over a class and range of
    areas without an object. M is of `DETECTIONS`. As pycocotools has them in `eval`."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def box_overlap(found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]) -> Overlap:
    """Return the overlap of boxes: found (D, 4) and truth (N, 4) are x, y, width, height; crowd is (N,).

    In pycocotools' order of operations: an overlap that is a threshold must not miss it by rounding, as one of corners might.
    """

    def overlap(detections: NDArray[np.int64], objects: NDArray[np.int64]) -> NDArray[np.float64]:
        d, g = found[detections], truth[objects]
        sides = np.minimum(d[:, 2:] + d[:, :2], g[:, 2:] + g[:, :2]) - np.maximum(d[:, :2], g[:, :2])
        own = d[:, 2] * d[:, 3]
        common = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)
        whole = np.where(crowd[objects], own, own + g[:, 2] * g[:, 3] - common)
        return np.divide(common, whole, out=np.zeros(len(d)), where=common > 0)

    return overlap


def match(truth: Truth, found: Found, overlap: Overlap) -> Matches:
    """Match detections with the objects of their image and class, the surest first, each with the free object it overlaps most; of
    equal ones the last. Objects that have to be found come before the others, whatever they overlap."""
    order = np.lexsort((-found.score, found.image, found.label))
    rank = _within(found.label[order], found.image[order])
    kept = rank < DETECTIONS[-1]
    places, rank = order[kept], rank[kept]
    outside = truth.ignored[:, None] | _beyond(truth.area)
    shape = (len(places), len(AREAS), len(IOUS))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    taken = np.zeros((len(truth.image), len(AREAS), len(IOUS)), bool)
    own, objects, overlaps = _pairs(truth, found, places, overlap)
    # By rank of the overlap: a whole number that is the pair's own, so that there are no ties.
    by_overlap = np.lexsort((objects, overlaps))
    worth = np.empty(len(own), np.int64)
    worth[by_overlap] = np.arange(len(own))
    for chosen in _rounds(own, truth, objects):
        g, begins = objects[chosen], np.flatnonzero(np.diff(own[chosen], prepend=-1))
        free = ~(taken[g] & ~truth.crowd[g, None, None]) & (overlaps[chosen, None] >= IOUS)[:, None, :]
        value = worth[chosen, None] + np.where(outside[g], 0, len(own))
        best = np.maximum.reduceat(np.where(free, value[:, :, None], -1), begins, axis=0)
        detection = own[chosen][begins]
        hit = np.nonzero(best >= 0)
        met = objects[by_overlap[best[hit] % len(own)]]
        matched[detection] = best >= 0
        ignored[detection[hit[0]], hit[1], hit[2]] = outside[met, hit[1]]
        taken[met, hit[1], hit[2]] = True
    ignored |= ~matched & _beyond(found.area[places])[:, :, None]
    return Matches(places=places, rank=rank, matched=matched, ignored=ignored, outside=outside)


def curves(truth: Truth, found: Found, matches: Matches, classes: int) -> Curves:
    """Return precision by recall of every class, range of areas and number of detections."""
    areas, most = len(AREAS), len(DETECTIONS)
    precision = np.full((len(IOUS), len(RECALLS), classes, areas, most), -1.0)
    recall = np.full((len(IOUS), classes, areas, most), -1.0)
    labels = found.label[matches.places]
    ends = np.searchsorted(labels, np.arange(1, classes + 2))
    for k in range(classes):
        objects = (~matches.outside[truth.label == k + 1]).sum(0)
        own = slice(ends[k], ends[k + 1])
        order = np.argsort(-found.score[matches.places[own]], kind="stable") + ends[k]
        for m, limit in enumerate(DETECTIONS):
            counted = order[matches.rank[order] < limit]
            for a in np.flatnonzero(objects):
                hits, ignored = matches.matched[counted, a].T, matches.ignored[counted, a].T
                right = np.cumsum(hits & ~ignored, axis=1).astype(np.float64)
                wrong = np.cumsum(~hits & ~ignored, axis=1).astype(np.float64)
                reached = right / objects[a]
                exact = right / (wrong + right + np.spacing(1))
                highest = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
                recall[:, k, a, m] = reached[:, -1] if len(counted) else 0.0
                precision[:, :, k, a, m] = 0.0
                for t, (line, heights) in enumerate(zip(reached, highest, strict=True)):
                    first = np.searchsorted(line, RECALLS)
                    there = first < len(counted)
                    precision[t, there, k, a, m] = heights[first[there]]
    return Curves(precision, recall)


def _within(label: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each in its group of equal label and image, which stand together."""
    begins = np.flatnonzero(np.diff(label, prepend=-1) | np.diff(image, prepend=-1))
    return np.arange(len(label)) - np.repeat(begins, np.diff(begins, append=len(label)))


def _beyond(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) -> (N, A): whether an area lies outside of each range."""
    return (area[:, None] < AREAS[:, 0]) | (area[:, None] > AREAS[:, 1])


def _pairs(
    truth: Truth, found: Found, places: NDArray[np.int64], overlap: Overlap
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of one image and class that overlap enough: detections as places in `places`, ascending, objects and
    overlaps."""
    by_group = np.lexsort((truth.image, truth.label))
    images = 1 + max(int(part.max(initial=0)) for part in (truth.image, found.image))
    of_objects = truth.label[by_group] * images + truth.image[by_group]
    of_found = found.label[places] * images + found.image[places]
    begins = np.searchsorted(of_objects, of_found)
    counts = np.searchsorted(of_objects, of_found, side="right") - begins
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for chosen in _shares(counts):
        own = np.repeat(chosen, counts[chosen])
        first = np.cumsum(counts[chosen]) - counts[chosen]
        objects = by_group[np.arange(len(own)) + np.repeat(begins[chosen] - first, counts[chosen])]
        overlaps = overlap(places[own], objects)
        near = overlaps >= IOUS[0]
        parts.append((own[near], objects[near], overlaps[near]))
    own, objects, overlaps = (np.concatenate(part) for part in zip(*parts, strict=True))
    return own, objects, overlaps


def _shares(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the places with a count, in order, so many at a time that their counts stay near `_MOST_PAIRS`."""
    there = np.flatnonzero(counts)
    share = np.cumsum(counts[there]) // _MOST_PAIRS
    yield from np.split(there, np.flatnonzero(np.diff(share)) + 1) if len(there) else ()


def _rounds(own: NDArray[np.int64], truth: Truth, objects: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of the first detection of each image and class, then those of the second ones, and so on."""
    if not len(own):
        return
    label, image = truth.label[objects], truth.image[objects]
    new = np.diff(own, prepend=-1) != 0
    begins = np.flatnonzero(new)
    turn = _within(label[begins], image[begins])[np.cumsum(new) - 1]
    order = np.argsort(turn, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(turn[order])) + 1)
