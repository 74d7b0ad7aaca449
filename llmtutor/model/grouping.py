"""Chapter 14, gqa: a trained multi-head model becomes one whose heads share keys and values.

What comes out computes something else than before, since heads that had differed are now one.
A little more training, *uptraining*, lets the model get used to it (Ainslie et al. 2023).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmtutor.layers.attention.grouping import mean_pool_heads
from llmtutor.layers.attention.heads import AttentionConfig
from llmtutor.model.transformer import Transformer

Pool = Callable[[Tensor, int, int], Tensor]
"""``pool(weight, n_heads, n_kv_heads)``: a projection (or bias) with fewer heads, row by row."""


@torch.no_grad()
def group_heads(model: Transformer, n_kv_heads: int, pool: Pool = mean_pool_heads) -> Transformer:
    """A copy of ``model`` with ``n_kv_heads`` heads of keys and values; ``model`` stays as it is.

    Each projection of keys or values goes through ``pool``; all other weights are copied. Where
    the heads of each group were equal already, and with as many heads as before, the copy computes
    the same function. The model may be grouped before, if its heads divide once more.

    >>> from llmtutor.model.presets import build, preset
    >>> mha = build(preset("llama-nano", n_layers=1))
    >>> mqa = group_heads(mha, 1)
    >>> [tuple(m.blocks[0].mixer.key.weight.shape) for m in (mha, mqa)]
    [(128, 128), (32, 128)]

    Raises:
        ValueError: a mixer without heads of keys and values, ``n_kv_heads`` that does not divide
            those there are.
        RuntimeError: a ``pool`` that gives another shape.
    """
    state = model.state_dict()
    for i, block in enumerate(model.config.blocks):
        mixer = block.mixer
        if not isinstance(mixer, AttentionConfig):
            raise ValueError(f"only attention has heads to group, block {i} has {mixer.kind!r}")
        if n_kv_heads < 1 or mixer.kv_heads % n_kv_heads:
            raise ValueError(
                f"n_kv_heads must divide the model's {mixer.kv_heads} heads of keys and values, "
                f"got {n_kv_heads}"
            )
        for name, weight in state.items():
            if name.startswith((f"blocks.{i}.mixer.key.", f"blocks.{i}.mixer.value.")):
                state[name] = pool(weight, mixer.kv_heads, n_kv_heads)
    with torch.random.fork_rng(devices=[]):  # the first weights of the copy are thrown away
        grouped = Transformer(model.config.replace(n_kv_heads=n_kv_heads))
    grouped.to(model.head.weight.device, model.head.weight.dtype)
    grouped.load_state_dict(state)
    return grouped.train(model.training)
