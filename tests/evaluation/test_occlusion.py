from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from caption_utils.captioner import Captioner
from caption_utils.config import DecoderConfig
from caption_utils.data.vocab import Vocabulary
from caption_utils.data.wordpiece import WordPiece
from caption_utils.evaluation import occlusion as deletion
from caption_utils.evaluation.occlusion import deletion_scores, deletion_test
from caption_utils.model.decoder import build_decoder
from caption_utils.search.beam import Hypothesis
from caption_utils.training.checkpoint import Model

WORDS = Vocabulary.build(["red dark"], min_count=1)
RED, DARK = WORDS.ids["red"], WORDS.ids["dark"]


class RedDecoder(torch.nn.Module):
    """Says "red" as surely as the first region is red, whatever the words before; takes features of ``FakeEncoder``."""

    def forward(self, features, tokens, owner):
        caption = torch.cat([owner[:size] for size in tokens.batch_sizes.tolist()])
        logits = torch.full((len(caption), len(WORDS)), -30.0)
        logits[:, RED] = 4 * features[caption, 0, 0]
        logits[:, DARK] = 1.0
        return logits, None


@pytest.fixture
def captioner(fake_encoder, monkeypatch):
    """Always says "red dark" and looks at the first region for "red", at the last for "dark"."""
    alphas = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])
    found = Hypothesis([RED, DARK], -1.0, alphas)
    monkeypatch.setattr("caption_utils.evaluation.occlusion.beam_search", lambda decoder, features, beams: [[found]])
    return Captioner(Model(RedDecoder(), WORDS, fake_encoder.name, fake_encoder.fingerprint), fake_encoder)


def test_the_pieces_of_a_word_fall_together(captioner, fake_encoder, monkeypatch):
    """Probabilities of a word's tokens are multiplied, and its attention is their mean."""
    rules = {"model": {"continuing_subword_prefix": "##", "unk_token": "[UNK]"}}
    pieces = Vocabulary({"red": 1, "##dark": 1}, 1, WordPiece(rules, ["red", "##dark"]))
    assert (pieces.ids["red"], pieces.ids["##dark"]) == (RED, DARK)
    alphas = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0.9, 0.0, 0.1, 0.0]])
    found = Hypothesis([RED, DARK, RED], -1.0, alphas)
    monkeypatch.setattr("caption_utils.evaluation.occlusion.beam_search", lambda decoder, features, beams: [[found]])
    model = replace(captioner.model, vocab=pieces)
    first, second = deletion_test(Captioner(model, fake_encoder), [photo()], draws=2).to_dict("records")
    assert (first["word"], second["word"]) == ("reddark", "red")
    assert first["probability"] == pytest.approx(red(1) * (1 - red(1)), abs=1e-5)
    assert first["attended"] == pytest.approx(0, abs=1e-6)  # the last region, though the first for "red" alone
    assert second["attended"] == pytest.approx(red(1) - red(128 / 255), abs=1e-5)


def photo(colour="red"):
    return Image.new("RGB", (8, 8), colour)


def red(value):
    """Probability of "red" beside "dark" where the first region's red is ``value``."""
    return np.exp(4 * value) / (np.exp(4 * value) + np.e)


def test_a_word_falls_when_what_it_looked_at_is_grey(captioner):
    table = deletion_test(captioner, [photo()], draws=4)
    assert list(table["word"]) == ["red", "dark"]
    first, second = table.to_dict("records")
    assert first["probability"] == pytest.approx(red(1), abs=1e-5)
    assert first["attended"] == pytest.approx(red(1) - red(128 / 255), abs=1e-5)
    assert second["attended"] == pytest.approx(0, abs=1e-6)  # it looked where nothing matters


def test_random_regions_matter_as_often_as_they_are_drawn(captioner):
    """A quarter of many random choices of one region in four delete the one that matters."""
    table = deletion_test(captioner, [photo()], draws=400)
    assert table["random"][0] == pytest.approx(table["attended"][0] / 4, rel=0.25)


def test_all_regions_are_all_regions(captioner, monkeypatch):
    monkeypatch.setattr(deletion, "SHARE", 1)
    table = deletion_test(captioner, [photo()], draws=2)
    assert table["random"].tolist() == pytest.approx(table["attended"].tolist(), abs=1e-6)
    assert deletion_scores(table, 1)["difference"].value == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("grid", "fifth"), [(2, 1), (7, 10), (9, 16)])
def test_a_fifth_of_the_regions(captioner, fake_encoder, monkeypatch, grid, fifth):
    fake_encoder.grid, deleted = grid, []
    found = Hypothesis([RED, DARK], -1.0, torch.full((2, grid**2), 1 / grid**2))
    monkeypatch.setattr("caption_utils.evaluation.occlusion.beam_search", lambda decoder, features, beams: [[found]])
    real = deletion._greyed
    monkeypatch.setattr(deletion, "_greyed", lambda pixels, masks: deleted.append(masks) or real(pixels, masks))
    deletion_test(captioner, [photo()], draws=3)
    assert deleted[0].sum(dim=1).tolist() == [0] + [fifth] * 5


def test_score_is_the_mean_over_words_in_points(captioner):
    table = deletion_test(captioner, [photo(), photo("blue")], draws=3)
    assert list(table["image"]) == [0, 0, 1, 1]
    expected = 100 * (table["attended"] - table["random"]).mean()
    scores = deletion_scores(table, 2)
    assert scores["difference"].statistics[:, 1].tolist() == [2, 2]
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {"attended": 100 * table["attended"].mean(), "random": 100 * table["random"].mean(), "difference": expected}
    )


def test_the_same_regions_are_drawn_each_time(captioner):
    tables = [deletion_test(captioner, [photo()], draws=2) for _ in range(2)]
    assert tables[0].equals(tables[1])


def test_with_a_real_decoder(fake_encoder):
    """Probabilities are those of the decoder's own steps on the photo."""
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(len(WORDS), fake_encoder.width, embed_dim=4, hidden_dim=5, attention_dim=3))
    captioner = Captioner(Model(decoder.eval(), WORDS, "fake", fake_encoder.fingerprint), fake_encoder)
    table = deletion_test(captioner, [photo()], draws=2)
    features = fake_encoder(fake_encoder.transform(photo())[None])
    state, token = decoder.init_state(features), torch.tensor([WORDS.bos])
    for row in table.to_dict("records"):
        logits, _, state = decoder.step(token, state)
        token = torch.tensor([WORDS.ids[row["word"]]])
        assert row["probability"] == pytest.approx(logits.softmax(1)[0, token].item(), abs=1e-5)
    assert 0 < len(table)
    assert table[["attended", "random"]].abs().to_numpy().max() < 1


def test_chance_decides_between_equal_weights():
    """Even attention is nowhere; with all of it on one region, the others of the fifth may be anywhere."""
    even, one = torch.full((49,), 1 / 49), torch.eye(49)[24]
    generators = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    masks = deletion._masks(torch.stack([even, one]).repeat(500, 1), 10, 0, *generators)[1:].float()
    assert masks[::2].mean(dim=0).tolist() == pytest.approx([10 / 49] * 49, abs=0.08)
    assert masks[1::2].mean(dim=0).tolist() == pytest.approx(torch.where(one > 0, 1, 9 / 48).tolist(), abs=0.08)
