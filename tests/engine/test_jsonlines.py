"""Files of JSON lines: what a killed writer leaves costs one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.engine.jsonlines import JsonLinesWriter, read_json_lines


@pytest.mark.parametrize("torn", ["", '{"a": 2', "3", "[1]", "\xff"])
def test_lines_are_appended_after_a_torn_one(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_json_lines(path) == []
    path.write_bytes(b'{"a": 1}\n' + torn.encode("latin-1"))
    assert read_json_lines(path) == [{"a": 1}]
    writer = JsonLinesWriter(path)
    writer.write({"a": 3})
    writer.close()
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    writer = JsonLinesWriter(tmp_path / "lines.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.write({"a": float("nan")})
    writer.close()
