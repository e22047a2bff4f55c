"""Whether captions are more than a few safe sentences, which no score against references tells."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from caption_utils.data.vocab import tokenize

NO_LETTER = re.compile(r"[\W_]+")


def diversity(captions: Sequence[str], training: Iterable[str]) -> dict[str, float | None]:
    """Counts and shares (in percent) of a model's captions, one for each image.

    ``distinct``: share of different captions. ``words_used``: size of their vocabulary. ``mean_length``: words per
    caption. ``training_copies``: share that repeats a ``training`` caption, compared by letters and digits alone;
    ``None`` if there are none. ``repeated_bigram``: share with a bigram that occurs twice.
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
