"""The head of Panoptic SegFormer: location decoder, two mask decoders, and their branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from opsin.registry import MODELS
from opsin.segmentation.panoptic.models.panoptic_segformer.inference import Inference, Raw
from opsin.segmentation.panoptic.models.panoptic_segformer.losses import (
    LocatedLayer,
    Losses,
    PanopticSegFormerLoss,
    Shares,
)
from opsin.segmentation.panoptic.models.panoptic_segformer.mask_decoder import (
    LEVELS,
    DecodedMasks,
    MaskDecoder,
)
from opsin.segmentation.panoptic.models.panoptic_segformer.targets import Targets, targets_of
from opsin.segmentation.panoptic.models.panoptic_segformer.transformer import (
    DeformableTransformer,
    Located,
    Memory,
)

CLASS_BIAS = -4.59512  # log odds of 0.01: most queries find nothing


@MODELS.register_module()
class PanopticSegFormerHead(BaseModule):
    """Things by location-aware queries, stuff by one fixed query a class.

    Args:
        num_things_classes: things; they are the first classes.
        num_stuff_classes: stuff.
        num_queries: thing queries Q.
        embed_dims: C, that of the neck's maps.
        num_heads: heads of every attention.
        num_levels: maps that the neck gives; the three finest give the masks.
        ffn_dims: width inside every FFN and MLP.
        encoder_layers: of the deformable encoder.
        location_layers: of the location decoder.
        thing_blocks: of the thing mask decoder.
        stuff_blocks: of the stuff mask decoder.
        dropout: in encoder and location decoder.
        rounds: see `PanopticSegFormerLoss`.
        train_cfg: nothing; OpenMMLab's detectors pass one.
        test_cfg: see `Inference`.
    """

    def __init__(
        self,
        num_things_classes: int = 80,
        num_stuff_classes: int = 53,
        *,
        num_queries: int = 300,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        ffn_dims: int = 1024,
        encoder_layers: int = 6,
        location_layers: int = 6,
        thing_blocks: int = 4,
        stuff_blocks: int = 6,
        dropout: float = 0.1,
        rounds: int = 1,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        dim = embed_dims
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.transformer = DeformableTransformer(
            dim, num_heads, num_levels, ffn_dims, encoder_layers, location_layers, dropout
        )
        self.query_embedding = nn.Embedding(num_queries, 2 * dim)  # position, then content
        self.stuff_query = nn.Embedding(num_stuff_classes, 2 * dim)  # content, then position
        self.things_mask_head = MaskDecoder(dim, num_heads, thing_blocks, ffn_dims)
        self.stuff_mask_head = MaskDecoder(dim, num_heads, stuff_blocks, ffn_dims, self_attn=True)
        self.cls_branches = _classifiers(location_layers, dim, num_things_classes)
        self.reg_branches = _regressors(location_layers, dim)
        self.cls_thing_branches = _classifiers(thing_blocks, dim, num_things_classes)
        self.reg_branches2 = _regressors(thing_blocks, dim)
        self.cls_stuff_branches = _classifiers(stuff_blocks, dim, 1)
        self.criterion = PanopticSegFormerLoss(rounds)
        self.inference = Inference.of(num_things_classes, test_cfg)

    # The network's parts.

    def locate(self, maps: Sequence[Tensor], padding: Tensor) -> tuple[Memory, Located]:
        """Encoder and location decoder.

        Args:
            maps: of the neck, (B, C, H, W).
            padding: (B, height, width), True outside each picture.
        """
        memory = self.transformer.encode(maps, padding)
        return memory, self.transformer.decode(memory, self.query_embedding.weight, self.reg_branches)

    def decode_things(self, queries: Tensor, memory: Memory) -> DecodedMasks:
        """Masks of location-aware queries (B, N, C)."""
        decoded: DecodedMasks = self.things_mask_head(queries, *finest(memory))
        return decoded

    def decode_stuff(self, memory: Memory) -> tuple[DecodedMasks, list[Tensor]]:
        """Masks of the stuff queries; each block's logits (B, stuff classes, 1) of a class being there."""
        batch = len(memory.tokens)
        content, position = self.stuff_query.weight.repeat(batch, 1, 1).chunk(2, -1)
        decoded = self.stuff_mask_head(content, *finest(memory), position)
        logits = [
            branch(query)
            for branch, query in zip(self.cls_stuff_branches, decoded.block_queries, strict=True)
        ]
        return decoded, logits

    # Training.

    def loss(self, maps: Sequence[Tensor], batch_data_samples: list[Any]) -> Losses:
        """The losses, under the published names, each with its weight.

        Raises:
            UserError: for samples without masks or with labels outside the classes.
        """
        targets = targets_of(batch_data_samples, self.num_things_classes, self.num_stuff_classes)
        return self.loss_of(maps, padding_of(batch_data_samples, maps[0].device), targets)

    def loss_of(self, maps: Sequence[Tensor], padding: Tensor, targets: list[Targets]) -> Losses:
        """The losses of maps against targets; see `locate` for the first two."""
        memory, located = self.locate(maps, padding)
        layers = [
            LocatedLayer(branch(queries), boxes)
            for branch, queries, boxes in zip(self.cls_branches, located.queries, located.boxes, strict=True)
        ]
        matches = [self.criterion.match(layer, targets) for layer in layers]
        things = sum(len(rounds[0][0]) for rounds in matches[-1])
        shares = Shares.count(things, sum(len(t.stuff_labels) for t in targets), memory.tokens.float())
        losses: Losses = {}
        for number, (layer, found) in enumerate(zip(layers, matches, strict=True)):
            prefix = f"d{number}." if number < len(layers) - 1 else ""
            first = [rounds[0] for rounds in found]
            of_layer = self.criterion.located(layer, first, targets, shares)
            losses |= {f"{prefix}{name}": loss for name, loss in of_layer.items()}
        chosen = [torch.cat([rows for rows, _ in rounds]).sort().values for rounds in matches[-1]]
        losses |= self._thing_losses(memory, located, layers[-1], chosen, targets, shares)
        losses |= self.criterion.stuff(*self.decode_stuff(memory), targets, shares)
        return losses

    def _thing_losses(
        self,
        memory: Memory,
        located: Located,
        layer: LocatedLayer,
        chosen: list[Tensor],
        targets: list[Targets],
        shares: Shares,
    ) -> Losses:
        """Mask losses of the chosen location queries; pictures with fewer of them are filled up."""
        longest = max(1, *map(len, chosen))
        rows = torch.stack([torch.cat([c, c.new_zeros(longest - len(c))]) for c in chosen])
        queries = located.queries[-1].gather(1, rows[..., None].expand(-1, -1, memory.tokens.shape[-1]))
        decoded = self.decode_things(queries, memory)
        matches = [
            self.criterion.match_masks(
                layer.cls_scores[i, c], layer.boxes[i, c], decoded.masks[i, : len(c)], t
            )
            for i, (c, t) in enumerate(zip(chosen, targets, strict=True))
        ]
        losses = self.criterion.thing_masks(decoded, matches, targets, shares)
        # Published branches that no loss uses; DistributedDataParallel waits for the gradient of every one.
        unused = [*self.cls_thing_branches.parameters(), *self.reg_branches2.parameters()]
        losses["loss_mask_things"] = losses["loss_mask_things"] + 0.0 * sum(p.sum() for p in unused)
        return losses

    # Prediction.

    def raw(self, maps: Sequence[Tensor], padding: Tensor) -> tuple[Tensor, ...]:
        """The fields of `Raw`, each with a batch dimension before it."""
        memory, located = self.locate(maps, padding)
        scores, labels, rows = self.inference.best_pairs(self.cls_branches[-1](located.queries[-1]))
        boxes, queries = (
            values[-1].gather(1, rows[..., None].expand(-1, -1, values[-1].shape[-1]))
            for values in (located.boxes, located.queries)
        )
        stuff, logits = self.decode_stuff(memory)
        stuff_scores = logits[-1].squeeze(-1).sigmoid()
        return scores, labels, boxes, self.decode_things(queries, memory).masks, stuff_scores, stuff.masks

    def predict(
        self, maps: Sequence[Tensor], batch_data_samples: list[Any], rescale: bool = True
    ) -> list[dict[str, BaseDataElement]]:
        """Each picture's results by name; see `Inference`."""
        raw = self.raw(maps, padding_of(batch_data_samples, maps[0].device))
        return [
            self.inference.results(Raw(*of_image), sample.metainfo, rescale=rescale)
            for *of_image, sample in zip(*raw, batch_data_samples, strict=True)
        ]


