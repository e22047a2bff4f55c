"""What training lowers: the cross-entropy of the captions' words, a teacher's too, and a penalty on the attention.

Hard attention adds what its samples are worth, since no gradient goes through them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from caption_utils.config import TrainConfig
from caption_utils.model.decoder import Batch, Decoder

TeacherForcing = Callable[..., tuple[Tensor, Tensor]]  # as ``Decoder.forward``


def caption_loss(
    decoder: Decoder,
    batch: Batch,
    config: TrainConfig,
    tokens: int | None = None,
    captions: int | None = None,
    teachers: Sequence[Decoder] = (),
    forward: TeacherForcing | None = None,
) -> Tensor:
    """Mean cross-entropy of the real tokens, plus the doubly stochastic penalty of Xu et al. 2015, equation 14.

    ``forward``, if any, computes what ``decoder`` does, in less time. Sums over ``batch`` are divided by ``tokens`` and
    ``captions``, by default its own; with those of a larger batch the losses of its parts add up to the loss of the
    whole. With ``teachers``, ``config.distillation`` of the cross-entropy is with their probabilities.
    ``config.from_context`` is the weight of ``context_loss``.
    """
    logits, alphas = (forward or decoder)(batch.features, batch.tokens, batch.owner)  # (P, V), (P, N)
    logits = logits.float()
    total = F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=config.label_smoothing)
    if teachers:
        taught = F.cross_entropy(logits, mean_probabilities(teachers, batch), reduction="sum")
        total = torch.lerp(total, taught, config.distillation)
    loss = total / (tokens or len(batch.targets))
    if config.doubly_stochastic:
        attended = of_captions(alphas, batch)  # (B, N), what each region gets over a whole caption
        loss = loss + config.doubly_stochastic * ((1 - attended) ** 2).sum() / (captions or len(batch.owner))
    if config.from_context:
        alone = context_loss(decoder, alphas, batch)
        loss = loss + config.from_context * alone / (tokens or len(batch.targets))
    return loss


def context_loss(decoder: Decoder, alphas: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the words, summed, when the context vector alone must tell each: attention learns to point.

    The LSTM can tell most words from the caption so far and from the gist of the picture in its first state; the
    context then need not tell them apart, nor attention move. Here hidden state and last word are silent.
    ``alphas (P, N)`` are the decoder's.
    """
    padded, lengths = pad_packed_sequence(batch.tokens._replace(data=alphas), batch_first=True)  # (B, T, N)
    contexts = padded @ decoder.regions(batch.features).index_select(0, batch.owner)  # (B, T, D)
    packed = pack_padded_sequence(contexts, lengths, batch_first=True)
    return F.cross_entropy(decoder.context_logits(packed.data).float(), batch.targets, reduction="sum")


def hard_loss(
    decoder: Decoder,
    baseline: Tensor,
    batch: Batch,
    config: TrainConfig,
    tokens: int | None = None,
    captions: int | None = None,
    teachers: Sequence[Decoder] = (),
) -> tuple[Tensor, Tensor]:
    """``caption_loss`` of hard attention, and the captions' log-probabilities ``log p(y | s, a)``, ``(B,)``.

    One caption in two looks at samples ``s``, the other at alpha, their mean. For each of the former the loss falls by
    ``λ_r (log p(y | s, a) - b) log p(s | a)``, the first factor being held fixed, and for each word of any by
    ``λ_e H(α)``; ``λ_r`` is ``config.reinforce``, ``λ_e`` is ``config.entropy``, b is ``baseline``.
    Its gradient is that of Xu et al. 2015, section 4.1, equations 11 and 12 (Williams 1992): with ``λ_r`` 1 and
    ``λ_e`` 0 its mean over the samples is the gradient of the mean cross-entropy.
    """
    hard = torch.rand(len(batch.owner), 1, 1, device=batch.features.device).round()
    logits, looks = decoder(batch.features, batch.tokens, batch.owner, hard)
    alphas, samples = looks.float().unbind(dim=1)  # (P, N), (P, N)
    loss = caption_loss(decoder, batch, config, tokens, captions, teachers, lambda *_: (logits, alphas))
    log_alphas = alphas.clamp(min=torch.finfo(alphas.dtype).tiny).log()
    log_samples = of_captions((samples * log_alphas).sum(dim=1), batch)  # log p(s | a), or 0
    log_words = of_captions(-F.cross_entropy(logits.detach().float(), batch.targets, reduction="none"), batch)
    learnt = (config.reinforce * (log_words - baseline) * log_samples).sum()
    entropy = -(alphas * log_alphas).sum()
    return loss - (learnt + config.entropy * entropy) / (tokens or len(batch.targets)), log_words


def of_captions(values: Tensor, batch: Batch) -> Tensor:
    """Sums over the steps of each caption, ``(B, …)``, of ``values (P, …)``."""
    captions = torch.arange(len(batch.owner), device=values.device)
    caption = torch.cat([captions[:size] for size in batch.tokens.batch_sizes.tolist()])  # (P,), whose each step is
    return values.new_zeros(len(captions), *values.shape[1:]).index_add(0, caption, values)


@torch.no_grad()
def mean_probabilities(decoders: Sequence[Decoder], batch: Batch) -> Tensor:
    """``(P, V)`` of the word after each token, averaged over decoders in evaluation mode."""
    logits = (decoder(batch.features, batch.tokens, batch.owner)[0] for decoder in decoders)
    return sum(each.float().softmax(dim=1) for each in logits) / len(decoders)
