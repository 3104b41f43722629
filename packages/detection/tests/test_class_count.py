import pytest
from mmengine.registry import MODELS, init_default_scope

from opsin.core.engine.class_count import check
from opsin.core.engine.config import load_config
from opsin.core.errors import UserError


class Data:
    def __init__(self, *classes):
        self.metainfo = {"classes": classes}


@pytest.mark.parametrize("name", ["retinanet_convnext_samples", "mask_rcnn_convnext_samples"])
def test_head_of_another_class_count_is_named(name):
    cfg = load_config(name)
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    check(model, Data(*"0123456789"))
    with pytest.raises(
        UserError, match=r"num_classes=10, but the data have 2 classes \(a, b\).*num_classes=2"
    ):
        check(model, Data("a", "b"))
