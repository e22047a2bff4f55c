import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import skimage
import torch
from safetensors.torch import load_file, save_file

from caption_utils.__main__ import main
from caption_utils.calibration import Calibration, Looks
from caption_utils.evaluation.confidence import Reliability

PHOTO = f"{skimage.__path__[0]}/data/coffee.png"
SMALL = ["--embed-dim", "8", "--hidden-dim", "8", "--attention-dim", "8", "--epochs", "2", "--min-count", "1"]


@pytest.fixture(autouse=True)
def one_encoder(monkeypatch, cache, encoder, no_java):
    """The encoder is loaded once for all tests, on the CPU, and one photo is enough for the deletion test."""
    from caption_utils import captioner
    from caption_utils.encoders.encoder import encoder_spec
    from caption_utils.evaluation import report as evaluation
    from caption_utils.training import run as experiment

    for module in (captioner, experiment):
        monkeypatch.setattr(module, "load_encoder", lambda name, device: encoder_spec(name) and encoder)
    for module in (evaluation, experiment):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr("caption_utils.runtime.device", lambda: torch.device("cpu"))
    monkeypatch.setattr(evaluation, "PHOTOS", 1)


@pytest.fixture
def model(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def refused(capsys, *arguments):
    """The one line that a wrong input gives."""
    assert main(list(map(str, arguments))) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("caption_utils: ")
    return line


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


@pytest.mark.slow
def test_evaluate_against_another_model(model, data_folder, tmp_path, capsys):
    other = shutil.copytree(model, tmp_path / "other")
    command = [
        "evaluate",
        "--model",
        str(model),
        "--data",
        str(data_folder),
        "--against",
        str(other),
        "--captions",
        str(tmp_path / "captions.json"),
    ]
    assert main([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    against = row.pop("against")
    assert against.pop("model") == str(other)
    assert against["bleu4"] == {"value": 0, "low": 0, "high": 0, "p": 1} and "meteor" not in against
    assert len(json.loads((tmp_path / "captions.json").read_text())) == row["images"] == 3
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"difference from {other}, 95 % interval" in printed
    assert "cider                +0.0000  +0.0000 to +0.0000  p 1.000\n" in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_the_json_of_a_diverged_model_is_valid(model, data_folder, capsys):
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"output.bias": weights["output.bias"] * torch.nan}, model / "model.safetensors")
    command = ["evaluate", "--model", str(model), "--data", str(data_folder), "--against", str(model)]
    assert main([*command, "--json"]) == 0

    def invalid(constant):
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads(capsys.readouterr().out, parse_constant=invalid)
    names = ("perplexity", "perplexity_low", "fall_attended", "fall_difference_high")
    assert [row[name] for name in names] == [None] * 4
    assert row["against"]["perplexity"]["value"] is None and row["images"] == 3
    assert main(command) == 0
    assert "perplexity           inf " in capsys.readouterr().out


def test_a_second_start_of_a_finished_run_trains_nothing(data_folder, tmp_path, capsys):
    arguments = ["train", "--data", str(data_folder), "--out", str(tmp_path / "tiny"), *SMALL]
    assert main(arguments) == main(arguments) == 0
    assert capsys.readouterr().out.count("epoch 2: ") == 1


def test_one_good_and_one_bad_photo(model, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"")
    assert main(["caption", "--model", str(model), "--json", PHOTO, str(tmp_path / "bad.jpg"), PHOTO]) == 1
    output = capsys.readouterr()
    good, bad, again = map(json.loads, output.out.splitlines())
    assert good == again
    assert good["image"] == PHOTO and good["caption"]
    assert len(good["attention"]) == len(good["tokens"]) and len(good["attention"][0]) == 7
    assert max(len(str(share)) for row in good["attention"][0] for share in row) <= len("0.1234")
    assert bad == {
        "image": str(tmp_path / "bad.jpg"),
        "error": f"{tmp_path / 'bad.jpg'}: the file is empty; copy or download it again",
    }
    assert output.err == ""


def test_a_bad_photo_in_plain_words(model, tmp_path, capsys):
    assert main(["caption", "--model", str(model), str(tmp_path / "gone.jpg"), PHOTO]) == 1
    output = capsys.readouterr()
    assert output.err == f"caption_utils: {tmp_path}/gone.jpg: no such file; check the path\n"
    assert output.out.startswith(f"{PHOTO}: ")


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder without access, also for root."""
    (tmp_path / "locked").mkdir()

    def refusing(call):
        def called(path, *args, **options):
            if str(path).startswith(str(tmp_path / "locked")):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args, **options)

        return called

    monkeypatch.setattr("os.stat", refusing(os.stat))
    monkeypatch.setattr("os.scandir", refusing(os.scandir))
    return tmp_path / "locked"


def test_no_photo_out_of_reach_stops_the_others(model, tmp_path, locked, capsys, monkeypatch):
    """A name too long or a folder without access, named or listed by standard input."""
    long = "x" * 300 + ".jpg"
    photos = [long, str(locked / "a.jpg"), str(locked), PHOTO]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(photos)))
    assert main(["caption", "--model", str(model), "--beam", "1", "--json", *photos, "-"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in found] == [*photos, *photos]
    told = [row.get("error", "caption").removeprefix(f"{row['image']}: ") for row in found]
    no_access = "may not be read; change its permissions"
    assert told == 2 * ["cannot be read (File name too long); check the path", no_access, no_access, "caption"]


def test_without_a_model_the_default_one_captions(model, capsys, monkeypatch):
    monkeypatch.setattr("caption_utils.training.zoo.default_model", lambda: model)
    assert main(["caption", PHOTO]) == main(["caption", "--model", str(model), PHOTO]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_folder_and_a_list_from_standard_input(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    first, second, spaced = (
        Path(shutil.copy(PHOTO, tmp_path / name)) for name in ("photos/a.png", "photos/b.PNG", "c d.png")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{spaced}\n\n-\n{first.parent}\n"))
    assert main(["caption", "--model", str(model), PHOTO, str(tmp_path / "photos"), "-"]) == 0
    named = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [PHOTO, *map(str, (first, second, spaced, first, second))]


def test_a_terminal_sees_progress_over_several_photos(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["caption", "--model", str(model), PHOTO]) == 0
    assert capsys.readouterr().err == ""
    assert main(["caption", "--model", str(model), PHOTO, PHOTO, PHOTO]) == 0
    output = capsys.readouterr()
    assert list(dict.fromkeys(re.findall(r"\d/3", output.err))) == ["0/3", "1/3", "2/3", "3/3"]
    assert re.search(r"2/3 \[\d\d:\d\d<\d\d:\d\d, .*photo", output.err)  # time left and rate
    assert len(output.out.splitlines()) == 3


def test_the_runners_up(model, capsys):
    assert main(["caption", "--model", str(model), "--top", "3", PHOTO]) == 0
    name, *captions = capsys.readouterr().out.splitlines()
    assert name == f"{PHOTO}:"
    assert len(captions) == 3 and all(0 <= float(line.split()[0]) <= 1 for line in captions)
    assert main(["caption", "--model", str(model), "--top", "3", "--json", PHOTO]) == 0
    line = json.loads(capsys.readouterr().out)
    assert [line["caption"], *(other["caption"] for other in line["runners_up"])] == [
        text.split(maxsplit=1)[1] for text in captions
    ]


@pytest.fixture
def sure(model):
    """A model folder whose captions have a confidence of 0.6, but of the least familiar of photos, such as all are."""
    looks = Looks(torch.zeros(1280), torch.zeros(1280, 1))
    Calibration(torch.tensor([math.log(9), 0]), looks, torch.tensor([0.0, 0])).save(model)
    return model


def test_a_doubt_is_told(sure, capsys):
    assert main(["caption", "--model", str(sure), PHOTO]) == 0
    line = capsys.readouterr().out
    assert line.endswith(" (unsure: unlike the photos this model knows)\n")
    assert main(["caption", "--model", str(sure), "--top", "2", PHOTO]) == 0
    head, best, _ = capsys.readouterr().out.splitlines()
    assert head == f"{PHOTO}: (unsure: unlike the photos this model knows)" and "unsure" not in best
    assert main(["caption", "--model", str(sure), "--json", PHOTO]) == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == pytest.approx(0.3)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_captions_of_too_little_confidence_are_left_out(sure, tmp_path, capsys, as_json):
    (tmp_path / "bad.jpg").write_bytes(b"")
    photos = [PHOTO, str(tmp_path / "bad.jpg"), PHOTO]
    outputs = ["--csv", str(tmp_path / "t.csv"), "--attention-map", str(tmp_path / "map.png"), *as_json]
    assert main(["caption", "--model", str(sure), "--min-confidence", "0.31", *outputs, *photos]) == 1
    output = capsys.readouterr()
    assert output.err.endswith("caption_utils: captions with a confidence below 0.31: 2 (left out)\n")
    assert [json.loads(line)["image"] for line in output.out.splitlines()] == photos[1:2] * len(as_json)
    assert not list(tmp_path.glob("map*")) and not (tmp_path / "t.csv").exists()
    assert main(["caption", "--model", str(sure), "--min-confidence", "0.29", *outputs[:2], PHOTO]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{PHOTO}: ") and output.err == ""
    assert (tmp_path / "t.csv").read_text().endswith(",0.3000\n")


def test_a_model_without_confidence_works_and_refuses_a_least_one(model, capsys):
    assert main(["caption", "--model", str(model), "--json", PHOTO]) == 0
    assert "confidence" not in json.loads(capsys.readouterr().out)
    line = refused(capsys, "caption", "--model", model, "--min-confidence", "0.5", PHOTO)
    assert line == (
        f"caption_utils: {model}: has no confidence.safetensors, which --min-confidence needs; "
        "write it with python -m caption_utils confidence"
    )


@pytest.mark.parametrize("least", ["1.5", "-1", "nan"])
def test_a_least_confidence_out_of_range_is_one_line(sure, capsys, least):
    line = refused(capsys, "caption", "--model", sure, f"--min-confidence={least}", PHOTO)
    assert line.endswith(f"min_confidence={least} is out of range; choose a value from 0 to 1")


def test_the_command_that_fits_confidence_tells_what_it_is_worth(capsys, monkeypatch):
    table = pd.DataFrame(
        {"captions": [3, 4], "confidence": [0.25, 0.5], "above_median": [0.2, 0.6], "cider": [9, 70.5]}
    )
    given = []
    monkeypatch.setattr(
        "caption_utils.evaluation.confidence.fit_confidence",
        lambda *arguments: given.extend(arguments) or Reliability(8, 0.4321, table),
    )
    assert main(["confidence", "--model", "m", "--data", "d"]) == 0 and given == ["m", "d"]
    first, second, header, *rows = capsys.readouterr().out.splitlines()
    assert first == "fitted to 8 validation photos, measured on 7 others" and second.endswith(" 0.432")
    assert header.split() == [*table.columns] and rows[1].split() == ["4", "0.50", "0.6", "70.5"]


@pytest.mark.parametrize("top", ["0", "6"])
def test_more_runners_up_than_beams_are_one_line(model, capsys, top):
    line = refused(capsys, "caption", "--model", model, "--top", top, PHOTO)
    assert line.endswith(f"top={top}: choose 1 to 5, or more beams with --beam")


@pytest.mark.parametrize(
    "options", [[""], [PHOTO, ""], [PHOTO, "--csv", ""], [PHOTO, "--csv="], [PHOTO, "--model", ""]]
)
def test_an_empty_argument_is_not_taken_for_none(capsys, options):
    line = refused(capsys, "caption", *options)
    assert line == "caption_utils: one of the arguments is empty; check what it was taken from"


def test_no_beams_are_one_line_before_any_work(capsys):
    assert "beams=0 is out of range" in refused(capsys, "caption", "--beam", "0", PHOTO)


@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_an_attention_map_is_saved_as_its_name_says(model, tmp_path, capsys, suffix, head):
    out = tmp_path / "maps" / f"map{suffix}"
    assert main(["caption", "--model", str(model), "--attention-map", str(out), PHOTO]) == 0
    assert out.read_bytes().startswith(head)
    assert list(out.parent.iterdir()) == [out]


def test_each_photo_has_its_attention_map(model, tmp_path):
    shutil.copy(PHOTO, tmp_path / "mine.png")
    (tmp_path / "bad.png").write_bytes(b"")
    photos = [PHOTO, str(tmp_path / "bad.png"), str(tmp_path / "mine.png")]
    assert main(["caption", "--model", str(model), "--attention-map", str(tmp_path / "map.png"), *photos]) == 1
    assert sorted(path.name for path in tmp_path.glob("map*")) == ["map-coffee.png", "map-mine.png"]


def test_an_ambiguous_attention_map_is_one_line_before_any_work(model, tmp_path, capsys):
    shutil.copy(PHOTO, tmp_path / "coffee.png")
    line = refused(
        capsys, "caption", "--model", model, "--attention-map", tmp_path / "map.png", PHOTO, tmp_path / "coffee.png"
    )
    assert "map-coffee.png: would hold the maps of both" in line


@pytest.mark.slow
def test_a_reader_who_has_seen_enough_sees_no_traceback(model, tmp_path):
    command = [sys.executable, "-m", "caption_utils", "caption", "--model", model, "--beam", "1", "--json", "-"]
    names = b"\n".join([PHOTO.encode()] * 20)  # with their attention more than a small pipe holds
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **streams, pipesize=4096) as started:
        started.stdin.write(names)
        started.stdin.close()
        assert json.loads(started.stdout.readline())["image"] == PHOTO
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141


@pytest.mark.slow
def test_closed_input_and_errors_are_as_empty_ones(model):
    command = f"{sys.executable} -m caption_utils caption --model {model} --beam 1 - gone {PHOTO} <&- 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{PHOTO}: ")


LOADED = """
import runpy, sys
try:
    runpy.run_module("caption_utils", run_name="__main__", alter_sys=True)
except SystemExit as end:
    heavy = {"matplotlib", "pandas", "nltk", "torchvision", "timm", "ipywidgets", "torch._dynamo"}
    print(end.code, *heavy & {*sys.modules}, file=sys.stderr)
"""


@pytest.mark.slow
def test_captions_into_a_closed_stream_and_without_what_draws_or_trains(model):
    command = ["bash", "-c", '"$@" >&-', "bash", sys.executable, "-c", LOADED, "caption", "--model", model, PHOTO]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "0\n")


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
def test_a_broken_data_set_is_one_line(data_folder, tmp_path, capsys, change, message):
    change(data_folder)
    line = refused(capsys, "train", "--data", data_folder, "--out", tmp_path / "out", *SMALL)
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--encoder", "vgg", "encoder 'vgg' is unknown; choose one of efficientnet_lite2,"),
        ("--attention", "self", "attention 'self' is unknown; choose one of bahdanau, luong"),
        ("--schedule", "linear", "schedule 'linear' is unknown"),
        ("--split", "mine", "split='mine' is unknown; use one of official, first6k, source, random"),
        ("--epochs", "0", "epochs=0 is out of range"),
        ("--dropout", "2", "dropout=2.0 is out of range"),
        ("--images-per-batch", "0", "images_per_batch=0 is out of range"),
        ("--seed", "-1", "seed=-1 is out of range"),
    ],
)
def test_a_wrong_setting_is_one_line(data_folder, tmp_path, capsys, option, value, message):
    line = refused(capsys, "train", "--data", data_folder, "--out", tmp_path / "out", option, value)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(data_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "a file, not a folder" in refused(capsys, "train", "--data", data_folder, "--out", tmp_path / "file", *SMALL)
    assert main(["train", "--data", str(data_folder), "--out", str(tmp_path / "file" / "below"), *SMALL]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("caption_utils: ")


def test_a_corrupt_photo_stops_training_with_its_name(data_folder, tmp_path, capsys):
    (data_folder / "Images" / "5.png").write_bytes(b"no picture")
    assert main(["train", "--data", str(data_folder), "--out", str(tmp_path / "out"), *SMALL]) == 2
    assert "5.png: not a picture that can be read" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_learns_from_the_score(model, data_folder, tmp_path, capsys):
    command = ["train", "--data", str(data_folder), "--out", str(tmp_path / "out"), "--self-critical", str(model)]
    assert main([*command, "--epochs", "1", "--samples", "2", "--no-mirror", "--images-per-batch", "6"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["epoch 0", "epoch 1", str(tmp_path / "out")]
    assert re.fullmatch(r".*: best validation CIDEr [\d.]+ after epoch [01]", told[-1])
    line = refused(capsys, *command, "--min-count", "1", "--attention", "luong")
    assert line.startswith("caption_utils: attention, min_count: no setting of self-critical training")


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\0\0\0\0\0\0\0[]      "])
@pytest.mark.parametrize("command", ["caption", "evaluate"])
def test_a_damaged_model_is_one_line(model, data_folder, capsys, name, content, command):
    (model / name).write_bytes(content)
    rest = [PHOTO] if command == "caption" else ["--data", data_folder]
    assert f"{model}/{name}" in refused(capsys, command, "--model", model, *rest)


def test_no_model_is_one_line(tmp_path, capsys):
    line = refused(capsys, "caption", "--model", tmp_path / "none", PHOTO)
    assert line.endswith("none/config.json: not found; point to a model folder that training wrote")


def test_a_model_of_other_weights_is_one_line(model, capsys):
    config = json.loads((model / "config.json").read_text())
    config["encoder"]["fingerprint"] = "0ther"
    (model / "config.json").write_text(json.dumps(config))
    assert "its weights differ" in refused(capsys, "caption", "--model", model, PHOTO)


def test_a_row_that_cannot_be_recorded_is_printed_all_the_same(model, data_folder, tmp_path, capsys):
    (tmp_path / "metrics.csv").write_text("other,columns\n")
    arguments = ["--model", str(model), "--data", str(data_folder), "--json", "--record", str(tmp_path / "metrics.csv")]
    assert main(["evaluate", *arguments]) == 2
    output = capsys.readouterr()
    assert json.loads(output.out)["images"] == 3
    assert "metrics.csv: its columns are not" in output.err.splitlines()[-1]


def test_an_unreadable_disk_is_one_line(model, capsys, monkeypatch):
    def fail(*args):
        raise OSError(5, "Input/output error", "somewhere")

    monkeypatch.setattr("caption_utils.captioner.load_model", fail)
    assert "Input/output error: 'somewhere'; check the path" in refused(capsys, "caption", "--model", model, PHOTO)


def test_an_interruption_is_one_line_and_its_own_status(model, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("caption_utils.captioner.load_model", interrupt)
    assert main(["caption", "--model", str(model), PHOTO]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("caption_utils: interrupted")


@pytest.mark.parametrize(
    "arguments", [[], ["train"], ["caption"], ["fly"], ["train", "--data", "d", "--out", "o", "--epochs", "many"]]
)
def test_a_wrong_command_line_is_status_two(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


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
    ):
        assert option in text
    assert not re.search("--(vocab-size|feature-dim|word-dim)", text)


def test_the_device_is_a_variable_that_all_parts_read(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CAPTION_DEVICE", "")  # to be restored
    assert main(["caption", "--device", "mps", str(tmp_path)]) == 2  # for lack of pictures
    assert os.environ["CAPTION_DEVICE"] == "mps"
    with pytest.raises(SystemExit):
        main(["caption", "--device", "tpu", "photo.jpg"])
    assert "invalid choice: 'tpu'" in capsys.readouterr().err
