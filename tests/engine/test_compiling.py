from __future__ import annotations

from typing import Any

import pytest
import torch

from paperbench.engine import compiling

CPU = torch.device("cpu")


def test_auto_compiles_long_runs_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    assert compiling.should_compile("auto", device=CPU, steps=100, worth_it_from=100)
    assert not compiling.should_compile("auto", device=CPU, steps=99, worth_it_from=100)
    assert not compiling.should_compile("off", device=CPU, steps=1000, worth_it_from=100)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert not compiling.should_compile("auto", device=CPU, steps=1000, worth_it_from=100)
    assert compiling.should_compile("on", device=CPU, steps=1, worth_it_from=100)


def test_what_cannot_be_compiled_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("no header\nand so on")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    told: list[str] = []
    doubled = compiling.CompiledFunction(lambda x: 2 * x, report=told.append)
    assert doubled(3) == 6
    assert doubled(4) == 8
    assert told == ["torch.compile failed (RuntimeError: no header); going on without it"]


def test_an_error_of_the_function_itself_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)

    def wrong(x: Any) -> Any:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        compiling.CompiledFunction(wrong, report=lambda text: None)(1)
