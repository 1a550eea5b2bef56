from __future__ import annotations

import ast

import pytest

from tests.mistakes.listed import ROOT, SOURCE, Mistake, read_mistakes

MISTAKES = read_mistakes()


def test_every_text_is_found_exactly_once() -> None:
    wrong = []
    for mistake in MISTAKES:
        content = (ROOT / SOURCE / mistake.file).read_text(encoding="utf-8")
        try:
            assert mistake.planted(content) != content, mistake.name
        except ValueError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


def test_names_differ_and_tests_exist() -> None:
    names = [mistake.name for mistake in MISTAKES]
    assert len(set(names)) == len(names)
    for mistake in MISTAKES:
        assert mistake.tests, mistake.name
        for test in mistake.tests:
            assert (ROOT / "tests" / test.partition("::")[0]).exists(), f"{mistake.name}: {test}"


def test_what_is_planted_is_python() -> None:
    for mistake in MISTAKES:
        content = (ROOT / SOURCE / mistake.file).read_text(encoding="utf-8")
        ast.parse(mistake.planted(content), mistake.file)


def test_a_text_that_is_gone_is_an_error() -> None:
    gone = Mistake(name="gone", file="errors.py", text="no such text", replacement="", tests=("x",), package="engine")
    with pytest.raises(ValueError, match="0 times"):
        gone.planted("something else")
