"""The device and the precision of a run."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import torch

from paperbench.errors import ConfigError, EnvironmentError_

_FIRST_WITH_TF32 = 8
"""Major compute capability: Ampere."""


def resolve(name: str, *, local_rank: int = 0, nproc: int = 1) -> torch.device:
    """The device called `auto`, `cpu`, `cuda`, `cuda:<k>` or `mps`; with several processes, that of `local_rank`.

    `auto` is CUDA, else the CPU: MPS was rehearsed and never run, so it is taken on request alone. Raises
    `EnvironmentError_` when the machine lacks the device and `ConfigError` when several processes would share one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise EnvironmentError_("device=mps: this machine has no Apple GPU that torch can use; take device=cpu")
        if nproc > 1:
            raise ConfigError(f"nproc={nproc}: device=mps is one device; use nproc=1 or device=cpu")
        return torch.device("mps")
    if kind != "cuda":
        raise ConfigError(f"device={name} is unknown; choose auto, cpu, cuda, cuda:<k> or mps")
    if not torch.cuda.is_available():
        raise EnvironmentError_(
            f"device={name}: torch finds no CUDA GPU here; take device=cpu, or install torch with CUDA"
        )
    if nproc > 1 and index:
        raise ConfigError(f"device={name} names one GPU for nproc={nproc} processes; use device=cuda")
    chosen = int(index) if index else local_rank
    count = torch.cuda.device_count()
    if chosen >= count:
        what = f"nproc={nproc} needs {nproc} GPUs" if nproc > 1 else f"device={name} does not exist"
        raise EnvironmentError_(f"{what}: this machine has {count} (cuda:0 to cuda:{count - 1})")
    device = torch.device("cuda", chosen)
    torch.cuda.set_device(device)
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return `float32`, `tf32` or `bfloat16`; `auto` is bfloat16 where the device has instructions for it, else float32.

    Raises `ConfigError` for TF32 on anything but a GPU by NVIDIA, and `EnvironmentError_` for one that lacks what is asked for.
    """
    if name == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EnvironmentError_(
            f"precision=bfloat16: {torch.cuda.get_device_name(device)} lacks it; take precision=float32"
        )
    if name == "tf32":
        if device.type != "cuda":
            raise ConfigError(f"precision=tf32: device={device} has no TF32; take precision=float32 or device=cuda")
        if torch.version.hip or torch.cuda.get_device_capability(device)[0] < _FIRST_WITH_TF32:
            raise EnvironmentError_(
                f"precision=tf32: {torch.cuda.get_device_name(device)} lacks it; take precision=float32"
            )
    return name


def has_bfloat16(device: torch.device) -> bool:
    """Return True if `device` multiplies bfloat16 in hardware; emulation, which is slower than float32, does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    flags = _cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> frozenset[str]:
    """Instruction sets that Linux lists for the first processor (`bf16` is 64-bit ARM's name); empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Context in which operations that gain from it run in `precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def where_float64(values: torch.Tensor) -> torch.Tensor:
    """Return `values` on a device that has float64: as they are, or on the host, since Apple's GPUs have none."""
    return values.cpu() if values.device.type == "mps" else values


def as_float64(values: torch.Tensor) -> torch.Tensor:
    """Return `values` in float64, on the host where their own device has none."""
    return where_float64(values).double()


def describe(device: torch.device) -> str:
    """The name of the device, for the opening panel and results.json."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def describe_gpu(device: torch.device) -> dict[str, str | None] | None:
    """Return the names and versions behind CUDA on this machine, for env.json; None for another device."""
    if device.type != "cuda":
        return None
    return {
        "name": torch.cuda.get_device_name(device),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "driver": _driver_version(),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": str(torch.backends.cudnn.version()),
    }


def _driver_version() -> str | None:
    """Return the version of NVIDIA's driver, as its own tool says it."""
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)


def keep_freed_memory() -> None:
    """Make glibc retain freed memory instead of returning it to the kernel after every step; elsewhere do nothing.

    The activations of a step are freed and allocated again in the next one. By default blocks of some hundred KiB and more
    come fresh from the kernel each time, which has to clear every page.
    """
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, 1 << 30)


def keep_compiled_kernels() -> None:
    """Raise oneDNN's limit of cached kernels; this takes effect in a process that has not used oneDNN yet.

    A convolution is three kernels, each compiled for the exact shape of its input. Photographs come in dozens of sizes, so a
    net of 26 layers soon passes oneDNN's limit of 1,024 and compiles the same kernels again and again. A limit that the user
    has set stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
