"""What packages declare, collected: our own and installed ones, and what is said of one that cannot be used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench import __version__, catalog
from paperbench.catalog import DATASETS, TASKS, Names
from paperbench.cli import listing
from paperbench.cli.app import app
from paperbench.config import paths, validate
from paperbench.engine.task import task_module
from paperbench.errors import ConfigError
from paperbench.report import published
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
            path = file.replace("__", "/").replace("_yaml", ".yaml")
            write(tmp_path / name / (path if path.endswith(".yaml") else f"{path}.py"), content)
        info = tmp_path / f"{name}-1.2.dist-info"
        write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        write(info / "entry_points.txt", f"[paperbench.packages]\n{name} = {name}.catalog:PACKAGE\n")
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
        importlib.invalidate_caches()
        forget()

    yield do
    catalog._collect.cache_clear()
    paths._of_packages.cache_clear()


@pytest.fixture
def forget_papers() -> Iterator[None]:
    """Published numbers are read anew in the test, and again after it."""
    cached = (published.statements, published.all_published, published._readable, published._tables)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


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


def left_out(said: str) -> str:
    """The installed package is no part of the catalog; return the notice about it, which says why."""
    (notice,) = catalog.notices()
    assert notice.startswith("package wobble (wobble 1.2) is left out, ")
    assert said in notice
    assert "wobble-train" not in catalog.TASKS
    return notice


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

    notice = left_out(said)
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


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("METRICS = 'nonsense'\n", "METRICS"),
        ("METRICS = ('wobble/error',)\n", "'wobble/error'"),
        ("", "METRICS"),
        ("from paperbench.catalog import MetricSpec\nMETRICS = (MetricSpec(name='w', meaning='m', direction='up'),)\n", "'up'"),
        ("from paperbench.catalog import MetricSpec\nMETRICS = (MetricSpec(name='w', meaning='m', format='.1q'),)\n", "'.1q'"),
        ("from paperbench.catalog import MetricSpec\nMETRICS = (MetricSpec(name='w', meaning=3),)\n", "meaning"),
        ("from paperbench.catalog import MetricSpec\nMETRICS = (MetricSpec(name='w', meaning='m'),) * 2\n", "twice"),
    ],
    ids=["text", "names", "none", "direction", "format", "meaning", "twice"],
)  # fmt: skip
def test_metrics_that_cannot_be_shown_are_named(install: Install, metrics: str, said: str) -> None:
    install("wobble", WOBBLE, metrics=metrics)

    (notice,) = catalog.notices()
    assert "wobble.metrics" in notice
    assert said in notice
    assert "wobble-train" not in catalog.TASKS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WOBBLE.replace('name="wobble"', 'name="stn"'), "package stn"),
        (WOBBLE.replace("papers=()", "papers=('wobble-paper',)"), "'wobble-paper'"),
        (WOBBLE.replace("papers=()", "papers=MODELS"), "papers"),
        (WOBBLE.replace('summary="wobbles"', "summary=None"), "summary"),
        (WOBBLE.replace('"wobble.task:Config"', '"wobble.task"'), "schema"),
        (WOBBLE.replace('name="wobble"', 'name=""'), "name"),
        (WOBBLE.replace('conf="conf"', "conf=None"), "conf"),
        (WOBBLE + "from dataclasses import replace\nPACKAGE = replace(PACKAGE, tasks=PACKAGE.tasks * 2)\n", "twice"),
    ],
    ids=["taken", "no spec", "no tuple", "no text", "no class", "no name", "conf", "twice"],
)
def test_a_declaration_of_the_wrong_kind_is_named(install: Install, text: str, said: str) -> None:
    install("wobble", text)

    left_out(said)


def test_of_two_installed_packages_of_one_name_the_second_is_named(install: Install) -> None:
    install("wobble", WOBBLE, conf__experiment__wobble_yaml="# @package _global_\ntask: wobble-train\n")
    install("zigzag", WOBBLE.replace("wobble-train", "zigzag-train"))

    (notice,) = catalog.notices()
    assert notice.startswith("package zigzag (zigzag 1.2) is left out, ")
    assert "package wobble is wobble 1.2's" in notice


PAPER = 'papers=(PaperSpec(name="wobble", title="W", authors="A", venue="V", url="https://example.org"),)'
WITH_PAPER = WOBBLE.replace("papers=()", PAPER)
NUMBERS = """\
paper: wobble
source: "W"
tables:
  - table: table1
    caption: c
    unit: percent
    direction: lower
    sample: s
    tolerance: 1.0
    rows:
      - {row: r, values: {error: 3.0}, unreproduced: "nothing here"}
"""


def test_a_package_may_have_published_numbers_alone(install: Install, forget_papers: None) -> None:
    install("wobble", WITH_PAPER, conf__paper__wobble_yaml=NUMBERS)

    assert paths.notices() == ()
    assert published.find("wobble", "table1", "r", "error").value == 3.0


@pytest.mark.parametrize("content", ["paper: [unclosed\n", "paper: wobble\n", NUMBERS.replace("3.0", "many")])
def test_published_numbers_that_cannot_be_read_are_named_and_the_rest_goes_on(
    install: Install, forget_papers: None, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    install("wobble", WITH_PAPER, conf__paper__wobble_yaml=content)
    monkeypatch.setattr(listing, "PAPERS", catalog.PAPERS)

    listed = CliRunner().invoke(app, ["ls", "papers"])
    assert listed.exit_code == 0, listed.stderr
    assert "wobble.yaml" in listed.stderr
    assert "package wobble" in listed.stderr
    assert "faster-rcnn" in listed.stdout
    assert published.matching({"experiment": "vae"}) is not None
    made = CliRunner().invoke(app, ["reproduce"])
    assert made.exit_code == 0, made.stderr
    assert "vae/" in made.stdout


def test_a_paper_without_a_file_is_listed_without_numbers(
    install: Install, forget_papers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wobble", WITH_PAPER)
    monkeypatch.setattr(listing, "PAPERS", catalog.PAPERS)

    listed = CliRunner().invoke(app, ["ls", "papers"])
    assert listed.exit_code == 0, listed.stderr
    assert "wobble" in listed.stdout


@pytest.mark.parametrize("schema", ["bad:X", "wobble.task:X", "wobble.task:numbers"])
def test_a_schema_that_cannot_be_loaded_names_the_package(install: Install, schema: str) -> None:
    text = WOBBLE.replace('"wobble.task:Config"', f'"{schema}"')
    install("wobble", text, task="numbers = 3\n")

    with pytest.raises(ConfigError, match=rf"task wobble-train of package wobble \(wobble 1.2\).*{schema}"):
        validate.schema_of(catalog.TASKS["wobble-train"])


def test_a_module_that_cannot_be_loaded_names_the_package(install: Install) -> None:
    install("wobble", WOBBLE, task="import nonsense_of_nobody\n")

    with pytest.raises(ConfigError, match=r"task wobble-train of package wobble.*nonsense_of_nobody"):
        task_module(catalog.TASKS["wobble-train"])
