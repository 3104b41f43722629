# mmdet's Mask2Former, its queries merged mask by mask; mmdet's published checkpoints fit.
_base_ = ["mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"]

task = "panoptic"
model = dict(panoptic_fusion_head=dict(type="opsin.MaskwiseFusionHead", merging=dict(min_score_things=0.25)))
