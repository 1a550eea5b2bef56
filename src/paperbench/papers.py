"""The papers whose numbers stand in `conf/paper`: plain data, read without anything else.

The first is the program's oldest room; after it the papers that have a room, then those whose numbers are only cited.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PaperSpec:
    """A paper whose numbers stand in `conf/paper/<name>.yaml`."""

    name: str
    title: str
    authors: str
    venue: str
    url: str


PAPERS: dict[str, PaperSpec] = {
    spec.name: spec
    for spec in (
        PaperSpec(
            name="faster-rcnn",
            title="Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
            authors="Ren, He, Girshick, Sun",
            venue="TPAMI 2016",
            url="https://arxiv.org/abs/1506.01497",
        ),
        PaperSpec(
            name="fast-rcnn",
            title="Fast R-CNN",
            authors="Girshick",
            venue="ICCV 2015",
            url="https://arxiv.org/abs/1504.08083",
        ),
        PaperSpec(
            name="rcnn",
            title="Rich feature hierarchies for accurate object detection and semantic segmentation",
            authors="Girshick, Donahue, Darrell, Malik",
            venue="CVPR 2014",
            url="https://arxiv.org/abs/1311.2524",
        ),
        PaperSpec(
            name="sppnet",
            title="Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition",
            authors="He, Zhang, Ren, Sun",
            venue="TPAMI 2015",
            url="https://arxiv.org/abs/1406.4729",
        ),
        PaperSpec(
            name="stn",
            title="Spatial Transformer Networks",
            authors="Jaderberg, Simonyan, Zisserman, Kavukcuoglu",
            venue="NIPS 2015",
            url="https://arxiv.org/abs/1506.02025",
        ),
        PaperSpec(
            name="vae",
            title="Auto-Encoding Variational Bayes",
            authors="Kingma, Welling",
            venue="ICLR 2014",
            url="https://arxiv.org/abs/1312.6114",
        ),
        PaperSpec(
            name="distill",
            title="Distilling the Knowledge in a Neural Network",
            authors="Hinton, Vinyals, Dean",
            venue="arXiv 2015",
            url="https://arxiv.org/abs/1503.02531",
        ),
        PaperSpec(
            name="rca",
            title="Reverse Classification Accuracy: Predicting Segmentation Performance in the Absence of Ground Truth",
            authors="Valindria et al.",
            venue="IEEE TMI 2017",
            url="https://arxiv.org/abs/1702.03407",
        ),
        PaperSpec(
            name="yolo",
            title="You Only Look Once: Unified, Real-Time Object Detection",
            authors="Redmon, Divvala, Girshick, Farhadi",
            venue="CVPR 2016",
            url="https://arxiv.org/abs/1506.02640",
        ),
        PaperSpec(
            name="ssd",
            title="SSD: Single Shot MultiBox Detector",
            authors="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg",
            venue="ECCV 2016",
            url="https://arxiv.org/abs/1512.02325",
        ),
        PaperSpec(
            name="rfcn",
            title="R-FCN: Object Detection via Region-based Fully Convolutional Networks",
            authors="Dai, Li, He, Sun",
            venue="NIPS 2016",
            url="https://arxiv.org/abs/1605.06409",
        ),
        PaperSpec(
            name="fpn",
            title="Feature Pyramid Networks for Object Detection",
            authors="Lin, Dollar, Girshick, He, Hariharan, Belongie",
            venue="CVPR 2017",
            url="https://arxiv.org/abs/1612.03144",
        ),
        PaperSpec(
            name="mask-rcnn",
            title="Mask R-CNN",
            authors="He, Gkioxari, Dollar, Girshick",
            venue="ICCV 2017",
            url="https://arxiv.org/abs/1703.06870",
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
}
