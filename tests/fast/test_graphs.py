"""Graphs give the values and gradients of the decoder, for batches of any shape; ``make gpu`` tries them on a GPU."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from conftest import CAPTIONS, VARIANTS
from fake_graphs import fake_graphs

from caption_utils.config import TrainConfig
from caption_utils.fast import graphs
from caption_utils.fast.graphs import Graphed, filled_up, places_in, suits
from caption_utils.training.loss import caption_loss

SUITED = [name for name, how in VARIANTS.items() if how["attention"] != "luong" or "input_feeding" in how]
SUITED.remove("hard")
FEWER = {name: CAPTIONS[name] for name in ("b", "d")}


@pytest.fixture(autouse=True)
def graphs_without_a_gpu():
    with fake_graphs():
        yield


@pytest.fixture
def batch(make_batches):
    (batch,) = make_batches().in_order()
    return batch


@pytest.fixture
def smaller(make_batches):
    (batch,) = make_batches(captions=FEWER).in_order()
    return replace(batch, features=batch.features * 2)


def everything(forward, decoder, batch):
    """Logits and alphas, and the gradients of the parameters."""
    decoder.zero_grad()
    logits, alphas = forward(batch.features, batch.tokens, batch.owner)
    (logits.log_softmax(dim=1)[:, 2].sum() + (alphas**3).sum()).backward()
    gradients = [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]
    return [logits.detach(), alphas.detach(), *gradients]


def assert_equal(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", SUITED)
def test_values_and_gradients_are_those_of_the_decoder(make_decoder, variant, batch, smaller):
    """Also when a graph runs again, on other data, and where a batch has fewer images."""
    decoder = make_decoder(variant)
    graphed = Graphed(decoder)
    for each in (batch, smaller, replace(batch, features=batch.features.flip(0)), smaller):
        assert_equal(everything(graphed, decoder, each), everything(decoder, decoder, each))
    assert len(graphed.passes) == 2


def test_gradients_of_parts_add_up(make_decoder, batch, smaller):
    """Each part's gradients are copies, since the graph writes the next ones into the same memory."""
    decoder = make_decoder()
    for forward in (decoder, Graphed(decoder)):
        decoder.zero_grad()
        for part in (batch, smaller, batch):
            caption_loss(decoder, part, TrainConfig(), forward=forward).backward()
        found = [parameter.grad for parameter in decoder.parameters()]
        wanted = found if forward is decoder else wanted  # noqa: F821
    assert_equal(found, wanted)


def test_weights_that_have_changed_are_those_that_count(make_decoder, batch):
    decoder = make_decoder()
    graphed = Graphed(decoder)
    everything(graphed, decoder, batch)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1.5)
    assert_equal(everything(graphed, decoder, batch), everything(decoder, decoder, batch))


def test_with_dropout_and_without_are_two_graphs(make_decoder, batch):
    decoder = make_decoder(dropout=0.5)
    graphed = Graphed(decoder)
    decoder.train()
    torch.manual_seed(1)
    first, second = (everything(graphed, decoder, batch)[0] for _ in range(2))
    assert not torch.equal(first, second)  # masks are drawn anew
    assert_equal(everything(graphed, decoder.eval(), batch), everything(decoder, decoder, batch))


def test_decoders_that_go_step_by_step_suit(make_decoder):
    assert [name for name in VARIANTS if suits(make_decoder(name).config)] == SUITED


def test_without_gradients_or_with_those_of_the_features_the_decoder_computes(make_decoder, batch):
    decoder = make_decoder()
    graphed = Graphed(decoder)
    with torch.no_grad():
        graphed(batch.features, batch.tokens, batch.owner)
    features = batch.features.clone().requires_grad_()
    graphed(features, batch.tokens, batch.owner)[0].sum().backward()
    assert features.grad.any()
    assert not graphed.passes


