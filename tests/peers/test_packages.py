"""A peer that is missing skips a module in words; one that is broken fails it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.peers.packages import peer


def test_a_missing_peer_skips_and_names_the_remedy() -> None:
    with pytest.raises(pytest.skip.Exception, match="not_there is not installed: uv sync --group peers"):
        peer("not_there")


def test_a_peer_may_warn_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_peer.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert peer("loud_peer").value == 3


def test_a_broken_peer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_peer.py").write_text("from math import no_such_function\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ImportError, match="no_such_function"):
        peer("broken_peer")
