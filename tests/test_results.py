"""The shipped models fit their measurements, and every score in the documents is a row of a table in ``results``."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from caption_utils.calibration import load_calibration
from caption_utils.data.splits import KNOWN, digests_of
from caption_utils.encoders.encoder import load_encoder
from caption_utils.training.checkpoint import load_model

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
SHIPPED = sorted(path.parent for path in RESULTS.glob("checkpoints/*/config.json"))
NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "perplexity")


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
    assert model.own_encoder(load_encoder(model.encoder)).fingerprint == model.fingerprint
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["vocabulary"] == model.vocab.fingerprint()


def test_a_shipped_model_knows_its_training_photos(folder):
    official = json.loads(KNOWN.read_text(encoding="utf-8"))
    assert load_model(folder).trained_on == {*digests_of(official["train"])}


def trainings(folder):
    """The training settings of a model and, before them, of the one that self-critical training began with."""
    last = json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"]
    first = last.get("self_critical", {}).get("training")
    return [first, last] if first else [last]


def test_a_shipped_model_s_curves_have_their_best_where_its_configuration_says(folder):
    first, *last = trainings(folder)
    curve = rows(RESULTS / "curves" / f"{folder.name}.csv")
    found = min(curve, key=lambda row: float(row["val_perplexity"]))
    assert int(found["epoch"]) == first["best"]["epoch"]
    assert float(found["val_perplexity"]) == pytest.approx(first["best"]["val_perplexity"], abs=1e-5)
    for training in last:
        curve = rows(RESULTS / "curves" / "self-critical" / f"{folder.name}.csv")
        found = max(curve, key=lambda row: float(row["val_cider"]))
        assert float(found["epoch"]) == training["best"]["epoch"]
        assert float(found["val_cider"]) == pytest.approx(training["best"]["val_cider"], abs=1e-5)


def test_a_shipped_model_was_measured_greedily_and_with_beams(folder):
    measured = [row for row in rows(RESULTS / "metrics.csv") if row["model"] == folder.name and row["split"] == "val"]
    assert [row["search"] for row in measured] == ["greedy", "beam 3", "beam 5"]
    best = trainings(folder)[-1]["best"]
    for row in measured:  # of float16 weights, from float32 ones
        if "val_perplexity" in best:
            assert float(row["perplexity"]) == pytest.approx(best["val_perplexity"], rel=2e-3)
        elif row["search"] == "beam 5":  # by which self-critical training chooses
            assert float(row["cider"]) == pytest.approx(best["val_cider"], abs=0.1)


def test_a_shipped_model_knows_how_sure_it_is(folder):
    assert (folder / "confidence.safetensors").stat().st_size < 2e6
    assert load_calibration(folder) is not None
    values = {
        (row["measure"], row["of"]): row for row in rows(RESULTS / "confidence.csv") if row["model"] == folder.name
    }
    assert float(values["rank correlation with CIDEr", "confidence"]["value"]) >= 0.3
    assert float(values["area, confidence", "no photographs"]["value"]) >= 0.95
    assert int(values["area, confidence", "no photographs"]["pictures"]) >= 60


def told(document):
    """The rows of a document's table of scores, as header → cell; an empty model cell repeats the one above."""
    table = re.search(r"^\| model \| .*?\n\n", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[
        0
    ]
    header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines())
    found = [dict(zip(header, cells, strict=True)) for cells in lines]
    for above, row in zip([None, *found], found, strict=False):
        row["model"] = re.sub(r"\[(.*?)\].*", r"\1", row["model"]) or above["model"]
    return found


def measured(row, split):
    """The row of a table in ``results`` that a row of a document names."""
    if row["model"].startswith("people"):
        people = rows(RESULTS / "exploration" / "flickr8k_human_bleu.csv")
        return {name: sum(float(person[name]) for person in people) / len(people) for name in people[0]}
    if row["model"].startswith("Xu"):
        (found,) = (r for r in rows(RESULTS / "published.csv") if f"{r['source']}, {r['model']}" in row["model"])
        return found
    table = [r for r in rows(RESULTS / ("test.csv" if split == "test" else "metrics.csv")) if r["split"] == split]
    (found,) = (r for r in table if (r["model"], r["search"]) == (row["model"], row["search"]))
    return found


@pytest.mark.parametrize(
    ("document", "split", "count"), [("README.md", "test", 6), ("results/README.md", "val", 16)], ids=["test", "val"]
)
def test_every_score_in_a_document_is_a_row_of_the_results(document, split, count):
    table = told(document)
    assert len(table) == count
    for row in table:
        found = measured(row, split)
        cells = {name: row[name] for name in NAMES if row.get(name)}
        assert len(cells) >= 3
        for name, cell in cells.items():
            decimals = len(cell.partition(".")[2])
            value = float(found[name.lower().replace("bleu-", "bleu").replace("-", "_")])
            assert f"{value:.{decimals}f}" == cell, (row["model"], row["search"], name)


def test_test_scores_are_those_of_the_shipped_models():
    table = rows(RESULTS / "test.csv")
    measured = [folder.name for folder in SHIPPED if "pointing" not in folder.name]  # which came after the measurement
    assert [(r["model"], r["search"]) for r in table] == [(name, s) for name in measured for s in ("greedy", "beam 5")]
    assert {(r["split"], r["scheme"], r["images"]) for r in table} == {("test", "official", "1000")}
    for row in table:
        page = (RESULTS / "checkpoints" / row["model"] / "README.md").read_text(encoding="utf-8")
        assert all(row[name] in page for name in ("perplexity", "bleu4", "cider"))


# first words of a row of the table -> score, and how many of its decimal places are written
SHARPNESS = {"effective": ("effective_regions", 0), "largest": ("peak", 3), "weight": ("change", 2)}


def test_how_sharp_attention_is_was_measured_on_the_shipped_models():
    document = (RESULTS / "README.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in document.splitlines() if line[:1] == "|"]
    [head] = [cells for cells in lines if cells[-1] == "even attention"]
    table = {
        cells[0].partition(" ")[0]: dict(zip(head, cells, strict=True)) for cells in lines if len(cells) == len(head)
    }
    for name in [folder.name for folder in SHIPPED]:
        found = json.loads((RESULTS / f"evaluations/{name}.json").read_text(encoding="utf-8"))
        assert [found[key] for key in ("model", "data", "split", "search")] == [name, "flickr8k", "val", "beam 5"]
        for row, (score, places) in SHARPNESS.items():
            assert float(table[row][name]) == pytest.approx(found[score], abs=0.501 * 10**-places)
        value, low, high = (found[f"fall_difference{end}"] for end in ("", "_low", "_high"))
        assert f"{value:.1f} ({low:.1f} to {high:.1f})" in document.replace(" points", "")
