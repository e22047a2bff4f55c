from random import Random

import pytest
from hand_made import REFERENCES
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider

from caption_utils.metrics.cider import CiderD
from caption_utils.metrics.scores import sentence_bleu

WORDS = sorted({word for texts in REFERENCES for text in texts for word in text.split()})


def corpus(seed):
    """Forty images with one to five references, and a caption of each, of words of a reference and of noise."""
    draw = Random(seed)
    references = [[text.split() for text in draw.choices(sum(REFERENCES, []), k=draw.randint(1, 5))] for _ in range(40)]
    captions = [draw.choices([*WORDS, "unheard"] + texts[0] * 9, k=draw.randint(1, 12)) for texts in references]
    return references, [
        texts[0] if draw.random() < 0.2 else said for texts, said in zip(references, captions, strict=True)
    ]


def joined(captions):
    return [" ".join(tokens) for tokens in captions]


@pytest.mark.parametrize("seed", range(5))
def test_cider_d_is_that_of_the_papers_scorer(seed):
    references, captions = corpus(seed)
    gold = {i: joined(texts) for i, texts in enumerate(references)}
    expected = Cider().compute_score(gold, {i: joined([caption]) for i, caption in enumerate(captions)})[1]
    cider = CiderD(references)
    assert [cider.scores(i, [caption])[0] for i, caption in enumerate(captions)] == pytest.approx(expected, abs=1e-9)


def test_a_caption_scores_the_same_in_any_company():
    """Document frequencies are those of the references that were given, not of what is scored together."""
    references, captions = corpus(0)
    cider = CiderD(references)
    together = cider.scores(3, captions)
    assert together == [cider.scores(3, [caption])[0] for caption in captions]
    assert CiderD(references[:10]).scores(3, [captions[3]]) != cider.scores(3, [captions[3]])


def test_a_caption_without_a_word_scores_nothing():
    references, _ = corpus(0)
    assert CiderD(references).scores(0, [[], ["unheard"]]) == [0, 0]


def test_text_that_is_not_tokenised_is_told():
    message = "takes lists of tokens, not strings; tokenize captions and references first"
    for references in ([["a dog", "one dog"], ["a cat"]], ["a dog", "a cat"]):
        with pytest.raises(ValueError, match=message):
            CiderD(references)
    cider = CiderD([[["a", "dog"]], [["a", "cat"]]])
    for captions in (["a dog"], "a dog"):
        with pytest.raises(ValueError, match=message):
            cider.scores(0, captions)


def test_bleu_of_each_caption_is_that_of_the_papers_scorer():
    references, captions = corpus(1)
    scorer = BleuScorer(n=4)
    for texts, caption in zip(references, captions, strict=True):
        scorer += " ".join(caption), joined(texts)
    expected = scorer.compute_score("closest")[1][3]
    found = [sentence_bleu([said], texts)[0] for texts, said in zip(references, captions, strict=True)]
    assert found == pytest.approx(expected, abs=1e-9)
    assert list(sentence_bleu(captions[:3], references[0])) == [sentence_bleu([c], references[0]) for c in captions[:3]]
