import json
import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import CAPTIONS, Captioned, RandomStore
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from caption_utils import files
from caption_utils.config import SCHEDULES, DecoderConfig, TrainConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.vocab import Vocabulary
from caption_utils.errors import InputError
from caption_utils.metrics.perplexity import perplexity
from caption_utils.model.decoder import build_decoder
from caption_utils.training import checkpoint, progress
from caption_utils.training.batches import CaptionBatches
from caption_utils.training.checkpoint import LAST, Model, load_model
from caption_utils.training.trainer import Trainer, fit, precision

CONFIG = TrainConfig(epochs=6, images_per_batch=2, learning_rate=5e-3, schedule="one_cycle", mirror=True, patience=9)


@pytest.fixture
def run(make_decoder, make_batches, vocab):
    """Train a small model on random features, dropout and mirroring on; returns the history."""

    def start(folder, config=CONFIG, variant="bahdanau", words=vocab, val=None, **settings):
        model = Model(make_decoder(variant, **settings), words, "fake", "f4ce", {"data": "tiny"})
        train = make_batches(config.images_per_batch, config.mirror, seed=config.seed)
        return fit(model, train, val or make_batches(), config, folder)

    return start


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


class Crash(BaseException):
    """The end of a process, as far as the files can tell."""


def weights(folder, name=LAST):
    return load_file(folder / name)


def assert_same_run(folder, other):
    """Equal to the last bit: weights, the optimiser's moments and the best model."""
    for name in (LAST, checkpoint.WEIGHTS):
        one, two = weights(folder, name), weights(other, name)
        assert one.keys() == two.keys()
        for key in one:
            assert torch.equal(one[key], two[key]), key
    histories = [
        pd.read_csv(path / "log.csv").drop(columns=["seconds", "captions_per_second"]) for path in (folder, other)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


DEMO = Path(__file__).parents[2] / "data" / "demo"
REGIONS, WIDTH = 4, 32


class HotRegion:
    """All images hold the same regions; one of them, told by its name, is marked. A mean over regions hides which."""

    def __getitem__(self, names):
        features = torch.zeros(len(names), REGIONS, WIDTH)
        features[:, :, :REGIONS] = 3 * torch.eye(REGIONS)
        for row, name in enumerate(names):
            features[row, int(name), -1] = 3.0
        return features.half()


class Often(CaptionBatches):
    """An epoch has ten steps, each on all images."""

    def __len__(self):
        return 10

    def shuffled(self, epoch, index, count, parts, steps):
        for _ in range(10):
            yield from super().shuffled(epoch, index, count, parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "seed"),  # other starts stay on a plateau for longer
    [
        ({"attention": "bahdanau"}, 7),
        ({"attention": "luong", "score": "general"}, 7),
        ({"attention": "luong", "score": "concat"}, 7),
        ({"attention": "luong", "score": "general", "input_feeding": True}, 7),
        ({"attention": "bahdanau", "gate": True}, 1),
        ({"attention": "bahdanau", "normalizer": "entmax"}, 7),
        ({"attention": "luong", "normalizer": "sparsemax"}, 7),
        ({"attention": "bahdanau", "hard": True, "likeliest": True}, 1),
        ({"attention": "none"}, 7),
    ],
)
def test_a_caption_told_by_the_marked_region_is_learned_to_its_entropy(tmp_path, monkeypatch, settings, seed):
    """``place_r`` is certain, ``day`` or ``night`` a coin: ln 2 in three tokens, so perplexity 2^(1/3) and no less."""
    monkeypatch.setattr(Trainer, "save", lambda trainer: None)
    captions = {str(r): [f"place{r} day", f"place{r} night"] for r in range(REGIONS)}
    words = Vocabulary.build([text for texts in captions.values() for text in texts], min_count=1)
    batches = Often(Captioned(captions), HotRegion(), words, images_per_batch=REGIONS)
    torch.manual_seed(seed)
    sizes = {"embed_dim": 16, "hidden_dim": WIDTH, "attention_dim": 16, "dropout": 0.0}
    decoder = build_decoder(DecoderConfig(len(words), WIDTH, **sizes, **settings))
    config = TrainConfig(epochs=20, learning_rate=1e-2, patience=20)
    history = fit(Model(decoder, words, "fake", "f4ce"), batches, batches, config, tmp_path)
    floor = 2 ** (1 / 3)
    if settings["attention"] == "none":  # and the place is a guess among four
        assert history["val_perplexity"].iloc[-1] == pytest.approx(4 ** (1 / 3) * floor, rel=0.02)
        return
    assert history["val_perplexity"].min() >= floor - 1e-6
    assert history["val_perplexity"].iloc[-1] < 1.02 * floor
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 4
    (batch,) = batches.in_order()
    first_words = decoder(batch.features, batch.tokens, batch.owner)[0][: len(batch.owner)].argmax(1)
    assert [words.words[i] for i in first_words] == [f"place{r}" for r in batch.owner.tolist()]


