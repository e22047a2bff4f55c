"""Small data sets, drawn at random and written in every layout, are read as they were written, and nothing is lost.

``CAPTION_CASES`` sets how many; each is drawn from its number alone, so that one that fails can be drawn again.
"""

import csv
import io
import json
import os
import re
import unicodedata
from random import Random

import pytest

from caption_utils.data.datasets import load_dataset
from caption_utils.errors import InputError

CASES = int(os.environ.get("CAPTION_CASES", "400"))
BATCHES = 8
STEMS = [
    "a",
    "IMG_1",
    "IMG (2)",
    "über",
    "ñandú é",
    "犬",
    "x.y",
    "1000_693b",
    "50%",
    "a#1",
    "it's",
    "-r",
    "[b]",
    "z z",
    "🐕",
]
SUFFIXES = [".jpg", ".JPG", ".jpeg", ".png", ".jfif", ".webp", ".tiff", ".jp2", ".HEIC"]
WORDS = [
    '21"',
    "dog",
    "A",
    "runs",
    "wet,",
    "red;",
    "don't",
    "café",
    "犬",
    "«né»",
    "x.jpg",
    "'quoted'",
    "🐕",
    "(2)",
    "\\n",
    "–",
]
QUOTED = ['"big', 'red"', '"wet"', '""', '",', '"']
EMPTY = ["", " ", "...", "nan", "NaN", '"', "–"]
FOLDERS = ["Images", "images", "photos", "Flickr8k_Dataset/Flicker8k_Dataset", "."]


class DataSet:
    """A table of image, caption and split, the photos that are there, and how both are spelled."""

    def __init__(self, draw, breaks):
        self.draw = draw
        stems = draw.sample(STEMS, draw.randint(1, 9))
        self.names = [draw.choice(["", "", "sub/"]) + stem + draw.choice(SUFFIXES) for stem in stems]
        self.form = {name: draw.choice(["NFC", "NFD"]) for name in self.names}
        self.there = {name for name in self.names if draw.random() < 0.9}
        given = draw.random() < 0.3
        self.split = {name: draw.choice(["train", "dev", "test", ""]) if given else "" for name in self.names}
        self.rows = [(name, self.caption(breaks)) for name in self.names for _ in range(draw.randint(1, 4))]
        draw.shuffle(self.rows)

    def caption(self, breaks):
        if self.draw.random() < 0.1:
            return self.draw.choice(EMPTY)
        words = self.draw.choices(WORDS + (QUOTED if breaks else []), k=self.draw.randint(1, 7))
        breaks = breaks and "x.jpg" not in words  # a line that names a photo in the right cell is read as a row
        gaps = [" ", "  ", "\u2028"] + ["\n", "\r\n", "\t", " \n\n"] * breaks
        return "".join(word + self.draw.choice(gaps) for word in words) + self.draw.choice(["dog", "dog ", 'a 5"'])

    def spelled(self, name):
        """The name in the caption file."""
        name = unicodedata.normalize(self.draw.choice(["NFC", "NFD"]), name)
        return name.replace("/", "\\") if self.draw.random() < 0.3 else name

    def real(self, name):
        """The name of the file."""
        return unicodedata.normalize(self.form[name], name)

    def by_image(self):
        return {name: [caption for other, caption in self.rows if other == name] for name in self.names}


def strict_table(data):
    """As Python, pandas and spreadsheets write it."""
    columns = data.draw.sample(["image", "caption", "split", "index"], 4)
    file, end = io.StringIO(), data.draw.choice(["\n", "\r\n"])
    quoting = data.draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    table = csv.writer(file, delimiter=data.draw.choice(",\t;"), quoting=quoting, lineterminator=end)
    table.writerow(["" if name == "index" else name for name in columns])
    for number, (name, caption) in enumerate(data.rows):
        cells = {"image": data.spelled(name), "caption": caption, "split": data.split[name], "index": number}
        table.writerow([cells[column] for column in columns])
    return "captions.csv", file.getvalue(), data.rows


def loose_table(data):
    """As people write it: no quoting, whatever the captions hold; some open with a quotation mark."""
    columns, delimiter = data.draw.sample(["image", "caption", "split"], 3), data.draw.choice(",;\t|")
    opened = [data.draw.choice(["", "", '"']) for _ in data.rows]
    rows = [
        (name, mark + caption.replace('"', mark and "'"))
        for mark, (name, caption) in zip(opened, data.rows, strict=True)
    ]
    lines = [delimiter.join(columns)]
    for name, caption in rows:
        cells = {"image": data.spelled(name), "caption": caption, "split": data.split[name]}
        lines.append(delimiter.join(cells[column] for column in columns))
    return "captions.txt", "\n".join(lines), rows


