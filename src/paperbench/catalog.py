"""The names of tasks, models, data sets and papers: collected from the packages that declare them, when they are first asked for.

A package declares a `Package` in its module `catalog`, which imports no torch. The program's own packages are found in its folder;
others are installed beside it and named by an entry point in the group `paperbench.packages`, such as
`curve = "curve.catalog:PACKAGE"`. One that cannot be used is left out with a notice, and all others go on working.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from paperbench import __version__

GROUP = "paperbench.packages"
_OWN = "paperbench."


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One kind of run.

    `verb` is the command that starts it (`train`, `eval`, `estimate`), `schema` the `module:Class` of its
    configuration, and `module` the module with its functions (`engine.task.Task`). `evaluated_by` names the task that
    `paperbench eval` runs on what this one trained; such a task takes over the trained run's configuration
    (`takes_checkpoint`). `predicts`: the module also implements `engine.task.Predicts`, so that `paperbench predict`
    can show pictures to a trained run. `proposed_by` names the task that `paperbench proposals` runs for what this one is
    trained on; it takes over the keys that both have. `stacks`: it implements `engine.task.Stacks`, so that
    `paperbench sweep --stacked` can train several runs stacked in one process. `exports` names the formats that `paperbench export`
    can write its trained models in; the module then implements `engine.task.Exports`. `precision`: what it computes in, where that
    is not for `precision=` to say.

    `datasets` are names of data sets of other packages (`digits`, `mnist`) that it can read besides those that name it themselves.

    `conventions` are dotted keys of its configuration that decide what its numbers mean: runs that differ in one must not be
    compared, and `paperbench compare` refuses to.
    """

    name: str
    verb: str
    summary: str
    schema: str
    module: str
    evaluated_by: str | None = None
    proposed_by: str | None = None
    takes_checkpoint: bool = False
    predicts: bool = False
    stacks: bool = False
    datasets: tuple[str, ...] = ()
    conventions: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A name that `model=` takes, or a variant of one, with its published source."""

    name: str
    tasks: tuple[str, ...]
    summary: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A name that `data=` takes. `layout` describes what `data.root` must hold; empty for generated data.

    `checker` is the `module:function` behind `paperbench data check`; `archives` are named in
    `paperbench.data.downloads`. `departures` is one that takes the `data` section of a configuration and returns in words what the
    files have other than the published ones: a run on other files is held against no published number. Empty: it is not known.
    """

    name: str
    tasks: tuple[str, ...] = ()
    summary: str
    layout: str
    homepage: str
    checker: str
    archives: tuple[str, ...] = ()
    departures: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric of `results.json`, or several whose names follow a pattern.

    `name` is the metric's name, or an `fnmatch` pattern (`*/test/errors`). `unit` stands behind a value (`%`, `nats`, `s`; empty
    for a plain number), `format` is a format specification for the value (`.1f`). `direction` says which values are better;
    `none` for a quantity of which that cannot be said. `headline`: worth a line when a run ends. `key`: the key of the
    configuration for which a run chose this value by itself, which is said beside its numbers in a published table. `timed`: read
    off a clock, so that two runs of the same configuration differ in it. The order of a package's metrics is the order in which
    they are shown.
    """

    name: str
    meaning: str
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    format: str = ".4g"
    headline: bool = False
    key: str = ""
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperSpec:
    """A paper whose numbers stand in `conf/paper/<name>.yaml`."""

    name: str
    title: str
    authors: str
    venue: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """What belongs to one package: a paper, or a family of them.

    `title`: the heading of its experiments in `paperbench ls`, by default the name. `program`: the versions of paperbench that it
    was made for, from the first, up to but without the second ("" is open). `conf`: the folder of its configurations, relative to
    the package. Its metrics are the `METRICS` of its module `metrics`, if it has one.
    """

    name: str
    title: str = ""
    program: tuple[str, str] = ("", "")
    tasks: tuple[TaskSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    datasets: tuple[DatasetSpec, ...] = ()
    papers: tuple[PaperSpec, ...] = ()
    conf: str = ""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A package in use. `module` is what its own modules lie in, `paperbench.stn`; `source` says where it is installed from."""

    package: Package
    module: str
    source: str

    @property
    def own(self) -> bool:
        """Whether it is part of the program."""
        return self.module.startswith(_OWN)

    @property
    def origin(self) -> str:
        """The source in the words of a message: `curve 0.1`, or `the program`."""
        return "the program" if self.own else self.source

    @property
    def conf(self) -> Path | None:
        """The folder of its configurations; None for the program's own packages, which share one."""
        if not self.package.conf:
            return None
        file = importlib.import_module(self.module).__file__
        return Path(file).parent / self.package.conf if file else None


