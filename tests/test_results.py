"""What was measured and the models that measured it belong together, and the README tells no other numbers."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from caption_utils.encoders.encoder import load_encoder
from caption_utils.training.checkpoint import load_model

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
SHIPPED = sorted(path.parent for path in RESULTS.glob("checkpoints/*/config.json"))
COLUMNS = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider")


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=SHIPPED, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def test_a_shipped_model_is_small_and_fits_the_encoder(folder):
    assert (folder / "model.safetensors").stat().st_size <= 15e6
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}
    model = load_model(folder)
    assert load_encoder(model.encoder).fingerprint == model.fingerprint


def test_a_shipped_model_s_curve_ends_where_its_configuration_says(folder):
    best = json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"]["best"]
    curve = rows(RESULTS / "curves" / f"{folder.name}.csv")
    found = min(curve, key=lambda row: float(row["val_perplexity"]))
    assert int(found["epoch"]) == best["epoch"]
    assert float(found["val_perplexity"]) == pytest.approx(best["val_perplexity"], abs=1e-5)


def test_a_shipped_model_was_measured_greedily_and_with_beams(folder):
    measured = [row for row in rows(RESULTS / "metrics.csv") if row["model"] == folder.name and row["split"] == "val"]
    assert [row["search"] for row in measured] == ["greedy", "beam 3", "beam 5"]
    best = json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"]["best"]["val_perplexity"]
    for row in measured:  # of float16 weights, from float32 ones
        assert float(row["perplexity"]) == pytest.approx(best, rel=2e-3)


def test_every_score_in_the_readme_is_a_row_of_the_metrics():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| model \| perplexity .*?\n\n", readme, re.DOTALL)[0]
    told = [
        tuple(re.findall(r"\d+\.\d", line.split(search)[1]))
        for line in table.splitlines()
        for search in re.findall(r"\| ((?:greedy|beam \d) \|)", line)
    ]
    measured = {tuple(f"{float(row[name]):.1f}" for name in COLUMNS) for row in rows(RESULTS / "metrics.csv")}
    assert len(told) == 10
    assert set(told) <= measured
