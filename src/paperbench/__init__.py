"""Run landmark deep-learning papers and hold every measured number against the one the paper printed.

Everything that is public stands in `__all__` and is imported when it is first used, so that `import paperbench` is quick and
loads no torch. docs/python.md shows how the names are used; `__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "train": "paperbench.api:train",
    "evaluate": "paperbench.api:evaluate",
    "estimate": "paperbench.api:estimate",
    "resume": "paperbench.api:resume",
    "sweep": "paperbench.api:sweep",
    "reproduce": "paperbench.api:reproduce",
    "load": "paperbench.api:load",
    "runs": "paperbench.api:runs",
    "Run": "paperbench.api:Run",
    "Runs": "paperbench.api:Runs",
    "Sweep": "paperbench.api:Sweep",
    "Reproduction": "paperbench.api:Reproduction",
    "errors": "paperbench.errors",
    # Parts of the papers, for tensors and arrays
    "SpatialTransformer": "paperbench.stn.transformer:SpatialTransformer",
    "grids": "paperbench.stn.grids",
    "distillation_loss": "paperbench.distill.losses:distillation_loss",
    "soft_loss": "paperbench.distill.losses:soft_loss",
    "logit_matching": "paperbench.distill.losses:logit_matching",
    "roi_align": "paperbench.detection.roi_pooling:roi_align",
    "generate_anchors": "paperbench.detection.anchors:generate_anchors",
    "selective_search": "paperbench.detection.proposals.selective_search:selective_search",
    "voc_average_precision": "paperbench.detection.evaluation.voc:voc_average_precision",
    "elbo": "paperbench.vae.bounds:elbo",
    "elbo_analytic": "paperbench.vae.bounds:elbo_analytic",
    "importance_bound": "paperbench.vae.bounds:importance_bound",
    "estimate_quality": "paperbench.rca.quality:estimate_quality",
}
"""Public name -> `module` or `module:attribute` that it is imported from."""

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'paperbench' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
