"""How well a tracker follows: success, precision, AO and SR in one pass, and VOT's expected overlap."""

from opsin.tracking.metrics.expected_overlap import vot_scores
from opsin.tracking.metrics.one_pass import OnePassEvaluation, evaluate_sequence, summarise
from opsin.tracking.metrics.overlap import iou

__all__ = ["OnePassEvaluation", "evaluate_sequence", "iou", "summarise", "vot_scores"]
