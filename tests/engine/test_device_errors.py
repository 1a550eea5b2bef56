"""A GPU that failed and memory that ran out end the run with their reason, whatever the task does with the errors of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.engine import launch
from paperbench.engine.device_errors import explained, is_device_error
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.rundir import RunDirectory
from paperbench.errors import DataError, DeviceError, DiskFullError, OutOfMemoryError
from paperbench.rca.cases import reason
from tests.engine import toy

OUT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.68 GiB of which 1.20 GiB is free. "
    "Including non-PyTorch memory, this process has 22.46 GiB memory in use."
)
FAILED = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API call"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(OUT), OutOfMemoryError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), OutOfMemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), OutOfMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
        (torch.AcceleratorError(FAILED), DeviceError),
        (RuntimeError(FAILED), DeviceError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (RuntimeError("NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"), None),
        (DiskFullError("no space"), None),
        (ValueError("CUDA error"), None),
    ],
)  # fmt: skip
def test_the_kinds(error: Exception, expected: type[Exception] | None) -> None:
    assert type(explained(error)) is (expected or type(None))


def test_what_can_be_lowered_is_named() -> None:
    config = {
        "seed": 1,
        "train": {"batch_size": 128, "samples": 7},
        "evaluation": {"batch_size": 500},
        "data": {"side": 600, "max_train_images": 10},
    }
    assert str(explained(torch.OutOfMemoryError(OUT), config, stacked=4)) == (
        "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.68 GiB of which "
        "1.20 GiB is free; lower train.batch_size (now 128), evaluation.batch_size (now 500), data.side (now 600) or the 4 "
        "stacked runs (fewer of them, or without --stacked), or run fewer --jobs at a time"
    )


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (torch.OutOfMemoryError(OUT), OutOfMemoryError, r"Tried to allocate 2\.00 GiB.*lower train\.batch_size \(now 4\)"),
        (torch.AcceleratorError(FAILED), DeviceError, "the device failed: CUDA error: device-side assert triggered; "),
    ],
)  # fmt: skip
def test_a_step_that_raises_one(
    error: Exception, kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    toy.register(monkeypatch)
    monkeypatch.setattr(toy.Toy, "forward", fail)
    with pytest.raises(kind, match=said):
        launch.start(toy.config(), run_dir=tmp_path / "run", reporter=SilentReporter())
    status = RunDirectory.open(tmp_path / "run").status()
    assert (status["state"], status["error"], status["exit_code"]) == ("failed", kind.__name__, 4)
    assert "Traceback" not in status["message"]
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [torch.AcceleratorError(FAILED), torch.OutOfMemoryError(OUT), DeviceError("failed")])
def test_an_error_of_the_device_is_no_reason_of_a_case(error: Exception) -> None:
    assert is_device_error(error)
    with pytest.raises(type(error)):
        reason(error)
    assert reason(DataError("a.nii: damaged")) == "a.nii: damaged"
    assert reason(RuntimeError("singular")) == "RuntimeError: singular"
