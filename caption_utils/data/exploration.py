"""Captions before any model is trained: their words, how well people agree, what a vocabulary leaves out.

Captions are lists of tokens; text in their place raises ``ValueError``: it would be read letter by letter.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

import pandas as pd
from pycocoevalcap.bleu.bleu import Bleu

from caption_utils.data.vocab import UNK, Vocabulary

THRESHOLDS = (1, 2, 3, 5, 10, 20, 50, 100)
DETERMINERS = "a an the one two three four five six seven several some many his her their its another".split()
MODIFIERS = """red orange yellow green blue purple pink brown black white grey gray blond blonde tan golden dark light
bright young old older little small large big tall long short other same wet dry snowy grassy rocky sandy busy dirty
open wooden asian""".split()
FUNCTION_WORDS = """is are was were be and or but while as in on at of to from with by for into onto over under above
below near next through across down up off out behind between beside around along against who that which it he she they
there front""".split()
NO_VERBS = "building swing something during being".split()
PHRASE = re.compile(
    rf"\b(?:{'|'.join(DETERMINERS)}) "  # two
    rf"(?:(?:{'|'.join(MODIFIERS)}|\w+ed|\w+ing)(?: and)? )*"  # black and white spotted
    rf"(?!(?:{'|'.join(FUNCTION_WORDS + MODIFIERS)})\b)([\w-]+)"  # dogs
    rf"(?: (?:(?:is|are) )?(?!(?:{'|'.join(MODIFIERS + NO_VERBS)})\b)(\w+(?:ing|ed|[^su]s))\b)?"  # are running
)

Tokens = Sequence[str]


def _check_tokens(captions: Iterable[Tokens]) -> None:
    if any(isinstance(tokens, str) for tokens in captions):
        raise ValueError("captions must be lists of tokens, as tokenize makes them, not text")


def nouns_and_verbs(tokens: Tokens) -> tuple[list[str], list[str]]:
    """Nouns and verbs by rule: the first word after "a", "two" or "his" that is not a known adjective; and the word
    after it (or after its "is" or "are") if that ends in -ing, -ed or -s. This is a guess without grammar: it misses
    nouns without a determiner and verbs far from their noun, and takes the second noun of "two soccer players" for a
    verb.
    """
    _check_tokens([tokens])
    found = PHRASE.findall(" ".join(tokens))
    return [noun for noun, _ in found], [verb for _, verb in found if verb]


def overlap(first: Tokens, second: Tokens) -> float:
    """Jaccard index of two captions: shared words over all words, 0 to 1."""
    _check_tokens([first, second])
    a, b = set(first), set(second)
    return len(a & b) / len(a | b)


def human_bleu(images: Sequence[Sequence[Tokens]], vocab: Vocabulary | None = None) -> pd.DataFrame:
    """Corpus BLEU-1 to 4 of people, in percent: each image's k-th caption against its others, one row for each k.

    ``images`` holds the tokenised captions of each image. With ``vocab``, words that it lacks become ``<unk>`` in the
    scored captions (never in the references), as for any model with that vocabulary. Images with one caption are left
    out.
    """
    _check_tokens(tokens for captions in images for tokens in captions)
    rows, images = {}, [captions for captions in images if len(captions) > 1]
    for k in range(max(map(len, images), default=0)):
        chosen = [captions for captions in images if k < len(captions)]
        scored = [[w if vocab is None or w in vocab.ids else UNK for w in captions[k]] for captions in chosen]
        rows[k + 1] = _corpus_bleu(scored, [[*captions[:k], *captions[k + 1 :]] for captions in chosen])
    return pd.DataFrame(rows, index=[f"bleu{n}" for n in range(1, 5)]).T.rename_axis("k")


def _corpus_bleu(scored: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """As ``metrics.bleu``, but for texts that are already tokenised."""
    texts = {i: [" ".join(tokens)] for i, tokens in enumerate(scored)}
    others = {i: [" ".join(tokens) for tokens in captions] for i, captions in enumerate(references)}
    scores, _ = Bleu(4).compute_score(others, texts, verbose=0)
    return {f"bleu{n}": 100 * float(score) for n, score in enumerate(scores, 1)}


def row_split_leaks(images: Sequence[str], test_rows: int, seed: int) -> tuple[int, int]:
    """Draw ``test_rows`` of the rows as a test set: (images in it, those of them that are also in training).

    ``images`` names the image of each row.
    """
    drawn = set(Random(seed).sample(range(len(images)), test_rows))
    test = {image for row, image in enumerate(images) if row in drawn}
    train = {image for row, image in enumerate(images) if row not in drawn}
    return len(test), len(test & train)


def expected_leaks(captions_per_image: Iterable[int], test_rows: int) -> tuple[float, float]:
    """The mean of ``row_split_leaks`` over all draws (hypergeometric).

    Of n rows, m are drawn: all k rows of an image with probability (m)_k / (n)_k, none of them with
    (n - m)_k / (n)_k, where (n)_k = n (n - 1) ... (n - k + 1).
    """
    sizes = list(captions_per_image)
    rows, tests, leaks = sum(sizes), 0.0, 0.0
    for k in sizes:
        every = math.perm(test_rows, k) / math.perm(rows, k)
        none = math.perm(rows - test_rows, k) / math.perm(rows, k)
        tests += 1 - none
        leaks += max(0.0, 1 - none - every)  # 0 for a single caption, whatever the rounding
    return tests, leaks


def unknown_percent(captions: Sequence[Tokens], vocab: Vocabulary) -> float:
    """Percentage of the tokens to be predicted, including each caption's ``<eos>``, that ``vocab`` lacks."""
    _check_tokens(captions)
    unknown = sum(word not in vocab.ids for tokens in captions for word in tokens)
    return 100 * unknown / sum(len(tokens) + 1 for tokens in captions)


def threshold_table(
    train: Sequence[Tokens], val: Sequence[Tokens], thresholds: Iterable[int] = THRESHOLDS
) -> pd.DataFrame:
    """What each ``min_count`` keeps and leaves out; everything but ``words`` in percent.

    ``words`` in the vocabulary, and the share of all training words that are ``kept``; unknown tokens in training and
    validation, ``unknown_train`` and ``unknown_val``; validation captions with an unknown word, ``captions_val``; and
    ``unknown_if_counted``, the unknown validation tokens if validation words had been counted too, which would flatter
    the model.
    """
    counts = Counter(word for tokens in train for word in tokens)
    all_counts = counts + Counter(word for tokens in val for word in tokens)
    rows = {}
    for min_count in thresholds:
        vocab = Vocabulary(counts, min_count)
        rows[min_count] = {
            "words": len(vocab.counts),
            "kept": 100 * len(vocab.counts) / len(counts),
            "unknown_train": unknown_percent(train, vocab),
            "unknown_val": unknown_percent(val, vocab),
            "captions_val": 100 * sum(any(w not in vocab.ids for w in tokens) for tokens in val) / len(val),
            "unknown_if_counted": unknown_percent(val, Vocabulary(all_counts, min_count)),
        }
    return pd.DataFrame(rows).T.rename_axis("min_count").astype({"words": int})
