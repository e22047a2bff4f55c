"""Decoders whose every probability is known, and the rules of search in plain Python."""

import math
from dataclasses import dataclass

import torch

from caption_utils.data.vocab import Vocabulary

PAD, BOS, EOS, UNK = Vocabulary.pad, Vocabulary.bos, Vocabulary.eos, Vocabulary.unk
A, B, C = 4, 5, 6  # words


@dataclass(frozen=True)
class Position:
    image: torch.Tensor  # (B,), of each caption
    step: int

    def select(self, captions, images=None):
        return Position(self.image[captions], self.step)


class Script:
    """A decoder whose log-probabilities are written down: ``table[image][step]`` maps word to probability.

    Its attention at step t is all on region t. Image i is told by its only feature.
    """

    def __init__(self, *tables, words=7, regions=50):
        self.words, self.regions = words, regions
        self.tables = tables

    def init_state(self, features):
        return Position(features[:, 0, 0].long(), 0)

    def step(self, tokens, state):
        logits = torch.full((len(tokens), self.words), -20.0)
        for row, image in enumerate(state.image.tolist()):
            table = self.tables[image]
            for word, probability in table[min(state.step, len(table) - 1)].items():
                logits[row, word] = math.log(probability)
        alpha = torch.zeros(len(tokens), self.regions)
        alpha[:, state.step] = 1
        return logits, alpha, Position(state.image, state.step + 1)


class Chain(Script):
    """What follows a word, whatever came before: ``after[word]`` maps the next word to its probability."""

    def __init__(self, after):
        super().__init__([{}], words=10)
        self.logits = torch.full((10, 10), -20.0)
        for read, probabilities in after.items():
            for word, probability in probabilities.items():
                self.logits[read, word] = math.log(probability)
            self.logits[read, PAD] = math.log(max(1e-9, 1 - sum(probabilities.values())))

    def step(self, tokens, state):
        _, alpha, state = super().step(tokens, state)
        return self.logits[tokens], alpha, state


@dataclass(frozen=True)
class Place:
    room: torch.Tensor  # (B,), of each caption

    def select(self, captions, images=None):
        return Place(self.room[captions])


class Maze:
    """Every word leads into one of 60 rooms, each with random logits for the next; a far cry from a language."""

    def __init__(self, seed, words):
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(60, 4 + words, generator=generator) * 3
        self.doors = torch.randint(60, (60, 4 + words), generator=generator)

    def init_state(self, features):
        return Place(features[:, 0, 0].long())

    def step(self, tokens, state):
        room = self.doors[state.room, tokens]
        return self.logits[room], torch.nn.functional.one_hot(room % 50, 50).float(), Place(room)


def features_of(*images):
    return torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 1).expand(-1, 50, 1)


def may_follow(ids, words, limits):
    """The rules in plain Python: what may come after ``ids``."""
    n, free = limits.no_repeat_ngram, list(words)
    if len(ids) == limits.max_length:
        return [EOS]
    if n:
        said = [ids[i : i + n] for i in range(len(ids) - n + 1)]
        free = [word for word in words if (*ids, word)[-n:] not in said]
    return [*free, EOS] if ids else free
