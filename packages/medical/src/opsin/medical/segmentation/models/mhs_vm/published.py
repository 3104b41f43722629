"""MHS-VM's parity cases: how the authors' classes are built here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.core.parity import Case, adapter
from opsin.core.published import place
from opsin.medical.segmentation.models.mhs_vm.losses import (
    BCEDiceLoss,
    CEDiceLoss,
    class_dice_loss,
    soft_dice_loss,
)
from opsin.medical.segmentation.models.mhs_vm.network import MHSVM
from opsin.medical.segmentation.models.mhs_vm.routes import base_orders, inverse
from opsin.medical.segmentation.models.mhs_vm.scan import GFU, MHSM, MambaEngine, VSSGate, VSSUnGated
from opsin.medical.segmentation.models.mhs_vm.ss2d import SS2D

DEPTHS: dict[str, Any] = {"depths": (2, 2, 9, 2), "depths_decoder": (2, 9, 2, 2)}
"""The published network class's own defaults, which are not those of its smaller configs."""


def _scan_settings(case: Case) -> dict[str, Any]:
    """The scan's settings out of the authors' `para_dict`, and their defaults."""
    given = {**case.built_with, **case.built_with.get("para_dict", {})}
    return {
        "heads": given.get("head_num", 3),
        "with_proj": given.get("with_proj", True),
        "gfu_t": given.get("gfu_t", 0.0),
        "d_state": given.get("d_state", 16),
    }


def _placed(case: Case, module: nn.Module) -> tuple[nn.Module, Tensor]:
    """The filled module and the case's only input."""
    place(module.eval(), case.state_dict())
    (x,) = case.inputs().values()
    return module, x


def _run(case: Case, module: nn.Module) -> dict[str, Tensor]:
    """The module on the input; whatever the output is called, it is this one."""
    module, x = _placed(case, module)
    return dict.fromkeys(case.meta["outputs"], module(x))


@adapter("mhs-vm", r"calc_posarrays")
def _routes(case: Case) -> dict[str, Tensor]:
    height, width = case.built_with["h"], case.built_with["w"]
    orders = base_orders(height, width)
    return {"tind": torch.from_numpy(orders).float(), "pind": torch.from_numpy(inverse(orders)).float()}


@adapter("mhs-vm", r"mhsm\.py GFU\b")
def _gfu(case: Case) -> dict[str, Tensor]:
    return _run(case, GFU(case.built_with.get("t", case.built_with.get("gfu_t", 0.0))))


@adapter("mhs-vm", r"mhsm\.py MambaEngine\b")
@torch.no_grad()
def _engine(case: Case) -> dict[str, Tensor]:
    dim = case.shapes["x_proj_weight"][2]
    return _run(case, MambaEngine(dim, case.built_with.get("d_state", 16)))


@adapter("mhs-vm", r"mhsm\.py MHSM\b")
@torch.no_grad()
def _mhsm(case: Case) -> dict[str, Tensor]:
    """The published module takes its map as (B, d, h, w), and gives (B, h, w, d)."""
    module, x = _placed(case, MHSM(_dim(case), **_scan_settings(case)))
    return dict.fromkeys(case.meta["outputs"], module(x.permute(0, 2, 3, 1)))


@adapter("mhs-vm", r"mhsm\.py VSSGate\b")
@torch.no_grad()
def _gate(case: Case) -> dict[str, Tensor]:
    return _run(case, VSSGate(_dim(case), **_scan_settings(case)))


@adapter("mhs-vm", r"mhsm\.py VSSUnGated\b")
@torch.no_grad()
def _ungated(case: Case) -> dict[str, Tensor]:
    return _run(case, VSSUnGated(_dim(case), **_scan_settings(case)))


@adapter("mhs-vm", r"vmunet\.py SS2D\b")
@torch.no_grad()
def _baseline_mixer(case: Case) -> dict[str, Tensor]:
    return _run(case, SS2D(_dim(case), d_state=case.built_with.get("d_state", 16)))


@adapter("mhs-vm", r"vmunet\.py (VMUNet|VSSM)\b")
@torch.no_grad()
def _network(case: Case) -> dict[str, Tensor]:
    built, names = case.built_with, list(case.shapes)
    settings = (
        DEPTHS
        | _scan_settings(case)
        | {
            ours: built[theirs]
            for theirs, ours in (
                ("input_channels", "in_channels"),
                ("in_chans", "in_channels"),
                ("depths", "depths"),
                ("depths_decoder", "depths_decoder"),
                ("dims", "widths"),
            )
            if theirs in built
        }
    )
    if not any(".mhs." in name for name in names):
        settings["heads"] = 0
    settings["gated"] = any(name.endswith("in_proj.weight") for name in names)
    classes = built.get("num_classes", 1)
    logits = _run(case, MHSVM({}, num_classes=classes, **settings))
    (value,) = set(logits.values())
    probability = value.sigmoid() if classes == 1 else value
    return dict.fromkeys(logits, probability) | {"logits": value}


@adapter("mhs-vm", r"utils\.py BceDiceLoss\b")
def _binary_loss(case: Case) -> dict[str, Tensor]:
    inputs = case.inputs()
    weights = case.built_with.get("wb", 1.0), case.built_with.get("wd", 1.0)
    prediction = inputs["pred"].requires_grad_()
    parts = BCEDiceLoss(*weights)(prediction.logit(), inputs["target"].squeeze(1))
    return _with_gradient(case, torch.stack(list(parts.values())).sum(), prediction)


@adapter("mhs-vm", r"utils\.py CeDiceLoss\b")
def _class_loss(case: Case) -> dict[str, Tensor]:
    inputs = case.inputs()
    prediction = inputs["pred"].requires_grad_()
    weights = case.built_with.get("loss_weight", (0.4, 0.6))
    parts = CEDiceLoss(*weights)(prediction, inputs["target"])
    return _with_gradient(case, torch.stack(list(parts.values())).sum(), prediction)


@adapter("mhs-vm", r"utils\.py nDiceLoss\b")
def _class_dice(case: Case) -> dict[str, Tensor]:
    inputs = case.inputs()
    prediction = inputs["pred"].requires_grad_()
    loss = class_dice_loss(prediction.softmax(1), inputs["target"])
    return _with_gradient(case, loss, prediction)


@adapter("mhs-vm", r"utils\.py DiceLoss\b")
def _dice(case: Case) -> dict[str, Tensor]:
    inputs = case.inputs()
    prediction = inputs["pred"].requires_grad_()
    return _with_gradient(case, soft_dice_loss(prediction, inputs["target"]), prediction)


def _dim(case: Case) -> int:
    """Channels of a mixer."""
    return int(case.built_with.get("d_model", case.built_with.get("dim", 0)))


def _with_gradient(case: Case, loss: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    """The loss, alone and followed by a zero (`loss2`), and its gradient by the prediction."""
    (gradient,) = torch.autograd.grad(loss, prediction)
    pair = torch.stack((loss, torch.zeros_like(loss))).detach()
    results = {"loss": loss.detach(), "loss2": pair, "dpred": gradient}
    shapes = {name: spec["shape"] for name, spec in case.meta["outputs"].items()}
    return {name: value.reshape(shapes.get(name, value.shape)) for name, value in results.items()}
