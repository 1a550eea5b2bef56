"""Which file, and which line of it, set a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from paperbench.config.paths import find, short


class KeyFinder:
    """Looks a dotted key up in composed files, the strongest first. `files` are (package, path), weakest first."""

    def __init__(self, files: Sequence[tuple[str, str]], folders: Sequence[Path]) -> None:
        self._files = files
        self._folders = folders

    def __call__(self, key: str) -> str | None:
        """`FILE:LINE`, or None if no file sets the key."""
        for package, config_path in reversed(self._files):
            inside = key
            if package:
                if key != package and not key.startswith(f"{package}."):
                    continue
                inside = key[len(package) + 1 :]
            file = find(config_path, self._folders)
            line = line_of(file, inside) if file and inside else None
            if file and line:
                return f"{short(file)}:{line}"
        return None


def line_of(file: Path, key: str) -> int | None:
    """Line of a dotted key in a YAML file, from 1; None if it is not there."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    line = None
    for name in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        pair = next((pair for pair in node.value if pair[0].value == name), None)
        if pair is None:
            return None
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
