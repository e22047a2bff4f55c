"""Captions from a decoder: greedy and beam search, and sampling."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "beam": ["beam_search"],
        "hypotheses": ["Hypothesis"],
        "sampling": ["sample"],
    },
)
