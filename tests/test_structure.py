"""The package is laid out as the README says: rooms import from rooms above them, and opening one changes nothing."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "caption_utils"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = next((part for part in README.split("\n\n") if "\n| `data/` |" in part), "")
NAMES = [name for row in TABLE.splitlines() for name in re.findall(r"`(\w+)/?`", row.split("|")[1])]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
ROOMS = [*FOLDERS, *(path.stem for path in PACKAGE.glob("[!_]*.py")), "__main__"]


def room_of(module):
    return module.split(".")[1]


@cache
def imports_of(module):
    """Modules of the package that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports from a relative path"
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below & MODULES.keys() or {node.module}
    return {name for name in found if name.startswith("caption_utils")}


def run(*command):
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_the_readme_names_every_room_once():
    assert sorted(NAMES) == sorted(ROOMS)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "caption_utils"])
def test_a_module_imports_only_from_rooms_above_its_own(module):
    above = NAMES[: NAMES.index(room_of(module)) + 1]
    assert {room_of(name) for name in imports_of(module)} <= set(above)


@pytest.mark.parametrize("room", FOLDERS)
def test_imports_within_a_room_have_no_cycle(room):
    inside = [name for name in MODULES if name.startswith(f"caption_utils.{room}.")]
    graph = {name: imports_of(name) & set(inside) for name in inside}
    assert len(list(TopologicalSorter(graph).static_order())) == len(inside)


def test_modules_import_from_the_file_that_holds_a_name():
    """What a room exports is for users; inside the package it would hide which file needs which."""
    exporting = {f"caption_utils.{room}" for room in FOLDERS}
    assert not {name: found for name in MODULES if (found := imports_of(name) & exporting)}


@pytest.mark.parametrize("room", FOLDERS)
def test_a_room_exports_what_it_names(room):
    """The function, too, where a file is called as what it holds."""
    for module in MODULES:
        if module.startswith(f"caption_utils.{room}."):
            import_module(module)
    opened = import_module(f"caption_utils.{room}")
    assert opened.__doc__
    files = {name for name in opened.__all__ if isinstance(getattr(opened, name), ModuleType)}
    assert files <= {"exploration"}


def test_training_alone_chooses_what_is_fast():
    users = {room_of(name) for name in MODULES if any(room_of(used) == "fast" for used in imports_of(name))}
    assert users <= {"training", "fast"}


def test_settings_and_help_load_no_torch():
    for start in (["-c", "import caption_utils.config"], ["-m", "caption_utils", "--help"]):
        loaded = re.findall(r"\| +([\w.]+)$", run("-X", "importtime", *start), re.MULTILINE)
        assert "dataclasses" in loaded and "torch" not in loaded


def test_every_benchmark_is_in_their_table():
    folder = ROOT / "benchmarks"
    listed = re.findall(r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in [*folder.glob("bench_*.py"), folder / "gpu.py"])


SETTINGS = """
import os, sys, torch, warnings
from importlib import import_module
from pathlib import Path

def settings():
    backends, found = torch.backends, dict(os.environ)
    for name in ("num_threads", "num_interop_threads", "float32_matmul_precision", "default_dtype"):
        found[name] = getattr(torch, "get_" + name)()
    for part in (backends.cuda.matmul, backends.cudnn, backends.mkldnn):
        for name in ("allow_tf32", "benchmark", "deterministic", "enabled", "fp32_precision"):
            found[str(part), name] = getattr(part, name, None)
    return found | {"grad": torch.is_grad_enabled(), "exact": torch.are_deterministic_algorithms_enabled()}

def check():
    after = settings()
    assert after == before, {name: (before.get(name), now) for name, now in after.items() if now != before.get(name)}

folder, before, touched = Path(sys.argv[1]), settings(), []
start_gpu, torch.cuda._lazy_init = torch.cuda._lazy_init, lambda: touched.append("CUDA")
for name in sys.argv[2:]:
    import_module(name)
check()
import_module("caption_utils.data.datasets").load_dataset(folder / "data").split("train")
assert not touched and "accelerate" not in sys.modules  # or a notebook could start no process for each GPU
try:
    torch.ones(1, device="cuda")
except (RuntimeError, AssertionError):
    pass
assert touched == ["CUDA"]  # the trap works
torch.cuda._lazy_init = start_gpu

import scipy.sparse, scipy.special, torch._dynamo  # loaded at first use, and they have settings of their own
from caption_utils.captioner import Captioner
from caption_utils.encoders import store
from caption_utils.training.run import train_model

store.writable_dir = lambda name: folder
before, filters = settings(), list(warnings.filters)
small = {"embed_dim": 8, "hidden_dim": 8, "attention_dim": 8, "epochs": 1}
for attention in ("bahdanau", "luong"):
    train_model(folder / "data", folder / attention, min_count=1, settings=small | {"attention": attention})
    Captioner.load(folder / attention).caption(folder / "data" / "Images" / "0.png")
check()
assert warnings.filters == filters, set(warnings.filters) ^ set(filters)
"""


@pytest.mark.slow
def test_neither_imports_nor_calls_change_a_setting_and_imports_and_reading_data_touch_no_gpu(data_folder):
    run("-c", SETTINGS, str(data_folder.parent), *(name for name in MODULES if not name.endswith("__main__")))


STARTED = """
import os, runpy, sys
sys.argv = ["caption_utils", "--help"]
try:
    runpy.run_module("caption_utils", run_name="__main__", alter_sys=True)
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("own", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_the_command_lets_waiting_threads_sleep_unless_told_otherwise(own, spins):
    outside = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    told = subprocess.run([sys.executable, "-c", STARTED], env=outside | own, cwd=ROOT, capture_output=True, text=True)
    assert told.stdout.split()[-1] == spins
