# The first of two trainings: the tokenizer.
_base_ = ["./_base_/ait_samples.py"]

model = dict(type="opsin.AiTTokenizer", tokenizer={{_base_.tokenizer}}, drop_ratio=0.2)
