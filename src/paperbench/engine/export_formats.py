"""Write a model as safetensors, ONNX or TorchScript, and read it back as a function of its inputs.

safetensors and ONNX are optional (`pip install 'paperbench[export]'`). TorchScript is traced and not scripted: control flow is
that of the example. Torch has deprecated it in favour of `torch.export`; it is offered for programs that embed libtorch.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import metadata as packages
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from paperbench.engine.exportable import Exportable, Tensors
from paperbench.engine.zips import ZIP_FAULTS
from paperbench.errors import EnvironmentError_

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torchscript": ".pt"}
"""The formats, and how their files are named."""

_NEEDS = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime"), "torchscript": ()}
_OPSET = 18
_LONGEST_HEADER = 1 << 26


def require(kind: str) -> None:
    """Raise `EnvironmentError_` naming what is not installed."""
    missing = [name for name in _NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise EnvironmentError_(f"--format {kind} needs {', '.join(missing)}: pip install 'paperbench[export]'")


_FACTS = frozenset({"run", "experiment", "task", "config_hash"})
"""Metadata that every exported file holds (`cli.models`)."""


def is_export(file: Path) -> bool:
    """Return True for a file, in whichever of the formats, that `paperbench export` wrote: its own metadata say so."""
    try:
        return any(set(read_metadata(file)) >= _FACTS for read_metadata in (_of_safetensors, _of_torchscript, _of_onnx))
    except OSError:
        return False


def _of_safetensors(file: Path) -> Collection[str]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length)) if length <= _LONGEST_HEADER else None
        except ValueError:
            return ()
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else ()


def _of_torchscript(file: Path) -> Collection[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/extra/metadata.json"))
            metadata = json.loads(archive.read(name))
    except (StopIteration, *ZIP_FAULTS):
        return ()
    return metadata if isinstance(metadata, dict) else ()


def _of_onnx(file: Path) -> Collection[str]:
    if find_spec("onnx") is None or file.stat().st_size == 0:
        return ()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(file), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError):
        return ()
    return [entry.key for entry in model.metadata_props]


def versions(kind: str) -> dict[str, str]:
    """Versions of the libraries that wrote and read the file."""
    return {name: packages.version(name) for name in ("torch", *_NEEDS[kind])}


def write(exportable: Exportable, kind: str, file: Path, metadata: Mapping[str, str]) -> None:
    """Write `file`; `metadata` goes into it."""
    {"safetensors": _write_safetensors, "onnx": _write_onnx, "torchscript": _write_torchscript}[kind](
        exportable, file, dict(metadata)
    )


def read(exportable: Exportable, kind: str, file: Path) -> Callable[[Tensors], Tensors]:
    """Return the function of the inputs that the file computes."""
    readers = {"safetensors": _read_safetensors, "onnx": _read_onnx, "torchscript": _read_torchscript}
    return readers[kind](exportable, file)


# --- safetensors ------------------------------------------------------------------------------------------------------


def _write_safetensors(exportable: Exportable, file: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save

    state = exportable.module.get_submodule(exportable.weights).state_dict()
    # Each tensor for itself, in the standard layout: the format knows neither strides nor shared memory.
    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
        if isinstance(value, Tensor)
    }
    file.write_bytes(save(tensors, metadata))  # its `save_file` leaves a file that nobody else may read


def _read_safetensors(exportable: Exportable, file: Path) -> Callable[[Tensors], Tensors]:
    """The module again, with every stored tensor wiped and then read from the file."""
    from safetensors.torch import load_file

    module = deepcopy(exportable.module)
    part = module.get_submodule(exportable.weights)
    state = part.state_dict()
    with torch.no_grad():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
    others = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    part.load_state_dict({**others, **load_file(str(file))})
    return lambda inputs: _run(module, inputs)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _write_onnx(exportable: Exportable, file: Path, metadata: dict[str, str]) -> None:
    varying = {name: torch.export.Dim(name) for axes in exportable.dynamic.values() for name in axes.values()}
    shapes = tuple(
        {axis: varying[label] for axis, label in exportable.dynamic.get(name, {}).items()} or None
        for name in exportable.input_names
    )
    with warnings.catch_warnings():
        # torchvision's description of NMS to the exporter calls torch by an older name.
        warnings.filterwarnings("ignore", message=r"`create_unbacked_symint` is deprecated", category=FutureWarning)
        # Two inputs whose axis has one name are meant to share it.
        warnings.filterwarnings("ignore", message=r"# The axis name: .* will not be used, since it shares")
        program = torch.onnx.export(
            exportable.module,
            exportable.inputs[0],
            dynamo=True,
            verbose=False,
            input_names=list(exportable.input_names),
            output_names=[output.name for output in exportable.outputs],
            dynamic_shapes=shapes if exportable.dynamic else None,
            custom_translation_table=exportable.translations() if exportable.translations else None,
            opset_version=_OPSET,
            external_data=False,
        )
    assert program is not None
    program.model.doc_string = exportable.meaning
    program.model.metadata_props.update(metadata)
    program.save(str(file), external_data=False)


def _read_onnx(exportable: Exportable, file: Path) -> Callable[[Tensors], Tensors]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(inputs: Tensors) -> Tensors:
        named = {name: tensor.numpy() for name, tensor in zip(exportable.input_names, inputs, strict=True)}
        return tuple(torch.as_tensor(value) for value in session.run(None, named))

    return run


# --- TorchScript ------------------------------------------------------------------------------------------------------


@contextmanager
def _without_deprecation_warning() -> Iterator[None]:
    """Silence torch's warning at each use that TorchScript is deprecated; the documentation says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
        yield


def _write_torchscript(exportable: Exportable, file: Path, metadata: dict[str, str]) -> None:
    with _without_deprecation_warning(), torch.no_grad():
        # Sizes that become constants are those of every input, or the comparison with other inputs finds it out.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        # torch's own check would repeat the trace with the same example; other examples are compared here.
        traced = torch.jit.trace(exportable.module, exportable.inputs[0], check_trace=False)
        content = io.BytesIO()  # on a full disk torch's own writer of files ends the process
        torch.jit.save(traced, content, _extra_files={"metadata.json": json.dumps(metadata, sort_keys=True)})
    file.write_bytes(content.getvalue())


def _read_torchscript(exportable: Exportable, file: Path) -> Callable[[Tensors], Tensors]:
    with _without_deprecation_warning():
        module = torch.jit.load(str(file), map_location="cpu")
    return lambda inputs: _run(module, inputs)


def _run(module: nn.Module, inputs: Tensors) -> Tensors:
    with torch.inference_mode():
        answer = module(*inputs)
    return answer if isinstance(answer, tuple) else (answer,)
