"""Captions for other programs: JSON, a text file beside each photo, a csv; and where attention maps go.

All files are complete after each photo.
"""

import csv
import io
import json
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caption_utils.data.folders import IMAGE_SUFFIXES, files_in
from caption_utils.errors import InputError
from caption_utils.files import key_of, replacing

if TYPE_CHECKING:  # takes PyTorch
    from caption_utils.captioner import Caption

    Found = list[Caption] | InputError

COLUMNS = ("photo", "caption", "log_probability", "confidence")  # the last only where the model has it
MAP_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
ERRORS = "surrogateescape"  # file names may be bytes that are not text


def valid_json(content: Mapping, ensure_ascii: bool = True) -> str:
    """The content as JSON, which has no NaN and no infinity: ``null`` stands for them."""
    valid = json.loads(json.dumps(content), parse_constant=lambda name: None)
    return json.dumps(valid, ensure_ascii=ensure_ascii)


def json_fields(found: "Found", top: int) -> dict:
    """The best ``top`` captions of a photo, or why it has none, as fields of a JSON object."""
    if isinstance(found, InputError):
        return {"error": str(found)}
    best, *others = [{"caption": each.text, "log_probability": round(each.log_probability, 4)} for each in found[:top]]
    if found[0].confidence is not None:
        best["confidence"] = round(found[0].confidence, 4)
    attention = found[0].attention.astype(float).round(4).tolist()  # float32 would show meaningless digits
    fields = best | {"tokens": found[0].tokens, "attention": attention}
    return fields | {"runners_up": others} if top > 1 else fields


class CaptionFiles:
    """Captions of ``photos`` in text files beside them (``write``), in the csv ``table``, in both or in neither.

    ``left`` are the photos to caption: all, or with ``skip_existing`` those that still lack one of these or their file
    among the attention ``maps``. Existing text files are kept unless ``overwrite``; ``notes`` says so.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        write: str | None,
        table: str | None,
        overwrite: bool,
        skip_existing: bool,
        maps: Mapping[Path, Path] | None = None,
    ):
        """Raises ``InputError`` for an existing table or map that may neither be replaced nor stay, for a table of
        another kind, and for ``overwrite`` or ``skip_existing`` without any output.
        """
        if (overwrite or skip_existing) and not (write or table or maps):
            raise InputError("--overwrite and --skip-existing need --write txt, --csv FILE or --attention-map FILE")
        self.texts = text_paths(photos, (maps or {}).values()) if write else {}
        self.table, self.overwrite, self.maps = table, overwrite, maps or {}
        if not (overwrite or skip_existing):
            _check_maps(self.maps.values())
        self.columns, self.in_table = 0, set[str]()
        if table:
            _check_table(table, [*photos, *self.texts.values()], overwrite or skip_existing)
            if skip_existing:
                self.columns, self.in_table = read_table(table)
        self.left = [photo for photo in photos if not (skip_existing and self._has(photo))]
        self.notes = self._notes(len(photos) - len(self.left))

    def begin(self) -> None:
        """Empty a table to be replaced, even if no photo gets a caption. Raises ``OSError`` if that cannot be done."""
        if self.table and self.overwrite and os.path.isfile(self.table):
            os.truncate(self.table, 0)

    def map_of(self, photo: Path) -> Path | None:
        """Where the photo's attention map is to be saved, if anywhere; one that is there stays unless ``overwrite``."""
        path = self.maps.get(photo)
        return None if path is None or (os.path.isfile(path) and not self.overwrite) else path

    def write(self, photo: Path, found: "Found") -> "Found":
        """Returns ``found``, or why the text file cannot be written. Raises ``InputError`` if the table cannot be."""
        if isinstance(found, InputError):
            return found
        if self.table and str(photo) not in self.in_table:
            self._add_row(self.table, str(photo), found[0])
        if photo in self.texts and not self._keeps(photo):
            try:
                with replacing(self.texts[photo]) as temporary:
                    temporary.write_text(f"{found[0].text}\n", encoding="utf-8")
            except InputError as error:
                return error
        return found

    def _add_row(self, table: str, photo: str, best: "Caption") -> None:
        """A table keeps its columns; a new one has ``confidence`` if its first caption has."""
        confidence = "" if best.confidence is None else f"{best.confidence:.4f}"
        self.columns = self.columns or len(COLUMNS) - (not confidence)
        row = (photo, best.text, f"{best.log_probability:.4f}", confidence)
        try:
            Path(table).parent.mkdir(parents=True, exist_ok=True)
            with open(table, "a", encoding="utf-8", errors=ERRORS, newline="") as file:
                begun = os.path.getsize(table) or (self.in_table and not os.path.isfile(table))  # a pipe has no size
                csv.writer(file).writerows(cells[: self.columns] for cells in ([row] if begun else [COLUMNS, row]))
        except OSError as error:
            raise InputError(
                f"{table}: cannot be written ({error.strerror or error}); free some disk space or check its "
                "permissions, then go on with --skip-existing"
            ) from None
        self.in_table.add(photo)

    def _keeps(self, photo: Path) -> bool:
        return not self.overwrite and os.path.lexists(self.texts.get(photo, ""))

    def _has(self, photo: Path) -> bool:
        drawn = not self.maps or os.path.isfile(self.maps[photo])
        return drawn and (not self.table or str(photo) in self.in_table) and (not self.texts or self._keeps(photo))

    def _notes(self, skipped: int) -> list[str]:
        notes = [f"photos that already have their captions: {skipped} (skipped)"] if skipped else []
        if kept := [self.texts[photo] for photo in self.left if self._keeps(photo)]:
            notes.append(f"text files that already exist: {len(kept)}, such as {kept[0]} (left as they are)")
        return notes


