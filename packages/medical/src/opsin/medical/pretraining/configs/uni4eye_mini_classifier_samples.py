# A classifier of pictures and volumes on the pretrained encoder: give its file by
#   model.network.init_cfg.type=opsin.Published model.network.init_cfg.checkpoint=runs/eyes/epoch_16.pth
_base_ = ["./uni4eye_mini_samples.py"]

task = "medical_classification"
model = dict(
    _delete_=True,
    type="ImageClassifier",
    network=dict(
        type="Uni4EyeClassifier",
        encoder=dict(size=64, patch_size=8, dim=96, depth=4, heads=4, drop_path_rate=0.1),
        num_classes=2,
    ),
    data_preprocessor=dict(type="StackInputs"),
)
val_evaluator = dict(_delete_=True, type="DiagnosisMetric")
test_evaluator = dict(_delete_=True, type="DiagnosisMetric")
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    constructor="LayerDecayConstructor",
    paramwise_cfg=dict(decay=0.75),
)
default_hooks = dict(checkpoint=dict(save_best="medical/accuracy", rule="greater"))
