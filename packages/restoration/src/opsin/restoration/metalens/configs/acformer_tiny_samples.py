# A training of a minute on the sample data set (opsin samples metalens DIR), with the published noise. The
# network begins as the single Wiener filter that is best on the validation pictures.
_base_ = "./acformer_metalens.py"
filters = 5
lens = dict(type="opsin.SimulateMetalens", psf="data/metalens/psf.npy", filters=filters)
model = dict(
    network=dict(
        filters=filters,
        dim=16,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        channel_heads=(1, 1, 2, 2),
        spatial_heads=(1, 1, 2, 2),
        filter_attention=(16, 2, 8),
        init_cfg=dict(type="opsin.CandidateInit", candidate=1),
    )
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type="opsin.LoadImage"),
            dict(lens, crop=64),
            dict(type="opsin.PackStack"),
        ]
    ),
)
test_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(lens, resize=False, fixed_noise=True),
    dict(type="opsin.PackStack"),
]
predict_pipeline = [
    dict(type="opsin.LoadImage"),
    dict(lens, fixed_noise=True),
    dict(type="opsin.PackStack"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_iters=120, val_interval=60)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, start_factor=0.1, end=10),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=10, end=120, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=60))
