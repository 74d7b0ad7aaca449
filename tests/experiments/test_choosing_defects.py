"""A planted defect is the defect that it says it is."""

import torch

from llmtutor.experiments.choosing.defects import zero_first_head
from llmtutor.experiments.choosing.options import SIZES, build_option

SIZE = SIZES["small"]
HEAD_DIM = SIZE.d_model // SIZE.n_heads
IDS = torch.arange(24).reshape(2, 12)


def test_a_missing_head_gives_nothing_and_learns_nothing() -> None:
    model = build_option("head missing", SIZE, 0)
    before = model(IDS)
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.value.weight[:HEAD_DIM].normal_()  # the first head's values
    torch.testing.assert_close(model(IDS), before, rtol=0, atol=0)
    model(IDS).square().mean().backward()
    for block in model.blocks:
        grad = block.mixer.value.weight.grad
        assert (grad[:HEAD_DIM] == 0).all() and (grad[HEAD_DIM:] != 0).any()


def test_losing_a_head_is_the_same_as_zeros_in_the_output_layer() -> None:
    lost, by_hand = build_option("baseline", SIZE, 1), build_option("baseline", SIZE, 1)
    zero_first_head(lost)
    with torch.no_grad():
        for block in by_hand.blocks:
            block.mixer.output.weight[:, :HEAD_DIM] = 0
    torch.testing.assert_close(lost(IDS), by_hand(IDS))
    assert not torch.allclose(lost(IDS), build_option("baseline", SIZE, 1)(IDS))
