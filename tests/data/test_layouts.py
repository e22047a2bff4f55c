import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from caption_utils.data.layouts import find_caption_file, read_captions
from caption_utils.errors import InputError

UNREADABLE = Path("/proc/self/mem")  # Linux opens it, but cannot read its start
TOO_DEEP = "[" * 100_000 + "]" * 100_000  # JSON that no version of Python parses


def write(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(tmp_path, content, name="captions.txt"):
    return read_captions(write(tmp_path / name, content))


def rows(captions):
    return [(image, caption) for image, caption, _ in captions.rows]


def zipped(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("captions.txt", content)
    return packed.getvalue()


def fails(path, message):
    with pytest.raises(InputError) as caught:
        read_captions(path)
    assert str(caught.value) == message


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": "a.jpg",
            "split": "restval",
            "sentences": [{"raw": "A dog .\n", "tokens": ["a", "dog"]}, {"tokens": ["two", "dogs"]}],
        },
        {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "A cat .", "tokens": ["a", "cat"]}]},
    ],
}


# Tables with a header


def test_kaggle_table_with_quotes_and_commas(tmp_path):
    text = 'image,caption\na.jpg,"A red, wet dog ."\na.jpg,"He says ""hi"" ."\nb.jpg,A dog, a cat, a cow\n'
    assert rows(read(tmp_path, text)) == [
        ("a.jpg", "A red, wet dog ."),
        ("a.jpg", 'He says "hi" .'),
        ("b.jpg", "A dog, a cat, a cow"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(tmp_path, end, mark):
    text = mark + end.join(["image,caption", "a.jpg,A dog", "b.jpg,A cat", ""])
    assert rows(read(tmp_path, text)) == [("a.jpg", "A dog"), ("b.jpg", "A cat")]


@pytest.mark.parametrize(
    "caption",
    ['A 5" pipe', '"Stop', 'A "big, red" dog', "Dog", "word " * 99 + "end", "un café – « né » “où” 犬\u2028x"],
)
def test_captions_are_read_unchanged(tmp_path, caption):
    captions = read(tmp_path, f"image,caption\na.jpg,{caption}\nb.jpg,A cat\n")
    assert rows(captions) == [("a.jpg", " ".join(caption.split())), ("b.jpg", "A cat")]


def test_quoted_caption_may_span_lines(tmp_path):
    text = 'image,caption\na.jpg,"A dog\nruns"\nb.jpg,A cat\n'
    assert rows(read(tmp_path, text)) == [("a.jpg", "A dog runs"), ("b.jpg", "A cat")]


def test_unclosed_quotation_marks_swallow_no_rows(tmp_path):
    text = 'image,caption\na.jpg,"A dog\nb.jpg,"A cat\nc.jpg,A cow\n'
    assert rows(read(tmp_path, text)) == [("a.jpg", '"A dog'), ("b.jpg", '"A cat'), ("c.jpg", "A cow")]


def test_last_line_cut_before_its_comma(tmp_path):
    captions = read(tmp_path, "image,caption\na.jpg,A dog\nb.j")
    assert rows(captions) == [("a.jpg", "A dog")]
    assert captions.notes == ["captions.txt: rows dropped (cut off before the caption): 1 (line 3)"]


def test_captions_without_a_word_are_dropped_and_counted(tmp_path):
    captions = read(tmp_path, 'image,caption\na.jpg,\nb.jpg,A cat\nc.jpg," "\n\nd.jpg,...\ne.jpg,🙂 !\nf.jpg,№\n')
    assert rows(captions) == [("b.jpg", "A cat"), ("f.jpg", "№")]
    assert captions.notes == [
        "captions.txt: rows dropped (without an image name or a word in the caption): 4 (line 2, 4, 6, …)"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.csv", 'Caption,Split,Image\n"A dog, wet",dev,a.jpg\nA cat,train,b.jpg\n'),
        ("mine.tsv", "image\tcaption\tsplit\na.jpg\tA dog, wet\tval\nb.jpg\tA cat\ttrain\n"),
        ("mine.csv", "image,caption,split\na.jpg,A dog, wet,validation\nb.jpg,A cat,train\n"),
        (
            "mine.jsonl",
            '{"image": "a.jpg", "caption": "A dog, wet", "split": "val"}\n\n'
            '{"image": "b.jpg", "caption": "A cat", "split": "train"}',
        ),
    ],
)
def test_custom_files_with_a_split(tmp_path, name, text):
    captions = read(tmp_path, text, name)
    assert rows(captions) == [("a.jpg", "A dog, wet"), ("b.jpg", "A cat")]
    assert [split for *_, split in captions.rows] == ["val", "train"]


def test_flickr30k_results_and_its_malformed_row(tmp_path):
    captions = read(
        tmp_path,
        'image_name| comment_number| comment\n1.jpg| 0| Two men , "one" old .\n'
        "1.jpg| 4   A dog runs .\n2.jpg| 0| A | B\n",
        "results.csv",
    )
    assert rows(captions) == [("1.jpg", 'Two men , "one" old .'), ("1.jpg", "A dog runs ."), ("2.jpg", "A | B")]
    assert captions.notes == [
        "results.csv: columns not read: 1 (comment_number)",
        "results.csv: lines without the last '|' (repaired: the caption follows the number): 1 (line 3)",
    ]


@pytest.mark.parametrize(
    ("header", "unread"),
    [
        ("image,caption,caption_2, Set ", "2 (caption_2, Set)"),
        ('"id";"image";"caption";"caption"', "2 (id, caption)"),
        (",image,caption,split", None),
    ],
)
def test_columns_that_are_not_read_are_noted(tmp_path, header, unread):
    captions = read(tmp_path, f"{header}\n", "mine.csv")
    assert captions.notes == ([f"mine.csv: columns not read: {unread}"] if unread else [])


def test_entities_of_html_are_the_signs_they_stand_for(tmp_path):
    text = "image,caption\na.jpg,Tom &amp; Ann&#39;s&nbsp;dog\nb.jpg,\"['It&#39;s one', 'two']\"\nc.jpg,&nbsp;\n"
    captions = read(tmp_path, text)
    assert rows(captions) == [("a.jpg", "Tom & Ann's dog"), ("b.jpg", "It's one"), ("b.jpg", "two")]
    assert list(captions.dropped.values()) == [[4]]


# Other layouts


def test_original_distribution(tmp_path):
    captions = read(tmp_path, "a.jpg#0\tA dog , wet .\r\nb.jpg.1#4\tA cat .\r\nc.jpg#1", "Flickr8k.token.txt")
    assert rows(captions) == [("a.jpg", "A dog , wet ."), ("b.jpg.1", "A cat .")]
    assert captions.notes[0].startswith("Flickr8k.token.txt: rows dropped (cut off")
    assert captions.notes[0].endswith(": 1 (line 3)")


def test_karpathy(tmp_path):
    captions = read(tmp_path, json.dumps(KARPATHY, indent=1), "dataset_coco.json")
    assert captions.name == "coco"
    assert rows(captions) == [("val2014/a.jpg", "A dog ."), ("val2014/a.jpg", "two dogs"), ("b.jpg", "A cat .")]
    assert [split for *_, split in captions.rows] == ["train", "train", "test"]


# JSON lines


@pytest.mark.parametrize("key", ["caption", "captions", "text"])
def test_a_list_of_captions_gives_a_row_for_each(tmp_path, key):
    lines = [
        {
            "image": {"bytes": None},
            "filename": "a.jpg",
            key: ["A dog .", "It's \n one"],
            "sentids": [0, 1],
            "split": "val",
        },
        {"file_name": "b.jpg", key: "A cat", "split": None},
    ]
    captions = read(tmp_path, "\n".join(map(json.dumps, lines)), "metadata.jsonl")
    assert captions.rows == [("a.jpg", "A dog .", "val"), ("a.jpg", "It's one", "val"), ("b.jpg", "A cat", "")]


@pytest.mark.parametrize("nothing", ["NaN", "null", '[null, NaN, ""]', "[]", '"nan"', '"?"'])
def test_a_missing_caption_is_dropped_and_counted(tmp_path, nothing):
    line = '{{"image": "{}.jpg", "caption": {}}}\n'
    captions = read(tmp_path, line.format("a", '"A dog"') + line.format("b", nothing), "mine.jsonl")
    assert rows(captions) == [("a.jpg", "A dog")]
    assert list(captions.dropped.values()) == [[2] * (3 if nothing.startswith("[n") else 1)]


@pytest.mark.parametrize("missing", ["nan", "None", "null", "<NA>", "N/A", "#N/A"])
def test_a_missing_item_of_a_list_in_a_table_is_dropped_and_counted(tmp_path, missing):
    captions = read(tmp_path, f"image,caption\na.jpg,\"['A dog', {missing}]\"\nb.jpg,[{missing}]\n")
    assert rows(captions) == [("a.jpg", "A dog")]
    assert list(captions.dropped.values()) == [[2, 3]]


@pytest.mark.parametrize("name", ["", " "])
def test_a_row_without_an_image_is_dropped_and_counted(tmp_path, name):
    captions = read(tmp_path, f"image,caption\n{name},A dog\na.jpg,A cat\n")
    assert rows(captions) == [("a.jpg", "A cat")]
    assert captions.dropped == {"without an image name or a word in the caption": [2]}


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    assert rows(read(tmp_path, r'{"image": "a.jpg", "caption": "A \ud83d dog"}')) == [("a.jpg", "A ? dog")]


def test_json_lines_may_have_any_other_key(tmp_path):
    line = '{"dataset": "mine", "image": "a.jpg", "caption": "A dog"}'
    assert rows(read(tmp_path, f"{line}\n{line}")) == [("a.jpg", "A dog")] * 2


# Encodings and names


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("text", ["image,caption\na.jpg,Ein Café\n", "a.jpg#0\tEin Café\r\n", json.dumps(KARPATHY)])
def test_text_with_a_byte_order_mark(tmp_path, encoding, text):
    path = write(tmp_path / "captions.txt", text, encoding)
    assert rows(read_captions(path)) == rows(read(tmp_path, text, "plain.txt"))
    assert find_caption_file(path.parent) == path


def test_big_endian_text(tmp_path):
    path = write(tmp_path / "captions.txt", "\ufeffimage,caption\na.jpg,A dog", "utf-16-be")
    assert rows(read_captions(path)) == [("a.jpg", "A dog")]


# What cannot be read


def test_damaged_utf_16_names_its_encoding(tmp_path):
    path = write(tmp_path / "captions.txt", "image,caption\na.jpg,A dog\n".encode("utf-16") + b"\x00\xd8")
    fails(path, f"{path}: line 3 is not UTF-16-LE; save the file as UTF-8 and try again")


@pytest.mark.skipif(not UNREADABLE.exists(), reason="this system has no such file")
def test_a_file_that_opens_but_cannot_be_read(tmp_path):
    path = tmp_path / "captions.txt"
    path.symlink_to(UNREADABLE)
    fails(path, f"{path}: cannot be read (Input/output error); check its permissions")


@pytest.mark.parametrize("text", ["a.jpg,A dog\n", "picture,text\na.jpg,A dog\n", "\n\n", "{}"])
def test_header_missing(tmp_path, text):
    path = write(tmp_path / "captions.txt", text)
    fails(
        path,
        f"{path}: no caption file (expected a header 'image,caption', 'name#0<TAB>caption' lines, "
        "Karpathy's JSON or JSON lines); add the header line image,caption, or write such a table",
    )


def test_empty_file(tmp_path):
    path = write(tmp_path / "captions.txt", "")
    fails(path, f"{path}: the file is empty; download it again")


@pytest.mark.parametrize("pack", [gzip.compress, zipped])
def test_an_archive_is_to_be_unpacked(tmp_path, pack):
    path = tmp_path / "captions"
    path.write_bytes(pack(b"image,caption\na.jpg,A dog\n"))
    fails(path, f"{path}: not text; unpack it if it is an archive, or save it as CSV in UTF-8")


def test_other_encodings_name_the_line(tmp_path):
    path = write(tmp_path / "captions.txt", "image,caption\na.jpg,A dog\nb.jpg,A café\n", "latin-1")
    fails(path, f"{path}: line 3 is not UTF-8; save the file as UTF-8 and try again")


def test_unknown_split(tmp_path):
    path = write(tmp_path / "mine.csv", "image,caption,split\na.jpg,A dog,holdout\n")
    fails(path, f"{path}: split 'holdout' of a.jpg is unknown; use train, val or test")


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "b.jpg"}',
        "[1]",
        '{"image": "b.jpg", "capt',
        '{"image": "b.jpg", "caption": {"raw": "A dog"}}',
        '{"image": {"path": "b.jpg"}, "caption": "A dog"}',
        '{"image": "b.jpg", "caption": [["A dog"]]}',
        '{"image": "b.jpg", "caption": 7}',
        f'{{"image": "b.jpg", "caption": {TOO_DEEP}}}',
        '{"image": "b.jpg", "caption": ' + "9" * 5000 + "}",
    ],
    ids=range(9),
)
def test_damaged_json_lines(tmp_path, line):
    path = write(tmp_path / "mine.jsonl", '{"image": "a.jpg", "caption": "A dog"}\n' + line)
    fails(path, f"{path}: line 2 lacks image or caption, as text; correct or delete it")