_KINDS: dict[str, type] = {"tasks": TaskSpec, "models": ModelSpec, "datasets": DatasetSpec, "papers": PaperSpec}


def packages() -> tuple[Collected, ...]:
    """The packages in use, the program's own first, then by name."""
    return _collect()[0]


def notices() -> tuple[str, ...]:
    """What is wrong with installed packages that are left out, a sentence for each."""
    return _collect()[1]


@cache
def _collect() -> tuple[tuple[Collected, ...], tuple[str, ...]]:
    found: list[Collected] = []
    left_out: list[str] = []
    claimed: dict[tuple[str, str], str] = {}
    for name, target, source in _declared():
        what = f"package {name} ({source})"
        try:
            collected = _load(target, source)
            package, fits = collected.package, _made_for(collected.package.program)
            names = [("packages", package.name)]
            names += [(kind, spec.name) for kind in _KINDS for spec in getattr(package, kind)]
        except (Exception, SystemExit) as error:  # whatever an installed package does, the program goes on
            verb = "imported" if isinstance(error, ImportError) else "used"
            left_out.append(f"{what} is left out, it cannot be {verb}: {type(error).__name__}: {error}")
            continue
        if not fits:
            first, last = package.program
            left_out.append(
                f"{what} is left out, it was made for paperbench {first or 'any'} up to {last or 'any'}, and this is {__version__}"
            )
            continue
        taken = [(kind, name) for kind, name in names if (kind, name) in claimed]
        if taken:
            each = ", ".join(f"{kind[:-1]} {name} is {claimed[kind, name]}'s" for kind, name in taken)
            left_out.append(f"{what} is left out, it claims names that are taken: {each}")
            continue
        claimed |= dict.fromkeys(names, package.name) | {("packages", package.name): collected.origin}
        found.append(collected)
    return tuple(found), tuple(left_out)


def _declared() -> Iterator[tuple[str, str, str]]:
    """Name, `module:object` and source of every package. Ours are found without an entry point too: a source tree has none."""
    from importlib.metadata import entry_points

    folder = Path(__file__).parent
    own = {f"{_OWN}{file.parent.name}.catalog:PACKAGE": file.parent.name for file in folder.glob("*/catalog.py")}
    yield from ((name, target, "part of the program") for target, name in sorted(own.items()))
    others = {(entry.value, entry.name): entry for entry in entry_points(group=GROUP) if entry.value not in own}
    for entry in sorted(others.values(), key=lambda entry: entry.name):
        if not entry.value.startswith(_OWN):  # of an installation of the program whose packages have other names
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            yield entry.name, entry.value, source


def _load(target: str, source: str) -> Collected:
    name, _, attribute = target.partition(":")
    package = getattr(importlib.import_module(name), attribute)
    if not isinstance(package, Package):
        raise TypeError(f"{target} is no paperbench.catalog.Package")
    collected = Collected(package=package, module=name.rpartition(".")[0] or name, source=source)
    if not collected.own:  # the tests hold our own
        _check_package(package, target)
        if find_spec(module := f"{collected.module}.metrics"):
            _check_metrics(getattr(importlib.import_module(module), "METRICS", None), module)
    return collected


