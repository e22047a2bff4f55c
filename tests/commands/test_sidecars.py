import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caption_utils.__main__ import main
from caption_utils.commands.sidecars import (
    COLUMNS,
    CaptionFiles,
    json_fields,
    map_paths,
    read_table,
    text_paths,
    valid_json,
)
from caption_utils.errors import InputError


@pytest.fixture
def seen(monkeypatch, encoder):
    """The photos that are captioned; the encoder is loaded once for all tests."""
    from caption_utils import captioner

    photos, caption_photos = [], captioner.caption_photos

    def noting(model, paths, beams):
        photos.extend(path.name for path in paths)
        return caption_photos(model, paths, beams)

    monkeypatch.setattr(captioner, "load_encoder", lambda name, device: encoder)
    monkeypatch.setattr(captioner, "caption_photos", noting)
    monkeypatch.setattr("caption_utils.runtime.device", lambda: torch.device("cpu"))
    return photos


@pytest.fixture
def folder(data_folder, tmp_path):
    """Three photos and one that cannot be read."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a.png", "b.png", "c d.png")):
        shutil.copy(data_folder / "Images" / f"{number}.png", tmp_path / "photos" / name)
    (tmp_path / "photos" / "bad.png").touch()
    return tmp_path / "photos"


@pytest.fixture
def caption(seen, model_folder, capsys):
    """Runs the command; returns its status, what it printed and its errors."""

    def run(*arguments):
        seen.clear()
        status = main(["caption", "--model", str(model_folder), "--beam", "1", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def rows_of(table):
    with open(table, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_text_files_and_a_table_hold_what_is_printed(folder, tmp_path, caption):
    table = tmp_path / "new" / "captions.csv"
    status, out, err = caption("--json", folder, "--write", "txt", "--csv", table)
    found = [json.loads(line) for line in out.splitlines()]
    good = [line for line in found if "caption" in line]
    assert status == 1 and err == "" and len(good) == 3 and "bad.png" in found[2]["error"]
    assert rows_of(table) == [
        [*COLUMNS[:3]],
        *([line["image"], line["caption"], f"{line['log_probability']:.4f}"] for line in good),
    ]
    texts = {path.name: path.read_text() for path in folder.glob("*.txt")}
    assert texts == {Path(line["image"]).stem + ".txt": line["caption"] + "\n" for line in good}
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_text_file_of_somebody_else_is_left_alone_unless_it_may_be_replaced(folder, caption):
    (folder / "a.txt").write_text("mine")
    status, out, err = caption(folder / "a.png", folder / "b.png", "--write", "txt")
    assert (status, len(out.splitlines())) == (0, 2)
    assert err == f"caption_utils: text files that already exist: 1, such as {folder}/a.txt (left as they are)\n"
    assert (folder / "a.txt").read_text() == "mine" and (folder / "b.txt").exists()
    status, out, err = caption(folder / "a.png", "--write", "txt", "--overwrite")
    assert (status, err) == (0, "") and f"{folder}/a.png: {(folder / 'a.txt').read_text()}" == out


def test_a_run_goes_on_where_it_was(folder, tmp_path, caption, seen):
    both = ["--write", "txt", "--csv", tmp_path / "captions.csv"]
    caption(folder, *both)
    whole = (tmp_path / "captions.csv").read_bytes()
    (tmp_path / "captions.csv").write_bytes(whole[:-4])  # the last line is cut off, as on a full disk
    (folder / "a.txt").unlink()
    status, _, err = caption(folder, *both, "--skip-existing")
    assert status == 1 and seen == ["a.png", "bad.png", "c d.png"]
    assert "photos that already have their captions: 1 (skipped)" in err
    assert (tmp_path / "captions.csv").read_bytes() == whole and (folder / "a.txt").exists()
    (folder / "bad.png").unlink()
    assert caption(folder, *both, "--skip-existing")[:2] == (0, "") and seen == []
    assert (tmp_path / "captions.csv").read_bytes() == whole


def test_an_interrupted_run_leaves_whole_files(folder, tmp_path, caption, seen, monkeypatch):
    from caption_utils import captioner

    whole_run = captioner.caption_photos

    def interrupted(*arguments):
        yield next(whole_run(*arguments))
        raise KeyboardInterrupt

    both = ["--write", "txt", "--csv", tmp_path / "captions.csv"]
    monkeypatch.setattr(captioner, "caption_photos", interrupted)
    status, _, err = caption(folder, *both)
    assert (status, err) == (130, "caption_utils: interrupted\n")
    assert [row[0] for row in rows_of(tmp_path / "captions.csv")] == ["photo", f"{folder}/a.png"]
    assert [path.name for path in folder.glob("*.t*")] == ["a.txt"]
    monkeypatch.setattr(captioner, "caption_photos", whole_run)
    caption(folder, *both, "--skip-existing")
    assert seen == ["b.png", "bad.png", "c d.png"] and len(rows_of(tmp_path / "captions.csv")) == 4


def test_an_existing_table_is_replaced_only_when_asked(folder, tmp_path, caption):
    table = tmp_path / "captions.csv"
    table.write_text("mine")
    for option, told in (
        ([], "already exists; continue it with --skip-existing"),
        (["--skip-existing"], "not a table of"),
    ):
        status, out, err = caption(folder / "a.png", "--csv", table, *option)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and told in err
        assert table.read_text() == "mine"
    assert caption(folder / "a.png", "--csv", table, "--overwrite", "--model", "none")[0] == 2
    assert table.read_text() == "mine"
    assert caption(folder / "bad.png", "--csv", table, "--overwrite")[0] == 1
    assert table.read_text() == ""
    assert caption(folder / "a.png", "--csv", table, "--overwrite")[0] == 0
    assert [row[0] for row in rows_of(table)] == ["photo", f"{folder}/a.png"]


def test_what_cannot_be_written(folder, tmp_path, caption, monkeypatch):
    """If a text file cannot be written, that photo failed; if the table cannot be, the run ends with one line."""
    (folder / "a.txt").mkdir()
    status, out, err = caption(folder / "a.png", folder / "b.png", "--write", "txt", "--overwrite")
    assert status == 1 and out.startswith(f"{folder}/b.png: ") and len(out.splitlines()) == 1
    assert err.startswith(f"caption_utils: {folder}/a.txt: cannot be written (Is a directory)")
    assert caption(folder / "b.png", "--csv", folder) == (
        2,
        "",
        f"caption_utils: {folder}: a folder; name a file for the table\n",
    )
    for table in (folder, folder / "b.png" / "captions.csv"):
        status, out, err = caption(folder / "b.png", "--csv", table, "--overwrite")
        assert (status, out, len(err.splitlines())) == (2, "", 1) and str(folder) in err


@pytest.mark.parametrize("option", ["--overwrite", "--skip-existing"])
def test_options_about_files_need_files(folder, caption, option):
    status, out, err = caption(folder, option)
    assert (status, out) == (2, "") and err.endswith("need --write txt, --csv FILE or --attention-map FILE\n")
    with pytest.raises(SystemExit, match="2"):
        caption(folder, "--write", "txt", "--overwrite", "--skip-existing")


def test_the_table_takes_no_photos_place(folder, caption):
    for table, options in ((folder / "a.png", []), (folder / "a.txt", ["--write", "txt"])):
        status, out, err = caption(folder / "a.png", *options, "--csv", table, "--overwrite")
        assert (status, out) == (2, "") and "name another file for the table" in err
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG") and not (folder / "a.txt").exists()


def test_photos_that_would_share_a_text_file():
    names = [
        "d/a.jpg",
        "d/a.png",
        "d/A.heic",
        "e/a.jpg",
        "b.c.png",
        "d/no",
        "x.txt",
        "x.png",
        os.path.abspath("e/a.jpg"),
    ]
    found = text_paths([Path(name) for name in names])
    expected = ["d/a.jpg.txt", "d/a.png.txt", "d/A.heic.txt", "e/a.txt", "b.c.txt", "d/no.txt"]
    expected += ["x.txt.txt", "x.png.txt", os.path.abspath("e/a.txt")]
    assert [found[Path(name)] for name in names] == expected
    with pytest.raises(InputError, match="^two photos would share a text file"):
        text_paths([Path("a.jpg"), Path("a.png"), Path("a.jpg.png")])


def test_a_text_file_is_not_shared_with_a_picture_beside_the_photo_either(folder, caption, seen):
    shutil.copy(folder / "b.png", folder / "A.JPG")
    caption(folder / "A.JPG", "--write", "txt")
    assert (folder / "A.JPG.txt").exists()
    (folder / "a.txt").write_text("of another picture")
    caption(folder / "a.png", folder / "b.png", "--write", "txt", "--skip-existing")
    assert seen == ["a.png", "b.png"] and (folder / "a.png.txt").exists() and (folder / "b.txt").exists()
    assert (folder / "a.txt").read_text() == "of another picture"


def test_what_makes_no_text_file_longer(tmp_path):
    """A link to the photo, what is no picture, its own map, and a folder that cannot be listed."""
    for name in ("a.jpg", "a.pdf", "a.png", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a.jpeg").symlink_to("a.jpg")
    photos, maps = [tmp_path / "a.jpg", tmp_path / "gone" / "b.jpg"], {tmp_path / "a.jpg": tmp_path / "a.png"}
    files = CaptionFiles(photos, "txt", None, True, False, maps)
    assert [*files.texts.values()] == [f"{tmp_path}/a.txt", f"{tmp_path}/gone/b.txt"]


class Said:
    text, log_probability, confidence = "a dog , it runs", -1.23456, None
    tokens, attention = ["a"], np.ones((1, 1, 1))


class Sure(Said):
    confidence = 0.41237


def test_any_name_comes_back_from_the_table(tmp_path):
    table = str(tmp_path / "t.csv")
    names = ["a,b.jpg", 'a "b".jpg', "a\nb.jpg", "a\rb.jpg", "a\u2028b\x0b.jpg", "é.jpg", os.fsdecode(b"\xff.jpg"), ""]
    photos = [tmp_path / f"{name}.png" for name in names]
    files = CaptionFiles(photos, None, table, False, False)
    for photo in [*photos, *photos]:
        assert files.write(photo, [Said]) == [Said]
    assert read_table(table) == (3, set(map(str, photos))) and len(rows_of(table)) == len(names) + 1
    assert rows_of(table)[1] == [str(photos[0]), "a dog , it runs", "-1.2346"]
    assert CaptionFiles([*photos, Path("new.png")], None, table, False, True).left == [Path("new.png")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('a.png,a 19" wheel,-1', None),
        ('a.png,"big" wheels,-1', None),
        ('a.png,"a wheel,-1', "a quotation mark in row 2 is not closed"),
        ('"a\nb', "a quotation mark in row 2 is not closed"),  # a name of several lines that is cut off
        ('"a.png,a wheel,-1', "a quotation mark in row 2 is not closed"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_no_row_that_a_person_changed_is_lost(tmp_path, row, reason, encoding):
    table = tmp_path / "t.csv"
    table.write_text(f"photo,caption,log_probability\n{row}\nb.png,my own words,-1\n", encoding=encoding, newline="")
    before = table.read_bytes()
    if reason:
        with pytest.raises(InputError, match=f"t.csv: {reason}; close it or remove the row$"):
            read_table(str(table))
    else:
        assert read_table(str(table)) == (3, {"a.png", "b.png"})
    assert table.read_bytes() == before


@pytest.mark.parametrize("skip_existing", [False, True])
def test_runs_side_by_side_share_a_table(tmp_path, skip_existing):
    table, photos = str(tmp_path / "t.csv"), [tmp_path / "a.png", tmp_path / "b.png"]
    runs = [CaptionFiles([photo], None, table, False, skip_existing) for photo in photos]
    for files, photo in zip(runs, photos, strict=True):
        files.write(photo, [Said])
    assert [row[0] for row in rows_of(table)] == ["photo", *map(str, photos)]


def test_a_table_that_was_moved_away_begins_anew_with_its_header(tmp_path):
    table, photos = str(tmp_path / "t.csv"), [tmp_path / "a.png", tmp_path / "b.png"]
    files = CaptionFiles(photos, None, table, False, False)
    files.write(photos[0], [Said])
    os.replace(table, tmp_path / "first.csv")
    files.write(photos[1], [Said])
    assert [row[0] for row in rows_of(table)] == ["photo", str(photos[1])]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_table_in_a_pipe_has_one_header(tmp_path):
    table, photos = tmp_path / "pipe", [tmp_path / "a.png", tmp_path / "b.png"]
    os.mkfifo(table)
    reader = os.open(table, os.O_RDONLY | os.O_NONBLOCK)
    files = CaptionFiles(photos, None, str(table), True, False)
    for photo in photos:
        files.write(photo, [Said])
    assert [line.split(",")[0] for line in os.read(reader, 999).decode().splitlines()] == ["photo", *map(str, photos)]
    os.close(reader)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_table_on_a_full_disk_is_named():
    message = r"^/dev/full: cannot be written \(No space left on device\); free .* then go on with --skip-existing$"
    with pytest.raises(InputError, match=message):
        CaptionFiles([Path("a.png")], None, "/dev/full", True, False).write(Path("a.png"), [Said])


def test_json_has_no_nan_and_no_infinity():
    found = valid_json({"é": [math.nan, -math.inf, 1.5], "b": "NaN"}, ensure_ascii=False)
    assert found == '{"é": [null, null, 1.5], "b": "NaN"}'


def test_confidence_is_in_json_and_in_a_new_table(tmp_path):
    table, photos = str(tmp_path / "t.csv"), [tmp_path / "a.png", tmp_path / "b.png"]
    CaptionFiles(photos, None, table, False, False).write(photos[0], [Sure])
    CaptionFiles(photos, None, table, False, True).write(photos[1], [Said])  # by a model without confidence
    assert rows_of(table) == [
        ["photo", "caption", "log_probability", "confidence"],
        [str(photos[0]), "a dog , it runs", "-1.2346", "0.4124"],
        [str(photos[1]), "a dog , it runs", "-1.2346", ""],
    ]
    found = json_fields([Sure, Said], 2)
    assert found["confidence"] == 0.4124 and "confidence" not in {**json_fields([Said], 1), **found["runners_up"][0]}


def test_a_table_without_confidence_keeps_its_columns(tmp_path):
    table, photos = str(tmp_path / "t.csv"), [tmp_path / "a.png", tmp_path / "b.png"]
    CaptionFiles(photos, None, table, False, False).write(photos[0], [Said])
    CaptionFiles(photos, None, table, False, True).write(photos[1], [Sure])
    assert [len(row) for row in rows_of(table)] == [3, 3, 3]


@pytest.mark.parametrize(
    "text", ["photo", "photo,caption\na,b\n", "photo,caption,log_probability", "\x00", '"' * 200001]
)
def test_another_file_is_no_table_and_stays_as_it_was(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"^.*t\.csv: (not a table|cannot be read as csv).*; name another file$"):
        read_table(str(tmp_path / "t.csv"))
    assert (tmp_path / "t.csv").read_text() == text


def test_an_empty_folder_among_others_is_an_error_of_its_own(folder, tmp_path, caption, monkeypatch):
    for name in ("empty", "none"):
        (tmp_path / name).mkdir()
    told = f"{tmp_path}/empty: holds no picture; name a folder with files such as photo.jpg"
    status, out, err = caption(tmp_path / "empty", folder / "a.png")
    assert (status, err) == (1, f"caption_utils: {told}\n") and out.startswith(f"{folder}/a.png: ")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/a.png\n{tmp_path}/empty\n"))
    status, out, err = caption("--json", "-")
    assert (status, err) == (1, "")
    assert json.loads(out.splitlines()[0]) == {"image": f"{tmp_path}/empty", "error": told}
    assert caption(tmp_path / "empty") == (2, "", f"caption_utils: {told}\n")
    status, out, err = caption(tmp_path / "empty", tmp_path / "none")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "empty: holds" in err and "none: holds" in err


def test_a_folder_with_its_subfolders_and_a_line_about_other_files(folder, caption, seen):
    (folder / "below").mkdir()
    for name in ("bad.png", "c d.png"):
        (folder / name).unlink()
    shutil.copy(folder / "a.png", folder / "below")
    for name in ("below/notes.txt", "._b.png"):
        (folder / name).touch()
    status, _, err = caption(folder)
    assert (status, err, seen) == (0, "", ["a.png", "b.png"])
    status, _, err = caption(folder, "--recursive")
    assert err == f"caption_utils: {folder}: skipped files that are not pictures: 1\n"
    assert (status, seen) == (0, ["a.png", "b.png", "a.png"])


KILLED = """
import os, signal, sys
from caption_utils import captioner
from caption_utils.__main__ import main
find = captioner.caption_photos
def killed(*arguments):
    for number, found in enumerate(find(*arguments)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield found
captioner.caption_photos = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_leaves_whole_files(folder, tmp_path, caption, seen, model_folder):
    table, both = tmp_path / "captions.csv", ["--write", "txt", "--csv", str(tmp_path / "captions.csv")]
    command = ["caption", "--model", str(model_folder), "--beam", "1", str(folder), *both]
    assert subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True).returncode == -9
    assert [row[0] for row in rows_of(table)[1:]] == [f"{folder}/a.png", f"{folder}/b.png"]
    assert sorted(path.name for path in folder.glob("*.t*")) == ["a.txt", "b.txt"]
    caption(folder, *both, "--skip-existing")
    assert seen == ["bad.png", "c d.png"] and len(rows_of(table)) == 4


