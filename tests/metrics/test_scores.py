import math
from random import Random

import numpy as np
import pytest
import torch
from hand_made import CAPTIONS, REFERENCES
from nltk.translate.bleu_score import corpus_bleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torch.nn import functional as F

from caption_utils.data.vocab import Vocabulary
from caption_utils.metrics.meteor import meteor
from caption_utils.metrics.perplexity import likelihood, per_word, perplexity, unknown_rate
from caption_utils.metrics.scores import bleu, caption_scores, tokenized


def test_bleu_equals_hand_computed_values():
    """``the cat sat`` against ``the cat sat down`` and ``the the dog``.

    Unigrams 3 of 3, bigrams 2 of 2, trigrams 1 of 1, and no 4-gram; both references are one word off or none: the
    closest has 3 words, so nothing is taken off for brevity.
    """
    scores = bleu(["the cat sat"], [["the cat sat down", "the the dog"]])
    assert [scores["bleu1"], scores["bleu2"], scores["bleu3"]] == pytest.approx([100, 100, 100])


def test_bleu_clips_repeated_words_and_punishes_brevity():
    """``the the the the`` has 2 of 4 words in a reference with two; ``the cat`` lacks 2 of 4 words: exp(1 - 4 / 2)."""
    assert bleu(["the the the the"], [["the cat the mat"]])["bleu1"] == pytest.approx(50)
    short = bleu(["the cat"], [["the cat sat down"]])
    assert short["bleu1"] == pytest.approx(100 * math.exp(-1))
    assert short["bleu2"] == pytest.approx(100 * math.exp(-1))


def test_bleu_is_taken_over_the_corpus_not_averaged():
    """3 of 4 words in one caption and 1 of 2 in the other: 4 of 6 together, not the mean of 3/4 and 1/2."""
    scores = bleu(["a b c x", "d y"], [["a b c d"], ["d e"]])
    assert scores["bleu1"] == pytest.approx(100 * 4 / 6)
    assert scores["bleu2"] == pytest.approx(100 * math.sqrt(4 / 6 * 2 / 4))


@pytest.mark.filterwarnings("error")
def test_bleu_equals_the_papers_scorer():
    """Values of ``pycocoevalcap`` 1.2 on these captions, one of which is too short for trigrams."""
    expected = {"bleu1": 89.8796, "bleu2": 82.5937, "bleu3": 70.6748, "bleu4": 53.7922}
    assert bleu(CAPTIONS, REFERENCES) == pytest.approx(expected, abs=1e-4)


def test_scores_equal_those_of_the_papers_scorer_called_directly():
    """On captions made of references and noise, one of a single word and one empty."""
    generator = Random(1)
    words = sorted({word for texts in REFERENCES for text in texts for word in text.split()})
    references = [generator.choices(sum(REFERENCES, []), k=generator.randint(1, 5)) for _ in range(60)]
    captions = [
        " ".join(generator.choices(words + texts[0].split() * 9, k=generator.randint(1, 12))) for texts in references
    ] + [""]
    references.append(["a dog"])
    gold, spoken = tokenized(captions, references)
    theirs = [
        *Bleu(4).compute_score(gold, spoken, verbose=0)[0],
        Rouge().compute_score(gold, spoken)[0],
        Cider().compute_score(gold, spoken)[0],
    ]
    ours = caption_scores(captions, references)
    assert list(ours) == ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"]
    assert [score.value for score in ours.values()] == pytest.approx([100 * score for score in theirs], abs=1e-9)
    assert bleu(captions, references) == {name: ours[name].value for name in list(ours)[:4]}


def test_a_resample_is_what_the_scorer_gives_of_the_images_drawn():
    """Only CIDEr differs, by design: its document frequencies stay those of all images."""
    scores = caption_scores(CAPTIONS, REFERENCES)
    generator = np.random.default_rng(5)
    for k, drawn in enumerate(generator.integers(4, size=(6, 4))):
        again = caption_scores([CAPTIONS[i] for i in drawn], [REFERENCES[i] for i in drawn])
        for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"):
            assert scores[name].resampled(6, seed=5)[k] == pytest.approx(again[name].value, abs=1e-9)
        cider = scores["cider"].statistics[drawn, 0].mean()
        assert scores["cider"].resampled(6, seed=5)[k] == pytest.approx(cider)


def test_one_image_has_no_cider():
    """Every word is in the references of all images, so none has any weight: there is no score, rather than 0."""
    assert list(caption_scores(["a dog"], [["a dog", "one dog"]])) == ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"]


def test_case_and_punctuation_earn_nothing():
    plain = bleu(CAPTIONS, REFERENCES)
    dressed = bleu([f"{c.capitalize()} ." for c in CAPTIONS], [[f"{r} !" for r in texts] for texts in REFERENCES])
    assert dressed == plain


def test_bleu_equals_nltk_s_where_every_caption_has_four_words():
    captions, references = ([texts[i] for i in (0, 2, 3)] for texts in (CAPTIONS, REFERENCES))
    theirs = corpus_bleu(
        [[r.split() for r in texts] for texts in references],
        [c.split() for c in captions],
        weights=[(1 / n,) * n for n in (1, 2, 3, 4)],
    )
    assert list(bleu(captions, references).values()) == pytest.approx([100 * score for score in theirs], abs=1e-6)


def test_unknown_words_never_match():
    vocab = Vocabulary.build(["a dog"], min_count=1)
    text = vocab.decode(vocab.encode("a zebra"))
    assert text == "a <unk>"
    assert bleu([text], [["a zebra", "a horse"]])["bleu1"] == pytest.approx(50)


