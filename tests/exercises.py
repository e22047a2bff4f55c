"""For pytest: nbval runs the solutions of a notebook's exercises after its last cell, in the same kernel.

It waits for the last output of a cell as long as a busy machine may need.
"""

import re
from collections import defaultdict
from textwrap import dedent

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

SOLUTION = re.compile(r"<details><summary>Solution</summary>\n(.*?)</details>", re.DOTALL)
PATIENCE = 120  # seconds; nbval's own five are too few while others compute
CODE = re.compile(r"^ *```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def solutions(notebook):
    """The code of each solution that is folded away in the notebook's text."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return ["\n".join(map(dedent, CODE.findall(solution))) for solution in SOLUTION.findall(text)]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if isinstance(collector, IPyNbFile) and report.passed:
        for number, source in enumerate(solutions(collector.nb), 1):
            place = {"name": f"Solution {number}", "cell_num": len(report.result)}
            cell = nbformat.v4.new_code_cell(source)
            report.result.append(IPyNbCell.from_parent(collector, **place, cell=cell, options=defaultdict(bool)))
        for cell in report.result:
            cell.output_timeout = PATIENCE
    return report
