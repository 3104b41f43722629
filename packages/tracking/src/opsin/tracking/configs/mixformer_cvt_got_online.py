# Trained on GOT-10k alone, as its protocol wants.
_base_ = ["./mixformer_cvt_online.py"]
train_dataloader = dict(dataset=dict(sources=[dict(layout="got10k", root="got10k", split="train")]))
protocols = dict(got10k=dict(update=dict(interval=25, size=3)))