def _check_package(package: Package, where: str) -> None:
    """Raise `TypeError` for a declaration that is not of the declared kind."""
    if not _versions(package.program):
        raise TypeError(
            f"{where}: program={package.program!r}; give the first version it is made for and the first it is not"
        )
    _check_texts(package, where)
    for kind, spec_class in _KINDS.items():
        specs = getattr(package, kind)
        _check_specs(specs, spec_class, f"{where}: {kind}")
        for spec in specs:
            for field in ("schema", "module", "checker"):
                text = getattr(spec, field, None)
                if text is not None and (text.count(":") != (field != "module") or not all(text.split(":"))):
                    form = "MODULE" if field == "module" else "MODULE:NAME"
                    raise TypeError(f"{where}: {kind}, {spec.name}: {field}={text!r}; give {form}")


def _check_metrics(specs: object, where: str) -> None:
    _check_specs(specs, MetricSpec, f"{where}: METRICS")
    assert isinstance(specs, tuple | list)
    for spec in specs:
        if spec.direction not in ("higher", "lower", "none"):
            raise TypeError(f"{where}: {spec.name}: direction={spec.direction!r}; give higher, lower or none")
        try:
            format(1.0, spec.format)
        except ValueError:
            raise TypeError(f"{where}: {spec.name}: format={spec.format!r} is no format of a number") from None


def _check_specs(specs: object, spec_class: type, where: str) -> None:
    if not isinstance(specs, tuple | list):
        raise TypeError(f"{where} is {specs!r}; give a tuple of {spec_class.__name__}")
    names: set[str] = set()
    for spec in specs:
        if not isinstance(spec, spec_class):
            raise TypeError(f"{where} holds {spec!r}; give a tuple of {spec_class.__name__}")
        _check_texts(spec, where)
        name: str = getattr(spec, "name")  # noqa: B009 - every spec has one
        if name in names:
            raise TypeError(f"{where}: {name} stands there twice")
        names.add(name)


def _check_texts(spec: Any, where: str) -> None:
    """Raise `TypeError` where a field that is declared as text holds something else, or the name nothing."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        if (field.type == "str" and not isinstance(value, str)) or (field.name == "name" and not value):
            raise TypeError(f"{where}: {field.name}={value!r}; give text")


def _versions(program: object) -> bool:
    return isinstance(program, tuple) and len(program) == 2 and all(isinstance(text, str) for text in program)


def _made_for(program: tuple[str, str]) -> bool:
    first, last = program
    now = _numbers(__version__)
    return (not first or now >= _numbers(first)) and (not last or now < _numbers(last))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


def package_of(task: TaskSpec) -> str:
    """Return the package that declares a task in the words of a message: `package curve (curve 0.1)`."""
    found = next((item for item in packages() if task.name in {spec.name for spec in item.package.tasks}), None)
    return f"package {found.package.name} ({found.source})" if found else "no package"


_Spec = TypeVar("_Spec", TaskSpec, ModelSpec, DatasetSpec, PaperSpec)


class Names(MutableMapping[str, _Spec], Generic[_Spec]):
    """What all packages declare of one kind, by name. It is collected when it is first looked into."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._specs: dict[str, Any] | None = None

    def _filled(self) -> dict[str, Any]:
        if self._specs is None:
            self._specs = {spec.name: spec for item in packages() for spec in getattr(item.package, self._kind)}
            if self._kind == "datasets":
                for task in (task for item in packages() for task in item.package.tasks):
                    for name in task.datasets:
                        if (spec := self._specs.get(name)) is not None:
                            self._specs[name] = replace(spec, tasks=(*spec.tasks, task.name))
        return self._specs

    def __getitem__(self, name: str) -> _Spec:
        if not isinstance(name, str):  # a list in place of a name in a damaged configuration
            raise KeyError(name)
        return self._filled()[name]

    def __setitem__(self, name: str, spec: _Spec) -> None:
        self._filled()[name] = spec

    def __delitem__(self, name: str) -> None:
        del self._filled()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._filled())

    def __len__(self) -> int:
        return len(self._filled())


TASKS: Names[TaskSpec] = Names("tasks")
MODELS: Names[ModelSpec] = Names("models")
DATASETS: Names[DatasetSpec] = Names("datasets")
PAPERS: Names[PaperSpec] = Names("papers")
