"""Task `rca-segmenters`: segmenters learn from one share of the images, segment another, and their masks are judged.

What `rca-estimate` does with masks of files it does here with masks that are real predictions of a known quality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.rca import task
from paperbench.rca.cases import RECORDED, Case, Material, Picture, reason
from paperbench.rca.config import LabelConfig
from paperbench.rca.segmenters import making
from paperbench.rca.segmenters.config import ForestModel, MultiAtlasModel, RcaSegmenters, UnetModel
from paperbench.rca.segmenters.keeping import folder_of, kept
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import Shares, shares


def plan(config: RcaSegmenters) -> Mapping[str, str]:
    """What would be trained and judged. Raises ConfigError and DataError for what could not be, before anything is written."""
    _refuse_files(config)
    share = shares(config.data)
    models = models_of(config)
    for model in models:
        making.check(model, share)
    stages = {name: None for model in models for name in making.segmenter(model, transforms=None).stages}
    said = dict(task.facts(config, material(share, dict.fromkeys(stages))))
    return {**said, "segmenters": "; ".join(map(making.describe, models))}


def _refuse_files(config: RcaSegmenters) -> None:
    given = [key for key in ("images", "masks", "truth", "manifest") if getattr(config, key)]
    given += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    given += [f"calibration.{key}" for key in ("images", "masks", "truth") if getattr(config.calibration, key)]
    given += ["labels"] if config.labels != LabelConfig() else []
    if given:
        raise ConfigError(
            f"{', '.join(given)}: rca-segmenters makes its own masks of data={config.data.name}; `paperbench estimate rca` judges "
            "those of files"
        )


def models_of(config: RcaSegmenters) -> list[UnetModel | ForestModel | MultiAtlasModel]:
    """The segmenters that are asked for, each once, in their order."""
    own = config.segmenters
    sections = {"unet": own.unet, "forest": own.forest, "multi-atlas": own.multi_atlas}
    return [sections[kind] for kind in dict.fromkeys(own.kinds)]


def material(share: Shares, folders: Mapping[str, MaskFolder | None]) -> Material:
    """References, and cases with the masks of every stage in `folders`; None stands for masks that are not made yet."""

    def cases(numbers: Sequence[int]) -> tuple[Case, ...]:
        return tuple(
            Case(name=share.name_of(number), load=lambda number=number: with_masks(share, folders, number))
            for number in numbers
        )

    return Material(
        labels=share.source.labels,
        references=tuple(share.read(number) for number in share.references),
        cases=cases(share.cases),
        calibration=cases(share.calibration),
        segmenters=tuple(folders),
        description=share.describe(),
    )


def with_masks(share: Shares, folders: Mapping[str, MaskFolder | None], number: int) -> Picture:
    """Image `number` with its masks; one that cannot be read is a problem of its segmenter."""
    picture = share.read(number)
    masks, problems = {}, {}
    for stage, folder in folders.items():
        try:
            assert folder is not None
            masks[stage] = folder.read(stage, number, picture.image.shape)
        except RECORDED as error:
            problems[stage] = reason(error)
    return replace(picture, masks=masks, problems=problems)


def run(config: RcaSegmenters, run: Run) -> dict[str, float]:
    """Makes or finds the masks, then judges them; see `engine.task.Task`."""
    share = shares(config.data)
    folder = folder_of(config.segmenters.folder, config.output.root, run)
    folders: dict[str, MaskFolder | None] = {}
    for model in models_of(config):
        masks = kept(model, config.data, share, run, folder, task.store_folder(config))
        folders |= dict.fromkeys(making.segmenter(model, transforms=None).stages, masks)
    return task.estimate(config, material(share, folders), run)
