"""Caption files in the layouts found in the wild → rows of image, caption and split.

The content of a file tells its layout: a table with a header (Kaggle's ``image,caption``, Flickr30k's
``results.csv``, a user's own CSV or TSV), ``name#k<TAB>caption`` lines (the original distribution),
Karpathy's JSON, or JSON lines.
"""

import json
import os
import re
from ast import literal_eval
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from caption_utils.data.folders import MOST_ENTRIES, files_in, listing
from caption_utils.data.tables import CAPTION_COLUMNS, IMAGE_COLUMNS, Table, column
from caption_utils.data.vocab import has_word
from caption_utils.errors import InputError
from caption_utils.files import read_text

KNOWN_NAMES = ("captions.txt", "flickr8k.token.txt", "results.csv", "results_20130124.token")
SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".token"}
SPLIT_NAMES = {"": "", "train": "train", "restval": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "dev", "validation"), "val")
MISSING = {"nan", "NaN", "null", "NULL", "None", "<NA>", "N/A", "#N/A"}  # written in place of a caption
USE_KARPATHY = (
    "use Karpathy's dataset_flickr8k.json, or that of Flickr30k or COCO, or write a table with the header image,caption"
)
CHOOSE = "point to the one to read, or join them into one captions.txt with a column split"
LAYOUTS = "a header 'image,caption', 'name#0<TAB>caption' lines, Karpathy's JSON or JSON lines"
CUT_OFF = "cut off before the caption"

TOKEN_LINE = re.compile(r"(?P<image>[^\t]+)#\d+\t(?P<caption>.*)")
NUMBERED = re.compile(r"\s*\d+\s+(?P<caption>\S.*)")
ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|""" + "|".join(MISSING)
LIST = re.compile(rf"\[ ?(?:(?:{ITEM}),? ?)+\]")


@dataclass
class CaptionFile:
    """What a caption file holds: rows in file order, the data set's ``name`` if it gives one, notes on oddities.

    ``dropped`` maps each reason for dropping rows to the numbers of their lines (or images).
    """

    path: Path
    name: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list)  # image, caption, split (or "")
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, image: str, caption: str, split: str = "") -> None:
        """Add a row for each caption, with entities of HTML replaced and white space collapsed.

        It is dropped if the image or the caption is empty.
        """
        from html import unescape  # its table takes a millisecond, which captioning does not need

        image, known = image.strip(), SPLIT_NAMES.get(split.strip().lower())
        for item in _items(" ".join(caption.split())):
            text = " ".join(unescape(item).split())
            if not image or text in MISSING or not has_word(text):
                self.drop(number, "without an image name or a word in the caption")
            elif known is None:
                raise InputError(f"{self.path}: split {split!r} of {image} is unknown; use train, val or test")
            else:
                self.rows.append((image, text, known))

    def drop(self, number: int, reason: str) -> None:
        self.dropped.setdefault(reason, []).append(number)


def _items(text: str) -> list[str]:
    """The text itself, or its items if it is a list that was written to a table as text."""
    if LIST.fullmatch(text):
        with suppress(SyntaxError, ValueError):  # not a list after all
            items = [item if item in MISSING else literal_eval(item) for item in re.findall(ITEM, text)]
            return [item.encode(errors="replace").decode() for item in items]
    return [text]


def find_caption_file(root: Path) -> Path:
    """``root`` itself if it is a file, else the caption file in it or in one of its subfolders.

    Raises ``InputError`` if there is none, or several of which none has a well-known name.
    """
    if os.path.isfile(root):
        return root
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder; point to the folder that holds captions.txt and Images")
    for folders in ([root], map(Path, listing(root)[0])):
        found = [path for folder in folders for path in _caption_files(folder)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found[:4])
            raise InputError(f"{root}: {len(found)} caption files ({names}); {CHOOSE}")
        if found:
            return found[0]
    tables = [path for path in files_in(root) if path.suffix.lower() in SUFFIXES - {".txt"}]
    if len(tables) == 1:
        read_captions(tables[0])  # raises, and says what is wrong with it
    raise InputError(f"{root}: no caption file; put captions.txt (first line image,caption) beside Images")


def _caption_files(folder: Path) -> list[Path]:
    """The file with a well-known name, or else those in a known layout."""
    files = files_in(folder)
    named = [path for name in KNOWN_NAMES for path in files if path.name.lower() == name and os.path.isfile(path)]
    return named[:1] or list(filter(_is_caption_file, files))


def _is_caption_file(path: Path) -> bool:
    """Whether it is in a known layout; an unreadable file is not."""
    with suppress(InputError):
        return path.suffix.lower() in SUFFIXES and os.path.isfile(path) and _reader(path) is not None
    return False


def passed_over(file: Path) -> list[str]:
    """Names of the other caption files beside ``file``, which ``find_caption_file`` chose by its name.

    Only the first ``MOST_ENTRIES`` that may be one by their suffix are read.
    """
    others = [path for path in files_in(file.parent) if path != file and path.suffix.lower() in SUFFIXES]
    return [path.name for path in others[:MOST_ENTRIES] if _is_caption_file(path)]


def read_captions(path: Path) -> CaptionFile:
    """The rows of a caption file of any layout.

    Raises ``InputError`` for an empty file, an unknown layout, an encoding other than UTF-8 and UTF-16, damaged JSON
    or an unknown split.
    """
    reader = _reader(path)
    if not reader:
        if not path.stat().st_size:
            raise InputError(f"{path}: the file is empty; download it again")
        if "\0" in read_text(path, 1 << 16, errors="replace"):
            raise InputError(f"{path}: not text; unpack it if it is an archive, or save it as CSV in UTF-8")
        raise InputError(
            f"{path}: no caption file (expected {LAYOUTS}); add the header line image,caption, or write such a table"
        )
    file = CaptionFile(path)
    reader(file, read_text(path))
    where = "images " if reader is _read_karpathy else "line "
    for reason, numbers in file.dropped.items():
        file.notes.append(f"{path.name}: rows dropped ({reason}): {summary(numbers, where)}")
    return file


def _reader(path: Path) -> Callable[[CaptionFile, str], None] | None:
    """The function that reads this file's layout, judged by its first kilobytes; ``None`` for an unknown one."""
    head = read_text(path, 1 << 16, errors="replace").lstrip()
    first = head.split("\n", 1)[0]
    if head.startswith("{"):
        keys = re.findall(r'"(\w+)"\s*:', first)
        if "images" not in keys and column(IMAGE_COLUMNS, keys) and column(CAPTION_COLUMNS, keys):
            return _read_json_lines
        return _read_karpathy if re.search(r'"(images|dataset)"\s*:', head) else None
    if TOKEN_LINE.match(first):
        return _read_tokens
    return _read_table if Table.of(first) else None


