from dataclasses import replace

import pytest
import torch
from conftest import CAPTIONS, Captioned, RandomStore
from pycocoevalcap.cider.cider import Cider
from safetensors.torch import load_file
from torch.nn import functional as F

from caption_utils.config import SelfCriticalConfig
from caption_utils.data.vocab import EOS, tokenize
from caption_utils.errors import InputError
from caption_utils.metrics.scores import caption_scores
from caption_utils.search.beam import beam_search
from caption_utils.search.sampling import sample
from caption_utils.training import trainer
from caption_utils.training.checkpoint import LAST, WEIGHTS, Model, load_model
from caption_utils.training.self_critical import (
    DrawnBatches,
    Reward,
    SelfCritical,
    advantages,
    refine,
    self_critical_loss,
)

CONFIG = SelfCriticalConfig(epochs=3, images_per_batch=1, learning_rate=5e-3, patience=9, validations=2, samples=3)
REFERENCES = list(CAPTIONS.values())


@pytest.fixture
def drawn_batches(vocab):
    def make(decoder, config=CONFIG):
        data = Captioned(CAPTIONS), RandomStore(5, 6), vocab, config.images_per_batch, "cpu"
        return DrawnBatches(decoder, config, *data, RandomStore(5, 6, seed=1) if config.mirror else None, config.seed)

    return make


@pytest.fixture
def run(make_decoder, make_batches, drawn_batches, vocab):
    """Refine a small random model; returns the history."""

    def start(folder, config=CONFIG, variant="bahdanau", **settings):
        model = Model(make_decoder(variant, **settings), vocab, "fake", "f4ce", {"data": "tiny"})
        return refine(model, drawn_batches(model.decoder, config), make_batches(), config, folder)

    return start


def test_the_reward_is_cider_d_and_a_share_of_bleu_with_the_end_counted():
    said = ["a dog runs", "birds birds birds", "a man rides a horse", "a boat on the sea"]
    gold = {i: [" ".join([*tokenize(text), EOS]) for text in texts] for i, texts in enumerate(REFERENCES)}
    cider = Cider().compute_score(gold, {i: [f"{text} {EOS}"] for i, text in enumerate(said)})[1]
    for share in (0.0, 0.5):
        reward = Reward(REFERENCES, share)
        found = [reward(i, [text.split()]).item() for i, text in enumerate(said)]
        bleu = [1.0, 0.0, None, 1.0]  # four tokens are four tokens of a reference, or no two are
        for i in (0, 1, 3):
            assert found[i] == pytest.approx(cider[i] + share * bleu[i], abs=1e-4)
        assert found[2] == pytest.approx(cider[2], abs=1e-4) if share == 0 else found[2] > cider[2]


def test_a_fragment_is_worth_less_than_the_sentence_that_it_begins():
    reward = Reward([["a dog runs on the grass"], ["two birds fly"]], 0.5)
    fragment, sentence = reward(0, [["a", "dog", "runs", "on", "the"], ["a", "dog", "runs", "on", "the", "grass"]])
    assert fragment < 0.8 * sentence


@pytest.mark.parametrize("captions", ["a dog runs", ["a dog runs"], ["a", "dog", "runs"]])
def test_strings_have_no_reward(captions):
    with pytest.raises(ValueError, match="tokenize captions first"):
        Reward(REFERENCES, 0.5)(0, captions)


def test_references_are_lists_of_texts():
    with pytest.raises(ValueError, match="^references must be a list of captions for each image$"):
        Reward(["a dog", "two birds"], 0.5)


def test_each_sample_is_compared_with_the_mean_of_the_others():
    found = advantages(torch.tensor([[1.0, 2, 3, 4, 10], [5, 5, 5, 5, 5]]))
    torch.testing.assert_close(found[0], torch.tensor([1 - 19 / 4, 2 - 18 / 4, 3 - 17 / 4, 4 - 16 / 4, 10 - 10 / 4]))
    assert found[1].tolist() == [0] * 5


def ids_of(batch, vocab):
    """The captions of a batch, each with its image's place."""
    steps = batch.targets.split(batch.tokens.batch_sizes.tolist())
    columns = [[step[i].item() for step in steps if i < len(step)] for i in range(len(batch.owner))]
    assert all(ids[-1] == vocab.eos for ids in columns)
    return list(zip(batch.owner.tolist(), columns, strict=True))


