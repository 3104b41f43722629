# As published for all backbones and data sets: biases learn at twice the rate, both classifiers at ten times.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True),
    paramwise_cfg=dict(
        custom_keys={
            ".bias": dict(lr_mult=2.0),
            "classifier_": dict(lr_mult=10.0),
            "classifier_cls.0.bias": dict(lr_mult=20.0),
            "classifier_cls.2.bias": dict(lr_mult=20.0),
            "classifier_cls.4.bias": dict(lr_mult=20.0),
            "classifier_loc.0.bias": dict(lr_mult=20.0),
        }
    ),
)
