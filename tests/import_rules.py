"""Who may import whom, read from the source. Nothing is imported to find out."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SHARED = {"errors", "catalog", "config"}
"""What every part may use."""

PARTS: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "catalog": set(),
    "__main__": {"cli"},
    "config": SHARED,
    "engine": SHARED | {"engine"},
    "data": SHARED | {"engine", "data"},
    "records": SHARED | {"engine", "records"},
    "sweeps": SHARED | {"engine", "records", "sweeps"},
    "report": SHARED | {"engine", "records", "sweeps", "report"},
    "cli": SHARED | {"engine", "data", "records", "sweeps", "report", "cli"},
    "api": SHARED | {"engine", "data", "records", "sweeps", "report", "cli", "api"},
}
"""What each part of the program may import. Any other folder is a paper's package, which may use `PACKAGE` and itself."""

PACKAGE = SHARED | {"engine", "data"}

SLOW = {
    "torch",
    "torchvision",
    "hydra",
    "omegaconf",
    "pydantic",
    "numpy",
    "scipy",
    "sklearn",
    "yaml",
    "matplotlib",
    "rich",
}
"""What `paperbench --help` must not wait for."""


@dataclass(frozen=True)
class Import:
    """One import statement, or one `import_module` of a name that stands in the source. `name` is absolute and dotted.

    `early`: it is executed when the module is imported, not later in a function or for a type checker alone.
    """

    file: Path
    line: int
    name: str
    early: bool

    def __str__(self) -> str:
        return f"{self.file.as_posix()}:{self.line} imports {self.name}"


