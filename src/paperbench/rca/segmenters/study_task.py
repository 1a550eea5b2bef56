"""Task `rca-segmenters`: train segmenters, segment the cases, and estimate the quality of their masks.

The same as `rca-estimate`, with real predictions of known quality in place of the masks of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.rca import task
from paperbench.rca.cases import RECORDED, Case, CaseSet, CaseSource, Image, reason
from paperbench.rca.config import LabelConfig
from paperbench.rca.estimation import estimate, transforms_folder
from paperbench.rca.segmenters import factory
from paperbench.rca.segmenters.config import ForestModel, MultiAtlasModel, RcaSegmenters, UnetModel
from paperbench.rca.segmenters.splits import MaskFolder, Splits, open_splits


def plan(config: RcaSegmenters) -> Mapping[str, str]:
    """Describe segmenters and method; no image is opened.

    Raises ConfigError and DataError for what cannot be done, before anything is written.
    """
    _refuse_files(config)
    splits = open_splits(config.data)
    models = models_of(config)
    for model in models:
        factory.check(model, splits)
    stages = [name for model in models for name in factory.create_segmenter(model, transforms=None).stages]
    facts = task.describe(config, case_source(splits, dict.fromkeys(stages)))
    return {**facts, "segmenters": "; ".join(map(factory.describe, models))}


def _refuse_files(config: RcaSegmenters) -> None:
    given = [key for key in ("images", "masks", "truth", "manifest") if getattr(config, key)]
    given += [f"reference.{key}" for key in ("images", "masks") if getattr(config.reference, key)]
    given += [f"calibration.{key}" for key in ("images", "masks", "truth") if getattr(config.calibration, key)]
    given += ["labels"] if config.labels != LabelConfig() else []
    if given:
        raise ConfigError(
            f"{', '.join(given)}: rca-segmenters makes its own masks of data={config.data.name}; `paperbench estimate rca` takes "
            "those of files"
        )


def models_of(config: RcaSegmenters) -> list[UnetModel | ForestModel | MultiAtlasModel]:
    """Return the segmenters of the configuration, each once, in their order."""
    own = config.segmenters
    sections = {"unet": own.unet, "forest": own.forest, "multi-atlas": own.multi_atlas}
    return [sections[kind] for kind in dict.fromkeys(own.kinds)]


def case_source(splits: Splits, folders: Mapping[str, MaskFolder | None]) -> CaseSource:
    """Return references, and cases with the masks of every stage in `folders`; None stands for masks that do not exist yet."""

    def cases(numbers: Sequence[int]) -> tuple[Case, ...]:
        return tuple(
            Case(name=splits.name_of(number), load=lambda number=number: with_masks(splits, folders, number))
            for number in numbers
        )

    def read() -> CaseSet:
        return CaseSet(
            labels=splits.source.labels,
            references=tuple(splits.read(number) for number in splits.references),
            cases=cases(splits.cases),
            calibration=cases(splits.calibration),
            segmenters=tuple(folders),
            description=splits.describe(),
        )

    return CaseSource(
        read=read,
        references=len(splits.references),
        dims=splits.source.dims,
        labels=splits.source.labels.names,
        segmenters=tuple(folders),
        description=splits.describe(),
    )


def with_masks(splits: Splits, folders: Mapping[str, MaskFolder | None], number: int) -> Image:
    """Read image `number` with its masks; a mask that cannot be read is a problem of its segmenter."""
    image = splits.read(number)
    masks, problems = {}, {}
    for stage, folder in folders.items():
        try:
            assert folder is not None
            masks[stage] = folder.read(stage, number, image.intensities.shape)
        except RECORDED as error:
            problems[stage] = reason(error)
    return replace(image, masks=masks, problems=problems)


def run(config: RcaSegmenters, run: Run) -> dict[str, float]:
    """Make or find the masks, then estimate their quality; see `engine.task.Task`."""
    splits = open_splits(config.data)
    folder = factory.shared_folder(config.segmenters.folder, config.output.root, run)
    folders: dict[str, MaskFolder | None] = {}
    for model in models_of(config):
        masks = factory.shared_masks(model, config.data, splits, run, folder, transforms_folder(config))
        folders |= dict.fromkeys(factory.create_segmenter(model, transforms=None).stages, masks)
    return estimate(config, case_source(splits, folders).read(), run)
