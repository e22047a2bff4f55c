"""Fit the confidence of a model's captions."""

from argparse import ArgumentParser


def add_options(parser: ArgumentParser) -> None:
    """Model and data."""
    parser.add_argument("--model", required=True, help="model folder, into which confidence.safetensors is written")
    parser.add_argument("--data", required=True, help="the data set it was trained on: folder or caption file")


def run(model: str, data: str) -> int:
    """Fit the confidence of a model's captions, write it into the model folder, and print how well it does."""
    from caption_utils.evaluation.confidence import fit_confidence

    found = fit_confidence(model, data)
    print(f"fitted to {found.fitted} validation photos, measured on {found.table['captions'].sum()} others")
    print(f"rank correlation with CIDEr  {found.rank_correlation:.3f}")
    print(found.table.round(3).to_string(index=False), flush=True)
    return 0