def test_damaged_karpathy(tmp_path):
    path = write(tmp_path / "dataset_coco.json", json.dumps(KARPATHY)[:60])
    fails(
        path,
        f"{path}: damaged JSON (Unterminated string starting at: line 1 column 56 (char 55)); download the file again",
    )


@pytest.mark.parametrize(
    "value", [TOO_DEEP, "9" * 5000, '[{"filename": "a", "sentences": [{"tokens": [1]}]}]'], ids=range(3)
)
def test_json_that_python_cannot_hold(tmp_path, value):
    path = write(tmp_path / "dataset_coco.json", f'{{"images": {value}}}')
    with pytest.raises(InputError, match=f"^{path}: damaged JSON ") as caught:
        read_captions(path)
    assert str(caught.value).endswith("); download the file again")


@pytest.mark.parametrize("raw", ["null", "NaN", '"..."'])
def test_karpathy_s_images_without_a_caption_are_counted(tmp_path, raw):
    images = f'[{{"filename": "a.jpg", "sentences": []}}, {{"filename": "b.jpg", "sentences": [{{"raw": {raw}}}]}}]'
    captions = read(tmp_path, f'{{"images": {images}}}')
    assert (captions.rows, list(captions.dropped.values())) == ([], [[0, 1]])


@pytest.mark.parametrize(
    "image",
    ['{"id": 1, "file_name": "a.jpg"}', '{"filename": "a.jpg", "sentences": [{"raw": "A dog"}], "split": 1}'],
)
def test_json_that_is_not_karpathys(tmp_path, image):
    path = write(tmp_path / "captions_val2014.json", f'{{"images": [{image}]}}')
    fails(
        path,
        f"{path}: images[0] lacks filename or sentences, or has a split that is no text; use Karpathy's "
        "dataset_flickr8k.json, or that of Flickr30k or COCO, or write a table with the header image,caption",
    )


