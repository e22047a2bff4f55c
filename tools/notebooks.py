"""``python tools/notebooks.py run | refresh [01 ...] | links``: run notebooks, store outputs, write links."""

import argparse
import asyncio
import copy
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from caption_utils.files import replacing

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLLAPSED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "_kg_hide-input": True,
}  # Colab, JupyterLab, Kaggle
NEEDS = {"05": "04", "06": "05", "09": "04"}  # notebook -> the one whose models it uses
AT_ONCE = 2  # two threads train models as small as these no sooner than one
THREADS = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // AT_ONCE))}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS = re.compile(r"[^\n]*\d%\|[^\n]*\n?")  # a progress bar in its last state


class NotebookFailed(Exception):
    """A cell failed. The message holds the notebook's name, the cell and the error."""


def paths() -> list[Path]:
    """The notebooks in reading order."""
    return sorted(FOLDER.glob("*.ipynb"))


async def execute(path: Path) -> NotebookNode:
    """Run the notebook from top to bottom in a new kernel and return it; the file is unchanged."""
    notebook = nbformat.read(path, as_version=4)
    begun: list[int] = []
    client = NotebookClient(
        notebook,
        timeout=None,  # on a busy machine a cell may take any time
        shutdown_kernel="immediate",
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        on_cell_start=lambda cell, cell_index: begun.append(cell_index),
    )
    try:
        return await client.async_execute(env=THREADS | os.environ)
    except (CellExecutionError, DeadKernelError) as error:
        raise NotebookFailed(_failure(path.name, notebook, begun, error)) from None
    except AssertionError:  # what nbclient, which handles Ctrl-C itself, makes of a kernel that it has ended
        raise NotebookFailed("interrupted") from None


def _failure(name: str, notebook: NotebookNode, begun: list[int], error: Exception) -> str:
    cell = begun[-1] if begun else 0
    source = notebook.cells[cell].source
    told = next((o for o in notebook.cells[cell].get("outputs", []) if o.output_type == "error"), None)
    reason = ANSI.sub("", "\n".join(told.traceback)) if told else f"{type(error).__name__}: {error}"
    return f"{name}: cell {cell} failed\n\n{source}\n\n{reason}"


def run() -> None:
    """Run all notebooks, then list the trained models and caption sample photographs."""
    from samples import caption_samples, describe_models  # imports PyTorch, which ``links`` does not need

    execute_all(paths(), lambda path, notebook: None)
    print(f"\nTrained models:\n{describe_models()}")
    print(f"\nSample photographs, captioned by the model of this repository:\n{caption_samples()}")


def refresh(*numbers: str) -> None:
    """Run the notebooks with these numbers, or all, and store them normalised."""
    chosen = [path for path in paths() if not numbers or path.stem[:2] in numbers]
    execute_all(chosen, lambda path, notebook: write(path, normalize(notebook)))


def execute_all(chosen: Sequence[Path], keep: Callable[[Path, NotebookNode], None]) -> None:
    """Run notebooks, ``AT_ONCE`` at a time, with a line for each that ends; ``keep`` gets each path and what was run.

    Raises ``NotebookFailed`` for the first that fails; the others are stopped.
    """
    ended = {path.stem[:2]: asyncio.Event() for path in chosen}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(path: Path) -> None:
        number = path.stem[:2]
        if NEEDS.get(number) in ended:
            await ended[NEEDS[number]].wait()
        async with places:
            start = time.perf_counter()
            keep(path, await execute(path))
        print(f"{path.stem:<32}{time.perf_counter() - start:6.0f} s", flush=True)
        ended[number].set()

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for path in chosen:
                group.create_task(one(path))

    try:
        asyncio.run(together())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def normalize(notebook: NotebookNode) -> NotebookNode:
    """A copy with counts 1..n, ids by position, the bootstrap cell collapsed, and no widgets or absolute paths.

    Cells keep only their tags as metadata.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(KERNEL)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        collapsed = COLLAPSED if "bootstrap" in tags else {}
        cell.metadata = nbformat.from_dict({**collapsed, "tags": tags} if tags else {})
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
        cell.outputs = [output for output in map(_normal_output, cell.outputs) if not _empty(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def _empty(output: NotebookNode) -> bool:
    return output.get("data") == {} or ("text" in output and not output.text.strip())


def _normal_output(output: NotebookNode) -> NotebookNode:
    output = copy.deepcopy(output)
    if "data" in output:
        output.metadata = {}
        output.data = {kind: _without_paths(content) for kind, content in output.data.items() if "widget" not in kind}
        if PROGRESS.search(str(output.data.get("text/plain", ""))):
            output.data = {}
    elif "text" in output:
        output.text = PROGRESS.sub("", _without_paths(output.text))
    return output


def _without_paths(content: object) -> object:
    """Text without this machine's folders; tests/nbval_sanitize.cfg does the same to a comparison's two sides."""
    if isinstance(content, str):
        content = content.replace(sys.prefix, "<python>").replace(str(ROOT), "<repository>")
    return content


def links() -> None:
    """Write the badges and the bootstrap cell of every notebook."""
    for path in paths():
        notebook = nbformat.read(path, as_version=4)
        written = {"badges": badges(path.name, repository_url()), "bootstrap": bootstrap(repository_url())}
        for tag, source in written.items():
            tagged_cell(notebook, tag).source = source
        tagged_cell(notebook, "bootstrap").metadata.update(COLLAPSED)
        write(path, notebook)


def repository_url() -> str:
    """The public address in pyproject.toml, empty until there is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/")


def bootstrap(url: str) -> str:
    """The bootstrap cell, which clones from ``url`` unless the variable CAPTION_REPO says otherwise."""
    source = (ROOT / "tools/bootstrap_cell.py").read_text(encoding="utf-8").rstrip("\n")
    return source.replace('"CAPTION_REPO", ""', f'"CAPTION_REPO", "{url}"')


def badges(name: str, url: str) -> str:
    """Links that open the notebook on Colab and Kaggle, which both read it from GitHub."""
    if not url.startswith("https://github.com/"):
        return "Open with `make lab`. Links to Colab and Kaggle follow once the repository has a public address."
    colab = url.replace("https://github.com/", "https://colab.research.google.com/github/")
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}/blob/main/notebooks/{name})\n"
        "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
        f"(https://kaggle.com/kernels/welcome?src={url}/blob/main/notebooks/{name})"
    )


def tagged_cell(notebook: NotebookNode, tag: str) -> NotebookNode:
    """The one cell with ``tag``. Raises ``ValueError`` if there are none or several."""
    (cell,) = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    return cell


def write(path: Path, notebook: NotebookNode) -> None:
    """Write the notebook whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")


def main() -> int:
    """Run a command and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "refresh", "links"))
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="what to refresh (default: all)")
    options = parser.parse_args()
    known = {path.stem[:2] for path in paths()} if options.command == "refresh" else set()
    if unknown := {*options.numbers} - known:
        parser.error(f"{options.command} knows no notebook {', '.join(sorted(unknown))}")
    try:
        {"run": run, "refresh": lambda: refresh(*options.numbers), "links": links}[options.command]()
    except NotebookFailed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
