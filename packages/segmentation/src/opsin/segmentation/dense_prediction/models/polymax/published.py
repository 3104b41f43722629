"""Parity cases of kMaX-DeepLab's decoders, the frame that PolyMaX is built on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.dense_prediction.models.polymax.kmax_decoder import KMaxDecoder
from opsin.segmentation.dense_prediction.models.polymax.pixel_decoder import PixelDecoder

AUXILIARY = "predictor._auxiliary_semantic_predictor."  # a head that speaks in training alone


@adapter("polymax", r"kMaXTransformerDecoder|kMaXPixelDecoder")
@torch.no_grad()
def _decoders(case: Case) -> Mapping[str, Tensor]:
    pixel, centres = case.built_with["pixel_decoder"], case.built_with["predictor"]
    model = nn.ModuleDict(
        {
            "pixel_decoder": PixelDecoder(
                pixel["channels_res2_to_res5"],
                pixel["dec_channels"],
                pixel["dec_layers"],
                [kind == "axial" for kind in pixel["layer_types"]],
            ),
            "predictor": KMaxDecoder(
                centres["in_channels"],
                centres["num_classes"] + 1,
                centres["num_queries"],
                centres["dec_layers"],
                void_classes=centres["num_classes"],
            ),
        }
    )
    tensors = {name: tensor for name, tensor in case.state_dict().items() if AUXILIARY not in name}
    place(model, tensors, source=case.name)
    model.eval()
    inputs = case.inputs()
    maps = model["pixel_decoder"]([inputs[f"res{stage}"] for stage in range(2, 6)])
    final, auxiliary, final_centres = model["predictor"](maps)
    size = final.mask_logits.shape[-2:]
    outputs = {
        "os32": maps[0],
        "os16": maps[1],
        "os8": maps[2],
        "os4": maps[3],
        "centers": final_centres,
        "mask_logits": final.mask_logits,
        "class_logits": final.values,
        "pixel_feature": final.pixels,
        "first_masks": auxiliary[0].resized(size).mask_logits,
        "third_class": auxiliary[2].values,
        "prob": final.mask_logits.softmax(1),
    }
    return {name: outputs[name] for name in case.meta["outputs"]}