def test_a_finished_run_leaves_a_model_a_state_and_a_log(run, tmp_path):
    history = run(tmp_path / "new" / "model")
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == [
        "config.json",
        LAST,
        "log.csv",
        "model.safetensors",
        "vocab.json",
    ]
    assert len({path.stat().st_mode for path in (tmp_path / "new" / "model").iterdir()}) == 1
    assert list(history["epoch"]) == [1, 2, 3, 4, 5, 6]
    log = pd.read_csv(tmp_path / "new" / "model" / "log.csv")
    assert list(log["epoch"]) == list(history["epoch"])
    assert list(log["val_perplexity"]) == pytest.approx(list(history["val_perplexity"]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant_name", ["bahdanau", "general", "concat-feeding", "tied", "gated", "entmax", "none", "hard"]
)
def test_a_run_that_crashed_between_epochs_goes_on_to_the_same_bits(run, tmp_path, monkeypatch, variant_name):
    """After the first epoch and again after the fourth."""
    run(tmp_path / "whole", variant=variant_name)
    crashing = Trainer.save

    def save(trainer):
        crashing(trainer)
        if len(trainer.history) in (1, 4):
            raise Crash

    monkeypatch.setattr(Trainer, "save", save)
    for seed in (12345, 54321):  # whatever the process had drawn before
        torch.manual_seed(seed)
        with pytest.raises(Crash):
            run(tmp_path / "crashed", variant=variant_name)
    monkeypatch.undo()
    history = run(tmp_path / "crashed", variant=variant_name)
    assert list(history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert_same_run(tmp_path / "whole", tmp_path / "crashed")


@pytest.mark.parametrize("victim", ["trainer.save_model", "progress.save_tensors"])
def test_a_crash_while_saving_costs_one_epoch(run, tmp_path, monkeypatch, victim):
    """Before the model is written, or after it and before the state to resume from."""
    run(tmp_path / "whole")
    real, calls = getattr(checkpoint, victim.split(".")[1]), []

    def crash(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Crash
        real(*args)

    monkeypatch.setattr(f"caption_utils.training.{victim}", crash)
    with pytest.raises(Crash):
        run(tmp_path / "crashed")
    monkeypatch.undo()
    run(tmp_path / "crashed")
    assert_same_run(tmp_path / "whole", tmp_path / "crashed")


def interrupt_step(monkeypatch, number, error):
    """Steps are counted from 1; an epoch has two."""
    real, calls = Trainer.train_step, []

    def step(trainer, share):
        calls.append(share)
        if len(calls) == number:
            raise error
        return real(trainer, share)

    monkeypatch.setattr(Trainer, "train_step", step)


def test_a_crash_in_the_middle_of_an_epoch_costs_that_epoch(run, tmp_path, monkeypatch):
    run(tmp_path / "whole")
    interrupt_step(monkeypatch, 6, Crash)
    with pytest.raises(Crash):
        run(tmp_path / "crashed")
    monkeypatch.undo()
    run(tmp_path / "crashed")
    assert_same_run(tmp_path / "whole", tmp_path / "crashed")


def test_a_clip_norm_of_0_clips_nothing(run, tmp_path):
    history = run(tmp_path / "off", replace(CONFIG, clip_norm=0))
    assert history["val_perplexity"].iloc[-1] < 0.97 * history["val_perplexity"].iloc[0]
    run(tmp_path / "out of reach", replace(CONFIG, clip_norm=1e6))
    assert_same_run(tmp_path / "off", tmp_path / "out of reach")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (1, "^2 images a batch need more memory than is free; set accumulate to 2, which"),
        (2, "^2 images a batch are computed one by one, .*; take a smaller model or another device"),
    ],
)
def test_too_little_memory_is_told_with_the_remedy(run, tmp_path, monkeypatch, parts, message):
    interrupt_step(monkeypatch, 1, torch.OutOfMemoryError)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "large", replace(CONFIG, accumulate=parts))


def test_all_captions_are_hashed_once_a_run(run, tmp_path, monkeypatch):
    hashed, real = [], CaptionBatches.fingerprint
    monkeypatch.setattr(CaptionBatches, "fingerprint", lambda batches: hashed.append(batches) or real(batches))
    assert len(run(tmp_path)) == 6 and len(hashed) == 2  # those to train on and those to validate on


def test_what_a_run_goes_on_from_is_not_held_in_memory_as_the_file_is_mapped(make_decoder):
    decoder = make_decoder()
    optimizers = [torch.optim.AdamW(decoder.parameters(), fused=True) for _ in range(2)]
    for parameter in decoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers[0].step()
    saved = progress.moments_of(optimizers[0])
    progress.restore_moments(saved, optimizers[1])
    restored = progress.moments_of(optimizers[1])
    assert all(torch.equal(restored[name], saved[name]) for name in saved) and restored.keys() == saved.keys()
    assert not {each.data_ptr() for each in restored.values()} & {each.data_ptr() for each in saved.values()}


