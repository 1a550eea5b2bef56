"""Settings of a launcher: its file, the user's own, the command line, and mistakes in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.config.paths import search_path
from paperbench.errors import ConfigError
from paperbench.sweeps.launchers.base import REGISTRY, launcher_class
from paperbench.sweeps.launchers.local import LocalSettings
from paperbench.sweeps.launchers.settings import compose_settings, split
from tests.user_folder import write


def test_overrides_of_the_launcher_are_told_from_the_others() -> None:
    texts = ["seed=1", "launcher.start=fork", "+launcher.x=1", "launchers=2", "launcher=slurm", "~launcher.y"]
    assert split(texts) == (
        ["launcher.start=fork", "+launcher.x=1", "launcher=slurm", "~launcher.y"],
        ["seed=1", "launchers=2"],
    )


@pytest.mark.parametrize("name", REGISTRY)
def test_the_shipped_file_is_the_schema_s_own_values(name: str) -> None:
    assert compose_settings(name, [], search_path()) == launcher_class(name).Settings()
    assert launcher_class(name).DEFAULT_JOBS >= 1


def test_file_and_command_line(tmp_path: Path) -> None:
    write(tmp_path / "conf/launcher/local.yaml", "start: fresh\n")
    assert compose_settings("local", [], search_path()) == LocalSettings(start="fresh")
    assert compose_settings("local", ["launcher.start=fork"], search_path()) == LocalSettings(start="fork")


def test_every_mistake_at_once() -> None:
    texts = [
        "launcher.strat=fork",
        "launcher.start=frok",
        "launcher=local",
        "launcher.start=a,b",
        "~launcher.start",
        "launcher.start",
    ]
    with pytest.raises(ConfigError) as caught:
        compose_settings("local", texts, search_path())
    said = "\n".join(caught.value.mistakes)
    assert len(caught.value.mistakes) == 6
    for expected in (
        'launcher.strat: no such key (given as "launcher.strat=fork"). Nearest: launcher.start (now auto)',
        "launcher.start: expected one of auto, fork, fresh, given frok",
        "launcher=local: the launcher is chosen with --launcher",
        "launcher.start=a,b: a sweep has one launcher; give one value",
        "~launcher.start: a setting cannot be deleted",
        "launcher.start: not an override",
    ):
        assert expected in said
    with pytest.raises(ConfigError, match="given twice"):
        compose_settings("local", ["launcher.start=fork", "launcher.start=fresh"], search_path())


def test_mistakes_in_a_file_name_it(tmp_path: Path) -> None:
    file = write(tmp_path / "conf/launcher/local.yaml", "start: frok\n")
    with pytest.raises(ConfigError, match=r"\(in conf/launcher/local\.yaml:1\)"):
        compose_settings("local", [], search_path())
    file.write_text("- fork")
    with pytest.raises(ConfigError, match=r"conf/launcher/local\.yaml: expected keys and values"):
        compose_settings("local", [], search_path())
    file.write_text("start: [")
    with pytest.raises(ConfigError, match=r"conf/launcher/local\.yaml: cannot be read"):
        compose_settings("local", [], search_path())


def test_an_unknown_launcher() -> None:
    with pytest.raises(ConfigError, match=r"--launcher slrm: no such launcher\. Nearest: slurm"):
        launcher_class("slrm")
