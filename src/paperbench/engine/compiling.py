"""`torch.compile` where it works and saves time, and plain PyTorch everywhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, Literal

import torch

Setting = Literal["auto", "on", "off"]


def has_compiler() -> bool:
    """Return True if there is a C++ compiler, which kernels for a CPU are built with."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


def should_compile(setting: Setting, *, device: torch.device, steps: int, worth_it_from: int) -> bool:
    """Return True if what runs for `steps` steps is to be compiled.

    `auto`: on a CPU with a compiler, from `worth_it_from` steps on, where compiling saves more time than it takes.
    """
    if setting == "auto":
        return device.type == "cpu" and steps >= worth_it_from and has_compiler()
    return setting == "on"


class CompiledFunction:
    """`function` through `torch.compile`; if that fails at the first call, `function` itself from then on, with a report of
    the reason.

    For functions without side effects, of tensors whose shapes stay the same.
    """

    def __init__(self, function: Callable[..., Any], *, report: Callable[[str], None]) -> None:
        self._function = function
        self._current: Callable[..., Any] = torch.compile(function, dynamic=False)
        self._report = report
        self._works = False

    def __call__(self, *args: Any) -> Any:
        if self._works:
            return self._current(*args)
        try:
            result = self._current(*args)
        except Exception as error:
            # What can go wrong reaches from a missing header to a compiler's own crash. An error of the function itself
            # comes up again in the next line.
            self._current = self._function
            result = self._function(*args)
            first = str(error).strip().splitlines()
            self._report(
                f"torch.compile failed ({type(error).__name__}: {first[0] if first else ''}); going on without it"
            )
        self._works = True
        return result
