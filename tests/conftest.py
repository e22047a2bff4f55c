"""Fixtures that several test files share: tiny data sets, a tiny encoder, the real one, a model folder."""

import json
import os
import signal
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as all that starts the project, before PyTorch is loaded

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from caption_utils.config import DecoderConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import Vocabulary
from caption_utils.encoders.encoder import load_encoder
from caption_utils.model.decoder import build_decoder
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import Model, save_model

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore interruptions
pytest_plugins = ["browsing", "exercises"]  # fixtures of the pages; solutions of the notebooks

# 05, 06 and 09 use what notebook 04 trains, and 06 what 05 trains, so other files come between them.
FIRST = "04 03 08 07 browser trainer 05 01 02 notebooks 09 06 no_waits processes bootstrap structure evaluate".split()
COLOURS = ("red", "green", "blue", "white")


def pytest_collection_modifyitems(items):
    """What opens a page is marked ``browser``; what needs a GPU is skipped where there is none.

    Notebooks and the longest files come first, so that of several processes none ends long after the others.
    """
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(short(item.path), len(order)))
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU that runs CUDA"))


def short(path):
    """The number of a notebook, or what a file tests."""
    return path.stem[:2] if path.suffix == ".ipynb" else path.stem.removeprefix("test_")


@pytest.fixture
def no_java(monkeypatch):
    """METEOR is missing: its scorer takes longer to start than everything else together."""
    monkeypatch.setattr("shutil.which", lambda name: None)


class FakeEncoder(nn.Module):
    """Two by two regions; each one's features are its mean colour, twice. ``seen`` counts the images."""

    name, size, grid, width, local, fingerprint = "fake", 8, 2, 6, 0, "f4ce"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)
        self.sizes = []  # of the batches; several threads may append at once

    @property
    def seen(self):
        return sum(self.sizes)

    def transform(self, image):
        return torch.from_numpy(np.array(image.resize((self.size, self.size)))).permute(2, 0, 1)

    def forward(self, images):
        self.sizes.append(len(images))
        maps = nn.functional.adaptive_avg_pool2d(images * self.scale, self.grid)  # (B, 3, 2, 2)
        return maps.flatten(2).transpose(1, 2).repeat(1, 1, 2)


@pytest.fixture
def fake_encoder():
    return FakeEncoder()


@pytest.fixture(scope="session")
def encoder():
    return load_encoder("efficientnet_lite2")


def trained_with(monkeypatch, load, curves=False):
    """Runs of training get their encoder from ``load`` and are on the CPU; without ``curves`` those files are empty."""
    if not curves:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, format: path.touch())
    for file in ("run", "refinement"):
        monkeypatch.setattr(f"caption_utils.training.{file}.load_encoder", load)
    monkeypatch.setattr("caption_utils.training.preparation.device", lambda: torch.device("cpu"))


@pytest.fixture
def curves():
    """Learning curves are drawn, for tests that look at them."""


