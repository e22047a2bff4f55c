"""The demo set: drawn scenes whose captions and boxes are known exactly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "descriptions": ["Scene", "Thing", "is_true", "mentions"],
        "scenes": ["load_scenes"],
        "words": ["COLOURS"],
    },
)
