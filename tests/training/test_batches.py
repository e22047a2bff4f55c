import math
import threading

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


def whole(batches, epoch):
    """The batches of an epoch, undivided."""
    for share in batches.shuffled(epoch):
        (batch,) = share.parts
        assert (share.tokens, share.captions) == (len(batch.targets), len(batch.owner))
        yield batch


def test_steps_are_a_part_of_the_epoch(make_batches):
    batches = make_batches(1)
    first, second = (
        [share.parts[0].features for share in batches.shuffled(3, steps=part)] for part in (slice(0, 1), slice(1, 4))
    )
    together = [batch.features for batch in whole(batches, 3)]
    assert all(torch.equal(*pair) for pair in zip([*first, *second], together, strict=True))


def order_of(batches, epoch):
    return [tuple(batch.features.flatten().tolist()) for batch in whole(batches, epoch)]


def test_an_epoch_is_a_permutation_that_seed_and_number_decide(make_batches):
    batches = make_batches(1)
    plain = sorted(tuple(batch.features.flatten().tolist()) for batch in batches.in_order())
    assert all(sorted(order_of(batches, epoch)) == plain for epoch in range(5))
    assert order_of(batches, 3) == order_of(make_batches(1), 3)
    assert len({tuple(order_of(batches, epoch)) for epoch in range(8)}) > 1
    assert len({tuple(order_of(make_batches(1, seed=seed), 1)) for seed in range(8)}) > 1


def test_mirrored_features_stand_in_for_half_of_the_images(make_batches):
    batches = make_batches(1, mirror=True)
    plain, flipped = (
        {tuple(store[[n]].flatten().tolist()) for n in CAPTIONS}
        for store in (RandomStore(5, 6), RandomStore(5, 6, seed=1))
    )
    drawn = [row for epoch in range(50) for row in order_of(batches, epoch)]
    assert set(drawn) == plain | flipped
    assert 70 < sum(row in flipped for row in drawn) < 130  # of 200, five standard deviations


def test_evaluation_never_mirrors(make_batches):
    (mirrored,), (plain,) = make_batches(mirror=True).in_order(), make_batches().in_order()
    assert torch.equal(mirrored.features, plain.features)


def test_mirroring_changes_no_caption_and_no_order(make_batches, vocab):
    for plain, mirrored in zip(whole(make_batches(2), 1), whole(make_batches(2, mirror=True), 1), strict=True):
        assert torch.equal(plain.targets, mirrored.targets)
        assert captions_in(plain, vocab) == captions_in(mirrored, vocab)


def test_a_caption_without_a_word_still_has_its_end(make_batches, vocab):
    (batch,) = make_batches(captions={"a": ["...", "a dog"]}).in_order()
    assert sorted(captions_in(batch, vocab)) == [(0, ""), (0, "a dog")]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("per_batch", [1, 3, 4])
def test_the_shares_of_all_processes_are_the_batch(make_batches, vocab, count, parts, per_batch):
    """Mirrored images included; some shares of a small batch are empty, but all count its tokens."""
    batches = make_batches(per_batch, mirror=True)
    undivided = list(whole(batches, 2))
    divided = [list(batches.shuffled(2, index, count, parts)) for index in range(count)]
    assert all(len(shares) == len(undivided) for shares in divided)
    for batch, *shares in zip(undivided, *divided, strict=True):
        pieces = [part for share in shares for part in share.parts]
        assert torch.equal(torch.cat([part.features for part in pieces]), batch.features)
        found = sorted(text for part in pieces for _, text in captions_in(part, vocab))
        assert found == sorted(text for _, text in captions_in(batch, vocab))
        assert {share.tokens for share in shares} == {len(batch.targets)}
        assert {share.captions for share in shares} == {len(batch.owner)}
        assert max(len(share.parts) for share in shares) <= parts


def test_processes_get_equally_many_images_however_each_divides_its_own(make_batches):
    """Four images for two processes: two each, one by one, not three and one."""
    batches = make_batches(4)
    for parts in (1, 2, 4):
        shares = [next(batches.shuffled(1, index, 2, parts)) for index in range(2)]
        assert [sum(len(part.features) for part in share.parts) for share in shares] == [2, 2]


class Pinned(torch.Tensor):
    """Plays a tensor that goes to a GPU: notes what is asked of it, and stays where it is."""

    asked = []

    def pin_memory(self):
        Pinned.asked.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        Pinned.asked.append((device.type, non_blocking))
        return self


def test_a_copy_to_a_gpu_is_pinned_and_not_waited_for(make_batches):
    batches = make_batches()
    batches.device = torch.device("cuda")
    batches._placed(torch.ones(2).as_subclass(Pinned))
    assert Pinned.asked == ["pinned", ("cuda", True)]


def test_for_a_gpu_the_next_batch_is_made_while_it_works_on_this_one(make_batches, monkeypatch):
    batches, made = make_batches(1), [threading.Event() for _ in range(4)]
    monkeypatch.setattr(batches, "_placed", lambda value: value)
    monkeypatch.setattr(batches, "_features", lambda chosen, flip: made[chosen[0]].set() or torch.zeros(1, 5, 6))
    next(batches.in_order())
    assert [event.is_set() for event in made] == [True, False, False, False]
    batches.device = torch.device("cuda")
    ahead = batches.in_order()
    next(ahead)
    assert made[1].wait(30)
