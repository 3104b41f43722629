# Measures a published model on a folder of pictures (Kodak, CLIC): real files, whole pictures.
#   opsin test segpic_pictures segpic_0018_best.pth.tar --data kodak
_base_ = "opsin::_base_/runtime.py"
task = "compression"
data_root = "data/kodak/"
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="opsin.RegionPictureDataset",
        data_root=data_root,
        pipeline=[dict(type="opsin.LoadImage"), dict(type="opsin.PackCompression")],
        test_mode=True,
    ),
)
test_evaluator = dict(type="opsin.RateDistortionMetric")
test_cfg = dict()
model = dict(type="opsin.ImageCompressor", network=dict(type="opsin.SegPIC"), trade_off=0.0067)
