"""Pictures and captions in: every layout found in the wild, splits by image, vocabularies."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["exploration"],
    submod_attrs={
        "datasets": ["CaptionDataset", "load_dataset", "near_duplicates"],
        "duplicates": ["close_pairs"],
        "images": ["load_image"],
        "locate": ["find_dataset"],
        "vocab": ["SPECIALS", "Vocabulary", "detokenize", "tokenize"],
        "word_vectors": ["WordVectors", "load_word_vectors"],
        "wordpiece": ["WordPiece"],
    },
)
