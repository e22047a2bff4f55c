"""``python tools/exploration_tables.py DIR``: write the tables of a data set into results/exploration."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from caption_utils.data import exploration
from caption_utils.data.datasets import CaptionDataset, load_dataset
from caption_utils.data.vocab import Vocabulary, tokenize
from caption_utils.errors import InputError
from caption_utils.files import replacing

ROOT = Path(__file__).resolve().parent.parent


def write_tables(dataset: CaptionDataset, folder: Path) -> None:
    """``<name>_human_bleu.csv`` (validation images) and ``<name>_vocabulary.csv`` into ``folder``.

    The second is ``threshold_table`` with one more column, ``people_bleu4``: the mean BLEU-4 of people who know only
    the words of that vocabulary. Where no image has two captions, BLEU is missing, which is said.
    """
    val = dataset.split("val")
    people = [[tokenize(text) for text in val.captions_of(name)] for name in val.image_names]
    train = [tokenize(text) for text in dataset.split("train").table["caption"]]
    counts = Counter(word for tokens in train for word in tokens)
    table = exploration.threshold_table(train, [tokens for captions in people for tokens in captions])
    table["people_bleu4"] = [exploration.human_bleu(people, Vocabulary(counts, n))["bleu4"].mean() for n in table.index]
    if table["people_bleu4"].isna().all():
        print(f"{dataset.name}: BLEU of people is missing: no validation image has two captions", file=sys.stderr)
    for name, values in {"human_bleu": exploration.human_bleu(people), "vocabulary": table}.items():
        with replacing(folder / f"{dataset.name}_{name}.csv") as temporary:
            values.round(4).to_csv(temporary, lineterminator="\n")


def main() -> None:
    """Read the data set that the command names, and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data set: folder or caption file")
    try:
        folder = ROOT / "results" / "exploration"
        write_tables(load_dataset(parser.parse_args().data, require_images=False), folder)
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
