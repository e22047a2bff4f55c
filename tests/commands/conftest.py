"""Fixtures of the commands' tests: one encoder, a model folder, wrong input."""

import shutil

import pytest
import torch
from conftest import trained_with

from caption_utils.__main__ import main


@pytest.fixture(autouse=True)
def one_encoder(monkeypatch, cache, encoder, no_java):
    """The encoder is loaded once for all tests, on the CPU, and one photo is enough for the deletion test."""
    from caption_utils import captioner
    from caption_utils.encoders.encoder import encoder_spec
    from caption_utils.evaluation import attention, report

    load = lambda name, device: encoder_spec(name) and encoder  # noqa: E731
    trained_with(monkeypatch, load, curves=True)
    monkeypatch.setattr(captioner, "load_encoder", load)
    monkeypatch.setattr(report, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr("caption_utils.runtime.device", lambda: torch.device("cpu"))
    monkeypatch.setattr(attention, "PHOTOS", 1)


@pytest.fixture
def model(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def refused(capsys):
    """Runs a command with wrong input; returns the one line that it gives."""

    def run(*arguments):
        assert main(list(map(str, arguments))) == 2
        output = capsys.readouterr()
        assert output.out == ""
        (line,) = output.err.splitlines()
        assert line.startswith("caption_utils: ")
        return line

    return run
