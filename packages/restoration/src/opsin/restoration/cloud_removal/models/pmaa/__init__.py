"""PMAA: A Progressive Multi-scale Attention Autoencoder Model for High-Performance Cloud Removal.

arXiv 2303.16565 (ECAI 2023). Published code and weights: XavierJiezou/PMAA (MIT).

Three dates (B, 3, 4, H, W) of Sentinel-2's red, green, blue and near infrared, as 2·reflectance - 1
(reflectance 10000 is 1), to one cloud-free picture (B, 4 or 3, H, W) in (-1, 1), and each date's cloud
attention.

What differs from a naive reading:

* the class is written with batch norm, but every norm was replaced by instance norm without weights before
  training, and with it went the ReLU that was fused into the first norm of separable convolutions;
* "separable" 3x3 convolutions are dense: they hold most of the parameters;
* the paper draws four scales, the code has five; its decoder begins with the third deepest scale as context
  of the second deepest, and leaves the deepest one's injection unused;
* the pooled branch of ASPP has no norm here, but has one in the cloud teacher;
* injections resize to the nearest pixel.

Every pixel depends on every other one, through instance norms and averages of the whole picture.
"""

from opsin.core.models import register_models
from opsin.restoration.cloud_removal.models.pmaa import published
from opsin.restoration.cloud_removal.models.pmaa.discriminator import CloudFreeDiscriminator
from opsin.restoration.cloud_removal.models.pmaa.feature_extractor import CloudTeacher, FeatureExtractor
from opsin.restoration.cloud_removal.models.pmaa.network import PMAA, VARIANTS, CloudFree
from opsin.restoration.cloud_removal.models.pmaa.progressive_block import ProgressiveBlock

register_models("pmaa", PMAA, VARIANTS)

__all__ = [
    "PMAA",
    "VARIANTS",
    "CloudFree",
    "CloudFreeDiscriminator",
    "CloudTeacher",
    "FeatureExtractor",
    "ProgressiveBlock",
    "published",
]
