"""A thorough look at a data set: every image decoded, everything counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from paperbench.data.detection import DetectionSet
from paperbench.data.faults import Faults
from paperbench.data.pictures import READERS, BadImageError
from paperbench.errors import DataError


def examine(dataset: DetectionSet) -> dict[str, Any]:
    """Decode every image and count what there is.

    Returns images, objects, objects by class, images without objects, difficult and crowd objects, smallest and largest
    image, what was dropped and repaired. Raises DataError with every image that does not decode to its announced size.
    """

    def fault(index: int) -> tuple[str, str, str] | None:
        record = dataset.records[index]
        try:
            height, width = dataset.decode(index).shape[:2]
        except BadImageError as error:
            return error.reason, str(error.path), error.detail
        except DataError as error:
            return "unreadable image", record.source, str(error)
        if (height, width) != (record.height, record.width):
            announced = f"{width} x {height} decoded, {record.width} x {record.height} announced"
            return "size contradicts the image", record.source, announced
        return None

    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(fault, range(len(dataset))))
    remedy = "Replace these files, or take them out of the split"
    faults = Faults(f"{dataset.name} ({dataset.split})", "error", remedy=remedy)
    for entry in filter(None, found):
        faults.add(*entry)
    faults.finish(len(dataset))

    records = dataset.records
    labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)])
    by_class = np.bincount(labels, minlength=len(dataset.classes) + 1)[1:]
    counts: dict[str, Any] = {
        "images": len(records),
        "objects": len(labels),
        "images without objects": sum(len(record.labels) == 0 for record in records),
        "difficult objects": sum(int(record.difficult.sum()) for record in records),
        "crowd regions": sum(int(record.crowd.sum()) for record in records),
    }
    if records:
        small = min(records, key=lambda record: (record.width * record.height, record.width))
        large = max(records, key=lambda record: (record.width * record.height, record.width))
        counts |= {
            "smallest image": f"{small.width} x {small.height}",
            "largest image": f"{large.width} x {large.height}",
        }
    counts |= {f"left out: {reason}": count for reason, count in dataset.dropped.items()}
    counts |= {f"clipped: {reason}": count for reason, count in dataset.repaired.items()}
    return counts | {"objects by class": dict(zip(dataset.classes, by_class.tolist(), strict=True))}
