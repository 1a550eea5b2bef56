"""What a Ray worker does with a job, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paperbench.sweep.launchers import ray_task


def test_the_run_is_asked_once_however_often_the_task_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Interrupted:
        """A child that saves while its keeper is interrupted three times."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.waits = 0

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> int:
            self.waits += 1
            if self.waits <= 3:
                raise KeyboardInterrupt
            return 3

        def stop(self) -> None:
            asked.append(self.waits)

    monkeypatch.setattr(ray_task, "Child", Interrupted)
    assert ray_task.work(["DIR"], str(tmp_path), {}) == 3
    assert asked == [1]
