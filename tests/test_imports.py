"""The rules of `docs/architecture.md` about who may import whom hold, and each of them can be broken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import paperbench
from paperbench.config.paths import shipped_conf
from tests import import_rules
from tests.import_rules import PACKAGE as OF_A_PACKAGE
from tests.import_rules import PARTS, RULES, Source

PACKAGE = Source(Path(paperbench.__file__).parent)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_holds(rule: Callable[[Source], Iterator[str]]) -> None:
    assert list(rule(PACKAGE)) == []


def test_the_source_was_read() -> None:
    assert len(PACKAGE.files) > 50
    assert "torch" in PACKAGE.reached("paperbench.detection.tasks.train")
    assert "paperbench.engine.rundir" in PACKAGE.reached("paperbench.cli.runlist")


# --- the document -----------------------------------------------------------------------------------------------------

ARCHITECTURE = (Path(__file__).parents[1] / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_document_says_what_is_tested() -> None:
    rows = [line.strip("| ").split(" | ") for line in ARCHITECTURE.splitlines() if line.startswith("| `")]
    written = {
        name: set(re.findall(r"`(\w+)`", allowed)) for names, allowed in rows for name in re.findall(r"\w+", names)
    }

    assert written == {part: allowed for part, allowed in PARTS.items() if part not in ("", "__main__")}
    (package,) = re.findall(r"\| a paper's package \| (.*), itself \|", ARCHITECTURE)
    assert set(re.findall(r"`(\w+)`", package)) == OF_A_PACKAGE


def test_the_document_shows_every_part_and_every_group_of_configurations() -> None:
    tree = ARCHITECTURE.partition("```\n")[2].partition("```")[0]
    drawn = set(re.findall(r"(?<!\S)(\w+(?:/|\.py|\.yaml))(?!\S)", tree))
    parts = {PACKAGE.part(file) for file in PACKAGE.files if file.parts[0] not in ("__init__.py", "__main__.py")}
    modules = {file.name for file in PACKAGE.files if len(file.parts) == 1 and not file.name.startswith("__")}

    assert drawn >= {f"{part}/" for part in parts if f"{part}.py" not in modules} | modules
    assert drawn >= {f"{folder.name}/" for folder in shipped_conf().iterdir() if folder.is_dir()}


# --- made-up trees ----------------------------------------------------------------------------------------------------

INNOCENT = {
    "__init__.py": "",
    "errors.py": "",
    "catalog.py": "TASK = 'paperbench.detection.task'\n",
    "config/_hydra.py": "import hydra\nfrom omegaconf import OmegaConf\n",
    "config/compose.py": "from omegaconf import OmegaConf\nfrom . import _hydra\n",
    "engine/__init__.py": "",
    "engine/files.py": '"""Small files. No torch here."""\nimport json\n',
    "engine/trainer.py": "import torch\nfrom paperbench.engine import files\n",
    "data/images.py": "import torch\nfrom paperbench.engine.files import write\n",
    "detection/__init__.py": "",
    "detection/task.py": "from paperbench.detection import boxes\nfrom paperbench.engine.trainer import Trainer\n",
    "detection/boxes.py": "import torch\n",
    "vae/task.py": "import paperbench.data.images\n",
    "sweeps/plan.py": '"""Imports no torch."""\nfrom paperbench.config import compose\n',
    "report/tables.py": "from paperbench.sweeps.plan import plan\n",
    "cli/app.py": (
        "import typer\nfrom typing import TYPE_CHECKING\nfrom paperbench.cli import guard\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def train():\n    import torch\n    from paperbench.engine import trainer\n"
    ),
    "cli/guard.py": "import json\n",
}


def tree(folder: Path, changed: Mapping[str, str] | None = None) -> Source:
    """The innocent tree, with some files changed."""
    for name, text in {**INNOCENT, **(changed or {})}.items():
        file = folder / "paperbench" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Source(folder / "paperbench")


def test_the_innocent_tree_breaks_no_rule(tmp_path: Path) -> None:
    source = tree(tmp_path)

    assert [sentence for rule in RULES for sentence in rule(source)] == []


@pytest.mark.parametrize(
    ("rule", "file", "text", "said"),
    [
        ("parts", "vae/task.py", "from paperbench.detection import boxes\n", "vae/task.py:1 imports paperbench.detection.boxes"),
        ("parts", "vae/task.py", "def f():\n    import paperbench.detection.boxes\n", "vae/task.py:2"),
        ("parts", "vae/task.py", "from ..detection.boxes import iou\n", "imports paperbench.detection.boxes"),
        ("parts", "vae/task.py", "from .. import detection\n", "imports paperbench.detection"),
        ("parts", "vae/task.py", "import importlib\nimportlib.import_module('paperbench.detection.boxes')\n", "vae/task.py:2"),
        ("parts", "vae/task.py", "from paperbench.report import tables\n", "vae may import catalog, config, data"),
        ("parts", "engine/trainer.py", "from paperbench.vae import task\n", "engine may import"),
        ("parts", "engine/trainer.py", "from paperbench.data.images import Images\n", "engine may import"),
        ("parts", "data/images.py", "from paperbench.detection.boxes import iou\n", "data may import"),
        ("parts", "config/compose.py", "from paperbench.engine import files\n", "config may import"),
        ("parts", "sweeps/plan.py", "from paperbench.report.tables import Table\n", "sweeps may import"),
        ("parts", "sweeps/plan.py", "from paperbench.vae.task import run\n", "sweeps may import"),
        ("parts", "report/tables.py", "from paperbench.cli.guard import emit\n", "report may import"),
        ("parts", "cli/guard.py", "from paperbench.vae import task\n", "cli may import"),
        ("parts", "catalog.py", "from paperbench.errors import ConfigError\n", "catalog may import nothing of the package"),
        ("hydra_in_one_module", "config/compose.py", "from hydra import compose\n", "config/_hydra.py alone may"),
        ("hydra_in_one_module", "vae/task.py", "def f():\n    from omegaconf import OmegaConf\n", "config/ alone may"),
        ("no_click", "cli/guard.py", "from click import echo\n", "cli/guard.py:1 imports click"),
        ("torch_late", "sweeps/plan.py", "import torch.nn\n", "sweeps/plan.py:1 imports torch.nn with the module"),
        ("torch_late", "report/tables.py", "try:\n    import torchvision\nexcept ImportError:\n    pass\n", "report/tables.py:2"),
        ("quick_start", "cli/app.py", "import yaml\n", "cli/app.py:1 imports yaml"),
        ("quick_start", "cli/guard.py", "from rich.table import Table\n", "cli/guard.py:1 imports rich.table"),
        ("quick_start", "__init__.py", "import numpy as np\n", "__init__.py:1 imports numpy"),
        ("promises", "engine/files.py", '"""No torch here."""\nfrom paperbench.engine import trainer\n', "engine/files.py"),
        ("no_circles", "engine/files.py", "from paperbench.engine import trainer\n", "engine.files -> paperbench.engine.trainer"),
        ("no_circles", "engine/files.py", "def f():\n    from paperbench.engine import trainer\n", "engine.files -> paperbench"),
        ("no_circles", "engine/files.py", "if TYPE_CHECKING:\n    import paperbench.engine.trainer\n",
         "paperbench.engine.trainer -> paperbench.engine.files: move what both need"),
        ("promises", "sweeps/plan.py", '"""Imports\nno torch."""\nfrom paperbench.vae import task\n', "sweeps/plan.py"),
    ],
)  # fmt: skip
def test_each_rule_can_be_broken(tmp_path: Path, rule: str, file: str, text: str, said: str) -> None:
    broken = list(getattr(import_rules, rule)(tree(tmp_path, {file: text})))

    assert broken
    assert all(said in sentence for sentence in broken)


def test_every_rule_is_shown_to_break() -> None:
    marks = [mark for mark in test_each_rule_can_be_broken.pytestmark if mark.name == "parametrize"]  # pyright: ignore
    shown = {case[0] for case in marks[0].args[1]}

    assert shown == {rule.__name__ for rule in RULES}
