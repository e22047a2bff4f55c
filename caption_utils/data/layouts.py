"""Caption files in the layouts found in the wild → rows of image, caption and split.

A layout is told by a file's content: a table with a header (Kaggle's ``image,caption``, Flickr30k's
``results.csv``, a user's own CSV or TSV), ``name#k<TAB>caption`` lines (the original distribution),
Karpathy's JSON, or JSON lines.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from caption_utils.data.folders import subfolders
from caption_utils.errors import InputError

KNOWN_NAMES = ("captions.txt", "Flickr8k.token.txt", "results.csv", "results_20130124.token")
SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".token"}
SPLIT_NAMES = {"": "", "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "validation"), "val")
FLICKR30K = {"image_name": "image", "comment": "caption"}  # its names of columns
USE_KARPATHY = "use Karpathy's dataset_flickr8k.json, or that of Flickr30k or COCO"
LAYOUTS = "a header 'image,caption', 'name#0<TAB>caption' lines, Karpathy's JSON or JSON lines"
CUT_OFF = "without a caption (dropped; if the file was cut off, download it again)"

TOKEN_LINE = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")
KARPATHY = re.compile(r'"(images|dataset)"\s*:')
NUMBERED = re.compile(r"\s*\d+\s+(?P<caption>\S.*)")
ROW_START = re.compile(r'"?[^",\t]+\.(jpe?g|png|gif|bmp|webp)"?[,\t]', re.IGNORECASE)
LONGEST_RECORD = 20  # lines that one quoted caption may span


@dataclass
class CaptionFile:
    """What a caption file holds: rows in file order, its data set's ``name`` where it gives one, notes on oddities."""

    path: Path
    name: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)  # image, caption, split ("" where none is given)
    notes: list[str] = field(default_factory=list)
    empty: int = 0

    def add(self, image: str, caption: str, split: str = "") -> None:
        """A row, white space in the caption collapsed; one without an image name or a caption is only counted."""
        caption, known = " ".join(caption.split()), SPLIT_NAMES.get(split.strip().lower())
        if caption and image:
            if known is None:
                raise InputError(f"{self.path}: split {split!r} of {image} is unknown; use train, val or test")
            self.rows.append((image, caption, known))
        else:
            self.empty += 1

    def note_lines(self, numbers: Sequence[int], what: str) -> None:
        """Note what is odd about some lines, if there are any."""
        if numbers:
            self.notes.append(f"{self.path.name}: lines {what}: {summary(numbers, 'line ')}")


def find_caption_file(root: Path) -> Path:
    """``root`` itself if it is a file, else the caption file in it or in one of its subfolders.

    Raises ``InputError`` if there is none, or several of which none has a well-known name.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; point to the folder that holds captions.txt and Images")
    for folders in ([root], subfolders(root)):
        found = [path for folder in folders for path in _caption_files(folder)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found[:4])
            raise InputError(f"{root}: {len(found)} caption files ({names}); point to the one to read")
        if found:
            return found[0]
    raise InputError(f"{root}: no caption file; put captions.txt (first line image,caption) beside Images")


def _caption_files(folder: Path) -> list[Path]:
    for name in KNOWN_NAMES:
        if (folder / name).is_file():
            return [folder / name]
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in files if _reader(path)]


def read_captions(path: Path) -> CaptionFile:
    """The rows of a caption file of any layout.

    Raises ``InputError`` for an empty file, an unknown layout, an encoding other than UTF-8, damaged JSON or
    an unknown split.
    """
    reader = _reader(path)
    if not reader:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; download it again")
        raise InputError(f"{path}: no caption file (expected {LAYOUTS}); add the header line image,caption")
    file = CaptionFile(path)
    reader(file, read_text(path))
    if file.empty:
        file.notes.append(f"{path.name}: rows with an empty caption or image name (dropped): {file.empty}")
    return file


def read_text(path: Path) -> str:
    """UTF-8 text without byte-order mark, line ends as ``\\n``. Raises ``InputError`` for other encodings."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file as UTF-8 and try again") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _reader(path: Path) -> Callable[[CaptionFile, str], None] | None:
    """The function that reads this file's layout, told by its first kilobytes; ``None`` if it has none."""
    with path.open("rb") as file:
        head = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    first = re.split(r"[\r\n]", head, maxsplit=1)[0]
    if head.startswith("{"):
        if KARPATHY.search(head):
            return _read_karpathy
        return _read_json_lines if '"image"' in first and '"caption"' in first else None
    if TOKEN_LINE.match(first):
        return _read_tokens
    return _read_table if _header(first)[1] else None


