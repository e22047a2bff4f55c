import pandas as pd

from caption_utils.__main__ import main
from caption_utils.evaluation.confidence import Reliability


def test_the_command_that_fits_confidence_tells_what_it_is_worth(capsys, monkeypatch):
    table = pd.DataFrame(
        {"captions": [3, 4], "confidence": [0.25, 0.5], "above_median": [0.2, 0.6], "cider": [9, 70.5]}
    )
    given = []
    monkeypatch.setattr(
        "caption_utils.evaluation.confidence.fit_confidence",
        lambda *arguments: given.extend(arguments) or Reliability(8, 0.4321, table),
    )
    assert main(["confidence", "--model", "m", "--data", "d"]) == 0 and given == ["m", "d"]
    first, second, header, *rows = capsys.readouterr().out.splitlines()
    assert first == "fitted to 8 validation photos, measured on 7 others" and second.endswith(" 0.432")
    assert header.split() == [*table.columns] and rows[1].split() == ["4", "0.50", "0.6", "70.5"]
