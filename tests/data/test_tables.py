import csv
import io

import pytest

from caption_utils.data.layouts import read_captions
from caption_utils.data.tables import LONGEST_RECORD


def read(tmp_path, text, name="mine.csv"):
    (tmp_path / name).write_bytes(text.encode())
    return read_captions(tmp_path / name)


def rows(file):
    return [(image, caption) for image, caption, _ in file.rows]


THREE = [("a{}", 'A pipe, 3" wide'), ("b{}", "A cat sits"), ("c{}", 'A 7" nail')]


@pytest.mark.parametrize("columns", ["split,image,caption", ",image,caption", "caption,image", "caption,split,image,n"])
@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".HEIC", ".jp2"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_quotation_mark_inside_a_cell_is_text(tmp_path, columns, suffix, delimiter):
    """Inch marks, in any order of columns, with pandas' index column, whatever the photos' suffix."""
    lines = [columns]
    for image, caption in THREE:
        cells = {"split": "train", "image": image.format(suffix), "caption": caption}
        lines.append(",".join(cells.get(name, "0") for name in columns.split(",")))
    comma = delimiter == ","
    text = "\n".join(lines if comma else [line.replace(",", delimiter) for line in lines])
    expected = [
        (image.format(suffix), caption if comma else caption.replace(",", delimiter)) for image, caption in THREE
    ]
    assert rows(read(tmp_path, text)) == [(image, " ".join(caption.split())) for image, caption in expected]


@pytest.mark.parametrize("columns", ["image,caption", "caption,image", "split,image,caption", "caption,image,split"])
def test_an_unclosed_cell_ends_with_its_row(tmp_path, columns):
    """Also where a mark that ends a later row would close it."""
    texts = ['"Stop says a sign', "A cat", 'A "', "A cow"]
    order = columns.split(",")
    lines = [columns]
    for name, text in zip("abcd", texts, strict=True):
        cells = {"image": f"{name}.jpg", "caption": text, "split": "val"}
        lines.append(",".join(cells[column] for column in order))
    expected = [(f"{name}.jpg", text) for name, text in zip("abcd", texts, strict=True)]
    assert rows(read(tmp_path, "\n".join(lines))) == expected


@pytest.mark.parametrize("columns", [["image", "caption"], ["caption", "image"], ["caption", "split", "image"]])
def test_a_quoted_caption_holds_anything(tmp_path, columns):
    captions = ['Says "a, b"\nand goes', "One;\r\n\r\ntwo,", '"All of it"', 'Ends with "', "\n".join(["line"] * 19)]
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(columns)
    for number, caption in enumerate(captions):
        cells = {"image": f"{number}.webp", "caption": caption, "split": "test"}
        table.writerow([cells[name] for name in columns])
    expected = [(f"{number}.webp", " ".join(caption.split())) for number, caption in enumerate(captions)]
    assert rows(read(tmp_path, file.getvalue())) == expected


def test_a_quoted_caption_spans_a_limited_number_of_lines(tmp_path):
    text = 'image,caption\na.jpg,"A dog\n' + "so it goes\n" * LONGEST_RECORD + '"\nb.jpg,A cat\n'
    file = read(tmp_path, text)
    assert rows(file) == [("a.jpg", '"A dog'), ("b.jpg", "A cat")]
    assert list(map(len, file.dropped.values())) == [LONGEST_RECORD + 1]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file_name,text", "a.png,A dog"),
        ("text\tfile_name", "A dog\ta.png"),
        ("Image;Caption", "a.png;A dog"),
        ('"filename","captions"', '"a.png","A dog"'),
        ("id,image,filename,caption", "1,a.png,other.png,A dog"),
    ],
)
def test_columns_have_many_names(tmp_path, header, row):
    assert rows(read(tmp_path, f"{header}\n{row}\n")) == [("a.png", "A dog")]


@pytest.mark.parametrize(
    "cell",
    [
        '"[\'A dog, wet\', ""It\'s a cat""]"',
        '"[\'A dog, wet\'\n ""It\'s a cat""]"',  # a NumPy array
        '"[""A dog, wet"", ""It\'s a cat""]"',
    ],
)
def test_a_list_written_as_text_gives_a_row_for_each_item(tmp_path, cell):
    """As the hub's Flickr30k has it, in its columns, and as pandas writes it."""
    file = read(
        tmp_path, f'raw,sentids,split,filename,img_id\n{cell},"[0, 1]",train,a.jpg,0\n[sic] A cow,[],,b.jpg,1\n'
    )
    assert file.rows == [
        ("a.jpg", "A dog, wet", "train"),
        ("a.jpg", "It's a cat", "train"),
        ("b.jpg", "[sic] A cow", ""),
    ]


def test_rows_are_kept_or_dropped_for_a_reason(tmp_path):
    file = read(tmp_path, "image,caption\na.jpg,A dog\nb.jpg,\n\n,A cat\nc.jpg,nan\nd.jpg,None\ne.jpg\nf.j")
    assert rows(file) == [("a.jpg", "A dog")]
    assert list(file.dropped.values()) == [[3, 5, 6, 7], [8, 9]]
    assert file.notes == [
        "mine.csv: rows dropped (without an image name or a word in the caption): 4 (line 3, 5, 6, …)",
        "mine.csv: rows dropped (cut off before the caption): 2 (line 8, 9)",
    ]
