"""What training lowers: the cross-entropy of the captions' words, a teacher's too, and a penalty on the attention."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from caption_utils.config import TrainConfig
from caption_utils.model.decoder import Batch, Decoder

TeacherForcing = Callable[[Tensor, PackedSequence, Tensor], tuple[Tensor, Tensor]]  # as ``Decoder.forward``


def caption_loss(
    forward: TeacherForcing,
    batch: Batch,
    config: TrainConfig,
    tokens: int | None = None,
    captions: int | None = None,
    teachers: Sequence[Decoder] = (),
) -> Tensor:
    """Mean cross-entropy of the real tokens, plus the doubly stochastic penalty of Xu et al. 2015, equation 14.

    ``forward`` is a decoder. Sums over ``batch`` are divided by ``tokens`` and ``captions``, by default its own; with
    those of a larger batch the losses of its parts add up to the loss of the whole. With ``teachers``,
    ``config.distillation`` of the cross-entropy is with their probabilities.
    """
    logits, alphas = forward(batch.features, batch.tokens, batch.owner)  # (P, V), (P, N)
    logits = logits.float()
    total = F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=config.label_smoothing)
    if teachers:
        taught = F.cross_entropy(logits, mean_probabilities(teachers, batch), reduction="sum")
        total = torch.lerp(total, taught, config.distillation)
    loss = total / (tokens or len(batch.targets))
    if config.doubly_stochastic:
        attended = attention_of_captions(alphas, batch)  # (B, N)
        loss = loss + config.doubly_stochastic * ((1 - attended) ** 2).sum() / (captions or len(batch.owner))
    return loss


def attention_of_captions(alphas: Tensor, batch: Batch) -> Tensor:
    """What each region gets over a whole caption, ``(B, N)``: the sum of the ``alphas (P, N)`` of its steps."""
    captions = torch.arange(len(batch.owner), device=alphas.device)
    caption = torch.cat([captions[:size] for size in batch.tokens.batch_sizes.tolist()])  # (P,), whose each step is
    return alphas.new_zeros(len(captions), alphas.shape[1]).index_add(0, caption, alphas)


@torch.no_grad()
def mean_probabilities(decoders: Sequence[Decoder], batch: Batch) -> Tensor:
    """``(P, V)`` of the word after each token, averaged over decoders in evaluation mode."""
    logits = (decoder(batch.features, batch.tokens, batch.owner)[0] for decoder in decoders)
    return sum(each.float().softmax(dim=1) for each in logits) / len(decoders)
