"""Detectors that came after Faster R-CNN: FPN, Mask R-CNN, R-FCN, SSD, YOLO."""
