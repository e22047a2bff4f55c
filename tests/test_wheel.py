"""A built wheel holds everything: installed away from the repository, it captions a photo with a given model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from caption_utils.captioner import Captioner
from caption_utils.training.checkpoint import load_model

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "caption_utils"
KINDS = ("*.py", "page.*", "flickr8k_splits.json")
FILES = {path.relative_to(ROOT) for kind in KINDS for path in PACKAGE.rglob(kind) if path.suffix != ".pyc"}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's contents, built from a copy without what earlier builds left."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PACKAGE, folder / "source" / "caption_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    offline = ["--no-deps", "--no-index"]
    wheel = [*PIP, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, folder / "source"]
    subprocess.run(wheel, check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run([*PIP, "install", *offline, "--target", folder / "site", built], check=True)
    return folder / "site"


def run(installed, folder, *arguments):
    """What Python prints that finds the installed package, and of the environment the other packages alone."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL_AND_CAPTION = """
import pkgutil, importlib, runpy, caption_utils
print(caption_utils.__file__)
for module in pkgutil.walk_packages(caption_utils.__path__, "caption_utils."):
    if module.name != "caption_utils.__main__":
        print(importlib.import_module(module.name).__file__)
runpy.run_module("caption_utils", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_the_wheel_holds_all_rooms_and_the_page_and_they_import_and_caption(installed, model_folder, encoder, tmp_path):
    found = {
        path.relative_to(installed) for path in (installed / "caption_utils").rglob("*.*") if path.suffix != ".pyc"
    }
    assert found == FILES
    assert {Path("caption_utils/app/page.css"), Path("caption_utils/model/decoder.py")} < FILES
    photo = Image.new("RGB", (320, 240), "blue")
    photo.paste("red", (0, 0, 160, 240))
    photo.save(tmp_path / "photo.jpg")
    expected = Captioner(load_model(model_folder), encoder).caption(tmp_path / "photo.jpg").text
    told = run(installed, tmp_path, "-c", IMPORT_ALL_AND_CAPTION, "caption", "--model", model_folder, "photo.jpg")
    *imported, line = told.splitlines()
    modules = {path for path in FILES if path.suffix == ".py" and path.name != "__main__.py"}
    assert set(map(Path, imported)) == {installed / path for path in modules}
    assert line.split() == ["photo.jpg:", *expected.split()]