@pytest.fixture
def fake_training(request, monkeypatch, cache, fake_encoder):
    """Runs get the fake encoder under a real name, with its features below ``tmp_path``."""
    trained_with(monkeypatch, lambda name, device: fake_encoder, "curves" in request.fixturenames)
    return fake_encoder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Features go below ``tmp_path``, not into the repository."""
    monkeypatch.setattr("caption_utils.encoders.store.writable_dir", lambda name: tmp_path / "cache")
    return tmp_path / "cache"


def draw(path, left, right):
    picture = Image.new("RGB", (32, 24), left)
    picture.paste(right, (16, 0, 32, 24))
    picture.save(path)


def write_dataset(folder, images):
    """Two-coloured pictures with two captions each, split 2:1:1 into train, val and test."""
    (folder / "Images").mkdir(parents=True)
    rows = ["image,caption,split"]
    for i in range(images):
        left, right = COLOURS[i % 4], COLOURS[(i // 4 + i + 1) % 4]
        draw(folder / "Images" / f"{i}.png", left, right)
        split = ("train", "train", "val", "test")[i % 4]
        rows += [f"{i}.png,{left} beside {right} .,{split}", f"{i}.png,a {left} half and a {right} half .,{split}"]
    (folder / "captions.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def data_folder(tmp_path):
    """Twelve pictures with two captions each."""
    return write_dataset(tmp_path / "data", 12)


@pytest.fixture
def dataset(data_folder):
    return load_dataset(data_folder)


class RandomStore:
    """Features drawn once for each name."""

    def __init__(self, regions, width, seed=0):
        self.shape, self.seed = (regions, width), seed

    def __getitem__(self, names):
        rows = [np.random.default_rng([self.seed, *name.encode()]).normal(size=self.shape) for name in names]
        return torch.tensor(np.stack(rows)).half()


class Captioned:
    """As much of a ``CaptionDataset`` as batches need."""

    def __init__(self, captions):
        self.captions = captions

    @property
    def image_names(self):
        return list(self.captions)

    def captions_of(self, name):
        return self.captions[name]


CAPTIONS = {
    "a": ["a dog runs", "a brown dog runs on grass"],
    "b": ["two birds", "two small birds fly over the sea .", "birds"],
    "c": ["a man with a red hat rides a horse"],
    "d": ["the sea", "a boat on the sea", "a small boat"],
}


@pytest.fixture
def vocab():
    return Vocabulary.build([text for texts in CAPTIONS.values() for text in texts], min_count=1)


@pytest.fixture
def make_batches(vocab):
    """``CaptionBatches`` over four images with one to three captions each and random features (5, 6)."""

    def make(images_per_batch=4, mirror=False, captions=CAPTIONS, words=vocab, seed=0):
        mirrored = RandomStore(5, 6, seed=1) if mirror else None
        return CaptionBatches(Captioned(captions), RandomStore(5, 6), words, images_per_batch, "cpu", mirrored, seed)

    return make


VARIANTS = {
    "word-vectors": {"attention": "bahdanau", "word_dim": 3},
    "tied-word-vectors": {"attention": "luong", "word_dim": 3, "deep_output": True, "tie_weights": True},
    "bahdanau": {"attention": "bahdanau"},
    "dot": {"attention": "luong", "score": "dot", "hidden_dim": 6},
    "general": {"attention": "luong", "score": "general"},
    "concat": {"attention": "luong", "score": "concat"},
    "dot-feeding": {"attention": "luong", "score": "dot", "hidden_dim": 6, "input_feeding": True},
    "general-feeding": {"attention": "luong", "score": "general", "input_feeding": True},
    "concat-feeding": {"attention": "luong", "score": "concat", "input_feeding": True},
    "tied": {"attention": "bahdanau", "tie_weights": True},
    "projected": {"attention": "bahdanau", "region_dim": 3, "feature_dropout": 0.3},
    "deep": {"attention": "bahdanau", "region_dim": 3, "deep_output": True, "tie_weights": True},
    "deep-unprojected": {"attention": "bahdanau", "deep_output": True},
    "deep-general": {"attention": "luong", "region_dim": 3, "deep_output": True, "tie_weights": True},
    "tied-general": {"attention": "luong", "tie_weights": True},
    "projected-dot": {"attention": "luong", "score": "dot", "region_dim": 8},
    "deep-feeding": {
        "attention": "luong",
        "region_dim": 3,
        "deep_output": True,
        "tie_weights": True,
        "input_feeding": True,
    },
    "deep-concat-feeding": {
        "attention": "luong",
        "score": "concat",
        "region_dim": 3,
        "deep_output": True,
        "input_feeding": True,
    },
    "gated": {"attention": "bahdanau", "gate": True, "deep_output": True},
    "sparsemax": {"attention": "bahdanau", "normalizer": "sparsemax"},
    "entmax": {"attention": "luong", "score": "general", "normalizer": "entmax"},
    "none": {"attention": "none"},
    "hard": {"attention": "bahdanau", "hard": True},
    "local": {"attention": "bahdanau", "local_dim": 4, "region_dim": 3, "feature_dropout": 0.3},
    "local-general": {"attention": "luong", "local_dim": 4},
}


@pytest.fixture
def make_decoder(vocab):
    """A small random decoder, features of width 6, ready for evaluation."""

    def make(variant="bahdanau", **settings):
        torch.manual_seed(0)
        sizes = {"vocab_size": len(vocab), "feature_dim": 6, "embed_dim": 7, "hidden_dim": 8, "attention_dim": 4}
        return build_decoder(DecoderConfig(**(sizes | VARIANTS[variant] | settings))).eval()

    return make


ESSENTIAL = [
    "bahdanau",
    "general",
    "dot-feeding",
    "tied-word-vectors",
    "deep",
    "gated",
    "entmax",
    "none",
    "hard",
    "local",
]


@pytest.fixture(params=[pytest.param(each, marks=[pytest.mark.slow] * (each not in ESSENTIAL)) for each in VARIANTS])
def variant(request):
    return request.param


@pytest.fixture(params=["no connection", "no library"])
def offline(request, monkeypatch):
    """Nothing can be fetched from the hub of models, which a download would find out after many tries."""

    def refuse(url):
        raise ConnectionError("Name or service not known")

    if request.param == "no connection":
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: pytest.fail("tries to download"))
    else:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)


@pytest.fixture
def tokenizer_file(tmp_path):
    """A ``tokenizer.json`` with BERT's rules, a few pieces and most letters."""
    letters = "abcdefghiklmnoprstuw-"
    pieces = ["[PAD]", "[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces += ["skate", "##board", "##er", "dog", "half", "bes", "##ide", "green"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    rules = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    stored = {
        "version": "1.0",
        "padding": {"strategy": {"Fixed": 128}},
        "normalizer": {"type": "BertNormalizer", **rules},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": model | {"max_input_chars_per_word": 100, "vocab": {piece: i for i, piece in enumerate(pieces)}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    return tmp_path / "tokenizer.json"


@pytest.fixture(scope="session")
def model_folder(encoder, tmp_path_factory):
    """A model folder with random weights that fits the real encoder. Not to be changed: copy it first."""
    torch.manual_seed(0)
    words = Vocabulary.build(["a red beside blue half and green white"], min_count=1)
    decoder = build_decoder(DecoderConfig(len(words), encoder.width, hidden_dim=16, embed_dim=8, attention_dim=8))
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, Model(decoder, words, encoder.name, encoder.fingerprint, {"seed": 3, "split": "official"}))
    return folder
