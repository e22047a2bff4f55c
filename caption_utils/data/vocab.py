"""Text → tokens → ids, and back. A token is a word or, with WordPiece, a word piece."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from sys import intern

from caption_utils.data.wordpiece import WordPiece
from caption_utils.errors import InputError
from caption_utils.files import replacing

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIALS = (PAD, BOS, EOS, UNK)
TYPOGRAPHIC = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "–": "-", "—": " - ", "İ": "i"})
CLITIC = re.compile(r" (?=(?:n't|'(?:s|m|d|re|ve|ll))\b)")  # the space before a clitic


def tokenize(text: str) -> list[str]:
    """Lower-case Penn Treebank tokens without punctuation: ``"The dog's ball."`` → ``["the", "dog", "'s", "ball"]``.

    Punctuation is dropped, as in Karpathy's published tokens and in the papers' scorer, so that full stops improve
    neither perplexity nor BLEU. A token stays if it has a letter or a digit of any script.
    Raises ``ValueError`` for anything but text.
    """
    if not isinstance(text, str):
        raise ValueError(f"captions must be text, not {type(text).__name__}")
    return list(_tokens(text))


@lru_cache(1 << 16)  # the same captions are counted, encoded and scored again and again
def _tokens(text: str) -> tuple[str, ...]:
    from nltk.tokenize import word_tokenize  # slow to import, and not needed to caption a photo

    text = text.replace("´", "'")  # NFKC would make a space and an accent of it
    plain = unicodedata.normalize("NFKC", text).translate(TYPOGRAPHIC).lower()
    # NLTK leaves most punctuation outside ASCII at its word, and symbols, emoji and invisible marks
    marks = "\ufe0e\ufe0f\u20e3" + "".join(
        char for char in plain if not char.isascii() and unicodedata.category(char)[0] in "PSC"
    )
    tokens = (token.lstrip(marks).rstrip(f".{marks}") for token in word_tokenize(plain, preserve_line=True))
    return tuple(intern(token) for token in tokens if any(map(str.isalnum, token)))


def has_word(text: str) -> bool:
    """Whether ``tokenize`` would find a token, without its cost."""
    return any(map(str.isalnum, unicodedata.normalize("NFKC", text)))


def detokenize(tokens: Sequence[str]) -> str:
    """Tokens to readable text: clitics such as ``'s`` and ``n't`` are joined to their word again."""
    return CLITIC.sub("", " ".join(tokens))


class Vocabulary:
    """The words that a model knows, each with an id; ids 0 to 3 are ``<pad> <bos> <eos> <unk>``.

    With ``wordpiece`` they are word pieces.
    """

    pad, bos, eos, unk = range(len(SPECIALS))

    def __init__(self, counts: dict[str, int], min_count: int = 3, wordpiece: WordPiece | None = None):
        """Keep the words seen at least ``min_count`` times, most frequent first, ties in alphabetical order."""
        kept = sorted((word for word, n in counts.items() if n >= min_count), key=lambda word: (-counts[word], word))
        self.min_count, self.wordpiece = min_count, wordpiece
        self.counts = {word: counts[word] for word in kept}
        self.words = [*SPECIALS, *kept]
        self.ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 3, wordpiece: WordPiece | None = None) -> "Vocabulary":
        """Count the tokens of ``captions``, which should be training captions alone.

        ``wordpiece`` is restricted to the pieces they use; single letters stay however rare they are.
        """
        if isinstance(captions, str):
            raise ValueError("captions must be a list of texts, not one text")
        texts = list(map(tokenize, captions))
        if wordpiece is None:
            return cls(Counter(token for tokens in texts for token in tokens), min_count)
        wordpiece = wordpiece.restricted(texts, min_count)
        return cls(dict.fromkeys(wordpiece.pieces, 0) | wordpiece.counts(texts), 0, wordpiece)

    def __len__(self) -> int:
        return len(self.words)

    def fingerprint(self) -> str:
        """Hash of the words in order of their ids."""
        return hashlib.blake2b(repr(self.words).encode(), digest_size=8).hexdigest()

    def encode(self, text: str) -> list[int]:
        """``[<bos>, ids of the tokens, <eos>]``; a token outside the vocabulary becomes ``<unk>``."""
        tokens = tokenize(text) if self.wordpiece is None else self.wordpiece.split(tokenize(text))
        return [self.bos, *(self.ids.get(token, self.unk) for token in tokens), self.eos]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids`` up to the first ``<eos>``; ``<pad>`` and ``<bos>`` are left out, ``<unk>`` is shown."""
        before = takewhile(lambda i: i != self.eos, map(int, ids))
        return detokenize([word for word, _ in self.whole_words(i for i in before if i not in (self.pad, self.bos))])

    def whole_words(self, ids: Iterable[int]) -> list[tuple[str, int]]:
        """The words that ``ids`` spell, each with its number of tokens: one, unless tokens are word pieces."""
        tokens = [self.words[i] for i in ids]
        return [(token, 1) for token in tokens] if self.wordpiece is None else self.wordpiece.join(tokens)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, atomically."""
        stored: dict[str, object] = {"min_count": self.min_count, "counts": self.counts}
        if self.wordpiece:
            stored["wordpiece"] = self.wordpiece.rules
        text = json.dumps(stored, ensure_ascii=False, indent=0)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read what ``save`` wrote. Raises ``InputError`` for a missing or damaged file."""
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            counts, rules = stored["counts"], stored.get("wordpiece")
            return cls(counts, stored["min_count"], WordPiece(rules, counts) if rules else None)
        except OSError:
            raise InputError(f"{path}: no vocabulary here; point to a model folder that training wrote") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not a vocabulary ({error}); restore the file or train again") from None
