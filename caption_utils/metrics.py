"""How good a model is: perplexity of held-out captions, and scores of freely decoded ones."""

import math
from collections.abc import Iterable, Sequence

import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torch.nn import functional as F

from caption_utils.batches import Batch
from caption_utils.decoder import Decoder
from caption_utils.vocab import tokenize

Texts = dict[int, list[str]]


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

    By the papers' scorer, ``pycocoevalcap``; NLTK's differs where captions have fewer than four words.
    """
    scores, _ = Bleu(4).compute_score(*_tokenized(captions, references), verbose=0)
    return {f"bleu{n}": 100 * float(score) for n, score in enumerate(scores, 1)}


def cider_rouge(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """CIDEr (Vedantam et al. 2015) and ROUGE-L (Lin 2004), times 100, by the papers' scorer."""
    tokenized = _tokenized(captions, references)
    return {
        "rouge_l": 100 * float(Rouge().compute_score(*tokenized)[0]),
        "cider": 100 * float(Cider().compute_score(*tokenized)[0]),
    }


def _tokenized(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Texts, Texts]:
    """References and captions as the scorer takes them.

    Both pass through ``tokenize`` alone, never through a vocabulary: an unknown word can match nothing.
    """
    targets = {i: [" ".join(tokenize(text)) for text in texts] for i, texts in enumerate(references)}
    return targets, {i: [" ".join(tokenize(text))] for i, text in enumerate(captions)}
