import json
import sys

import pytest

from caption_utils.data.vocab import SPECIALS, Vocabulary, detokenize, has_word, tokenize
from caption_utils.data.wordpiece import WordPiece
from caption_utils.errors import InputError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The dog's ball .", ["the", "dog", "'s", "ball"]),
        ("The dog’s ball.", ["the", "dog", "'s", "ball"]),
        ("A man, a plan: a canal!", ["a", "man", "a", "plan", "a", "canal"]),
        ("It doesn't rain.", ["it", "does", "n't", "rain"]),
        ("black-and-white photo", ["black-and-white", "photo"]),
        ("He said “go” — twice…", ["he", "said", "go", "twice"]),
        ('A "STOP" sign (red) & more', ["a", "stop", "sign", "red", "more"]),
        ("2 dogs in 1.5 m of snow", ["2", "dogs", "in", "1.5", "m", "of", "snow"]),
        ("One dog. Two dogs.", ["one", "dog", "two", "dogs"]),
        ("un café — niño", ["un", "café", "niño"]),
        ("ﬁne Ｗｉｄｅ", ["fine", "wide"]),
        ("一只 狗。", ["一只", "狗"]),
        ("¿Qué hace? “¡Corre!”", ["qué", "hace", "corre"]),
        ("كلب، قطة؟", ["كلب", "قطة"]),
        ("कुत्ता है।", ["कुत्ता", "है"]),
        ("ג׳ינס, ‚col·lecció‘ ،.", ["ג׳ינס", "col·lecció"]),
        ("It can´t be a t\u2011shirt", ["it", "ca", "n't", "be", "a", "t-shirt"]),
        ("A dog🐶 runs❤️ 🐶here at 30°", ["a", "dog", "runs", "here", "at", "30"]),
        ("1\ufe0f\u20e3 dog\ufe0e", ["1", "dog"]),
        ("\u200bdog\u200f cat\u00ad", ["dog", "cat"]),
        ("او می\u200cرود c++", ["او", "می\u200cرود", "c++"]),
        ("İki iki I\u0307ki", ["iki", "iki", "iki"]),
        (" . , - -- !? ", []),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


@pytest.mark.parametrize("captions", [["a", "dog"], ("a", "dog"), None])
def test_only_text_is_tokenised(captions):
    with pytest.raises(ValueError, match=f"captions must be text, not {type(captions).__name__}"):
        tokenize(captions)


def test_tokens_are_stable_under_another_tokenisation():
    tokens = tokenize("The boys' dog doesn't jump over the fence, does it?")
    assert tokenize(" ".join(tokens)) == tokens


def test_clitics_rejoin_their_word():
    assert detokenize(["the", "dog", "'s", "ball", "does", "n't", "roll"]) == "the dog's ball doesn't roll"


def test_words_need_min_count_and_are_sorted_by_frequency_then_alphabet():
    vocab = Vocabulary.build(["b b b", "c c a a", "d"], min_count=2)
    assert vocab.words == [*SPECIALS, "b", "a", "c"]
    assert vocab.counts == {"b": 3, "a": 2, "c": 2}
    assert len(vocab) == 7


def test_specials_have_the_first_ids():
    vocab = Vocabulary.build([], min_count=1)
    assert vocab.words == ["<pad>", "<bos>", "<eos>", "<unk>"]
    assert (vocab.pad, vocab.bos, vocab.eos, vocab.unk) == (0, 1, 2, 3)


def test_a_caption_cannot_contain_a_special_token():
    vocab = Vocabulary.build(["<eos> <pad> <unk> dog"], min_count=1)
    assert set(vocab.counts) == {"eos", "pad", "unk", "dog"}
    assert vocab.encode("<eos> dog") == [vocab.bos, vocab.ids["eos"], vocab.ids["dog"], vocab.eos]


def test_encoding_frames_the_caption_and_marks_unknown_words():
    vocab = Vocabulary.build(["a dog runs"], min_count=1)
    ids = vocab.encode("A CAT runs!")
    assert ids == [vocab.bos, vocab.ids["a"], vocab.unk, vocab.ids["runs"], vocab.eos]


def test_decoding_stops_at_the_end_token():
    vocab = Vocabulary.build(["a dog runs"], min_count=1)
    a, dog, runs = (vocab.ids[word] for word in ("a", "dog", "runs"))
    assert vocab.decode([vocab.bos, a, dog, vocab.eos, runs, vocab.pad]) == "a dog"
    assert vocab.decode([a, vocab.pad, vocab.unk, runs]) == "a <unk> runs"
    assert vocab.decode([vocab.eos, a]) == ""


