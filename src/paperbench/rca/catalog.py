"""Tasks, models, data sets and papers of reverse classification accuracy. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, ModelSpec, Package, PaperSpec, TaskSpec

_SEGMENTATION = ("rca-estimate", "rca-segmenters", "segment-train")

TASKS = (
    TaskSpec(
        name="rca-estimate",
        verb="estimate",
        summary="predict the quality of segmentations without ground truth",
        schema="paperbench.rca.config:RcaEstimate",
        module="paperbench.rca.task",
        precision="float64 (cnn: float32)",
    ),
    TaskSpec(
        name="rca-segmenters",
        verb="estimate",
        summary="train segmenters, and predict the quality of their masks without ground truth",
        schema="paperbench.rca.segmenters.config:RcaSegmenters",
        module="paperbench.rca.segmenters.study_task",
    ),
    TaskSpec(
        name="rca-scores",
        verb="estimate",
        summary="predict quality from reference scores of another program",
        schema="paperbench.rca.config:RcaScores",
        module="paperbench.rca.scores_task",
        precision="float64",
    ),
    TaskSpec(
        name="segment-train",
        verb="train",
        summary="train a segmenter, and write its masks at several stages",
        schema="paperbench.rca.segmenters.config:SegmentTrain",
        module="paperbench.rca.segmenters.task",
    ),
)

MODELS = (
    ModelSpec(
        name="unet",
        tasks=("segment-train",),
        summary="a small U-Net, at several stages of its training",
        source="Ronneberger et al., U-Net, MICCAI 2015; the size is ours",
    ),
    ModelSpec(
        name="forest",
        tasks=("segment-train",),
        summary="a random forest on offset box features",
        source="Valindria et al., Reverse Classification Accuracy, IEEE TMI 2017; the features' numbers are ours",
    ),
    ModelSpec(
        name="multi-atlas",
        tasks=("segment-train",),
        summary="majority vote of the labels of training images registered to the image",
        source="Valindria et al., Reverse Classification Accuracy, IEEE TMI 2017; registration and vote are ours",
    ),
)

DATASETS = (
    DatasetSpec(
        name="phantoms",
        tasks=_SEGMENTATION,
        summary="generated bodies with five organs, in two or three dimensions",
        layout="",
        homepage="",
        checker="paperbench.rca.datasets:check",
    ),
    DatasetSpec(
        name="jsrt",
        tasks=_SEGMENTATION,
        summary="JSRT's 247 chest radiographs with five organs, with bit-field masks",
        layout="JSRT/{images,masks}",
        homepage="http://db.jsrt.or.jp/eng.php",
        checker="paperbench.rca.datasets:check",
        departures="paperbench.rca.datasets:departures",
    ),
    DatasetSpec(
        name="hippocampus",
        tasks=_SEGMENTATION,
        summary="Medical Segmentation Decathlon, task 4: MRI volumes with two parts of the hippocampus",
        layout="Task04_Hippocampus/{imagesTr,labelsTr}",
        homepage="http://medicaldecathlon.com/",
        checker="paperbench.rca.datasets:check",
    ),
)

PAPERS = (
    PaperSpec(
        name="rca",
        title="Reverse Classification Accuracy: Predicting Segmentation Performance in the Absence of Ground Truth",
        authors="Valindria et al.",
        venue="IEEE TMI 2017",
        url="https://arxiv.org/abs/1702.03407",
    ),
    PaperSpec(
        name="rca-cardiac",
        title="Automated quality control in image segmentation: application to the UK Biobank cardiovascular "
        "magnetic resonance imaging study",
        authors="Robinson et al.",
        venue="JCMR 2019",
        url="https://doi.org/10.1186/s12968-019-0523-x",
    ),
    PaperSpec(
        name="rca-realtime",
        title="Real-time Prediction of Segmentation Quality",
        authors="Robinson et al.",
        venue="MICCAI 2018",
        url="https://arxiv.org/abs/1806.06244",
    ),
    PaperSpec(
        name="chexmask",
        title="CheXmask: a large-scale dataset of anatomical segmentation masks for multi-center chest x-ray images",
        authors="Gaggion et al.",
        venue="Scientific Data 2024",
        url="https://arxiv.org/abs/2307.03293",
    ),
    PaperSpec(
        name="in-context-rca",
        title="Conformal In-Context Reverse Classification Accuracy",
        authors="Cosarinsky et al.",
        venue="arXiv 2025",
        url="https://arxiv.org/abs/2503.04522",
    ),
)

PACKAGE = Package(
    name="rca", title="Reverse Classification Accuracy", tasks=TASKS, models=MODELS, datasets=DATASETS, papers=PAPERS
)
