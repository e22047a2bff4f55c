"""The page: a person's photos to captions and attention maps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "heatmaps": ["attention_figure", "spotlight"],
        "page": ["attention_page"],
        "photos": ["sample_photos"],
        "session": ["Session"],
        "widget": ["CaptionWidget"],
    },
)
