"""Caption files in the layouts found in the wild → rows of image, caption and split.

A layout is told by a file's content: a table with a header (Kaggle's ``image,caption``, Flickr30k's
``results.csv``, a user's own CSV or TSV), ``name#k<TAB>caption`` lines (the original distribution),
Karpathy's JSON, or JSON lines.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from caption_utils.data.folders import subfolders
from caption_utils.errors import InputError

KNOWN_NAMES = ("captions.txt", "Flickr8k.token.txt", "results.csv", "results_20130124.token")
SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".token"}
SPLIT_NAMES = {
    "": "",
    "train": "train",
    "restval": "train",
    "val": "val",
    "dev": "val",
    "validation": "val",
    "test": "test",
}
IMAGE_COLUMNS, CAPTION_COLUMNS = ("image", "image_name"), ("caption", "comment")
USE_KARPATHY = "use Karpathy's dataset_flickr8k.json, or that of Flickr30k or COCO"
LAYOUTS = "a header 'image,caption', 'name#0<TAB>caption' lines, Karpathy's JSON or JSON lines"

TOKEN_LINE = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")
KARPATHY = re.compile(r'"(images|dataset)"\s*:')
NUMBERED = re.compile(r"\s*\d+\s+(?P<caption>\S.*)")
ROW_START = re.compile(r'"?[^",\t]+\.(jpe?g|png|gif|bmp|webp)"?[,\t]', re.IGNORECASE)
LONGEST_RECORD = 20  # lines that one quoted caption may span


@dataclass
class Captions:
    """Rows in file order, in three lists (split ``""`` where the file gives none), and notes on oddities."""

    name: str = ""
    images: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, image: str, caption: str, split: str = "") -> None:
        self.images.append(image)
        self.captions.append(caption)
        self.splits.append(split)


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


def read_captions(path: Path) -> Captions:
    """Rows of a caption file of any layout: white space collapsed, rows without a caption dropped, counted.

    Raises ``InputError`` for an empty file, an unknown layout, an encoding other than UTF-8, damaged JSON or
    an unknown split.
    """
    reader = _reader(path)
    if not reader:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; download it again")
        raise InputError(f"{path}: no caption file (expected {LAYOUTS}); add the header line image,caption")
    return _clean(path, reader(path, read_text(path)))


def read_text(path: Path) -> str:
    """UTF-8 text, byte-order mark dropped, line ends as ``\\n``. ``InputError`` for other encodings."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file as UTF-8 and try again") from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _reader(path: Path) -> Callable[[Path, str], Captions] | None:
    """The function that reads this file's layout, told by its first kilobytes; ``None`` if it is none."""
    with path.open("rb") as file:
        head = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    first = re.split(r"[\r\n]", head, maxsplit=1)[0]
    if head.startswith("{"):
        if KARPATHY.search(head):
            return _read_karpathy
        return _read_json_lines if '"image"' in first and '"caption"' in first else None
    if TOKEN_LINE.match(first):
        return _read_tokens
    return _read_table if _columns(first) else None


def _columns(header: str) -> tuple[str, list[str]] | None:
    """Delimiter and lower-case column names, if the line is the header of a caption table."""
    for delimiter in "|\t,":
        names = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
        if any(name in names for name in IMAGE_COLUMNS) and any(name in names for name in CAPTION_COLUMNS):
            return delimiter, names
    return None


def _clean(path: Path, rows: Captions) -> Captions:
    clean, empty = Captions(rows.name, notes=rows.notes), 0
    for image, caption, split in zip(rows.images, rows.captions, rows.splits, strict=True):
        caption = " ".join(caption.split())
        if caption and image:
            clean.add(image, caption, _split_name(path, image, split))
        else:
            empty += 1
    if empty:
        clean.notes.append(f"{path.name}: rows with an empty caption or image name (dropped): {empty}")
    return clean


def _split_name(path: Path, image: str, split: str) -> str:
    name = SPLIT_NAMES.get(split.strip().lower())
    if name is None:
        raise InputError(f"{path}: split {split!r} of {image} is unknown; use train, val or test")
    return name