def test_an_interrupted_cell_keeps_the_best_epoch_and_goes_on(
    make_decoder, make_batches, vocab, run, tmp_path, monkeypatch, capsys
):
    run(tmp_path / "whole")
    capsys.readouterr()
    interrupt_step(monkeypatch, 6, KeyboardInterrupt)
    model = Model(make_decoder(), vocab, "fake", "f4ce", {"data": "tiny"})
    with pytest.raises(KeyboardInterrupt):
        fit(model, make_batches(2, mirror=True), make_batches(), CONFIG, tmp_path / "cut")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"interrupted: {tmp_path / 'cut'} keeps 2 epochs; the same call goes on from there"
    )
    last = weights(tmp_path / "cut")
    assert all(torch.equal(tensor, last[f"model.{name}"]) for name, tensor in model.decoder.state_dict().items())
    assert load_model(tmp_path / "cut").training["best"]["epoch"] == 2
    monkeypatch.undo()
    run(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_an_interruption_is_told_before_anything_waits_for_a_gpu(run, tmp_path, monkeypatch, capsys):
    told, real = [], Trainer.resume
    monkeypatch.setattr(Trainer, "resume", lambda trainer: (told.append(capsys.readouterr().out), real(trainer)))
    interrupt_step(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert ["interrupted" in text for text in told] == [False, True]


def test_an_interruption_between_state_and_model_costs_no_epoch(run, tmp_path, monkeypatch):
    real, calls = checkpoint.save_model, []

    def save_model(*args):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr("caption_utils.training.trainer.save_model", save_model)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert load_model(tmp_path).training["best"]["epoch"] == 1


def test_an_interruption_of_the_first_epoch_gives_the_weights_back(
    make_decoder, make_batches, vocab, tmp_path, monkeypatch
):
    interrupt_step(monkeypatch, 2, KeyboardInterrupt)
    model = Model(make_decoder(), vocab, "fake", "f4ce", {"data": "tiny"})
    with pytest.raises(KeyboardInterrupt):
        fit(model, make_batches(2), make_batches(), CONFIG, tmp_path / "cut")
    for name, tensor in make_decoder().state_dict().items():
        assert torch.equal(model.decoder.state_dict()[name], tensor)


@pytest.mark.parametrize("moment", ["train_step", "save"])
def test_an_interruption_of_the_first_epoch_leaves_nothing(run, tmp_path, monkeypatch, capsys, moment):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert "keeps 0 epochs" in capsys.readouterr().out
    assert not (tmp_path / "cut").exists()
    monkeypatch.undo()
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@cache
def demo_captions():
    demo = load_dataset(DEMO, require_images=False).split("train")
    captions = {name: demo.captions_of(name)[:2] for name in demo.image_names[:16]}
    return captions, Vocabulary.build([text for texts in captions.values() for text in texts], min_count=1)


def demo_run(folder, epochs=24):
    """Train on captions of the demo set with random features, dropout and mirroring on."""
    captions, words = demo_captions()
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(len(words), 6, embed_dim=7, hidden_dim=8, attention_dim=4))
    train = CaptionBatches(Captioned(captions), RandomStore(5, 6), words, 8, "cpu", RandomStore(5, 6, seed=1))
    val = CaptionBatches(Captioned(CAPTIONS), RandomStore(5, 6), words)
    return fit(Model(decoder, words, "fake", "f4ce"), train, val, replace(CONFIG, epochs=epochs, patience=99), folder)


FORKS = """
import os, random, signal, sys, time
sys.path[:0] = [{tests!r}, {tests!r} + "/training"]
import torch._dynamo  # an optimiser's first step would load it in each child
from pathlib import Path
from caption_utils.__main__ import main
from caption_utils.training import run as experiment
from test_trainer import demo_captions, demo_run, kill_after_a_save, kill_within_a_save

torch.set_num_threads(1)
demo_captions()
moments = random.Random(0)
for number in range(10):
    file, share = moments.randrange(1, 10), moments.random()
    child = os.fork()
    if not child:
        if number % 2:
            kill_within_a_save(file, share)
        else:
            kill_after_a_save(share * {epoch})
        demo_run({killed!r})
        os._exit(0)
    print("killed:", os.WIFSIGNALED(os.waitpid(child, 0)[1]), flush=True)
demo_run({killed!r})

told = Path({cut!r} + ".txt")
child = os.fork()
if not child:
    for stream in (1, 2):
        os.dup2(os.open(told, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    # it must not end before the signal
    experiment.train_model = lambda data, out, *rest, **named: demo_run(out, epochs=5000)
    sys.exit(main(["train", "--data", "demo", "--out", {cut!r}]))
while not told.exists() or "epoch 2:" not in told.read_text():
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    time.sleep(0.01)
os.kill(child, signal.SIGINT)
print("status:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def kill_within_a_save(number, share):
    """The ``number``-th file to be written from now on gets a ``share`` of its bytes, then the process dies."""
    real, left = files.os.replace, [number]

    def replace(source, target):
        left[0] -= 1
        if left[0] == 0:
            os.truncate(source, int(share * os.path.getsize(source)))
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    files.os.replace = replace


def kill_after_a_save(seconds):
    """The process dies when it has computed for ``seconds`` after the next state is written; waiting does not count."""
    real = files.os.replace

    def replace(source, target):
        real(source, target)
        if target.name == LAST:
            files.os.replace = real
            signal.setitimer(signal.ITIMER_PROF, seconds)

    files.os.replace = replace


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """A folder with the runs ``whole``, ``killed`` ten times, and ``cut`` short by Ctrl-C, and what ``FORKS`` printed.

    All use one thread: forks can have no more, and another number adds in another order.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("forks")
    with threads(1):
        history = demo_run(folder / "whole")
    script = FORKS.format(
        tests=str(Path(__file__).parents[1]),
        killed=str(folder / "killed"),
        cut=str(folder / "cut"),
        epoch=history["seconds"].min(),  # the one that least waited for other work of the machine
    )
    # where a process sees a GPU and has computed gradients, its forks can compute none
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-u", "-c", script], capture_output=True, text=True, env=hidden)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random_moments_ends_in_the_same_bits(forks):
    """Every second time within a save, otherwise by the clock, up to an epoch after the last save."""
    folder, printed = forks
    assert printed.count("killed: True") == 10
    assert_same_run(folder / "whole", folder / "killed")
    assert load_model(folder / "killed").encoder == "fake"


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_a_model_in_its_folder(forks):
    folder, printed = forks
    told = (folder / "cut.txt").read_text()
    assert printed.endswith("status: 130\n")
    assert told.splitlines()[-1].startswith("caption_utils: interrupted; run the same command again to resume")
    assert "Traceback" not in told
    assert load_model(folder / "cut").training["best"]["epoch"] >= 2
    assert not list((folder / "cut").glob("*.tmp"))


def test_a_finished_run_is_not_trained_again(run, tmp_path):
    first = run(tmp_path)
    before = (tmp_path / LAST).read_bytes()
    pd.testing.assert_frame_equal(run(tmp_path), first)
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.parametrize("keep", [0, 0.3, 0.99])
def test_a_damaged_state_is_named(run, tmp_path, keep):
    run(tmp_path, replace(CONFIG, epochs=1))
    data = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError, match=r"last\.safetensors: damaged \(.*\); the model beside it is whole; train"):
        run(tmp_path, replace(CONFIG, epochs=1))
    assert load_model(tmp_path).training["best"]["epoch"] == 1


