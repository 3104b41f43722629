# The published recipe's fine-tuning, without its data set. Pre-training comes first:
#   opsin train mayor_r50_fpn_synthtext
# and then load_from=CHECKPOINT for these.
_base_ = ["opsin.detection::runtime_mmdet.py", "mayor_r50_fpn.py", "text.py", "schedule_30k.py"]
task = "text_detection"
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5_000, save_best="text/hmean", rule="greater"))
log_processor = dict(by_epoch=False, window_size=50)
tiles = None  # dict(size=…, overlap=…) lets `opsin predict` search large pictures tile by tile
