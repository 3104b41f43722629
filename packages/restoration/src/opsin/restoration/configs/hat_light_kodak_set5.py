# A HAT of 1.2 million parameters, ×4, in a quarter of an hour of two cores: trained on Kodak's photographs,
# measured on Set5. DATA has kodak/ and set5/.
_base_ = "./_base_/kodak_set5.py"
model = dict(
    network=dict(
        img_size=32, window_size=8, embed_dim=60, depths=(4, 4, 4), num_heads=(6, 6, 6), squeeze_factor=15
    )
)
