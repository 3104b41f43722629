"""Every opsin backbone in every kind of dense network of stock mmdet and mmseg, small.

A stock config is taken as it is but for the backbone, what tells necks and heads its widths and strides, and
the sizes that make it slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from small_backbones import BACKBONES, small_backbone
from torch import Tensor, nn

from opsin.core import compat
from opsin.core.backbones.backbone import FeatureInfo
from opsin.core.engine.config import build_model, find_config

Maps = tuple[FeatureInfo, ...]
WIDTH = 32  # of pyramids and transformers, where the stock configs have 256
SIZES = ((70, 101), (97, 66))  # odd, and not square


def strides(maps: Maps, count: int, least: int = 4) -> list[int]:
    """Strides of `count` levels from `least` on: those of the maps, then twice the last again and again."""
    found = [info.stride for info in maps if info.stride >= least]
    while len(found) < count:
        found.append(2 * found[-1])
    return found[:count]


def widths(maps: Maps) -> list[int]:
    """Channels of the maps."""
    return [info.channels for info in maps]


def _retinanet(model: Config, maps: Maps) -> None:
    start = sum(info.stride < 8 for info in maps)
    model.neck.update(in_channels=widths(maps), start_level=start, out_channels=WIDTH)
    model.bbox_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    model.bbox_head.anchor_generator.strides = strides(maps, 5, least=8)


def _mask_rcnn(model: Config, maps: Maps) -> None:
    model.neck.update(in_channels=widths(maps), out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    model.rpn_head.anchor_generator.strides = strides(maps, 5)
    for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
        extractor.update(out_channels=WIDTH, featmap_strides=strides(maps, 4))
    model.roi_head.bbox_head.update(in_channels=WIDTH, fc_out_channels=WIDTH)
    model.roi_head.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH)
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)


def _deformable_detr(model: Config, maps: Maps) -> None:
    count = len(maps)
    model.num_feature_levels, model.num_queries = count, 20
    model.neck.update(in_channels=widths(maps), num_outs=count, out_channels=WIDTH)
    model.positional_encoding.num_feats = WIDTH // 2
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
        part.layer_cfg.ffn_cfg.update(embed_dims=WIDTH, feedforward_channels=WIDTH)
        for name in {"self_attn_cfg", "cross_attn_cfg"} & set(part.layer_cfg):
            part.layer_cfg[name].embed_dims = WIDTH
    model.encoder.layer_cfg.self_attn_cfg.num_levels = count
    model.decoder.layer_cfg.cross_attn_cfg.num_levels = count
    model.bbox_head.embed_dims = WIDTH


def _upernet(model: Config, maps: Maps) -> None:
    count = len(maps)
    model.decode_head.update(in_channels=widths(maps), in_index=list(range(count)), channels=WIDTH)
    model.auxiliary_head.update(in_channels=maps[-2].channels, in_index=count - 2, channels=WIDTH)


def _mask2former(model: Config, maps: Maps) -> None:
    head = model.decode_head
    head.update(in_channels=widths(maps), strides=strides(maps, len(maps)), num_queries=10)
    head.update(feat_channels=WIDTH, out_channels=WIDTH)
    head.num_transformer_feat_level = head.pixel_decoder.num_outs = min(3, len(maps) - 1)
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
    layers = (head.pixel_decoder.encoder.layer_cfg, head.transformer_decoder.layer_cfg)
    for layer in layers:
        layer.ffn_cfg.update(embed_dims=WIDTH, feedforward_channels=WIDTH)
        for name in {"self_attn_cfg", "cross_attn_cfg"} & set(layer):
            layer[name].embed_dims = WIDTH
    layers[0].self_attn_cfg.num_levels = head.pixel_decoder.num_outs
    for encoding in (head.pixel_decoder.positional_encoding, head.positional_encoding):
        encoding.num_feats = WIDTH // 2


HEADS: dict[str, tuple[str, Callable[[Config, Maps], None]]] = {
    "RetinaNet": ("mmdet::retinanet/retinanet_r50_fpn_1x_coco", _retinanet),
    "Mask R-CNN": ("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", _mask_rcnn),
    "Deformable DETR": ("mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco", _deformable_detr),
    "UPerNet": ("mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024", _upernet),
    "Mask2Former": ("mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024", _mask2former),
}


def dense_model(head: str, backbone: str) -> nn.Module:
    """The stock network `head` on the small backbone of a system, weights random."""
    name, fit = HEADS[head]
    compat.apply()
    stock = Config.fromfile(find_config(name))
    cfg = Config(stock._cfg_dict, filename=stock.filename, format_python_code=False)
    fit(cfg.model, small_backbone(backbone).feature_info)
    cfg.model.backbone = BACKBONES[backbone]
    cfg.model.pop("pretrained", None)
    if "size" in cfg.model.data_preprocessor:  # a crop's; pictures here have their own
        del cfg.model.data_preprocessor["size"]
        cfg.model.data_preprocessor.size_divisor = 32
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()  # until then Deformable DETR's level embedding is whatever lay in memory
    return model


def batch(head: str) -> dict[str, list[Any]]:
    """Two pictures of `SIZES` with an object, or a map of classes, each; of a segmentor's two of one size."""
    detector = HEADS[head][0].startswith("mmdet")
    sizes = SIZES if detector else (SIZES[0], SIZES[0])
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    samples = [(_detected if detector else _segmented)(size) for size in sizes]
    return {"inputs": pictures, "data_samples": samples}


def _meta(size: tuple[int, int]) -> dict[str, Any]:
    return {
        "img_shape": size,
        "ori_shape": size,
        "pad_shape": size,
        "batch_input_shape": size,
        "scale_factor": (1.0, 1.0),
        "flip": False,
        "img_path": "",
        "img_id": 0,
    }


def _detected(size: tuple[int, int]) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    mask = torch.zeros(1, *size, dtype=torch.uint8)
    mask[:, 10:50, 12:40] = 1
    sample = DetDataSample(metainfo=_meta(size))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[12.0, 10.0, 40.0, 50.0]]),
        labels=torch.tensor([3]),
        masks=BitmapMasks(mask.numpy(), *size),
    )
    return sample


def _segmented(size: tuple[int, int]) -> Any:
    from mmseg.structures import SegDataSample

    classes = torch.zeros(1, *size, dtype=torch.int64)
    classes[:, 20:, 30:] = 5
    return SegDataSample(metainfo=_meta(size), gt_sem_seg=PixelData(data=classes))


def losses_of(model: nn.Module, data: dict[str, list[Any]]) -> dict[str, Tensor]:
    """The losses of a training step, in the data's own sizes padded as the network's preprocessor does."""
    prepared = model.data_preprocessor(data, training=True)
    return model(**prepared, mode="loss")


def predict(model: nn.Module, data: dict[str, list[Any]]) -> list[Any]:
    """The predictions for each picture alone."""
    found = []
    with torch.no_grad():
        for picture, sample in zip(data["inputs"], data["data_samples"], strict=True):
            found += model.eval().test_step({"inputs": [picture], "data_samples": [sample]})
    return found


def total(losses: dict[str, Any]) -> Tensor:
    """The sum of all losses."""
    flat = [part for name, loss in losses.items() if "loss" in name for part in _listed(loss)]
    return torch.stack([part.sum() for part in flat]).sum()


def _listed(loss: Any) -> list[Tensor]:
    return list(loss) if isinstance(loss, list | tuple) else [loss]
