import io
import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import skimage
import torch
from safetensors.torch import load_file, save_file

from caption_utils.__main__ import main
from caption_utils.calibration import Calibration, Subspace

PHOTO = f"{skimage.data_dir}/coffee.png"


def test_one_good_and_one_bad_photo(model, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"")
    assert main(["caption", "--model", str(model), "--json", PHOTO, str(tmp_path / "bad.jpg"), PHOTO]) == 1
    output = capsys.readouterr()
    good, bad, again = map(json.loads, output.out.splitlines())
    assert good == again
    assert good["image"] == PHOTO and good["caption"]
    assert len(good["attention"]) == len(good["tokens"]) and len(good["attention"][0]) == 7
    assert max(len(str(share)) for row in good["attention"][0] for share in row) <= len("0.1234")
    assert bad == {
        "image": str(tmp_path / "bad.jpg"),
        "error": f"{tmp_path / 'bad.jpg'}: the file is empty; copy or download it again",
    }
    assert output.err == ""


def test_a_bad_photo_in_plain_words(model, tmp_path, capsys):
    assert main(["caption", "--model", str(model), str(tmp_path / "gone.jpg"), PHOTO]) == 1
    output = capsys.readouterr()
    assert output.err == f"caption_utils: {tmp_path}/gone.jpg: no such file; check the path\n"
    assert output.out.startswith(f"{PHOTO}: ")


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that may not be read, not even by root."""
    (tmp_path / "locked").mkdir()

    def refusing(call):
        def called(path, *args, **options):
            if str(path).startswith(str(tmp_path / "locked")):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args, **options)

        return called

    monkeypatch.setattr("os.stat", refusing(os.stat))
    monkeypatch.setattr("os.scandir", refusing(os.scandir))
    return tmp_path / "locked"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_is_valid_on_any_stream(tmp_path, model, monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stream)
    photo = str(tmp_path / "\U0001f600é\x80.jpg")
    assert main(["caption", "--model", str(model), "--json", photo]) == 1
    assert json.loads(stream.buffer.getvalue().decode(encoding))["image"] == photo
    assert ("é".encode() in stream.buffer.getvalue()) == (encoding == "utf-8")


def test_no_photo_out_of_reach_stops_the_others(model, tmp_path, locked, capsys, monkeypatch):
    """A name that is too long or a folder without access, as an argument or on standard input."""
    long = "x" * 300 + ".jpg"
    photos = [long, str(locked / "a.jpg"), str(locked), PHOTO]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(photos)))
    assert main(["caption", "--model", str(model), "--beam", "1", "--json", *photos, "-"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in found] == [*photos, *photos]
    told = [row.get("error", "caption").removeprefix(f"{row['image']}: ") for row in found]
    no_access = "may not be read; change its permissions"
    assert told == 2 * ["cannot be read (File name too long); check the path", no_access, no_access, "caption"]


def test_without_a_model_the_default_one_captions(model, capsys, monkeypatch):
    monkeypatch.setattr("caption_utils.training.zoo.default_model", lambda: model)
    assert main(["caption", PHOTO]) == main(["caption", "--model", str(model), PHOTO]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_folder_and_a_list_from_standard_input(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "photos").mkdir()
    first, second, spaced = (
        Path(shutil.copy(PHOTO, tmp_path / name)) for name in ("photos/a.png", "photos/b.PNG", "c d.png")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{spaced}\n\n-\n{first.parent}\n"))
    assert main(["caption", "--model", str(model), PHOTO, str(tmp_path / "photos"), "-"]) == 0
    named = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert named == [PHOTO, *map(str, (first, second, spaced, first, second))]


def test_a_list_may_begin_with_a_byte_order_mark(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\ufeff{PHOTO}\n"))
    assert main(["caption", "--model", str(model), "--beam", "1", "-"]) == 0
    assert capsys.readouterr().out.startswith(f"{PHOTO}: ")


@pytest.mark.parametrize("listed", ["a.jpg\0b.jpg\0", "\udcff\udcfea\0.\0j\0p\0g\0\n\0"], ids=["-print0", "UTF-16"])
def test_a_list_with_null_bytes_is_one_line(refused, monkeypatch, listed):
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    line = refused("caption", "-")
    assert line.endswith(
        "standard input: holds null bytes; give UTF-8 text with one path a line (find without -print0)"
    )


def test_the_json_of_a_diverged_model_is_valid(model, capsys):
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * torch.nan for name, tensor in weights.items()}, model / "model.safetensors")
    assert main(["caption", "--model", str(model), "--json", "--top", "2", PHOTO]) == 0
    row = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["attention"][0][0][0] is None and row["image"] == PHOTO


def test_a_terminal_sees_progress_over_several_photos(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["caption", "--model", str(model), PHOTO]) == 0
    assert capsys.readouterr().err == ""
    assert main(["caption", "--model", str(model), PHOTO, PHOTO, PHOTO]) == 0
    output = capsys.readouterr()
    assert list(dict.fromkeys(re.findall(r"\d/3", output.err))) == ["0/3", "1/3", "2/3", "3/3"]
    assert re.search(r"2/3 \[\d\d:\d\d<\d\d:\d\d, .*photo", output.err)  # time left and rate
    assert len(output.out.splitlines()) == 3


def test_the_runners_up(model, capsys):
    assert main(["caption", "--model", str(model), "--top", "3", PHOTO]) == 0
    name, *captions = capsys.readouterr().out.splitlines()
    assert name == f"{PHOTO}:"
    assert len(captions) == 3 and all(0 <= float(line.split()[0]) <= 1 for line in captions)
    assert main(["caption", "--model", str(model), "--top", "3", "--json", PHOTO]) == 0
    line = json.loads(capsys.readouterr().out)
    assert [line["caption"], *(other["caption"] for other in line["runners_up"])] == [
        text.split(maxsplit=1)[1] for text in captions
    ]


@pytest.fixture
def sure(model):
    """A model folder whose captions have a confidence of 0.3: 0.9 for the words, times 1/3 for unfamiliar photos."""
    photos = Subspace(torch.zeros(1280), torch.zeros(1280, 1))
    Calibration(torch.tensor([math.log(9), 0]), photos, torch.tensor([0.0, 0])).save(model)
    return model


def test_a_doubt_is_told(sure, capsys):
    assert main(["caption", "--model", str(sure), PHOTO]) == 0
    line = capsys.readouterr().out
    assert line.endswith(" (unsure: unlike the photos this model knows)\n")
    assert main(["caption", "--model", str(sure), "--top", "2", PHOTO]) == 0
    head, best, _ = capsys.readouterr().out.splitlines()
    assert head == f"{PHOTO}: (unsure: unlike the photos this model knows)" and "unsure" not in best
    assert main(["caption", "--model", str(sure), "--json", PHOTO]) == 0
    assert json.loads(capsys.readouterr().out)["confidence"] == pytest.approx(0.3)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_captions_of_too_little_confidence_are_left_out(sure, tmp_path, capsys, as_json):
    (tmp_path / "bad.jpg").write_bytes(b"")
    photos = [PHOTO, str(tmp_path / "bad.jpg"), PHOTO]
    outputs = ["--csv", str(tmp_path / "t.csv"), "--attention-map", str(tmp_path / "map.png"), *as_json]
    assert main(["caption", "--model", str(sure), "--min-confidence", "0.31", *outputs, *photos]) == 1
    output = capsys.readouterr()
    assert output.err.endswith("caption_utils: captions with a confidence below 0.31: 2 (left out)\n")
    assert [json.loads(line)["image"] for line in output.out.splitlines()] == photos[1:2] * len(as_json)
    assert not list(tmp_path.glob("map*")) and not (tmp_path / "t.csv").exists()
    assert main(["caption", "--model", str(sure), "--min-confidence", "0.29", *outputs[:2], PHOTO]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{PHOTO}: ") and output.err == ""
    assert (tmp_path / "t.csv").read_text().endswith(",0.3000\n")


def test_a_model_without_confidence_works_and_refuses_a_least_one(model, capsys, refused):
    assert main(["caption", "--model", str(model), "--json", PHOTO]) == 0
    assert "confidence" not in json.loads(capsys.readouterr().out)
    line = refused("caption", "--model", model, "--min-confidence", "0.5", PHOTO)
    assert line == (
        f"caption_utils: {model}: has no confidence.safetensors, which --min-confidence needs; "
        "write it with python -m caption_utils confidence"
    )


def test_an_earlier_table_is_emptied_though_every_photo_is_left_out(sure, tmp_path, capsys):
    photo, table = str(shutil.copy(PHOTO, tmp_path)), str(tmp_path / "t.csv")
    outputs = ["--csv", table, "--write", "txt", "--attention-map", str(tmp_path / "map.png")]
    command = ["caption", "--model", str(sure), *outputs, photo]
    assert main(command) == 0 and len({*tmp_path.iterdir()}) == 5
    assert main([*command, "--skip-existing", "--min-confidence", "0.31"]) == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2 and (tmp_path / "coffee.txt").exists()
    unsure = ["--overwrite", "--min-confidence", "0.31"]
    assert main([*command, *unsure]) == 0
    assert (tmp_path / "t.csv").read_text() == "" and len({*tmp_path.iterdir()}) == 5  # what lies beside photos stays
    assert capsys.readouterr().err.endswith("below 0.31: 1 (left out; earlier text files and maps stay)\n")
    assert main([*command[:5], photo, *unsure]) == 0
    assert capsys.readouterr().err.endswith("below 0.31: 1 (left out)\n")


@pytest.mark.parametrize("least", ["1.5", "-1", "nan"])
def test_a_least_confidence_out_of_range_is_one_line(sure, refused, least):
    line = refused("caption", "--model", sure, f"--min-confidence={least}", PHOTO)
    assert line.endswith(f"min_confidence={least} is out of range; choose a value from 0 to 1")


@pytest.mark.parametrize("top", ["0", "6"])
def test_more_runners_up_than_beams_are_one_line(model, refused, top):
    line = refused("caption", "--model", model, "--top", top, PHOTO)
    assert line.endswith(f"top={top}: choose 1 to 5, or more beams with --beam")


def test_no_beams_are_one_line_before_any_work(refused):
    assert "beams=0 is out of range" in refused("caption", "--beam", "0", PHOTO)


@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_an_attention_map_is_saved_as_its_name_says(model, tmp_path, capsys, suffix, head):
    out = tmp_path / "maps" / f"map{suffix}"
    assert main(["caption", "--model", str(model), "--attention-map", str(out), PHOTO]) == 0
    assert out.read_bytes().startswith(head)
    assert list(out.parent.iterdir()) == [out]


def test_each_photo_has_its_attention_map(model, tmp_path):
    shutil.copy(PHOTO, tmp_path / "mine.png")
    (tmp_path / "bad.png").write_bytes(b"")
    photos = [PHOTO, str(tmp_path / "bad.png"), str(tmp_path / "mine.png")]
    assert main(["caption", "--model", str(model), "--attention-map", str(tmp_path / "map.png"), *photos]) == 1
    assert sorted(path.name for path in tmp_path.glob("map*")) == ["map-coffee.png", "map-mine.png"]


def test_a_map_that_cannot_be_written_costs_only_itself(model, tmp_path, capsys):
    (tmp_path / "map-coffee.png").mkdir()
    outputs = ["--attention-map", str(tmp_path / "map.png"), "--csv", str(tmp_path / "t.csv")]
    photos = [PHOTO, str(shutil.copy(PHOTO, tmp_path / "mine.png"))]
    assert main(["caption", "--model", str(model), *outputs, *photos]) == 1
    output = capsys.readouterr()
    assert "map-coffee.png: cannot be written" in output.err and output.out.startswith(photos[1])
    assert (tmp_path / "map-mine.png").is_file() and len((tmp_path / "t.csv").read_text().splitlines()) == 3


def test_a_map_is_replaced_only_when_asked_and_drawn_where_it_lacks(model, tmp_path, capsys, refused):
    photos = [PHOTO, str(shutil.copy(PHOTO, tmp_path / "mine.png"))]
    table = ["--csv", str(tmp_path / "t.csv")]
    command = ["caption", "--model", str(model), "--beam", "1", "--attention-map", str(tmp_path / "map.png")]
    (tmp_path / "map-mine.png").write_text("mine")
    line = refused(*command, *photos)
    assert line.endswith("map-mine.png: already exists; keep it with --skip-existing, or replace it with --overwrite")
    assert main([*command[:5], *table, *photos]) == 0  # as if it had been killed before it drew the first
    rows = (tmp_path / "t.csv").read_text()
    assert main([*command, *table, "--skip-existing", *photos]) == 0
    assert "already have their captions: 1 (skipped)" in capsys.readouterr().err
    assert (tmp_path / "map-coffee.png").is_file() and (tmp_path / "map-mine.png").read_text() == "mine"
    assert (tmp_path / "t.csv").read_text() == rows
    assert main([*command, "--csv", str(tmp_path / "other.csv"), "--skip-existing", *photos]) == 0
    assert (tmp_path / "map-mine.png").read_text() == "mine"
    assert main([*command, "--overwrite", *photos]) == 0
    assert (tmp_path / "map-mine.png").read_bytes().startswith(b"\x89PNG")


def test_a_photo_that_is_a_link_to_itself_is_one_line(model, tmp_path, capsys):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert main(["caption", "--model", str(model), "--attention-map", str(tmp_path / "map.png"), str(loop)]) == 1
    assert capsys.readouterr().err.startswith(f"caption_utils: {loop}: ")


def test_an_ambiguous_attention_map_is_one_line_before_any_work(model, tmp_path, refused):
    shutil.copy(PHOTO, tmp_path / "coffee.png")
    line = refused("caption", "--model", model, "--attention-map", tmp_path / "map.png", PHOTO, tmp_path / "coffee.png")
    assert "map-coffee.png: would hold the maps of both" in line


def test_no_model_is_one_line(tmp_path, refused):
    line = refused("caption", "--model", tmp_path / "none", PHOTO)
    assert line.endswith("none/config.json: not found; point to a model folder that training wrote")


def test_a_model_of_other_weights_is_one_line(model, refused):
    config = json.loads((model / "config.json").read_text())
    config["encoder"]["fingerprint"] = "0ther"
    (model / "config.json").write_text(json.dumps(config))
    assert "its weights differ" in refused("caption", "--model", model, PHOTO)
