"""Tasks, models, data sets and papers of distillation. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, ModelSpec, Package, PaperSpec, TaskSpec

_DISTILL = ("distill", "distill-specialists")

TASKS = (
    TaskSpec(
        name="distill",
        verb="train",
        summary="distil a teacher into a student, and train a baseline on labels alone",
        schema="paperbench.distill.config:Distill",
        module="paperbench.distill.task",
        stacks=True,
        predicts=True,
        exports=("safetensors", "onnx", "torchscript"),
        datasets=(
            "digits",
            "mnist",
            "folders",
        ),
    ),
    TaskSpec(
        name="distill-specialists",
        verb="train",
        summary="a generalist, and specialists on the classes it confuses",
        schema="paperbench.distill.config:Specialists",
        module="paperbench.distill.specialists.task",
        datasets=(
            "digits",
            "mnist",
        ),
    ),
)

MODELS = (
    ModelSpec(
        name="mlp",
        tasks=("distill", "distill-specialists"),
        summary="hidden layers of ReLUs: students of 2x800 and teachers of 2x1200",
        source="Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015",
    ),
    ModelSpec(
        name="convnet",
        tasks=("distill", "distill-specialists"),
        summary="blocks of a 3x3 convolution, batch normalisation, ReLU and pooling",
        source="this program's own, for colour images",
    ),
    ModelSpec(
        name="torchvision",
        tasks=("distill",),
        summary="any classifier of torchvision, from scratch or from weights in a file",
        source="torchvision",
    ),
)

DATASETS = (
    DatasetSpec(
        name="digit-pairs",
        tasks=_DISTILL,
        summary="pairs of overlapping digits, 45 classes, from scikit-learn's digits or from MNIST",
        layout="",
        homepage="",
        checker="paperbench.distill.datasets:check",
        departures="paperbench.distill.datasets:departures",
    ),
    DatasetSpec(
        name="emnist",
        tasks=_DISTILL,
        summary="EMNIST, 131,600 handwritten letters and digits of 47 classes (balanced), and its other variants",
        layout="EMNIST/raw/emnist-<split>-{train,test}-{images-idx3,labels-idx1}-ubyte[.gz]",
        homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
        checker="paperbench.distill.datasets:check",
        departures="paperbench.distill.datasets:departures",
        archives=("emnist",),
    ),
    DatasetSpec(
        name="cifar100",
        tasks=_DISTILL,
        summary="CIFAR-100, 60,000 pictures of 32x32 in 100 classes",
        layout="cifar-100-python/{train,test,meta}",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        checker="paperbench.distill.datasets:check",
        departures="paperbench.distill.datasets:departures",
        archives=("cifar100",),
    ),
)

PAPERS = (
    PaperSpec(
        name="distill",
        title="Distilling the Knowledge in a Neural Network",
        authors="Hinton, Vinyals, Dean",
        venue="arXiv 2015",
        url="https://arxiv.org/abs/1503.02531",
    ),
)

PACKAGE = Package(
    name="distill",
    title="Distilling the Knowledge in a Neural Network",
    tasks=TASKS,
    models=MODELS,
    datasets=DATASETS,
    papers=PAPERS,
)
