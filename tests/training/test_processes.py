"""Training in two processes is training in one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children, get_context
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import FakeEncoder, trained_with, write_dataset
from servers import ROOT, free_port
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException, ProcessRaisedException

from caption_utils.encoders import store
from caption_utils.errors import InputError
from caption_utils.training import processes, refinement, run
from caption_utils.training.checkpoint import load_model
from caption_utils.training.processes import all_reduce, broadcast, call_in_forks, join_processes

# Two forks stand for what `accelerate launch` starts. They run `python -m caption_utils train` with the fake encoder
# and features below `folder`, then say something to each other. Of 6 photos to train on, 6 mirrored and 3 to validate
# on each extracts its share.
PAIR = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
import accelerate, torch._dynamo  # each child would load them
from pathlib import Path
from conftest import FakeEncoder, draw
from matplotlib.figure import Figure
from caption_utils.__main__ import main
from caption_utils.encoders import store
from caption_utils.errors import InputError
from caption_utils.training import refinement, run
from caption_utils.training.processes import all_reduce, broadcast

folder, encoder = Path({folder!r}), FakeEncoder()
run.load_encoder = refinement.load_encoder = lambda name, device: encoder
store.writable_dir = lambda name: folder / "cache"
Figure.savefig = lambda figure, path, format: path.touch()
torch.set_num_threads(1)
for rank in range(2):
    if not os.fork():
        os.environ |= {{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}}
        os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "{port}"}}
        for out, options in {runs!r}:
            same = ["train", "--data", {data!r}, "--out", str(folder / out), "--mirror"]
            assert main([*same, *options]) == 0
        assert encoder.seen == (3 + 3 + 2, 3 + 3 + 1)[rank]
        sums = all_reduce([torch.arange(3.0) + rank, torch.ones(3)])
        assert [sum.tolist() for sum in sums] == [[1, 3, 5], [2, 2, 2]]
        assert broadcast(torch.tensor(7.0 + rank)).item() == 7
        sys.exit()
assert [os.wait()[1] for rank in range(2)] == [0, 0]
for stream in (sys.stdout, sys.stderr):
    print({mark!r}, file=stream, flush=True)
"""
# What a notebook starts where there are two GPUs. First with a photo that the first process cannot read while the
# second waits for it: both must end.
NOTEBOOK = """
torch.set_num_threads(2)
torch.ones(1 << 20).exp()  # the threads that this starts are not there in a fork
data, out = folder / "own", folder / "out"
torch.cuda.device_count, run.device = lambda: 2, lambda: torch.device("cuda")
settings = {{"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 2, "images_per_batch": 5}}

(data / "Images" / "5.png").write_bytes(b"no picture")
try:
    run.train_on_all_gpus(data, out, settings=settings, min_count=1)
except InputError as error:
    print(error)
    assert not out.exists()
draw(data / "Images" / "5.png", "red", "blue")
history = run.train_on_all_gpus(data, out, settings=settings, min_count=1)
assert list(history["epoch"]) == [1, 2] and (out / "curve.png").exists()

torch.cuda.is_initialized = lambda: True
run.train_model = lambda data, out, settings: print("alone")
run.train_on_all_gpus(data, out, settings=settings)
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
CONSTANT = SETTINGS | {"schedule": "constant", "epochs": 4}
PARTS = CONSTANT | {"accumulate": 2}
REFINED = {"epochs": 2, "learning_rate": 0.01, "images_per_batch": 5, "validations": 2, "patience": 2}
DOCUMENT = ROOT / "docs" / "training.md"
MARK = "what the notebook's processes tell"


def options_of(settings):
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of one process and of two: ``one`` and ``two`` by ``SETTINGS``, ``whole`` and ``parts`` by ``CONSTANT``."""
    folder = tmp_path_factory.mktemp("processes")
    data = write_dataset(folder / "data", 12)
    with pytest.MonkeyPatch.context() as patch:
        trained_with(patch, lambda name, device: FakeEncoder())
        patch.setattr(store, "writable_dir", lambda name: folder / "alone")
        for out, settings in (("one", SETTINGS), ("whole", CONSTANT)):
            run.train_model(data, folder / out, min_count=1, settings=settings | {"mirror": True})
        refinement.refine_model(data, folder / "one", folder / "refined", REFINED)
    return folder


