"""A VAE, a spatial transformer and a distilled student, each trained by a float32 loop written from its paper in plain PyTorch.

Of the program's code they use the readers of images alone: nets, first weights, order of images, distortions, losses, optimizer and
schedule are written here. Images are (N, 1, 28, 28) in 0..1, labels (N,). `benchmarks.accuracy` holds the results against those of
the program with the same settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.data import digits

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`samples` images in batches of `batch`, at a rate that rises over `warmup` steps and then stays or falls as a cosine."""

    samples: int
    batch: int
    rate: float
    warmup: int = 0
    cosine: bool = False

    @property
    def steps(self) -> int:
        """Number of steps; a last one that is not full counts."""
        return -(-self.samples // self.batch)

    def factor(self, step: int) -> float:
        """The multiple of the rate at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if not self.cosine:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


def load(split: str) -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as images (N, 1, 28, 28) in 0..1, and their labels."""
    images = digits.load("train" if split == "train" else "test")
    return images.images[:, None].float() / 255, images.labels


def batches(count: int, schedule: Schedule) -> Iterator[Tensor]:
    """Yield the indices of every step: one pass after another, each in a random order."""
    rows = torch.cat([torch.randperm(count) for _ in range(-(-schedule.samples // count) + 1)])
    for step in range(schedule.steps):
        yield rows[step * schedule.batch : (step + 1) * schedule.batch]


def fit(net: nn.Module, count: int, schedule: Schedule, loss: Callable[[Tensor], Tensor]) -> None:
    """Train `net` with Adam; `loss` maps the indices of a batch to a scalar."""
    optimizer = torch.optim.Adam(net.parameters(), lr=schedule.rate)
    net.train()
    for step, rows in enumerate(batches(count, schedule)):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * schedule.factor(step)
        optimizer.zero_grad()
        loss(rows).backward()
        optimizer.step()
    net.eval()


# --- auto-encoding variational Bayes ----------------------------------------------------------------------------------


class Vae(nn.Module):
    """Kingma and Welling, appendix C: one hidden layer of tanh in encoder and decoder, Bernoulli pixels.

    Weights begin at N(0, 1 / fan-in), biases at 0.
    """

    def __init__(self, *, hidden: int, latent: int) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(784, hidden), nn.Linear(latent, hidden)
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.pixels = nn.Linear(hidden, 784)
        for layer in self.children():
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)

    def bound(self, x: Tensor) -> Tensor:
        """Return the bound of equation 10 in nats, one sample for each image: (B, 784) -> (B,)."""
        h = torch.tanh(self.encode(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits = self.pixels(torch.tanh(self.decode(z)))
        reconstruction = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return reconstruction + 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)


def vae(seed: int, schedule: Schedule, *, hidden: int = 500, latent: int = 20) -> dict[str, float]:
    """Return `test/bound`, in nats an image, grey pixels as probabilities."""
    torch.manual_seed(seed)
    (train, _), (test, _) = load("train"), load("test")
    model = Vae(hidden=hidden, latent=latent)
    fit(model, len(train), schedule, lambda rows: -model.bound(train[rows].flatten(1)).mean())
    with torch.no_grad():
        return {"test/bound": model.bound(test.flatten(1)).double().mean().item()}


# --- spatial transformer networks -------------------------------------------------------------------------------------


class StCnn(nn.Module):
    """Jaderberg et al., appendix A.4: a localisation net of two convolutions, an affine transformer, and CNN on 28 x 28 pixels."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.localise = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 20, 5), nn.ReLU(),
            nn.Flatten(), nn.Linear(20, 20), nn.ReLU(),
        )  # fmt: skip
        self.theta = nn.Linear(20, 6)
        nn.init.zeros_(self.theta.weight)
        with torch.no_grad():
            self.theta.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.classify = nn.Sequential(
            nn.Conv2d(1, filters, 9), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(filters, filters, 7), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * filters, CLASSES),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> logits (B, 10)."""
        return self.classify(warp(images, self.theta(self.localise(images)).view(-1, 2, 3)))


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Resample images (B, 1, H, W) by affine maps (B, 2, 3) from output to input positions, zeros beyond the border."""
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def rotate(images: Tensor) -> Tensor:
    """Turn each image by an angle of its own, uniform in -90 to 90 degrees (R)."""
    angle = math.pi * (torch.rand(len(images)) - 0.5)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(images))
    return warp(images, torch.stack([cos, sin, zero, -sin, cos, zero], 1).view(-1, 2, 3))


def stn(seed: int, schedule: Schedule, *, filters: int = 16) -> dict[str, float]:
    """Return `test/error` in percent of ST-CNN on rotated digits; the test set is turned once, the same for all seeds."""
    torch.manual_seed(0)
    (train, labels), (test, wanted) = load("train"), load("test")
    test = rotate(test)
    torch.manual_seed(seed)
    net = StCnn(filters)
    fit(net, len(train), schedule, lambda rows: F.cross_entropy(net(rotate(train[rows])), labels[rows]))
    return {"test/error": error(net, test, wanted)}


@torch.no_grad()
def error(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the images whose largest logit is not that of their label, in percent."""
    return 100 * (net(images).argmax(1) != labels).double().mean().item()


# --- distillation -----------------------------------------------------------------------------------------------------


def mlp(width: int, *, dropout: float = 0.0, input_dropout: float = 0.0) -> nn.Sequential:
    """Return two hidden layers of ReLUs; weights begin as He et al. (2015) draw them."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
    for inputs in (784, width):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
    net = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return net


def jitter(images: Tensor, reach: int = 2) -> Tensor:
    """Shift each image by up to `reach` whole pixels in each direction; what enters is black."""
    padded = F.pad(images, (reach,) * 4)
    shifts = torch.randint(0, 2 * reach + 1, (len(images), 2)).tolist()
    return torch.stack([image[:, y : y + 28, x : x + 28] for image, (y, x) in zip(padded, shifts, strict=True)])


@torch.no_grad()
def constrain(net: nn.Module, largest: float) -> None:
    """Scale the weights into each unit down to a norm of `largest` (Srivastava et al., 2014, section 5.1)."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(layer.weight.renorm(2, 0, largest))


def distill(
    seed: int,
    teaching: Schedule,
    learning: Schedule,
    *,
    teacher_width: int = 400,
    student_width: int = 50,
    temperature: float = 20.0,
    hard_weight: float = 0.1,
) -> dict[str, float]:
    """Return the errors in percent of a teacher with dropout, of a student on labels and of one distilled from the teacher."""
    torch.manual_seed(seed)
    (train, labels), (test, wanted) = load("train"), load("test")
    teacher = mlp(teacher_width, dropout=0.5, input_dropout=0.2)

    def teach(rows: Tensor) -> Tensor:
        constrain(teacher, 15**0.5)
        return F.cross_entropy(teacher(jitter(train[rows])), labels[rows])

    fit(teacher, len(train), teaching, teach)
    constrain(teacher, 15**0.5)
    with torch.no_grad():
        targets = F.softmax(teacher(train) / temperature, 1)
    baseline, student = mlp(student_width), mlp(student_width)
    student.load_state_dict(baseline.state_dict())
    fit(baseline, len(train), learning, lambda rows: F.cross_entropy(baseline(train[rows]), labels[rows]))

    def learn(rows: Tensor) -> Tensor:
        logits = student(train[rows])
        soft = F.kl_div(F.log_softmax(logits / temperature, 1), targets[rows], reduction="batchmean")
        return temperature**2 * soft + hard_weight * F.cross_entropy(logits, labels[rows])

    fit(student, len(train), learning, learn)
    return {
        f"{name}/test/error": error(net, test, wanted)
        for name, net in (("teacher", teacher), ("baseline", baseline), ("distilled", student))
    }
