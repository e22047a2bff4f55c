"""Whether captions say more than a few safe sentences: what no score against references tells."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from caption_utils.data.vocab import tokenize

NO_LETTER = re.compile(r"[\W_]+")


def diversity(captions: Sequence[str], training: Iterable[str]) -> dict[str, float | None]:
    """Counts and shares (in percent) of a model's captions, one for each image.

    ``distinct``: share of different texts among them. ``words_used``: different words in all. ``mean_length``: words
    of a caption. ``training_copies``: share that repeats one of the captions it was trained on, compared by letters
    and digits alone; ``None`` where ``training`` is empty. ``repeated_bigram``: share that says two words in a row
    twice.
    """
    tokens, known = [tokenize(caption) for caption in captions], {_letters(text) for text in training}
    return {
        "distinct": 100 * len(set(map(tuple, tokens))) / len(tokens),
        "words_used": len({token for caption in tokens for token in caption}),
        "mean_length": fmean(map(len, tokens)),
        "training_copies": 100 * fmean(_letters(caption) in known for caption in captions) if known else None,
        "repeated_bigram": 100 * fmean(len(set(pairwise(words))) < len(words) - 1 for words in tokens),
    }


def _letters(text: str) -> str:
    return NO_LETTER.sub("", text.lower())
