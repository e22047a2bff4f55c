"""Captions on disk: a text file beside each photo, and one table of all. Both grow photo by photo and stay whole, so that
a run that was killed goes on where it was.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caption_utils.errors import InputError
from caption_utils.files import replacing

if TYPE_CHECKING:  # takes PyTorch
    from caption_utils.captioner import Caption

COLUMNS = ("photo", "caption", "log_probability")


class CaptionFiles:
    """Writes the captions of ``photos`` into text files beside them, into the csv ``table``, or both.

    ``left`` are the photos to caption: with ``skip_existing`` those that not all of these hold already. Text files that
    exist are left alone, and ``notes`` says so; with ``overwrite`` all are replaced.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        texts: bool = False,
        table: str | None = None,
        overwrite: bool = False,
        skip_existing: bool = False,
    ):
        """Raises ``InputError`` for a table that exists already or holds something else, and if there is no output."""
        if (overwrite or skip_existing) and not (texts or table):
            raise InputError("--overwrite and --skip-existing need --write txt or --csv FILE")
        self.texts = text_paths(photos) if texts else {}
        self.table, self.overwrite = table, overwrite
        if table and _key(table) in map(_key, (*photos, *self.texts.values())):
            raise InputError(f"{table}: belongs to one of the photos; name another file for the table")
        if table and not (overwrite or skip_existing) and os.path.lexists(table):
            raise InputError(f"{table}: exists already; go on with --skip-existing, or replace it with --overwrite")
        self.tabled = photos_in(table) if table and skip_existing else set[str]()
        self.left = [photo for photo in photos if not (skip_existing and self._has(photo))]
        self.notes = self._notes(len(photos) - len(self.left))

    def write(self, photo: Path, caption: "Caption") -> None:
        """Raises ``InputError`` if the text file, ``OSError`` if the table cannot be written."""
        if self.table and str(photo) not in self.tabled:
            self._add_row((str(photo), caption.text, f"{caption.log_probability:.4f}"))
        if photo in self.texts and (self.overwrite or not os.path.lexists(self.texts[photo])):
            with replacing(self.texts[photo]) as temporary:
                temporary.write_text(f"{caption.text}\n", encoding="utf-8")

    def _has(self, photo: Path) -> bool:
        in_table = not self.table or str(photo) in self.tabled
        return in_table and (photo not in self.texts or os.path.lexists(self.texts[photo]))

    def _notes(self, done: int) -> list[str]:
        notes = [f"{done} photos have their captions already and are skipped"] if done else []
        kept = (
            []
            if self.overwrite
            else [text for photo in self.left if os.path.lexists(text := self.texts.get(photo, ""))]
        )
        if kept:
            notes.append(
                f"{len(kept)} text files exist already and are left alone, such as {kept[0]} (see --overwrite)"
            )
        return notes

    def _add_row(self, row: tuple[str, ...]) -> None:
        assert self.table
        Path(self.table).parent.mkdir(parents=True, exist_ok=True)
        rows, mode = ([row], "a") if self.tabled else ([COLUMNS, row], "w")
        with open(self.table, mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        self.tabled.add(row[0])


def text_paths(photos: Sequence[Path]) -> dict[Path, str]:
    """Photo → text file: ``photo.txt``, or ``photo.jpg.txt`` where several photos would share it or one has that name.

    Raises ``InputError`` if these cannot be told apart either.
    """
    found = {photo: f"{os.path.splitext(photo)[0]}.txt" for photo in photos}
    for _ in range(2):
        uses = Counter(map(_key, (*found, *found.values())))
        shared = [photo for photo, text in found.items() if uses[_key(text)] > 1]
        found |= {photo: f"{photo}.txt" for photo in shared}
    if shared:
        raise InputError(f"{found[shared[0]]}: would belong to several photos; caption them one at a time")
    return found


def photos_in(table: str) -> set[str]:
    """The photos of a table that ``CaptionFiles`` wrote; a last line that was cut off is removed from it.

    Raises ``InputError`` if it is another file.
    """
    try:
        data = Path(table).read_bytes() if os.path.lexists(table) else b""
        whole = data[: data.rfind(b"\n") + 1]
        rows = list(csv.reader(whole.decode("utf-8", "surrogateescape").splitlines(keepends=True)))
        start = data.split(b"\n")[0].rstrip(b"\r")
        if not ",".join(COLUMNS).encode().startswith(start) or any(len(row) != len(COLUMNS) for row in rows):
            raise InputError(f"{table}: is no table of {', '.join(COLUMNS)}; name another file")
        if whole != data:
            os.truncate(table, len(whole))
    except (OSError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as csv ({error}); name another file") from None
    return {photo for photo, *_ in rows[1:]}


def _key(path: str | Path) -> str:
    """Equal for paths that may name one file, also on a disk that ignores case."""
    return os.path.abspath(path).casefold()