@pytest.fixture(scope="module")
def told(folder):
    """What was printed, and what on the error stream, by a pair of processes and by those of a notebook.

    The pair trained ``two``, ``parts`` in two goes and each batch in two, and ``scored``. All saw no GPU, and are forks
    of one process, since importing PyTorch takes longer than all that they do.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    runs = [("two", SETTINGS), ("parts", PARTS | {"epochs": 2}), ("parts", PARTS)]
    runs = [(out, settings | {"min_count": 1}) for out, settings in runs]
    runs.append(("scored", REFINED | {"self_critical": folder / "one"}))
    shutil.copytree(folder / "data", folder / "own")
    script = (PAIR + NOTEBOOK).format(
        tests=str(Path(__file__).parents[1]),
        data=str(folder / "data"),
        folder=str(folder),
        runs=[(out, options_of(settings)) for out, settings in runs],
        port=free_port(),
        mark=MARK,
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=hidden)
    assert done.returncode == 0, done.stderr
    return list(zip(done.stdout.split(f"{MARK}\n"), done.stderr.split(f"{MARK}\n"), strict=True))


def assert_same_curve(*folders):
    curves = [pd.read_csv(folder / "log.csv").set_index("epoch") for folder in folders]
    for column in ("train_loss", "val_perplexity"):
        assert len(curves[0]) == len(curves[1])
        assert (curves[0][column] - curves[1][column]).abs().max() < 1e-4
        assert curves[0][column].iloc[0] - curves[0][column].iloc[-1] > 0.1


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(folder, told):
    """Six photos in batches of five and one: the second process has fewer tokens, and once none at all."""
    assert_same_curve(folder / "one", folder / "two")
    assert load_model(folder / "two").training["best"]["epoch"] == 6
    one, two = (sorted(path.name for path in (folder / name).iterdir()) for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_two_processes_go_on_together_and_may_divide_their_batches(folder, told):
    assert_same_curve(folder / "whole", folder / "parts")


@pytest.mark.slow
def test_one_of_two_processes_speaks(folder, told):
    epochs = [*range(1, 7), "two", *range(1, 3), "parts", *range(3, 5), "parts", 0, 0.5, 1, 1.5, 2, "scored"]
    expected = [str(folder / n) if isinstance(n, str) else f"epoch {n}" for n in epochs]
    printed, errors = told[0]
    assert [line.split(":")[0] for line in printed.splitlines()] == expected
    assert errors.count("Split: official") == 4


@pytest.mark.slow
def test_two_processes_learn_from_the_score_as_one_does(folder, told):
    one, two = (pd.read_csv(folder / name / "log.csv") for name in ("refined", "scored"))
    for column in ("epoch", "train_loss", "val_cider"):
        assert list(two[column])[1:] == pytest.approx(list(one[column])[1:], abs=1e-4)


@pytest.mark.slow
def test_a_notebook_starts_a_process_for_each_gpu(told):
    printed, _ = told[1]
    assert printed.count("epoch 2: loss") == 1
    assert printed.count("5.png: not a picture that can be read") == 1
    assert printed.count("Training on 2 GPUs, with a process for each") == 2
    assert printed.endswith(
        "Training on 1 of 2 GPUs: this process has used one; restart the kernel to train on all\nalone\n"
    )


@pytest.mark.slow
def test_accelerate_knows_the_command_of_the_documents():
    from accelerate.commands.launch import launch_command_parser  # takes seconds

    (line,) = re.findall(r"`accelerate launch ([^`]*) -m`", DOCUMENT.read_text(encoding="utf-8"))
    command = launch_command_parser().parse_args([*line.split(), "-m", "caption_utils", "train"])
    assert (command.multi_gpu, command.num_processes, command.module) == (True, 2, True)
    assert (command.training_script, command.training_script_args) == ("caption_utils", ["train"])


def test_a_process_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = join_processes()
    assert (alone.process_index, alone.num_processes, alone.device, alone.is_main_process) == (0, 1, None, True)
    tensor = torch.ones(2)
    assert all_reduce([tensor])[0] is tensor and broadcast(tensor) is tensor
    alone.wait_for_everyone()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_forks_know_their_place_and_print_where_this_process_does(capfd):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
    call_in_forks(2, lambda first, *rest: print(first, *map(os.environ.get, names), *rest), "place", "of 2")
    printed, _ = capfd.readouterr()
    assert sorted(printed.splitlines()) == ["place 0 0 2 2 127.0.0.1 of 2", "place 1 1 2 2 127.0.0.1 of 2"]
    assert "RANK" not in os.environ


def end_of(first, late):
    """What ``call_in_forks`` raises where the first of two ends with ``first()``; the second would write ``late``."""
    with pytest.raises((InputError, ProcessException)) as raised:
        call_in_forks(2, lambda: first() if os.environ["RANK"] == "0" else time.sleep(60) or late.touch())
    assert not late.exists()
    return raised.value


@needs_fork
def test_one_fork_that_fails_ends_all(tmp_path):
    late = tmp_path / "late"

    def fail(error):
        raise error

    told = end_of(lambda: fail(InputError("too\nlong")), late)
    assert (type(told), str(told)) == (InputError, "too long")
    told = end_of(lambda: fail(KeyError("lost")), late)
    assert type(told) is ProcessRaisedException and str(told).endswith("KeyError: 'lost'\n")
    told = end_of(lambda: os.kill(os.getpid(), signal.SIGKILL), late)
    assert type(told) is ProcessExitedException and str(told) == "process 0 terminated with signal SIGKILL"


@needs_fork
def test_an_interruption_while_forks_start_leaves_none(monkeypatch):
    start_processes = processes.start_processes

    def interrupted(*arguments, **named):
        forks = start_processes(*arguments, **named)
        os.kill(os.getpid(), signal.SIGINT)
        return forks

    monkeypatch.setattr(processes, "start_processes", interrupted)
    monkeypatch.setattr(processes, "GRACE", 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            call_in_forks(2, time.sleep, 60)
        assert not active_children()
    finally:
        for fork in active_children():
            fork.kill()


@needs_fork
def test_forks_that_started_end_if_others_cannot(monkeypatch):
    start_processes = processes.start_processes

    def refuse(function, arguments, count, **named):
        start_processes(function, arguments, 1, **named)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(processes, "start_processes", refuse)
    monkeypatch.setattr(processes, "GRACE", 0.1)
    with pytest.raises(BlockingIOError):
        call_in_forks(2, time.sleep, 60)
    assert not active_children()


@needs_fork
def test_a_child_that_another_thread_starts_meanwhile_is_left_alone(monkeypatch):
    start_processes, child = processes.start_processes, get_context("fork").Process(target=time.sleep, args=(60,))

    def start_both(*arguments, **named):
        child.start()
        return start_processes(*arguments, **named)

    monkeypatch.setattr(processes, "start_processes", start_both)
    monkeypatch.setattr(processes, "GRACE", 0.1)
    try:
        call_in_forks(2, int)
        assert child.is_alive()
    finally:
        child.kill()


@needs_fork
def test_another_thread_may_call_forks(capfd):
    other = threading.Thread(target=call_in_forks, args=(2, print, "begun"))
    other.start()
    other.join()
    assert capfd.readouterr().out == "begun\nbegun\n"


# Of two that are interrupted, one does not hear of it, as one that waits for the other on its GPU.
INTERRUPTED = """
import os, signal, time
from multiprocessing import active_children
from caption_utils.training import processes

def train():
    if os.environ["RANK"] == "1":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.write(1, b"begun\\n")
        time.sleep(30)
    except KeyboardInterrupt:
        print("interrupted")
        raise

def start(*arguments, begin=processes.start_processes, **named):
    forks = begin(*arguments, **named)
    os.write(1, b"begun\\n")  # at once and whole, whatever others write
    return forks

processes.GRACE, processes.start_processes = 1, start
try:
    processes.call_in_forks(2, train)
except KeyboardInterrupt:
    print("ended", active_children())
"""


@pytest.mark.slow
@needs_fork
def test_an_interruption_reaches_all_forks_and_none_outlives_it():
    start = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], **start) as script:
        assert [script.stdout.readline() for _ in range(3)] == ["begun\n"] * 3
        os.killpg(script.pid, signal.SIGINT)
        assert script.stdout.read() == "interrupted\nended []\n"
