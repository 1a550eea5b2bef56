"""What `import paperbench` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import resources

import pytest

import paperbench
from tests.api import public


def test_importing_it_loads_neither_torch_nor_anything_else_that_is_slow() -> None:
    code = (
        "import paperbench, sys; dir(paperbench); "
        "print(*sorted({'torch', 'hydra', 'pydantic', 'numpy', 'rich', 'yaml'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_listing_runs_loads_no_torch(tmp_path: object) -> None:
    code = f"import paperbench, sys; paperbench.runs(root={str(tmp_path)!r}); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_public_names_and_signatures_are_those_of_the_list() -> None:
    """A change is deliberate: renew docs/api.txt with `python -m tests.api.public`, and say so in the CHANGELOG."""
    assert public.listing() == public.FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in paperbench.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(paperbench, name)
    assert inspect.getdoc(value), name
    if callable(value):
        assert len(inspect.getdoc(value) or "") > 20


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'trian'.*train"):
        paperbench.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_marker_of_types_ships() -> None:
    assert resources.files("paperbench").joinpath("py.typed").is_file()
