"""The package is laid out as the README says: each file imports only from files above it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "caption_utils"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = re.search(r"\| file \| its one job \|\n(.*?)\n\n", README, re.DOTALL)[1]
ORDER = [name for row in TABLE.splitlines() for name in re.findall(r"`(\w+)\.py`", row.split("|")[1])]


def imports_of(path):
    """Names of the package's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "caption_utils":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("caption_utils."):
            found.add(node.module.split(".")[1])
    return found


def test_the_readme_names_every_file_once():
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert sorted(ORDER) == sorted(files)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_files_above_it(name):
    assert imports_of(PACKAGE / f"{name}.py") <= set(ORDER[: ORDER.index(name)])
