"""The pictures that `paperbench predict` draws, one an image: their places, and what becomes of an image that cannot be read.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paperbench.engine.files import explain_os_errors
from paperbench.engine.outputs import is_marked, output_file, output_folder
from paperbench.errors import DataError

Read = TypeVar("Read")

SOFTWARE = "paperbench predict"
"""The mark in a drawing by which the next `predict` knows that it may replace it."""
_REMEDY = "name another folder with --output"


class Drawings:
    """The places `output/<name>.png` of the drawings of `images`, checked before a model is loaded.

    `name` gives a file's name from the number and the stem of its image; names that would be the same are numbered. Raises
    `ConfigError` where `output` is no folder or where a drawing would replace something else than an earlier drawing.
    """

    def __init__(
        self, images: Sequence[Path], output: Path, *, name: Callable[[int, str], str] = lambda number, stem: stem
    ) -> None:
        self.images = list(images)
        self.folder = output_folder(output)
        taken: set[str] = set()
        self.places: list[Path] = []
        for number, image in enumerate(self.images):
            stem = wanted = name(number, image.stem)
            count = 1
            while stem.casefold() in taken:  # some file systems know no case
                count += 1
                stem = f"{wanted}-{count}"
            taken.add(stem.casefold())
            self.places.append(
                output_file(
                    self.folder / f"{stem}.png",
                    what=f"a drawing of `{SOFTWARE}`",
                    is_ours=lambda path: is_marked(path, SOFTWARE),
                    inputs=self.images,
                )
            )

    def of_each(
        self,
        read: Callable[[int], Read],
        draw: Callable[[Read, Path], Mapping[str, Any]],
        *,
        skip_damaged: bool = False,
    ) -> list[dict[str, Any]]:
        """Return one dict an image: `image`, `picture`, and what `draw(read(number), picture)` adds after it drew that picture.

        `read` raises `DataError` for an image that cannot be used. Then nothing is drawn at all or, with `skip_damaged`, this image
        alone has no picture (None) and instead `error`, the reason. Raises `DataError` with the reasons of all such images if there
        is one, with `skip_damaged` if there is nothing else; and `EnvironmentError_` where the folder cannot be written.
        """
        faults: dict[int, DataError] = {}
        sound: dict[int, Read] = {}
        for number in range(len(self.images)):
            try:
                sound[number] = read(number)
            except DataError as error:
                faults[number] = error
        if faults and not (skip_damaged and sound):
            raise DataError("\n".join(dict.fromkeys(map(str, faults.values()))))
        with explain_os_errors(self.folder, remedy=_REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
        return [
            {"image": str(image), "picture": None, "error": str(faults[number])}
            if number in faults
            else {"image": str(image), "picture": str(picture), **draw(sound[number], picture)}
            for number, (image, picture) in enumerate(zip(self.images, self.places, strict=True))
        ]