class Source:
    """The source of the package at `root`, whose folder bears the package's name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> list[Path]:
        return sorted(path.relative_to(self.root) for path in self.root.rglob("*.py"))

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Files by the dotted name of their module."""
        return {self._name(file): file for file in self.files}

    @cached_property
    def imports(self) -> dict[Path, list[Import]]:
        return {file: list(self._read(file)) for file in self.files}

    def _name(self, file: Path) -> str:
        parts = [self.root.name, *file.with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def part(self, file: Path) -> str:
        """The folder directly below the package, or the name of a module that lies there; `` for its `__init__`."""
        first = file.parts[0].removesuffix(".py")
        return "" if first == "__init__" else first

    def part_of_name(self, name: str) -> str | None:
        """The part that a module belongs to; None for another package's."""
        package, _, inside = name.partition(".")
        return inside.partition(".")[0] if package == self.root.name else None

    def docstring(self, file: Path) -> str:
        return ast.get_docstring(self._tree(file)) or ""

    def _tree(self, file: Path) -> ast.Module:
        return ast.parse((self.root / file).read_text(encoding="utf-8"), filename=str(file))

    def _read(self, file: Path) -> Iterator[Import]:
        pending: list[tuple[ast.AST, bool]] = [(self._tree(file), True)]
        while pending:
            node, early = pending.pop()
            for name, line in self._named(node, file):
                yield Import(file, line, name, early)
            for child in ast.iter_child_nodes(node):
                pending.append((child, early and not _is_late(node, child)))

    def _named(self, node: ast.AST, file: Path) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = self._base(node, file)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in self.modules else base), node.lineno
        elif isinstance(node, ast.Call) and node.args and _called(node.func) in ("import_module", "__import__"):
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, node.lineno

    def _base(self, node: ast.ImportFrom, file: Path) -> str:
        if not node.level:
            return node.module or ""
        package = [self.root.name, *file.parent.parts]
        around = package[: len(package) - node.level + 1]
        return ".".join([*around, *([node.module] if node.module else [])])

    def reached(self, module: str) -> set[str]:
        """Every module that importing `module` imports, other packages' included, itself and its parents too."""
        found: set[str] = set()
        pending = [module]
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.add(name)
            parent = name.rpartition(".")[0]
            pending += [parent] if parent else []
            if name in self.modules:
                pending += [item.name for item in self.imports[self.modules[name]] if item.early]
        return found


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_late(node: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is not executed when the module that holds `node` is imported."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    if isinstance(node, ast.If):
        test = node.test
        named = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
        return named == "TYPE_CHECKING" and child in node.body
    return False


# --- the rules: each gives the sentences that say what breaks it ------------------------------------------------------


def parts(source: Source) -> Iterator[str]:
    """A part of the package imports only what `PARTS` (for a paper's package, `PACKAGE`) names; no such package imports another."""
    for file, found in source.imports.items():
        own = source.part(file)
        allowed = PARTS.get(own, PACKAGE | {own})
        for item in found:
            part = source.part_of_name(item.name)
            if part and part not in allowed:
                what = (
                    f"{own or 'the package itself'} may import {', '.join(sorted(allowed)) or 'nothing of the package'}"
                )
                yield f"{item}: {what}"


def hydra_in_one_module(source: Source) -> Iterator[str]:
    """Hydra is imported by `config/_hydra.py` alone, OmegaConf within `config/`."""
    for file, found in source.imports.items():
        for item in found:
            package = item.name.partition(".")[0]
            if package == "hydra" and file.as_posix() != "config/_hydra.py":
                yield f"{item}: config/_hydra.py alone may"
            if package == "omegaconf" and source.part(file) != "config":
                yield f"{item}: config/ alone may"


def no_click(source: Source) -> Iterator[str]:
    """Typer's own copy of Click is its internal matter."""
    for found in source.imports.values():
        yield from (f"{item}: nobody may" for item in found if item.name.partition(".")[0] == "click")


def torch_late(source: Source) -> Iterator[str]:
    """Outside `engine`, `data` and the papers' packages, torch is imported when it is needed, not with the module."""
    for file, found in source.imports.items():
        if source.part(file) in PARTS.keys() - {"engine", "data"}:
            for item in found:
                if item.early and item.name.partition(".")[0] in ("torch", "torchvision"):
                    yield f"{item} with the module: import it in the function that needs it"


def quick_start(source: Source) -> Iterator[str]:
    """Nothing that `cli/app.py` imports with the module, or that this imports, is slow."""
    for name in sorted(source.reached(f"{source.root.name}.cli.app")):
        for item in source.imports.get(source.modules.get(name, Path()), ()):
            if item.early and item.name.partition(".")[0] in SLOW:
                yield f"{item}, and `paperbench --help` waits for it"


def promises(source: Source) -> Iterator[str]:
    """A module whose docstring says that it imports no torch reaches none."""
    for name, file in source.modules.items():
        text = " ".join(source.docstring(file).lower().split())
        promised = "imports no torch" in text or "no torch here" in text
        if promised and {"torch", "torchvision"} & {reached.partition(".")[0] for reached in source.reached(name)}:
            yield f"{file.as_posix()}: says that it imports no torch, and does"


def no_circles(source: Source) -> Iterator[str]:
    """No modules import each other in a circle, imports in functions and for type checking included."""
    edges = {
        name: sorted({item.name for item in source.imports[file]} & source.modules.keys() - {name})
        for name, file in source.modules.items()
    }
    done: set[str] = set()
    for name in sorted(edges):
        circle = _way_back(edges, name)
        if circle and not done & set(circle):
            done |= set(circle)
            yield f"{' -> '.join([*circle, name])}: move what both need to a module that both may import"


def _way_back(edges: Mapping[str, list[str]], start: str) -> list[str]:
    """Return the modules of a shortest circle through `start`, which comes first; empty where there is none."""
    before: dict[str, str] = {}
    pending = deque([start])
    while pending:
        name = pending.popleft()
        for following in edges[name]:
            if following == start:
                circle = [name]
                while circle[-1] != start:
                    circle.append(before[circle[-1]])
                return circle[::-1]
            if following not in before:
                before[following] = name
                pending.append(following)
    return []


RULES: tuple[Callable[[Source], Iterator[str]], ...] = (
    parts,
    hydra_in_one_module,
    no_click,
    torch_late,
    quick_start,
    promises,
    no_circles,
)
