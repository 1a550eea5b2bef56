"""Pictures of detections, and the curves behind their scores.

Classes take the colours of Okabe and Ito, which stay apart for colour-blind eyes. From the ninth class on the colours
repeat; every box therefore carries the name of its class as well. Lines have a dark edge, so that they show on any
background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from paperbench.data.detection import DetectionSet, Record
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.recall import RecallResult
from paperbench.detection.evaluation.voc import VocResult
from paperbench.detection.masks import in_image
from paperbench.engine.figures import COLOURS, new_figure, save, tidy

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#FFFFFF")
"""Okabe and Ito, with white in place of black, which would not show beside the lines' dark edges."""

_EDGE = (0, 0, 0)
_OPACITY = 0.45
_GROUND_TRUTH = (255, 255, 255)


def colour(label: int) -> tuple[int, int, int]:
    """The colour of class `label` (1..C)."""
    code = PALETTE[(label - 1) % len(PALETTE)]
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def draw(
    image: NDArray[np.uint8],
    detections: Detections,
    classes: Sequence[str],
    ground_truth: Record | None = None,
    *,
    smallest: int = 480,
) -> Image.Image:
    """`image` (H, W, 3) uint8 RGB with every detection as a box, its class and its score in percent.

    Boxes are in pixels of `image`; surer ones lie on top. Objects of `ground_truth` are dashed white, `difficult` ones
    and crowd regions dotted. Lines and letters grow with the image; one whose long side is below `smallest` pixels is
    enlarged to it before anything is drawn, so that names stay legible. Masks are a transparent layer of their class's colour
    with an edge in it.
    """
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    scale = max(1.0, smallest / max(picture.size))
    if scale > 1:
        size = round(picture.width * scale) or 1, round(picture.height * scale) or 1
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    factors = np.array([picture.width / image.shape[1], picture.height / image.shape[0]] * 2)
    if detections.masks is not None:
        picture = _shade(picture, detections, factors)
    pen = ImageDraw.Draw(picture)
    unit = math.sqrt(picture.width * picture.height)
    width = max(1, round(unit / 160))
    if ground_truth is not None:
        for box, faint in zip(ground_truth.boxes, ground_truth.difficult | ground_truth.crowd, strict=True):
            _dashed(pen, _on_picture(box * factors, picture), width, dash=width * (2 if faint else 6))
    order = np.argsort(detections.scores, kind="stable")
    places = [_on_picture(detections.boxes[index] * factors, picture) for index in order]
    for index, place in zip(order, places, strict=True):
        _box(pen, place, colour(int(detections.labels[index])), width)
    font = _font(max(9, round(unit / 32)))
    for index, place in zip(order, places, strict=True):  # after all boxes, so that no line runs through a name
        label = int(detections.labels[index])
        text = f"{classes[label - 1]} {100 * float(detections.scores[index]):.0f}"
        _tag(pen, picture, place, text, colour(label), font, width)
    return picture