def text_paths(photos: Sequence[Path], maps: Iterable[Path] = ()) -> dict[Path, str]:
    """Photo → text file: ``photo.txt``, or ``photo.jpg.txt`` if several pictures would share it or one has that name.

    Other pictures beside the photos count, but for ``maps``. Raises ``InputError`` if that name is taken as well.
    """
    short = {photo: f"{os.path.splitext(photo)[0]}.txt" for photo in photos}
    names, folders = {photo.stem.casefold() for photo in photos}, {photo.parent for photo in photos}
    files = [file for folder in folders for file in files_in(folder) if file.stem.casefold() in names]
    beside = {file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}.difference(photos, maps)
    pairs = {key_of(picture): key_of(f"{os.path.splitext(picture)[0]}.txt") for picture in [*beside, *photos]}
    uses = Counter([*pairs, *pairs.values()])  # a picture may be named in several ways
    found = {photo: text if uses[key_of(text)] < 2 else f"{photo}.txt" for photo, text in short.items()}
    if len({*found.values(), *map(str, found)}) < 2 * len(found):
        raise InputError("two photos would share a text file, as a.jpg and a.jpg.png may; caption them one at a time")
    return found


def without_maps(out: str, photos: Sequence[Path], notes: list[str]) -> list[Path]:
    """The photos but for the attention maps that an earlier run with this ``out`` saved among them; a note says so."""
    maps = {key_of(out), *(key_of(_map_of_several(Path(out), photo)) for photo in photos)}
    left = [photo for photo in photos if key_of(photo) not in maps] or list(photos)
    if len(left) < len(photos):
        notes.append(f"attention maps among the photos: {len(photos) - len(left)} (skipped)")
    return left


def _map_of_several(out: Path, photo: Path) -> Path:
    return out.parent / f"{out.stem}-{photo.stem}{out.suffix}"


def map_paths(out: str, photos: Sequence[Path]) -> dict[Path, Path]:
    """Photo → file of its attention map: ``out`` for one photo, ``out-NAME.png`` beside it for each of several.

    Raises ``InputError`` for an unknown format, two photos with the same file, and a photo that has the name of a map
    or of ``out``, also where case does not count.
    """
    path = Path(out)
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise InputError(f"{out}: attention maps are saved as {', '.join(MAP_SUFFIXES)}; end the name with one of them")
    found, taken = dict[Path, Path](), dict[str, Path]()
    for photo in dict.fromkeys(photos):
        own = path if len(set(photos)) == 1 else _map_of_several(path, photo)
        if (key := key_of(own)) in taken:
            raise InputError(f"{own}: would hold the maps of both {taken[key]} and {photo}; caption them one at a time")
        found[photo], taken[key] = own, photo
    maps = {key_of(own): own for own in (path, *found.values())}  # ``without_maps`` takes all of them for maps
    if replaced := maps.keys() & set(map(key_of, photos)):
        raise InputError(f"{maps[min(replaced)]}: is one of the photos; name another file for the attention map")
    return found


def _check_table(table: str, taken: Iterable[str | Path], may_exist: bool) -> None:
    if key_of(table) in map(key_of, taken):
        raise InputError(f"{table}: is a photo or the text file of one; name another file for the table")
    if os.path.isdir(table):
        raise InputError(f"{table}: a folder; name a file for the table")
    if os.path.lexists(table) and not may_exist:
        raise InputError(f"{table}: already exists; continue it with --skip-existing, or replace it with --overwrite")


def _check_maps(maps: Iterable[Path]) -> None:
    if existing := next(filter(os.path.isfile, maps), None):
        raise InputError(f"{existing}: already exists; keep it with --skip-existing, or replace it with --overwrite")


def read_table(table: str) -> tuple[int, set[str]]:
    """The number of columns of a table, if there is one, and its photos; a last line that is cut off is removed.

    Raises ``InputError`` if it is another kind of file or has a quotation mark that is not closed.
    """
    data = Path(table).read_bytes() if os.path.lexists(table) else b""
    whole = data[: data.rfind(b"\n") + 1]
    text = whole.removeprefix(BOM_UTF8).decode("utf-8", ERRORS)  # spreadsheets write a mark
    try:
        *rows, last = csv.reader(io.StringIO(f"{text}.", newline=""))
    except csv.Error as error:
        raise InputError(f"{table}: cannot be read as csv ({error}); name another file") from None
    header = rows[0] if rows else []
    if data and header not in ([*COLUMNS[:-1]], [*COLUMNS]):
        raise InputError(f"{table}: not a table of {', '.join(COLUMNS)}; name another file")
    if last != ["."]:  # within a cell
        raise InputError(f"{table}: a quotation mark in row {len(rows) + 1} is not closed; close it or remove the row")
    if whole != data:
        os.truncate(table, len(whole))
    return len(header), {row[0] for row in rows[1:] if row}
