"""Choosing device and precision, on machines that this one may not be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paperbench.engine import device as devices
from paperbench.errors import ConfigError, EnvironmentError_

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a CPU alone, to be changed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def with_gpus(machine: pytest.MonkeyPatch, count: int) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: count)


def test_a_cpu_alone(machine: pytest.MonkeyPatch) -> None:
    assert devices.resolve("auto") == devices.resolve("cpu") == CPU
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(EnvironmentError_, match=f"device={name}: .*take device=cpu") as caught:
            devices.resolve(name)
        assert caught.value.exit_code == 4
    with pytest.raises(ConfigError, match="choose auto, cpu"):
        devices.resolve("tpu")


def test_gpus(machine: pytest.MonkeyPatch) -> None:
    with_gpus(machine, 2)
    assert devices.resolve("auto") == devices.resolve("cuda") == torch.device("cuda", 0)
    assert devices.resolve("cuda:1") == torch.device("cuda", 1)
    assert [devices.resolve("cuda", local_rank=rank, nproc=2).index for rank in (0, 1)] == [0, 1]
    with pytest.raises(
        EnvironmentError_, match=r"device=cuda:2 does not exist: this machine has 2 \(cuda:0 to cuda:1\)"
    ):
        devices.resolve("cuda:2")
    with pytest.raises(EnvironmentError_, match="nproc=3 needs 3 GPUs"):
        devices.resolve("auto", local_rank=2, nproc=3)
    with pytest.raises(ConfigError, match="names one GPU for nproc=2"):
        devices.resolve("cuda:0", nproc=2)


def test_an_apple_gpu_is_one_device(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.resolve("auto").type == "cpu"
    assert devices.resolve("mps").type == "mps"
    assert devices.resolve("auto", nproc=2) == CPU
    with pytest.raises(ConfigError, match="use nproc=1"):
        devices.resolve("mps", nproc=2)
    assert devices.resolve_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "bfloat16"),
        ("flags : fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", "float32"),
        ("model name : avx512_bf16\nflags : fpu\n", "float32"),
        (None, "float32"),
    ],
)
def test_auto_precision_follows_the_instructions(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, precision: str
) -> None:
    def read_text(self: Path, **_: object) -> str:
        assert str(self) == "/proc/cpuinfo"
        if cpuinfo is None:
            raise FileNotFoundError
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    assert devices.resolve_precision("auto", CPU) == precision
    assert devices.resolve_precision("float32", CPU) == "float32"
    assert devices.resolve_precision("bfloat16", CPU) == "bfloat16"


def test_autocast() -> None:
    a = torch.ones(2, 2)
    with devices.autocast(CPU, "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16
    with devices.autocast(CPU, "float32"):
        assert (a @ a).dtype == torch.float32


CAPACITY = """
import os, torch
from paperbench.engine.device import keep_compiled_kernels
keep_compiled_kernels()
print(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
"""


@pytest.mark.parametrize(("given", "kept"), [(None, 16384), ("7", 7)])
def test_the_limit_of_compiled_kernels_is_raised_unless_the_user_has_set_one(given: str | None, kept: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    environment |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": given} if given else {}
    done = subprocess.run([sys.executable, "-c", CAPACITY], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == kept
