"""The registry of metrics: what the packages and the engine declare about the numbers that runs write.

A package declares its metrics once, in the `METRICS` of its module `metrics`. The command line, the reports and the documents
read unit, format, direction and order from here. Imports no torch.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache

from paperbench.catalog import MetricSpec, packages
from paperbench.engine.metrics import METRICS as ENGINE_METRICS

UNKNOWN = MetricSpec(name="*", meaning="not declared")
"""Stands for a metric that no package declares: a plain number of which nothing is known."""


class MetricRegistry:
    """Declared metrics in their order. A name is looked up exactly first; then the first pattern that fits decides."""

    def __init__(self, specs: Iterable[MetricSpec]) -> None:
        self.specs = tuple(specs)
        self._exact = {spec.name: (rank, spec) for rank, spec in reversed(list(enumerate(self.specs)))}
        self._patterns = [(rank, spec) for rank, spec in enumerate(self.specs) if set(spec.name) & set("*?[")]
        self._found: dict[str, tuple[int, MetricSpec]] = {}

    def _look_up(self, name: str) -> tuple[int, MetricSpec]:
        if name not in self._found:
            fits = ((rank, spec) for rank, spec in self._patterns if fnmatchcase(name, spec.name))
            self._found[name] = self._exact.get(name) or next(fits, (len(self.specs), UNKNOWN))
        return self._found[name]

    def __getitem__(self, name: str) -> MetricSpec:
        """The declaration of a metric; `UNKNOWN` for one that was not declared."""
        return self._look_up(name)[1]

    def __contains__(self, name: str) -> bool:
        """True if the metric is declared."""
        return self[name] is not UNKNOWN

    def direction(self, name: str) -> str:
        """`higher` or `lower`, whichever is better; `none` for a metric of which that cannot be said."""
        return self[name].direction

    def best(self, name: str, values: Iterable[float]) -> float | None:
        """The best of several values; None without any, and for a metric of which that cannot be said."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite or self[name].direction == "none":
            return None
        return max(finite) if self[name].direction == "higher" else min(finite)

    def order(self, names: Iterable[str]) -> list[str]:
        """The names with the headlines first, in the order of declaration; the others as they come."""
        return sorted(dict.fromkeys(names), key=self._place)

    def _place(self, name: str) -> int:
        rank, spec = self._look_up(name)
        return rank if spec.headline else len(self.specs)

    def headlines(self, names: Iterable[str]) -> list[str]:
        """Those of the names that deserve a line when a run ends, in the order of declaration."""
        return [name for name in self.order(names) if self[name].headline]

    def headline(self, metrics: Mapping[str, float]) -> tuple[str, float | None]:
        """The first headline among the metrics, with its value; `("", None)` where there is none."""
        names = self.headlines(metrics)
        return (names[0], float(metrics[names[0]])) if names else ("", None)

    def number(self, name: str, value: float) -> str:
        """The value in the declared format, without its unit: `68.6`."""
        text = format(value, self[name].format)
        # A rounding that leaves nothing of a number would misstate it.
        return text if value == 0 or not math.isfinite(value) or _read(text) != 0 else f"{value:.2g}"

    def text(self, name: str, value: float) -> str:
        """The value with its unit: `68.6 %`."""
        return f"{self.number(name, value)} {self[name].unit}".rstrip()


def _read(text: str) -> float:
    return float(text.replace(",", ""))


# --- what is declared -------------------------------------------------------------------------------------------------


def declared_by(module: str) -> tuple[MetricSpec, ...]:
    """The metrics that the package with this dotted name declares; none where it has no module `metrics`."""
    try:
        metrics = importlib.import_module(f"{module}.metrics")
    except ModuleNotFoundError as error:
        if error.name != f"{module}.metrics":
            raise
        return ()
    return tuple(getattr(metrics, "METRICS", ()))


def declared_for(task: str) -> tuple[MetricSpec, ...]:
    """The metrics that runs of a task may write: its package's and the engine's."""
    own = next((item.module for item in packages() if any(spec.name == task for spec in item.package.tasks)), None)
    return (*(declared_by(own) if own else ()), *ENGINE_METRICS)


@cache
def all_metrics() -> MetricRegistry:
    """The metrics of all packages, the program's own first, then the engine's."""
    return MetricRegistry((*(spec for item in packages() for spec in declared_by(item.module)), *ENGINE_METRICS))


@cache
def metrics_of(task: str) -> MetricRegistry:
    """The metrics that runs of a task may write, then all others."""
    return MetricRegistry((*declared_for(task)[: -len(ENGINE_METRICS)], *all_metrics().specs))


# --- the document -----------------------------------------------------------------------------------------------------

_HEAD = """# Metrics

Every number that a run writes to `results.json`, package by package, in the order in which it is shown. `*` stands for any text,
such as the name of a class. The column "better" says which values a table marks as best and `paperbench runs --sort` puts first;
metrics in bold have a line in the summary of a run.

`python -m paperbench.records.metrics > docs/metrics.md` writes this file from the packages' declarations.
"""


def document() -> str:
    """Return the declared metrics of all packages as Markdown: `docs/metrics.md`."""
    sections = [(item.package.name, declared_by(item.module)) for item in packages() if item.own and item.package.tasks]
    return "\n".join([_HEAD, *(_section(title, specs) for title, specs in [*sections, ("every task", ENGINE_METRICS)])])


def _section(title: str, specs: Iterable[MetricSpec]) -> str:
    rows = [
        f"| {f'**`{spec.name}`**' if spec.headline else f'`{spec.name}`'} | {spec.meaning} | {spec.unit} "
        f"| {'' if spec.direction == 'none' else spec.direction} |"
        for spec in specs
    ]
    return "\n".join([f"## {title}", "", "| metric | meaning | unit | better |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(document())
