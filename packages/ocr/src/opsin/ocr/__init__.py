"""Text in pictures: where it is, on mmdet, with opsin backbones."""