def sheet(
    dataset: DetectionSet,
    detections: Sequence[Detections],
    *,
    images: int = 12,
    score: float = 0.5,
    columns: int = 4,
    tile: int = 320,
) -> Image.Image | None:
    """The first `images` of a data set in a grid, ground truth dashed, detections of at least `score` solid.

    Images are scaled to fit squares of `tile` pixels before anything is drawn, so that letters are as sharp in a scene
    of 160 pixels as in a photograph. Returns None for an empty data set or `images=0`.
    """
    count = min(images, len(dataset))
    if count == 0:
        return None
    columns = min(columns, count)
    margin, head = max(4, tile // 40), max(24, tile // 10)
    rows = math.ceil(count / columns)
    canvas = Image.new(
        "RGB", (columns * (tile + margin) + margin, rows * (tile + margin) + margin + head), (245, 245, 245)
    )
    font = _font(max(11, head // 2))
    legend = f"{dataset.name} {dataset.split}: dashed white = ground truth, solid = detected with a score of {score:g} or more"
    while font.getlength(legend) > canvas.width - 2 * margin and font.size > 9:
        font = _font(int(font.size) - 1)
    ImageDraw.Draw(canvas).text((margin, head / 2 + margin / 2), legend, fill=_EDGE, font=font, anchor="lm")
    for index in range(count):
        picture = _tile(dataset, index, detections[index].above(score), tile)
        row, column = divmod(index, columns)
        left = margin + column * (tile + margin) + (tile - picture.width) // 2
        top = head + margin + row * (tile + margin) + (tile - picture.height) // 2
        canvas.paste(picture, (left, top))
    return canvas


def precision_recall_curves(result: VocResult, path: Path, *, title: str = "") -> Path | None:
    """Write every class's precision over recall, with its average precision by area; None without any ground truth.

    Up to seven classes are drawn each in a colour. More are drawn faint, the best and the worst three in colour.
    """
    drawn = [index for index in range(len(result.classes)) if result.curves[index].objects]
    if not drawn:
        return None
    drawn.sort(key=lambda index: -result.ap_area[index])
    named = drawn if len(drawn) <= len(COLOURS) else [*drawn[:3], *drawn[-3:]]
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    tidy(axes, title=title or f"mAP {100 * result.map_area:.1f} % by area, IoU .5", x="recall", y="precision")
    for index in drawn:
        curve = result.curves[index]
        # From recall 0 at the first precision; a class that was never detected is a point at the origin.
        recall = np.concatenate([[0.0], curve.recall])
        precision = np.concatenate([curve.precision[:1] if len(curve.precision) else [0.0], curve.precision])
        style = {"color": "#bbbbbb", "linewidth": 0.8, "zorder": 1}
        if index in named:
            name = f"{result.classes[index]}  {100 * result.ap_area[index]:.1f}"
            style = {"color": COLOURS[named.index(index)], "linewidth": 1.8, "label": name, "zorder": 2}
        axes.plot(recall, precision, **style)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(
        fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title="class  AP %", title_fontsize=8
    )
    return save(figure, path)


def recall_curves(result: RecallResult, path: Path) -> Path | None:
    """Write the recall of the proposals over IoU, one line for each number of proposals (figure 4); None without
    objects."""
    if not result.objects:
        return None
    figure = new_figure(4.8, 3.6)
    axes = figure.add_subplot()
    tidy(axes, title=f"proposals, {result.mean_proposals:.0f} an image", x="IoU", y="recall")
    for row, count in enumerate(result.counts):
        dashes = ("-", "--", "-.", ":")[row % 4]  # the curves often lie on top of each other
        name = f"best {count}, AR {100 * result.average[row]:.1f}"
        style = {"color": COLOURS[row % len(COLOURS)], "linestyle": dashes, "linewidth": 1.8, "label": name}
        axes.plot(result.thresholds, result.recall[row], **style)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return save(figure, path)


def _shade(picture: Image.Image, detections: Detections, factors: NDArray[np.floating]) -> Image.Image:
    """The picture with every mask laid over it, surer ones on top."""
    from scipy.ndimage import binary_erosion  # takes a second: only where masks are drawn

    assert detections.masks is not None
    pixels = np.asarray(picture, np.float32).copy()
    width = max(1, round(math.sqrt(picture.width * picture.height) / 320))
    for index in np.argsort(detections.scores, kind="stable"):
        box = detections.boxes[index] * factors
        seen = in_image(detections.masks[index], box, picture.height, picture.width)
        fill = np.array(colour(int(detections.labels[index])), np.float32)
        pixels[seen] += _OPACITY * (fill - pixels[seen])
        pixels[seen & ~np.asarray(binary_erosion(seen, iterations=width), bool)] = fill
    return Image.fromarray(pixels.round().astype(np.uint8))


# --- strokes ----------------------------------------------------------------------------------------------------------

Place = tuple[float, float, float, float]


def _on_picture(box: NDArray[np.floating], picture: Image.Image) -> Place:
    """The pixels of a continuous box that lie on the picture; x1 <= x2 and y1 <= y2 even for one outside it."""
    x1, y1, x2, y2 = box.tolist()
    right, bottom = picture.width - 1, picture.height - 1
    left, top = min(max(x1, 0.0), right), min(max(y1, 0.0), bottom)
    return left, top, max(left, min(x2 - 1, right)), max(top, min(y2 - 1, bottom))


def _box(pen: ImageDraw.ImageDraw, place: Place, fill: tuple[int, int, int], width: int) -> None:
    edge = max(1, width // 2)
    left, top, right, bottom = place
    pen.rectangle((left - edge, top - edge, right + edge, bottom + edge), outline=_EDGE, width=width + 2 * edge)
    pen.rectangle(place, outline=fill, width=width)


def _dashed(pen: ImageDraw.ImageDraw, place: Place, width: int, *, dash: int) -> None:
    left, top, right, bottom = place
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_EDGE, width=width + 2)
    for offset in np.arange(left, right, 2 * dash).tolist():
        end = min(offset + dash, right)
        pen.rectangle((offset, top, end, top + width - 1), fill=_GROUND_TRUTH)
        pen.rectangle((offset, bottom - width + 1, end, bottom), fill=_GROUND_TRUTH)
    for offset in np.arange(top, bottom, 2 * dash).tolist():
        end = min(offset + dash, bottom)
        pen.rectangle((left, offset, left + width - 1, end), fill=_GROUND_TRUTH)
        pen.rectangle((right - width + 1, offset, right, end), fill=_GROUND_TRUTH)


def _tag(
    pen: ImageDraw.ImageDraw,
    picture: Image.Image,
    place: Place,
    text: str,
    fill: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    width: int,
) -> None:
    """Name and score on a ground of the class's colour: above the box, inside it where there is no room above."""
    pad = max(1, width)
    _, ascent, right, descent = pen.textbbox((0, 0), text, font=font)
    wide, high = right + 2 * pad, (descent - ascent) + 2 * pad
    left = min(max(0.0, place[0] - width), max(0.0, picture.width - wide))
    top = place[1] - high if place[1] >= high else min(place[1], picture.height - high)
    dark = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] < 140
    pen.rectangle((left, top, left + wide, top + high), fill=fill)
    pen.text((left + pad, top + pad - ascent), text, fill=(255, 255, 255) if dark else _EDGE, font=font)


def _tile(dataset: DetectionSet, index: int, detections: Detections, side: int) -> Image.Image:
    """One image with its boxes, its long side `side` pixels: enlarged by `draw`, or reduced afterwards."""
    picture = draw(dataset.decode(index), detections, dataset.classes, dataset.records[index], smallest=side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has the letters of most alphabets that class names are written
    in."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
