import errno
import os
import random
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import tqdm.auto

from caption_utils import runtime
from caption_utils.errors import InputError
from caption_utils.model.decoder import BahdanauDecoder


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A repository, a home and no Kaggle, all in a temporary folder."""
    (tmp_path / "repo").mkdir()
    monkeypatch.setattr(runtime, "repository", lambda: tmp_path / "repo")
    monkeypatch.setattr(runtime, "KAGGLE_WORKING", tmp_path / "kaggle")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "repo"


@pytest.fixture
def read_only(repo, monkeypatch):
    """Writing into the repository fails as on a read-only mount."""
    real = tempfile.TemporaryFile

    def refuse(*args, dir, **options):
        if repo in dir.parents:
            raise OSError(errno.EROFS, "Read-only file system", str(dir))
        return real(*args, dir=dir, **options)

    monkeypatch.setattr(runtime.tempfile, "TemporaryFile", refuse)


@pytest.mark.parametrize(
    ("variable", "expected"), [("KAGGLE_KERNEL_RUN_TYPE", "kaggle"), ("COLAB_RELEASE_TAG", "colab"), (None, "local")]
)
def test_the_environment_tells_the_host(monkeypatch, variable, expected):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "COLAB_GPU"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "x")
    assert runtime.host() == expected


@pytest.fixture
def tried(monkeypatch):
    """The obstacle of each GPU: ``tried["mps"] = ""`` is an Apple GPU that works."""
    reasons = {"cuda": "there is none", "mps": "there is none"}
    monkeypatch.setattr(runtime, "obstacle", reasons.get)
    monkeypatch.delenv("CAPTION_DEVICE", raising=False)
    return reasons


def test_device_is_the_first_that_works(tried):
    assert runtime.device() == torch.device("cpu")
    tried["mps"] = ""
    assert runtime.device() == torch.device("mps")
    tried["cuda"] = ""
    assert runtime.device() == torch.device("cuda")


def test_device_is_the_requested_one(tried, monkeypatch):
    tried["cuda"] = ""
    assert runtime.device() == torch.device("cuda")
    monkeypatch.setenv("CAPTION_DEVICE", "cpu")
    assert runtime.device() == torch.device("cpu")
    for name in ("mps", "gpu"):
        monkeypatch.setenv("CAPTION_DEVICE", name)
        with pytest.raises(InputError, match=f"CAPTION_DEVICE={name}: .*choose"):
            runtime.device()


def test_a_gpu_that_runs_no_kernel_is_an_obstacle_and_reported(monkeypatch, capsys):
    def too_old(*args, **options):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", too_old)
    monkeypatch.setattr(runtime, "gpu_count", lambda: 1)
    assert "no kernel image" in runtime.obstacle.__wrapped__("cuda")
    assert capsys.readouterr().err.startswith("The CUDA GPU is not used: CUDA error: no kernel image")
    monkeypatch.setattr(runtime, "gpu_count", lambda: 0)
    assert runtime.obstacle.__wrapped__("cuda") and not capsys.readouterr().err


def test_a_fork_asks_for_the_names_of_several_gpus(monkeypatch):
    """This process must not initialise CUDA, or it could not be forked for each GPU."""
    here, ones = f"GPU of {os.getpid()}", torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU of {os.getpid()}")
    monkeypatch.setenv("CAPTION_DEVICE", "")
    names = runtime.gpu_names.__wrapped__()
    assert len(names) == 2 and here not in names
    with monkeypatch.context() as windows:
        windows.delattr(os, "fork")
        assert runtime.gpu_names.__wrapped__() == (here, here)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert runtime.gpu_names.__wrapped__() == (here, here)


def test_unused_gpus_do_not_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CAPTION_DEVICE", "cpu")
    assert runtime.gpu_count() == 0
    monkeypatch.delenv("CAPTION_DEVICE")
    assert runtime.gpu_count() == 2


def test_an_apple_gpu_that_lacks_an_operation_is_reported_and_not_used(monkeypatch, capsys):
    def lacking(device):
        raise NotImplementedError(f"no aten::sort on {device}\nreport it")

    runtime.try_training(torch.device("cpu"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(runtime, "try_training", lacking)
    assert runtime.obstacle.__wrapped__("mps") == "no aten::sort on mps"
    assert capsys.readouterr().err == "The Apple GPU is not used: no aten::sort on mps\n"


@pytest.mark.parametrize(
    ("place", "operation"),
    [
        (torch.nn.functional, "adaptive_avg_pool2d"),
        *((torch.Tensor, name) for name in ("half", "sort", "cumsum", "gather", "scatter")),
    ],
)
def test_what_encoders_entmax_and_search_need_is_tried(monkeypatch, place, operation):
    def lacking(*args, **options):
        raise NotImplementedError(operation)

    monkeypatch.setattr(place, operation, lacking)
    with pytest.raises(NotImplementedError, match=operation):
        runtime.try_training(torch.device("cpu"))


def test_repository_is_above_the_package(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "caption_utils" / "runtime.py"))
    assert runtime.repository() == tmp_path


def test_an_installed_package_has_no_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "caption_utils" / "runtime.py"))
    assert runtime.repository() is None


def test_writable_dir_is_in_the_repository(repo):
    assert runtime.writable_dir("cache") == repo / "data" / "cache"
    assert not list((repo / "data" / "cache").iterdir())


def test_writable_dir_avoids_a_read_only_repository(read_only, tmp_path):
    assert runtime.writable_dir("cache") == tmp_path / "home" / ".cache" / "caption_utils" / "cache"
    assert (tmp_path / "home" / ".cache" / "caption_utils" / "cache").is_dir()


def test_writable_dir_on_kaggle(read_only, tmp_path):
    (tmp_path / "kaggle").mkdir()
    assert runtime.writable_dir("cache") == tmp_path / "kaggle" / "cache"


def test_writable_dir_if_the_folder_cannot_be_created(repo, tmp_path):
    (repo / "data").write_text("a file in the way")
    assert runtime.writable_dir("cache") == tmp_path / "home" / ".cache" / "caption_utils" / "cache"


def test_no_writable_dir_is_an_input_error(repo, tmp_path):
    (repo / "data").write_text("")
    (tmp_path / "home").write_text("")
    with pytest.raises(InputError, match="no writable folder for .cache. .*; set HOME to one"):
        runtime.writable_dir("cache")


def test_writable_dir_of_a_user_whom_the_system_does_not_know(repo, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert runtime.writable_dir("cache") == repo / "data" / "cache"
    monkeypatch.setattr(runtime, "repository", lambda: None)
    with pytest.raises(InputError, match="no writable folder for .cache. .tried none.; set HOME to one"):
        runtime.writable_dir("cache")


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("CAPTION_INPUT", "")
    assert runpy.run_path(runtime.__file__)["KAGGLE_INPUT"] == Path("/kaggle/input")


def test_seeding_repeats_all_generators():
    draws = []
    for _ in range(2):
        runtime.seed_everything(3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    ("demo", "kind", "expected"), [(True, "cuda", "fast"), (False, "cuda", "full"), (False, "cpu", "fast")]
)
def test_profile_depends_on_data_and_device(monkeypatch, demo, kind, expected):
    monkeypatch.delenv("CAPTION_PROFILE", raising=False)
    monkeypatch.setattr(runtime, "device", lambda: torch.device(kind))
    assert runtime.profile(demo) == expected


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("0", False), ("", False)])
def test_graphs_are_asked_for_by_a_variable(monkeypatch, value, wanted):
    monkeypatch.setenv("CAPTION_GRAPHS", value)
    assert runtime.cuda_graphs() == wanted


def test_a_variable_that_says_neither_is_told(monkeypatch):
    monkeypatch.setenv("CAPTION_GRAPHS", "yes")
    with pytest.raises(InputError, match="^CAPTION_GRAPHS=yes: set it to 0 or 1, or unset it$"):
        runtime.cuda_graphs()


def test_profile_can_be_overridden(monkeypatch):
    monkeypatch.setenv("CAPTION_PROFILE", "full")
    assert runtime.profile(dataset_is_demo=True) == "full"


def test_unknown_profile(monkeypatch):
    monkeypatch.setenv("CAPTION_PROFILE", "quick")
    with pytest.raises(InputError, match="^CAPTION_PROFILE=quick: set it to fast or full or source, or unset it$"):
        runtime.profile(dataset_is_demo=True)


def test_describe_host_names_versions_and_device():
    rows = dict(line.split(maxsplit=1) for line in runtime.describe_host().splitlines())
    assert rows["torch"] == torch.__version__
    assert rows["device"] == runtime.device().type


def test_describe_host_counts_the_gpus(tried, monkeypatch):
    tried["cuda"] = ""
    monkeypatch.setattr(runtime, "gpu_names", lambda: ("Tesla T4", "Tesla T4"))
    assert "\ngpus       2 (Tesla T4, Tesla T4)\n" in runtime.describe_host()
    tried |= {"cuda": "there is none", "mps": ""}
    assert "\ngpus       1 (Apple)\n" in runtime.describe_host()


def test_a_progress_bar_is_the_one_that_suits_the_place(monkeypatch):
    assert list(runtime.progress_bar(range(3), disable=True)) == [0, 1, 2]
    assert type(runtime.progress_bar(disable=True)) is tqdm.auto.tqdm
    monkeypatch.setattr(runtime, "parent_process", lambda: "a notebook")
    assert type(runtime.progress_bar(disable=True)) is tqdm.tqdm


def test_source_is_shown_unchanged():
    shown = runtime.show_source(BahdanauDecoder.recur, runtime.host).data
    assert shown.startswith("```python\ndef recur(self, ") and shown.endswith('    return "local"\n```')
    assert "\n    context, alpha = self.attend(" in shown and "\n\n\ndef host()" in shown
