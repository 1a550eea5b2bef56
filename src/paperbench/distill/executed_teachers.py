"""Teachers in files that hold the net itself: TorchScript, run by torch, and ONNX, run by onnxruntime. Nothing is unpickled."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from paperbench.engine.zips import ZIP_FAULTS
from paperbench.errors import DataError, EnvironmentError_

_ASKED: Final = 2
"""Images that a net is asked about before it is believed."""
Call = Callable[[Tensor], Any]


class ExecutedTeacher(nn.Module):
    """(B, D) flat images of `size` (C, H, W), in 0..1 -> (B, K) what the net in a file answers, in float32.

    flat: the net takes (B, D) instead of (B, C, H, W). as_bytes: it takes bytes. fixed: its batch size, 0 for any.
    probabilities: it answers probabilities, whose logarithms are returned.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        call: Call,
        *,
        size: tuple[int, int, int],
        flat: bool = False,
        as_bytes: bool = False,
        fixed: int = 0,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.call = call
        self.size = size
        self.flat = flat
        self.as_bytes = as_bytes
        self.fixed = fixed
        self.probabilities = probabilities
        for name, value in (("mean", 0.0), ("std", 1.0)):
            self.register_buffer(name, torch.full((size[0], 1, 1), value))

    def normalise(self, mean: Any, std: Any) -> None:
        """Set the normalisation of the pixels: a number, or one for each channel."""
        for buffer, value in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.as_tensor(value, dtype=buffer.dtype).reshape(-1, 1, 1).expand_as(buffer))

    def forward(self, x: Tensor) -> Tensor:
        images = (x.unflatten(-1, self.size) - self.mean) / self.std
        if self.as_bytes:
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        if self.flat:
            images = images.flatten(1)
        parts = images.split(self.fixed) if self.fixed else (images,)
        answers = torch.cat([self._answer(part) for part in parts]).float().to(x.device)
        return answers.clamp(min=1e-12).log() if self.probabilities else answers

    def _answer(self, images: Tensor) -> Any:
        count = len(images)
        if self.fixed and count < self.fixed:
            images = torch.cat([images, images[-1:].expand(self.fixed - count, *images.shape[1:])])
        answer = self.call(images)
        if isinstance(answer, list | tuple) and len(answer) == 1:
            answer = answer[0]
        return answer[:count] if isinstance(answer, Tensor) else answer


def is_executed(path: Path) -> bool:
    """Return True for an ONNX file by its name, and for a TorchScript archive by its content."""
    if path.suffix.lower() == ".onnx":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, *ZIP_FAULTS):
        return False


def load(path: Path, *, size: tuple[int, int, int], classes: int, probabilities: bool) -> ExecutedTeacher:
    """Return the net in a file, after it answered two images. Raises DataError naming what does not fit, and
    EnvironmentError_ where onnxruntime is not installed."""
    if path.suffix.lower() == ".onnx":
        teacher = _onnx(path, size)
        _check_answer(path, teacher, classes)
    else:
        teacher = _torchscript(path, size, classes)
    teacher.probabilities = probabilities
    return teacher.eval()


# --- TorchScript ------------------------------------------------------------------------------------------------------


def _torchscript(path: Path, size: tuple[int, int, int], classes: int) -> ExecutedTeacher:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
        try:
            module = torch.jit.load(str(path), map_location="cpu").eval()
        except Exception as error:  # damaged archives fail in many ways
            raise DataError(f"{path}: TorchScript that cannot be loaded: {_first_line(error)}") from error
    failures = []
    for flat in (False, True):
        teacher = ExecutedTeacher(module, size=size, flat=flat)
        try:
            with torch.inference_mode():
                answer = teacher(_some(size))
        except Exception as error:  # whatever the net raises for a shape that is not its own
            failures.append(_last_line(error))
            continue
        if answer.ndim != 2:
            failures.append(f"it answers {_ASKED} images with {_shape(tuple(answer.shape))}")
            continue
        _check_answer(path, teacher, classes)
        return teacher
    channels, height, width = size
    raise DataError(
        f"{path}: takes no images of these data, neither as (N, {channels}, {height}, {width}) nor flat, (N, "
        f"{channels * height * width}): {failures[0]}"
    )


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _onnx(path: Path, size: tuple[int, int, int]) -> ExecutedTeacher:
    if find_spec("onnxruntime") is None:
        raise EnvironmentError_(f"teacher={path}: ONNX files are run by onnxruntime: pip install 'paperbench[export]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise DataError(f"{path}: no ONNX file that onnxruntime can load: {_first_line(error)}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise DataError(
            f"{path}: takes {len(inputs)} inputs ({', '.join(part.name for part in inputs)}); a teacher takes one"
        )
    (entry,) = inputs
    kinds: dict[str, Any] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}
    if entry.type not in kinds:
        raise DataError(f"{path}: its input {entry.name} is a {entry.type}; a teacher takes float or uint8")
    shape, flat = entry.shape, len(entry.shape) == 2
    expected: Sequence[int] = (int(np.prod(size)),) if flat else size
    fits = len(shape) == len(expected) + 1 and all(
        not isinstance(have, int) or have == want for have, want in zip(shape[1:], expected, strict=True)
    )
    if not fits:
        raise DataError(
            f"{path}: its input {entry.name} is {_shape(shape)}; images of these data are {_shape(('N', *size))}"
            + (f": data.side={shape[-1]} makes them fit" if len(shape) == 4 and isinstance(shape[-1], int) else "")
        )

    def call(images: Tensor) -> Tensor:
        named = {entry.name: images.cpu().numpy().astype(kinds[entry.type])}
        return torch.from_numpy(np.asarray(session.run(None, named)[0]))

    return ExecutedTeacher(
        call,
        size=size,
        flat=flat,
        as_bytes=entry.type == "tensor(uint8)",
        fixed=shape[0] if isinstance(shape[0], int) else 0,
    )


def _shape(shape: Sequence[object]) -> str:
    return "(" + ", ".join(str(side) if side is not None else "?" for side in shape) + ")"


# --- both -------------------------------------------------------------------------------------------------------------


def _some(size: tuple[int, int, int]) -> Tensor:
    return torch.linspace(0, 1, _ASKED * int(np.prod(size))).view(_ASKED, -1)


def _check_answer(path: Path, teacher: ExecutedTeacher, classes: int) -> None:
    try:
        with torch.inference_mode():
            answer = teacher(_some(teacher.size))
    except Exception as error:
        raise DataError(f"{path}: fails on images of these data: {_last_line(error)}") from error
    if tuple(answer.shape) != (_ASKED, classes):
        raise DataError(
            f"{path}: answers {_ASKED} images with {_shape(tuple(answer.shape))}; {classes} classes need ({_ASKED}, {classes})"
        )
    if not bool(torch.isfinite(answer).all()):
        raise DataError(f"{path}: answers with numbers that are not finite")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
