_base_ = "./_base_/schedule_400e.py"
model = dict(trade_off=0.0067)
val_evaluator = dict(trade_off=dict(mse=0.0067))
test_evaluator = val_evaluator
