# The score head: 40 epochs, all else fixed. Begins with stage 1: load_from=CHECKPOINT.
_base_ = ["./tracker.py", "./networks.py"]
model = dict(
    type="opsin.ScoreTracker", network=dict(head=dict(freeze_bn=True), score=dict(type="opsin.ScoreHead"))
)
train_dataloader = dict(batch_size=32, dataset=dict(type="opsin.ScorePairs"))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=40, val_interval=5)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[30], gamma=0.1)]
