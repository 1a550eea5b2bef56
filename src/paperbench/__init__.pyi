"""The public names, for type checkers."""

from paperbench import errors as errors
from paperbench.api import Reproduction as Reproduction
from paperbench.api import Run as Run
from paperbench.api import Runs as Runs
from paperbench.api import Sweep as Sweep
from paperbench.api import estimate as estimate
from paperbench.api import evaluate as evaluate
from paperbench.api import load as load
from paperbench.api import reproduce as reproduce
from paperbench.api import resume as resume
from paperbench.api import runs as runs
from paperbench.api import sweep as sweep
from paperbench.api import train as train
from paperbench.detection.anchors import generate_anchors as generate_anchors
from paperbench.detection.evaluation.voc import voc_average_precision as voc_average_precision
from paperbench.detection.proposals.selective_search import selective_search as selective_search
from paperbench.detection.roi_pooling import roi_align as roi_align
from paperbench.distill.losses import distillation_loss as distillation_loss
from paperbench.distill.losses import logit_matching as logit_matching
from paperbench.distill.losses import soft_loss as soft_loss
from paperbench.rca.quality import estimate_quality as estimate_quality
from paperbench.stn import grids as grids
from paperbench.stn.transformer import SpatialTransformer as SpatialTransformer
from paperbench.vae.bounds import elbo as elbo
from paperbench.vae.bounds import elbo_analytic as elbo_analytic
from paperbench.vae.bounds import importance_bound as importance_bound

__version__: str
__all__ = [
    "Reproduction",
    "Run",
    "Runs",
    "SpatialTransformer",
    "Sweep",
    "__version__",
    "distillation_loss",
    "elbo",
    "elbo_analytic",
    "errors",
    "estimate",
    "estimate_quality",
    "evaluate",
    "generate_anchors",
    "grids",
    "importance_bound",
    "load",
    "logit_matching",
    "reproduce",
    "resume",
    "roi_align",
    "runs",
    "selective_search",
    "soft_loss",
    "sweep",
    "train",
    "voc_average_precision",
]
