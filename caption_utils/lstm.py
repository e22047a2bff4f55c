"""PyTorch's LSTM through packed captions, spared what makes it slow or fail on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

PARTS = 4


def hidden_states(lstm: nn.LSTM, inputs: PackedSequence, hidden: Tensor, cell: Tensor) -> Tensor:
    """The hidden states ``(P, H)`` after the packed inputs ``(P, E)``, from first states ``(B, H)``.

    On a CPU, for every step the backward pass adds up gradients as large as all inputs of a call. Hence a few calls,
    each with a share of the steps; and in the precision of the weights, since float16 fails where captions are equally
    long.
    """
    if hidden.device.type != "cpu":
        return lstm(inputs, (hidden[None], cell[None]))[0].data
    data, hidden, cell = (tensor.to(lstm.weight_hh_l0.dtype) for tensor in (inputs.data, hidden, cell))
    shares = [share for share in inputs.batch_sizes.tensor_split(PARTS) if len(share)]
    states, outputs = (hidden[None], cell[None]), []
    with torch.autocast("cpu", enabled=False):
        for part, running in zip(data.split([int(share.sum()) for share in shares]), shares, strict=True):
            hidden, cell = (state[:, : int(running[0])] for state in states)
            output, states = lstm(PackedSequence(part, running), (hidden, cell))
            outputs.append(output.data)
    return torch.cat(outputs)
