"""The demo set: drawn scenes whose captions and boxes are known exactly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "descriptions": ["COLOURS", "is_true", "mentions"],
        "scenes": ["Scene", "Thing", "load_scenes"],
    },
)
