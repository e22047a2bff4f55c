"""The notebooks are whole, in order, executed and compared; and comparing them finds what is broken."""

import asyncio
import csv
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import nbformat
import pytest
from exercises import solutions

import notebooks

ROOT = Path(__file__).parent.parent
PATHS = notebooks.paths()
IGNORED = "nbval-ignore-output"
MAX_BYTES = 300_000
MACHINE_PATH = re.compile(r"(?<![\w.<>/-])/(?:home|root|tmp|work|usr|opt|Users|content|kaggle/working)/\w")
FLICKR8K_PHOTO = re.compile(r"\d{7,}_[0-9a-f]{10}")

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def in_a_thread(work, *arguments):
    """In the main thread a browser of other tests may keep asyncio's loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *arguments).result()


def executed(path):
    return in_a_thread(asyncio.run, notebooks.execute(path))


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outputs_of(path):
    return [output for cell in code_cells(read(path)) for output in cell.outputs]


def texts(output):
    """All that an output says in words: streams, plain text, HTML."""
    data = output.get("data", {})
    return [output.get("text", ""), *(content for kind, content in data.items() if kind.startswith("text/"))]


def test_names_count_up():
    numbers = [path.stem[:2] for path in PATHS]
    assert numbers[0] == "01" and len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"0\d(_[a-z]+)+", path.stem) for path in PATHS)


@every_notebook
def test_valid_and_small(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < MAX_BYTES
    assert path.read_text(encoding="utf-8").endswith("}\n")


@every_notebook
def test_executed_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_stored_as_make_notebooks_stores(path):
    assert read(path) == notebooks.normalize(read(path))


@every_notebook
def test_no_cell_failed(path):
    assert not [output for output in outputs_of(path) if output.output_type == "error"]


@every_notebook
def test_at_least_half_of_the_outputs_are_compared(path):
    with_output = [cell for cell in code_cells(read(path)) if cell.outputs]
    compared = [cell for cell in with_output if IGNORED not in tags(cell)]
    assert len(compared) * 2 >= len(with_output) > 0


@every_notebook
def test_every_cell_is_checked(path):
    for cell in code_cells(read(path)):
        assert not {"nbval-skip", "raises-exception"} & set(tags(cell))
        assert not re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE_)", cell.source)


@every_notebook
def test_words_that_are_not_compared_are_followed_by_an_assertion(path):
    cells = code_cells(read(path))
    for number, cell in enumerate(cells):
        if IGNORED in tags(cell) and any(output.output_type == "stream" for output in cell.outputs):
            after = [cell.source for cell in cells[number + 1 : number + 3]]
            assert any(re.search(r"^\s*assert\b", source, re.MULTILINE) for source in after), cell.source


@every_notebook
def test_nothing_of_a_machine_or_of_flickr8k_is_stored(path):
    notebook = read(path)
    words = [text for output in outputs_of(path) for text in texts(output)]
    words += [cell.source for cell in notebook.cells if "bootstrap" not in tags(cell)]
    for text in words:
        assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)
        assert not FLICKR8K_PHOTO.search(text), FLICKR8K_PHOTO.search(text)


@every_notebook
def test_links_are_as_make_links_writes_them(path):
    notebook, url = read(path), notebooks.repository_url()
    assert notebooks.tagged_cell(notebook, "badges").source == notebooks.badges(path.name, url)
    assert notebooks.tagged_cell(notebook, "bootstrap").source == notebooks.bootstrap(url)


@every_notebook
def test_follows_the_skeleton(path):
    notebook = read(path)
    first, second, third = notebook.cells[:3]
    assert re.match(rf"# {path.stem[:2]} · \S", first.source)
    assert "badges" in tags(second)
    assert all(f"**{word}" in third.source for word in ("You will learn", "Needs", "Takes"))
    start, imports = code_cells(notebook)[:2]
    assert "bootstrap" in tags(start)
    assert "from caption_utils" in imports.source


@every_notebook
def test_ends_with_summary_exercises_references_and_next(path):
    text = text_of(read(path))
    places = [text.find(mark) for mark in ("\n## Summary\n", "\n## Exercises\n", "\n## References\n", "**Next:**")]
    assert -1 not in places and places == sorted(places)
    exercises = text[places[1] : places[2]]
    assert re.findall(r"^\d\. ", exercises, re.MULTILINE) == ["1. ", "2. ", "3. "]


@every_notebook
def test_each_exercise_has_a_solution_in_code(path):
    assert list(map(bool, solutions(read(path)))) == 3 * [True]


@every_notebook
def test_previous_and_next_are_its_neighbours(path):
    place, text = PATHS.index(path), text_of(read(path))
    before, after, following = (
        re.search(rf"\*\*{word}[^*]*\*\* (?:\[.*?\]\((\w+\.ipynb)\))?", text) for word in ("Before", "After", "Next:")
    )
    assert place == 0 or before[1] == PATHS[place - 1].name
    assert path is PATHS[-1] or after[1] == following[1] == PATHS[place + 1].name


@every_notebook
def test_the_readme_lists_it(path):
    assert f"](notebooks/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


@every_notebook
def test_links_between_files_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text_of(read(path))):
        assert (path.parent / target).exists(), target


def test_badges_open_this_notebook():
    text = notebooks.badges("01_x.ipynb", "https://github.com/somebody/project")
    assert "https://colab.research.google.com/github/somebody/project/blob/main/notebooks/01_x.ipynb" in text
    assert "kernels/welcome?src=https://github.com/somebody/project/blob/main/notebooks/01_x.ipynb" in text


def test_without_an_address_no_link_is_invented():
    assert "](" not in notebooks.badges("01_x.ipynb", "")


def test_cells_leave_the_widget_of_the_reader_alone():
    (path,) = [path for path in PATHS if path.stem.startswith("07")]
    users = [cell for cell in code_cells(read(path)) if re.search(r"\bwidget\.", cell.source)]
    assert [tags(cell) for cell in users] == [[IGNORED, "page"]]


CELL = """
import sys, tqdm.auto
from IPython.display import HTML
from caption_utils.runtime import repository
for i in tqdm.auto.trange(2): pass
print(repository() / "data/demo", sys.prefix)
HTML(f"<b>{repository()}</b>")
"""


@pytest.fixture
def throwaway(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# t"), nbformat.v4.new_code_cell(CELL)]
    path = tmp_path / "01_t.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


FORKS = """
import time
from caption_utils.runtime import progress_bar
from caption_utils.training.processes import call_in_forks
call_in_forks(2, lambda: [print(f"step {step}") for step in progress_bar(range(2), desc="bar")])
time.sleep(1)  # until the kernel has read what they printed
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_notebook_shows_the_progress_of_its_forks(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # or the kernel reads nothing that others print
    path = tmp_path / "01_t.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FORKS)]), path)
    (output,) = code_cells(executed(path))[0].outputs
    assert output.name == "stdout"
    assert output.text.count("step 1\n") == 2 and "bar: 100%|" in output.text


def test_stored_outputs_hold_no_machine_and_no_widget(throwaway):
    before = throwaway.read_bytes()
    stored = notebooks.normalize(executed(throwaway))
    assert throwaway.read_bytes() == before
    text = nbformat.writes(stored)
    assert "<repository>/data/demo <python>" in text and "<b><repository></b>" in text
    assert "widget" not in text and str(ROOT) not in text
    assert notebooks.normalize(stored) == stored


def failure_of(throwaway, source):
    notebook = read(throwaway)
    notebook.cells[1].source = source
    nbformat.write(notebook, throwaway)
    with pytest.raises(notebooks.NotebookFailed) as failure:
        executed(throwaway)
    return str(failure.value)


def test_failure_names_notebook_cell_and_error(throwaway):
    failure = failure_of(throwaway, "shape = (2, 3)\nassert shape == (3, 2), 'transposed'")
    assert failure.startswith("01_t.ipynb: cell 1 failed\n\nshape = (2, 3)\n")
    assert failure.endswith("AssertionError: transposed")


def test_of_an_input_error_the_message_alone_is_shown(throwaway):
    source = "from caption_utils.captioner import Captioner\nCaptioner.load('gone')"
    told = "InputError: gone/config.json: not found; point to a model folder that training wrote"
    assert failure_of(throwaway, source) == f"01_t.ipynb: cell 1 failed\n\n{source}\n\n{told}"


@pytest.mark.slow
def test_one_waits_for_the_models_it_uses_and_a_failure_ends_all(tmp_path, capsys):
    sources = {
        "02_quick": "pass",
        "04_trains": "import time\ntime.sleep(3)\nopen('model', 'w').write('trained')",
        "05_uses": "raise ValueError(open('model').read())",
        "07_long": "import time\ntime.sleep(3600)",
    }
    for name, source in sources.items():
        cells = [nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    with pytest.raises(notebooks.NotebookFailed, match=r"(?s)05_uses.ipynb: cell 0 failed.*ValueError: trained$"):
        in_a_thread(notebooks.execute_all, sorted(tmp_path.glob("*.ipynb")), lambda path, notebook: None)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["02_quick", "04_trains"]


@pytest.mark.slow
def test_comparison_finds_what_is_broken(tmp_path):
    """One of three cells has another output than the stored one, one fails. ``tools/mutation.py`` breaks real cells."""
    cells = []
    for source, stored in (("2 + 2", "4"), ("2 + 2", "5"), ("assert False", "")):
        output = nbformat.v4.new_output("execute_result", {"text/plain": stored}, execution_count=1)
        cells.append(nbformat.v4.new_code_cell(source, outputs=[output] * bool(stored), execution_count=1))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "tried.ipynb")
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", ROOT / "tests" / "nbval_sanitize.cfg"]
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", tmp_path, *options, tmp_path]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert set(re.findall(r"FAILED tried\.ipynb::Cell (\d)", told)) == {"1", "2"}, told
    assert "1 passed" in told


def own_photos(folder, number):
    """A data set of so many photos with a caption each."""
    demo = ROOT / "data" / "demo"
    (folder / "Images").mkdir(parents=True)
    with (demo / "captions.txt").open(encoding="utf-8", newline="") as file:
        captions = dict(reversed(list(csv.reader(file))[1:]))  # the first of each photo
    rows = ["image,caption"]
    for name in sorted(captions)[:number]:
        shutil.copy(demo / "Images" / name, folder / "Images")
        rows.append(f'{name},"{captions[name]}"')
    (folder / "captions.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(folder)


@pytest.fixture
def own_notebooks(tmp_path):
    """A notebook with the code and the solutions of four on a few photos of one's own each: they share a kernel."""
    cells = []
    for start, number in (("01", 5), ("02", 5), ("06", 2), ("08", 8)):
        (path,) = (path for path in PATHS if path.stem.startswith(start))
        folder = own_photos(tmp_path / f"{tmp_path.name}-{start}", number)
        cells.append(nbformat.v4.new_code_cell(f'import os\nos.environ["CAPTION_DATA"] = {folder!r}'))
        sources = [*(cell.source for cell in code_cells(read(path))), *solutions(read(path))]
        cells += map(nbformat.v4.new_code_cell, sources)
    cells.append(nbformat.v4.new_code_cell('trained("again", {"gate": True})'))  # as at the beginning of 08
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "own.ipynb")
    yield tmp_path / "own.ipynb"
    for path in (ROOT / "data" / "models").glob(f"*-{tmp_path.name}-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.slow
def test_a_few_photos_of_ones_own_run_through_notebooks_and_solutions_without_java(own_notebooks, monkeypatch):
    monkeypatch.setenv("PATH", "")
    cells = code_cells(executed(own_notebooks))
    told = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "5 images, 5 captions" in told and "no image has a second caption" in told
    assert "so one reference is all there is" in told and "nothing to recall" in told
    assert "METEOR is missing: needs a Java runtime" in told
