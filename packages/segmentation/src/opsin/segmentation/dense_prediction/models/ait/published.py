"""Parity adapters of AiT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.errors import UserError
from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.segmentation.dense_prediction.models.ait.depth import predict_depth, square_windows
from opsin.segmentation.dense_prediction.models.ait.swin_v2 import AiTSwinV2
from opsin.segmentation.dense_prediction.models.ait.task_solver import TaskSolver
from opsin.segmentation.dense_prediction.models.ait.tokenizer import VQVAE

SOLVER = [
    "in_chans",
    "d_model",
    "nhead",
    "num_encoder_layers",
    "num_decoder_layers",
    "dim_feedforward",
    "num_bins",
    "num_classes",
    "num_embeddings",
    "num_embeddings_depth",
    "num_vocal",
    "dec_length",
    "soft_transformer",
    "top_p",
]
TOKENIZER = [
    "token_length",
    "mask_size",
    "embedding_dim",
    "hidden_dim",
    "num_resnet_blocks",
    "num_embeddings",
    "use_norm",
    "tau",
]


def _backbone(built: dict[str, Any]) -> AiTSwinV2:
    if built.get("ape") or not built.get("patch_norm", True):
        raise UserError("AiT's backbone has no absolute positions, and a norm after its patches")
    stages = len(built.get("depths", (2, 2, 18, 2)))
    return AiTSwinV2(
        {
            "embed_dim": built.get("embed_dim", 128),
            "depths": built.get("depths", (2, 2, 18, 2)),
            "num_heads": built.get("num_heads", (4, 8, 16, 32)),
        },
        window_size=built.get("window_size", (30, 30, 30, 15)),
        pretrain_window_size=built.get("pretrain_window_size", (12, 12, 12, 6)),
        use_shift=built.get("use_shift", (True,) * stages),
        out_indices=built.get("out_indices", (3,)),
    )


def _solver(built: dict[str, Any], names: Any) -> TaskSolver:
    settings = {key: built[key] for key in SOLVER if key in built}
    parallel = any(name.endswith("mask_embed") for name in names)
    return TaskSolver(**settings, drop_path=0.0, drop_out=0.0, parallel=parallel)


def _tokenizer(built: dict[str, Any]) -> VQVAE:
    return VQVAE(**{key: built[key] for key in TOKENIZER if key in built})


@adapter("ait", r"swin_transformer_v2\w*\.py ")
@torch.no_grad()
def _run_backbone(case: Case) -> dict[str, Tensor]:
    model = _backbone(case.built_with).eval()
    place(model, case.state_dict())
    (image,) = case.inputs().values()
    return {f"stage{i}": m for i, m in zip(model.out_indices, model(image), strict=True)}


@adapter("ait", r"vqvae\.py VQVAE")
@torch.no_grad()
def _run_tokenizer(case: Case) -> dict[str, Tensor]:
    model = _tokenizer(case.built_with).eval()
    place(model, case.state_dict())
    inputs = case.inputs()
    x = inputs["x"]
    tokens = model.encode(x)
    reconstruction, losses = model(x)
    return {
        "encoder": model.features(x),
        "tokens": tokens.float(),
        "decoded": model.decode(tokens),
        "soft": model.decode_soft(inputs["logits"]),
        "recon": reconstruction[:, None],
        "losses": torch.stack(losses),
    }


@adapter("ait", r"transformer\w*\.py \w*Transformer")
@torch.no_grad()
def _run_solver(case: Case) -> dict[str, Tensor]:
    model = _solver(case.built_with, case.shapes).eval()
    place(model, case.state_dict())
    inputs, wanted = case.inputs(), case.meta["outputs"]
    outputs = {}
    if "train_logits" in wanted:
        outputs["train_logits"] = model(inputs["src"], inputs["seq"], inputs["task_id"])
    length = next((s["shape"][1] for n, s in wanted.items() if n in ("depth_tokens", "depth_logits")), 0)
    if length:
        tokens, logits = model.write_depth(inputs["src"], length)
        outputs |= {"depth_tokens": tokens.float(), "depth_logits": logits}
    if "insseg_tokens" in wanted:
        _, count, mask_length, _ = wanted["insseg_mask_logits"]["shape"]
        found = model.write_objects(inputs["src"], count, mask_length)
        parts = [found.boxes, found.classes[..., None], found.masks]
        outputs |= {
            "insseg_tokens": torch.cat(parts, -1).flatten(1).float(),
            "insseg_scores": found.scores,
            "insseg_mask_logits": found.mask_logits,
        }
    return outputs


@adapter("ait", r"ait\.py AiT")
@torch.no_grad()
def _run_depth(case: Case) -> dict[str, Tensor]:
    built = case.built_with
    head = built["task_heads"]["depth"]
    tensors = case.state_dict()
    backbone, tokenizer = _backbone(built["backbone"]), _tokenizer(head["vae_cfg"])
    solver = _solver(built["transformer"], tensors)
    parts: dict[str, nn.Module] = {
        "backbone.": backbone,
        "transformer.": solver,
        "depth_head.vqvae.": tokenizer,
    }
    for prefix, part in parts.items():
        place(part.eval(), {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    left_over = [name for name in tensors if not name.startswith(tuple(parts))]
    if left_over:
        raise UserError(f"the case has {left_over[0]}, which no part of AiT has")
    soft = head.get("soft_vae", True)

    def depth_of(window: Tensor) -> Tensor:
        return predict_depth(backbone, solver, tokenizer, window, soft=soft)

    (image,) = case.inputs().values()
    return {
        "depth": square_windows(image, depth_of),
        "first_window": depth_of(image[..., : image.shape[-2]]),
    }
