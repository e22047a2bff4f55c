"""Does a model look where it says, and how good is it as a whole."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "grounding": ["grounding", "grounding_scores", "truth"],
        "occlusion": ["deletion_scores", "deletion_test"],
        "report": ["evaluate_model"],
    },
)
