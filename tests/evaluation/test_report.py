import json
import math
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
import torch

from caption_utils.captioner import Captioner
from caption_utils.config import DecoderConfig
from caption_utils.data.datasets import load_dataset
from caption_utils.data.images import load_image
from caption_utils.data.splits import name_digest
from caption_utils.data.vocab import Vocabulary, tokenize
from caption_utils.data.wordpiece import WordPiece
from caption_utils.demo.scenes import DEMO
from caption_utils.errors import InputError
from caption_utils.evaluation import attention
from caption_utils.evaluation import report as evaluation
from caption_utils.evaluation.occlusion import deletion_scores, deletion_test
from caption_utils.evaluation.records import rows_with
from caption_utils.evaluation.report import COLUMNS, SCORES, compare, evaluate_model
from caption_utils.metrics.bootstrap import mean_score
from caption_utils.metrics.scores import bleu
from caption_utils.model.decoder import build_decoder
from caption_utils.training.checkpoint import Model, load_model, save_model


@pytest.fixture(autouse=True)
def fake(monkeypatch, cache, fake_encoder, no_java):
    """The fake encoder under a real name, on the CPU, with its features below ``tmp_path``."""
    monkeypatch.setattr("caption_utils.captioner.load_encoder", lambda name, device: fake_encoder)
    monkeypatch.setattr(evaluation, "device", lambda: torch.device("cpu"))
    return fake_encoder


def write_model(folder, seed=0, split="official", words="a red green blue white half and beside", trained_on=()):
    torch.manual_seed(seed)
    vocab = Vocabulary.build([words], min_count=1)
    decoder = build_decoder(DecoderConfig(len(vocab), 6, embed_dim=8, hidden_dim=8, attention_dim=8)).eval()
    torch.nn.init.normal_(decoder.output.weight, std=2.0)  # so that it says more than one thing
    seen = frozenset(map(name_digest, trained_on))
    save_model(folder, Model(decoder, vocab, "fake", "f4ce", {"seed": seed, "split": split}, seen))
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small", seed=4)


def texts_of(evaluation):
    return [caption.text for caption in evaluation.captions]


def test_a_row_tells_what_was_measured(model, data_folder, capsys):
    row = evaluate_model(model, data_folder, "test", beams=2).row()
    assert (row["images"], row["split"], row["model"], row["seed"], row["device"]) == (3, "test", "small", 4, "cpu")
    assert (row["data"], row["scheme"], row["encoder"], row["attention"]) == ("data", "official", "fake", "bahdanau")
    assert (row["search"], row["vocab_size"]) == ("beam 2", len(load_model(model).vocab))
    assert "Split: official, given by captions.txt" in capsys.readouterr().err
    assert json.loads(json.dumps(row)) == row
    assert evaluate_model(model, data_folder, "test", beams=1).row()["search"] == "greedy"


def test_a_row_has_the_columns_of_the_results_so_far(model, data_folder):
    assert tuple(evaluate_model(model, data_folder).row()) == COLUMNS
    assert rows_with(Path(__file__).parents[2] / "results" / "metrics.csv", COLUMNS)


def test_scores_are_those_of_the_captions_against_all_references(model, data_folder):
    found = evaluate_model(model, data_folder, "val")
    dataset = load_dataset(data_folder).split("val")
    assert found.images == dataset.image_names
    references = [dataset.captions_of(name) for name in found.images]
    row = found.row()
    for name, value in bleu(texts_of(found), references).items():
        assert row[name] == pytest.approx(value, abs=1e-4)
    for name in SCORES:
        if name != "meteor":
            assert len(found.scores[name].statistics) == 3
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert all(caption.log_probability < 0 for caption in found.captions)


def test_without_java_meteor_is_missing_and_all_else_is_there(model, data_folder):
    found = evaluate_model(model, data_folder)
    row = found.row()
    assert {name for name, value in row.items() if value is None} == {"meteor", "meteor_low", "meteor_high"}
    assert found.missing == {"meteor": "needs a Java runtime; install one (on Debian: default-jre-headless)"}


def test_with_java_meteor_is_a_score_like_the_others(model, data_folder, monkeypatch):
    monkeypatch.setattr(evaluation, "meteor", lambda captions, references: mean_score([10.0, 20.0, 60.0]))
    found = evaluate_model(model, data_folder)
    assert (found.row()["meteor"], found.row()["meteor_low"], found.missing) == (30, 10, {})


