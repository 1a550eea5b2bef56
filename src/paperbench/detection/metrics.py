"""Every metric of the detection tasks. Imports no torch.

A prefix says that the same weights were used in another way: `pyramid/` on features of several sizes of the image, `no-boxes/`,
`svd/`, `svm/` and `softmax/` as variants of the R-CNN family, `ablation/<row>/` with other proposals. Numbers that the ground truth
does not define (a class or a size without any object) are not written.
"""

from __future__ import annotations

from paperbench.catalog import MetricSpec

MEANS = {
    "voc07/mAP": "mean average precision at IoU 0.5 by the 11 points of VOC 2007",
    "voc/mAP": "mean average precision at IoU 0.5 by the area under the curve, as from VOC 2010 on",
    "coco/AP": "mean average precision over IoU 0.50 to 0.95 (COCO)",
    "coco/AP50": "mean average precision at IoU 0.5 (COCO)",
}
"""The mean average precisions that intervals, variants and pyramids have, too."""

INTERVAL_ENDS = ("low", "high")


def class_metric(name: str) -> str:
    """Return what stands for a class at the end of a metric's name: the class, marked where it could be read as the end of an
    interval (`coco/AP/low`)."""
    return f"{name} (class)" if name.rpartition("/")[2] in INTERVAL_ENDS else name


_COCO = {
    "AP75": "mean average precision at IoU 0.75",
    "APs": "mean average precision of objects below 32 x 32 pixels",
    "APm": "mean average precision of objects from 32 x 32 to 96 x 96 pixels",
    "APl": "mean average precision of objects from 96 x 96 pixels on",
    "AR1": "average recall with one detection an image",
    "AR10": "average recall with 10 detections an image",
    "AR100": "average recall with 100 detections an image",
    "ARs": "average recall of objects below 32 x 32 pixels",
    "ARm": "average recall of objects from 32 x 32 to 96 x 96 pixels",
    "ARl": "average recall of objects from 96 x 96 pixels on",
}

_USES = {
    "pyramid/": "features of several sizes of the image",
    "no-boxes/": "no box regression at test",
    "svd/": "fully connected layers compressed by truncated SVD",
    "svm/": "SVMs in place of softmax",
    "softmax/": "softmax in place of SVMs",
    "ablation/*/": "the proposals of a row of table 2 of Faster R-CNN",
}


def _percent(name: str, meaning: str, *, headline: bool = False) -> MetricSpec:
    return MetricSpec(name=name, meaning=meaning, unit="%", direction="higher", format=".1f", headline=headline)


def _with_interval(name: str, meaning: str, *, headline: bool = False) -> tuple[MetricSpec, ...]:
    """A mean, and the ends of its 95 % interval over resampled test images."""
    ends = (_percent(f"{name}/{end}", f"{end} end of the 95 % interval of {name}") for end in INTERVAL_ENDS)
    return _percent(name, meaning, headline=headline), *ends


def _seconds(name: str, meaning: str) -> MetricSpec:
    return MetricSpec(name=name, meaning=meaning, unit="s", direction="lower", format=".4f", headline=True, timed=True)


METRICS: tuple[MetricSpec, ...] = (
    *(spec for name, meaning in MEANS.items() for spec in _with_interval(name, meaning, headline=True)),
    _percent("coco/AP75", f"{_COCO['AP75']} (COCO)", headline=True),
    _percent("coco/mask/AP", "mean average precision of masks over IoU 0.50 to 0.95 (COCO)", headline=True),
    _percent("coco/mask/AP50", "mean average precision of masks at IoU 0.5 (COCO)", headline=True),
    *(
        spec
        for prefix, use in _USES.items()
        for name, meaning in MEANS.items()
        for spec in _with_interval(f"{prefix}{name}", f"{meaning}; {use}", headline=prefix == "pyramid/")
    ),
    _percent("proposals/recall50@100", "objects that the best 100 proposals cover with IoU 0.5", headline=True),
    _percent("proposals/recall50@300", "objects that the best 300 proposals cover with IoU 0.5", headline=True),
    # --- the parts of the time ------------------------------------------------------------------------------------------
    *(
        MetricSpec(
            name=f"{prefix}seconds_per_image",
            meaning=f"time to detect the objects of one test image; {use}",
            unit="s",
            direction="lower",
            format=".4f",
            timed=True,
        )
        for prefix, use in _USES.items()
        if prefix != "ablation/*/"
    ),
    _seconds("seconds/total", "median time of one image alone, from the batch on the device to its detections"),
    _seconds("seconds/conv", "time of an image's convolutions, of the features that all regions share"),
    _seconds("seconds/proposal", "time of an image's region proposal network: layers and ranking"),
    _seconds("seconds/region-wise", "time of an image's suppression, pooling, fully connected layers and softmax"),
    _seconds(
        "seconds/pool", "time of an image's pooled regions; of R-CNN, of its warped regions and their convolutions"
    ),
    _seconds("seconds/fc6", "time of an image's first fully connected layer"),
    _seconds("seconds/fc7", "time of an image's second fully connected layer"),
    _seconds("seconds/other", "time of an image's outputs, SVMs, ridge regressions and suppression"),
    MetricSpec(
        name="svd/seconds/*",
        meaning="time of a part of detection, as `seconds/*`, with compressed layers",
        unit="s",
        direction="lower",
        format=".4f",
        timed=True,
    ),
    MetricSpec(name="share/*", meaning="share of a part in the time of one image", unit="%", format=".1f", timed=True),
    MetricSpec(
        name="svd/share/*",
        meaning="share of a part in the time of one image, with compressed layers",
        unit="%",
        format=".1f",
        timed=True,
    ),
    MetricSpec(
        name="images_per_second",
        meaning="images detected one by one in a second",
        unit="/s",
        direction="higher",
        format=".1f",
        timed=True,
    ),
    # --- classes, sizes and masks ---------------------------------------------------------------------------------------
    *(_percent(f"coco/{name}", f"{meaning} (COCO)") for name, meaning in _COCO.items() if name != "AP75"),
    *(_percent(f"coco/mask/{name}", f"{meaning} (COCO), of masks") for name, meaning in _COCO.items()),
    _percent("coco/AP/*", "average precision of a class over IoU 0.50 to 0.95 (COCO)"),
    _percent("coco/mask/AP/*", "average precision of a class over IoU 0.50 to 0.95 (COCO), of masks"),
    _percent("voc07/AP/*", "average precision of a class at IoU 0.5 by the 11 points of VOC 2007"),
    _percent("voc/AP/*", "average precision of a class at IoU 0.5 by the area under the curve"),
    # --- proposals ------------------------------------------------------------------------------------------------------
    *(
        spec
        for prefix, split in (("", ""), ("train/", ", training split"))
        for spec in (
            _percent(f"{prefix}proposals/recall50@*", f"objects that the best N proposals cover with IoU 0.5{split}"),
            _percent(f"{prefix}proposals/recall70@*", f"objects that the best N proposals cover with IoU 0.7{split}"),
            _percent(f"{prefix}proposals/AR@*", f"mean recall of the best N proposals over IoU 0.50 to 0.95{split}"),
            MetricSpec(name=f"{prefix}proposals/per_image", meaning=f"mean number of proposals{split}", format=".0f"),
        )
    ),
    MetricSpec(
        name="ablation/*/proposals", meaning="mean number of proposals an image, in a row of table 2", format=".0f"
    ),
)