def test_a_state_of_an_older_version_is_named(run, tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    with safe_open(tmp_path / LAST, "pt") as file:
        metadata = file.metadata()
    state = {name.replace("model.lstm.", "model.old."): tensor for name, tensor in weights(tmp_path).items()}
    save_file(state, tmp_path / LAST, metadata)
    with pytest.raises(InputError, match="last.safetensors: written by an older version; train into a new folder"):
        run(tmp_path, replace(CONFIG, epochs=1))


def test_a_state_of_something_else_is_named(run, tmp_path):
    checkpoint.save_tensors(tmp_path / LAST, {"a": torch.ones(1)})
    with pytest.raises(InputError, match=r"last\.safetensors: damaged"):
        run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "settings", "names"),
    [
        (replace(CONFIG, learning_rate=1e-3), {}, "learning_rate"),
        (replace(CONFIG, epochs=7, seed=3), {}, "epochs, seed"),
        (replace(CONFIG, epochs=7, schedule="constant"), {}, "schedule"),
        (CONFIG, {"dropout": 0.1}, "dropout"),
        (CONFIG, {"hidden_dim": 4}, "hidden_dim"),
        (CONFIG, {"attention": "luong"}, "attention"),
    ],
)
def test_changed_settings_are_named(run, tmp_path, config, settings, names):
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=rf"last\.safetensors: another run, which differs in {names}; choose a new"):
        run(tmp_path, config, **settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_goes_on_where_a_setting_is_new_and_has_its_default(run, tmp_path):
    """As its version left it, which knew no such setting."""
    run(tmp_path, replace(CONFIG, epochs=1))
    with safe_open(tmp_path / LAST, "pt") as file:
        metadata = file.metadata()
    before = json.loads(metadata["settings"])
    del before["gate"], before["entropy"]
    save_file(weights(tmp_path), tmp_path / LAST, metadata | {"settings": json.dumps(before)})
    assert len(run(tmp_path, replace(CONFIG, epochs=1))) == 1
    with pytest.raises(InputError, match="another run, which differs in entropy; choose"):
        run(tmp_path, replace(CONFIG, epochs=1, entropy=1.0))


@pytest.mark.parametrize("parts", [1, 3])
def test_the_baseline_follows_the_log_probability_of_captions(make_decoder, make_batches, vocab, tmp_path, parts):
    """However a batch is divided; a caption's is the sum over its words, the mean is over the batch."""
    batches, decoder = make_batches(), make_decoder("hard", dropout=0.0)
    (batch,) = batches.in_order()
    logits, _ = decoder(batch.features, batch.tokens, batch.owner)
    expected = -torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").item() / len(batch.owner)
    config = replace(CONFIG, images_per_batch=4, accumulate=parts, mirror=False, learning_rate=0.0)
    trainer = Trainer(Model(decoder, vocab, "fake", "f4ce"), config, tmp_path, batches, batches)
    forward = decoder.forward
    decoder.forward = lambda features, tokens, owner, hard: forward(features, tokens, owner, 0 * hard)
    found = []
    for _ in range(2):
        (share,) = batches.shuffled(1, parts=parts)
        trainer.train_step(share)
        found.append(decoder.baseline.item())
    assert found == pytest.approx([0.1 * expected, 0.19 * expected], rel=1e-5)


@pytest.mark.parametrize("epochs", [4, 3])
def test_a_run_at_a_constant_rate_may_be_made_longer(run, tmp_path, epochs):
    constant = replace(CONFIG, schedule="constant")
    run(tmp_path / "grown", replace(constant, epochs=3))
    assert list(run(tmp_path / "grown", replace(constant, epochs=epochs))["epoch"]) == list(range(1, epochs + 1))
    run(tmp_path / "whole", replace(constant, epochs=epochs))
    assert_same_run(tmp_path / "whole", tmp_path / "grown")


def test_other_words_are_another_run(run, tmp_path, vocab):
    """As many words, but not the same ones: their ids would mean something else."""
    run(tmp_path)
    other = Vocabulary({f"{word}x": count for word, count in vocab.counts.items()}, min_count=1)
    with pytest.raises(InputError, match="another run"):
        run(tmp_path, words=other)


def test_other_words_than_the_batches_are_refused(run, tmp_path, vocab, make_batches):
    other = Vocabulary({f"{word}x": count for word, count in vocab.counts.items()}, min_count=1)
    for parts in ({"words": other}, {"val": make_batches(words=other)}):
        with pytest.raises(InputError, match="^model and batches have different vocabularies; make them with the"):
            run(tmp_path / "new", **parts)
    with pytest.raises(InputError, match="^a decoder for 7 words"):
        run(tmp_path / "new", vocab_size=7)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("moment", [None, 1])
def test_a_run_leaves_the_decoder_without_dropout(make_decoder, make_batches, vocab, tmp_path, monkeypatch, moment):
    model = Model(make_decoder(), vocab, "fake", "f4ce")
    if moment:
        interrupt_step(monkeypatch, moment, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) if moment else nullcontext():
        fit(model, make_batches(), make_batches(), replace(CONFIG, epochs=1, mirror=False), tmp_path)
    assert not model.decoder.training


def test_other_captions_are_another_run(make_decoder, make_batches, vocab, run, tmp_path):
    run(tmp_path)
    fewer = {name: texts[:1] for name, texts in CAPTIONS.items()}
    model = Model(make_decoder(), vocab, "fake", "f4ce")
    with pytest.raises(InputError, match="another run"):
        fit(model, make_batches(2, True, captions=fewer), make_batches(), CONFIG, tmp_path)


def fake_perplexities(monkeypatch, values):
    remaining = iter(values)
    monkeypatch.setattr("caption_utils.training.trainer.perplexity", lambda *args: next(remaining))


@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([9, 8, 8, 8, 7, 6, 5, 4], 2, 4),
        ([9, 8, 7, 6, 5, 4, 3, 2], 2, 8),
        ([5, 6, 7, 8, 9, 9, 9, 9], 3, 4),
        ([9, 8, 8.5, 7, 7.5, 8, 9, 9], 3, 7),
    ],
)
def test_training_stops_when_patience_is_spent(run, tmp_path, monkeypatch, values, patience, epochs):
    fake_perplexities(monkeypatch, values)
    history = run(tmp_path, replace(CONFIG, epochs=8, patience=patience))
    assert list(history["val_perplexity"]) == values[:epochs]


