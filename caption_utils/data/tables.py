"""Rows of a delimited table. A cell that starts with a quotation mark may hold anything; elsewhere the mark is text."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from caption_utils.data.folders import IMAGE_SUFFIXES

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
CAPTION_COLUMNS = ("caption", "captions", "comment", "text", "raw")
LONGEST_RECORD = 20  # lines that one quoted caption may span


def column(names: tuple[str, ...], present: Collection[str]) -> str | None:
    """The first of ``names`` that is ``present``."""
    return next((name for name in names if name in present), None)


@dataclass(frozen=True)
class Table:
    """Delimiter and columns of a table, by its header; ``split`` is -1 without such a column."""

    delimiter: str
    width: int
    image: int
    caption: int
    split: int

    @classmethod
    def of(cls, header: str) -> "Table | None":
        """The table with this header; ``None`` if the line is not a header of a caption table."""
        for delimiter in "|\t,;":
            names = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
            image, caption = column(IMAGE_COLUMNS, names), column(CAPTION_COLUMNS, names)
            if image and caption:
                split = names.index("split") if "split" in names else -1
                return cls(delimiter, len(names), names.index(image), names.index(caption), split)
        return None

    def rows(self, lines: list[str], start: int) -> Iterator[tuple[int, list[str]]]:
        """Line number and cells of each row from ``lines[start]`` on; blank lines are skipped."""
        while start < len(lines):
            cells, span = lines[start].split(self.delimiter), 1
            if '"' in lines[start]:
                cells, span = self._record(lines[start : start + LONGEST_RECORD])
            if len(cells) > self.width:  # delimiters in an unquoted caption
                end = self.caption + len(cells) - self.width + 1
                cells[self.caption : end] = [self.delimiter.join(cells[self.caption : end])]
            if span > 1 or lines[start].strip():
                yield start + 1, cells
            start += span

    def _record(self, lines: list[str]) -> tuple[list[str], int]:
        """Cells of the record at the start of these lines, and how many lines it spans."""
        cells, span = self._cells("\n".join(lines))
        if span > 1 and sum(map(self._is_row, lines[:span])) > 1:  # a quotation mark was left open
            return self._cells(lines[0])[0], 1
        return cells, span

    def _cells(self, text: str) -> tuple[list[str], int]:
        cells, end = [], rf"[{self.delimiter}\n]|\Z"
        for cell in re.finditer(rf'(?:"((?:[^"]|"")*+)"(?={end})|([^{self.delimiter}\n]*))({end})', text):
            cells.append(cell[2] if cell[1] is None else cell[1].replace('""', '"'))
            if cell[3] != self.delimiter:
                break
        return cells, text.count("\n", 0, cell.start(3)) + 1

    def _is_row(self, line: str) -> bool:
        """Whether a line on its own names an image where a row would."""
        cells = line.split(self.delimiter)
        at = self.image - (self.width if self.image > self.caption else 0)  # beyond the caption, counted from the end
        return len(cells) >= self.width and cells[at].strip(' "').lower().endswith(IMAGE_SUFFIXES)
