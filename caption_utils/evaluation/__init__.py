"""Does a model look at what it names, does it know what it does not know, and how good is it as a whole?"""

from caption_utils.evaluation.confidence import fit_confidence
from caption_utils.evaluation.grounding import grounding, grounding_scores, truth
from caption_utils.evaluation.occlusion import deletion_scores, deletion_test
from caption_utils.evaluation.report import evaluate_model
from caption_utils.evaluation.sharpness import change, effective_regions, sharpness_scores

__all__ = [
    "change",
    "deletion_scores",
    "deletion_test",
    "effective_regions",
    "evaluate_model",
    "fit_confidence",
    "grounding",
    "grounding_scores",
    "sharpness_scores",
    "truth",
]
