# Multi-scale attention on a ResNeXt of 14 layers, 1.4 million parameters; three classes.
model = dict(
    type="opsin.MedicalSegmentor",
    network=dict(
        type="opsin.MultiScaleAttention",
        num_classes=3,
        channels=16,
        depths=(1, 1, 1, 1),
        groups=4,
        width_per_group=4,
        stem_channels=16,
        unused_layers=False,
    ),
    loss=dict(type="opsin.GuidedAttentionLoss"),
)
