# The variant for MS-SSIM, at a middle rate; other rates by model.trade_off (2.4 to 60.5 are usual).
_base_ = "./_base_/schedule_400e.py"
model = dict(trade_off=8.73, distortion=dict(type="opsin.MSSSIMDistortion"))
val_evaluator = dict(trade_off=dict(ms_ssim=8.73))
test_evaluator = val_evaluator