@pytest.mark.parametrize("text", ['{"images": 5}', '{"images": [], "raw": "A dog"}', '{"dataset": "coco"}'])
def test_json_without_images(tmp_path, text):
    path = write(tmp_path / "dataset_coco.json", text)
    fails(
        path,
        f"{path}: no list of images in it; use Karpathy's dataset_flickr8k.json, or that of Flickr30k or COCO, "
        "or write a table with the header image,caption",
    )


# Finding the file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "image,caption\na.jpg,A dog\n"),
        ("odd.txt", "a.jpg#0\tA dog\n"),
        ("text/any.txt", "a.jpg#0\tA dog\n"),
        ("all.csv", "image_name| comment_number| comment\na.jpg| 0| A dog\n"),
        ("x.json", json.dumps(KARPATHY)),
    ],
)
def test_files_are_found_by_content(tmp_path, name, text):
    write(tmp_path / "readme.txt", "Some words, no captions\n")
    write(tmp_path / "trainImages.txt", "a.jpg\n")
    write(tmp_path / "package.json", '{"name": "x"}')
    path = write(tmp_path / name, text)
    assert find_caption_file(tmp_path) == path
    assert find_caption_file(path) == path


@pytest.mark.parametrize("name", ["Flickr8k.token.txt", "Captions.txt", "CAPTIONS.TXT", "Results.csv"])
def test_well_known_names_come_first(tmp_path, name):
    write(tmp_path / "Flickr8k.lemma.token.txt", "a.jpg#0\tA dog\n")
    path = write(tmp_path / name, "a.jpg#0\tA dog\n")
    assert find_caption_file(tmp_path) == path


