"""Data sets that tasks of several papers read. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, Package

DATASETS = (
    DatasetSpec(
        name="digits",
        summary="scikit-learn's 1,797 handwritten digits, enlarged to 28x28",
        layout="",
        homepage="",
        checker="paperbench.data.labelled:check",
    ),
    DatasetSpec(
        name="mnist",
        summary="MNIST, 70,000 handwritten digits",
        layout="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
        homepage="http://yann.lecun.com/exdb/mnist/",
        checker="paperbench.data.labelled:check",
        departures="paperbench.data.labelled:departures",
        archives=("mnist-train-images", "mnist-train-labels", "mnist-test-images", "mnist-test-labels"),
    ),
    DatasetSpec(
        name="folders",
        summary="your own photographs, in a folder for each class",
        layout="{train,test}/CLASS/*.jpg, or CLASS/*.jpg",
        homepage="",
        checker="paperbench.data.photographs:check",
    ),
)

PACKAGE = Package(name="data", datasets=DATASETS)
