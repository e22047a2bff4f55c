from collections import Counter

import pytest
from demo_set import SIZES, SPLITS

from caption_utils.data.vocab import tokenize
from caption_utils.demo.descriptions import RARE
from caption_utils.demo.scenes import DEMO, load_scenes
from caption_utils.errors import InputError


def test_the_set_is_complete_and_small(demo, told):
    splits = {split: (DEMO / split).read_text().split() for split in SPLITS}
    assert {split: len(names) for split, names in splits.items()} == SPLITS
    listed = [name for names in splits.values() for name in names]
    assert len(listed) == len(set(listed)) == 1800
    assert set(listed) == set(demo) == set(told) == {path.name for path in (DEMO / "Images").iterdir()}
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 6_000_000


def test_no_test_scene_occurs_in_training(demo):
    train = {demo[name] for name in (DEMO / "trainImages.txt").read_text().split()}
    rest = {demo[name] for split in ("devImages.txt", "testImages.txt") for name in (DEMO / split).read_text().split()}
    assert not train & rest


def test_vocabulary_is_small_with_a_tail_of_rare_words(told):
    words = {name: tokenize(" ".join(sentences)) for name, sentences in told.items()}
    train = Counter(word for name in (DEMO / "trainImages.txt").read_text().split() for word in words[name])
    common = set().union(*words.values()) - set(RARE)
    assert 60 <= len(common) <= 70 and min(train[word] for word in common) >= 4
    counts = [train[word] for word in RARE]
    assert sum(0 < count < 3 for count in counts) >= 2 and sum(3 <= count < 15 for count in counts) >= 5


def test_pictures_have_several_shapes(demo):
    sizes = Counter(scene.size for scene in demo.values())
    assert set(sizes) == set(SIZES) and min(sizes.values()) > 300


def test_boxes_are_inside_apart_and_as_large_as_a_cell(demo):
    for name, scene in demo.items():
        for i, thing in enumerate(scene.things):
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= scene.size[0] and 0 <= top < bottom <= scene.size[1], name
            assert min(right - left, bottom - top) >= 45, (name, thing)
            for other in scene.things[:i]:
                a, b = thing.box, other.box
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], name


@pytest.mark.parametrize(
    "content",
    [None, "{", '{"a.jpg": {}}', "[]", '{"a.jpg": {"background": "snow", "things": [3]}}', "[" * 10**5, "1" * 5000],
)
def test_missing_or_damaged_scenes_name_the_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "scenes.json").write_text(content)
    with pytest.raises(InputError, match=r"scenes\.json: .*make demo"):
        load_scenes(tmp_path)
