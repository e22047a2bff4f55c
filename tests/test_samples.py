"""Tests of tools/samples.py."""

import json

import samples


def test_a_model_is_described_by_what_it_was_validated_by(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "writable_dir", lambda name: tmp_path)
    for name, best in {
        "a": {"val_perplexity": 14.039, "epoch": 3},
        "b/c": {"val_cider": 61.2, "epoch": 0.5},
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"training": {"best": best}}))
    first, second = samples.describe_models().splitlines()
    assert first.endswith("a: validation perplexity 14.04 after epoch 3")
    assert second.endswith("c: validation CIDEr 61.20 after epoch 0.5")


def test_a_damaged_model_is_a_line_among_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "writable_dir", lambda name: tmp_path)
    whole = json.dumps({"training": {"best": {"val_perplexity": 14.039, "epoch": 3}}})
    for name, content in {
        "a": "{",
        "b": '{"training": {"best": {"epoch": "x"}}}',
        "c": '{"training": 1}',
        "d": whole,
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    lines = samples.describe_models().splitlines()
    assert [": damaged (" in line for line in lines] == [True, True, True, False]