def test_perplexity_is_that_of_each_reference(model, data_folder, fake):
    """By single steps over each caption."""
    loaded, dataset = load_model(model), load_dataset(data_folder).split("val")
    total, tokens = 0.0, 0
    for name in dataset.image_names:
        features = fake(fake.transform(load_image(dataset.path(name)))[None]).half().float()
        for text in dataset.captions_of(name):
            state, ids = loaded.decoder.init_state(features), loaded.vocab.encode(text)
            for token, target in zip(ids, ids[1:], strict=False):
                logits, _, state = loaded.decoder.step(torch.tensor([token]), state)
                total, tokens = total - logits.log_softmax(1)[0, target].item(), tokens + 1
    row = evaluate_model(model, data_folder, "val").row()
    assert row["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-3)


@pytest.mark.slow
def test_perplexity_per_word_is_that_of_the_words_whatever_the_tokens(model, data_folder, tmp_path, tokenizer_file):
    row = evaluate_model(model, data_folder, "val").row()
    assert all(row[f"perplexity_per_word{end}"] == row[f"perplexity{end}"] for end in ("", "_low", "_high"))
    dataset = load_dataset(data_folder).split("val")
    words = Vocabulary.build(dataset.table["caption"], 1, WordPiece.read(str(tokenizer_file)))
    decoder = build_decoder(DecoderConfig(len(words), 6, embed_dim=8, hidden_dim=8, attention_dim=8)).eval()
    save_model(tmp_path / "pieces", Model(decoder, words, "fake", "f4ce", {}))
    found = evaluate_model(tmp_path / "pieces", data_folder, "val")
    texts = list(dataset.table["caption"])
    ends = len(texts)
    tokens, spoken = (
        sum(len(words.encode(text)) - 1 for text in texts),
        sum(len(tokenize(text)) for text in texts) + ends,
    )
    assert tokens > spoken
    assert found.row()["perplexity_per_word"] == pytest.approx(found.row()["perplexity"] ** (tokens / spoken), rel=1e-4)
    apart = compare(found, evaluate_model(model, data_folder, "val"))
    assert "perplexity_per_word" in apart and "perplexity" not in apart


def test_unknown_words_are_counted(model, data_folder):
    assert evaluate_model(model, data_folder).row()["unknown_rate"] == 0
    with (data_folder / "captions.txt").open("a") as file:
        file.write("2.png,a zebra,val\n")
    assert evaluate_model(model, data_folder).row()["unknown_rate"] > 0


def test_only_the_split_that_is_measured_is_encoded(model, data_folder, fake, monkeypatch):
    monkeypatch.setattr(evaluation, "attention_scores", lambda *measured: {})
    evaluate_model(model, data_folder, "val")
    evaluate_model(model, data_folder, "val", beams=1)
    assert fake.seen == 3


def test_features_of_another_encoder_are_refused(model, data_folder, fake):
    fake.fingerprint = "0ther"
    with pytest.raises(InputError, match="its weights differ from those the model was trained with"):
        evaluate_model(model, data_folder)


def test_a_split_that_is_not_there(model, data_folder):
    with pytest.raises(InputError, match="split 'dev' of data has no images; choose one of: train, val, test"):
        evaluate_model(model, data_folder, "dev")


@pytest.mark.filterwarnings("error")
def test_of_a_single_image_cider_is_missing(tmp_path, data_folder, capsys):
    """The model was trained on two of the three validation images."""
    model = write_model(tmp_path / "model", trained_on=["2.png", "6.png"])
    found = evaluate_model(model, data_folder, "val")
    assert "(left out): 2 (2.png, 6.png)" in capsys.readouterr().err
    assert found.images == ["10.png"] and (found.row()["images"], found.row()["cider"]) == (1, None)
    assert found.missing["cider"] == "needs two images, to tell common words from rare ones"


def only_test_images(whole, folder, lists=("testImages.txt",), captions="test"):
    """A folder with the test images of another and what is needed to measure on them."""
    dataset = load_dataset(whole)
    (folder / "Images").mkdir(parents=True)
    for name in dataset.split("test").image_names:
        shutil.copy(dataset.path(name), folder / "Images")
    for end in lists:
        split = {"train": "train", "dev": "val", "test": "test"}[end.removesuffix("Images.txt")]
        (folder / f"Flickr_8k.{end}").write_text("\n".join(dataset.split(split).image_names) + "\n")
    rows = dataset.split("test").table if captions == "test" else dataset.table
    rows[["image", "caption"]].to_csv(folder / "captions.txt", index=False)
    return folder


@pytest.mark.slow
def test_a_folder_with_the_test_images_alone(model, data_folder, tmp_path):
    """With the list of these or all three lists, and with their captions or all."""
    whole = evaluate_model(model, data_folder, "test")
    expected = whole.row()
    every_list = [("testImages.txt",), ("trainImages.txt", "devImages.txt", "testImages.txt")]
    for lists, captions in product(every_list, ("test", "all")):
        folder = only_test_images(data_folder, tmp_path / f"{captions} {len(lists)}" / "data", lists, captions)
        alone = evaluate_model(model, folder, "test")
        assert texts_of(alone) == texts_of(whole) and alone.images == whole.images
        row = alone.row()
        assert [row[name] for name in SCORES] == [expected[name] for name in SCORES]
        assert row["training_copies"] is None
        assert alone.missing["training_copies"] == "data holds no training photos"


def test_photographs_are_put_to_the_deletion_test(model, data_folder, fake, monkeypatch):
    monkeypatch.setattr(attention, "PHOTOS", 2)
    report = evaluate_model(model, data_folder, "val").report()
    names = ("fall_attended", "fall_random", "fall_difference")
    extra = ["attention_images", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]
    assert list(report)[-len(extra) :] == extra and "true" not in report
    table = deletion_test(
        Captioner(load_model(model), fake), [data_folder / "Images" / name for name in ("2.png", "6.png")]
    )
    low, high = deletion_scores(table, 2)["difference"].interval()
    assert report["attention_images"] == 2 and (report["even_regions"], report["even_peak"]) == (4, 0.25)
    assert 1 <= report["effective_regions_low"] <= report["effective_regions"] <= 4 and 0 <= report["change"] <= 1
    assert (report["fall_difference"], report["fall_difference_low"], report["fall_difference_high"]) == pytest.approx(
        (100 * (table["attended"] - table["random"]).mean(), low, high), abs=1e-4
    )
    assert report["fall_attended"] == pytest.approx(100 * table["attended"].mean(), abs=1e-4)


@pytest.mark.slow
def test_an_evaluation_on_scenes(tmp_path):
    report = evaluate_model(write_model(tmp_path / "model", words="ball"), DEMO, "val").report()
    names = [f"pointing_{name}{end}" for name in ("hit", "mass", "chance", "absent") for end in ("", "_low", "_high")]
    expected = ["attention_images", "true", "true_low", "true_high", *names]
    assert list(report)[-len(expected) :] == expected
    assert report["attention_images"] == 300 and report["true_low"] <= report["true"] <= report["true_high"]
    assert report["pointing_absent"] > 0 and 0 < report["pointing_chance"] < 40


@pytest.mark.slow
def test_models_are_compared_on_the_same_images(model, data_folder, tmp_path):
    first, other = evaluate_model(model, data_folder), evaluate_model(write_model(tmp_path / "b", seed=9), data_folder)
    found = compare(first, other)
    assert list(found) == [name for name in SCORES if name != "meteor"] + list(first.sharpness | first.attention)
    ours, theirs = first.report(), other.report()
    for name, difference in found.items():
        assert difference.value == pytest.approx(ours[name] - theirs[name], abs=2e-4)
        assert difference.low <= difference.value <= difference.high
    assert {(d.value, d.p) for d in compare(first, first).values()} == {(0, 1)}


def test_perplexities_of_other_vocabularies_are_not_compared(model, data_folder, tmp_path):
    other = evaluate_model(write_model(tmp_path / "b", words="a red half"), data_folder)
    found = compare(evaluate_model(model, data_folder), other)
    assert "perplexity" not in found and "perplexity_per_word" not in found and "cider" in found


def test_other_images_are_not_compared(model, data_folder):
    first, other = (evaluate_model(model, data_folder, split) for split in ("val", "test"))
    with pytest.raises(InputError, match="small: measured on other images than small; evaluate both on the same split"):
        compare(first, other)


def test_a_row_names_the_commit(model, data_folder, tmp_path, monkeypatch):
    options = "-c user.name=test -c user.email=test@localhost -c commit.gpgsign=false".split()
    git = ["git", "-C", tmp_path, *options]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "nothing"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(evaluation, "repository", lambda: tmp_path)
    named = evaluate_model(model, data_folder).row()["commit"]
    assert named and subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).startswith(named)


@pytest.mark.parametrize("found", [FileNotFoundError, None])
def test_the_commit_is_empty_without_git(monkeypatch, tmp_path, found):
    monkeypatch.setattr(evaluation, "repository", lambda: tmp_path)
    if found:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert evaluation._commit() == ""
