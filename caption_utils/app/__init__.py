"""A person's photos to captions, attention maps and a page."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "heatmaps": ["attention_figure", "attention_page", "spotlight"],
        "session": ["Session"],
        "widget": ["CaptionWidget", "sample_photos"],
    },
)
