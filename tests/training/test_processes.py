import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from caption_utils.training import processes as parallel
from caption_utils.training import run as experiment
from caption_utils.training.checkpoint import load_model
from caption_utils.training.processes import Processes, join_processes

# `python -m caption_utils train` with the fake encoder, features below the folder of the run
TRAIN = """
import os, sys
sys.stderr.write("process " + os.environ["RANK"] + "\\n")  # in one piece, unlike print
sys.path.insert(0, {tests!r})
import torch
from pathlib import Path
from conftest import FakeEncoder
from caption_utils.training import run as experiment
from caption_utils.encoders import store as features
from caption_utils.__main__ import main

experiment.load_encoder = lambda name, device: FakeEncoder()
features.writable_dir = lambda name: Path({folder!r}) / "cache"
sys.exit(main(["train", "--data", {data!r}, "--out", {folder!r} + "/two", "--min-count", "1", "--mirror", *{options}]))
"""
SETTINGS = {
    "embed_dim": 8,
    "hidden_dim": 8,
    "attention_dim": 8,
    "epochs": 6,
    "learning_rate": 0.01,
    "schedule": "one_cycle",
    "images_per_batch": 5,
    "dropout": 0.0,
    "label_smoothing": 0.1,
    "doubly_stochastic": 1.0,
}
# where there is no GPU, `--multi_gpu` starts processes on the CPU (`--cpu` would need MPI for more than one)
LAUNCH = [
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
]


def started(*command):
    """A finished child process that saw no GPU."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=hidden)


@pytest.fixture
def train_one(data_folder, tmp_path, monkeypatch, cache, fake_encoder):
    """Train in this process, into ``tmp_path / "one"``, and forget the features."""
    monkeypatch.setattr(experiment, "load_encoder", lambda name, device: fake_encoder)
    monkeypatch.setattr(experiment, "device", lambda: torch.device("cpu"))

    def train(settings):
        experiment.train_model(data_folder, tmp_path / "one", min_count=1, settings=settings | {"mirror": True})
        shutil.rmtree(cache)

    return train


@pytest.fixture
def train_two(data_folder, tmp_path):
    """Train in two processes, into ``tmp_path / "two"``, and return how they ended."""

    def train(settings):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        (tmp_path / "train.py").write_text(
            TRAIN.format(
                tests=str(Path(__file__).parents[1]), data=str(data_folder), folder=str(tmp_path), options=options
            )
        )
        two = started(*LAUNCH, str(tmp_path / "train.py"))
        assert two.returncode == 0, two.stderr
        assert "process 0\n" in two.stderr and "process 1\n" in two.stderr
        return two

    return train


def assert_same_curve(folder):
    curves = [pd.read_csv(folder / name / "log.csv").set_index("epoch") for name in ("one", "two")]
    for column in ("train_loss", "val_perplexity"):
        assert len(curves[0]) == len(curves[1])
        assert (curves[0][column] - curves[1][column]).abs().max() < 1e-4
        assert curves[0][column].iloc[0] - curves[0][column].iloc[-1] > 0.1


def test_two_processes_give_the_loss_curve_of_one(train_one, train_two, tmp_path):
    """Six photos in batches of five and one: the second process has fewer tokens, and once none at all."""
    train_one(SETTINGS)
    two = train_two(SETTINGS)
    assert_same_curve(tmp_path)
    assert [line.split(":")[0] for line in two.stdout.splitlines()] == [
        *(f"epoch {n}" for n in range(1, 7)),
        str(tmp_path / "two"),
    ]
    assert two.stderr.count("Split: official") == 1
    assert load_model(tmp_path / "two").training["best"]["epoch"] == 6
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in (tmp_path / "two").iterdir()
    )


def test_two_processes_go_on_together_and_may_divide_their_batches(train_one, train_two, tmp_path):
    settings = SETTINGS | {"schedule": "constant", "epochs": 4}
    train_one(settings)
    first = train_two(settings | {"accumulate": 2, "epochs": 2})
    second = train_two(settings | {"accumulate": 2})
    assert [run.stdout.count("loss") for run in (first, second)] == [2, 2]
    assert_same_curve(tmp_path)


NOTEBOOK = """
import sys
sys.path.insert(0, {tests!r})
import torch._dynamo  # an optimiser's first step would load it in each child
from accelerate import launchers
from pathlib import Path
from conftest import FakeEncoder, draw
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from caption_utils.training import run as experiment
from caption_utils.encoders import store as features

data, out = Path({data!r}), Path({folder!r}) / "out"
experiment.load_encoder = lambda name, device: FakeEncoder()
features.writable_dir = lambda name: out.parent / "cache"
torch.cuda.device_count = lambda: 2
launchers.check_cuda_p2p_ib_support = lambda: True
settings = {{"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 2, "images_per_batch": 5}}

(data / "Images" / "5.png").write_bytes(b"no picture")
try:
    experiment.train_on_all_gpus(data, out, settings=settings, min_count=1)
except ChildFailedError:
    assert not out.exists()
draw(data / "Images" / "5.png", "red", "blue")
history = experiment.train_on_all_gpus(data, out, settings=settings, min_count=1)
assert list(history["epoch"]) == [1, 2] and (out / "curve.png").exists()

torch.cuda.is_initialized = lambda: True
try:
    experiment.train_on_all_gpus(data, out, settings=settings)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_notebook_starts_a_process_for_each_gpu(data_folder, tmp_path):
    """First with a photo that the first process cannot read while the second waits for it: both must end."""
    script = NOTEBOOK.format(tests=str(Path(__file__).parents[1]), data=str(data_folder), folder=str(tmp_path))
    done = started("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Launching training on 2") == 2
    assert done.stdout.count("epoch 2: loss") == 1
    assert "5.png: not a picture that can be read" in done.stderr
    assert done.stdout.endswith("restart the kernel and train before other cells\n")


def test_a_process_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_processes()
    assert (alone.index, alone.count, alone.device, alone.is_first) == (0, 1, None, True)
    tensor = torch.ones(2)
    assert alone.add_up(tensor) is tensor and alone.from_first(tensor) is tensor
    with alone.first_goes_ahead():
        pass


def test_gradients_are_added_up_where_a_process_has_none(monkeypatch):
    """The other process is played by doubling what goes in and adding one."""
    monkeypatch.setattr(parallel.distributed, "all_reduce", lambda tensor: tensor.mul_(2).add_(1))
    a, b = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))
    a.grad = torch.arange(6.0).view(2, 3)
    Processes(1, 2).add_up_gradients([a, b])
    assert a.grad.tolist() == [[1, 3, 5], [7, 9, 11]]
    assert b.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_goes_ahead(monkeypatch, index):
    order = []
    monkeypatch.setattr(parallel.distributed, "barrier", lambda: order.append("barrier"))
    with Processes(index, 2).first_goes_ahead():
        order.append("block")
    assert order == (["block", "barrier"] if index == 0 else ["barrier", "block"])


UNTOUCHED = """
import sys, torch
touched = []
torch.cuda._lazy_init = lambda: touched.append("CUDA")
import caption_utils.training.run, caption_utils.training.trainer, caption_utils.training.processes
from caption_utils.data.datasets import load_dataset
load_dataset(sys.argv[1]).split("train")
assert not touched and "accelerate" not in sys.modules
try:
    torch.ones(1, device="cuda")
except (RuntimeError, AssertionError):
    pass
assert touched == ["CUDA"]  # the trap works
"""


def test_imports_and_reading_data_touch_no_gpu(data_folder):
    subprocess.run([sys.executable, "-c", UNTOUCHED, str(data_folder)], check=True)