def test_nothing_in_common_scores_nothing():
    scores = bleu(["red green"], [["blue white"]])
    assert all(score == pytest.approx(0, abs=1e-6) for score in scores.values())


def test_cider_and_rouge_are_those_of_the_papers_scorer():
    scores = caption_scores(CAPTIONS, REFERENCES)
    assert scores["rouge_l"].value == pytest.approx(81.93, abs=0.01)
    assert scores["cider"].value == pytest.approx(344.70, abs=0.01)
    dressed = caption_scores([f"{c.capitalize()} ." for c in CAPTIONS], REFERENCES)
    assert all(dressed[name].value == pytest.approx(scores[name].value) for name in scores)


def test_rouge_of_one_pair_by_hand():
    """``a b c d`` and ``a c e``: longest common subsequence 2, precision 2/4, recall 2/3, beta 1.2."""
    precision, recall, beta = 2 / 4, 2 / 3, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert caption_scores(["a b c d"], [["a c e"]])["rouge_l"].value == pytest.approx(100 * expected)


@pytest.mark.parametrize("score", [bleu, caption_scores, meteor])
@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        (["a dog", "a cat"], ["a dog", "a cat"], "references of an image must be a list of one or more captions"),
        (["a dog", "a cat"], [["a dog"], []], "references of an image must be a list of one or more captions"),
        ([["a", "dog"]], [["a dog"]], "captions must be text, not list"),
        (["a dog"], [[["a", "dog"]]], "captions must be text, not list"),
        (["a dog", "a cat"], [["a dog"]], "2 captions and references of 1 images; give one caption"),
        (["a dog"], [["a dog"], ["a cat"]], "1 captions and references of 2 images; give one caption"),
        ([], [], "0 captions and references of 0 images; give one caption"),
    ],
)
def test_what_cannot_be_scored_is_told(score, captions, references, message):
    with pytest.raises(ValueError, match=message):
        score(captions, references)


def test_perplexity_counts_every_token_once(make_decoder, make_batches):
    decoder = make_decoder()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in make_batches(1).in_order():
            logits = decoder(batch.features, batch.tokens, batch.owner)[0].log_softmax(1)
            for row, target in zip(logits, batch.targets, strict=True):
                total, count = total - row[target].item(), count + 1
    expected = pytest.approx(math.exp(total / count), rel=1e-5)
    assert all(perplexity(decoder, make_batches(per_batch).in_order()) == expected for per_batch in (1, 3, 4))


def test_likelihood_keeps_the_images_apart(make_decoder, make_batches):
    """Each image's tokens, ``<eos>`` included, and its own perplexity, however the images are batched."""
    decoder = make_decoder()
    alone = [perplexity(decoder, [batch]) for batch in make_batches(1).in_order()]
    for per_batch in (1, 3, 4):
        score = likelihood(decoder, make_batches(per_batch).in_order())
        assert score.statistics[:, 1].tolist() == [11, 13, 10, 13]
        assert score.corpus(score.statistics) == pytest.approx(alone, rel=1e-5)
        assert score.value == perplexity(decoder, make_batches(per_batch).in_order())


def test_words_share_what_their_pieces_cost(make_decoder, make_batches):
    """Each image's captions have as many words, ends counted, as tokens; then half as many."""
    score = likelihood(make_decoder(), make_batches().in_order())
    tokens = score.statistics[:, 1]
    assert per_word(score, tokens).value == score.value
    assert per_word(score, tokens / 2).value == pytest.approx(score.value**2)


def test_perplexity_of_a_decoder_that_knows_nothing_is_the_vocabulary_size(make_decoder, make_batches, vocab):
    decoder = make_decoder()
    torch.nn.init.zeros_(decoder.output.weight)
    torch.nn.init.zeros_(decoder.output.bias)
    assert perplexity(decoder, make_batches().in_order()) == pytest.approx(len(vocab), rel=1e-5)


def test_perplexity_is_taken_without_dropout_and_leaves_the_mode_as_it_was(make_decoder, make_batches):
    decoder = make_decoder()
    expected = perplexity(decoder, make_batches().in_order())
    assert not decoder.training
    decoder.train()
    assert perplexity(decoder, make_batches().in_order()) == expected
    assert decoder.training


def test_batches_that_are_used_up_are_told_and_leave_the_mode_as_it_was(make_decoder, make_batches, vocab):
    decoder, batches = make_decoder().train(), make_batches().in_order()
    perplexity(decoder, batches)
    for measure in (lambda: perplexity(decoder, batches), lambda: unknown_rate(batches, vocab.unk)):
        with pytest.raises(ValueError, match="^no batches; an iterator can be used once$"):
            measure()
    assert decoder.training


@pytest.mark.parametrize("bias", [1e4, math.nan])
def test_a_diverged_model_has_infinite_perplexity(make_decoder, make_batches, bias):
    decoder = make_decoder()
    with torch.no_grad():
        decoder.output.bias[0] = bias
    assert perplexity(decoder, make_batches().in_order()) == math.inf


def test_perplexity_equals_cross_entropy_of_one_batch(make_decoder, make_batches):
    decoder = make_decoder("general")
    (batch,) = make_batches().in_order()
    loss = F.cross_entropy(decoder(batch.features, batch.tokens, batch.owner)[0], batch.targets)
    assert perplexity(decoder, [batch]) == pytest.approx(loss.exp().item(), rel=1e-5)


def test_unknown_rate_counts_the_end_token(make_batches, vocab):
    batches = make_batches(1, captions={"a": ["a dog", "a zebra"], "b": ["zebra yak quagga"]})
    assert unknown_rate(batches.in_order(), vocab.unk) == pytest.approx(4 / 10)
