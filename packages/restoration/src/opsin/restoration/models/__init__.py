"""Restoration networks, one published system a file, and the model that trains and runs them."""

from opsin.restoration.models.blended_tiling import BlendedTiling
from opsin.restoration.models.hat import HAT, HATBackbone
from opsin.restoration.models.interpolation_init import InterpolationInit
from opsin.restoration.models.perceptual_loss import PerceptualLoss
from opsin.restoration.models.real_world_super_resolver import RealWorldSuperResolver, VanillaGANLoss
from opsin.restoration.models.super_resolver import PixelL1Loss, SuperResolver
from opsin.restoration.models.tiling import BlockwiseTiling, ImageTiling
from opsin.restoration.models.unet_discriminator import UNetDiscriminatorSN

__all__ = [
    "HAT",
    "BlendedTiling",
    "BlockwiseTiling",
    "HATBackbone",
    "ImageTiling",
    "InterpolationInit",
    "PerceptualLoss",
    "PixelL1Loss",
    "RealWorldSuperResolver",
    "SuperResolver",
    "UNetDiscriminatorSN",
    "VanillaGANLoss",
]
