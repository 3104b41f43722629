"""Object detection and instance segmentation on mmdet, with opsin backbones."""
