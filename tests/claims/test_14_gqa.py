"""What chapter 14 says of shared heads, and how its formulas are written."""

from pathlib import Path

import nbformat
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmtutor.layers.attention import fused_attention

CHAPTERS = sorted((Path(__file__).parents[2] / "book" / "chapters").glob("[0-9]*.ipynb"))


class Cloned(TorchDispatchMode):
    """Adds up the bytes that are cloned while it watches."""

    nbytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten.clone.default:
            self.nbytes += result.nbytes
        return result


@pytest.mark.parametrize("seq", [1, 20])
def test_the_fused_kernel_repeats_no_shared_head(seq: int) -> None:
    q, k = torch.randn(1, 8, seq, 6), torch.randn(1, 2, 20, 6)
    with Cloned() as watch:
        k.repeat_interleave(4, dim=1)
    assert watch.nbytes == 4 * k.nbytes  # it does notice copies
    with Cloned() as watch:
        fused_attention(q, k, k, causal=True)
    assert watch.nbytes == 0


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_backslash_of_a_formula_became_a_tab(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert [c.id for c in cells if c.cell_type == "markdown" and "\t" in c.source] == []
