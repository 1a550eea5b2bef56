"""The program from Python; `import paperbench` gives these names. Imports no torch until something runs."""

from paperbench.api.commands import estimate, evaluate, load, reproduce, resume, runs, sweep, train
from paperbench.api.run import Config, History, Predictions, Run, Runs
from paperbench.api.tables import Reproduction, Sweep

__all__ = [
    "Config",
    "History",
    "Predictions",
    "Reproduction",
    "Run",
    "Runs",
    "Sweep",
    "estimate",
    "evaluate",
    "load",
    "reproduce",
    "resume",
    "runs",
    "sweep",
    "train",
]
