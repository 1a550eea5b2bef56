"""What is fuzzed, by name; a module of this folder for each kind of input."""

from __future__ import annotations

from tests.fuzz.runs import Read
from tests.fuzz.targets import detection, masks, pictures, run_files

TARGETS: dict[str, Read] = {**detection.TARGETS, **masks.TARGETS, **pictures.TARGETS, **run_files.TARGETS}
