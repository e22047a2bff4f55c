"""Captions for other programs: JSON, a text file beside each photo, one table. Files are whole after each photo."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caption_utils.errors import InputError
from caption_utils.files import replacing

if TYPE_CHECKING:  # takes PyTorch
    from caption_utils.captioner import Caption

    Found = list[Caption] | InputError

COLUMNS = ("photo", "caption", "log_probability", "confidence")  # the last only where there is any
ERRORS = "surrogateescape"  # names of files may be no text


def json_fields(found: "Found", top: int) -> dict:
    """The best ``top`` captions of a photo as JSON takes them, or why there is none."""
    if isinstance(found, InputError):
        return {"error": str(found)}
    said = [{"caption": each.text, "log_probability": round(each.log_probability, 4)} for each in found[:top]]
    if found[0].confidence is not None:
        said[0]["confidence"] = round(found[0].confidence, 4)
    attention = found[0].attention.astype(float).round(4).tolist()  # float32 would show digits that mean nothing
    best = {**said[0], "tokens": found[0].tokens, "attention": attention}
    return best | {"runners_up": said[1:]} if top > 1 else best


class CaptionFiles:
    """Captions of ``photos`` in text files beside them (``write``), in the csv ``table``, in both or in neither.

    ``left`` are the photos to caption: with ``skip_existing`` those that not all of these hold yet. Text files that
    exist are left alone, unless ``overwrite``; ``notes`` says so.
    """

    def __init__(
        self, photos: Sequence[Path], write: str | None, table: str | None, overwrite: bool, skip_existing: bool
    ):
        """Raises ``InputError`` for a table that exists already or is something else, and if nothing is written."""
        if (overwrite or skip_existing) and not (write or table):
            raise InputError("--overwrite and --skip-existing need --write txt or --csv FILE")
        self.texts = text_paths(photos) if write else {}
        self.table, self.overwrite = table, overwrite
        if table and _key(table) in {*map(_key, photos), *map(_key, self.texts.values())}:
            raise InputError(f"{table}: is a photo or the text file of one; name another file for the table")
        if table and os.path.isdir(table):
            raise InputError(f"{table}: a folder; name a file for the table")
        if table and not (overwrite or skip_existing) and os.path.lexists(table):
            raise InputError(f"{table}: exists already; go on with --skip-existing, or replace it with --overwrite")
        self.columns, self.tabled = read_table(table) if table and skip_existing else (0, set[str]())
        self.left = [photo for photo in photos if not (skip_existing and self._has(photo))]
        done, kept = len(photos) - len(self.left), [self.texts[photo] for photo in self.left if self._keeps(photo)]
        self.notes = [f"photos that have their captions already: {done} (skipped)"] if done else []
        if kept:
            self.notes.append(f"text files that exist already: {len(kept)}, such as {kept[0]} (left as they are)")

    def write(self, photo: Path, found: "Found") -> "Found":
        """Returns ``found``, or why the text file cannot be written. Raises ``OSError`` if the table cannot be."""
        if isinstance(found, InputError):
            return found
        if self.table and str(photo) not in self.tabled:
            self._add_row(self.table, str(photo), found[0])
        if photo in self.texts and not self._keeps(photo):
            try:
                with replacing(self.texts[photo]) as temporary:
                    temporary.write_text(f"{found[0].text}\n", encoding="utf-8")
            except InputError as error:
                return error
        return found

    def _add_row(self, table: str, photo: str, best: "Caption") -> None:
        """A table keeps the columns that it has; a new one has those for which its first caption has values."""
        confidence = "" if best.confidence is None else f"{best.confidence:.4f}"
        self.columns = self.columns or len(COLUMNS) - (not confidence)
        rows = [(photo, best.text, f"{best.log_probability:.4f}", confidence)]
        Path(table).parent.mkdir(parents=True, exist_ok=True)
        with open(table, "a" if self.tabled else "w", encoding="utf-8", errors=ERRORS, newline="") as file:
            csv.writer(file).writerows(row[: self.columns] for row in (rows if self.tabled else [COLUMNS, *rows]))
        self.tabled.add(photo)

    def _keeps(self, photo: Path) -> bool:
        return not self.overwrite and os.path.lexists(self.texts.get(photo, ""))

    def _has(self, photo: Path) -> bool:
        return (not self.table or str(photo) in self.tabled) and (not self.texts or self._keeps(photo))


def text_paths(photos: Sequence[Path]) -> dict[Path, str]:
    """Photo → text file: ``photo.txt``, or ``photo.jpg.txt`` where several photos would share it or one is called so.

    Raises ``InputError`` if that name is taken as well.
    """
    short = {photo: f"{os.path.splitext(photo)[0]}.txt" for photo in photos}
    pairs = {_key(photo): _key(text) for photo, text in short.items()}  # a photo may be named in several ways
    uses = Counter([*pairs, *pairs.values()])
    found = {photo: text if uses[_key(text)] == 1 else f"{photo}.txt" for photo, text in short.items()}
    if len({*found.values(), *map(str, found)}) < 2 * len(found):
        raise InputError("two photos would share a text file, as a.jpg and a.jpg.png may; caption them one at a time")
    return found


def read_table(table: str) -> tuple[int, set[str]]:
    """How many columns a table has, and its photos, if there is one; a last line that was cut off is removed from it.

    Raises ``InputError`` if it is another kind of file.
    """
    data = Path(table).read_bytes() if os.path.lexists(table) else b""
    whole = data[: data.rfind(b"\n") + 1]
    rows = csv.reader(io.StringIO(whole.decode("utf-8", ERRORS), newline=""))
    try:
        header = next(rows, []) if data else []
        if data and header not in ([*COLUMNS[:-1]], [*COLUMNS]):
            raise InputError(f"{table}: is no table of {', '.join(COLUMNS)}; name another file")
        found = {row[0] for row in rows if row}
    except csv.Error as error:
        raise InputError(f"{table}: cannot be read as csv ({error}); name another file") from None
    if whole != data:
        os.truncate(table, len(whole))
    return len(header), found


def _key(path: str | Path) -> str:
    """Equal for paths that may name one file, also where case does not count."""
    return os.path.abspath(path).casefold()
