"""Python values as overrides, held against Hydra's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperbench.api.arguments import overrides_of
from paperbench.config import _hydra
from paperbench.errors import ConfigError

VALUES = [
    "voc", "it's", "a b", "1e3", "12", "true", "null", "C:\\x\\", "a\\'b", "[1,2]", "{a:1}", "$x", "ümlaut", "", "a=b", "~/x",
    "x,y", "a\\\\b", "tab\tx", "ends'", '"quoted"', "(a)", "#", "%", " space ", "/data/my runs/it's here", "1_000",
    0, -3, 0.1, 1e-7, 1e300, True, False, None, [], [1, 2.5, "a b"], [[1, 2], ["x"]], (1, 2),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_read_back_as_it_was_given(value: Any) -> None:
    (text,) = overrides_of({"key": value})

    parsed = _hydra.parse(text)

    expected = (
        [list(item) if isinstance(item, tuple) else item for item in value] if isinstance(value, tuple) else value
    )
    assert parsed.value == expected
    assert type(parsed.value) is type(expected)
    assert not parsed.sweeps


def test_mappings_set_the_keys_below_their_own() -> None:
    assert overrides_of({"data": "voc", "optim": {"lr": 0.01, "name": "sgd"}, "seed": 3}) == [
        "data=voc", "optim.lr=0.01", "optim.name=sgd", "seed=3",
    ]  # fmt: skip


def test_numbers_of_numpy_and_paths_are_numbers_and_texts() -> None:
    assert overrides_of({"a": np.int64(3), "b": np.float32(0.5), "c": Path("/data/voc")}) == [
        "a=3",
        "b=0.5",
        "c=/data/voc",
    ]


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, np.zeros(2)], ids=["object", "bytes", "set", "array"])
def test_what_no_configuration_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"key: .*give a number, text, a path, a list"):
        overrides_of({"key": value})


def test_arrays_are_swept_over_as_lists_are() -> None:
    from paperbench.api.commands import _choices

    assert _choices({"optim": {"lr": np.array([0.5, 0.25])}, "seed": np.arange(2)}) == ["optim.lr=0.5,0.25", "seed=0,1"]
    assert overrides_of({"amp": np.bool_(True), "size": np.array(2)}) == ["amp=true", "size=2"]
    with pytest.raises(ConfigError, match="seed: an empty list"):
        _choices({"seed": np.array([], np.int64)})