def _header(line: str) -> tuple[str, list[str]]:
    """Delimiter and lower-case column names of a caption table; no column if the line is no header of one."""
    for delimiter in "|\t,":
        cells = [cell.strip().strip('"').lower() for cell in line.split(delimiter)]
        names = [cell if (usual := FLICKR30K.get(cell, cell)) in cells else usual for cell in cells]
        if "image" in names and "caption" in names:
            return delimiter, names
    return "", []


def _read_tokens(file: CaptionFile, text: str) -> None:
    odd = []
    for number, line in enumerate(text.split("\n"), 1):
        if match := TOKEN_LINE.fullmatch(line):
            file.add(match["image"].strip(), match["caption"])
        elif line.strip():
            odd.append(number)
    file.note_lines(odd, CUT_OFF)


def _read_table(file: CaptionFile, text: str) -> None:
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line.strip())
    delimiter, names = _header(lines[start])
    caption_at, odd, repaired = names.index("caption"), [], []
    for number, cells in _records(lines, start + 1, delimiter):
        cells = _merge_extra(cells, len(names), caption_at, delimiter)
        if delimiter == "|" and len(cells) == caption_at and (match := NUMBERED.fullmatch(cells[-1])):
            cells.append(match["caption"])
            repaired.append(number)
        row = dict(zip(names, cells, strict=False))
        if "image" in row and "caption" in row:
            file.add(row["image"].strip(), row["caption"], row.get("split", ""))
        else:
            odd.append(number)
    file.note_lines(repaired, "without the last '|' (repaired: the caption follows the number)")
    file.note_lines(odd, CUT_OFF)


def _records(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every record from ``lines[start]`` on; blank lines are skipped."""
    while start < len(lines):
        end = start + 1 if delimiter == "|" else _end_of_record(lines, start)
        if record := "\n".join(lines[start:end]).strip("\n "):
            yield start + 1, _cells(record, delimiter)
        start = end


def _end_of_record(lines: list[str], start: int) -> int:
    """A quoted caption may hold line breaks; a quotation mark never closed must not swallow other rows."""
    if lines[start].count('"') % 2:
        for number, line in enumerate(islice(lines, start + 1, start + LONGEST_RECORD), start + 1):
            if ROW_START.match(line):
                break
            if line.count('"') % 2:
                return number + 1
    return start + 1


def _cells(record: str, delimiter: str) -> list[str]:
    if '"' in record and record.count('"') % 2 == 0 and delimiter != "|":
        with suppress(csv.Error):
            return next(csv.reader([record], delimiter=delimiter))
    return record.split(delimiter)


def _merge_extra(cells: list[str], width: int, caption_at: int, delimiter: str) -> list[str]:
    """Delimiters beyond the header's belong to an unquoted caption."""
    if len(cells) <= width:
        return cells
    end = caption_at + len(cells) - width + 1
    return [*cells[:caption_at], delimiter.join(cells[caption_at:end]), *cells[end:]]


def summary(items: Sequence, prefix: str = "") -> str:
    """Count and the first three: ``"5 (a, b, c, …)"``."""
    return f"{len(items)} ({prefix}{', '.join(map(str, items[:3]))}{', …' if len(items) > 3 else ''})"


def _read_json_lines(file: CaptionFile, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            file.add(str(row["image"] or ""), str(row["caption"] or ""), str(row.get("split") or ""))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise InputError(f"{file.path}: line {number} lacks image or caption; correct or delete it") from None


def _read_karpathy(file: CaptionFile, text: str) -> None:
    """Karpathy & Fei-Fei 2015: ``images[].{filepath?, filename, split, sentences[].{raw, tokens}}``."""
    try:
        content = json.loads(text, object_hook=_sentence_or_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{file.path}: damaged JSON at {where}; download the file again") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{file.path}: holds no list of images; {USE_KARPATHY}")
    file.name = str(content.get("dataset") or "")
    for number, entry in enumerate(content["images"]):
        try:
            name = "/".join(filter(None, (entry.get("filepath"), entry["filename"])))
            for sentence in entry["sentences"]:
                file.add(name, sentence, str(entry.get("split") or ""))
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{file.path}: images[{number}] lacks filename or sentences; {USE_KARPATHY}") from None


def _sentence_or_object(entry: dict) -> object:
    """Keeps only the text of a sentence: tokens are most of the file, and freed at once they cost no memory."""
    if "raw" in entry or "tokens" in entry:
        return entry.get("raw") or " ".join(entry.get("tokens") or [])
    return entry
