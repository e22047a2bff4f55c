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
    total = cross_entropy(logits, batch.targets, config.label_smoothing)
    if teachers:
        taught = F.cross_entropy(logits, mean_probabilities(teachers, batch), reduction="sum")
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
    ``torch.nn.functional.cross_entropy`` computes, but the backward pass needs no memory of its own: it leaves the
    gradient where float32 logits were. Raises ``ValueError`` for logits that are a leaf, which would be lost.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.requires_grad and logits.is_leaf:
        raise ValueError("the gradient would overwrite these logits; give cross_entropy a copy of them")
    return CrossEntropy.apply(logits, targets, smoothing)


class CrossEntropy(torch.autograd.Function):
    """``log Σ e^l - l_target``, whose gradient is the softmax less one at the target; a cache's fill of rows at a time.

    Who asks for a second gradient of the same logits gets autograd's error that they were overwritten; there is no
    gradient of the gradient.
    """

    @staticmethod
    def forward(ctx, logits, targets, smoothing):
        size = rows_in_cache(logits.shape[1], len(logits), logits.device)
        sums = torch.cat([part.logsumexp(dim=1, keepdim=True) for part in logits.split(size)])
        wanted = logits.gather(1, targets.unsqueeze(1))
        if smoothing:
            wanted = torch.lerp(wanted, logits.mean(dim=1, keepdim=True), smoothing)
        ctx.save_for_backward(logits, targets, sums)
        ctx.size, ctx.smoothing = size, smoothing
        return (sums - wanted).sum()

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():
            raise RuntimeError("cross_entropy has no second derivative; use torch.nn.functional.cross_entropy")
        logits, targets, sums = ctx.saved_tensors
        for part, of_part in zip(logits.split(ctx.size), sums.split(ctx.size), strict=True):
            part.sub_(of_part).exp_().sub_(ctx.smoothing / logits.shape[1]).mul_(grad_loss)
        at_target = ((ctx.smoothing - 1) * grad_loss).expand(len(targets), 1)
        return logits.scatter_add_(1, targets.unsqueeze(1), at_target), None, None
