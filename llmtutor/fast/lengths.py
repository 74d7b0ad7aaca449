"""For programs that serve texts of any length: state spaces whose steps do not depend on it.

A scan that takes one token after another, and a transform as long as the text, are other programs
for other lengths. Here the scan doubles, and the transform has room for the longest text: the same
numbers, with more work for a short one. A GPU, which dislikes to wait, may prefer them as well.
"""

from functools import partial
from typing import TypeVar

from torch import nn

from llmtutor.layers.recurrent.mamba import Mamba
from llmtutor.layers.recurrent.s4d import S4D, causal_convolution
from llmtutor.layers.recurrent.scan import parallel_scan

M = TypeVar("M", bound=nn.Module)


def any_length(model: M) -> M:
    """``model`` itself, its state spaces in these forms; weights stay."""
    for module in model.modules():
        if isinstance(module, Mamba):
            module.scan = partial(parallel_scan, longest=module.longest)
        elif isinstance(module, S4D):
            module.convolve = partial(causal_convolution, longest=module.longest)
    return model
