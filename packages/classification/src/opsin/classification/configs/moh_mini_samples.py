# A MoH-ViT of five blocks on the sample data set; from the second stage on heads are routed.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="MoHViTClassifier",
        arch=dict(
            embed_dims=(24, 32, 48, 64),
            depths=(1, 1, 2, 1),
            num_heads=(2, 4, 6, 8),
            shared_heads=(2, 2, 2, 2),
            routed_heads=(0, 1, 2, 4),
            mlp_ratios=(4, 4, 4, 4),
        ),
        pretrain_size=64,
        num_classes=4,
    ),
)
