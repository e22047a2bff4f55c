import json
import re
import shutil
from copy import deepcopy

import pytest
import skimage

from caption_utils.__main__ import main

PHOTO = f"{skimage.data_dir}/coffee.png"

SMALL = ["--embed-dim", "8", "--hidden-dim", "8", "--attention-dim", "8", "--epochs", "2", "--min-count", "1"]


@pytest.mark.slow
def test_train_evaluate_and_caption(data_folder, tmp_path, capsys):
    out, record = tmp_path / "runs" / "tiny", tmp_path / "results" / "metrics.csv"
    assert main(["train", "--data", str(data_folder), "--out", str(out), *SMALL, "--no-input-feeding"]) == 0
    assert f"{out}: best validation perplexity " in capsys.readouterr().out
    evaluate = ["evaluate", "--model", str(out), "--data", str(data_folder), "--split", "test"]
    assert main([*evaluate, "--json", "--record", str(record)]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["images"], row["model"], row["encoder"]) == (3, "tiny", "efficientnet_lite2")
    assert len(record.read_text().splitlines()) == 2 and "fall" not in record.read_text()
    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    assert f"vocab_size           {row['vocab_size']}\n" in printed
    assert f"cider                {row['cider']}  {row['cider_low']} to {row['cider_high']}\n" in printed
    assert "meteor               missing: needs a Java runtime; install one" in printed and row["meteor"] is None
    fall = [row[f"fall_difference{end}"] for end in ("", "_low", "_high")]
    assert (
        f"fall_difference      {fall[0]}  {fall[1]} to {fall[2]}\n" in printed and "attention_images     1\n" in printed
    )
    assert "_low" not in printed
    assert main(["caption", "--model", str(out), PHOTO]) == 0
    assert capsys.readouterr().out.startswith(f"{PHOTO}: ")


def test_a_second_start_of_a_finished_run_trains_nothing(data_folder, tmp_path, capsys):
    arguments = ["train", "--data", str(data_folder), "--out", str(tmp_path / "tiny"), *SMALL]
    assert main(arguments) == main(arguments) == 0
    assert capsys.readouterr().out.count("epoch 2: ") == 1


def damage(text):
    def change(folder):
        (folder / "captions.txt").write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder; point to the folder that holds captions.txt"),
        (lambda folder: (folder / "captions.txt").unlink(), "no caption file; put captions.txt"),
        (lambda folder: shutil.rmtree(folder / "Images"), "captions.txt: found none of its 12 images"),
        (damage(""), "no caption file (expected|; put)|captions.txt: the file is empty"),
        (damage("image,capt"), "captions.txt"),
        (damage("image,caption\n"), "captions.txt: no usable row; check that the file is complete"),
        (damage("image,caption\n0.png"), "captions.txt: no usable row; check that the file is complete"),
        (damage('{"images": [{"filename": "0.png", "sent'), "damaged JSON .*line 1"),
        (damage("image,caption,split\n0.png,red,trian\n"), "split 'trian' of 0.png is unknown; use train, val or test"),
        (lambda folder: (folder / "captions.txt").write_bytes(b"image,caption\n0.png,\xff"), "line 2 is not UTF-8"),
    ],
)
def test_a_broken_data_set_is_one_line(data_folder, tmp_path, refused, change, message):
    change(data_folder)
    line = refused("train", "--data", data_folder, "--out", tmp_path / "out", *SMALL)
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--encoder", "vgg", "encoder 'vgg' is unknown; choose one of efficientnet_lite2,"),
        ("--score", "dot", "--score is for --attention luong; give both, or leave it out"),
        ("--attention", "self", "attention 'self' is unknown; choose one of bahdanau, luong"),
        ("--schedule", "linear", "schedule 'linear' is unknown"),
        ("--split", "mine", "split='mine' is unknown; use one of official, first6k, source, random"),
        ("--epochs", "0", "epochs=0 is out of range"),
        ("--dropout", "2", "dropout=2.0 is out of range"),
        ("--images-per-batch", "0", "images_per_batch=0 is out of range"),
        ("--seed", "-1", "seed=-1 is out of range"),
    ],
)
def test_a_wrong_setting_is_one_line(data_folder, tmp_path, refused, option, value, message):
    line = refused("train", "--data", data_folder, "--out", tmp_path / "out", option, value)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(data_folder, tmp_path, capsys, refused):
    (tmp_path / "file").touch()
    assert "a file, not a folder" in refused("train", "--data", data_folder, "--out", tmp_path / "file", *SMALL)
    assert main(["train", "--data", str(data_folder), "--out", str(tmp_path / "file" / "below"), *SMALL]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("caption_utils: ")


def test_a_corrupt_photo_stops_training_with_its_name(data_folder, tmp_path, capsys):
    (data_folder / "Images" / "5.png").write_bytes(b"no picture")
    assert main(["train", "--data", str(data_folder), "--out", str(tmp_path / "out"), *SMALL]) == 2
    assert "5.png: not a picture that can be read" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_learns_from_the_score(model, data_folder, tmp_path, capsys, refused):
    command = ["train", "--data", str(data_folder), "--out", str(tmp_path / "out"), "--self-critical", str(model)]
    assert main([*command, "--epochs", "1", "--samples", "2", "--no-mirror", "--images-per-batch", "6"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["epoch 0", "epoch 1", str(tmp_path / "out")]
    assert re.fullmatch(r".*: best validation CIDEr [\d.]+ after epoch [01]", told[-1])
    line = refused(*command, "--min-count", "1", "--attention", "luong")
    assert line.startswith("caption_utils: attention, min_count: no setting of self-critical training")


@pytest.mark.slow
def test_an_encoder_is_fine_tuned_and_captions(model, data_folder, tmp_path, encoder, monkeypatch, capsys, refused):
    for module in ("captioner", "training.refinement"):
        monkeypatch.setattr(f"caption_utils.{module}.load_encoder", lambda name, device: deepcopy(encoder))
    command = ["train", "--data", str(data_folder), "--out", str(tmp_path / "out")]
    tuned = [*command, "--start", str(model), "--fine-tune", "1"]
    assert (
        main([*tuned, "--epochs", "1", "--no-mirror", "--encoder-learning-rate", "1e-3", "--learning-rate", "1e-2"])
        == 0
    )
    assert re.fullmatch(
        r".*: best validation perplexity [\d.]+ after epoch [01]", capsys.readouterr().out.splitlines()[-1]
    )
    assert main(["caption", "--model", str(tmp_path / "out"), str(data_folder / "Images" / "0.png")]) == 0
    assert capsys.readouterr().out.startswith(f"{data_folder}/Images/0.png: ")
    assert main([*tuned[:-1], "9"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("efficientnet_lite2: 9 stages cannot be fine-tuned; choose 1 to 7")
    assert "give both --start and --fine-tune" in refused(*command, "--fine-tune", "1")
    assert "give both --start and --fine-tune" in refused(*command, "--start", model)
    assert "--self-critical and --fine-tune are two runs" in refused(*tuned, "--self-critical", model)


def test_every_setting_is_an_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for option in (
        "--attention",
        "--score",
        "--input-feeding",
        "--no-mirror",
        "--learning-rate",
        "--seed",
        "--tokenizer",
        "--word-vectors",
        "--fine-tune STAGES",
        "--encoder-learning-rate",
        "constant, one_cycle (constant)",
        "softmax, sparsemax, entmax (softmax)",
    ):
        assert option in text
    assert not re.search("--(vocab-size|feature-dim|word-dim)", text)
