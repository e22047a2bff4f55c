import csv
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from caption_utils.captioner import Caption
from caption_utils.errors import InputError
from caption_utils.evaluation.records import append_row, check_new, check_place, write_captions

CAPTIONS = [Caption("a red half", -1.23456, [], None), Caption('"é"', -2.0, [], None)]
EVALUATION = SimpleNamespace(images=["2.png", "a b.png"], captions=CAPTIONS)


def test_captions_are_written_in_coco_s_result_format(tmp_path):
    path = tmp_path / "new" / "captions.json"
    write_captions(path, EVALUATION)
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"image_id": "2.png", "caption": "a red half", "log_probability": -1.2346},
        {"image_id": "a b.png", "caption": '"é"', "log_probability": -2.0},
    ]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2 + 2


def test_captions_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_captions(tmp_path, EVALUATION)


def test_what_is_missing_is_an_empty_cell(tmp_path):
    append_row(tmp_path / "metrics.csv", {"model": "m", "meteor": None})
    (row,) = csv.DictReader((tmp_path / "metrics.csv").open())
    assert row["meteor"] == "" and np.isnan(pd.read_csv(tmp_path / "metrics.csv")["meteor"][0])


ROW = {"model": "a, b", "bleu4": 20.5}


def test_rows_are_added_below_a_header(tmp_path):
    path = tmp_path / "new" / "metrics.csv"
    append_row(path, ROW)
    append_row(path, ROW | {"bleu4": 21})
    assert path.read_text() == 'model,bleu4\n"a, b",20.5\n"a, b",21\n'
    assert list(path.parent.iterdir()) == [path]
    assert list(pd.read_csv(path)["bleu4"]) == [20.5, 21]


def test_rows_are_added_to_what_a_spreadsheet_saved(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("model,bleu4\nx,1\n", encoding="utf-8-sig")
    append_row(path, ROW)
    assert path.read_text(encoding="utf-8") == 'model,bleu4\nx,1\n"a, b",20.5\n'


@pytest.mark.parametrize("content", ["model,cider\nx,1\n", "model\n", "bleu4,model\n", "model,bleu4\nx,1,2\n"])
def test_other_columns_are_refused_and_the_file_kept(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match="metrics.csv: its columns are not model, bleu4; record into another file"):
        append_row(tmp_path / "metrics.csv", ROW)
    assert (tmp_path / "metrics.csv").read_text() == content


def test_what_is_no_csv_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "metrics.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read as csv"):
            append_row(path, ROW)


def test_a_failed_write_keeps_the_rows(tmp_path, monkeypatch):
    append_row(tmp_path / "metrics.csv", ROW)
    before = (tmp_path / "metrics.csv").read_text()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv, "writer", full)
    with pytest.raises(InputError, match="metrics.csv: cannot be written"):
        append_row(tmp_path / "metrics.csv", ROW)
    assert (tmp_path / "metrics.csv").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_captions_take_no_place_that_is_taken(tmp_path):
    check_new(tmp_path / "captions.json", None)
    check_new(tmp_path / "captions.json", tmp_path / "metrics.csv")
    (tmp_path / "old").symlink_to("nothing")
    for name, reason in (("old", "already exists"), ("metrics.csv", "is to hold the row")):
        with pytest.raises(InputError, match=f"{name}: {reason}; name another file for the captions"):
            check_new(tmp_path / name, tmp_path / "x" / ".." / "metrics.csv")


def test_where_nothing_can_be_written_is_told_with_the_folder(tmp_path, monkeypatch):
    check_place(tmp_path / "new" / "metrics.csv")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a folder; name a file in it"):
        check_place(tmp_path)
    with pytest.raises(InputError, match="file: a file, not a folder; name a folder to write into"):
        check_place(tmp_path / "file" / "metrics.csv")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match="cannot be written; name another folder, or change its permissions$"):
        check_place(tmp_path / "new" / "metrics.csv")
