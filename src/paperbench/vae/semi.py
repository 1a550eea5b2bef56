"""Semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed and Welling, NIPS 2014): M1 and M2.

M1 trains a VAE on all images and a classifier on the latent variables of the labelled ones (section 2.1). M2 has the class y
beside z in p(x | y, z) p(y) p(z): a guide q(z | x, y) q(y | x) infers both, and q(y | x) is the classifier (section 2.2). C is the
number of classes; the other letters are those of `densities`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.vae.densities import bernoulli_log_prob
from paperbench.vae.model import Posterior
from paperbench.vae.nets import ACTIVATIONS, MlpFeatures


class SemiBatch(NamedTuple):
    """The images of a step: without labels (B, D); with them (B', D), and their classes (B',) int64."""

    unlabelled: Tensor
    labelled: Tensor
    classes: Tensor


class FeaturesOfBoth(nn.Module):
    """Hidden units of an input and a class: input (..., inputs), one-hot class (..., C) -> (..., hidden).

    One layer on both together, written as a sum, so that the products with the input are taken once for all classes.
    """

    def __init__(self, *, inputs: int, classes: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.of_input = nn.Linear(inputs, hidden)
        self.of_class = nn.Linear(classes, hidden, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.activation(self.of_input(x) + self.of_class(y))


class M2(nn.Module):
    """`forward(batch, stream)` as `engine.trainer.Trainer` calls it.

    share_labelled: of all training images, those with a label: the bounds of the two kinds are weighted by it, so that the loss
    is that of an average image. alpha: weight of the classification loss beside it (equation 9).
    """

    def __init__(
        self,
        *,
        pixels: int,
        classes: int,
        latent: int,
        hidden: int,
        activation: str,
        share_labelled: float,
        alpha: float,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.latent = latent
        self.share_labelled = share_labelled
        self.alpha = alpha
        self.classifier = nn.Sequential(
            MlpFeatures(inputs=pixels, hidden=hidden, activation=activation), nn.Linear(hidden, classes)
        )
        self.encoder = FeaturesOfBoth(inputs=pixels, classes=classes, hidden=hidden, activation=activation)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = FeaturesOfBoth(inputs=latent, classes=classes, hidden=hidden, activation=activation)
        self.logits = nn.Linear(hidden, pixels)

    def log_q_classes(self, x: Tensor) -> Tensor:
        """log q(y | x): (B, D) -> (B, C)."""
        return F.log_softmax(self.classifier(x).float(), -1)

    def bound(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """Lower bound of log p(x, y), equation 6, with one sample: x (B, D), one-hot y (K, B, C), noise (K, B, L) -> (K, B)."""
        h = self.encoder(x, y)
        posterior = Posterior(self.mean(h).float(), self.log_variance(h).float(), self.latent)
        z = posterior.mean + (0.5 * posterior.log_variance).exp() * noise
        log_likelihood = bernoulli_log_prob(x, self.logits(self.decoder(z, y)))
        return log_likelihood - math.log(self.classes) - posterior.kl()

    def bound_without_label(self, x: Tensor, noise: Tensor) -> Tensor:
        """Lower bound of log p(x), equation 7: the class summed out under q(y | x). Noise (C, B, L), one for each class."""
        each = torch.eye(self.classes, device=x.device)[:, None, :].expand(-1, len(x), -1)
        log_q = self.log_q_classes(x).T
        return (log_q.exp() * (self.bound(x, each, noise) - log_q)).sum(0)

    def image(self, z: Tensor, classes: Tensor) -> Tensor:
        """Expected images: z (N, L), classes (N,) -> (N, D) in [0, 1]."""
        return torch.sigmoid(self.logits(self.decoder(z, self._one_hot(classes))).float())

    def forward(self, batch: SemiBatch, stream: torch.Generator) -> dict[str, Tensor]:
        x, with_label, classes = batch
        free = torch.randn((self.classes, len(x), self.latent), generator=stream, device=x.device)
        bound_free = self.bound_without_label(x, free).mean()
        known = torch.randn((1, len(with_label), self.latent), generator=stream, device=x.device)
        bound_known = self.bound(with_label, self._one_hot(classes).unsqueeze(0), known).mean()
        return {
            "loss_unlabelled": -(1 - self.share_labelled) * bound_free,
            "loss_labelled": -self.share_labelled * bound_known,
            "loss_classes": self.alpha * F.nll_loss(self.log_q_classes(with_label), classes),
        }

    def _one_hot(self, classes: Tensor) -> Tensor:
        return F.one_hot(classes, self.classes).float()


def classifier_of_features(kind: str, *, regularisation: float) -> Any:
    """A support vector machine with a radial kernel (`svm`), or multinomial logistic regression (`logistic`), on features
    scaled to mean 0 and variance 1: scikit-learn's, with `fit` and `predict`. The same data give the same classifier."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = SVC(C=regularisation) if kind == "svm" else LogisticRegression(C=regularisation, max_iter=1000)
    return make_pipeline(StandardScaler(), model)
