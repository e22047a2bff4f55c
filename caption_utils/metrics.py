"""How good a model is: perplexity of held-out captions, and scores of freely decoded ones."""

import math
from collections.abc import Iterable, Sequence

import torch
from nltk.translate.bleu_score import corpus_bleu
from torch.nn import functional as F

from caption_utils.batches import Batch
from caption_utils.decoder import Decoder
from caption_utils.vocab import tokenize

BLEU_WEIGHTS = {f"bleu{n}": (1 / n,) * n for n in (1, 2, 3, 4)}


@torch.no_grad()
def perplexity(decoder: Decoder, batches: Iterable[Batch]) -> float:
    """``exp(total negative log-likelihood / total tokens)``: ``<eos>`` counts, padding does not, dropout is off.

    Infinite for a model that has diverged beyond all numbers.
    """
    was_training = decoder.training
    decoder.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        logits, _ = decoder(batch.features, batch.tokens, batch.owner)
        total += F.cross_entropy(logits, batch.targets, reduction="sum").item()
        tokens += len(batch.targets)
    decoder.train(was_training)
    return math.exp(total / tokens) if total / tokens < 700 else math.inf


def unknown_rate(batches: Iterable[Batch], unk: int) -> float:
    """Share of target tokens, ``<eos>`` included, that the vocabulary does not know."""
    counts = [((batch.targets == unk).sum().item(), len(batch.targets)) for batch in batches]
    return sum(unknown for unknown, _ in counts) / sum(tokens for _, tokens in counts)


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU-1 to 4 in percent (Papineni et al. 2002), each caption against all its references.

    Both sides pass through ``tokenize`` alone, never through a vocabulary: an unknown word can match nothing.
    """
    hypotheses = [tokenize(caption) for caption in captions]
    targets = [[tokenize(text) for text in texts] for texts in references]
    scores = corpus_bleu(targets, hypotheses, weights=list(BLEU_WEIGHTS.values()))
    return dict(zip(BLEU_WEIGHTS, (100 * score for score in scores), strict=True))


def cider_rouge(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """CIDEr (Vedantam et al. 2015) and ROUGE-L (Lin 2004), times 100, by the papers' scorer, ``pycocoevalcap``."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    hypotheses = {i: [" ".join(tokenize(text))] for i, text in enumerate(captions)}
    targets = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(references)}
    return {
        "rouge_l": 100 * float(Rouge().compute_score(targets, hypotheses)[0]),
        "cider": 100 * float(Cider().compute_score(targets, hypotheses)[0]),
    }
