import math

import pytest
import torch
from conftest import CAPTIONS, RandomStore
from torch.nn.utils.rnn import pad_packed_sequence


def captions_in(batch, vocab):
    """Each caption of a batch as text with its image's place: inputs and targets must agree."""
    inputs, lengths = pad_packed_sequence(batch.tokens, batch_first=True)
    targets, _ = pad_packed_sequence(batch.tokens._replace(data=batch.targets), batch_first=True)
    found = []
    for owner, given, wanted, length in zip(batch.owner.tolist(), inputs, targets, lengths, strict=True):
        assert given[0] == vocab.bos and wanted[length - 1] == vocab.eos
        assert torch.equal(given[1:length], wanted[: length - 1])
        found.append((owner, vocab.decode(wanted[:length])))
    return found


def test_a_batch_holds_every_caption_of_its_images(make_batches, vocab):
    batches = make_batches(images_per_batch=2)
    first, second = batches.in_order()
    plain = [[vocab.decode(vocab.encode(text)) for text in texts] for texts in CAPTIONS.values()]
    assert sorted(captions_in(first, vocab)) == sorted([(0, t) for t in plain[0]] + [(1, t) for t in plain[1]])
    assert sorted(captions_in(second, vocab)) == sorted([(0, t) for t in plain[2]] + [(1, t) for t in plain[3]])
    assert torch.equal(first.features, RandomStore(5, 6)[["a", "b"]].float())
    assert first.features.dtype == torch.float32


def test_nothing_is_padded(make_batches, vocab):
    (batch,) = make_batches().in_order()
    expected = sum(len(vocab.encode(text)) - 1 for texts in CAPTIONS.values() for text in texts)
    assert len(batch.targets) == len(batch.tokens.data) == expected
    assert vocab.pad not in batch.tokens.data and vocab.pad not in batch.targets
    sizes = batch.tokens.batch_sizes
    assert sizes[0] == len(batch.owner) == 9
    assert (sizes[1:] <= sizes[:-1]).all()


@pytest.mark.parametrize("per_batch", [1, 3, 4, 9])
def test_length_counts_the_batches(make_batches, per_batch):
    batches = make_batches(per_batch)
    assert len(batches) == len(list(batches.in_order())) == len(list(batches.shuffled(1))) == math.ceil(4 / per_batch)


def order_of(batches, epoch):
    return [tuple(batch.features.flatten().tolist()) for batch in batches.shuffled(epoch)]


def test_an_epoch_is_a_permutation_that_seed_and_number_decide(make_batches):
    batches = make_batches(1)
    plain = sorted(tuple(batch.features.flatten().tolist()) for batch in batches.in_order())
    assert all(sorted(order_of(batches, epoch)) == plain for epoch in range(5))
    assert order_of(batches, 3) == order_of(make_batches(1), 3)
    assert len({tuple(order_of(batches, epoch)) for epoch in range(8)}) > 1
    assert len({tuple(order_of(make_batches(1, seed=seed), 1)) for seed in range(8)}) > 1


def test_mirrored_features_stand_in_for_half_of_the_images(make_batches):
    batches = make_batches(1, mirror=True)
    plain, flipped = ({tuple(store[[n]].flatten().tolist()) for n in CAPTIONS}
                      for store in (RandomStore(5, 6), RandomStore(5, 6, seed=1)))
    drawn = [row for epoch in range(50) for row in order_of(batches, epoch)]
    assert set(drawn) == plain | flipped
    assert 70 < sum(row in flipped for row in drawn) < 130  # of 200, five standard deviations


def test_evaluation_never_mirrors(make_batches):
    (mirrored,), (plain,) = make_batches(mirror=True).in_order(), make_batches().in_order()
    assert torch.equal(mirrored.features, plain.features)


def test_mirroring_changes_no_caption_and_no_order(make_batches, vocab):
    for plain, mirrored in zip(make_batches(2).shuffled(1), make_batches(2, mirror=True).shuffled(1), strict=True):
        assert torch.equal(plain.targets, mirrored.targets)
        assert captions_in(plain, vocab) == captions_in(mirrored, vocab)


def test_a_caption_without_a_word_still_has_its_end(make_batches, vocab):
    (batch,) = make_batches(captions={"a": ["...", "a dog"]}).in_order()
    assert sorted(captions_in(batch, vocab)) == [(0, ""), (0, "a dog")]
