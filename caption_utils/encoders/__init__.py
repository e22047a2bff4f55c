"""Images to features ``(B, N, D)``: frozen networks, and a store that holds what they made."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "encoder": ["ENCODERS", "Encoder", "load_encoder"],
        "store": ["FeatureStore", "extract"],
    },
)
