"""Chapter 20, comparison: a defect that is planted, to see whether the method notices it."""

import torch
from torch import Tensor, nn

from llmtutor.model.transformer import Transformer


def zero_first_head(model: Transformer) -> None:
    """Silence the first head of every block: its output is 0 whatever it attends to."""

    def silence(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        keep = torch.ones(inputs[0].shape[-1])
        keep[:head_dim] = 0
        return (inputs[0] * keep.to(inputs[0]),)

    for block in model.blocks:
        head_dim = block.get_submodule("mixer").head_dim
        block.get_submodule("mixer.output").register_forward_pre_hook(silence)
