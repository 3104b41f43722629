# Stage 2 on the sample data set; load_from names the checkpoint of mixformer_tiny_samples.
_base_ = ["./mixformer_tiny_samples.py"]
model = dict(
    type="opsin.ScoreTracker",
    network=dict(head=dict(freeze_bn=True), score=dict(type="opsin.ScoreHead", num_heads=4)),
)
train_dataloader = dict(dataset=dict(type="opsin.ScorePairs"))
train_cfg = dict(max_epochs=3, val_interval=3)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=3, eta_min=1e-5, convert_to_iter_based=True)]
