import pytest

from caption_utils.app.photos import Photo, too_large, upload_megabytes, uploaded_photos


def test_both_shapes_of_a_value_give_the_same_photos():
    files = {"a.jpg": b"one", "b.jpg": b"two"}
    old = {name: {"metadata": {"name": name, "size": 3}, "content": content} for name, content in files.items()}
    new = tuple({"name": name, "size": 3, "content": memoryview(content)} for name, content in files.items())
    assert uploaded_photos(old) == uploaded_photos(new) == [Photo("a.jpg", b"one"), Photo("b.jpg", b"two")]


@pytest.mark.parametrize("value", [(), {}])
def test_nothing_uploaded_is_no_photo(value):
    assert uploaded_photos(value) == []


def test_files_of_one_name_stay_two_photos():
    assert len(uploaded_photos(({"name": "a", "content": b"1"}, {"name": "a", "content": b"2"}))) == 2


def test_the_limit_is_the_server_s_the_host_s_or_jupyter_s(monkeypatch):
    for name in ("CAPTION_UPLOAD_MB", "COLAB_RELEASE_TAG", "COLAB_GPU", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    assert upload_megabytes() == 10
    monkeypatch.setenv("COLAB_GPU", "0")
    assert upload_megabytes() == 1
    monkeypatch.setenv("CAPTION_UPLOAD_MB", "50")
    assert upload_megabytes() == 50


def test_only_a_limit_that_the_server_set_makes_an_upload_too_large(monkeypatch, tmp_path):
    photos = [Photo("a.jpg", bytes(2**20)), Photo("b.jpg", tmp_path / "b.jpg")]
    monkeypatch.setenv("CAPTION_UPLOAD_MB", "1")
    assert not too_large(photos) and too_large([*photos, Photo("c.jpg", b"1")])
    monkeypatch.setenv("COLAB_GPU", "0")
    monkeypatch.setenv("CAPTION_UPLOAD_MB", "")
    assert not too_large(photos * 2)
    monkeypatch.delenv("CAPTION_UPLOAD_MB")
    assert not too_large(photos * 2)
