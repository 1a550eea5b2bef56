"""Every error a user can meet, in one tree.

A message names the file, the value and the remedy. The command line prints it without a traceback (`--debug` shows it) and
leaves with the error's `exit_code`:

====  =======================================================
0     done
1     failed: the run itself went wrong
2     usage or configuration
3     stopped, and `paperbench resume` continues it
4     environment: disk, device, missing or damaged data
130   second Ctrl-C
====  =======================================================
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 3
EXIT_ENVIRONMENT = 4
EXIT_INTERRUPTED = 130


class PaperbenchError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = EXIT_FAILED


class ConfigError(PaperbenchError):
    """A command or configuration that cannot be run as written. Holds every mistake found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, *mistakes: str) -> None:
        if not mistakes:
            raise ValueError("ConfigError needs at least one mistake to name")
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


class TrainingError(PaperbenchError):
    """Training went wrong in a way that more of it would not mend, such as a loss that is not finite."""


class CheckpointError(PaperbenchError):
    """No checkpoint could be used, or the one that was asked for is damaged."""


class ExportError(PaperbenchError):
    """A model that was written for other programs does not compute what the run's own does; the file was removed."""


class EnvironmentError_(PaperbenchError):
    """The machine cannot do what was asked: a full disk, an absent device, a folder that cannot be written."""

    exit_code = EXIT_ENVIRONMENT


class DiskFullError(EnvironmentError_):
    """A file could not be written for want of space; whatever stood there before is untouched."""


class OutOfMemoryError(EnvironmentError_):
    """The memory of the device, or the machine's, is too small for the work; the message says what to lower."""


class DeviceError(EnvironmentError_):
    """The device failed, and cannot be used any more by this process."""


class RunLockedError(EnvironmentError_):
    """Another process is working in this run directory."""


class DataError(EnvironmentError_):
    """Data that are missing, damaged, or contradict themselves. Names the file and the object in it."""


class Stopped(PaperbenchError):
    """Not a failure: the run was asked to stop, saved its state and can be resumed."""

    exit_code = EXIT_STOPPED
