import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from opsin.core.errors import UserError
from opsin.registry import METRICS

SIZE = (120, 160)


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, np.uint8)
    mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
    return mask


def scene(rng, image_id):
    """Three images' worth of objects, and predictions near some of them, far from others, and doubled."""
    count = int(rng.integers(1, 6))
    corners = rng.integers(0, (90, 60), (count, 2)) + rng.integers(0, 20, (count, 2))
    truth = np.concatenate([corners, corners + rng.integers(8, 45, (count, 2))], axis=1).astype(float)
    labels = rng.integers(0, 3, count)
    guessed = np.concatenate([truth + rng.integers(-4, 5, truth.shape), truth[:1] + 3]).clip(0, 119)
    guessed[:, 2:] = np.maximum(guessed[:, 2:], guessed[:, :2] + 1)
    guessed_labels = np.concatenate([labels, labels[:1]])
    guessed_labels[-1] = (guessed_labels[-1] + rng.integers(0, 2)) % 3
    return {
        "img_id": image_id,
        "ori_shape": SIZE,
        "instances": [
            {
                "bbox": box.tolist(),
                "bbox_label": int(label),
                "ignore_flag": int(i == 3),
                "mask": [[box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]],
            }
            for i, (box, label) in enumerate(zip(truth, labels, strict=True))
        ],
        "pred_instances": {
            "bboxes": torch.tensor(guessed, dtype=torch.float32),
            "scores": torch.tensor(rng.random(len(guessed)), dtype=torch.float32),
            "labels": torch.tensor(guessed_labels),
            "masks": torch.tensor(np.stack([rectangle(*box) for box in guessed]).astype(bool)),
        },
    }


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(7)
    return [scene(rng, image_id) for image_id in range(10, 30)]


def by_pycocotools(scenes, kind):
    truth, found = COCO(), []
    annotations = []
    for s in scenes:
        for o in s["instances"]:
            x1, y1, x2, y2 = o["bbox"]
            encoded = coco_mask.encode(np.asfortranarray(rectangle(x1, y1, x2, y2)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": s["img_id"],
                    "category_id": o["bbox_label"],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": o["ignore_flag"],
                    "segmentation": encoded,
                }
            )
        p = s["pred_instances"]
        for box, score, label, mask in zip(p["bboxes"], p["scores"], p["labels"], p["masks"], strict=True):
            x1, y1, x2, y2 = box.tolist()
            entry = {"image_id": s["img_id"], "category_id": int(label), "score": float(score)}
            if kind == "bbox":
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            else:
                entry["segmentation"] = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            found.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {
            "images": [{"id": s["img_id"], "height": SIZE[0], "width": SIZE[1]} for s in scenes],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in enumerate("abc")],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def measure(scenes, **options):
    metric = METRICS.build({"type": "opsin.CocoAP", **options})
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    metric.process(None, scenes)
    return metric.evaluate(len(scenes))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_numbers_are_those_of_pycocotools(scenes, kind):
    ours, theirs = measure(scenes, kinds=(kind,)), by_pycocotools(scenes, kind)
    assert 0.1 < theirs[0] < 0.9
    for index, name in enumerate(("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m")):
        assert ours[f"coco/{kind}_{name}"] == pytest.approx(theirs[index], abs=1e-6)
    assert ours[f"coco/{kind}_AR_100"] == pytest.approx(theirs[8], abs=1e-6)


def test_size_that_no_object_has_is_left_out(scenes):
    assert "coco/bbox_mAP_l" not in measure(scenes)


def test_perfect_predictions_score_one(scenes):
    perfect = []
    for s in scenes:
        kept = [o for o in s["instances"] if not o["ignore_flag"]]
        boxes = torch.tensor([o["bbox"] for o in kept], dtype=torch.float32)
        labels = torch.tensor([o["bbox_label"] for o in kept])
        predicted = {"bboxes": boxes, "labels": labels, "scores": torch.ones(len(kept))}
        perfect.append({**s, "instances": kept, "pred_instances": predicted})
    found = measure(perfect, classwise=True)
    assert found["coco/bbox_mAP"] == pytest.approx(1)
    assert found["coco/bbox_mAP_50/b"] == pytest.approx(1)


def test_no_prediction_scores_zero(scenes):
    nothing = {"bboxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=int), "scores": torch.zeros(0)}
    assert measure([{**s, "pred_instances": nothing} for s in scenes])["coco/bbox_mAP"] == 0


def test_data_without_any_object_cannot_be_evaluated(scenes):
    with pytest.raises(UserError, match="no annotated object"):
        measure([{**s, "instances": []} for s in scenes])


def test_unknown_kind_is_refused():
    with pytest.raises(UserError, match="not keypoints"):
        METRICS.build({"type": "opsin.CocoAP", "kinds": ("keypoints",)})
