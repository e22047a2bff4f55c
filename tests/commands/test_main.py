import json
import os
import subprocess
import sys

import pytest
import skimage

from caption_utils.__main__ import main

PHOTO = f"{skimage.data_dir}/coffee.png"


@pytest.mark.parametrize(
    "options", [[""], [PHOTO, ""], [PHOTO, "--csv", ""], [PHOTO, "--csv="], [PHOTO, "--model", ""]]
)
def test_an_empty_argument_is_not_taken_for_none(refused, options):
    line = refused("caption", *options)
    assert line == "caption_utils: one of the arguments is empty; check the variable or file it came from"


@pytest.mark.parametrize("options", [["--csv", "-"], ["--csv=-"], ["--model", "-"]])
def test_a_dash_is_no_file(refused, options):
    line = refused("caption", PHOTO, *options)
    assert line == "caption_utils: - stands for standard input, and only among the photos; a file of that name is ./-"


@pytest.mark.slow
def test_a_reader_who_has_seen_enough_sees_no_traceback(model, tmp_path):
    command = [sys.executable, "-m", "caption_utils", "caption", "--model", model, "--beam", "1", "--json", "-"]
    names = b"\n".join([PHOTO.encode()] * 20)  # with attention maps, more than a small pipe holds
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


INTERRUPTED = """
import sys
from caption_utils.__main__ import _end, main
from caption_utils.commands import train
from caption_utils.training.trainer import Trainer

def run(**options):
    trainer = Trainer.__new__(Trainer)
    trainer.processes = type("Alone", (), {"is_main_process": True})
    trainer.say("epoch 1: told")
    print("told at the end", end="")
    raise KeyboardInterrupt

train.run = run
_end(main(["train", "--data", "d", "--out", "o"]))
"""


@pytest.mark.slow
def test_what_was_said_before_an_interruption_is_in_the_log(tmp_path):
    unbuffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=unbuffered)
    assert (done.returncode, done.stdout) == (130, "epoch 1: told\ntold at the end")


LOADED = """
import os, runpy, sys
os._exit = sys.exit
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


@pytest.mark.parametrize("name", ["config.json", "vocab.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\0\0\0\0\0\0\0[]      "])
@pytest.mark.parametrize("command", ["caption", "evaluate"])
def test_a_damaged_model_is_one_line(model, data_folder, refused, name, content, command):
    (model / name).write_bytes(content)
    rest = [PHOTO] if command == "caption" else ["--data", data_folder]
    assert f"{model}/{name}" in refused(command, "--model", model, *rest)


def test_an_unreadable_disk_is_one_line(model, refused, monkeypatch):
    def fail(*args):
        raise OSError(5, "Input/output error", "somewhere")

    monkeypatch.setattr("caption_utils.captioner.load_model", fail)
    assert "Input/output error: 'somewhere'; check the path" in refused("caption", "--model", model, PHOTO)


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


def test_the_device_is_a_variable_that_all_parts_read(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CAPTION_DEVICE", "")  # to be restored
    assert main(["caption", "--device", "mps", str(tmp_path)]) == 2  # there are no pictures
    assert os.environ["CAPTION_DEVICE"] == "mps"
    with pytest.raises(SystemExit):
        main(["caption", "--device", "tpu", "photo.jpg"])
    assert "invalid choice: 'tpu'" in capsys.readouterr().err