def test_captions_are_drawn_without_dropout_and_worth_what_they_score(make_decoder, drawn_batches, vocab):
    decoder, config = make_decoder(dropout=0.9).train(), replace(CONFIG, images_per_batch=4, mirror=False)
    batches = drawn_batches(decoder, config)
    (share,) = batches.shuffled(2, parts=2)
    assert decoder.training and (len(share.parts), share.captions) == (2, 12)
    reward = Reward(REFERENCES, config.bleu)
    stored = [features.tolist() for features in RandomStore(5, 6)[list(CAPTIONS)].float()]
    for part in share.parts:
        images = [stored.index(features.tolist()) for features in part.features]
        expected = sample(make_decoder(), part.features, seed=2, count=3)
        for place, (image, captions) in enumerate(zip(images, expected, strict=True)):
            rows = [row for row, owner in enumerate(part.owner.tolist()) if owner == place]
            found = [ids_of(part, vocab)[row][1][:-1] for row in rows]
            assert sorted(found) == sorted(caption.ids for caption in captions)
            worth = reward(image, [[vocab.words[i] for i in ids] for ids in found])
            torch.testing.assert_close(part.rewards[rows], worth)
            torch.testing.assert_close(part.advantages[rows], advantages(worth[None])[0])


def test_captions_of_all_images_in_file_order_are_drawn_as_seed_0_draws_them(make_decoder, drawn_batches, vocab):
    (batch,) = drawn_batches(make_decoder(), replace(CONFIG, images_per_batch=4)).in_order()
    expected = sample(make_decoder(), batch.features, count=3)
    assert batch.features.tolist() == RandomStore(5, 6)[list(CAPTIONS)].float().tolist()
    said = [(image, [*caption.ids, vocab.eos]) for image, captions in enumerate(expected) for caption in captions]
    assert sorted(ids_of(batch, vocab)) == sorted(said)


@pytest.mark.slow
@pytest.mark.parametrize("variant_name", ["bahdanau", "general", "deep-feeding", "entmax", "sparsemax", "local"])
def test_the_gradient_is_that_of_reinforce(variant_name, make_decoder, drawn_batches, vocab):
    """Of each caption by itself, word after word; the loss itself is minus the mean reward."""
    decoder = make_decoder(variant_name, feature_dropout=0.0)
    (share,) = drawn_batches(decoder, replace(CONFIG, images_per_batch=4)).shuffled(1)
    (batch,), parameters = share.parts, list(decoder.eval().parameters())
    loss = self_critical_loss(trainer.teacher_forcing(decoder, torch.device("cpu")), batch)
    assert loss.item() == pytest.approx(-batch.rewards.mean().item())
    expected = 0
    for (owner, ids), advantage in zip(ids_of(batch, vocab), batch.advantages, strict=True):
        state = decoder.init_state(batch.features[owner : owner + 1])
        for read, said in zip([vocab.bos, *ids], ids, strict=False):
            logits, _, state = decoder.step(torch.tensor([read]), state)
            expected = expected + advantage * F.cross_entropy(logits, torch.tensor([said])) / len(batch.owner)
    for found, wanted in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_lower_precision_leaves_the_advantages_as_they_are(make_decoder, drawn_batches):
    decoder = make_decoder()
    (share,) = drawn_batches(decoder, replace(CONFIG, images_per_batch=4)).shuffled(1)
    (batch,) = share.parts
    logits = decoder(batch.features, batch.tokens, batch.owner)[0].detach().requires_grad_()

    def gradient():
        (found,) = torch.autograd.grad(self_critical_loss(lambda *seen: (logits, None), batch), logits)
        return found

    expected = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient(), expected)


