"""Parity adapters of FrozenSeg."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.open_vocabulary.models.frozenseg import inference
from opsin.segmentation.open_vocabulary.models.frozenseg.head import FrozenSegHead
from opsin.segmentation.open_vocabulary.models.frozenseg.pixel_decoder import PixelDecoder
from opsin.segmentation.open_vocabulary.models.frozenseg.text_classifier import TextClassifier
from opsin.segmentation.open_vocabulary.models.frozenseg.transformer_decoder import INITIAL_TEMPERATURE
from opsin.segmentation.open_vocabulary.models.mask_pooling import mask_pool


def _head(case: Case) -> FrozenSegHead:
    """The head that the case's tensors belong to, filled."""
    built, shapes = case.built_with, case.shapes
    channels = built.get("ch", (192, 384, 768, 1536))
    layers = {int(found[1]) for name in shapes if (found := re.search(r"self_attention_layers\.(\d+)", name))}
    head = FrozenSegHead(
        channels,
        built.get("clip", 768),
        dim=shapes["predictor.query_feat.weight"][1],
        num_queries=built.get("nq", 250),
        encoder_depth=built.get("enc", 6),
        encoder_ffn_dim=shapes["pixel_decoder.transformer.encoder.layers.0.linear1.weight"][0],
        decoder_depth=built.get("dec", len(layers)),
        decoder_ffn_dim=built.get("ffn", 2048),
        num_heads=built.get("nheads", 8),
        published_kernel=True,
    )
    scale = {"predictor.logit_scale": torch.tensor(1 / INITIAL_TEMPERATURE).log()}
    place(head, scale | case.state_dict())
    return head.eval()


@adapter("frozenseg", r"seg_head\.py FrozenSegHead")
@torch.no_grad()
def _run_head(case: Case) -> dict[str, Tensor]:
    head, inputs = _head(case), case.inputs()
    rows = F.normalize(inputs["text"], dim=-1)
    text = TextClassifier.of(rows[:-1], rows[-1:], case.built_with["num_templates"])
    features = [inputs[f"res{stage}"] for stage in range(2, 6)]
    decoder: PixelDecoder = head.pixel_decoder
    mask_features, maps, sam_fpn = decoder(features, inputs["sam"])
    predictions = head.predictor(maps, mask_features, inputs["sam"], sam_fpn, text)
    outputs = {"mask_features": mask_features, "sam_fpn": sam_fpn}
    outputs |= {f"ms{level}": m for level, m in enumerate(maps)}
    named = {
        "pred": predictions[-1],
        "first": predictions[0],
        "third": predictions[min(3, len(predictions) - 1)],
    }
    for name, prediction in named.items():
        outputs |= {f"{name}_logits": prediction.logits, f"{name}_masks": prediction.masks}
    return outputs


@adapter("frozenseg", r"frozenseg\.py FrozenSeg\b")
@torch.no_grad()
def _run_inference(case: Case) -> dict[str, Tensor]:
    built, inputs = case.built_with, case.inputs()
    rows = F.normalize(inputs["text"], dim=-1)
    text = TextClassifier.of(rows[:-1], rows[-1:], built["num_templates"])
    scale = torch.tensor(float(built.get("logit_scale_log", 3.0)))

    def classify(masks: Tensor) -> Tensor:
        return text.logits(mask_pool(inputs["clip"], masks) @ inputs["proj"], scale)

    seen = torch.tensor(built["seen_classes"], dtype=torch.bool)
    is_thing = torch.zeros(text.num_classes, dtype=torch.bool)
    is_thing[built["thing_classes"]] = True
    logits, masks = inputs["cls"], inputs["masks"][0]
    sam_logits = classify(inputs["sam_masks"])
    semantic = inference.semantic_scores(logits, masks)
    panoptic, segments = inference.panoptic_segments(
        logits,
        masks,
        is_thing,
        object_threshold=built.get("object_mask_threshold", 0.0),
        overlap_threshold=built.get("overlap_threshold", 0.8),
    )
    alpha = built.get("mask_pred_alpha", 0.2)
    return {
        "pooled_logits": classify(inputs["masks"]),
        "sam_logits": sam_logits,
        "semseg": semantic,
        "semseg_with_sam": inference.add_sam_masks(
            semantic, sam_logits[0], inputs["sam_masks"][0], seen, alpha
        ),
        "panoptic": panoptic.float(),
        "segments": torch.tensor([[s.id, s.is_thing, s.label] for s in segments]).float().reshape(-1, 3),
    }
