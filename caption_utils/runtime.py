"""Where the code runs: host, device, writable folders, seeds, and a notebook's profile and display."""

import inspect
import os
import platform
import random
import sys
import tempfile
import textwrap
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caption_utils.errors import InputError

if TYPE_CHECKING:
    import torch
    from IPython.display import Markdown

KAGGLE_INPUT = Path(os.environ.get("CAPTION_INPUT") or "/kaggle/input")  # attached data sets and notebook outputs
KAGGLE_WORKING = Path("/kaggle/working")
PROFILES = ("fast", "full", "source")
DEVICES = ("cpu", "cuda", "mps")


def host() -> str:
    """``"kaggle"``, ``"colab"`` or ``"local"``."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    if "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ:
        return "colab"
    return "local"


def device() -> "torch.device":
    """The device that ``CAPTION_DEVICE`` names; by default a CUDA GPU that runs a kernel, else an Apple GPU that passes
    a short trial, else the CPU.

    Raises ``InputError`` if the variable names no device, or one that cannot be used here.
    """
    import torch  # slow to import, and not needed to read captions

    wanted = os.environ.get("CAPTION_DEVICE", "")
    if wanted not in ("", *DEVICES):
        raise InputError(f"CAPTION_DEVICE={wanted}: choose one of {', '.join(DEVICES)}, or unset it")
    for name in [wanted] if wanted else ["cuda", "mps", "cpu"]:
        if name == "cpu" or not obstacle(name):
            return torch.device(name)
    raise InputError(f"CAPTION_DEVICE={wanted}: cannot be used here ({obstacle(wanted)}); choose cpu")


def cuda_graphs() -> bool:
    """Whether training on a CUDA GPU should use graphs: ``CAPTION_GRAPHS`` is 1. ``InputError`` unless it may be."""
    wanted = os.environ.get("CAPTION_GRAPHS", "")
    if wanted not in ("", "0", "1"):
        raise InputError(f"CAPTION_GRAPHS={wanted}: set it to 0 or 1, or unset it")
    return wanted == "1"


@cache
def obstacle(name: str) -> str:
    """Why ``cuda`` or ``mps`` cannot be used here; empty if it can.

    A GPU that is too old for the installed PyTorch fails at its first kernel, so one is tried. An Apple GPU may lack
    operations, so each kind is tried. One that fails is reported.
    """
    import torch

    try:
        if name == "cuda":
            gpu_names()
        elif not torch.backends.mps.is_available():
            return "there is no Apple GPU"
        else:
            try_training(torch.device(name))
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: built without CUDA
        reason = str(error).split("\n")[0]
        if name == "mps" or gpu_count():
            print(f"The {'Apple' if name == 'mps' else 'CUDA'} GPU is not used: {reason}", file=sys.stderr)
        return reason
    return ""


def gpu_count() -> int:
    """How many CUDA GPUs training may use. Does not initialise CUDA."""
    import torch

    return torch.cuda.device_count() if os.environ.get("CAPTION_DEVICE", "") in ("", "cuda") else 0


@cache
def gpu_names() -> tuple[str, ...]:
    """Names of the CUDA GPUs. Raises ``RuntimeError`` or ``AssertionError`` if none runs a kernel.

    If there are several, a fork finds out: a process that has initialised CUDA cannot fork one for each GPU. On
    Windows, which has no forks, this one does.
    """
    import torch

    if gpu_count() < 2 or torch.cuda.is_initialized() or not hasattr(os, "fork"):
        return _try_cuda()
    with ProcessPoolExecutor(1, get_context("fork")) as fork:
        return fork.submit(_try_cuda).result()


def _try_cuda() -> tuple[str, ...]:
    import torch

    torch.ones(1, device="cuda").add_(1).item()
    return tuple(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))


def try_training(place: "torch.device") -> None:
    """A tiny step of training and search with the kinds of operation that encoders, decoders and search use."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

    with torch.device(place):
        layers = nn.ModuleList([nn.Conv2d(3, 8, 3, 2, 1), nn.LSTM(8, 8), nn.LSTMCell(8, 8), nn.Linear(8, 8)])
        convolution, lstm, cell, linear = layers.to(memory_format=torch.channels_last)
        pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        pooled = nn.functional.adaptive_avg_pool2d(torch.relu(convolution(pixels / 255)), 2)
        regions = pooled.flatten(2).mT.half().float()  # (2, 4, 8)
        packed = pack_sequence([torch.ones(2, 8), torch.ones(1, 8)])
        hidden, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
        scores = torch.tanh(hidden @ regions.mT)
        sums = scores.sort(dim=-1, descending=True).values.cumsum(dim=-1)
        alpha = (scores - sums.gather(-1, scores.argmax(dim=-1, keepdim=True))).softmax(dim=-1)
        step, _ = cell((alpha @ regions).flatten(0, 1), None)
        logits = linear(nn.functional.dropout(step)).index_select(0, torch.tensor([0, 1, 0]))
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]), label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        torch.optim.AdamW(layers.parameters(), fused=True).step()
        allowed = logits.detach().scatter(1, torch.zeros(3, 1, dtype=torch.long), -torch.inf)
        best, words = allowed.log_softmax(dim=-1).topk(2)
        torch.zeros(2, 2).index_add(0, torch.tensor([0, 1, 0]), best).masked_fill(words[:2] > 0, 0).cpu()


