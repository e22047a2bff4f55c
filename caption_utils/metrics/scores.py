"""Scores of freely decoded captions against references: BLEU, ROUGE-L and CIDEr by the papers' scorer.

The scorer is imported where it is used, so that training does without it.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from caption_utils.data.vocab import tokenize
from caption_utils.metrics.bootstrap import Score, mean_score

Texts = dict[int, list[str]]
NGRAMS = 4


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU-1 to 4 in percent; see ``caption_scores``."""
    return {name: score.value for name, score in _bleu(*tokenized(captions, references)).items()}


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    """BLEU-1 to 4, ROUGE-L and CIDEr, times 100, each caption against all its references.

    By the papers' scorer, ``pycocoevalcap``. BLEU (Papineni et al. 2002) is a score of the whole corpus; NLTK's differs
    where captions have fewer than four words. ROUGE-L (Lin 2004) and CIDEr (Vedantam et al. 2015) are means over
    images; resampled images keep CIDEr's document frequencies, those of all references given. A single image has no
    CIDEr: each of its words occurs in all documents.
    """
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    texts = tokenized(captions, references)
    scores = {**_bleu(*texts), "rouge_l": mean_score(100 * Rouge().compute_score(*texts)[1])}
    if len(captions) > 1:
        scores["cider"] = mean_score(100 * Cider().compute_score(*texts)[1])
    return scores


def tokenized(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Texts, Texts]:
    """References and captions as the scorers expect them.

    Both are only tokenised, and never pass through a vocabulary, in which all unknown words would match. Raises
    ``ValueError`` unless there is one caption, and a list of references, for each of one or more images.
    """
    if not len(captions) == len(references) > 0:
        counts = f"{len(captions)} captions and references of {len(references)} images"
        raise ValueError(f"{counts}; give one caption, and its references, for each image")
    if any(isinstance(texts, str) or not len(texts) for texts in references):
        raise ValueError("the references of an image must be a list of one or more captions")
    targets = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(references)}
    return targets, {i: [" ".join(tokenize(text))] for i, text in enumerate(captions)}


def _bleu(references: Texts, captions: Texts) -> dict[str, Score]:
    """An image's statistics: matched n-grams, n-grams, words, and words of the reference of closest length."""
    rows = np.concatenate([_counts(captions[i], references[i]) for i in captions])
    return {f"bleu{n}": Score(rows, partial(_corpus_bleu, n=n)) for n in range(1, NGRAMS + 1)}


def sentence_bleu(captions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> np.ndarray:
    """BLEU-4 ``(S,)``, from 0 to 1, of each of S tokenised captions against the same references."""
    rows = _counts([" ".join(tokens) for tokens in captions], [" ".join(tokens) for tokens in references])
    return _corpus_bleu(rows, NGRAMS) / 100


def _counts(captions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """A row of statistics for BLEU for each of several captions of an image."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    gold = cook_refs(references)
    counts = [cook_test(caption, gold, eff="closest") for caption in captions]
    return np.array([[*c["correct"], *c["guess"], c["testlen"], c["reflen"]] for c in counts], dtype=float)


def _corpus_bleu(sums: np.ndarray, n: int) -> np.ndarray:
    """Geometric mean of the clipped precisions up to n, times the brevity penalty (Papineni et al. 2002, section 2.3).

    The summands 1e-15 and 1e-9 are the scorer's: without matches, the score is almost zero instead of an error.
    """
    precisions = (sums[..., :n] + 1e-15) / (sums[..., NGRAMS : NGRAMS + n] + 1e-9)
    ratios = (sums[..., -2] + 1e-15) / (sums[..., -1] + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratios))
    return 100 * precisions.prod(axis=-1) ** (1 / n) * brevity
