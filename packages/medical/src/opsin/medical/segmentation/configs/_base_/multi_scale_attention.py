# The published network and its loss.
model = dict(
    type="opsin.MedicalSegmentor",
    network=dict(type="opsin.MultiScaleAttention"),
    loss=dict(type="opsin.GuidedAttentionLoss"),
)
