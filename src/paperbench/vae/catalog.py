"""What belongs to auto-encoding variational Bayes. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, ModelSpec, Package, PaperSpec, TaskSpec

TASKS = (
    TaskSpec(
        name="vae-train",
        verb="train",
        summary="train an auto-encoder and measure its bound and likelihood",
        schema="paperbench.vae.config:VaeTrain",
        module="paperbench.vae.task",
        evaluated_by="vae-eval",
        predicts=True,
        stacks=True,
        conventions=("binarisation", "data.divisor"),
        exports=("safetensors", "onnx", "torchscript"),
        datasets=(
            "digits",
            "mnist",
            "folders",
        ),
    ),
    TaskSpec(
        name="vae-eval",
        verb="eval",
        summary="measure a trained auto-encoder",
        schema="paperbench.vae.config:VaeEval",
        module="paperbench.vae.eval_task",
        takes_checkpoint=True,
        conventions=("binarisation", "data.divisor"),
        datasets=(
            "digits",
            "mnist",
            "folders",
        ),
    ),
    TaskSpec(
        name="vae-semi",
        verb="train",
        summary="classify with few labels by a generative model",
        schema="paperbench.vae.config:SemiTrain",
        module="paperbench.vae.semi_task",
        conventions=("binarisation",),
        datasets=(
            "digits",
            "mnist",
        ),
    ),
)

MODELS = (
    ModelSpec(
        name="vae",
        tasks=("vae-train", "vae-eval"),
        summary="variational auto-encoder, one hidden layer on each side",
        source="Kingma, Welling, Auto-Encoding Variational Bayes, ICLR 2014",
    ),
    ModelSpec(
        name="conv-vae",
        tasks=("vae-train", "vae-eval"),
        summary="variational auto-encoder with convolutions",
        source="Kingma, Welling, Auto-Encoding Variational Bayes, ICLR 2014; nets of this program",
    ),
    ModelSpec(
        name="beta-vae",
        tasks=("vae-train", "vae-eval"),
        summary="variational auto-encoder whose KL term weighs more",
        source="Higgins et al., beta-VAE, ICLR 2017",
    ),
    ModelSpec(
        name="autoencoder",
        tasks=("vae-train", "vae-eval"),
        summary="plain autoencoder, squared errors",
        source="Kingma, Welling, Auto-Encoding Variational Bayes, ICLR 2014, without its distributions",
    ),
    ModelSpec(
        name="m1",
        tasks=("vae-semi",),
        summary="latent features of a VAE, and a classifier on them",
        source="Kingma et al., Semi-Supervised Learning with Deep Generative Models, NIPS 2014",
    ),
    ModelSpec(
        name="m2",
        tasks=("vae-semi",),
        summary="generative model with the class as a latent variable",
        source="Kingma et al., Semi-Supervised Learning with Deep Generative Models, NIPS 2014",
    ),
)

DATASETS = (
    DatasetSpec(
        name="frey",
        tasks=("vae-train", "vae-eval"),
        summary="Frey faces, 1,965 frames of 28x20",
        layout="frey/frey_rawface.mat",
        homepage="https://cs.nyu.edu/~roweis/data.html",
        checker="paperbench.vae.data:check",
        departures="paperbench.vae.data:departures",
    ),
)

PAPERS = (
    PaperSpec(
        name="vae",
        title="Auto-Encoding Variational Bayes",
        authors="Kingma, Welling",
        venue="ICLR 2014",
        url="https://arxiv.org/abs/1312.6114",
    ),
    PaperSpec(
        name="iwae",
        title="Importance Weighted Autoencoders",
        authors="Burda, Grosse, Salakhutdinov",
        venue="ICLR 2016",
        url="https://arxiv.org/abs/1509.00519",
    ),
    PaperSpec(
        name="vampprior",
        title="VAE with a VampPrior",
        authors="Tomczak, Welling",
        venue="AISTATS 2018",
        url="https://arxiv.org/abs/1705.07120",
    ),
    PaperSpec(
        name="hvae",
        title="Hamiltonian Variational Auto-Encoder",
        authors="Caterini, Doucet, Sejdinovic",
        venue="NeurIPS 2018",
        url="https://arxiv.org/abs/1805.11328",
    ),
    PaperSpec(
        name="svae",
        title="Hyperspherical Variational Auto-Encoders",
        authors="Davidson, Falorsi, De Cao, Kipf, Tomczak",
        venue="UAI 2018",
        url="https://arxiv.org/abs/1804.00891",
    ),
)

PACKAGE = Package(
    name="vae", title="Auto-Encoding Variational Bayes", tasks=TASKS, models=MODELS, datasets=DATASETS, papers=PAPERS
)
