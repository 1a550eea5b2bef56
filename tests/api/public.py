"""The public names of `paperbench` with their signatures, as docs/api.txt lists them.

`python -m tests.api.public` writes the file anew; the CHANGELOG then says what changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import paperbench

FILE = Path(__file__).parents[2] / "docs" / "api.txt"


def listing() -> str:
    """One line for every public function, class, method and property, sorted by name."""
    return "".join(f"{line}\n" for name in sorted(paperbench.__all__) for line in _lines(name))


def _lines(name: str) -> Iterator[str]:
    value = getattr(paperbench, name)
    if inspect.ismodule(value) or isinstance(value, str):
        yield name
    elif inspect.isclass(value):
        # Runs, sweeps and reproductions come from functions; nobody else makes them.
        made_here = value.__module__.startswith("paperbench.api")
        yield name if made_here else f"{name}{_signature(value.__init__, bound=True)}"
        for member, content in sorted(vars(value).items()):
            if member.startswith("_") or member in ("training",):
                continue
            if inspect.isfunction(content):
                yield f"{name}.{member}{_signature(content, bound=True)}"
            elif isinstance(content, property) or hasattr(content, "attrname"):
                yield f"{name}.{member}"
    else:
        yield f"{name}{_signature(value)}"


def _signature(function: object, *, bound: bool = False) -> str:
    signature = inspect.signature(function)  # pyright: ignore[reportArgumentType]
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    return str(signature.replace(parameters=parameters)).replace("'", "")


if __name__ == "__main__":
    FILE.write_text(listing(), encoding="utf-8")