def flickr30k(data):
    data.split = dict.fromkeys(data.names, "")
    lines = [f"{data.spelled(name)}| {k}| {caption}" for k, (name, caption) in enumerate(data.rows)]
    return "results.csv", "\n".join(["image_name| comment_number| comment", *lines]), data.rows


def original(data):
    data.split = dict.fromkeys(data.names, "")
    lines = [f"{data.spelled(name)}#{k}\t{caption}" for k, (name, caption) in enumerate(data.rows)]
    return "Flickr8k.token.txt", "\n".join(lines), data.rows


def karpathy(data):
    images, rows = [], []
    for name, captions in data.by_image().items():
        folder, _, file = data.spelled(name).replace("\\", "/").rpartition("/")
        sentences = [{"raw": c} if data.draw.random() < 0.5 else {"tokens": c.split()} for c in captions]
        images.append({"filepath": folder, "filename": file, "sentences": sentences, "split": data.split[name]})
        rows += [(name, caption) for caption in captions]
    indent = data.draw.choice([None, 1])
    return "dataset.json", json.dumps({"dataset": "any", "images": images}, indent=indent), rows


def json_lines(data):
    key, lines, rows = data.draw.choice(["image", "file_name", "filename"]), [], []
    for name, captions in data.by_image().items():
        extra = data.draw.choice([[], [""], [None], [float("nan")]])
        rows += [(name, caption if isinstance(caption, str) else "") for caption in captions + extra]
        lines.append({key: data.spelled(name), "caption": captions + extra, "split": data.split[name] or None})
    for line in lines:
        if len(line["caption"]) == 1 and data.draw.random() < 0.5:
            line["caption"] = line["caption"][0]
    text = "\n".join(json.dumps(line, ensure_ascii=data.draw.random() < 0.5) for line in lines)
    return "metadata.jsonl", text, rows


LAYOUTS = {strict_table: True, loose_table: False, flickr30k: False, original: False, karpathy: True, json_lines: True}


def write(folder, data, name, text):
    encoding = data.draw.choice(["utf-8", "utf-8-sig", "utf-16"])
    (folder / name).write_bytes(text.encode(encoding))
    images = folder / data.draw.choice(FOLDERS)
    extra = ["uncaptioned.png", "._a.jpg", "notes.md"]
    for photo in [*map(data.real, sorted(data.there)), *data.draw.sample(extra, data.draw.randint(0, 3))]:
        (images / photo).parent.mkdir(parents=True, exist_ok=True)
        (images / photo).touch()
    neighbour = folder.parent / "other" / "Flickr_8k.trainImages.txt"
    neighbour.parent.mkdir()
    neighbour.write_text("".join(f"{name}\n" for name in data.names[: len(data.names) // 2]) + "else.jpg\n")


def check(case, folder):
    draw = Random(case)
    layout = draw.choice(list(LAYOUTS))
    data = DataSet(draw, LAYOUTS[layout])
    name, text, rows = layout(data)
    folder.mkdir(parents=True)
    write(folder, data, name, text)
    worded = [(n, " ".join(c.split())) for n, c in rows if any(map(str.isalnum, c)) and c.strip().lower() != "nan"]
    given = any(data.split[n] for n, _ in worded if n in data.there)
    kept = [(data.real(n), c) for n, c in worded if n in data.there and (data.split[n] or not given)]
    if not kept:
        with pytest.raises(InputError):
            load_dataset(folder)
        return
    dataset = load_dataset(folder)
    assert list(zip(dataset.table["image"], dataset.table["caption"], strict=True)) == kept
    note = re.fullmatch(r"Rows: (\d+) read, (\d+) kept(?:, (\d+) dropped \((.*)\))?", dataset.notes[-1])
    reasons = [int(reason.split()[0]) for reason in re.split(r", (?=\d)", note[4] or "0")]
    assert (int(note[1]), int(note[2]), int(note[3] or 0)) == (len(rows), len(kept), len(rows) - len(kept))
    assert sum(reasons) == len(rows) - len(kept)
    parts = dict(zip(dataset.table["image"], dataset.table["split"], strict=True))
    assert all(parts[image] == part for image, part in zip(dataset.table["image"], dataset.table["split"], strict=True))
    if given:
        assert parts == {data.real(n): data.split[n].replace("dev", "val") for n, _ in worded if data.real(n) in parts}


@pytest.mark.parametrize("batch", [0, *(pytest.param(batch, marks=pytest.mark.slow) for batch in range(1, BATCHES))])
def test_what_is_written_is_read(tmp_path, batch):
    for case in range(batch, CASES, BATCHES):
        try:
            check(case, tmp_path / str(case) / "data")
        except Exception as error:
            error.add_note(f"case {case}: {tmp_path / str(case)}")
            raise
