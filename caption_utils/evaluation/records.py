"""An evaluation as files: its row in a csv, its captions as JSON."""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from caption_utils.errors import InputError
from caption_utils.evaluation.report import Evaluation
from caption_utils.files import key_of, replacing
from caption_utils.training.preparation import check_folder


def check_place(path: str | Path) -> None:
    """Raises ``InputError`` if ``path`` is a folder, or where no file can be written."""
    if Path(path).is_dir():
        raise InputError(f"{path}: a folder; name a file in it")
    check_folder(Path(path).parent)


def check_new(captions: str | Path, record: str | Path | None) -> None:
    """Raises ``InputError`` if the captions would replace a file, or the row that goes to ``record``."""
    if os.path.lexists(captions):
        raise InputError(f"{captions}: already exists; name another file for the captions")
    if record and key_of(record) == key_of(captions):
        raise InputError(f"{captions}: is to hold the row; name another file for the captions")


def write_captions(path: str | Path, evaluation: Evaluation) -> None:
    """Write the captions in COCO's result format, a photo a line; ``image_id`` is the photo's name in the data set.

    Raises ``InputError`` for a file that cannot be written.
    """
    entries = [
        {"image_id": image, "caption": caption.text, "log_probability": round(caption.log_probability, 4)}
        for image, caption in zip(evaluation.images, evaluation.captions, strict=True)
    ]
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def append_row(path: str | Path, row: Mapping[str, object]) -> None:
    """Add a row to a csv whose columns are the row's names, creating it; whole or not at all.

    Raises ``InputError`` for a file with other columns and for one that cannot be written.
    """
    rows = rows_with(path, row)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*rows, row.values()])


def rows_with(path: str | Path, columns: Iterable[str]) -> list[list[str]]:
    """The rows of a csv that has these columns, header first; the header alone if there is no such file yet.

    Raises ``InputError`` for a file with other columns.
    """
    header = list(columns)
    rows = _read_rows(Path(path)) or [header]
    if rows[0] != header or any(len(cells) != len(header) for cells in rows):
        raise InputError(f"{path}: its columns are not {', '.join(header)}; record into another file")
    return rows


def _read_rows(path: Path) -> list[list[str]]:
    """The rows of a csv, header first; none if there is no such file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
            return [cells for cells in csv.reader(file) if cells]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as csv ({error}); record into another file") from None
