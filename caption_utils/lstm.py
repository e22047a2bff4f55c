"""PyTorch's LSTM through packed captions, in the way that suits a GPU and in the one that suits a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

PARTS = 4


def hidden_states(lstm: nn.LSTM, inputs: PackedSequence, hidden: Tensor, cell: Tensor) -> Tensor:
    """The hidden states ``(P, H)`` after the packed inputs ``(P, E)``, from first states ``(B, H)``.

    On a CPU the backward pass adds, for every step, a gradient as large as all inputs of the call, so ``PARTS`` calls
    share the steps. They are made in the precision of the weights: lower ones fail, depending on the processor, where
    all captions are equally long.
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
