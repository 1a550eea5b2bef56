"""Files of JSON lines: one object a line, only ever appended to, readable after a kill at any moment. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperbench.engine.files import explain_os_errors


class JsonLinesWriter:
    """Appends objects to a file, which is created if it is not there. Raises `DiskFullError` and its kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with explain_os_errors(path):
            # Unbuffered: a line that the disk refuses must not come back when the file is closed.
            self._file = path.open("ab", buffering=0)
            if self._file.tell() and not _ends_with_newline(path):
                self._file.write(b"\n")  # a killed writer left half a line: keep it from spoiling the next one

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object, whose numbers are finite."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with explain_os_errors(self.path, needed=len(line)):
            self._file.write(line)

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return all objects of a file in order, without half-written lines; none if there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
