import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from caption_utils.__main__ import main
from caption_utils.errors import InputError


@pytest.mark.slow
def test_evaluate_against_another_model(model, data_folder, tmp_path, capsys):
    other = shutil.copytree(model, tmp_path / "other")
    command = [
        "evaluate",
        "--model",
        str(model),
        "--data",
        str(data_folder),
        "--against",
        str(other),
        "--captions",
        str(tmp_path / "captions.json"),
    ]
    assert main([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    against = row.pop("against")
    assert against.pop("model") == str(other)
    assert against["bleu4"] == {"value": 0, "low": 0, "high": 0, "p": 1} and "meteor" not in against
    assert len(json.loads((tmp_path / "captions.json").read_text())) == row["images"] == 3
    assert main(command[:-2]) == 0
    printed = capsys.readouterr().out
    assert f"difference from {other}, 95 % interval" in printed
    assert "cider                +0.0000  +0.0000 to +0.0000  p 1.000\n" in printed


@pytest.mark.parametrize(("images", "told"), [(29, True), (30, False)])
def test_few_images_are_told_to_be_few(tmp_path, capsys, monkeypatch, images, told):
    found = SimpleNamespace(images=images * ["a.jpg"], report=dict, missing={})
    monkeypatch.setattr("caption_utils.evaluation.report.evaluate_model", lambda *rest: found)
    assert main(["evaluate", "--model", str(tmp_path), "--data", str(tmp_path)]) == 0
    assert ("fewer than 30 images" in capsys.readouterr().out) == told


@pytest.mark.parametrize(
    "options",
    [
        ["--against", "no model here"],
        ["--beam", "0"],
        ["--record", "."],
        ["--record", __file__],
        ["--captions", "/dev/null/c"],
    ],
)
def test_wrong_options_are_told_before_anything_is_measured(
    model, data_folder, tmp_path, refused, monkeypatch, options
):
    monkeypatch.setattr("caption_utils.evaluation.report.extract", lambda *rest: pytest.fail("measures"))
    refused("evaluate", "--model", model, "--data", data_folder, *options)


@pytest.mark.parametrize("name", ["captions.txt", "Images", "new.csv"])
def test_captions_replace_no_file_nor_the_row(data_folder, tmp_path, refused, monkeypatch, name):
    """Neither the data set's own captions nor what ``--record`` writes."""
    monkeypatch.setattr("caption_utils.evaluation.report.evaluate_model", lambda *rest: pytest.fail("measures"))
    before = (data_folder / "captions.txt").read_bytes()
    files = ["--captions", data_folder / name, "--record", data_folder / "new.csv"]
    assert str(data_folder / name) in refused("evaluate", "--model", tmp_path, "--data", data_folder, *files)
    assert (data_folder / "captions.txt").read_bytes() == before and not (data_folder / "new.csv").exists()


@pytest.mark.slow
def test_what_was_measured_is_told_if_the_other_model_fails(model, data_folder, tmp_path, capsys, monkeypatch):
    def fails(*evaluations):
        raise InputError("measured on other images")

    monkeypatch.setattr("caption_utils.evaluation.report.compare", fails)
    command = ["evaluate", "--model", str(model), "--data", str(data_folder), "--against", str(model), "--json"]
    assert main([*command, "--record", str(tmp_path / "rows.csv")]) == 2
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert report["images"] == 3 and "against" not in report
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 2
    assert output.err.endswith("caption_utils: measured on other images\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_the_json_of_a_diverged_model_is_valid(model, data_folder, capsys):
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"output.bias": weights["output.bias"] * torch.nan}, model / "model.safetensors")
    command = ["evaluate", "--model", str(model), "--data", str(data_folder), "--against", str(model)]
    assert main([*command, "--json"]) == 0

    def invalid(constant):
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads(capsys.readouterr().out, parse_constant=invalid)
    names = ("perplexity", "perplexity_low", "fall_attended", "fall_difference_high")
    assert [row[name] for name in names] == [None] * 4
    assert row["against"]["perplexity"]["value"] is None and row["images"] == 3
    assert main(command) == 0
    assert "perplexity           inf " in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_that_cannot_be_recorded_is_printed_all_the_same(model, data_folder, tmp_path, capsys, monkeypatch):
    def full(path, row):
        raise InputError(f"{path}: cannot be written")

    monkeypatch.setattr("caption_utils.evaluation.records.append_row", full)
    arguments = ["--model", str(model), "--data", str(data_folder), "--json", "--record", str(tmp_path / "metrics.csv")]
    arguments += ["--captions", str(tmp_path / "captions.json")]
    assert main(["evaluate", *arguments]) == 2
    output = capsys.readouterr()
    assert json.loads(output.out)["images"] == len(json.loads((tmp_path / "captions.json").read_text())) == 3
    assert output.err.endswith("metrics.csv: cannot be written\n")


@pytest.mark.slow
def test_what_was_measured_is_written_though_it_cannot_be_printed(model, data_folder, tmp_path, monkeypatch):
    def closed(*lines, **options):
        raise BrokenPipeError

    files = ["--captions", str(tmp_path / "captions.json"), "--record", str(tmp_path / "rows.csv")]
    monkeypatch.setattr("caption_utils.commands.evaluate.print", closed, raising=False)
    assert main(["evaluate", "--model", str(model), "--data", str(data_folder), *files]) == 141
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 2
    assert len(json.loads((tmp_path / "captions.json").read_text())) == 3


@pytest.mark.slow
def test_the_row_is_recorded_though_the_captions_cannot_be_written(model, data_folder, tmp_path, capsys, monkeypatch):
    def full(path, found):
        raise InputError(f"{path}: cannot be written")

    files = ["--captions", str(tmp_path / "captions.json"), "--record", str(tmp_path / "rows.csv")]
    monkeypatch.setattr("caption_utils.evaluation.records.write_captions", full)
    assert main(["evaluate", "--model", str(model), "--data", str(data_folder), *files]) == 2
    assert capsys.readouterr().err.endswith("captions.json: cannot be written\n")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 2
