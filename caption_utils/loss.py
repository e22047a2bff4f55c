"""What training lowers: the cross-entropy of the captions' words, a teacher's too, and a penalty on the attention."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from caption_utils.batches import Batch
from caption_utils.cores import rows_in_cache
from caption_utils.decoder import Decoder
from caption_utils.recipe import TrainConfig


def caption_loss(
    decoder: Decoder, batch: Batch, config: TrainConfig, tokens: int | None = None, captions: int | None = None,
    teachers: Sequence[Decoder] = (),
) -> Tensor:
    """Mean cross-entropy of the real tokens, plus the doubly stochastic penalty of Xu et al. 2015, equation 14.

    Sums over ``batch`` are divided by ``tokens`` and ``captions``, by default its own; with those of a larger batch
    the losses of its parts add up to the loss of the whole. With ``teachers``, ``config.distillation`` of the
    cross-entropy is with their probabilities.
    """
    logits, alphas = decoder(batch.features, batch.tokens, batch.owner)
    if teachers:  # before ``cross_entropy``, which overwrites the logits
        taught = F.cross_entropy(logits, mean_probabilities(teachers, batch), reduction="sum")
    total = cross_entropy(logits, batch.targets, config.label_smoothing)
    if teachers:
        total = torch.lerp(total, taught, config.distillation)
    loss = total / (tokens or len(batch.targets))
    if config.doubly_stochastic:
        caption = torch.cat([torch.arange(size) for size in batch.tokens.batch_sizes.tolist()]).to(alphas.device)
        looked = alphas.new_zeros(len(batch.owner), alphas.shape[1]).index_add(0, caption, alphas)  # (B, N)
        missed = ((1 - looked) ** 2).sum() / (captions or len(batch.owner))
        loss = loss + config.doubly_stochastic * missed
    return loss


@torch.no_grad()
def mean_probabilities(decoders: Sequence[Decoder], batch: Batch) -> Tensor:
    """``(P, V)`` of the word after each token, averaged over decoders in evaluation mode."""
    logits = (decoder(batch.features, batch.tokens, batch.owner)[0] for decoder in decoders)
    return sum(each.float().softmax(dim=1) for each in logits) / len(decoders)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """The sum over P words of the cross-entropy of ``logits (P, V)`` with ``targets (P,)``.

    ``smoothing`` of each target is spread over all words (Szegedy et al. 2016, section 7). It is what
    ``torch.nn.functional.cross_entropy`` computes, but in the memory of the logits, unless they are of half precision:
    they are lost, with or without gradients. Raises ``ValueError`` for such a leaf that needs a gradient.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.requires_grad and logits.is_leaf:
        raise ValueError("cross_entropy would overwrite these logits; give it a copy of them")
    return CrossEntropy.apply(logits, targets, smoothing)


class CrossEntropy(torch.autograd.Function):
    """``log Σ e^l - l_target``, whose gradient is the softmax less one at the target.

    The logits give way to ``e^{l - max l}``, as many rows at a time as a cache holds, and these to the gradient.
    """

    @staticmethod
    def forward(ctx, logits, targets, smoothing):
        wanted, greatest, sums = logits.gather(1, targets.unsqueeze(1)), [], []
        if smoothing:
            wanted = torch.lerp(wanted, logits.mean(dim=1, keepdim=True), smoothing)
        for part in logits.split(rows_in_cache(logits.shape[1], len(logits), logits.device)):
            greatest.append(part.amax(dim=1, keepdim=True))
            sums.append(part.sub_(greatest[-1]).exp_().sum(dim=1, keepdim=True))
        total = torch.cat(sums)
        ctx.save_for_backward(logits, targets, total)
        ctx.smoothing = smoothing
        return (torch.cat(greatest) + total.log() - wanted).sum()

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():
            raise RuntimeError("cross_entropy has no second derivative; use torch.nn.functional.cross_entropy")
        logits, targets, total = ctx.saved_tensors
        logits.mul_(grad_loss / total)
        if ctx.smoothing:
            logits.sub_(grad_loss * (ctx.smoothing / logits.shape[1]))
        at_target = ((ctx.smoothing - 1) * grad_loss).expand(len(targets), 1)
        return logits.scatter_add_(1, targets.unsqueeze(1), at_target), None, None
