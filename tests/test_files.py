import pytest

from caption_utils.errors import InputError
from caption_utils.files import replacing


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("name", ["x" * 251 + ".txt", "写" * 83 + ".txt"])
def test_the_longest_possible_name(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_of_error_that_tells_whether_there_is_an_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    told = r"a\.txt: cannot be written \(No space left on device\); .*free disk space"
    for earlier in ("", "; the earlier file is kept"):
        with pytest.raises(InputError, match=f"{told}{earlier}$"), replacing(path):
            raise OSError(28, "No space left on device")
        assert path.exists() == bool(earlier)
        path.touch()


def test_the_old_file_is_there_until_the_new_one_takes_its_place(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(InputError, match="the earlier file is kept$"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/a\.txt: cannot be written"), replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("there is nothing to write to")


def test_messages_have_one_line():
    assert str(InputError("a\nb.jpg: no such file\r\nhere")) == "a b.jpg: no such file here"
