"""AiT as a whole, and the training of its tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmengine.model import BaseModel
from torch import Tensor

from opsin.core.errors import UserError
from opsin.core.published import Tensors
from opsin.registry import MODELS
from opsin.segmentation.dense_prediction.models.ait.depth import window_starts
from opsin.segmentation.dense_prediction.models.ait.heads import (
    DepthHead,
    DetectionHead,
    InstancesHead,
    crop_masks,
)
from opsin.segmentation.dense_prediction.models.ait.task_solver import TaskSolver
from opsin.segmentation.dense_prediction.models.ait.tokenizer import VQVAE, drop_patches
from opsin.segmentation.dense_prediction.outputs import DepthOutput, store_all

Mode = Literal["tensor", "loss", "predict"]
PREPROCESSOR = {
    "type": "ImgDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}


@dataclass(frozen=True)
class Objects:
    """The output of a model without depth: objects of this many classes."""

    num_classes: int


@MODELS.register_module()
class AiT(BaseModel):
    """A backbone, a task solver, and a head for each task that the model is to solve.

    A batch may mix tasks: samples with `gt_depth_map` train depth, those with `gt_instances` objects.

    Args:
        backbone: config of a backbone whose last map the solver reads.
        solver: arguments of `TaskSolver`.
        depth: arguments of `DepthHead`.
        instances: arguments of `InstancesHead`.
        detection: arguments of `DetectionHead`.
        data_preprocessor: config; RGB with ImageNet's mean and deviation by default.
        init_cfg: see mmengine; `dict(type="opsin.Published", checkpoint=…)` reads the authors' file.

    Raises:
        UserError: without any task, and as the parts do.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        solver: Mapping[str, Any],
        *,
        depth: Mapping[str, Any] | None = None,
        instances: Mapping[str, Any] | None = None,
        detection: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or PREPROCESSOR), init_cfg)
        if depth is None and instances is None and detection is None:
            raise UserError("AiT has no task", "give model.depth, model.instances or model.detection")
        self.backbone = MODELS.build(dict(backbone))
        self.transformer = TaskSolver(self.backbone.feature_info[-1].channels, **solver)
        self.depth_head = None if depth is None else DepthHead(**depth)
        self.insseg_head = None if instances is None else InstancesHead(**instances)
        self.det_head = None if detection is None else DetectionHead(**detection)
        self._check_codes()
        self.output = DepthOutput() if depth is not None else Objects(self.transformer.words.num_classes)

    def _check_codes(self) -> None:
        words = self.transformer.words
        for head, part, setting in (
            (self.depth_head, words.depth, "num_embeddings_depth"),
            (self.insseg_head, words.masks, "num_embeddings"),
        ):
            if head is not None and head.vqvae.num_embeddings != len(part):
                raise UserError(
                    f"a tokenizer has {head.vqvae.num_embeddings} codes and the solver words for {len(part)}",
                    f"set model.solver.{setting}={head.vqvae.num_embeddings}",
                )

    def forward(self, inputs: Tensor, data_samples: list[Any] | None = None, mode: Mode = "tensor") -> Any:
        """Runs on normalised images (B, 3, H, W).

        Args:
            inputs: the batch.
            data_samples: one an image; not needed for 'tensor'.
            mode: 'loss' for a dict of losses; 'predict' for the samples with `pred_depth_map` and
                `pred_instances`; 'tensor' for depth (B, H, W), or objects if the model has no depth.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        if mode == "predict":
            return self.predict(inputs, data_samples or [])
        with torch.no_grad():
            if self.depth_head is not None:
                return self.depth_head.predict(self.backbone, self.transformer, inputs)
            sizes = [(inputs.shape[-2], inputs.shape[-1])] * len(inputs)
            return self._objects_head().predict(self.transformer, self.backbone(inputs)[-1], sizes)

    def _objects_head(self) -> InstancesHead | DetectionHead:
        head = self.insseg_head or self.det_head
        assert head is not None  # a model without depth has objects
        return head

    def loss(self, inputs: Tensor, samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of the tasks that the batch has truth for.

        Raises:
            UserError: if a sample has no truth for any of the model's tasks.
        """
        feature = self.backbone(inputs)[-1]
        with_depth = [i for i, s in enumerate(samples) if self.depth_head and "gt_depth_map" in s]
        with_objects = [
            i for i, s in enumerate(samples) if (self.insseg_head or self.det_head) and "gt_instances" in s
        ]
        for i, sample in enumerate(samples):
            if i not in with_depth and i not in with_objects:
                raise UserError(
                    f"{sample.get('img_path', 'a sample')} has no truth for this AiT's tasks",
                    "load it with opsin.LoadDepth, or pack gt_instances",
                )
        losses: dict[str, Tensor] = {}
        if with_depth and self.depth_head is not None:
            truth = torch.stack([samples[i].gt_depth_map.data[0] for i in with_depth]).to(feature.device)
            losses |= self.depth_head.loss(self.transformer, feature[with_depth], truth)
        if with_objects:
            size = (inputs.shape[-2], inputs.shape[-1])
            objects = [samples[i].gt_instances for i in with_objects]
            self._check_classes(objects)
            for head in (self.insseg_head, self.det_head):
                if head is not None:
                    losses |= head.loss(self.transformer, feature[with_objects], objects, size)
        return losses

    def _check_classes(self, objects: Sequence[Any]) -> None:
        known = self.transformer.words.num_classes
        largest = max((int(one.labels.max()) for one in objects if len(one)), default=0)
        if largest >= known:
            raise UserError(
                f"the data have class {largest} and the vocabulary words for {known} classes, counted from 0",
                "set model.solver.num_classes to the number of classes of the data",
            )

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: list[Any]) -> list[Any]:
        """The samples with `pred_depth_map` (metres) and `pred_instances`, at the size of the files."""
        if self.depth_head is not None and isinstance(self.output, DepthOutput):
            depth = self.depth_head.predict(self.backbone, self.transformer, inputs)
            samples = store_all(self.output, depth[:, None], samples)
        if self.insseg_head is not None or self.det_head is not None:
            feature = self.backbone(inputs)[-1]
            sizes = [(int(s.img_shape[0]), int(s.img_shape[1])) for s in samples]
            found = self._objects_head().predict(self.transformer, feature, sizes)
            for sample, instances in zip(samples, found, strict=True):
                sample.pred_instances = _at_original_size(instances, sample)
        return samples

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' task model: a head's copy of the solver and derived tables are dropped."""
        converted = {}
        for name, tensor in tensors.items():
            if "_head.transformer." in name or name.endswith(("coords_table", "position_index")):
                continue
            converted[name] = tensor
        for head in ("depth_head", "insseg_head"):
            own = {n: t for n, t in converted.items() if n.startswith(f"{head}.vqvae.")}
            bare = {n.removeprefix(f"{head}.vqvae."): t for n, t in own.items()}
            part = getattr(self, head)
            if part is not None:
                converted |= {f"{head}.vqvae.{n}": t for n, t in part.vqvae.from_published(bare).items()}
        return converted


def _at_original_size(instances: Any, sample: Any) -> Any:
    """Boxes and masks of the batch to those of the picture on disk."""
    height, width = (int(side) for side in sample.get("ori_shape", sample.img_shape)[:2])
    y, x = height / sample.img_shape[0], width / sample.img_shape[1]
    instances.bboxes = instances.bboxes * instances.bboxes.new_tensor([x, y, x, y])
    if "masks" in instances and tuple(instances.masks.shape[1:]) != (height, width):
        masks = instances.masks[:, None].float()
        resized = torch.nn.functional.interpolate(
            masks, (height, width), mode="bilinear", align_corners=False
        )
        instances.masks = resized[:, 0] >= 0.5
    return instances


@MODELS.register_module()
class AiTTokenizer(BaseModel):
    """The first stage of a training: a tokenizer learns to give a truth back. Pictures are not looked at.

    Its prediction is the reconstruction of the truth, so a test measures the best that tokens allow.

    Args:
        tokenizer: arguments of `VQVAE`; `use_norm=False` for depth.
        drop_ratio: share of patches that are hidden from the encoder while it trains.
        drop_patch: their side.
        data_preprocessor: config.
        init_cfg: see mmengine.
    """

    def __init__(
        self,
        tokenizer: Mapping[str, Any],
        *,
        drop_ratio: float = 0.0,
        drop_patch: int = 16,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or PREPROCESSOR), init_cfg)
        self.vqvae = VQVAE(**tokenizer)
        self.drop_ratio, self.drop_patch = drop_ratio, drop_patch
        self.output = DepthOutput()

    def forward(self, inputs: Tensor, data_samples: list[Any] | None = None, mode: Mode = "tensor") -> Any:
        """Runs on the truth in `data_samples`.

        Args:
            inputs: pictures (B, 3, H, W), whose device and size count only; maps (B, 1, S, S) for 'tensor'.
            data_samples: with `gt_depth_map`, or `gt_instances` with masks.
            mode: 'loss' for the losses, 'predict' for samples with `pred_depth_map`, 'tensor' for the maps
                given back.
        """
        if mode == "tensor":
            return self.vqvae.decode(self.vqvae.encode(inputs[:, 0]))[:, None]
        samples = data_samples or []
        if mode == "predict":
            return [self._reconstructed(sample, inputs) for sample in samples]
        truth = self._truth(samples, inputs)
        seen = drop_patches(truth, ratio=self.drop_ratio, patch=self.drop_patch) if self.drop_ratio else truth
        _, losses = self.vqvae(seen, truth)
        return {"loss_reconstruction": losses.reconstruction, "loss_commitment": losses.commitment}

    def _truth(self, samples: Sequence[Any], inputs: Tensor) -> Tensor:
        if samples and "gt_depth_map" in samples[0]:
            return torch.stack([s.gt_depth_map.data[0] for s in samples]).to(inputs.device)
        if samples and "gt_instances" in samples[0]:
            return torch.cat([crop_masks(s.gt_instances, self.vqvae.mask_size) for s in samples]).to(inputs)
        raise UserError(
            "a tokenizer learns from truth alone", "load it with opsin.LoadDepth or as gt_instances"
        )

    @torch.no_grad()
    def _reconstructed(self, sample: Any, inputs: Tensor) -> Any:
        """Adds the truth as the tokenizer gives it back, in windows that cover it; 0 stays unknown."""
        if "gt_depth_map" not in sample:
            raise UserError(
                "a tokenizer predicts from truth alone", "use `opsin test`, with data that have depth"
            )
        truth = sample.gt_depth_map.data.to(inputs.device)
        side = self.vqvae.mask_size
        if min(truth.shape[1:]) < side:
            raise UserError(
                f"depth of {truth.shape[2]}x{truth.shape[1]} is smaller than the tokenizer's {side}"
            )
        depth = torch.zeros_like(truth)
        for top in window_starts(truth.shape[1], side):
            for left in window_starts(truth.shape[2], side):
                place = (..., slice(top, top + side), slice(left, left + side))
                depth[place] = self.vqvae.decode(self.vqvae.encode(truth[place]))
        self.output.store(depth, sample)
        return sample
