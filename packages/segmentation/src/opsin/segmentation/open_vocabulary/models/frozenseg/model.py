"""FrozenSeg as a whole: frozen CLIP and SAM, the trained head, classes given as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from opsin.core.errors import UserError, unknown
from opsin.core.published import Tensors, fit
from opsin.registry import MODELS
from opsin.segmentation.open_vocabulary.models.clip import CLIP
from opsin.segmentation.open_vocabulary.models.clip.text import encode_names
from opsin.segmentation.open_vocabulary.models.frozenseg import inference
from opsin.segmentation.open_vocabulary.models.frozenseg.criterion import MaskCriterion
from opsin.segmentation.open_vocabulary.models.frozenseg.head import FrozenSegHead
from opsin.segmentation.open_vocabulary.models.frozenseg.text_classifier import TextClassifier
from opsin.segmentation.open_vocabulary.models.mask_pooling import resize
from opsin.segmentation.open_vocabulary.models.sam_encoder import SamEncoder
from opsin.segmentation.open_vocabulary.vocabulary import PROMPTS, Names, as_vocabulary

Classes = Sequence[str | Sequence[str]] | str


@MODELS.register_module()
class FrozenSeg(BaseModel):
    """Open-vocabulary panoptic, semantic and instance segmentation.

    Args:
        clip: arguments of `CLIP` (arch, checkpoint, tokenizer).
        sam: arguments of `SamEncoder` (arch, checkpoint).
        head: arguments of `FrozenSegHead` besides channels and width of the text features.
        classes: what to look for: names, synonyms as sequences, or the path of a file of them; by default
            those of the data or of the checkpoint.
        stuff: names of the classes that are stuff: amorphous regions, not told apart one by one.
        trained_classes: the classes of the training, where the checkpoint does not say them.
        criterion: arguments of `MaskCriterion` besides the numbers of classes and queries.
        seen_share: CLIP's share in the classes' scores for classes of the training (alpha).
        unseen_share: CLIP's share for other classes (beta).
        only_valid_masks: CLIP has no share for queries whose mask is empty (the authors' RN50x64).
        sam_mask_weight: share of SAM's own masks in unseen classes, where a sample brings `sam_masks`.
        object_threshold: least score of a panoptic segment.
        overlap_threshold: a segment of which less than this is visible is dropped.
        max_instances: pairs of query and class that become instances.
        data_preprocessor: mmdet's `DetDataPreprocessor`, with CLIP's mean and std.
        init_cfg: see mmengine; `dict(type="opsin.Published", checkpoint=…)` reads the authors' file.

    Raises:
        UserError: for a setting outside its range, and as the parts do.
    """

    def __init__(
        self,
        clip: Mapping[str, Any] | None = None,
        sam: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        *,
        classes: Classes = (),
        stuff: Sequence[str] = (),
        trained_classes: Classes = (),
        criterion: Mapping[str, Any] | None = None,
        seen_share: float = 0.4,
        unseen_share: float = 0.8,
        only_valid_masks: bool = False,
        sam_mask_weight: float = 0.2,
        object_threshold: float = 0.0,
        overlap_threshold: float = 0.8,
        max_instances: int = 100,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        shares = {
            "seen_share": seen_share,
            "unseen_share": unseen_share,
            "sam_mask_weight": sam_mask_weight,
            "overlap_threshold": overlap_threshold,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise UserError(f"model.{name}={value}", "give a share between 0 and 1")
        self.backbone = CLIP(**(clip or {}))
        self.sam = SamEncoder(**(sam or {}))
        self.sem_seg_head = FrozenSegHead(self.backbone.channels, self.backbone.embed_dim, **(head or {}))
        self.void_embedding = nn.Embedding(1, self.backbone.embed_dim)
        self.seen_share, self.unseen_share = seen_share, unseen_share
        self.only_valid_masks = only_valid_masks
        self.sam_mask_weight = sam_mask_weight
        self.panoptic_cfg = {"object_threshold": object_threshold, "overlap_threshold": overlap_threshold}
        self.max_instances = max_instances
        self.criterion_cfg = dict(criterion or {})
        self.classes: list[Names] = []
        self.trained: list[Names] = []
        self.is_thing = torch.zeros(0, dtype=torch.bool)
        self.fixed_classes = bool(classes)
        self._encoded: dict[Names, Tensor] = {}
        if classes:
            self.set_classes(as_vocabulary(classes), stuff)
        if trained_classes:
            self.trained = as_vocabulary(trained_classes)
        self.register_load_state_dict_post_hook(lambda model, _: model._encoded.clear())

    def set_classes(self, classes: Sequence[Names], stuff: Sequence[str] = ()) -> None:
        """What to look for from now on.

        Args:
            classes: name and synonyms of each.
            stuff: first names of those that are stuff.

        Raises:
            UserError: if `stuff` names a class that is not there.
        """
        names = [c[0] for c in classes]
        for name in stuff:
            if name not in names:
                raise unknown("stuff class", name, names)
        self.classes = list(classes)
        self.is_thing = torch.tensor([name not in stuff for name in names])

    @property
    def num_classes(self) -> int:
        """How many classes are looked for."""
        return len(self.classes)

    @property
    def num_things_classes(self) -> int:
        """How many of them are things."""
        return int(self.is_thing.sum())

    def name_classes(self, metainfo: Mapping[str, Any]) -> None:
        """Looks for the classes of a data set, under the names that the config gives them if it gives any.

        Args:
            metainfo: `classes`, and `stuff_classes` where there are things too.

        Raises:
            UserError: if the data do not name their classes, or the config names another number of them.
        """
        own = [(str(name),) for name in metainfo.get("classes") or ()]
        if not own:
            raise UserError("the data do not name their classes", "give model.classes=[cat,(tv,monitor)]")
        names = self.classes if self.fixed_classes else own
        if len(names) != len(own):
            raise UserError(
                f"model.classes names {len(names)} classes and the data have {len(own)}",
                "give one name, or one list of synonyms, for each class of the data",
            )
        stuff = set(metainfo.get("stuff_classes") or ())
        self.set_classes(names, [n[0] for n, (data,) in zip(names, own, strict=True) if data in stuff])

    def forward(self, inputs: Tensor, data_samples: SampleList | None = None, mode: str = "tensor") -> Any:
        """Images (B, 3, H, W), RGB normalised for CLIP, H and W multiples of 32, to what `mode` asks for.

        Args:
            inputs: the batch.
            data_samples: one an image; not needed for 'tensor'.
            mode: 'loss' for a dict of losses; 'predict' for `DetDataSample`s with `pred_panoptic_seg`,
                `pred_sem_seg` and `pred_instances`; 'tensor' for the last `Prediction`.

        Raises:
            UserError: if there are no classes to look for.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        if mode == "predict":
            return self.predict(inputs, data_samples or [])
        *_, last = self.sem_seg_head(self.backbone(inputs), self.sam(self.sam_input(inputs, ())), self.text())
        return last

    def loss(self, inputs: Tensor, samples: SampleList) -> dict[str, Tensor]:
        """Losses of all predictions against `gt_instances` and `gt_sem_seg`, which number things first.

        Raises:
            UserError: if a sample has no instances, or the classes don't begin with the things.
        """
        things = self.num_things_classes
        if any("gt_instances" not in sample for sample in samples):
            raise UserError(
                "FrozenSeg trains on things and stuff, and a sample has no instances",
                "use data in COCO's panoptic format",
            )
        if not bool(self.is_thing[:things].all()):
            raise UserError("training numbers things before stuff", "give the classes in that order")
        sam = self.sam(self.sam_input(inputs, samples))
        predictions = self.sem_seg_head(self.backbone(inputs), sam, self.text())
        queries = predictions[-1].masks.shape[1]
        criterion = MaskCriterion(things, len(self.classes) - things, queries, **self.criterion_cfg)
        return criterion(predictions, samples)

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: SampleList) -> SampleList:
        """The samples with results of the size that the image had on disk (`ori_shape`)."""
        features = self.backbone(inputs)
        text = self.text()
        sam = self.sam(self.sam_input(inputs, samples))
        *_, last = self.sem_seg_head(features, sam, text)
        clip_logits = self._clip_logits(features[-1], last.masks, text)
        seen = inference.seen_classes(self.classes, self.trained).to(inputs.device)
        for i, sample in enumerate(samples):
            masks, res5 = last.masks[i : i + 1], features[-1][i : i + 1]
            valid = inference.not_empty(resize(masks, res5.shape[-2:])[0]) if self.only_valid_masks else None
            logits = inference.geometric_ensemble(
                last.logits[i].float(),
                clip_logits[i].float(),
                seen,
                self.seen_share,
                self.unseen_share,
                valid,
            )
            on_image = _on_image(masks[0].float(), inputs.shape[-2:], sample)
            self._write(sample, logits, on_image)
            scores = inference.semantic_scores(logits, on_image)
            if "sam_masks" in sample:
                own = sample.sam_masks.to(inputs.device)[None]
                (of_own,) = self._clip_logits(res5, _on_batch(own, inputs.shape[-2:], sample), text)
                scores = inference.add_sam_masks(scores, of_own, own[0], seen, self.sam_mask_weight)
            sample.pred_sem_seg = PixelData(data=scores.argmax(0, keepdim=True))
        return samples

    def text(self) -> TextClassifier:
        """The present classes as rows of text features; each class is encoded once.

        Raises:
            UserError: if there are none.
        """
        if not self.classes:
            raise UserError(
                "FrozenSeg was not told what to look for", "give model.classes=[cat,(tv,monitor)]"
            )
        for names in self.classes:
            if names not in self._encoded:
                self._encoded[names] = encode_names(self.backbone.text, names, PROMPTS)
        rows = torch.cat([self._encoded[names] for names in self.classes])
        void = self.void_embedding.weight
        return TextClassifier.of(rows.to(void.device), void, [len(names) for names in self.classes])

    def sam_input(self, inputs: Tensor, samples: SampleList | tuple[()]) -> Tensor:
        """The batch as SAM wants it: its own mean and std, and 0 where an image is padded."""
        clip_mean, clip_std, mean, std = (
            inputs.new_tensor(values)[:, None, None]
            for values in (CLIP.mean, CLIP.std, SamEncoder.mean, SamEncoder.std)
        )
        x = (inputs * clip_std + clip_mean - mean) / std
        for image, sample in zip(x, samples, strict=False):
            height, width = sample.img_shape
            image[:, height:] = 0
            image[:, :, width:] = 0
        return x

    def _clip_logits(self, res5: Tensor, masks: Tensor, text: TextClassifier) -> Tensor:
        embedded = self.backbone.embed_masks(res5, masks)
        return text.logits(embedded, self.backbone.logit_scale)

    def _write(self, sample: DetDataSample, logits: Tensor, masks: Tensor) -> None:
        """Adds panoptic map and instances to `sample`; mmdet's maps number fewer than a thousand classes."""
        is_thing = self.is_thing.to(masks.device)
        if len(self.classes) < INSTANCE_OFFSET:
            ids, segments = inference.panoptic_segments(logits, masks, is_thing, **self.panoptic_cfg)
            sample.pred_panoptic_seg = PixelData(sem_seg=_mmdet_map(ids, segments, len(self.classes))[None])
        found = inference.top_instances(logits, masks, is_thing, self.max_instances)
        sample.pred_instances = InstanceData(
            scores=found.scores, labels=found.labels, masks=found.masks, bboxes=mask2bbox(found.masks)
        )

    def from_published(self, tensors: Tensors) -> Tensors:
        """Tensors of the authors' checkpoint; frozen parts that it lacks stay as their files filled them."""
        converted = {}
        clip = {}
        sam = {}
        for name, tensor in tensors.items():
            if name.startswith("backbone.clip_model."):
                clip[name.removeprefix("backbone.clip_model.")] = tensor
            elif name.startswith("sam."):
                sam[name.removeprefix("sam.")] = tensor
            elif not name.startswith(("criterion.", "pixel_", "sam_pixel_")):
                converted[name] = tensor
        if clip:
            converted |= {f"backbone.{n}": t for n, t in self.backbone.from_published(clip).items()}
        if sam:
            converted |= {f"sam.{n}": t for n, t in self.sam.from_published(sam).items()}
        scale = r"predictor\.logit_scale$"
        return fit(self.state_dict(), converted, fresh=rf"^(backbone|sam)\.|{scale}")


