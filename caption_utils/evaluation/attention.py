"""Does the model look at what it names, and is that there? On drawn scenes and on photographs."""

import math
from collections.abc import Sequence

from caption_utils.captioner import Caption, Captioner
from caption_utils.data.datasets import CaptionDataset
from caption_utils.demo.scenes import Scene, load_scenes
from caption_utils.errors import InputError
from caption_utils.evaluation.grounding import grounding, grounding_scores, truth
from caption_utils.evaluation.occlusion import deletion_scores, deletion_test
from caption_utils.metrics.bootstrap import Score

PHOTOS = 200  # of the deletion test, which encodes each about 17 times


def attention_scores(captioner: Captioner, dataset: CaptionDataset, captions: Sequence[Caption]) -> dict[str, Score]:
    """Scores of the attention of ``captions``, one for each image of ``dataset``.

    On the demo set: ``true``, the percentage of true captions; of the pointing game
    ``pointing_hit`` and ``pointing_mass``, to be compared with ``pointing_chance``; and ``pointing_absent``; see
    ``grounding_scores``. Those that are of no word, because no caption names a thing or none that is there, are
    missing. On photographs, the deletion test of the first 200 with greedy captions: ``fall_attended``,
    ``fall_random`` and ``fall_difference``; see ``deletion_scores``.
    """
    if dataset.is_demo:
        return _pointing_scores(captions, _scenes_of(dataset))
    photos = [dataset.path(name) for name in dataset.image_names[:PHOTOS]]
    falls = deletion_scores(deletion_test(captioner, photos), len(photos))
    return {f"fall_{name}": score for name, score in falls.items()}


def _pointing_scores(captions: Sequence[Caption], scenes: Sequence[Scene]) -> dict[str, Score]:
    true = truth([caption.text for caption in captions], scenes)
    table = grounding([caption.tokens for caption in captions], [caption.attention for caption in captions], scenes)
    pointing = grounding_scores(table, len(scenes))
    known = {f"pointing_{name}": score for name, score in pointing.items() if not math.isnan(score.value)}
    return {"true": true, **known}


def _scenes_of(dataset: CaptionDataset) -> list[Scene]:
    """The scene of each image. Raises ``InputError`` for an image that was not drawn."""
    scenes = load_scenes(dataset.root)
    for name in dataset.image_names:
        if name not in scenes:
            raise InputError(f"{dataset.root / 'scenes.json'}: has no scene {name}; take the photo out of the demo set")
    return [scenes[name] for name in dataset.image_names]
