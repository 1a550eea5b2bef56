"""OpenMP's threads sleep at barriers where other processes need the cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperbench.engine.waiting import POLICY, let_threads_yield


@pytest.mark.parametrize(("running", "yields"), [(1, False), (2, True), (7, True)])
def test_threads_yield_where_others_are_running(tmp_path: Path, running: int, yields: bool) -> None:
    file = tmp_path / "stat"
    file.write_text(f"cpu  1 2 3\nprocesses 9\nprocs_running {running}\nprocs_blocked 0\n")
    environment: dict[str, str] = {}

    assert let_threads_yield(environment, file) is yields
    assert environment == ({POLICY: "PASSIVE"} if yields else {})


def test_a_system_that_does_not_count_them_keeps_its_default(tmp_path: Path) -> None:
    environment: dict[str, str] = {}

    assert not let_threads_yield(environment, tmp_path / "none")
    assert environment == {}


@pytest.mark.parametrize(
    ("theirs", "yields"), [({POLICY: "active"}, False), ({POLICY: "passive"}, True), ({"GOMP_SPINCOUNT": "0"}, False)]
)
def test_what_the_user_has_set_stays(tmp_path: Path, theirs: dict[str, str], yields: bool) -> None:
    file = tmp_path / "stat"
    file.write_text("procs_running 7\n")
    environment = dict(theirs)

    assert let_threads_yield(environment, file) is yields
    assert environment == theirs
