"""Chapter 09: whom it credits with the path of additions, and that the path is there."""

import re
from pathlib import Path

import torch
from torch import nn

from llmtutor.model.presets import build, preset

BOOK = Path(__file__).resolve().parents[2] / "book"


def test_the_path_of_additions_is_credited_to_identity_mappings() -> None:
    """Residual networks came first (CVPR 2016); why the path must stay clean followed (ECCV)."""
    page = (BOOK / "chapters" / "09_transformer.ipynb").read_text(encoding="utf-8")
    assert "path of additions alone to each writer, however deep it lies {cite}`he2016b`" in page
    entries = (BOOK / "references.bib").read_text(encoding="utf-8")
    entry = re.search(r"@inproceedings\{he2016b,.*?\n\}", entries, re.S)
    assert (
        entry and "Identity Mappings in Deep Residual Networks" in entry[0] and "ECCV" in entry[0]
    )


def test_through_silent_layers_the_gradient_arrives_unchanged_at_any_depth() -> None:
    sizes = {"vocab_size": 9, "max_seq_len": 5, "n_layers": 8, "d_model": 8, "n_heads": 2}
    model = build(preset("gpt2-nano", **sizes, d_ff=16))
    for block in model.blocks:
        for writer in (block.mixer.output, block.ffn.down):
            nn.init.zeros_(writer.weight)
            nn.init.zeros_(writer.bias)
    x = torch.randn(1, 5, 8, requires_grad=True)
    y = x
    for block in model.blocks:
        y = block(y)
    gradient = torch.randn(1, 5, 8)
    assert torch.equal(torch.autograd.grad(y, x, gradient)[0], gradient)
