import re
from dataclasses import replace
from unittest import mock

import pytest
import torch
from conftest import CAPTIONS, VARIANTS
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from caption_utils.config import DecoderConfig
from caption_utils.errors import InputError
from caption_utils.model.decoder import build_decoder

FEEDING = [name for name in VARIANTS if name.endswith("feeding")]
PARALLEL = ["dot", "general", "concat"]


def padded(packed_values, tokens):
    """Packed values ``(P, …)`` as ``(B, T, …)``, zeros where a caption has ended."""
    return pad_packed_sequence(tokens._replace(data=packed_values), batch_first=True)[0]


def by_steps(decoder, features, tokens):
    """Logits and alphas of one caption, ``(T, V)`` and ``(T, N)``, a ``step`` at a time."""
    state, logits, alphas = decoder.init_state(features), [], []
    for token in tokens:
        step_logits, alpha, state = decoder.step(token[None], state)
        logits.append(step_logits[0])
        alphas.append(alpha[0])
    return torch.stack(logits), torch.stack(alphas)


@pytest.mark.parametrize("per_batch", [1, 4])
def test_teacher_forcing_equals_repeated_steps(make_decoder, make_batches, variant, per_batch):
    decoder = make_decoder(variant)
    for batch in make_batches(per_batch).in_order():
        logits, alphas = decoder(batch.features, batch.tokens, batch.owner)
        ids, lengths = pad_packed_sequence(batch.tokens, batch_first=True)
        for b, (owner, length) in enumerate(zip(batch.owner, lengths, strict=True)):
            stepped = by_steps(decoder, batch.features[owner][None], ids[b, :length])
            torch.testing.assert_close(padded(logits, batch.tokens)[b, :length], stepped[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(padded(alphas, batch.tokens)[b, :length], stepped[1], atol=1e-5, rtol=0)


def test_alphas_sum_to_one_over_the_regions(make_decoder, make_batches, variant):
    (batch,) = make_batches().in_order()
    _, alphas = make_decoder(variant)(batch.features, batch.tokens, batch.owner)
    assert alphas.shape == (len(batch.targets), 5)
    torch.testing.assert_close(alphas.sum(dim=1), torch.ones(len(alphas)))


def test_local_features_are_attended_to_and_all_make_the_initial_state(make_decoder):
    """Other features than the local ones change the initial state alone; their place in the picture changes nothing."""
    decoder = make_decoder("local-general")
    features = torch.randn(1, 5, 6)
    state = decoder.init_state(features)
    torch.testing.assert_close(state.features, features[..., :4])
    changed, moved = features.clone(), features.clone()
    changed[..., 4:] += 1
    moved[..., 4:] = features[:, [1, 2, 3, 4, 0], 4:]
    for other, same in ((changed, False), (moved, True)):
        found = decoder.init_state(other)
        torch.testing.assert_close(found.features, state.features)
        torch.testing.assert_close(found.keys, state.keys)
        assert torch.allclose(found.hidden, state.hidden) == same


def total_loss_and_gradients(decoder, batch):
    decoder.zero_grad()
    logits, _ = decoder(batch.features, batch.tokens, batch.owner)
    loss = F.cross_entropy(logits, batch.targets, reduction="sum")
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in decoder.named_parameters()}


def test_a_batch_is_the_sum_of_its_captions(make_decoder, make_batches, variant):
    """Neither other captions nor their lengths change a caption's loss or its gradient."""
    decoder = make_decoder(variant).double()
    (batch,) = make_batches().in_order()
    features = batch.features.double()
    together = total_loss_and_gradients(decoder, replace(batch, features=features))
    singles = [(owner, text) for owner, texts in enumerate(CAPTIONS.values()) for text in texts]
    alone = []
    for owner, text in singles:
        (single,) = make_batches(captions={"x": [text]}).in_order()
        alone.append(total_loss_and_gradients(decoder, replace(single, features=features[owner][None])))
    torch.testing.assert_close(sum(loss for loss, _ in alone), together[0])
    for name, gradient in together[1].items():
        torch.testing.assert_close(sum(gradients[name] for _, gradients in alone), gradient, msg=name)


def test_captions_that_share_an_image_equal_captions_with_copies_of_it(make_decoder, make_batches, variant):
    decoder = make_decoder(variant)
    (batch,) = make_batches().in_order()
    shared = decoder(batch.features, batch.tokens, batch.owner)
    copied = decoder(batch.features[batch.owner], batch.tokens, torch.arange(len(batch.owner)))
    for one, other in zip(shared, copied, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_an_image_without_a_caption_changes_nothing(make_decoder, make_batches, variant):
    decoder = make_decoder(variant)
    (batch,) = make_batches().in_order()
    more = torch.cat([batch.features, torch.randn(2, 5, 6)])
    for one, other in zip(
        decoder(batch.features, batch.tokens, batch.owner), decoder(more, batch.tokens, batch.owner), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_hypotheses_of_an_image_step_like_captions_with_images_of_their_own(make_decoder, variant):
    """Also where hypotheses come several times, in another order, and an image leaves."""
    decoder, features = make_decoder(variant), torch.randn(3, 5, 6)
    owner = torch.arange(3).repeat_interleave(2)
    shared, own = decoder.init_state(features).select(owner), decoder.init_state(features[owner])
    choices = [([1, 0, 3, 3, 4, 5], None), ([1, 1, 5, 4], [0, 2]), ([2, 3], [1])]
    for captions, images in choices:
        words = torch.randint(4, 10, (len(own.hidden),))
        outputs = [decoder.step(words, state) for state in (shared, own)]
        for one, other in zip(outputs[0][:2], outputs[1][:2], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        rows = torch.tensor(captions)
        shared = outputs[0][2].select(rows, None if images is None else torch.tensor(images))
        own = outputs[1][2].select(rows, rows)
    assert len(shared.features) == 1


def test_a_step_changes_nothing_it_is_given(make_decoder, variant):
    decoder = make_decoder(variant)
    state, tokens = decoder.init_state(torch.randn(3, 5, 6)), torch.tensor([4, 5, 6])
    tensors = [value for value in vars(state).values() if value is not None]
    before = [tensor.clone() for tensor in (*tensors, tokens)]
    decoder.step(tokens, state)
    assert all(torch.equal(*pair) for pair in zip(before, (*tensors, tokens), strict=True))


def test_autocast_leaves_the_loss_and_its_gradient_nearly_as_they_are(make_decoder, make_batches, variant):
    decoder = make_decoder(variant)
    (batch,) = make_batches().in_order()
    loss, gradients = total_loss_and_gradients(decoder, batch)
    for precision in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", precision):
            found = total_loss_and_gradients(decoder, batch)
            logits, _, _ = decoder.step(torch.tensor([4]), decoder.init_state(batch.features[:1]))
        assert logits.dtype == precision
        assert found[0].item() == pytest.approx(loss.item(), rel=0.02)
        wanted, lower = (torch.cat([each.flatten() for each in of.values()]) for of in (gradients, found[1]))
        assert (lower - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("steps", [12, 40])
@pytest.mark.parametrize("variant_name", PARALLEL)
def test_luong_without_input_feeding_has_no_time_loop(make_decoder, variant_name, steps):
    """However many steps there are, PyTorch's LSTM and the attention are called once."""
    decoder, lengths = make_decoder(variant_name), torch.tensor([steps, steps - 1, 9, 9, 3])
    tokens = pack_padded_sequence(torch.randint(len(decoder.embedding.weight), (5, steps)), lengths, batch_first=True)
    with (
        mock.patch.object(decoder.lstm, "forward", wraps=decoder.lstm.forward) as lstm,
        mock.patch.object(decoder.attention, "forward", wraps=decoder.attention.forward) as attention,
        mock.patch.object(decoder, "recur") as recur,
    ):
        decoder(torch.randn(5, 5, 6), tokens, torch.arange(5))
    assert (lstm.call_count, attention.call_count, recur.call_count) == (1, 1, 0)


@pytest.mark.parametrize("variant_name", FEEDING)
def test_input_feeding_changes_what_follows_but_not_the_first_word(make_decoder, variant_name):
    decoder, features = make_decoder(variant_name), torch.randn(1, 5, 6)
    tokens = torch.tensor([1, 5, 6])
    fed = by_steps(decoder, features, tokens)[0]
    torch.nn.init.zeros_(decoder.lstm.weight_ih[:, decoder.config.embed_dim :])
    unfed = by_steps(decoder, features, tokens)[0]
    torch.testing.assert_close(fed[0], unfed[0])
    assert not torch.allclose(fed[1], unfed[1])


def reference(decoder, features, tokens):
    """Xu et al. 2015, section 3.1.2, or Luong et al. 2015, section 3, with PyTorch's LSTM cell: logits ``(T, V)``."""
    config, weights = decoder.config, dict(decoder.named_parameters())
    bahdanau, feeding = config.attention != "luong", config.input_feeding
    fed_width = config.context_dim if bahdanau else config.output_dim if feeding else 0
    cell = torch.nn.LSTMCell(config.embed_dim + fed_width, config.hidden_dim)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in decoder.lstm.state_dict().items()})
    whole, features = features, features[..., : config.local_dim or None]
    if config.region_dim:
        features = torch.relu(features @ weights["project.weight"].T + weights["project.bias"])
    h, c = torch.tanh(decoder.initial((whole if config.local_dim else features).mean(1))).chunk(2, dim=-1)
    attentional, keys, logits = torch.zeros(1, config.output_dim), decoder.attention.keys(features), []
    for token in tokens:
        embedded = decoder.embedding(token[None])
        if bahdanau:
            context = decoder.attention(h[None], features, keys)[0][0]
            if config.gate:  # section 4.2.1
                context = context / (1 + torch.exp(-(weights["gate.weight"] @ h[0] + weights["gate.bias"])))
            h, c = cell(torch.cat([embedded, context], 1), (h, c))
            out = torch.cat([h, context], 1) if config.deep_output else h
        else:
            h, c = cell(torch.cat([embedded, attentional], 1) if feeding else embedded, (h, c))
            context = decoder.attention(h[None], features, keys)[0][0]
            out = attentional = torch.tanh(decoder.W_c(torch.cat([context, h], 1)))
        out = decoder.to_embedding(out)
        words = decoder.embedding(torch.arange(config.vocab_size)) if config.tie_weights else weights["output.weight"]
        out = out + embedded if config.deep_output else out
        logits.append(words @ out[0] + weights["output.bias"])
    return torch.stack(logits)


def test_steps_follow_the_papers_equations(make_decoder, variant):
    decoder, features = make_decoder(variant), torch.randn(1, 5, 6)
    tokens = torch.tensor([1, 5, 8, 4])
    with torch.no_grad():
        stepped = by_steps(decoder, features, tokens)[0]
        torch.testing.assert_close(stepped, reference(decoder, features, tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_those_of_finite_differences(name):
    torch.manual_seed(0)
    sizes = {"vocab_size": 5, "feature_dim": 2, "embed_dim": 2, "hidden_dim": 2, "attention_dim": 2, "dropout": 0.0}
    narrow = {
        each: min(limit, VARIANTS[name].get(each, 0)) for each, limit in {"region_dim": 2, "local_dim": 1}.items()
    }
    changes = {"hidden_dim": 2, "feature_dropout": 0.0} | narrow
    decoder = build_decoder(DecoderConfig(**(sizes | VARIANTS[name] | changes))).double()
    tokens, owner = pack_sequence([torch.tensor([1, 4, 3]), torch.tensor([1, 4]), torch.tensor([1])]), [0, 1, 0]
    names, values = zip(*decoder.named_parameters(), strict=True)

    def forward(features, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(decoder, parameters, (features, tokens, torch.tensor(owner)))

    features = torch.randn(2, 3, 2, dtype=torch.float64)
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (features, *values)]
    assert torch.autograd.gradcheck(forward, inputs, fast_mode=True)


def test_dropout_works_in_training_alone(make_decoder, make_batches, variant):
    decoder = make_decoder(variant)
    (batch,) = make_batches().in_order()
    inputs = batch.features, batch.tokens, batch.owner
    assert torch.equal(decoder(*inputs)[0], decoder(*inputs)[0])
    decoder.train()
    assert not torch.equal(decoder(*inputs)[0], decoder(*inputs)[0])


def test_tied_weights_are_one_tensor(make_decoder):
    decoder = make_decoder("tied")
    untied = make_decoder()
    assert decoder.output.weight is decoder.embedding.weight
    assert untied.output.weight is not untied.embedding.weight


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "luong", "gate": True}, "gate is for attention bahdanau or none"),
        ({"attention": "none", "hard": True}, "hard chooses among regions; take attention bahdanau or luong"),
        (
            {"attention": "none", "normalizer": "entmax"},
            "a normalizer is for attention bahdanau or luong; leave it out",
        ),
        (
            {"normalizer": "sparsemax", "hard": True},
            "hard attention must be able to try every region; leave normalizer",
        ),
        ({"local_dim": 7}, "local_dim exceeds feature_dim; choose at most 6"),
        ({"likeliest": True}, "likeliest is for hard attention; set hard too"),
        ({"attention": "self"}, "attention 'self' is unknown; choose one of bahdanau, luong, none"),
        ({"score": "cosine"}, "score 'cosine' is unknown; choose one of general, dot, concat"),
        (
            {"attention": "luong", "score": "dot", "hidden_dim": 5},
            "score 'dot' compares features of width 6 with a hidden state of width 5; set hidden_dim=6, or use",
        ),
        ({"normalizer": "relu"}, "normalizer 'relu' is unknown; choose one of softmax, sparsemax, entmax"),
    ],
)
def test_settings_that_make_no_sense_together_are_told(settings, message):
    with pytest.raises(InputError, match=f"^{message}"):
        DecoderConfig(10, 6, **settings)


def test_without_attention_every_word_sees_the_mean_feature(make_decoder, make_batches):
    decoder = make_decoder("none")
    (batch,) = make_batches().in_order()
    logits, alphas = decoder(batch.features, batch.tokens, batch.owner)
    torch.testing.assert_close(alphas, torch.full((len(batch.targets), 5), 1 / 5))
    means = batch.features.mean(dim=1, keepdim=True).expand_as(batch.features)
    torch.testing.assert_close(decoder(means, batch.tokens, batch.owner)[0], logits)
    assert not [name for name, _ in decoder.named_parameters() if name.startswith("attention")]


HARD = {
    "bahdanau": {"attention": "bahdanau", "gate": True, "deep_output": True},
    "general": {"attention": "luong"},
    "dot-feeding": {"attention": "luong", "score": "dot", "hidden_dim": 6, "input_feeding": True},
}


@pytest.fixture(params=HARD)
def hard(request, make_decoder):
    return lambda **settings: make_decoder(**HARD[request.param], hard=True, **settings)


def test_a_caption_that_looks_at_samples_sees_one_region_a_word(hard, make_batches):
    """The same as with images that hold the region sampled everywhere; the first state knows the whole image."""
    decoder = hard()
    (batch,) = make_batches(captions={"a": ["a small bird"]}).in_order()
    logits, looks = decoder(batch.features, batch.tokens, batch.owner, torch.ones(1, 1, 1))
    alphas, samples = looks.unbind(dim=1)
    assert samples.sum(dim=1).tolist() == [1] * 4
    state, expected = decoder.init_state(batch.features), []
    for token, sample, alpha in zip(batch.tokens.data, samples, alphas, strict=True):
        region = (sample @ batch.features[0]).expand_as(batch.features)
        found, seen, _ = decoder.step(token[None], replace(state, features=region))
        torch.testing.assert_close(seen[0], alpha)
        expected.append(found)
        state = replace(decoder.step(token[None], replace(state, features=region))[2], features=batch.features)
    torch.testing.assert_close(logits, torch.cat(expected))


def test_a_caption_that_looks_at_no_samples_sees_what_soft_attention_sees(hard, make_batches):
    decoder = hard()
    (batch,) = make_batches().in_order()
    wanted = decoder(batch.features, batch.tokens, batch.owner)
    which = (torch.arange(len(batch.owner)) % 2 == 0).view(-1, 1, 1)
    logits, looks = decoder(batch.features, batch.tokens, batch.owner, which.float())
    soft = torch.cat([~which.flatten()[:size] for size in batch.tokens.batch_sizes.tolist()])
    torch.testing.assert_close(logits[soft], wanted[0][soft])
    torch.testing.assert_close(looks[soft, 0], wanted[1][soft])
    assert looks[:, 1].sum(dim=1).tolist() == (~soft).float().tolist()
    assert not torch.allclose(logits[~soft], wanted[0][~soft])


def test_the_likeliest_region_is_the_context_of_each_word(hard, make_batches):
    decoder, expected = hard(likeliest=True), hard()
    (batch,) = make_batches().in_order()
    with mock.patch.object(expected.attention, "normalize", lambda s: (s == s.amax(-1, keepdim=True)).float()):
        wanted = expected(batch.features, batch.tokens, batch.owner)
    logits, alphas = decoder(batch.features, batch.tokens, batch.owner)
    torch.testing.assert_close(logits, wanted[0])
    assert torch.equal(alphas == alphas.amax(1, keepdim=True), wanted[1] == 1)
    assert ((0 < alphas) & (alphas < 1)).all()
    (single,) = make_batches(captions={"a": ["the sea"]}).in_order()
    stepped = by_steps(decoder, single.features, single.tokens.data)[0]
    torch.testing.assert_close(decoder(single.features, single.tokens, single.owner)[0], stepped)


@pytest.fixture
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("attention", ["bahdanau", "luong"])
@pytest.mark.usefixtures("several_threads")
def test_gradients_repeat_to_the_last_bit(attention):
    """Large enough that PyTorch shares the work among threads, whose order must not matter."""
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(50, 32, attention, embed_dim=16, hidden_dim=256, attention_dim=64))
    decoder.eval()
    features, owner = torch.rand(40, 49, 32), torch.randperm(200) // 5
    tokens = pack_sequence(list(torch.randint(4, 50, (200, 4))))

    def gradients():
        decoder.zero_grad()
        decoder(features, tokens, owner)[0].square().mean().backward()
        return torch.cat([parameter.grad.flatten() for parameter in decoder.parameters()])

    first = gradients()
    assert all(torch.equal(gradients(), first) for _ in range(10))


@pytest.mark.parametrize("variant", ["bahdanau", "general", "local"])
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 5, 3), (5, 6)])
def test_features_of_another_width_are_refused(make_decoder, variant, shape):
    with pytest.raises(ValueError, match=rf"^features {re.escape(str(shape))}: this decoder takes \(G, N, 6\)$"):
        make_decoder(variant).init_state(torch.ones(shape))


@pytest.mark.parametrize("sizes", [(0, 6), (10, 0), (10, -1)])
def test_sizes_from_the_data_are_at_least_one(sizes):
    with pytest.raises(InputError, match=r"^(vocab_size|feature_dim)=-?\d is out of range; choose a value from 1"):
        DecoderConfig(*sizes)
