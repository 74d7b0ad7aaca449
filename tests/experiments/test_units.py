"""Hidden units: what removing one changes against the model without it, the rule, the readings."""

import copy

import pytest
import torch
from torch import Tensor

from llmtutor.experiments import units
from llmtutor.model.presets import build, preset
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import CharTokenizer


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "max_seq_len": 8, "n_layers": 2, "d_model": 16, "n_heads": 2}
    return build(preset("llama", **sizes, d_ff=24, init="glorot")).double()


@pytest.fixture(scope="module")
def text() -> tuple[Tensor, Tensor]:
    ids = torch.randint(11, (20, 9), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def removed(block: int, unit: int) -> units.Change:
    return lambda i, hidden: (
        hidden.index_fill(-1, torch.tensor(unit), 0.0) if i == block else hidden
    )


def test_a_unit_removed_is_a_model_without_its_column(model, text) -> None:
    pruned = copy.deepcopy(model)
    pruned.blocks[1].get_submodule("ffn.down").weight.data[:, 7] = 0
    with torch.no_grad():
        expected = units.token_losses(pruned, *text)
    torch.testing.assert_close(units.losses_with(model, *text, removed(1, 7)), expected)
    before, values = units.losses_and_values(model, *text)
    assert (before - expected).abs().max() > 1e-6 and values[1].shape == (20, 8, 24)
    with torch.no_grad():  # nothing is left on the model
        torch.testing.assert_close(units.token_losses(model, *text), before)


def test_the_rule_is_the_slope_of_the_loss_as_a_unit_fades(model, text) -> None:
    effect, values = units.effects(model, *text)
    small = 1e-6

    def faded(i: int, hidden: Tensor) -> Tensor:
        scale = torch.ones(24, dtype=hidden.dtype)
        scale[5] = 1 - small
        return hidden * scale if i == 0 else hidden

    before, heard = units.losses_and_values(model, *text)
    slope = (units.losses_with(model, *text, faded) - before).mean() / small
    assert effect.shape == (2, 24)
    assert float(effect[0, 5]) == pytest.approx(float(slope), rel=1e-3)
    torch.testing.assert_close(values[0], heard[0])
    assert all(p.grad is None for p in model.parameters())


def test_readings_end_at_the_strongest_token_of_different_texts() -> None:
    tokenizer = CharTokenizer.from_text("abcd")
    texts = torch.tensor([[0, 1, 2], [3, 2, 1], [1, 1, 1]])
    following = torch.tensor([[1, 2, 3], [2, 1, 0], [1, 1, 1]])
    values = torch.tensor([[1.0, -5.0, 4.0], [0.0, 0.5, 3.0], [0.1, 0.2, 0.0]])
    first, second = units.readings(values, texts, following, tokenizer, k=2, before=1)
    assert (first.words, first.values, first.following) == (["a", "b"], [1.0, -5.0], "c")
    assert (second.words, second.values, second.following) == (["c", "b"], [0.5, 3.0], "a")


def test_where_the_changes_fall() -> None:
    values, change = torch.zeros(2, 100), torch.full((2, 100), 0.5)
    values[0, 3], values[1, 8] = -2.0, 1.0
    change[0, 3], change[1, 8] = 3.0, -7.0
    fall = units.falls(values, change)
    assert fall.where_strong == pytest.approx(-2.0) and fall.elsewhere == pytest.approx(0.5)
    assert fall.share == pytest.approx(10 / (10 + 198 * 0.5))
    assert fall.everywhere.tolist() == pytest.approx([0.525, 0.425])


def test_texts_stand_at_even_distances() -> None:
    inputs, targets = units.texts_of(torch.arange(50).numpy(), 4, 5)
    assert inputs.shape == (4, 5) and torch.equal(targets, inputs + 1)
    assert inputs[:, 0].tolist() == [0, 14, 29, 44]
