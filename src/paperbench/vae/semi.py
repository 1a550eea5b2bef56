"""Semi-supervised learning with deep generative models (Kingma, Rezende, Mohamed and Welling, NIPS 2014): M1 and M2.

M1 trains a VAE on all images and a classifier on the latent variables of the labelled ones (section 2.1). M2 has the class y
beside z in p(x | y, z) p(y) p(z): the recognition model q(z | x, y) q(y | x) infers both, and q(y | x) is the classifier (section
2.2). C is the number of classes; the other letters are those of `bounds`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.vae.bounds import bernoulli_log_prob
from paperbench.vae.config import M1Model, M2Model
from paperbench.vae.model import Posterior
from paperbench.vae.nets import ACTIVATIONS, MlpFeatures


class SemiBatch(NamedTuple):
    """The images of a step: unlabelled (B, D); labelled (B', D), and their classes (B',) int64."""

    unlabelled: Tensor
    labelled: Tensor
    classes: Tensor


class JointFeatures(nn.Module):
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

    labelled_fraction: of all training images; the bounds of labelled and unlabelled images are weighted by it, so that the loss is
    that of an average image. `config.alpha` is the weight of the classification loss beside it (equation 9).
    """

    def __init__(self, config: M2Model, *, pixels: int, classes: int, labelled_fraction: float) -> None:
        super().__init__()
        latent, hidden, activation = config.latent, config.hidden, config.activation
        self.classes = classes
        self.latent = latent
        self.labelled_fraction = labelled_fraction
        self.alpha = config.alpha
        self.classifier = nn.Sequential(
            MlpFeatures(inputs=pixels, hidden=hidden, activation=activation), nn.Linear(hidden, classes)
        )
        self.encoder = JointFeatures(inputs=pixels, classes=classes, hidden=hidden, activation=activation)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = JointFeatures(inputs=latent, classes=classes, hidden=hidden, activation=activation)
        self.logits = nn.Linear(hidden, pixels)

    def log_q_classes(self, x: Tensor) -> Tensor:
        """Return log q(y | x): (B, D) -> (B, C)."""
        return F.log_softmax(self.classifier(x).float(), -1)

    def labelled_bound(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """Return the lower bound on log p(x, y), equation 6, with one sample.

        x (B, D), one-hot y (K, B, C), noise (K, B, L) -> (K, B).
        """
        h = self.encoder(x, y)
        posterior = Posterior(self.mean(h).float(), self.log_variance(h).float(), self.latent)
        z = posterior.mean + (0.5 * posterior.log_variance).exp() * noise
        log_likelihood = bernoulli_log_prob(x, self.logits(self.decoder(z, y)))
        return log_likelihood - math.log(self.classes) - posterior.kl()

    def unlabelled_bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the lower bound on log p(x), equation 7: the class is summed out under q(y | x).

        x (B, D), noise (C, B, L), one sample for each class -> (B,).
        """
        each = torch.eye(self.classes, device=x.device)[:, None, :].expand(-1, len(x), -1)
        log_q = self.log_q_classes(x).T
        return (log_q.exp() * (self.labelled_bound(x, each, noise) - log_q)).sum(0)

    def decode(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return the expected images: z (N, L), classes (N,) -> (N, D) in [0, 1]."""
        return torch.sigmoid(self.logits(self.decoder(z, self._one_hot(classes))).float())

    def forward(self, batch: SemiBatch, stream: torch.Generator) -> dict[str, Tensor]:
        x, labelled, classes = batch
        noise = torch.randn((self.classes, len(x), self.latent), generator=stream, device=x.device)
        unlabelled_bound = self.unlabelled_bound(x, noise).mean()
        noise = torch.randn((1, len(labelled), self.latent), generator=stream, device=x.device)
        labelled_bound = self.labelled_bound(labelled, self._one_hot(classes).unsqueeze(0), noise).mean()
        return {
            "loss_unlabelled": -(1 - self.labelled_fraction) * unlabelled_bound,
            "loss_labelled": -self.labelled_fraction * labelled_bound,
            "loss_classes": self.alpha * F.nll_loss(self.log_q_classes(labelled), classes),
        }

    def _one_hot(self, classes: Tensor) -> Tensor:
        return F.one_hot(classes, self.classes).float()


def make_classifier(config: M1Model) -> Any:
    """Build the classifier of M1 on features scaled to mean 0 and variance 1: scikit-learn's, with `fit` and `predict`.

    `svm` is a support vector machine with a radial kernel, `logistic` multinomial logistic regression. The same data give the same
    classifier.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    c = config.regularisation
    return make_pipeline(
        StandardScaler(), SVC(C=c) if config.classifier == "svm" else LogisticRegression(C=c, max_iter=1000)
    )