def test_hidden_and_unreadable_files_are_ignored(tmp_path):
    for name in ("._captions.txt", ".old.csv", "__MACOSX/captions.txt"):
        write(tmp_path / name, "image,caption\na.jpg,A dog\n")
    (tmp_path / "all.csv").symlink_to("/proc/self/mem")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = write(tmp_path / "text" / "mine.csv", "image,caption\na.jpg,A dog\n")
    assert find_caption_file(tmp_path) == path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder; point to the folder that holds captions.txt and Images"),
        ([], "no caption file; put captions.txt (first line image,caption) beside Images"),
        (
            ["a.csv", "b.csv"],
            "2 caption files (a.csv, b.csv); point to the one to read, "
            "or join them into one captions.txt with a column split",
        ),
    ],
)
def test_no_single_caption_file(tmp_path, files, message):
    root = tmp_path / "data"
    if files is not None:
        root.mkdir()
        for name in files:
            write(root / name, "image,caption\na.jpg,A dog\n")
    with pytest.raises(InputError) as caught:
        find_caption_file(root)
    assert str(caught.value) == f"{root}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Image Name,Description\na.jpg,A dog\n", "add the header line image,caption, or write such a table$"),
        (b'[{"image": "a.jpg", "caption": "A dog"}]', "add the header line image,caption, or write such a table$"),
        ("image,caption\na.jpg,A dog\n".encode("utf-16-le"), "not text; unpack it .*, or save it as CSV in UTF-8$"),
    ],
)
def test_a_table_in_no_known_layout_is_named(tmp_path, content, message):
    path = write(tmp_path / "mine.csv", content)
    write(tmp_path / "readme.txt", "Some words, no captions\n")
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        find_caption_file(tmp_path)
    write(tmp_path / "other.csv", content)  # which of the two is meant?
    with pytest.raises(InputError, match=f"^{tmp_path}: no caption file; put captions.txt"):
        find_caption_file(tmp_path)


def test_files_that_are_joined_as_the_remedy_says_are_read(tmp_path):
    for name in ("a.csv", "b.csv"):
        write(tmp_path / name, "image,caption\na.jpg,A dog\n")
    with pytest.raises(InputError, match="join them into one captions.txt with a column split"):
        find_caption_file(tmp_path)
    joined = write(tmp_path / "captions.txt", "image,caption,split\na.jpg,A dog,train\n")
    assert find_caption_file(tmp_path) == joined
