import re
from pathlib import Path

import pytest

FAQ = Path(__file__).parents[1] / "docs" / "FAQ.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", FAQ.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS, ids=[str(number) for number in range(len(SNIPPETS))])
def test_what_the_questions_show_runs(code, capsys, monkeypatch):
    monkeypatch.chdir(FAQ.parents[1])
    exec(compile(code, "FAQ.md", "exec"), {})
    assert capsys.readouterr().out.strip()
