"""The keys of the VAE tasks. Defaults are the paper's; `conf/` says where an experiment departs from them.

Section numbers are those of Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014 (arXiv 1312.6114).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from paperbench.config.schema import (
    CIRCUMSTANTIAL,
    OR_NAME,
    AnyPath,
    DataRoot,
    Formerly,
    NonNegativeFloat,
    NonNegativeInt,
    OptimConfig,
    PositiveFloat,
    PositiveInt,
    Schema,
    TrainConfig,
)
from paperbench.data.image_sets import DigitsData, FoldersData, ImageSetConfig, MnistData

Binarisation = Literal["grey", "dynamic", "static"]
"""How pixels become what a Bernoulli likelihood is asked about: their grey values as they are, a black or white one drawn anew
whenever an image is seen, or one drawn once and for all. Numbers of two of them must not be compared."""
Activation = Literal["tanh", "relu"]
BoundForm = Literal["analytic", "sampled", "importance"]


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class FreyData(ImageSetConfig):
    """The Frey faces: `frey/frey_rawface.mat`, 1,965 images of 28 x 20."""

    name: Literal["frey"] = "frey"
    root: DataRoot = None
    test_images: PositiveInt = 365
    """Held back from a fixed shuffle; the paper does not say how it split them."""
    divisor: Literal[255, 256] = 256
    """Pixels are divided by it. The authors' code takes 256; densities depend on it."""


DataConfig = Annotated[DigitsData | MnistData | FreyData | FoldersData, Field(discriminator="name")]


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class NetConfig(Schema):
    """Encoder and decoder, mirror images of each other."""

    net: Literal["mlp", "conv"] = "mlp"
    """`mlp`: one hidden layer (appendix C). `conv`: two convolutions of stride 2 and a hidden layer."""
    latent: PositiveInt = 20
    hidden: PositiveInt = 500
    activation: Activation = "tanh"
    channels: PositiveInt = 32
    """Of the first convolution; the second has twice as many."""
    init_std: PositiveFloat | None = None
    """Standard deviation of weights and biases at the start; null is 1 / sqrt(fan-in) for weights and 0 for biases. The paper's
    N(0, 0.01) is 0.1 if it names the variance, 0.01 if the deviation."""


@dataclass(kw_only=True)
class VaeModel(NetConfig):
    """A generative model p(x | z) p(z) and an encoder q(z | x)."""

    name: Literal["vae"] = "vae"
    likelihood: Literal["auto", "bernoulli", "gaussian"] = "auto"
    """Of a pixel; `auto` is Bernoulli for digits and Gaussian for faces, as in the paper, and for photographs."""
    min_log_variance: float | None = None
    """Lower limit on a Gaussian pixel's log-variance; null is none, as in the paper."""
    beta: PositiveFloat = 1.0
    """Weight of the KL term in training; 1 is the bound itself."""


@dataclass(kw_only=True)
class AutoencoderModel(NetConfig):
    """A plain autoencoder, trained on squared errors."""

    name: Literal["autoencoder"] = "autoencoder"


ModelConfig = Annotated[VaeModel | AutoencoderModel, Field(discriminator="name")]


# --- estimators -------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class BoundConfig(Schema):
    """The bound that `estimator=aevb` maximises."""

    form: BoundForm = "analytic"
    """`analytic`: KL in closed form (estimator B); `sampled`: estimator A; `importance`: importance-weighted."""
    samples: PositiveInt = 1
    """Of the latent variables, for each image (the paper's L, the k of the importance-weighted bound)."""


@dataclass(kw_only=True)
class McemConfig(Schema):
    """Monte Carlo EM, appendix E."""

    leapfrog_steps: PositiveInt = 10
    updates: PositiveInt = 5
    """Weight updates for each sample of the posterior; each counts its batch as samples seen."""
    acceptance: Annotated[float, Field(gt=0, lt=1)] = 0.9


# --- the rate ---------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class VaeOptimConfig(OptimConfig):
    """Optimizer and schedule, whose rate a run may choose by itself."""

    lr: PositiveFloat | Literal["auto"] = 1e-3  # pyright: ignore[reportIncompatibleVariableOverride]
    """`auto` is the best of `rate_search.rates` on the training set in the first iterations, the paper's rule."""


@dataclass(kw_only=True)
class RateSearchConfig(Schema):
    """How `optim.lr=auto` chooses (section 5)."""

    rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.01, 0.02, 0.1)
    samples: PositiveInt = 60_000
    """Training samples seen with each rate, apart from `train.samples`. The paper says "the first few iterations", this is one pass
    over MNIST."""


