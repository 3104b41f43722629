# Agent-DeiT-T on ImageNet-1K as published: 300 epochs, 74.9 top-1. Small takes drop_path_rate 0.1, base
# 0.3.
_base_ = ["./agent_swin_tiny_imagenet.py"]

model = dict(network=dict(_delete_=True, type="AgentDeiTClassifier", arch="tiny", num_classes=1000))
