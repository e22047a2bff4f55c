"""CIDEr-D against references whose n-grams are counted once, to score many rounds of captions."""

import math
from collections import Counter
from collections.abc import Sequence

NGRAMS, SIGMA = 4, 6.0
Gram = tuple[str, ...]


class CiderD:
    """Vedantam et al. 2015, equations 1 to 3, with the clipping and the length penalty of its variant D.

    Equal to ``pycocoevalcap``'s, with its factor 10. Like it, this counts n-grams where equation 1 has shares of the
    caption; under clipping the two differ. Document frequencies are those of ``references``: for each image its
    captions, each a sequence of tokens.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]):
        self.references = references
        images = Counter(gram for texts in references for gram in {gram for text in texts for gram in ngrams(text)})
        self.unseen = math.log(len(references))
        self.rarity = {gram: self.unseen - math.log(count) for gram, count in images.items()}

    def scores(self, image: int, captions: Sequence[Sequence[str]]) -> list[float]:
        """The score of each of several captions of the image with this index in the references."""
        gold = [self._vector(text) for text in self.references[image]]
        vectors = [self._vector(caption) for caption in captions]
        return [10 * sum(self._similarity(vector, other) for other in gold) / len(gold) for vector in vectors]

    def _vector(self, tokens: Sequence[str]) -> tuple[dict[Gram, float], list[float], int]:
        """TF-IDF weights of the n-grams, their norm for each n, and the length in bigrams."""
        weights = {gram: times * self.rarity.get(gram, self.unseen) for gram, times in ngrams(tokens).items()}
        squares = [0.0] * NGRAMS
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        return weights, [math.sqrt(square) for square in squares], max(len(tokens) - 1, 0)

    def _similarity(self, caption: tuple, reference: tuple) -> float:
        (ours, our_norms, our_length), (theirs, their_norms, their_length) = caption, reference
        products = [0.0] * NGRAMS
        for gram in ours.keys() & theirs.keys():
            products[len(gram) - 1] += min(ours[gram], theirs[gram]) * theirs[gram]
        norms = [a * b for a, b in zip(our_norms, their_norms, strict=True)]
        cosines = sum(product / norm for product, norm in zip(products, norms, strict=True) if norm)
        return cosines / NGRAMS * math.exp(-((our_length - their_length) ** 2) / (2 * SIGMA**2))


def ngrams(tokens: Sequence[str]) -> Counter[Gram]:
    """Counts of all n-grams of one to four tokens. Raises ``ValueError`` for a text that is not tokenised."""
    if isinstance(tokens, str):
        raise ValueError("CIDEr-D takes lists of tokens, not strings; tokenize captions and references first")
    return Counter(tuple(tokens[i : i + n]) for n in range(1, NGRAMS + 1) for i in range(len(tokens) - n + 1))