def test_save_and_load_give_the_same_vocabulary(tmp_path):
    vocab = Vocabulary.build(["un niño et un café", "a dog"] * 2, min_count=2)
    vocab.save(tmp_path / "vocab.json")
    again = Vocabulary.load(tmp_path / "vocab.json")
    assert (again.words, again.ids, again.counts, again.min_count) == (vocab.words, vocab.ids, vocab.counts, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.json"]


@pytest.fixture
def pieces(tokenizer_file):
    captions = ["A skateboarder's dog", "Two dogs, a skateboard", "a skate"]
    return Vocabulary.build(captions, min_count=2, wordpiece=WordPiece.read(str(tokenizer_file)))


def test_pieces_spell_unseen_words(pieces):
    assert [word for word in pieces.words if len(word.removeprefix("##")) > 1] == [*SPECIALS, "skate", "##board", "dog"]
    ids = pieces.encode("Skateboards, a rodeo!")
    said = "skate ##board ##s a r ##o ##d ##e ##o".split()
    assert [pieces.words[i] for i in ids] == ["<bos>", *said, "<eos>"]
    assert pieces.unk in pieces.encode("a zoo") and pieces.unk not in pieces.encode("a tarsk")
    assert pieces.decode(pieces.encode("a skateboarder")) == "a skateboarder"


def test_the_pieces_of_a_word_are_counted(pieces):
    ids = pieces.encode("two dogs skate")[1:-1]
    assert pieces.whole_words(ids) == [("two", 3), ("dogs", 2), ("skate", 1)]
    words = Vocabulary({"two": 1, "dogs": 1}, 1)
    assert words.whole_words(words.encode("two dogs")[1:-1]) == [("two", 1), ("dogs", 1)]


def test_pieces_are_counted_as_they_are_used(pieces):
    assert pieces.counts["skate"] == 3 and pieces.counts["##board"] == 2 and pieces.counts["##r"] == 1
    assert pieces.counts["o"] == 0  # a letter, which other words may begin with


def test_saved_pieces_are_sufficient(pieces, tmp_path, monkeypatch):
    text = "two skateboarders"
    ids = pieces.encode(text)
    pieces.save(tmp_path / "vocab.json")
    again = Vocabulary.load(tmp_path / "vocab.json")
    assert again.encode(text) == ids and again.fingerprint() == pieces.fingerprint()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert Vocabulary.load(tmp_path / "vocab.json").decode(ids) == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"counts": {"a": 1}, "min_count": 1, "wordpiece": [1]}',
        b'{"counts": {"a": 1}, "min_count": 1, "wordpiece": {"model": {}}}',
        b"{",
        b"[]",
        b"null",
        b'{"counts": {}}',
        b'{"counts": [1], "min_count": 1}',
        b'{"counts": {"a": "b"}, "min_count": 1}',
        b"\xff\xfe",
        b"[" * 3000,
        b'{"counts": {"a": ' + b"1" * 5000 + b'}, "min_count": 1}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "vocab.json").write_bytes(content)
    with pytest.raises(InputError, match=r"vocab\.json: not a vocabulary \(.*\); restore the file or train again"):
        Vocabulary.load(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    "text", ["", "...", "!? -- '' .", "🙂 🙂", "™", "a", "№", "é", "犬", "２", "½", "_", "\u037a", "'s"]
)
def test_a_text_has_a_word_if_it_has_a_token(text):
    assert has_word(text) == bool(tokenize(text))


def test_a_fingerprint_depends_on_words_and_their_order():
    words = [Vocabulary({"a": 2, "b": 1}, 1), Vocabulary({"a": 1, "b": 2}, 1), Vocabulary({"a": 2, "c": 1}, 1)]
    assert len({vocabulary.fingerprint() for vocabulary in words}) == 3
    assert words[0].fingerprint() == Vocabulary({"a": 9, "b": 8}, 2).fingerprint()


def test_one_text_is_no_list_of_captions():
    with pytest.raises(ValueError, match="^captions must be a list of texts, not one text$"):
        Vocabulary.build("a dog runs", 1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"vocab\.json: no vocabulary here; point to a model folder"):
        Vocabulary.load(tmp_path / "vocab.json")
    with pytest.raises(InputError, match="no vocabulary here"):
        Vocabulary.load(tmp_path)


def test_stored_words_are_readable(tmp_path):
    Vocabulary.build(["café"], min_count=1).save(tmp_path / "vocab.json")
    assert json.loads((tmp_path / "vocab.json").read_text())["counts"] == {"café": 1}
    assert "café" in (tmp_path / "vocab.json").read_text(encoding="utf-8")