def _read_tokens(file: CaptionFile, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if match := TOKEN_LINE.fullmatch(line):
            file.add(number, match["image"], match["caption"])
        elif line.strip():
            file.drop(number, CUT_OFF)


def _read_table(file: CaptionFile, text: str) -> None:
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line.strip())
    table = Table.of(lines[start])
    assert table  # _reader has seen the header
    names = [name.strip().strip('"') for name in lines[start].split(table.delimiter)]
    unread = [name for at, name in enumerate(names) if name and at not in (table.image, table.caption, table.split)]
    note_names(file.notes, unread, f"{file.path.name}: columns not read")
    repaired = []
    for number, cells in table.rows(lines, start + 1):
        if table.delimiter == "|" and len(cells) == table.caption and (match := NUMBERED.fullmatch(cells[-1])):
            cells.append(match["caption"])
            repaired.append(number)
        if len(cells) > max(table.image, table.caption):
            split = cells[table.split] if 0 <= table.split < len(cells) else ""
            file.add(number, cells[table.image], cells[table.caption], split)
        else:
            file.drop(number, CUT_OFF)
    if repaired:
        what = "without the last '|' (repaired: the caption follows the number)"
        file.notes.append(f"{file.path.name}: lines {what}: {summary(repaired, 'line ')}")


def note_names(notes: list[str], names: Sequence[str], what: str) -> None:
    """Add a note on ``names`` if there are any."""
    if names:
        notes.append(f"{what}: {summary(names)}")


def summary(items: Sequence, prefix: str = "") -> str:
    """Count and the first three: ``"5 (a, b, c, …)"``."""
    shown = f"{len(items)} ({prefix}{', '.join(map(str, items[:3]))}{', …' if len(items) > 3 else ''})"
    return shown.encode(errors="backslashreplace").decode()  # names may hold bytes that are not text


def _read_json_lines(file: CaptionFile, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            for row in _json_rows(file.path, number, line):
                file.add(number, *row)


def _json_rows(path: Path, number: int, line: str) -> list[tuple[str, str, str]]:
    """Image, caption and split, once for each caption of the line."""
    try:
        row = {key: value for key, value in json.loads(line).items() if not isinstance(value, dict)}
        image, split = _text(row[column(IMAGE_COLUMNS, row)]), _text(row.get("split"))
        return [(image, caption, split) for caption in _texts(row[column(CAPTION_COLUMNS, row)])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: line {number} lacks image or caption, as text; correct or delete it") from None


def _text(value: object) -> str:
    """A string from JSON; an empty one for null and NaN. Raises ``TypeError`` for anything else."""
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value.encode(errors="replace").decode()  # half a surrogate pair could not be written again


def _texts(value: object) -> list[str]:
    """One caption or a list of them; an empty list counts as one that is missing."""
    return [_text(item) for item in value or [None]] if isinstance(value, list) else [_text(value)]


def _read_karpathy(file: CaptionFile, text: str) -> None:
    """Karpathy & Fei-Fei 2015: ``images[].{filepath?, filename, split, sentences[].{raw, tokens}}``."""
    try:
        content = json.loads(text, object_hook=_sentence_or_object)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file.path}: damaged JSON ({error}); download the file again") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{file.path}: no list of images in it; {USE_KARPATHY}")
    file.name = str(content.get("dataset") or "")
    for number, entry in enumerate(content["images"]):
        try:
            name = "/".join(filter(None, (_text(entry.get("filepath")), _text(entry["filename"]))))
            captions, split = _texts(entry["sentences"]), _text(entry.get("split"))
        except (KeyError, TypeError, AttributeError):
            what = f"images[{number}] lacks filename or sentences, or has a split that is no text"
            raise InputError(f"{file.path}: {what}; {USE_KARPATHY}") from None
        for caption in captions:
            file.add(number, name, caption, split)


def _sentence_or_object(entry: dict) -> object:
    """Keeps only the text of a sentence: tokens are most of the file, and would take most of the memory."""
    if "raw" in entry or "tokens" in entry:
        return entry.get("raw") or " ".join(entry.get("tokens") or [])
    return entry
