"""RelationNet++ on one-stage detectors: a stock dense head, strengthened in place by key points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.published import Tensors
from opsin.detection.models.relationnet2.keypoints import PointMaps, grid_place
from opsin.detection.models.relationnet2.predictors import find_predictor, tower_features
from opsin.detection.models.relationnet2.relation import PointRelation
from opsin.registry import MODELS

Outputs = tuple[list[Tensor], ...]
SOURCES = ("input", "cls", "reg")


@MODELS.register_module()
class BVRHead(BaseDenseHead):
    """A stock RetinaNet, FCOS or ATSS head whose tower features attend to key points.

    Centres strengthen what classifies and corners what regresses; predictors, losses and post-processing stay
    the stock head's. Its losses get the prefix `bbox_`, those of the key points `kpt_`.

    Args:
        bbox_head: config of the stock head, as it stands in a stock config.
        keypoint_head: config of `KeyPointHead`.
        cls_kinds: kinds of key points that classification attends to; () leaves that branch alone.
        reg_kinds: kinds that regression attends to.
        keypoint_source: what the key-point head reads: the pyramid (`input`) or a tower's features.
        relation: arguments of both `PointRelation`s (`num_heads`, `base_size`, `log_scale`, …).
        scale_position: whether a level's offsets are measured in its own stride instead of the first level's.
        share_positions: whether regression uses the position table of classification.
        train_cfg, test_cfg: the stock head's; mmdet's detectors pass them.

    Raises:
        UserError: if the stock head is not one that is known, or an argument does not fit.
    """

    def __init__(
        self,
        bbox_head: Mapping[str, Any],
        keypoint_head: Mapping[str, Any],
        *,
        cls_kinds: Sequence[str] = ("center",),
        reg_kinds: Sequence[str] = ("top_left_corner", "bottom_right_corner"),
        keypoint_source: Literal["input", "cls", "reg"] = "input",
        relation: Mapping[str, Any] | None = None,
        scale_position: bool = False,
        share_positions: bool = False,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if keypoint_source not in SOURCES:
            raise unknown("keypoint_source", keypoint_source, SOURCES)
        self.bbox_head = MMDET_MODELS.build({**bbox_head, "train_cfg": train_cfg, "test_cfg": test_cfg})
        self.predict_level = find_predictor(self.bbox_head)
        self.keypoint_head = MODELS.build({"type": "opsin.KeyPointHead", **keypoint_head})
        self.cls_kinds, self.reg_kinds = tuple(cls_kinds), tuple(reg_kinds)
        for kind in (*self.cls_kinds, *self.reg_kinds):
            if kind not in self.keypoint_head.kinds:
                raise unknown("kind of key point", kind, self.keypoint_head.kinds)
        self.keypoint_source, self.scale_position = keypoint_source, scale_position
        self._build_relations(dict(relation or {}), share_positions)

    def _build_relations(self, arguments: dict[str, Any], share_positions: bool) -> None:
        width = self.bbox_head.feat_channels
        self.cls_transformer: nn.Module | None = None
        self.reg_transformer: nn.Module | None = None
        positions: nn.Module | None = None
        if self.cls_kinds:
            relation = PointRelation(width, num_kinds=len(self.cls_kinds), **arguments)
            self.cls_transformer, positions = relation, relation.relative_positional_encoding
        elif share_positions:
            raise UserError("share_positions=True without cls_kinds", "there is no position table to share")
        if self.reg_kinds:
            shared = positions if share_positions else None
            self.reg_transformer = PointRelation(
                width, num_kinds=len(self.reg_kinds), positions=shared, **arguments
            )

    @property
    def num_classes(self) -> int:
        """Classes of the stock head."""
        return int(self.bbox_head.num_classes)

    def forward(self, levels: Sequence[Tensor]) -> Outputs:
        """What the stock head gives for a pyramid of (N, C, H, W): logits, boxes (and centerness) a level."""
        return self.bridge(levels)[0]

    def bridge(self, levels: Sequence[Tensor]) -> tuple[Outputs, dict[str, PointMaps]]:
        """The stock head's outputs and the key points' maps."""
        cls_feats, reg_feats = tower_features(self.bbox_head, levels)
        source = {"input": levels, "cls": cls_feats, "reg": reg_feats}[self.keypoint_source]
        maps = self.keypoint_head(source)
        cls_feats = self._strengthen(cls_feats, maps, self.cls_kinds, self.cls_transformer)
        reg_feats = self._strengthen(reg_feats, maps, self.reg_kinds, self.reg_transformer)
        outputs = [
            self.predict_level(self.bbox_head, cls_feat, reg_feat, level)
            for level, (cls_feat, reg_feat) in enumerate(zip(cls_feats, reg_feats, strict=True))
        ]
        return tuple(list(parts) for parts in zip(*outputs, strict=True)), maps

    def _strengthen(
        self,
        features: list[Tensor],
        maps: Mapping[str, PointMaps],
        kinds: Sequence[str],
        relation: nn.Module | None,
    ) -> list[Tensor]:
        """Features (N, C, H, W) of every level after they have attended to the image's key points."""
        if relation is None:
            return features
        strides = self.keypoint_head.strides
        keys = [self.keypoint_head.choose(maps[kind], features) for kind in kinds]
        strengthened = []
        for level, stride in zip(features, strides, strict=True):
            place = grid_place(level.shape[-2:], stride, level)
            scale = stride if self.scale_position else strides[0]
            refined = relation(level.permute(0, 2, 3, 1), place, keys, float(scale))
            strengthened.append(refined.permute(0, 3, 1, 2))
        return strengthened

    def loss(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Any]:
        """The stock head's losses and those of the key points."""
        outputs, maps = self.bridge(x)
        instances, ignored, metas = unpack_gt_instances(batch_data_samples)
        boxes = self.bbox_head.loss_by_feat(*outputs, instances, metas, ignored)
        points = self.keypoint_head.loss(maps, instances)
        return {f"bbox_{name}": v for name, v in boxes.items()} | {f"kpt_{n}": v for n, v in points.items()}

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The stock head's losses alone."""
        losses: dict[str, Any] = self.bbox_head.loss_by_feat(*args, **kwargs)
        return losses

    def predict_by_feat(self, *args: Any, **kwargs: Any) -> Any:
        """The stock head's post-processing."""
        return self.bbox_head.predict_by_feat(*args, **kwargs)


@MODELS.register_module()
class RelationNet2(SingleStageDetector):
    """mmdet's one-stage detector, which also reads the authors' checkpoint files through `load_published`.

    `BVRHead` works in stock detectors (`RetinaNet`, `FCOS`, `ATSS`) alike.
    """

    @staticmethod
    def from_published(tensors: Tensors) -> Tensors:
        """Drops the sine embedding, which follows from the sizes."""
        return {name: tensor for name, tensor in tensors.items() if not name.endswith("base_embedding")}