def test_the_model_kept_is_that_of_the_best_epoch(run, tmp_path, monkeypatch):
    fake_perplexities(monkeypatch, [9, 5, 8, 7, 6, 5.5])
    best = {}
    real = Trainer.save

    def save(trainer):
        if len(trainer.history) == 2:
            best.update({name: tensor.clone() for name, tensor in trainer.model.decoder.state_dict().items()})
        real(trainer)

    monkeypatch.setattr(Trainer, "save", save)
    run(tmp_path)
    model = load_model(tmp_path)
    assert model.training["best"]["epoch"] == 2
    assert model.training["best"]["val_perplexity"] == 5
    assert (model.training["data"], model.training["seed"]) == ("tiny", 0)
    for name, tensor in model.decoder.state_dict().items():
        assert torch.equal(tensor, best[name].half().float()), name


def test_the_perplexity_logged_is_that_of_the_model_kept(run, make_batches, tmp_path):
    history = run(tmp_path)
    found = perplexity(load_model(tmp_path).decoder, make_batches().in_order())
    assert found == pytest.approx(history["val_perplexity"].min(), rel=1e-3)


DIVERGING = {"learning_rate": 1.0, "weight_decay": 1000.0, "schedule": "constant"}


def test_a_run_that_diverges_at_once_leaves_no_model(run, tmp_path):
    with pytest.raises(InputError, match=r"diverged in epoch \d+; train into a new folder at a lower learning_rate$"):
        run(tmp_path / "new", replace(CONFIG, epochs=20, patience=20, **DIVERGING))
    assert not (tmp_path / "new").exists()


