"""The names of tasks, models and data sets: plain data that listings, help and suggestions read without importing
torch.

A new task is one `TaskSpec` here, one schema, one module with the functions that `engine.task.Task` names, and its
files in `conf/`; neither the command line nor the engine changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paperbench.papers import PAPERS as PAPERS
from paperbench.papers import PaperSpec as PaperSpec


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One kind of run.

    `verb` is the command that starts it (`train`, `eval`, `estimate`), `schema` the `module:Class` of its
    configuration, and `module` the module with its functions (`engine.task.Task`). `evaluated_by` names the task that
    `paperbench eval` runs on what this one trained; such a task takes over the trained run's configuration
    (`takes_checkpoint`). `predicts`: the module also implements `engine.task.Predicts`, so that `paperbench predict`
    can show pictures to a trained run. `proposed_by` names the task that `paperbench proposals` runs for what this one is
    trained on; it takes over the keys that both have. `stacks`: it implements `engine.task.Stacks`, so that
    `paperbench sweep --stacked` can train several runs side by side. `exports` names the formats that `paperbench export`
    can write its trained models in; the module then implements `engine.task.Exports`. `precision`: what it computes in, where that
    is not for `precision=` to say.

    `conventions` are dotted keys of its configuration that decide what its numbers mean: runs that differ in one must not be
    compared, and `paperbench compare` refuses to.
    """

    name: str
    verb: str
    summary: str
    schema: str
    module: str
    evaluated_by: str | None = None
    proposed_by: str | None = None
    takes_checkpoint: bool = False
    predicts: bool = False
    stacks: bool = False
    conventions: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A name that `model=` takes, or a variant of one, with its published source."""

    name: str
    tasks: tuple[str, ...]
    summary: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A name that `data=` takes. `layout` describes what `data.root` must hold; empty for generated data.

    `checker` is the `module:function` behind `paperbench data check`; `archives` are named in
    `paperbench.data.downloads`.
    """

    name: str
    tasks: tuple[str, ...]
    summary: str
    layout: str
    homepage: str
    checker: str
    archives: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric of `results.json`, or several whose names follow a pattern.

    `name` is the metric's name, or an `fnmatch` pattern (`*/test/errors`). `unit` stands behind a value (`%`, `nats`, `s`; empty
    for a plain number), `format` is a format specification for the value (`.1f`). `direction` says which values are better;
    `none` for a quantity of which that cannot be said. `headline`: worth a line when a run ends. The order of a package's
    metrics is the order in which they are shown.
    """

    name: str
    meaning: str
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    format: str = ".4g"
    headline: bool = False


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            name="detect-train",
            verb="train",
            summary="train a detector and evaluate it",
            schema="paperbench.detection.config:DetectTrain",
            module="paperbench.detection.tasks.train",
            evaluated_by="detect-eval",
            predicts=True,
            exports=("safetensors", "onnx", "torchscript"),
        ),
        TaskSpec(
            name="detect-eval",
            verb="eval",
            summary="evaluate a trained detector",
            schema="paperbench.detection.config:DetectEval",
            module="paperbench.detection.tasks.evaluate",
            takes_checkpoint=True,
        ),
        TaskSpec(
            name="detect-score",
            verb="eval",
            summary="score detections that were written to files",
            schema="paperbench.detection.config:ScoreFiles",
            module="paperbench.detection.tasks.score_files",
        ),
        TaskSpec(
            name="detect-proposals",
            verb="proposals",
            summary="find boxes that may hold objects, and how many objects they cover",
            schema="paperbench.detection.config:Propose",
            module="paperbench.detection.tasks.propose",
        ),
        TaskSpec(
            name="region-train",
            verb="train",
            summary="train a detector on given proposals and evaluate it",
            schema="paperbench.detection.config:RegionTrain",
            module="paperbench.detection.tasks.train_rcnn",
            evaluated_by="region-eval",
            proposed_by="detect-proposals",
            predicts=True,
        ),
        TaskSpec(
            name="region-eval",
            verb="eval",
            summary="evaluate a detector that was trained on given proposals",
            schema="paperbench.detection.config:RegionEval",
            module="paperbench.detection.tasks.evaluate_rcnn",
            takes_checkpoint=True,
        ),
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
        ),
        TaskSpec(
            name="vae-eval",
            verb="eval",
            summary="measure a trained auto-encoder",
            schema="paperbench.vae.config:VaeEval",
            module="paperbench.vae.eval_task",
            takes_checkpoint=True,
            conventions=("binarisation", "data.divisor"),
        ),
        TaskSpec(
            name="vae-semi",
            verb="train",
            summary="classify with few labels by a generative model",
            schema="paperbench.vae.config:SemiTrain",
            module="paperbench.vae.semi_task",
            conventions=("binarisation",),
        ),
        TaskSpec(
            name="stn-mnist",
            verb="train",
            summary="classify distorted digits, with or without a spatial transformer",
            schema="paperbench.stn.config:StnMnist",
            module="paperbench.stn.task",
            exports=("safetensors", "onnx", "torchscript"),
            predicts=True,
        ),
        TaskSpec(
            name="stn-addition",
            verb="train",
            summary="add two distorted digits, with or without spatial transformers",
            schema="paperbench.stn.config:StnAddition",
            module="paperbench.stn.task",
            exports=("safetensors", "onnx", "torchscript"),
        ),
        TaskSpec(
            name="distill",
            verb="train",
            summary="distil a teacher into a student, beside one trained on labels alone",
            schema="paperbench.distill.config:Distill",
            module="paperbench.distill.task",
            stacks=True,
            exports=("safetensors", "onnx", "torchscript"),
        ),
        TaskSpec(
            name="distill-specialists",
            verb="train",
            summary="a generalist, and specialists on the classes it confuses",
            schema="paperbench.distill.config:Specialists",
            module="paperbench.distill.specialists.task",
        ),
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
            summary="predict quality from reference scores that were computed elsewhere",
            schema="paperbench.rca.config:RcaScores",
            module="paperbench.rca.scores_task",
            precision="float64",
        ),
        TaskSpec(
            name="segment-train",
            verb="train",
            summary="train a segmenter, and leave its masks at several stages to be judged",
            schema="paperbench.rca.segmenters.config:SegmentTrain",
            module="paperbench.rca.segmenters.task",
        ),
        TaskSpec(
            name="stn-colocalise",
            verb="train",
            summary="find what images have in common, without labels",
            schema="paperbench.stn.config:StnColocalise",
            module="paperbench.stn.colocalise_task",
        ),
        TaskSpec(
            name="stn-svhn",
            verb="train",
            summary="read house numbers, with transformers at the input or inside the net",
            schema="paperbench.stn.config:StnSvhn",
            module="paperbench.stn.photograph_task",
        ),
        TaskSpec(
            name="stn-birds",
            verb="train",
            summary="tell fine-grained classes by windows on parts",
            schema="paperbench.stn.config:StnBirds",
            module="paperbench.stn.photograph_task",
        ),
    )
}

_STN = "Jaderberg et al., Spatial Transformer Networks, NIPS 2015"

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
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
            summary="training images registered to the image, their labels put to the vote",
            source="Valindria et al., Reverse Classification Accuracy, IEEE TMI 2017; registration and vote are ours",
        ),
        ModelSpec(
            name="faster-rcnn",
            tasks=("detect-train", "detect-eval"),
            summary="region proposal network and Fast R-CNN head, trained jointly",
            source="Ren et al., Faster R-CNN, TPAMI 2016",
        ),
        ModelSpec(
            name="fpn",
            tasks=("detect-train", "detect-eval"),
            summary="Faster R-CNN on a feature pyramid",
            source="Lin et al., Feature Pyramid Networks, CVPR 2017",
        ),
        ModelSpec(
            name="mask-rcnn",
            tasks=("detect-train", "detect-eval"),
            summary="FPN with a mask for every object",
            source="He et al., Mask R-CNN, ICCV 2017",
        ),
        ModelSpec(
            name="rfcn",
            tasks=("detect-train", "detect-eval"),
            summary="regions that vote in position-sensitive maps",
            source="Dai et al., R-FCN, NIPS 2016",
        ),
        ModelSpec(
            name="ssd",
            tasks=("detect-train", "detect-eval"),
            summary="boxes of every class straight from several maps",
            source="Liu et al., SSD, ECCV 2016",
        ),
        ModelSpec(
            name="yolo",
            tasks=("detect-train", "detect-eval"),
            summary="one net, one grid of cells, version 1",
            source="Redmon et al., You Only Look Once, CVPR 2016",
        ),
        ModelSpec(
            name="fast-rcnn",
            tasks=("region-train", "region-eval"),
            summary="one map of features an image, pooled regions, one loss for classes and boxes",
            source="Girshick, Fast R-CNN, ICCV 2015",
        ),
        ModelSpec(
            name="sppnet",
            tasks=("region-train", "region-eval"),
            summary="fixed convolutions, pyramids of pooled regions, SVMs",
            source="He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, TPAMI 2015",
        ),
        ModelSpec(
            name="rcnn",
            tasks=("region-train", "region-eval"),
            summary="every region warped and seen by itself, SVMs",
            source="Girshick et al., Rich feature hierarchies, CVPR 2014",
        ),
        ModelSpec(
            name="fcn",
            tasks=("stn-mnist", "stn-addition"),
            summary="two fully connected hidden layers",
            source=_STN,
        ),
        ModelSpec(
            name="cnn",
            tasks=("stn-mnist", "stn-addition"),
            summary="9x9 and 7x7 convolutions",
            source=_STN,
        ),
        ModelSpec(
            name="st-fcn",
            tasks=("stn-mnist", "stn-addition"),
            summary="a spatial transformer in front of FCN",
            source=_STN,
        ),
        ModelSpec(
            name="2st-fcn",
            tasks=("stn-addition",),
            summary="two spatial transformers side by side in front of FCN",
            source=_STN,
        ),
        ModelSpec(
            name="st-cnn",
            tasks=("stn-mnist",),
            summary="a spatial transformer in front of CNN",
            source=_STN,
        ),
        ModelSpec(
            name="dcn",
            tasks=("stn-mnist",),
            summary="a deformable convolution in front of CNN, with as many weights as ST-CNN",
            source="Dai et al., Deformable Convolutional Networks, ICCV 2017; the comparison is ours",
        ),
        ModelSpec(
            name="svhn-cnn",
            tasks=("stn-svhn",),
            summary="eight convolutions, five classifiers",
            source=_STN,
        ),
        ModelSpec(
            name="svhn-st-single",
            tasks=("stn-svhn",),
            summary="the same with a spatial transformer on the input",
            source=_STN,
        ),
        ModelSpec(
            name="svhn-st-multi",
            tasks=("stn-svhn",),
            summary="the same with a spatial transformer in front of each of the first four convolutions",
            source=_STN,
        ),
        ModelSpec(
            name="parts",
            tasks=("stn-birds",),
            summary="2 or 4 windows that one localisation net places, or none",
            source=_STN,
        ),
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
            source="this program's own, for pictures in colour",
        ),
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
}

_REGIONS = ("region-train", "region-eval")
_DETECTION = ("detect-train", "detect-eval", "detect-proposals", *_REGIONS)
_DISTILL = ("distill", "distill-specialists")
_DIGITS = ("stn-mnist", "stn-addition", "stn-colocalise", "vae-train", "vae-eval", "vae-semi", *_DISTILL)

_SEGMENTATION = ("rca-estimate", "rca-segmenters", "segment-train")

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="shapes",
            tasks=_DETECTION,
            summary="generated scenes: textured backgrounds, occlusion, five classes",
            layout="",
            homepage="",
            checker="paperbench.detection.datasets:check",
        ),
        DatasetSpec(
            name="voc",
            tasks=_DETECTION,
            summary="PASCAL VOC 2007 and 2012, 20 classes, or a label set of one's own",
            layout="VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}",
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/",
            checker="paperbench.detection.datasets:check",
            archives=("voc2007-trainval", "voc2007-test", "voc2012-trainval"),
        ),
        DatasetSpec(
            name="coco",
            tasks=_DETECTION,
            summary="COCO 2017, 80 classes",
            layout="coco/{annotations/instances_<split>.json,<split>/}",
            homepage="https://cocodataset.org/#download",
            checker="paperbench.detection.datasets:check",
            archives=("coco-train2017", "coco-val2017", "coco-annotations2017"),
        ),
        DatasetSpec(
            name="pennfudan",
            tasks=_DETECTION,
            summary="Penn-Fudan pedestrians, 170 images, one class",
            layout="PennFudanPed/{PNGImages,PedMasks,Annotation}",
            homepage="https://www.cis.upenn.edu/~jshi/ped_html/",
            checker="paperbench.detection.datasets:check",
            archives=("pennfudan",),
        ),
        DatasetSpec(
            name="digits",
            tasks=_DIGITS,
            summary="scikit-learn's 1,797 handwritten digits, enlarged to 28x28",
            layout="",
            homepage="",
            checker="paperbench.data.labelled:check",
        ),
        DatasetSpec(
            name="numbers",
            tasks=("stn-svhn",),
            summary="generated house numbers of one to five handwritten digits",
            layout="",
            homepage="",
            checker="paperbench.stn.data:check_numbers",
        ),
        DatasetSpec(
            name="svhn",
            tasks=("stn-svhn",),
            summary="Street View House Numbers, full numbers, 248,823 photographs",
            layout="svhn/{train,extra,test}/{digitStruct.mat,*.png}",
            homepage="http://ufldl.stanford.edu/housenumbers/ (format 1)",
            checker="paperbench.stn.data:check_numbers",
            archives=("svhn-train", "svhn-test", "svhn-extra"),
        ),
        DatasetSpec(
            name="parts",
            tasks=("stn-birds",),
            summary="generated images of 25 classes told by two small parts",
            layout="",
            homepage="",
            checker="paperbench.stn.data:check_birds",
        ),
        DatasetSpec(
            name="cub",
            tasks=("stn-birds",),
            summary="Caltech-UCSD Birds-200-2011, 11,788 photographs of 200 species",
            layout="CUB_200_2011/{images.txt,classes.txt,image_class_labels.txt,train_test_split.txt,images}",
            homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
            checker="paperbench.stn.data:check_birds",
            archives=("cub-200-2011",),
        ),
        DatasetSpec(
            name="mnist",
            tasks=_DIGITS,
            summary="MNIST, 70,000 handwritten digits",
            layout="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]",
            homepage="http://yann.lecun.com/exdb/mnist/",
            checker="paperbench.data.labelled:check",
            archives=("mnist-train-images", "mnist-train-labels", "mnist-test-images", "mnist-test-labels"),
        ),
        DatasetSpec(
            name="frey",
            tasks=("vae-train", "vae-eval"),
            summary="Frey faces, 1,965 frames of 28x20",
            layout="frey/frey_rawface.mat",
            homepage="https://cs.nyu.edu/~roweis/data.html",
            checker="paperbench.vae.data:check",
        ),
        DatasetSpec(
            name="digit-pairs",
            tasks=_DISTILL,
            summary="pairs of overlapping digits, 45 classes, from scikit-learn's digits or from MNIST",
            layout="",
            homepage="",
            checker="paperbench.distill.datasets:check",
        ),
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
            summary="JSRT's 247 chest radiographs with five organs, as pictures with bit-field masks",
            layout="JSRT/{images,masks}",
            homepage="http://db.jsrt.or.jp/eng.php",
            checker="paperbench.rca.datasets:check",
        ),
        DatasetSpec(
            name="hippocampus",
            tasks=_SEGMENTATION,
            summary="Medical Segmentation Decathlon, task 4: MRI volumes with two parts of the hippocampus",
            layout="Task04_Hippocampus/{imagesTr,labelsTr}",
            homepage="http://medicaldecathlon.com/",
            checker="paperbench.rca.datasets:check",
        ),
        DatasetSpec(
            name="emnist",
            tasks=_DISTILL,
            summary="EMNIST, 131,600 handwritten letters and digits of 47 classes (balanced), and its other variants",
            layout="EMNIST/raw/emnist-<split>-{train,test}-{images-idx3,labels-idx1}-ubyte[.gz]",
            homepage="https://www.nist.gov/itl/products-and-services/emnist-dataset",
            checker="paperbench.distill.datasets:check",
            archives=("emnist",),
        ),
        DatasetSpec(
            name="cifar100",
            tasks=_DISTILL,
            summary="CIFAR-100, 60,000 pictures of 32x32 in 100 classes",
            layout="cifar-100-python/{train,test,meta}",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            checker="paperbench.distill.datasets:check",
            archives=("cifar100",),
        ),
    )
}
