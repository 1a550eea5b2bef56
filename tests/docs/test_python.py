"""The Python of the documents runs from top to bottom, each document in a process and a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("document", ["README.md", "docs/python.md", "docs/transformer.md"])
def test_the_examples_run_in_their_order(document: str, tmp_path: Path) -> None:
    script = tmp_path / "examples.py"
    script.write_text("\n\n".join(blocks(document)), encoding="utf-8")

    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_walk_uses_every_public_name() -> None:
    import paperbench

    text = "\n".join(blocks("docs/python.md"))
    classes = {"Run", "Runs", "Sweep", "Reproduction"}
    unused = [name for name in paperbench.__all__ if not re.search(rf"\b{name}\b", text)]
    assert set(unused) <= classes | {"__version__", "soft_loss", "logit_matching", "elbo_analytic", "resume"}
