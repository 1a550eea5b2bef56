"""The lists of mistakes: read, and held against the source."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path("src/paperbench")


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """`text`, which `file` holds exactly once, becomes `replacement`; one of `tests` should then fail.

    file: below `src/paperbench`. tests: arguments of pytest, below `tests`. package: the list that the mistake stands in.
    """

    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]
    package: str

    @property
    def digest(self) -> str:
        """A hash of everything that is planted, so that an old result is not taken for one of a changed entry."""
        return hashlib.sha256("\0".join((self.file, self.text, self.replacement)).encode()).hexdigest()[:16]

    def planted(self, content: str) -> str:
        """Return `content` with the mistake in it. Raises ValueError where its text is not found exactly once."""
        found = content.count(self.text)
        if found != 1:
            raise ValueError(f"{self.name}: {self.file} holds its text {found} times, not once:\n{self.text}")
        return content.replace(self.text, self.replacement)


def read_mistakes(folder: Path = Path(__file__).parent) -> list[Mistake]:
    """Return the mistakes of all lists, those of a package together."""
    return [
        Mistake(**{**entry, "tests": tuple(entry["tests"])}, package=file.stem)
        for file in sorted(folder.glob("*.toml"))
        for entry in tomllib.loads(file.read_text(encoding="utf-8"))["mistake"]
    ]
