"""The C++ half of the pretended device: built once, loaded into each process that rehearses."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import torch

KNOWN = ("2.15",)
"""Versions of torch whose table of hooks guard.cpp was seen to fit."""

SOURCE = Path(__file__).with_name("guard.cpp")


def why_not() -> str | None:
    """Return why no device can be pretended here, or None if one can."""
    if platform.system() != "Linux":
        return "the guard is written for Linux"
    if shutil.which("g++") is None:
        return "g++ is missing"
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA: it has no list of CUDA's operators"
    if torch.cuda.is_available():
        return "a real GPU is here"
    if not torch.__version__.startswith(tuple(f"{version}." for version in KNOWN)):
        return f"guard.cpp was tried with torch {', '.join(KNOWN)}, not with {torch.__version__}"
    return None


def build(target: Path) -> None:
    """Compile guard.cpp against torch's headers to the library `target`."""
    folder = Path(torch.__file__).parent
    command = [
        "g++",
        "-O0",
        "-std=c++20",
        "-shared",
        "-fPIC",
        f"-I{folder / 'include'}",
        str(SOURCE),
        "-o",
        str(target),
    ]
    libraries = [f"-L{folder / 'lib'}", "-lc10", "-ltorch_cpu"]
    subprocess.run([*command, *libraries], check=True, capture_output=True, text=True)


def load(library: Path, kind: str) -> None:
    """Make this process's torch believe in one device of `kind`, cuda or mps."""
    getattr(ctypes.CDLL(str(library)), f"pretend_{kind}")()