def test_the_best_model_before_a_run_diverges_is_kept(run, tmp_path, monkeypatch):
    real = Trainer.train_round

    def train_round(trainer):
        row = real(trainer)
        if row["epoch"] == 3:
            trainer.parameters[-1].data[0] = math.nan
        return row

    run(tmp_path / "two", replace(CONFIG, epochs=2, schedule="constant"))
    monkeypatch.setattr(Trainer, "train_round", train_round)
    for _ in range(2):  # the same call goes on, and comes as far
        with pytest.raises(InputError, match=r"diverged in epoch 3; .*; the best model before that is kept$"):
            run(tmp_path / "cut", replace(CONFIG, epochs=6, schedule="constant"))
        for name in (LAST, checkpoint.WEIGHTS):
            kept, before = weights(tmp_path / "cut", name), weights(tmp_path / "two", name)
            assert all(torch.equal(kept[key], before[key]) for key in before)


def test_a_model_that_deems_the_captions_impossible_has_diverged(run, tmp_path, monkeypatch):
    fake_perplexities(monkeypatch, [9, math.inf])
    with pytest.raises(InputError, match=r"diverged in epoch 2; .*; the best model before that is kept$"):
        run(tmp_path)


def test_a_loss_that_overflows_while_the_weights_stay_finite_ends_no_run(run, tmp_path, monkeypatch):
    """As in float16, when the scaler leaves out a step."""
    real = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda trainer, share: real(trainer, share) * math.inf)
    assert math.isinf(run(tmp_path, replace(CONFIG, epochs=1))["train_loss"].item())
    assert load_model(tmp_path).training["best"]["epoch"] == 1


@pytest.fixture
def full_disk(monkeypatch):
    """From the ``number``-th time that the file ``name`` is written, the system refuses all after some bytes of it."""
    resource = pytest.importorskip("resource")
    real, (_, most) = files.replacing, resource.getrlimit(resource.RLIMIT_FSIZE)

    def start(name, number, size):
        left = [number]

        @contextmanager
        def replacing(path):
            left[0] -= path.name == name
            limit = size if path.name == name and left[0] <= 0 else most
            with real(path) as temporary:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
                try:
                    yield temporary
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        for module in (checkpoint, progress):
            monkeypatch.setattr(module, "replacing", replacing, raising=False)

    return start


