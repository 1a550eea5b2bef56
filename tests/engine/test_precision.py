"""The switches for the types that a run computes in: as the configuration says, for its length, and written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.config.validate import config_hash, dump, task_named, validate
from paperbench.engine import device as devices
from paperbench.engine import launch
from paperbench.engine.precision import (
    describe_numerics,
    float32_products,
    full_precision,
    numerics,
    prepare_determinism,
)
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import ConfigError, EnvironmentError_
from paperbench.stn.grids import Affine
from tests.engine import toy

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def kinds() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision


@pytest.mark.parametrize(("precision", "kind"), [("float32", "ieee"), ("bfloat16", "ieee"), ("tf32", "tf32")])
def test_products_and_convolutions_are_of_one_kind(precision: str, kind: str) -> None:
    before = kinds()
    with numerics(CUDA, precision, deterministic=False):
        assert kinds() == (kind,) * 3
        assert describe_numerics(precision)["float32_convolutions"] == kind
        with float32_products("float32"):
            assert kinds() == ("ieee",) * 3
        assert kinds() == (kind,) * 3
    assert kinds() == before


def test_what_must_be_exact_is_never_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    product = torch.Tensor.__matmul__
    grid = Affine((4, 4))

    def watched(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return product(one, other)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    with numerics(CUDA, "tf32", deterministic=False):
        grid(grid.identity()[None])
        assert kinds()[0] == "tf32"
        with pytest.raises(ValueError, match="x"), full_precision(CPU):
            raise ValueError("x")
        assert kinds()[0] == "tf32"
    assert seen
    assert set(seen) == {"ieee"}


def test_deterministic_refuses_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.deterministic
    prepare_determinism(False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    prepare_determinism(True)
    with numerics(CUDA, "float32", deterministic=True):
        assert torch.get_deterministic_debug_mode() == 2
        assert torch.backends.cudnn.deterministic
        assert (describe_numerics("float32")["deterministic"], os.environ["CUBLAS_WORKSPACE_CONFIG"]) == (
            True,
            ":4096:8",
        )
    with numerics(CPU, "float32", deterministic=False):
        assert torch.get_deterministic_debug_mode() == 1
    assert (torch.get_deterministic_debug_mode(), torch.backends.cudnn.deterministic) == before
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_determinism(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_tf32_is_of_some_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="precision=tf32: device=cpu has no TF32; take precision=float32"):
        devices.resolve_precision("tf32", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    for major in (7, 8):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, major=major: (major, 0))
        if major == 8:
            assert devices.resolve_precision("tf32", CUDA) == "tf32"
            continue
        with pytest.raises(EnvironmentError_, match="precision=tf32: a GPU lacks it"):
            devices.resolve_precision("tf32", CUDA)


def test_a_run_writes_it_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    toy.register(monkeypatch)

    def plain_run(config: Any, run: Any) -> dict[str, float]:
        seen.update(kinds=kinds(), mode=torch.get_deterministic_debug_mode())
        return {"test/error": 0.0}

    monkeypatch.setattr(toy, "run", plain_run)
    launch.start(toy.config(deterministic=True), run_dir=tmp_path / "run", reporter=SilentReporter())
    assert seen == {"kinds": ("ieee",) * 3, "mode": 2}
    facts = json.loads((tmp_path / "run" / "env.json").read_text(encoding="utf-8"))
    assert "gpu" not in facts
    assert facts["numerics"] == {
        "precision": "float32", "autocast": None, "float32_products": "ieee", "float32_convolutions": "ieee",
        "deterministic": True, "cudnn_benchmark": False, "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }  # fmt: skip


def test_the_types_count_for_the_hash_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)

    def hashed(**changes: Any) -> str:
        return config_hash(dump(validate(task_named("toy"), toy.config(**changes))))

    assert len({hashed(), hashed(precision="tf32"), hashed(precision="bfloat16"), hashed(deterministic=True)}) == 4
    assert hashed(deterministic=False) == hashed()


def test_the_names_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.describe_gpu(CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(devices, "_driver_version", lambda: "580.1")
    found = devices.describe_gpu(CUDA)
    assert found is not None
    assert (found["name"], found["capability"], found["driver"]) == ("a GPU", "9.0", "580.1")
    assert set(found) == {"name", "capability", "driver", "cuda", "cudnn"}
