"""BAS, whole: suppression, networks for boxes and for seeds, names of models, parity."""

from opsin.core.models import register_models
from opsin.segmentation.weakly_supervised.models.bas import published
from opsin.segmentation.weakly_supervised.models.bas.backbones import BASVGG, BASMobileNet, BASResNet
from opsin.segmentation.weakly_supervised.models.bas.inception import BASInception
from opsin.segmentation.weakly_supervised.models.bas.seeder import BASSeeder

__all__ = ["BASVGG", "BASInception", "BASMobileNet", "BASResNet", "BASSeeder", "published"]

CUB, ILSVRC, OPENIMAGES = ({"num_classes": count} for count in (200, 1000, 100))

register_models(
    "bas",
    BASResNet,
    {"bas_resnet50_cub": CUB, "bas_resnet50_ilsvrc": ILSVRC, "bas_resnet50_openimages": OPENIMAGES},
)
register_models("bas", BASVGG, {"bas_vgg16_cub": CUB, "bas_vgg16_ilsvrc": ILSVRC})
register_models("bas", BASInception, {"bas_inceptionv3_cub": CUB, "bas_inceptionv3_ilsvrc": ILSVRC})
register_models("bas", BASMobileNet, {"bas_mobilenet_cub": CUB, "bas_mobilenet_ilsvrc": ILSVRC})
register_models("bas", BASSeeder, {"bas_resnet50_voc": {"num_classes": 20}})