@pytest.mark.slow
def test_the_reward_rises_and_the_best_is_kept(run, make_batches, tmp_path):
    config = replace(CONFIG, epochs=15, patience=15, images_per_batch=4, validations=1, learning_rate=2e-2, samples=8)
    history = run(tmp_path, config, dropout=0.1)
    assert history["epoch"].tolist() == list(range(16))
    assert history["train_loss"].iloc[-5:].mean() < 1.5 * history["train_loss"].iloc[1:4].mean() < 0
    model = load_model(tmp_path)
    assert model.training["best"]["val_cider"] == history["val_cider"].max() > 2 * history["val_cider"][0]
    batch = next(iter(make_batches().in_order()))
    captions = [model.vocab.decode(found[0].ids) for found in beam_search(model.decoder, batch.features)]
    score = caption_scores(captions, REFERENCES)["cider"].value
    assert score == pytest.approx(model.training["best"]["val_cider"], abs=0.01)


def test_a_run_that_only_does_harm_keeps_the_model_as_it_came(run, make_decoder, tmp_path, monkeypatch, capsys):
    found = iter([57.4, 55.0, 12.0, 3.0])
    monkeypatch.setattr(SelfCritical, "validate", lambda self: ("val_cider", next(found)))
    history = run(tmp_path, replace(CONFIG, epochs=9, patience=1))
    assert history["epoch"].tolist() == [0, 0.5, 1]  # patience is counted in epochs
    assert capsys.readouterr().out.splitlines()[0] == "epoch 0: validation CIDEr 57.40"
    model = load_model(tmp_path)
    assert model.training["best"] == {"epoch": 0, "val_cider": 57.4}
    for name, tensor in make_decoder().state_dict().items():
        assert torch.equal(model.decoder.state_dict()[name], tensor.half().float())
    header, first, *_ = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,train_loss,val_cider,learning_rate,captions_per_second,seconds"
    assert first == "0,,57.4,,,"


class Crash(BaseException):
    """The end of a process, as far as the files can tell."""


@pytest.mark.slow
@pytest.mark.parametrize("variant_name", ["bahdanau", "general", "local"])
def test_a_run_that_crashed_goes_on_to_the_same_bits(run, tmp_path, monkeypatch, variant_name):
    """As it was measured before the first step, within an epoch, in the middle of a step, and after one."""
    config = replace(CONFIG, epochs=2)
    run(tmp_path / "whole", config, variant_name)
    save, step, steps = trainer.Trainer.save, trainer.Trainer.train_step, []

    def crashing(self):
        save(self)
        if len(self.history) in (1, 2, 3):
            raise Crash

    def stumbling(self, share):
        steps.append(share)
        if len(steps) == 4:
            raise Crash
        return step(self, share)

    monkeypatch.setattr(trainer.Trainer, "save", crashing)
    monkeypatch.setattr(trainer.Trainer, "train_step", stumbling)
    for _ in range(4):
        with pytest.raises(Crash):
            run(tmp_path / "crashed", config, variant_name)
    monkeypatch.undo()
    history = run(tmp_path / "crashed", config, variant_name)
    assert history["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    for name in (LAST, WEIGHTS):
        one, two = (load_file(tmp_path / folder / name) for folder in ("whole", "crashed"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_that_diverges_keeps_its_best_model(run, tmp_path):
    """Its validation, unlike the perplexity of other runs, stays finite."""
    with pytest.raises(InputError, match=r"diverged in epoch .*; the best model before that is kept$"):
        run(tmp_path, replace(CONFIG, epochs=20, patience=20, learning_rate=1.0, weight_decay=1000.0))
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / WEIGHTS).values())


def test_another_start_is_another_run(run, make_decoder, tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    run(tmp_path, replace(CONFIG, epochs=2))  # a constant rate allows for more
    with pytest.raises(InputError, match="another run, which differs in samples, bleu; choose a new folder"):
        run(tmp_path, replace(CONFIG, samples=4, bleu=0.0))
    with pytest.raises(InputError, match="another run, which differs in .*start; choose a new folder"):
        run(tmp_path, variant="general")


@pytest.mark.slow
def test_parts_of_a_batch_change_no_curve(run, tmp_path):
    config = replace(CONFIG, images_per_batch=4, epochs=4, validations=1)
    whole = run(tmp_path / "whole", config, dropout=0.0)
    parts = run(tmp_path / "parts", replace(config, accumulate=3), dropout=0.0)
    for column in ("train_loss", "val_cider"):
        assert parts[column].tolist()[1:] == pytest.approx(whole[column].tolist()[1:], abs=1e-4)
