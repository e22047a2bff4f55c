"""The scores of the papers, with bootstrap intervals."""

from caption_utils.metrics.bootstrap import Score, mean_score, paired_difference
from caption_utils.metrics.cider import CiderD
from caption_utils.metrics.diversity import diversity
from caption_utils.metrics.meteor import meteor
from caption_utils.metrics.perplexity import likelihood, perplexity, unknown_rate
from caption_utils.metrics.scores import bleu, caption_scores

__all__ = [
    "CiderD",
    "Score",
    "bleu",
    "caption_scores",
    "diversity",
    "likelihood",
    "mean_score",
    "meteor",
    "paired_difference",
    "perplexity",
    "unknown_rate",
]
