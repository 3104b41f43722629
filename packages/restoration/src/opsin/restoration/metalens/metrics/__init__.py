"""How near a restored picture is to the scene."""

from opsin.restoration.metalens.metrics.restored import MetalensMetric, psnr_rgb, psnr_y, ssim_of_floats

__all__ = ["MetalensMetric", "psnr_rgb", "psnr_y", "ssim_of_floats"]
