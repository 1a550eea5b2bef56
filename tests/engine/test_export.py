"""Exported models are compared before they are believed; the formats, with a net of two inputs."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paperbench.engine import export_formats
from paperbench.engine.export import FORMATS, compare, export, place_for
from paperbench.engine.exportable import Exportable, Output, Tensors
from paperbench.errors import ConfigError, DiskFullError, EnvironmentError_, ExportError

FACTS = {"run": "r", "experiment": "e", "task": "t", "config_hash": "h"}


class Net(nn.Module):
    """(N, 3) and (N,) -> (N, 2) and (N,), with a buffer and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3)
        self.again = nn.Linear(3, 3)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.norm.running_mean = torch.tensor([0.1, 0.2, 0.3])
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor, shift: Tensor) -> Tensors:
        hidden = self.norm(self.again(torch.tanh(self.first(x))))
        return self.last(hidden) + shift[:, None], hidden.sum(-1)


def examples(*sizes: int) -> list[Tensors]:
    stream = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=stream), torch.randn(n, generator=stream)) for n in sizes]


def exportable(**changes: Any) -> Exportable:
    values: dict[str, Any] = {
        "module": Net().eval(),
        "inputs": examples(4, 4),
        "input_names": ("x", "shift"),
        "outputs": (
            Output(name="scores", meaning="(N, 2)", tolerance=1e-5),
            Output(name="sums", meaning="(N,)", tolerance=1e-5),
        ),
        "meaning": "numbers to numbers",
        "step": 7,
        "metadata": {"classes": '["a"]'},
        **changes,
    }
    return Exportable(**values)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_computes_the_same_and_says_what_it_is(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / f"net{export_formats.SUFFIXES[kind]}"
    record = export(exportable(), kind, file, FACTS)

    assert record["check"]["max_abs_difference"] < 1e-5
    assert record["check"]["inputs"] == 2
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(file.with_name(f"{file.name}.json").read_text()) == record
    assert [entry["shape"] for entry in record["inputs"]] == [[4, 3], [4]]
    assert (record["format"], record["step"], record["run"]) == (kind, 7, "r")
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, f"{file.name}.json"]


def test_the_weights_are_for_everybody_and_carry_their_origin(tmp_path: Path) -> None:
    from safetensors import safe_open

    file = tmp_path / "net.safetensors"
    export(exportable(), "safetensors", file, FACTS)

    with safe_open(str(file), "pt") as stored:
        assert set(stored.keys()) == set(Net().state_dict())
        assert stored.metadata() == {**FACTS, "classes": '["a"]'}
        assert torch.equal(stored.get_tensor("again.weight"), Net().state_dict()["first.weight"])


def test_a_part_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export(exportable(weights="last"), "safetensors", tmp_path / "last.safetensors", FACTS)

    assert set(load_file(str(tmp_path / "last.safetensors"))) == {"weight", "bias"}


def test_onnx_carries_names_origin_and_axes_that_vary(tmp_path: Path) -> None:
    import onnx

    dynamic = {"x": {0: "batch"}, "shift": {0: "batch"}}
    record = export(exportable(inputs=examples(4, 1, 9), dynamic=dynamic), "onnx", tmp_path / "net.onnx", FACTS)

    model = onnx.load(str(tmp_path / "net.onnx"))
    assert {entry.key: entry.value for entry in model.metadata_props}.items() >= {**FACTS, "classes": '["a"]'}.items()
    assert [value.name for value in model.graph.input] == ["x", "shift"]
    assert [value.name for value in model.graph.output] == ["scores", "sums"]
    assert [entry["shape"] for entry in record["inputs"]] == [["batch", 3], ["batch"]]


# --- a file that disagrees is removed --------------------------------------------------------------------------------


class Forgetful(nn.Module):
    """Traced, it remembers the branch that the example took."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_trace_that_remembers_its_example_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    file.write_text("what was there before")
    wrong = exportable(
        module=Forgetful(),
        inputs=[(torch.ones(2),), (-torch.ones(2),)],
        input_names=("x",),
        outputs=(Output(name="y", meaning="", tolerance=1e-5),),
    )

    with pytest.raises(ExportError, match=r"y differs by 2, 1e-05 is allowed") as error:
        export(wrong, "torchscript", file, FACTS)
    assert error.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    assert file.read_text() == "what was there before"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_held_against_the_runs_own_model(kind: str, tmp_path: Path) -> None:
    other = Net().eval()
    nn.init.constant_(other.last.bias, 5.0)

    with pytest.raises(ExportError, match="scores differs by"):
        export(exportable(reference=other), kind, tmp_path / "new" / "folder" / "net", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_was_not_stored_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def forgetful(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
        return original({name: value for name, value in tensors.items() if name != "last.bias"}, metadata)

    original = safetensors.torch.save
    monkeypatch.setattr(safetensors.torch, "save", forgetful)

    with pytest.raises(RuntimeError, match=r"last\.bias"):
        export(exportable(), "safetensors", tmp_path / "net", FACTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [lambda y: y * float("nan"), lambda y: y[:, :1], lambda y: y + 1],
    ids=["nan", "another shape", "off by one"],
)
def test_answers_that_must_not_pass(spoil: Callable[[Tensor], Tensor]) -> None:
    model = exportable()

    def exported(inputs: Tensors) -> Tensors:
        scores, sums = model.module(*inputs)
        return spoil(scores), sums

    found = compare(model, exported)
    assert not found["scores"] <= 1e-5
    assert found["sums"] == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_a_model_refuses_names_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format onnx: it samples"):
        export(exportable(refused={"onnx": "it samples"}), "onnx", tmp_path / "x.onnx", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_formats, "find_spec", lambda name: None)

    with pytest.raises(
        EnvironmentError_, match=r"needs onnx, onnxscript, onnxruntime: pip install 'paperbench\[export\]'"
    ):
        export(exportable(), "onnx", tmp_path / "x.onnx", FACTS)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentError_, match="is a folder"):
        export(exportable(), "torchscript", tmp_path, FACTS)
    with pytest.raises(EnvironmentError_, match="cannot write"):
        export(exportable(), "torchscript", tmp_path / "file" / "net.pt", FACTS)


@pytest.mark.parametrize("kind", FORMATS)
def test_only_an_earlier_export_is_replaced(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    assert place_for(file) == file
    export(exportable(), kind, file, FACTS)
    assert place_for(file) == file
    for content in (b"", b"notes", b"PK\x03\x04", bytes(100), b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="exists and is not a model"):
            place_for(file)
        assert file.read_bytes() == content
    file.unlink()
    file.with_name("model.bin.json").write_text('{"kind": "notes"}')
    with pytest.raises(ConfigError, match=r"model\.bin\.json.*exists"):
        place_for(file)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_an_error_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """torch's own writer of archives would end the process."""
    resource = pytest.importorskip("resource", reason="Windows limits no sizes of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        with pytest.raises(DiskFullError, match="cannot write"):
            export(exportable(), kind, tmp_path / "net.out", FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []
