"""How the parity cases of RWKV-SAM's published classes are run; those of its op are in core."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.ops.wkv import published as op_cases
from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.promptable.models.mask_answers import original_logits
from opsin.segmentation.promptable.models.rwkv_sam.backbone import ARCHS, RWKVSAMBackbone
from opsin.segmentation.promptable.models.rwkv_sam.blocks import RWKVBlock
from opsin.segmentation.promptable.models.rwkv_sam.mask_decoder import MaskDecoder
from opsin.segmentation.promptable.models.rwkv_sam.network import RWKVSAM, LastMapNeck
from opsin.segmentation.promptable.models.rwkv_sam.prompt_encoder import PromptEncoder
from opsin.segmentation.promptable.prompts import Prompts

__all__ = ["op_cases"]

GAUSSIAN = "pe_layer.positional_encoding_gaussian_matrix"


def _placed(module: nn.Module, case: Case, **also: Tensor) -> nn.Module:
    place(module, {**case.state_dict(), **also}, source=case.name)
    return module.eval()


def _backbone_settings(given: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of our backbone; what `given` leaves out follows from the tensors' shapes.

    Args:
        given: arguments of the published class.
        shapes: its tensors.
    """
    blocks = {int(found[1]) for name in shapes if (found := re.match(r"layers\.(\d+)\.", name))}
    mixes = [shape for name, shape in shapes.items() if name.endswith(".mlp.key.weight")]
    hidden, width = mixes[0] if mixes else (given.get("attn_cfg", {}).get("mlp_ratio", 2), 1)
    table = shapes.get("pos_embed")
    grid = None
    if table is not None:
        size = given.get("img_size") or [16 * math.isqrt(table[1])] * 2
        rows, columns = (size, size) if isinstance(size, int) else size
        grid = (rows // 16, columns // 16)
    arch = ARCHS[given.get("model_variant", "small")]
    return {
        "arch": {**arch, "depths": (*arch["depths"][:2], len(blocks))},
        "token_layers": given.get("attn_type", "rwkv"),
        "mlp_ratio": hidden / width,
        "position_grid": grid,
        "additional_final_layers": any("additional_final_layers" in name for name in shapes),
        "drop_path_rate": given.get("drop_path_rate", 0.0),
    }


@adapter("rwkv-sam", r"vitamin\.py RWKVBlock\b")
def _block(case: Case) -> dict[str, Tensor]:
    given, x = case.built_with, case.inputs()["x"]
    block = RWKVBlock(
        given["channels"],
        mlp_ratio=given.get("mlp_ratio", 4),
        layer=given.get("layer_id", 0),
        layers=given.get("total_layers", 1),
    )
    with torch.no_grad():
        return {"out": _placed(block, case)(x, _grid(case, x.shape[1]))}


def _grid(case: Case, tokens: int) -> tuple[int, int]:
    """The grid of the tokens, a second argument of the published block, which a case tells in words."""
    stated = re.findall(r"(\d+)\s*[x×]\s*(\d+)", case.meta.get("what", ""))
    sizes = [(int(rows), int(columns)) for rows, columns in stated]
    rows = next(n for n in range(math.isqrt(tokens), 0, -1) if tokens % n == 0)
    return next(size for size in [*sizes, (rows, tokens // rows)] if math.prod(size) == tokens)


@adapter("rwkv-sam", r"vitamin\.py VITAMINBackbone\b")
def _backbone(case: Case) -> dict[str, Tensor]:
    backbone = RWKVSAMBackbone(**_backbone_settings(case.built_with, case.shapes))
    with torch.no_grad():
        maps = _placed(backbone, case)(case.inputs()["x"])
    return {f"o{index}": feature for index, feature in enumerate(maps)}


@adapter("rwkv-sam", r"\.py LastLayerProjNeck\b")
def _neck(case: Case) -> dict[str, Tensor]:
    given = case.built_with
    with torch.no_grad():
        neck = _placed(LastMapNeck(given["in_channels"], given.get("out_channels", 256)), case)
        return {"out": neck(case.inputs()["x"])}


@adapter("rwkv-sam", r"sam_pe\.py SAMPromptEncoder\b")
def _prompt_encoder(case: Case) -> dict[str, Tensor]:
    given, inputs = case.built_with, case.inputs()
    encoder = PromptEncoder(image_size=given["image_size"], embedding_size=given["image_embedding_size"])
    _placed(encoder, case, **{GAUSSIAN: inputs["gaussian"]})
    outputs = {"dense_pe": encoder.dense_pe()}
    with torch.no_grad():
        if "points" in inputs:
            outputs["points_embed"], _ = encoder(Prompts(inputs["points"], _labels(inputs)))
        if "boxes" in inputs:
            outputs["boxes_embed"], _ = encoder(Prompts(boxes=inputs["boxes"]))
        if "masks" in inputs:
            _, outputs["masks_embed"] = encoder(Prompts(masks=inputs["masks"]))
    return outputs


def _labels(inputs: dict[str, Tensor]) -> Tensor:
    """The labels of the points; the published model itself takes all for positive."""
    return inputs.get("labels", torch.ones(inputs["points"].shape[:2], dtype=torch.int64))


@adapter("rwkv-sam", r"SAMRWKVHRMaskDecoderMLPMerge$")
def _mask_decoder(case: Case) -> dict[str, Tensor]:
    inputs, expand = case.inputs(), case.built_with.get("expand", 1)
    decoder = _placed(MaskDecoder(fine_channels=(64 * expand, 128 * expand)), case)
    with torch.no_grad():
        masks, iou = decoder(
            inputs["image_embeddings"],
            inputs["image_pe"],
            inputs["sparse"],
            inputs["dense"],
            (inputs["hr_feat"], inputs["mr_feat"]),
        )
    return {"masks": masks, "iou": iou}


@adapter("rwkv-sam", r"sam_model\.py SAMModel\b")
def _whole(case: Case) -> dict[str, Tensor]:
    given, inputs = case.built_with, case.inputs()
    prefix = "backbone."
    shapes = {n.removeprefix(prefix): s for n, s in case.shapes.items() if n.startswith(prefix)}
    settings = _backbone_settings(given["backbone"], shapes)
    backbone = dict(type="opsin.RWKVSAMBackbone", out_indices=(0, 1, 3), **settings)
    model = RWKVSAM(
        backbone=backbone,
        image_size=given["image_size"],
        embed_dim=given.get("neck", {}).get("out_channels", 256),
    )
    _placed(model, case, **{f"pe.{GAUSSIAN}": inputs["gaussian"]})
    prompts = Prompts(
        points=inputs.get("points"),
        labels=_labels(inputs) if "points" in inputs else None,
        boxes=inputs.get("boxes"),
    )
    with torch.no_grad():
        image = model.encode(inputs["x"])[0]
        low_res, iou = model.decode(image, prompts)
    masks = original_logits(low_res, image.size, tuple(given["input_size"]), tuple(given["original_size"]))
    return {"image_embedding": image.embedding, "low_res": low_res, "iou": iou, "masks": masks}