@pytest.mark.parametrize("photos", [1, 3])
def test_attention_maps_among_the_photos_are_no_photos_of_a_resumed_run(folder, caption, seen, photos):
    for name in ("bad.png", "b.png", "c d.png")[: 4 - photos]:
        (folder / name).unlink()
    maps = ["--attention-map", folder / "where.png"]
    assert caption(folder, *maps)[0] == 0
    files = sorted(folder.iterdir())
    status, out, err = caption(folder, *maps, "--skip-existing")
    assert (status, out, seen) == (0, "", []) and sorted(folder.iterdir()) == files
    assert f"attention maps among the photos: {photos} (skipped)\n" in err
    shutil.copy(folder / "a.png", folder / "new.png")
    caption(folder, *maps, "--skip-existing")
    assert "new.png" in seen and (folder / "where-new.png").exists() and not [*folder.glob("where-where*")]


@pytest.mark.parametrize(("out", "reason"), [("a.png", "is one of the photos"), (".", "attention maps are saved as")])
def test_what_is_no_name_for_a_map_is_told_in_a_resumed_run_too(folder, caption, out, reason, monkeypatch):
    monkeypatch.chdir(folder)
    status, _, err = caption("a.png", "--attention-map", out, "--skip-existing")
    assert status == 2 and err.startswith(f"caption_utils: {out}: {reason}")