def _on_image(masks: Tensor, padded: Sequence[int], sample: DetDataSample) -> Tensor:
    """Mask logits (Q, h, w) of the padded batch to those of the image on disk (Q, H, W)."""
    height, width = sample.img_shape
    whole = F.interpolate(masks[None], tuple(padded), mode="bilinear", align_corners=False)
    return resize(whole[..., :height, :width], sample.ori_shape)[0]


def _on_batch(masks: Tensor, padded: Sequence[int], sample: DetDataSample) -> Tensor:
    """Mask logits (1, N, H, W) of the image on disk to those of the padded batch; no mask on the padding."""
    height, width = sample.img_shape
    resized = resize(masks, (height, width))
    border = (0, padded[1] - width, 0, padded[0] - height)
    return F.pad(resized, border, value=float(masks.min()) if masks.numel() else 0.0)


def _mmdet_map(ids: Tensor, segments: Sequence[inference.Segment], num_classes: int) -> Tensor:
    """Segment ids (H, W) to mmdet's map: label + 1000 x instance, instances of things counted from 1."""
    table = [num_classes]
    instances = 0
    for segment in segments:
        instances += segment.is_thing
        table.append(segment.label + INSTANCE_OFFSET * instances * segment.is_thing)
    return torch.tensor(table, dtype=torch.int32, device=ids.device)[ids]
