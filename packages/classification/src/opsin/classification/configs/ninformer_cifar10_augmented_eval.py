# The same with the random crops and flips of the training in the test too, as the published script has them
# by an oversight: only for comparing with accuracies that were measured so.
_base_ = ["./ninformer_cifar10.py"]

val_dataloader = dict(dataset=dict(pipeline={{_base_.train_pipeline}}))
test_dataloader = val_dataloader