# --- evaluation -------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class MarginalConfig(Schema):
    """The estimator of appendix D, for fewer than five latent dimensions."""

    images: NonNegativeInt | None = None
    """First images of the training and of the test set that it is computed for (the paper: 1000); 0 leaves it out. Null is 1000
    with `estimator=mcem`, which has no bound to measure, and 0 otherwise."""
    samples: Annotated[int, Field(ge=10)] = 50
    leapfrog_steps: PositiveInt = 4
    transitions: PositiveInt = 1
    """HMC transitions between two samples."""
    burn_in: NonNegativeInt = 100
    """Transitions in which each chain finds its own step size."""
    acceptance: Annotated[float, Field(gt=0, lt=1)] = 0.9
    density: Literal["gaussian", "kde"] = "gaussian"


@dataclass(kw_only=True)
class EvaluationConfig(Schema):
    """What is measured, and on how much. Evaluation computes in float32."""

    at_samples: Annotated[tuple[PositiveInt, ...], CIRCUMSTANTIAL] = ()
    """Numbers of samples seen after which to evaluate as well, which moves nothing else; those beyond `train.samples` are never
    reached."""
    train_images: NonNegativeInt = 10_000
    """First training images that `train/bound` is measured on; 0 is all."""
    importance_samples: NonNegativeInt = 1000
    """For `test/nll`, of each image; 0 leaves it out."""
    likelihood_images: NonNegativeInt = 0
    """First test images that `test/nll` is measured on; 0 is all."""
    marginal: MarginalConfig = field(default_factory=MarginalConfig)
    pictures: Annotated[bool, CIRCUMSTANTIAL] = True
    """Whether to draw samples, reconstructions and the like in `figures/`."""


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class VaeTrain(TrainConfig):
    """Task `vae-train`."""

    data: DataConfig = field(default_factory=DigitsData)
    model: ModelConfig = field(default_factory=VaeModel)
    optim: VaeOptimConfig = field(default_factory=VaeOptimConfig)  # pyright: ignore[reportIncompatibleVariableOverride]
    rate_search: RateSearchConfig = field(default_factory=RateSearchConfig)
    binarisation: Binarisation = "grey"
    estimator: Literal["aevb", "wake-sleep", "mcem"] = "aevb"
    bound: BoundConfig = field(default_factory=BoundConfig)
    mcem: McemConfig = field(default_factory=McemConfig)
    prior: bool = False
    """Whether the generative model's weights have the prior N(0, I), as in the paper (MAP): a weight decay of 1 / number of
    training images."""
    compile: Literal["auto", "on", "off"] = "off"
    """Whether the losses run through torch.compile; `auto` where it pays: long runs on a machine with a C++ compiler."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def marginal_images(self) -> int:
        """`evaluation.marginal.images`, with its default by the estimator."""
        wanted = self.evaluation.marginal.images
        if wanted is None:
            return 1000 if self.estimator == "mcem" else 0
        return wanted


@dataclass(kw_only=True)
class VaeEval(VaeTrain):
    """Task `vae-eval` on a trained run: its own configuration, with what the command line changes."""

    checkpoint: Annotated[AnyPath, OR_NAME] = ""
    """Run directory, or a checkpoint file below one."""


# --- semi-supervised learning -----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class SemiModel(Schema):
    """Nets of Kingma, Rezende, Mohamed and Welling (NIPS 2014): one hidden layer each."""

    latent: PositiveInt = 50
    hidden: PositiveInt = 500
    activation: Activation = "relu"
    init_std: PositiveFloat | None = None


@dataclass(kw_only=True)
class M1Model(SemiModel):
    """Latent features of a VAE of all images, and a classifier on those of the labelled ones."""

    name: Literal["m1"] = "m1"
    classifier: Literal["svm", "logistic"] = "svm"
    regularisation: PositiveFloat = 1.0
    """The classifier's C: smaller is smoother."""


@dataclass(kw_only=True)
class M2Model(SemiModel):
    """A model p(x | y, z) whose class y is a latent variable of unlabelled images."""

    name: Literal["m2"] = "m2"
    alpha: NonNegativeFloat = 0.1
    """Weight of the classification loss of the labelled images beside the bound of an image (equation 9)."""


@dataclass(kw_only=True)
class SemiTrain(TrainConfig):
    """Task `vae-semi`."""

    data: Annotated[DigitsData | MnistData, Field(discriminator="name")] = field(default_factory=DigitsData)
    model: Annotated[M1Model | M2Model, Field(discriminator="name")] = field(default_factory=M2Model)
    binarisation: Binarisation = "grey"
    labels: Annotated[PositiveInt, Formerly("labelled")] = 100
    """Number of labelled training images, equal for all classes; the labels of the others are not used."""
    labelled_batch_size: Annotated[PositiveInt, Formerly("labelled_batch")] = 50
    """Labelled images in each step of M2, beside `train.batch_size` unlabelled ones."""
