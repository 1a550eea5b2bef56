"""Facts about a key that stand on its field, as metadata of its annotation: `root: Annotated[FolderPath, NO_EFFECT] = "outputs"`.

`fields.walk` finds keys, `marks` finds what they carry. Nothing here loads pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

_Mark = TypeVar("_Mark")


@dataclass(frozen=True)
class PathMark:
    """The key names something on disk. It is stored absolute, so that a run resumes from whichever folder one stands in."""

    kind: Literal["file", "folder", "any"]


@dataclass(frozen=True)
class OrName:
    """The path may also be a name of something else (`DEFAULT` of torchvision): a value is a path only if it exists."""


@dataclass(frozen=True)
class AsWritten:
    """The path stays as written, but for a leading `~`: it is for people to read, and no result depends on it."""


@dataclass(frozen=True)
class DataRoot:
    """The folder of data sets: null takes `paths.data_root()`."""


@dataclass(frozen=True)
class ContentCounts:
    """The results depend on what the file or run holds: its digest belongs to the configuration, and so to the hash of a run."""


@dataclass(frozen=True)
class Incidental:
    """The key changes nothing that is measured. `hashed`: it is part of the hash of a run all the same."""

    hashed: bool


@dataclass(frozen=True)
class AbsentByDefault:
    """The key stands in a configuration only where it has another value than its default: runs that were made before there was
    such a key keep their hash."""


@dataclass(frozen=True, init=False)
class Formerly:
    """Names that the field had in earlier versions, in the same section; `values` maps old values to today's."""

    names: tuple[str, ...]
    values: tuple[tuple[Any, Any], ...]

    def __init__(self, *names: str, values: dict[Any, Any] | None = None) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "values", tuple((values or {}).items()))


FilePath = Annotated[str, PathMark("file")]
FolderPath = Annotated[str, PathMark("folder")]
AnyPath = Annotated[str, PathMark("any")]
"""A file or a folder."""

OR_NAME: Final = OrName()
AS_WRITTEN: Final = AsWritten()
CONTENT_COUNTS: Final = ContentCounts()
ABSENT_BY_DEFAULT: Final = AbsentByDefault()
NO_EFFECT: Final = Incidental(hashed=False)
"""Changes no weight and no metric; left out of the hash, so that runs that differ in it alone are one run."""
CIRCUMSTANTIAL: Final = Incidental(hashed=True)
"""Says where and how fast a run is done and what is shown of it. A published number does not ask for it. It is hashed: sums taken
in another order are other numbers, and nobody can promise that two folders hold the same images."""


def marks(annotation: Any, kind: type[_Mark]) -> Iterator[_Mark]:
    """The marks of one kind on an annotation, or on a member of the union or tuple that it is."""
    if get_origin(annotation) is Annotated:
        annotation, *around = get_args(annotation)
        yield from (item for item in around if isinstance(item, kind))
    for part in get_args(annotation):
        yield from marks(part, kind)


def mark(annotation: Any, kind: type[_Mark]) -> _Mark | None:
    """The first mark of that kind, or None."""
    return next(marks(annotation, kind), None)
