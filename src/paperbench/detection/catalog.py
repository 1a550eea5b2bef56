"""What belongs to detection: Faster R-CNN, and what came before and after it. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import DatasetSpec, ModelSpec, Package, PaperSpec, TaskSpec

_REGIONS = ("region-train", "region-eval")
_DETECTION = ("detect-train", "detect-eval", "detect-proposals", *_REGIONS)

TASKS = (
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
        schema="paperbench.detection.config:RCNNTrain",
        module="paperbench.detection.tasks.train_rcnn",
        evaluated_by="region-eval",
        proposed_by="detect-proposals",
        predicts=True,
    ),
    TaskSpec(
        name="region-eval",
        verb="eval",
        summary="evaluate a detector that was trained on given proposals",
        schema="paperbench.detection.config:RCNNEval",
        module="paperbench.detection.tasks.evaluate_rcnn",
        takes_checkpoint=True,
    ),
)

MODELS = (
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
)

DATASETS = (
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
        layout="VOCdevkit/VOC<year>/{Annotations,ImageSets/Main,JPEGImages}, or an XML file for each image",
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/",
        checker="paperbench.detection.datasets:check",
        departures="paperbench.detection.published_data:departures",
        archives=("voc2007-trainval", "voc2007-test", "voc2012-trainval"),
    ),
    DatasetSpec(
        name="coco",
        tasks=_DETECTION,
        summary="COCO 2017, 80 classes",
        layout="coco/{annotations/instances_<split>.json,<split>/}",
        homepage="https://cocodataset.org/#download",
        checker="paperbench.detection.datasets:check",
        departures="paperbench.detection.published_data:departures",
        archives=("coco-train2017", "coco-val2017", "coco-annotations2017"),
    ),
    DatasetSpec(
        name="yolo",
        tasks=_DETECTION,
        summary="images/<split> with labels/<split>/*.txt, boxes or polygons, or a data.yaml that names them",
        layout="images/<split>",
        homepage="https://docs.ultralytics.com/datasets/detect/",
        checker="paperbench.detection.datasets:check",
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
)

PAPERS = (
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
)

PACKAGE = Package(
    name="detection", title="Object detection", tasks=TASKS, models=MODELS, datasets=DATASETS, papers=PAPERS
)
