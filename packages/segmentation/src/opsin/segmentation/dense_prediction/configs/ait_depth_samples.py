# The second training: give the first one's checkpoint as model.depth.checkpoint=FILE.
_base_ = ["./_base_/ait_samples.py"]

model = dict(
    type="opsin.AiT",
    backbone=dict(
        type="opsin.AiTSwinV2",
        arch=dict(embed_dim=32, depths=(1, 1, 2), num_heads=(2, 4, 8)),
        window_size=(6, 6, 6),
        pretrain_window_size=(6, 6, 6),
        use_shift=(True, True, True),
        out_indices=(2,),
    ),
    solver=dict(
        d_model=64,
        nhead=4,
        num_encoder_layers=1,
        num_decoder_layers=2,
        dim_feedforward=128,
        drop_path=0.0,
        drop_out=0.0,
        num_bins=1,
        num_classes=1,
        num_embeddings=1,
        num_embeddings_depth=48,
        dec_length=36,
        parallel=True,  # False writes word after word, and takes longer to learn to look at pictures
    ),
    depth=dict(tokenizer={{_base_.tokenizer}}, checkpoint=None),
)
