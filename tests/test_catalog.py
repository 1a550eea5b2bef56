"""What packages declare, collected: our own and installed ones, and what is said of one that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench import __version__, catalog
from paperbench.catalog import DATASETS, TASKS, Names
from paperbench.cli.app import app
from paperbench.config import paths
from tests.user_folder import write

Install = Callable[..., None]

WOBBLE = """
from paperbench.catalog import *
PACKAGE = Package(
    name="wobble", program=("0", ""), conf="conf", papers=(),
    tasks=(TaskSpec(name="wobble-train", verb="train", summary="wobbles", schema="wobble.task:Config",
                    module="wobble.task", datasets=("mnist",)),),
)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of that name with this catalog; what was collected before is forgotten, before and after."""
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh = {kind: Names(kind) for kind in ("tasks", "models", "datasets", "papers")}

    def forget() -> None:
        catalog._collect.cache_clear()
        paths._of_packages.cache_clear()
        for names in fresh.values():
            names._specs = None

    for kind, names in fresh.items():
        monkeypatch.setattr(catalog, kind.upper(), names)

    def do(name: str, text: str, **files: str) -> None:
        write(tmp_path / name / "__init__.py", "")
        write(tmp_path / name / "catalog.py", text)
        for file, content in files.items():
            write(tmp_path / name / file.replace("__", "/").replace("_yaml", ".yaml"), content)
        info = tmp_path / f"{name}-1.2.dist-info"
        write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        write(info / "entry_points.txt", f"[paperbench.packages]\n{name} = {name}.catalog:PACKAGE\n")
        sys.modules.pop(name, None)
        sys.modules.pop(f"{name}.catalog", None)
        forget()

    yield do
    catalog._collect.cache_clear()
    paths._of_packages.cache_clear()


def test_our_own_packages_are_collected_without_an_entry_point() -> None:
    ours = [item.package.name for item in catalog.packages() if item.own]

    assert ours == ["data", "detection", "distill", "rca", "stn", "vae"]
    assert len(TASKS) >= 20
    assert set(DATASETS["mnist"].tasks) >= {"vae-train", "distill", "stn-mnist"}


def test_our_own_packages_are_declared_by_the_same_door() -> None:
    import tomllib

    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    declared = tomllib.loads(text)["project"]["entry-points"]["paperbench.packages"]

    assert declared == {item.package.name: f"{item.module}.catalog:PACKAGE" for item in catalog.packages() if item.own}


def test_an_installed_package_belongs_to_the_catalog(install: Install) -> None:
    install("wobble", WOBBLE, conf__experiment__wobble_yaml="# @package _global_\ntask: wobble-train\n")

    assert catalog.notices() == paths.notices() == ()
    assert catalog.packages()[-1].source == "wobble 1.2"
    assert catalog.TASKS["wobble-train"].summary == "wobbles"
    assert "wobble-train" in catalog.DATASETS["mnist"].tasks
    assert paths.installed_confs()[0].parent.name == "wobble"
    assert "wobble" in paths.options("experiment", paths.search_path())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import nonsense_of_nobody\n",
            "cannot be imported: ModuleNotFoundError: No module named 'nonsense_of_nobody'",
        ),
        ("PACKAGE = 3\n", "wobble.catalog:PACKAGE is no paperbench.catalog.Package"),
        ("", "AttributeError"),
        (
            WOBBLE.replace('("0", "")', '("0.2", "0.3")'),
            f"made for paperbench 0.2 up to 0.3, and this is {__version__}",
        ),
        (WOBBLE.replace("wobble-train", "vae-train"), "claims names that are taken: task vae-train is vae's"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_and_the_rest_goes_on(install: Install, text: str, said: str) -> None:
    install("wobble", text)

    (notice,) = catalog.notices()
    assert notice.startswith("package wobble (wobble 1.2) is left out, ")
    assert said in notice
    assert "wobble-train" not in catalog.TASKS
    assert "vae-train" in catalog.TASKS

    listed = CliRunner().invoke(app, ["ls", "tasks"])
    assert listed.exit_code == 0
    assert f"note: {notice}" in listed.stderr
    assert "vae-train" in listed.stdout
    assert "package wobble" in CliRunner().invoke(app, ["doctor"]).output.replace("\n", " ")


def test_of_two_installed_packages_that_claim_a_name_the_first_has_it(install: Install) -> None:
    install("wobble", WOBBLE)
    install("zigzag", WOBBLE.replace('name="wobble"', 'name="zigzag"'))

    assert [item.package.name for item in catalog.packages() if not item.own] == ["wobble"]
    assert "task wobble-train is wobble's" in catalog.notices()[0]


def test_configurations_with_a_name_that_is_taken_are_left_out(install: Install) -> None:
    install("wobble", WOBBLE, conf__experiment__vae_yaml="# @package _global_\ntask: wobble-train\n")

    assert paths.installed_confs() == (paths.shipped_conf(),)
    assert "experiment/vae.yaml is paperbench's" in paths.notices()[0]


def test_declarations_load_nothing_slow() -> None:
    code = "import sys, paperbench.catalog as c; len(c.TASKS); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "paperbench.stn.catalog" in loaded
    assert not {"torch", "hydra", "pydantic", "numpy", "yaml"} & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize(
    "catalog_text",
    [
        "import sys\nsys.exit(5)\n",
        WOBBLE.replace('program=("0", "")', 'program="0.1"'),
        WOBBLE.replace("papers=()", "papers=None"),
    ],
    ids=["leaves", "version as text", "no papers"],
)
def test_whatever_a_package_does_the_program_goes_on(install: Install, catalog_text: str) -> None:
    install("wobble", catalog_text)

    assert any("package wobble" in notice for notice in catalog.notices())
    assert "vae-train" in catalog.TASKS
    assert "wobble-train" not in catalog.TASKS
