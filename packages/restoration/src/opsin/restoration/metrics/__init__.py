"""How near a restored picture is to the original."""

from opsin.restoration.metrics.lpips import LPIPS
from opsin.restoration.metrics.psnr_ssim import SuperResolutionMetric, luma, psnr, ssim

__all__ = ["LPIPS", "SuperResolutionMetric", "luma", "psnr", "ssim"]
