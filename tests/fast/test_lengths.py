"""State spaces for texts of any length give what they gave, whatever the length."""

import pytest
import torch

from llmtutor.fast.lengths import any_length
from llmtutor.layers.recurrent.s4d import causal_convolution
from llmtutor.layers.recurrent.scan import sequential_scan
from llmtutor.model.presets import build, preset

SMALL = {"vocab_size": 11, "max_seq_len": 16, "n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 16}


@pytest.mark.parametrize("mixer", ["mamba", "s4d"])
@torch.no_grad()
def test_a_model_for_any_length_is_itself(mixer: str) -> None:
    models = []
    for form in (lambda model: model, any_length):
        torch.manual_seed(0)
        models.append(form(build(preset("llama-nano", **SMALL, mixer=mixer)).double()))
    plain, made = models
    ways = [
        (getattr(m.blocks[1].mixer, "scan", None), getattr(m.blocks[1].mixer, "convolve", None))
        for m in models
    ]
    assert ways[0] == ((sequential_scan, None) if mixer == "mamba" else (None, causal_convolution))
    assert ways[1] != ways[0]
    ids = torch.randint(11, (3, 16), generator=torch.Generator().manual_seed(1))
    for seq in (1, 2, 7, 16):
        torch.testing.assert_close(made(ids[:, :seq]), plain(ids[:, :seq]))
    cache = made.make_caches(3, 16)
    pieces = [made(part, cache=cache) for part in ids.split([5, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), plain(ids))
