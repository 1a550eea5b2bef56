"""Run commands of the program on a pretended device, each in a process of its own.

    python -m tests.device.rehearse KIND LIBRARY FOLDER

KIND is cuda or mps. Each line that is read is JSON, a name and the arguments of `paperbench`, or "stacked", an experiment, a folder
and overrides; the name is printed when that run has left NAME.json (record.py) and NAME.log in FOLDER. The processes are forked
from one that has imported everything, since that takes longer than most of the runs.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.device.patches import install
from tests.device.pretended import Mode
from tests.device.record import NO_GRADIENT, Record


def main() -> None:
    kind, library, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    import torch
    import torchvision  # asks the devices at import

    del torchvision
    record = Record([_source()])
    record.with_sites = bool(os.environ.get("SITES"))
    install(kind, library, record)
    torch.set_num_threads(1)
    _import_everything()
    _mark_steps(record)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            _rehearse(record, arguments, folder / name)
        os.waitpid(child, 0)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


def _source() -> Path:
    import paperbench

    return Path(paperbench.__file__).parent


def _import_everything() -> None:
    import paperbench

    for module in pkgutil.walk_packages(paperbench.__path__, "paperbench."):
        if not module.name.endswith("__main__") and "launchers" not in module.name and "ray" not in module.name:
            importlib.import_module(module.name)


def _mark_steps(record: Record) -> None:
    """Let the record know when a training step begins and ends."""
    from paperbench.engine import stacked_trainer, trainer

    def marked(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def step(*args: object, **kwargs: object) -> object:
            with record.step():
                return original(*args, **kwargs)

        setattr(owner, name, step)

    marked(trainer.Trainer, "_step")
    marked(stacked_trainer._Stack, "_step")
    build = trainer.Trainer.__init__

    def init(self: trainer.Trainer, **settings: Any) -> None:
        build(self, **settings)

        def note_missing(*_: object) -> None:
            for name, parameter in self.module.named_parameters():
                if parameter.requires_grad and parameter.grad is None:
                    record.note(NO_GRADIENT, name)

        self.optimizer.register_step_pre_hook(note_missing)

    trainer.Trainer.__init__ = init  # type: ignore[method-assign]


def _program(arguments: list[str]) -> int:
    from paperbench.__main__ import main

    sys.argv = ["paperbench", *arguments]
    main()
    return 0


def _stacked(experiment: str, folder: str, *overrides: str) -> int:
    """Do the job that a sweep of two seeds with `--stacked` gives to a worker, and return its exit code."""
    from paperbench.config.compose import compose
    from paperbench.engine.claims import prepare
    from paperbench.sweeps import worker

    runs = [Path(folder) / name for name in ("first", "second")]
    for seed, run in enumerate(runs):
        prepare(run, compose(experiment, [*overrides, f"seed={seed}"]).resolved)
    code = worker.main(["--threads", "1", *map(str, runs)], watch_parent=False)
    for run in runs:
        sys.stdout.write((run / "log.txt").read_text(encoding="utf-8"))
    return code


def _rehearse(record: Record, arguments: list[str], target: Path) -> None:
    log = os.open(target.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code, error = 1, ""
    try:
        with Mode():
            code = _stacked(*arguments[1:]) if arguments[0] == "stacked" else _program(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as failure:
        error = repr(failure)
        traceback.print_exc()
    record.write(target.with_suffix(".json"), code=code, error=error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