def test_no_more_shapes_than_there_is_room_for(make_decoder, batch, smaller, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_SHAPES", 1)
    decoder = make_decoder()
    graphed = Graphed(decoder)
    for each in (batch, smaller):
        assert_equal(everything(graphed, decoder, each), everything(decoder, decoder, each))
    assert len(graphed.passes) == 1


def test_training_goes_on_where_graphs_cannot_be_captured(make_decoder, batch, monkeypatch, capsys):
    def refuse(*arguments):
        refused.append(arguments)
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    refused = []
    monkeypatch.setattr(graphs, "Passes", refuse)
    decoder = make_decoder()
    graphed = Graphed(decoder)
    for _ in range(2):
        assert_equal(everything(graphed, decoder, batch), everything(decoder, decoder, batch))
    assert len(refused) == 1
    told = "Training does without CUDA graphs, and takes longer: operation not permitted when stream is capturing\n"
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(("graph", "results"), [("forward_graph", "outputs"), ("backward_graph", "gradients")])
def test_a_graph_that_gives_other_numbers_is_not_used(make_decoder, batch, monkeypatch, capsys, graph, results):
    def capture(passes, pool, whole=graphs.Passes.capture):
        whole(passes, pool)
        getattr(passes, graph).operations.clear()
        getattr(passes, results)[-1].zero_()  # a capture computes nothing

    monkeypatch.setattr(graphs.Passes, "capture", capture)
    decoder = make_decoder()
    graphed = Graphed(decoder)
    assert_equal(everything(graphed, decoder, batch), everything(decoder, decoder, batch))
    assert not graphed.passes
    told = "Training does without CUDA graphs, and takes longer: a captured graph gives other numbers\n"
    assert capsys.readouterr() == ("", told)


def test_a_memory_that_is_too_small_for_graphs_may_do_without(make_decoder, batch, smaller, monkeypatch, capsys):
    decoder = make_decoder()
    graphed = Graphed(decoder)
    everything(graphed, decoder, batch)
    monkeypatch.setattr(graphs.Passes, "capture", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried")))
    assert_equal(everything(graphed, decoder, smaller), everything(decoder, decoder, smaller))
    assert not graphed.passes  # those that there were take memory, too
    assert "without CUDA graphs, and takes longer: CUDA out of memory" in capsys.readouterr().err
    monkeypatch.setattr(decoder, "forward", Mock(side_effect=torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        everything(graphed, decoder, batch)


def test_what_a_failed_capture_leaves_is_cleaned_up(make_decoder, batch, monkeypatch, capsys):
    cleaned = Mock()
    monkeypatch.setattr(graphs, "clean_up", cleaned)
    monkeypatch.setattr("torch.cuda.graph", Mock(side_effect=RuntimeError("operation not permitted")))
    decoder = make_decoder()
    assert_equal(everything(Graphed(decoder), decoder, batch), everything(decoder, decoder, batch))
    cleaned.assert_called_once_with((0, 1), torch.cuda.current_stream())


def test_in_float16_the_check_overflows_nowhere(make_decoder, batch, capsys):
    """Gradients as large as the logits of a trained model would."""
    decoder = make_decoder()
    with torch.no_grad():
        decoder.output.weight.mul_(1000)
    graphed = Graphed(decoder)
    with torch.autocast("cpu", torch.float16):
        everything(graphed, decoder, batch)
    assert graphed.usable, capsys.readouterr().err


@pytest.mark.parametrize("captions", [160, 80])
def test_few_shapes_hold_all_batches(captions):
    """Lengths as Flickr8k's, of 32 and of 16 images."""
    torch.manual_seed(0)
    shapes, computed, real = set(), 0, 0
    for _ in range(500):
        lengths = (torch.randn(captions) * 3.9 + 11.8).round().clamp(3, 37).int()
        sizes = [int((lengths > step).sum()) for step in range(int(lengths.max()))]
        filled = filled_up(sizes)
        assert all(size >= running for size, running in zip(filled, sizes, strict=False))
        assert len(sizes) <= len(filled) < len(sizes) + graphs.STEPS
        computed, real = computed + sum(filled), real + sum(sizes)
        shapes.add(tuple(filled))
    assert len(shapes) <= graphs.MOST_SHAPES
    assert computed < 1.4 * real


def test_places_are_those_of_the_running_captions():
    assert filled_up([5, 3, 1]) == [8] * 4
    assert filled_up([20, 1]) == [32] * 4
    assert filled_up([33, 33, 33, 20, 17, 2, 2, 2, 2]) == [48] * 4 + [24] * 4 + [12] * 4
    assert places_in([4, 4, 2, 2], [3, 1, 1]).tolist() == [0, 1, 2, 4, 8]
