"""Both attentions and both decoders, as the papers write them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attention": ["Attention", "BahdanauAttention", "LuongAttention", "additive_score"],
        "decoder": ["BahdanauDecoder", "Batch", "Decoder", "LuongDecoder", "State", "build_decoder"],
        "hard": ["likeliest", "sampled"],
        "normalizers": ["entmax", "sparsemax"],
    },
)
