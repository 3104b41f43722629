# An Agent-PVT of 0.27 million parameters on the sample data set.
_base_ = ["./_base_/samples.py"]

model = dict(
    network=dict(
        type="AgentPVTClassifier",
        arch=dict(
            depths=(1, 1, 1, 1),
            embed_dims=(32, 48, 64, 96),
            num_heads=(1, 2, 2, 4),
            mlp_ratios=(4, 4, 4, 4),
            agent_num=(9, 9, 9, 4),
            attn_type="AAAA",
            sr_ratios=(8, 4, 2, 1),
            agent_sr_ratios=(1, 1, 1, 1),
        ),
        img_size=64,
        num_classes=4,
    ),
)