def _read_tokens(path: Path, text: str) -> Captions:
    rows, odd = Captions(), []
    for number, line in enumerate(text.split("\n"), 1):
        match = TOKEN_LINE.fullmatch(line)
        if match:
            rows.add(match["image"].strip(), match["caption"])
        elif line.strip():
            odd.append(number)
    _note_lines(rows, path, odd, "without a caption (dropped; if the file was cut off, download it again)")
    return rows


def _read_table(path: Path, text: str) -> Captions:
    lines = text.split("\n")
    header = next(number for number, line in enumerate(lines) if line.strip())
    delimiter, names = _columns(lines[header])
    image_at = next(names.index(name) for name in IMAGE_COLUMNS if name in names)
    caption_at = next(names.index(name) for name in CAPTION_COLUMNS if name in names)
    split_at = names.index("split") if "split" in names else len(names)
    rows, odd, repaired = Captions(), [], []
    for number, cells in _records(lines, header + 1, delimiter):
        cells = _merge_extra(cells, len(names), caption_at, delimiter)
        if delimiter == "|" and len(cells) == caption_at and (match := NUMBERED.fullmatch(cells[-1])):
            cells.append(match["caption"])
            repaired.append(number)
        if len(cells) <= max(image_at, caption_at):
            odd.append(number)
            continue
        rows.add(cells[image_at].strip(), cells[caption_at], cells[split_at] if split_at < len(cells) else "")
    _note_lines(rows, path, repaired, "without the last '|' (repaired: the caption follows the number)")
    _note_lines(rows, path, odd, "without a caption (dropped; if the file was cut off, download it again)")
    return rows


def _records(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every record from ``lines[start]`` on; blank lines are skipped."""
    while start < len(lines):
        end = start + 1 if delimiter == "|" else _end_of_record(lines, start)
        if record := "\n".join(lines[start:end]).strip("\n "):
            yield start + 1, _cells(record, delimiter)
        start = end


def _end_of_record(lines: list[str], start: int) -> int:
    """A quoted caption may hold line breaks; a quotation mark never closed must not swallow other rows."""
    if lines[start].count('"') % 2 == 0:
        return start + 1
    for number, line in enumerate(islice(lines, start + 1, start + LONGEST_RECORD), start + 1):
        if ROW_START.match(line):
            break
        if line.count('"') % 2:
            return number + 1
    return start + 1


def _cells(record: str, delimiter: str) -> list[str]:
    if '"' not in record or record.count('"') % 2 or delimiter == "|":
        return record.split(delimiter)
    try:
        return next(csv.reader([record], delimiter=delimiter))
    except csv.Error:
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


def _note_lines(rows: Captions, path: Path, numbers: list[int], what: str) -> None:
    if numbers:
        rows.notes.append(f"{path.name}: lines {what}: {summary(numbers, 'line ')}")


def _read_json_lines(path: Path, text: str) -> Captions:
    rows = Captions()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.add(str(row["image"] or ""), str(row["caption"] or ""), str(row.get("split") or ""))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: line {number} lacks image or caption; correct or delete it") from None
    return rows


def _read_karpathy(path: Path, text: str) -> Captions:
    """Karpathy & Fei-Fei 2015: ``images[].{filepath?, filename, split, sentences[].{raw, tokens}}``."""
    try:
        content = json.loads(text, object_hook=_sentence_or_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: damaged JSON at {where}; download the file again") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{path}: holds no list of images; {USE_KARPATHY}")
    rows = Captions(str(content.get("dataset") or ""))
    for number, entry in enumerate(content["images"]):
        try:
            name = "/".join(filter(None, (entry.get("filepath"), entry["filename"])))
            for sentence in entry["sentences"]:
                rows.add(name, sentence.strip(), str(entry.get("split") or ""))
        except (KeyError, TypeError, AttributeError):
            problem = f"images[{number}] lacks filename or sentences"
            raise InputError(f"{path}: {problem}; {USE_KARPATHY}") from None
    return rows


def _sentence_or_object(entry: dict) -> object:
    """Keeps a sentence's text alone: tokens are most of the file, and freed at once they cost no memory."""
    if "raw" in entry or "tokens" in entry:
        return entry.get("raw") or " ".join(entry.get("tokens") or [])
    return entry
