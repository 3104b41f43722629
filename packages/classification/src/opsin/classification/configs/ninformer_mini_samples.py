# A NiNformer of two blocks on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="NiNformerClassifier",
        arch=dict(embed_dim=64, hidden_dim=128, depth=2),
        img_size=64,
        patch_size=8,
        drop_rate=0.1,
        num_classes=4,
    ),
)