def finest(memory: Memory) -> tuple[Tensor, list[tuple[int, int]]]:
    """The memory's tokens without the coarsest levels, and the sizes of the levels that are left."""
    sizes = memory.sizes[:LEVELS]
    return memory.tokens[:, : sum(height * width for height, width in sizes)], sizes


def padding_of(samples: list[Any], device: torch.device) -> Tensor:
    """(B, height, width) of the padded batch, True outside each picture's `img_shape`."""
    first = samples[0].metainfo
    padding = torch.ones(len(samples), *first.get("batch_input_shape", first["img_shape"]), dtype=torch.bool)
    for image, sample in enumerate(samples):
        height, width = sample.img_shape[:2]
        padding[image, :height, :width] = False
    return padding.to(device)


def _classifiers(count: int, dim: int, classes: int) -> nn.ModuleList:
    branches = [nn.Linear(dim, classes) for _ in range(count)]
    for branch in branches:
        nn.init.constant_(branch.bias, CLASS_BIAS)
    return nn.ModuleList(branches)


def _regressors(count: int, dim: int) -> nn.ModuleList:
    """Three layers each; the first branch begins with small boxes, the others change nothing at first."""
    lasts = [nn.Linear(dim, 4) for _ in range(count)]
    for last in lasts:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    nn.init.constant_(lasts[0].bias[2:], -2.0)
    return nn.ModuleList(
        nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), last) for last in lasts
    )
