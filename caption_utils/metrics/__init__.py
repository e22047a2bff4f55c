"""What the papers count, with bootstrap intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bootstrap": ["Score", "mean_score", "paired_difference"],
        "diversity": ["diversity"],
        "meteor": ["meteor"],
        "perplexity": ["likelihood", "perplexity", "unknown_rate"],
        "scores": ["bleu", "caption_scores"],
    },
)
