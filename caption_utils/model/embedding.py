"""Words to vectors, also such as others have trained, of a width of their own."""

from torch import Tensor, nn

from caption_utils.config import DecoderConfig


class ProjectedEmbedding(nn.Embedding):
    """Word vectors ``e_w`` of a width of their own, and a matrix that takes them to the decoder's: ``W e_w``.

    Like any embedding's, the result is of the weights' precision.
    """

    def __init__(self, vocab_size: int, word_dim: int, embed_dim: int):
        super().__init__(vocab_size, word_dim)
        self.projection = nn.Linear(word_dim, embed_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(super().forward(tokens)).to(self.weight.dtype)


def word_embedding(config: DecoderConfig) -> nn.Embedding:
    """Words to vectors of width E; those of another width, ``word_dim``, are projected."""
    if config.word_dim in (0, config.embed_dim):
        return nn.Embedding(config.vocab_size, config.embed_dim)
    return ProjectedEmbedding(config.vocab_size, config.word_dim, config.embed_dim)