def sent(value: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """``value`` on the device. Copies to a GPU are asynchronous, from pinned memory."""
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def repository() -> Path | None:
    """The folder with ``pyproject.toml`` and ``caption_utils``; ``None`` if only the package is installed."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").is_file() else None


def writable_dir(name: str) -> Path:
    """A folder for caches and downloads, created if need be: the first that can be written of the repository's
    ``data/<name>``, ``/kaggle/working/<name>`` and ``~/.cache/caption_utils/<name>``. ``InputError`` if none can.
    """
    bases = [KAGGLE_WORKING] if KAGGLE_WORKING.is_dir() else []
    with suppress(RuntimeError):  # no HOME, and a user whom the system does not know
        bases.append(Path.home() / ".cache" / "caption_utils")
    if root := repository():
        bases.insert(0, root / "data")
    for folder in (base / name for base in bases):
        if _can_write(folder):
            return folder
    tried = ", ".join(map(str, bases)) or "none"
    raise InputError(f"no writable folder for {name!r} (tried {tried}); set HOME to one")


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def sleep_while_waiting() -> None:
    """Let PyTorch's CPU threads sleep after a short wait for each other, unless the user has set how they wait.

    By default they spin for milliseconds, which makes training on a busy machine many times slower; without any
    spinning, it would be a tenth slower on an idle one. For entry points, before PyTorch is imported: OpenMP reads the
    setting once, when it is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # a few microseconds


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def profile(dataset_is_demo: bool) -> str:
    """``"full"`` on a CUDA GPU with a real data set, else ``"fast"``; ``CAPTION_PROFILE`` overrides both.

    Raises ``InputError`` if ``CAPTION_PROFILE`` is not one of ``PROFILES``.
    """
    chosen = os.environ.get("CAPTION_PROFILE", "")
    if chosen and chosen not in PROFILES:
        raise InputError(f"CAPTION_PROFILE={chosen}: set it to {' or '.join(PROFILES)}, or unset it")
    return chosen or ("full" if not dataset_is_demo and device().type == "cuda" else "fast")


def describe_host() -> str:
    """Versions and device as an aligned table, one ``name  value`` per line."""
    import torch

    chosen = device()
    gpus = gpu_names() if chosen.type == "cuda" else ("Apple",) if chosen.type == "mps" else ()
    rows = {
        "host": host(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": chosen.type,
        "gpus": f"{len(gpus)} ({', '.join(gpus)})" if gpus else "none",
        "cpu cores": str(os.cpu_count()),
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())


def progress_bar(*items: Any, **options: Any) -> Any:
    """``tqdm``: in a notebook a widget, elsewhere text, also in a notebook's forks, whose widgets it does not show."""
    if parent_process() is None:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm

        options["mininterval"] = 1  # second; a notebook stores all states of a text
    return tqdm(*items, **options)


def show_source(*parts: Any) -> "Markdown":
    """The package's source of classes, functions and methods, as the last line of a notebook's cell."""
    from IPython.display import Markdown  # installed wherever notebooks run

    sources = (textwrap.dedent(inspect.getsource(part)).strip() for part in parts)
    return Markdown("```python\n{}\n```".format("\n\n\n".join(sources)))
