"""MHS-VM, multi-head scanning in parallel subspaces, and its baseline VM-UNet."""

from opsin.medical.segmentation.models.mhs_vm import published
from opsin.medical.segmentation.models.mhs_vm.losses import BCEDiceLoss, CEDiceLoss
from opsin.medical.segmentation.models.mhs_vm.network import MHSVM, MHSVMBackbone, MHSVMSettings, VSSBlock
from opsin.medical.segmentation.models.mhs_vm.routes import base_orders, inverse, scan_routes
from opsin.medical.segmentation.models.mhs_vm.scan import GFU, MHSM, MambaEngine, VSSGate, VSSUnGated
from opsin.medical.segmentation.models.mhs_vm.ss2d import SS2D

__all__ = [
    "GFU",
    "MHSM",
    "MHSVM",
    "SS2D",
    "BCEDiceLoss",
    "CEDiceLoss",
    "MHSVMBackbone",
    "MHSVMSettings",
    "MambaEngine",
    "VSSBlock",
    "VSSGate",
    "VSSUnGated",
    "base_orders",
    "inverse",
    "published",
    "scan_routes",
]