@pytest.mark.slow
@pytest.mark.parametrize("name", [LAST, checkpoint.WEIGHTS, "log.csv"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_disk_that_fills_up_keeps_the_last_good_files(run, tmp_path, monkeypatch, full_disk, name, epoch):
    """For each file in turn: part of it is written, then no more."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole)
    monkeypatch.setattr(Trainer, "finished", lambda trainer: len(trainer.history) == epoch - 1)
    run(cut)
    monkeypatch.undo()
    before = (cut / name).read_bytes() if epoch > 1 else None
    full_disk(name, 2 if epoch > 1 and name != LAST else 1, (whole / name).stat().st_size // 8)
    kept = "; the earlier file is kept" if before else "disk space$"
    with pytest.raises(InputError, match=rf"{name}: cannot be written \(.*File too large.*{kept}"):
        run(cut)
    assert not list(cut.glob("*.tmp"))
    assert ((cut / name).read_bytes() if (cut / name).exists() else None) == before
    monkeypatch.undo()
    run(cut)
    assert_same_run(whole, cut)


def test_a_model_without_its_run_is_not_overwritten(run, tmp_path):
    run(tmp_path)
    (tmp_path / LAST).unlink()
    before = (tmp_path / checkpoint.WEIGHTS).read_bytes()
    message = "holds model.safetensors and config.json and vocab.json, but no run to go on with; choose a new folder"
    with pytest.raises(InputError, match=message):
        run(tmp_path)
    assert (tmp_path / checkpoint.WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("missing", [checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.VOCAB])
def test_a_run_whose_best_model_is_gone_is_told(run, tmp_path, monkeypatch, missing):
    fake_perplexities(monkeypatch, [9, 5, 8])
    config = replace(CONFIG, epochs=3)
    run(tmp_path, config)
    whole = (tmp_path / missing).read_bytes()
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"holds a run, but not {missing} of its best epoch; restore the model"):
        run(tmp_path, config)
    (tmp_path / missing).write_bytes(whole)
    assert len(run(tmp_path, config)) == 3


def test_a_state_alone_is_enough_if_its_epoch_is_the_best(run, tmp_path, monkeypatch):
    fake_perplexities(monkeypatch, [9, 8, 5])
    run(tmp_path, replace(CONFIG, epochs=3))
    before = weights(tmp_path, checkpoint.WEIGHTS)
    for path in tmp_path.iterdir():
        if path.name != LAST:
            path.unlink()
    run(tmp_path, replace(CONFIG, epochs=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path, checkpoint.WEIGHTS).items())
    assert load_model(tmp_path).training["best"]["epoch"] == 3


def test_of_two_runs_that_begin_in_a_new_folder_the_second_to_save_ends(run, tmp_path, monkeypatch):
    real = Trainer.train_round

    def overtaken(trainer):
        monkeypatch.undo()
        run(tmp_path, replace(CONFIG, epochs=1, seed=3))
        return real(trainer)

    monkeypatch.setattr(Trainer, "train_round", overtaken)
    with pytest.raises(InputError, match="another run has begun here meanwhile; choose a new folder"):
        run(tmp_path)
    assert load_model(tmp_path).training["seed"] == 3 and len(run(tmp_path, replace(CONFIG, epochs=1, seed=3))) == 1


def test_a_crash_between_state_and_model_does_not_cost_the_best_epoch(run, tmp_path, monkeypatch):
    run(tmp_path / "whole")
    last = len(pd.read_csv(tmp_path / "whole" / "log.csv"))
    real = Trainer.publish

    def crash(trainer):
        if len(trainer.history) == last:
            raise RuntimeError("crash")
        real(trainer)

    monkeypatch.setattr(Trainer, "publish", crash)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "crashed")
    monkeypatch.undo()
    run(tmp_path / "crashed")
    assert_same_run(tmp_path / "whole", tmp_path / "crashed")


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        run(tmp_path / "file")


@pytest.mark.filterwarnings("error")
def test_neither_a_run_nor_its_continuation_warns(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "finished", lambda trainer: len(trainer.history) >= 2)
    run(tmp_path)
    monkeypatch.undo()
    run(tmp_path)


def test_the_surroundings_randomness_is_left_alone(run, make_decoder, tmp_path):
    make_decoder()  # seeds, as it does again in ``run``
    before = torch.get_rng_state()
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_process_draws_dropout_masks_of_its_own(make_decoder, make_batches, vocab, tmp_path, monkeypatch):
    """The generator on a CPU takes the low 32 bits of a seed alone."""
    trainer = Trainer(Model(make_decoder(), vocab, "fake", "f4ce"), CONFIG, tmp_path, make_batches(), make_batches())
    monkeypatch.setattr(
        Trainer, "train_step", lambda trainer, share: drawn.append(torch.rand(()).item()) or torch.ones(())
    )
    drawn = []
    for index in (0, 1, 2, 255, 0):
        trainer.processes = SimpleNamespace(process_index=index, num_processes=256, is_main_process=False)
        trainer.train_round()
    assert len(drawn) == 5 and len({*drawn}) == 4 and drawn[0] == drawn[-1]


def test_seeds_decide(run, tmp_path):
    runs = (("a", 1), ("b", 1), ("c", 2))
    one, same, other = (run(tmp_path / name, replace(CONFIG, seed=seed)) for name, seed in runs)
    assert list(one["train_loss"]) == list(same["train_loss"])
    assert list(one["train_loss"]) != list(other["train_loss"])


def shape(name, warmup=0.25, steps=100):
    return [SCHEDULES[name](step / steps, warmup) for step in range(steps + 1)]


def test_schedules_have_their_shapes():
    assert shape("constant") == [1.0] * 101
    cosine, one_cycle = shape("one_cycle", warmup=0), shape("one_cycle")
    assert (cosine[0], cosine[50], cosine[100]) == pytest.approx((1, 0.5, 0))
    assert cosine == sorted(cosine, reverse=True)
    assert (one_cycle[0], one_cycle[25], one_cycle[100]) == pytest.approx((0.04, 1, 0))
    assert one_cycle[:26] == sorted(one_cycle[:26])
    assert one_cycle[25:] == sorted(one_cycle[25:], reverse=True)
    assert max(abs(a - b) for a, b in zip(one_cycle, one_cycle[1:], strict=False)) < 0.07


def test_the_learning_rate_follows_the_schedule(run, tmp_path):
    history = run(tmp_path, replace(CONFIG, warmup=0.5))
    assert list(history["learning_rate"]) == pytest.approx(
        [CONFIG.learning_rate * SCHEDULES["one_cycle"](2 * epoch / 12, 0.5) for epoch in range(1, 7)]
    )


def test_an_epoch_may_be_validated_several_times(run, tmp_path):
    """As often as it has steps; what is learnt is the same."""
    config = replace(CONFIG, epochs=3)
    once = run(tmp_path / "once", config, dropout=0.0)
    often = run(tmp_path / "often", replace(config, validations=9), dropout=0.0)
    assert list(often["epoch"]) == [0.5, 1, 1.5, 2, 2.5, 3]
    assert list(often["val_perplexity"][1::2]) == list(once["val_perplexity"])
    assert list(often["learning_rate"][1::2]) == list(once["learning_rate"])


def test_an_unknown_schedule_is_told_the_known_ones(run, tmp_path):
    with pytest.raises(InputError, match="schedule 'linear' is unknown; choose one of constant, one_cycle"):
        run(tmp_path, replace(CONFIG, schedule="linear"))


def test_another_teacher_is_another_run(make_decoder, make_batches, vocab, tmp_path):
    config = replace(CONFIG, epochs=1, distillation=0.5)

    def learn(teacher):
        model = Model(make_decoder(), vocab, "fake", "f4ce", {"data": "tiny"})
        return fit(model, make_batches(2, True), make_batches(), config, tmp_path, [teacher])

    first = learn(make_decoder("general"))
    pd.testing.assert_frame_equal(learn(make_decoder("general")), first)
    with pytest.raises(InputError, match="another run, which differs in teachers"):
        learn(make_decoder("concat"))


def test_accumulation_changes_no_curve(run, tmp_path):
    """Without dropout; a run may even go on with another number of parts."""
    config = replace(CONFIG, images_per_batch=4, label_smoothing=0.1)
    whole = run(tmp_path / "whole", config, dropout=0.0)
    parts = run(tmp_path / "parts", replace(config, accumulate=3), dropout=0.0)
    for column in ("train_loss", "val_perplexity"):
        assert list(parts[column]) == pytest.approx(list(whole[column]), abs=1e-4)
    run(tmp_path / "parts", config, dropout=0.0)


@pytest.mark.parametrize(
    ("device", "bfloat16", "expected"),
    [("cpu", True, torch.float32), ("cuda", True, torch.bfloat16), ("cuda", False, torch.float16)],
)
def test_precision_is_what_the_device_computes_fast(monkeypatch, device, bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    assert precision(torch.device(device)) is expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant_name",
    ["bahdanau", "general", "concat-feeding", "tied-word-vectors", "gated", "sparsemax", "hard", "local"],
)
def test_lower_precision_trains_as_well(run, tmp_path, variant_name):
    full = run(tmp_path / "full", variant=variant_name, dropout=0.0)
    assert load_model(tmp_path / "full").training["precision"] == "float32"
    for lower in ("bfloat16", "float16"):
        found = run(tmp_path / lower, replace(CONFIG, precision=lower), variant=variant_name, dropout=0.0)
        assert list(found["train_loss"]) == pytest.approx(list(full["train_loss"]), rel=0.02), lower
        assert list(found["train_loss"]) != list(full["train_loss"]), lower
        assert load_model(tmp_path / lower).training["precision"] == lower
        assert {tensor.dtype for tensor in weights(tmp_path / lower).values()} == {torch.float32}


def test_the_scale_of_the_loss_is_part_of_the_state(make_decoder, make_batches, vocab, run, tmp_path, monkeypatch):
    """Scales that overflow are halved, and the step is left out: after a resume as without one."""
    config = replace(CONFIG, precision="float16")
    run(tmp_path / "whole", config)
    interrupt_step(monkeypatch, 7, Crash)
    with pytest.raises(Crash):
        run(tmp_path / "cut", config)
    monkeypatch.undo()
    model = Model(make_decoder(), vocab, "fake", "f4ce", {"data": "tiny"})
    trainer = Trainer(model, config, tmp_path / "cut", make_batches(2, mirror=True), make_batches())
    before = trainer.scaler.get_scale()
    trainer.resume()
    assert trainer.scaler.state_dict()["_growth_tracker"] + math.log2(before / trainer.scaler.get_scale()) == 6
    run(tmp_path / "cut", config)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_label_smoothing_is_for_training_alone(run, tmp_path):
    config = replace(CONFIG, label_smoothing=0.9, epochs=1, learning_rate=0.0)
    smooth, plain = run(tmp_path / "a", config), run(tmp_path / "b", replace(config, label_smoothing=0.0))
    assert smooth["val_perplexity"][0] == plain["val_perplexity"][0]
    assert smooth["train_loss"][0] != plain["train_loss"][0]


def test_the_state_tells_the_settings(run, tmp_path):
    run(tmp_path, replace(CONFIG, epochs=1))
    header = (tmp_path / LAST).read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert json.loads(metadata["settings"])["schedule"] == "one_cycle"
    assert os.path.getsize(tmp_path / LAST) > len(json.dumps(metadata))
