"""Tests of tools/exploration_tables.py."""

import exploration_tables
import numpy as np
import pandas as pd
import pytest

from caption_utils.data import exploration
from caption_utils.data.datasets import CaptionDataset
from caption_utils.data.vocab import tokenize

TEXTS = {
    "1.jpg": ["a dog runs on the grass", "a dog runs on the lawn", "the dog runs on the grass"],
    "2.jpg": ["two red balls lie there", "two red balls are there now"],
}


def test_write_tables(tmp_path):
    rows = [(name, text, "val" if name == "1.jpg" else "train") for name, texts in TEXTS.items() for text in texts]
    table = pd.DataFrame(rows, columns=["image", "caption", "split"])
    exploration_tables.write_tables(CaptionDataset("toy", tmp_path, tmp_path, table), tmp_path / "out")
    people = pd.read_csv(tmp_path / "out" / "toy_human_bleu.csv", index_col="k")
    expected = exploration.human_bleu([[tokenize(text) for text in TEXTS["1.jpg"]]])
    np.testing.assert_allclose(people, expected, atol=1e-4)
    through = pd.read_csv(tmp_path / "out" / "toy_vocabulary.csv", index_col="min_count")["people_bleu4"]
    assert through[1] < expected["bleu4"].mean()
    assert through[100] < 1e-4


def test_tables_without_a_second_caption_say_what_is_missing(tmp_path, capsys):
    table = pd.DataFrame(
        [("1.jpg", "a dog", "val"), ("2.jpg", "a cat", "train")], columns=["image", "caption", "split"]
    )
    exploration_tables.write_tables(CaptionDataset("toy", tmp_path, tmp_path, table), tmp_path)
    assert pd.read_csv(tmp_path / "toy_human_bleu.csv").empty
    assert pd.read_csv(tmp_path / "toy_vocabulary.csv")["people_bleu4"].isna().all()
    assert capsys.readouterr().err == "toy: BLEU of people is missing: no validation image has two captions\n"


def test_command_line_names_a_missing_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["exploration_tables", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="none"):
        exploration_tables.main()
