"""Whether captions say more than a few safe sentences: what no score against references tells."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

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
    copies = sum(_letters(caption) in known for caption in captions)
    return {
        "distinct": _percent(len(set(map(tuple, tokens))), tokens),
        "words_used": len({token for caption in tokens for token in caption}),
        "mean_length": sum(map(len, tokens)) / len(tokens),
        "training_copies": _percent(copies, tokens) if known else None,
        "repeated_bigram": _percent(sum(map(_repeats, tokens)), tokens),
    }


def _repeats(tokens: Sequence[str]) -> bool:
    return any(count > 1 for count in Counter(pairwise(tokens)).values())


def _letters(text: str) -> str:
    return NO_LETTER.sub("", text.lower())


def _percent(count: int, whole: Sequence) -> float:
    return 100 * count / len(whole)
