"""What belongs to spatial transformer networks. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, ModelSpec, Package, PaperSpec, TaskSpec

_STN = "Jaderberg et al., Spatial Transformer Networks, NIPS 2015"

TASKS = (
    TaskSpec(
        name="stn-mnist",
        verb="train",
        summary="classify distorted digits, with or without a spatial transformer",
        schema="paperbench.stn.config:StnMnist",
        module="paperbench.stn.task",
        exports=("safetensors", "onnx", "torchscript"),
        predicts=True,
        datasets=(
            "digits",
            "mnist",
        ),
    ),
    TaskSpec(
        name="stn-addition",
        verb="train",
        summary="add two distorted digits, with or without spatial transformers",
        schema="paperbench.stn.config:StnAddition",
        module="paperbench.stn.task",
        exports=("safetensors", "onnx", "torchscript"),
        datasets=(
            "digits",
            "mnist",
        ),
    ),
    TaskSpec(
        name="stn-colocalise",
        verb="train",
        summary="find what images have in common, without labels",
        schema="paperbench.stn.config:StnColocalise",
        module="paperbench.stn.colocalise_task",
        datasets=(
            "digits",
            "mnist",
        ),
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
        exports=("safetensors", "onnx", "torchscript"),
        predicts=True,
        datasets=("folders",),
    ),
)

MODELS = (
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
        summary="two parallel spatial transformers in front of FCN",
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
)

DATASETS = (
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
        departures="paperbench.stn.data:departures",
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
        departures="paperbench.stn.data:departures",
        archives=("cub-200-2011",),
    ),
)

PAPERS = (
    PaperSpec(
        name="stn",
        title="Spatial Transformer Networks",
        authors="Jaderberg, Simonyan, Zisserman, Kavukcuoglu",
        venue="NIPS 2015",
        url="https://arxiv.org/abs/1506.02025",
    ),
    PaperSpec(
        name="dcn",
        title="Deformable Convolutional Networks",
        authors="Dai, Qi, Xiong, Li, Zhang, Hu, Wei",
        venue="ICCV 2017",
        url="https://arxiv.org/abs/1703.06211",
    ),
    PaperSpec(
        name="ram",
        title="Recurrent Models of Visual Attention",
        authors="Mnih, Heess, Graves, Kavukcuoglu",
        venue="NIPS 2014",
        url="https://arxiv.org/abs/1406.6247",
    ),
    PaperSpec(
        name="rnn-spn",
        title="Recurrent Spatial Transformer Networks",
        authors="Sonderby, Sonderby, Maaloe, Winther",
        venue="arXiv 2015",
        url="https://arxiv.org/abs/1509.05329",
    ),
)

PACKAGE = Package(
    name="stn", title="Spatial Transformer Networks", tasks=TASKS, models=MODELS, datasets=DATASETS, papers=PAPERS
)