def test_a_photo_given_twice_has_one_map():
    photos = [Path("a.jpg"), Path("sub/b.jpg"), Path("a.jpg")]
    assert map_paths("maps/out.pdf", photos) == {
        Path("a.jpg"): Path("maps/out-a.pdf"),
        Path("sub/b.jpg"): Path("maps/out-b.pdf"),
    }


@pytest.mark.parametrize("name", ["out.png", "OUT.png", "out-a.png"])
def test_no_photo_among_several_may_be_taken_for_a_map_later(name):
    with pytest.raises(InputError, match=r"^out(-a)?\.png: is one of the photos; name another file"):
        map_paths("out.png", [Path("a.png"), Path(name)])


def test_names_that_differ_in_case_may_be_one_file():
    with pytest.raises(InputError, match=r"Photo\.PNG: is one of the photos; name another file for the attention map"):
        map_paths("Photo.PNG", [Path("photo.png")])
    with pytest.raises(
        InputError, match=r"out-a\.png: would hold the maps of both A\.jpg and a\.png; caption them one"
    ):
        map_paths("out.png", [Path("A.jpg"), Path("a.png")])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out", "out: attention maps are saved as .png, .jpg, .pdf, .svg; end the name with one of them"),
        ("out.txt", "out.txt: attention maps are saved as"),
        ("a.png", "a.png: is one of the photos; name another file for the attention map"),
    ],
)
def test_a_map_s_name_without_a_format_or_of_a_photo_is_one_line(out, message):
    with pytest.raises(InputError) as caught:
        map_paths(out, [Path("a.png")])
    assert message in str(caught.value)
