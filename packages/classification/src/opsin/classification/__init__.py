"""Image classification with opsin backbones: from an ImageFolder to top-1 and top-5 accuracy."""
