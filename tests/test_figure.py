"""Tests of tools/figure.py: the rows and the drawing of the results' figure."""

import shutil

import figure
import numpy as np
import pandas as pd
import pytest
from test_plots import drawn


def row(**values):
    return {
        "model": "a",
        "data": "flickr8k",
        "search": figure.SEARCH,
        "scheme": "official",
        "split": "val",
        "bleu1": 60.0,
    } | values


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results with two shipped models; ``write`` puts rows into its metrics.csv."""
    for name in ("checkpoints/a", "checkpoints/b", "curves", "figures"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(figure.RESULTS / "published.csv", tmp_path)
    monkeypatch.setattr(figure, "RESULTS", tmp_path)
    return lambda *rows: pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)


def test_the_last_row_of_each_shipped_model_counts(results):
    results(row(bleu1=1.0), row(bleu1=2.0), row(model="b"), row(model="c"), row(search="greedy", bleu1=3.0))
    measured = figure.measured()
    assert list(measured) == ["a (val)", "b (val)"]
    assert measured["a (val)"]["value"].to_dict() == {"BLEU-1": 2.0}


def test_rows_of_the_test_images_go_before_others(results):
    results(row(split="test", bleu1=1.0), row(bleu1=2.0))
    assert list(figure.measured()) == ["a (test)"]


def test_a_model_measured_on_test_images_hides_no_other(results):
    results(row(model="b", bleu1=3.0), row(split="test", bleu1=1.0), row(bleu1=2.0))
    assert list(figure.measured()) == ["a (test)", "b (val)"]


def test_rows_of_other_data_do_not_count(results):
    results(row(bleu1=1.0), row(data="demo", bleu1=90.0), row(model="b", data="demo"))
    measured = figure.measured()
    assert list(measured) == ["a (val)"] and measured["a (val)"].loc["BLEU-1", "value"] == 1


def test_bounds_are_taken_where_there_are_any(results):
    results(row(bleu1_low=58.0, bleu1_high=63.0, bleu4=20.0, meteor=None))
    scores = figure.measured()["a (val)"]
    assert scores.loc["BLEU-1"].tolist() == [60, 58, 63]
    assert scores.loc["BLEU-4", ["low", "high"]].isna().all() and "METEOR" not in scores.index


def test_the_published_scores_are_of_the_test_images(results):
    published = figure.published()
    assert len(published) == 2 and all(name.endswith("(test)") for name in published)
    assert published["Xu et al. 2015, soft attention (test)"].loc["BLEU-4", "value"] == 19.5


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(results):
    results(row())
    curve = pd.DataFrame({"epoch": [1, 2], "train_loss": [3.0, 2.0], "val_perplexity": [20.0, 16.0]})
    curve.to_csv(figure.RESULTS / "curves" / "a.csv", index=False)
    path, drawn = figure.RESULTS / "figures" / "results.svg", []
    for _ in range(2):
        figure.draw_results()
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1] and b"<svg" in drawn[0]


def scores_of(**rows):
    return pd.DataFrame(rows, index=["value", "low", "high"]).T


def test_results_set_scores_beside_one_another():
    curve = pd.DataFrame({"a": [3.0, 2.0]}, index=pd.Index([1, 2], name="epoch"))
    scores = {"ours": scores_of(bleu1=[60, 58, 63], cider=[50, 48, 52]), "theirs": scores_of(bleu1=[67, None, None])}
    curves, bars = drawn(figure.results({"perplexity": curve}, scores)).axes
    assert curves.get_ylabel() == "perplexity" and curves.lines[0].get_ydata().tolist() == [3, 2]
    assert [tick.get_text() for tick in bars.get_xticklabels()] == ["bleu1", "cider"]
    heights = [bar.get_height() for bar in bars.patches]
    np.testing.assert_equal(heights, [60, 50, 67, np.nan])
    assert bars.patches[0].get_x() < bars.patches[2].get_x() < bars.patches[1].get_x()
    assert len({bar.get_hatch() for bar in bars.patches[::2]}) == 2


def test_results_draw_the_bounds_that_there_are():
    scores = {"ours": scores_of(bleu1=[60, 58, 63]), "theirs": scores_of(bleu1=[67, None, None])}
    (axes,) = drawn(figure.results({}, scores)).axes
    whiskers = [segment for bars in axes.collections for segment in bars.get_segments()]
    assert [segment[:, 1].tolist() for segment in whiskers if len(segment)] == [[58, 63]]
