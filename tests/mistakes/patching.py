"""A mistake in modules that are imported already: the code of a function is replaced, and everybody who holds it has the mistake.

Importing the program and its tests takes longer than most tests: a process that is forked for each mistake does it once.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any


def replace_code(module: types.ModuleType, before: str, after: str) -> bool:
    """Give the functions of `module`, whose source is `before`, the code that they have in `after`.

    Return False, and change nothing, where the two differ outside of the bodies of functions, as in a constant, a default or a
    decorator: only an import shows that.
    """
    old, new = ast.parse(before), ast.parse(after)
    found = list(_changed(old, new, ()))
    if not found or any(not name for name in found):
        return False
    codes = _codes(compile(after, str(module.__file__), "exec"))
    pairs: list[tuple[FunctionType, CodeType]] = []
    for name in found:
        function, code = _function(module, name), codes.get(name)
        if function is None or code is None or function.__code__.co_freevars != code.co_freevars:
            return False
        pairs.append((function, code))
    for function, code in pairs:
        function.__code__ = code
    return True


def _changed(old: ast.AST, new: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
    """Yield the dotted names of the outermost functions whose bodies differ; an empty one for any other difference."""
    if ast.dump(old) == ast.dump(new):
        return
    if isinstance(old, ast.FunctionDef) and isinstance(new, ast.FunctionDef) and _head(old) == _head(new):
        yield ".".join((*within, old.name))
        return
    if isinstance(old, ast.Module | ast.ClassDef) and type(old) is type(new):
        assert isinstance(new, ast.Module | ast.ClassDef)
        inside = (*within, old.name) if isinstance(old, ast.ClassDef) else within
        if _head(old) == _head(new) and len(old.body) == len(new.body):
            for one, other in zip(old.body, new.body, strict=True):
                yield from _changed(one, other, inside)
            return
    yield ""


def _head(node: ast.AST) -> list[str]:
    """Everything of a definition but its body."""
    return [
        ast.dump(part) if isinstance(part, ast.AST) else str(part)
        for name, value in ast.iter_fields(node)
        if name != "body"
        for part in (value if isinstance(value, list) else [value])
    ]


def _codes(code: CodeType, within: tuple[str, ...] = ()) -> dict[str, CodeType]:
    """Return the code of every function and method of a module by its dotted name; of several with one name, the last."""
    found: dict[str, CodeType] = {}
    for part in code.co_consts:
        if isinstance(part, CodeType):
            name = (*within, part.co_name)
            found[".".join(name)] = part
            if not part.co_flags & inspect.CO_OPTIMIZED:  # a class
                found |= _codes(part, name)
    return found


def _function(module: types.ModuleType, name: str) -> FunctionType | None:
    place: Any = module
    *classes, last = name.split(".")
    for part in classes:
        place = vars(place).get(part)
        if place is None:
            return None
    found: Any = vars(place).get(last)
    while not isinstance(found, FunctionType) or hasattr(found, "__wrapped__"):
        if isinstance(found, classmethod | staticmethod):
            found = found.__func__
        elif isinstance(found, property):
            found = found.fget
        elif isinstance(found, functools.cached_property):
            found = found.func
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
        else:
            return None
    return found
